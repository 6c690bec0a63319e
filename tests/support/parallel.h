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
    std::vector<std::thread> workers;
    for (int64_t i = 0; i < n; ++i) workers.emplace_back(body, context, i);
    for (std::thread& worker : workers) worker.join();
  };
  return result;
}

}  // namespace fastltc::test
