// Threads for the kernels where there is no torch.
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

#include "core/sequence.h"

namespace fastltc::test {

inline Parallel parallel(int threads) {
  Parallel result;
  result.threads = threads;
  result.run = [](int64_t n, void (*body)(void*, int64_t), void* context) {
    // The caller takes a share, as it does in torch; a thread is slow to start under sanitizers.
    std::vector<std::thread> workers;
    for (int64_t i = 1; i < n; ++i) workers.emplace_back(body, context, i);
    if (n > 0) body(context, 0);
    for (std::thread& worker : workers) worker.join();
  };
  return result;
}

}  // namespace fastltc::test
