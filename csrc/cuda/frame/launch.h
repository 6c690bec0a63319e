// Launches kernels; an error of a launch is thrown.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/frame/check.h"
#include "cuda/frame/device.h"

namespace fastltc::cuda {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Kernels go on where their grid ends in y; in x they need it all.
inline dim3 grid(int64_t x, int64_t y = 1, int64_t z = 1) {
  constexpr int64_t most_x = std::numeric_limits<int32_t>::max(), most_y = 65535;
  if (x > most_x || z > most_y) {
    throw std::runtime_error("CUDA: expected at most " +
                             std::to_string(x > most_x ? most_x : most_y) +
                             " blocks of a launch, got " + std::to_string(x > most_x ? x : z) +
                             ": a batch of fewer samples or steps takes fewer");
  }
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(std::min(y, most_y)),
              static_cast<unsigned>(z));
}

// Held from asking for shared memory to the launch that needs it.
inline std::mutex shared_memory_of_kernels;

template <typename... P>
void allow_shared(const char* name, void (*kernel)(P...), size_t bytes) {
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        name);
}

// `threads` in x; shared memory in bytes; `cluster` neighbouring blocks make a cluster, which takes
// compute capability 9.0.
struct LaunchConfig {
  cudaLaunchAttribute attribute{};
  cudaLaunchConfig_t call{};

  LaunchConfig(dim3 blocks, int threads, int cluster, size_t shared, cudaStream_t stream) {
    call.gridDim = blocks;
    call.blockDim = dim3(static_cast<unsigned>(threads));
    call.dynamicSmemBytes = shared;
    call.stream = stream;
    if (cluster == 1) return;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    call.attrs = &attribute;
    call.numAttrs = 1;
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;
};

template <typename... P, typename... A>
void launch_clusters(const char* name, void (*kernel)(P...), dim3 blocks, int threads, int cluster,
                     size_t shared, cudaStream_t stream, const A&... arguments) {
  if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0) return;
  // More than any kernel may use without asking. The limit is the kernel's, whoever set it last:
  // another thread could lower it before this one has launched.
  std::unique_lock<std::mutex> asking;
  if (shared > (48u << 10)) {
    asking = std::unique_lock(shared_memory_of_kernels);
    allow_shared(name, kernel, shared);
  }
  const LaunchConfig config(blocks, threads, cluster, shared, stream);
  check(cudaLaunchKernelEx(&config.call, kernel, P(arguments)...), name);
}

template <typename... P, typename... A>
void launch(const char* name, void (*kernel)(P...), dim3 blocks, int threads, size_t shared,
            cudaStream_t stream, const A&... arguments) {
  launch_clusters(name, kernel, blocks, threads, 1, shared, stream, arguments...);
}

// A thread for each of n.
template <typename... P, typename... A>
void launch_threads(const char* name, void (*kernel)(P...), int64_t n, cudaStream_t stream,
                    const A&... arguments) {
  launch(name, kernel, grid(ceil_div(n, kBlockThreads)), kBlockThreads, 0, stream, arguments...);
}
// Lanes for rows, warps for channels (each_row).
template <typename... P, typename... A>
void launch_rows(const char* name, void (*kernel)(P...), int64_t rows, int64_t channels,
                 cudaStream_t stream, const A&... arguments) {
  launch(name, kernel, grid(ceil_div(rows, kWarp), ceil_div(channels, kBlockWarps)), kBlockThreads,
         0, stream, arguments...);
}

}  // namespace fastltc::cuda
