// In the place of CUDA's header of that name: what the kernels and launchers use of it, for the
// emulator.
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>
#include <map>

#include "emulator/counts.h"
#include "emulator/emulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict

struct alignas(16) float4 {
  float x, y, z, w;
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
inline const char* cudaGetErrorString(cudaError_t) { return "error of the emulator"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

// Shared memory that a block may ask for: what the smallest of the devices has, and what those have
// that run clusters of the size we want.
inline constexpr std::size_t kEmulatedShared = 64u << 10;
inline constexpr std::size_t kEmulatedClusterShared = 227u << 10;

// The shared memory that a kernel has asked for.
inline std::map<const void*, std::size_t> emulated_shared_limits;
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || static_cast<std::size_t>(value) > kEmulatedClusterShared) {
    return cudaErrorInvalidValue;
  }
  emulated_shared_limits[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension = 4 };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

// Arguments are copied once, as into the constant memory of a launch.
template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...),
                               A&&... arguments) {
  const auto body = [&] { kernel(arguments...); };
  unsigned cluster = 1;
  for (unsigned k = 0; k < config->numAttrs; ++k) {
    const auto& size = config->attrs[k].val.clusterDim;
    if (size.y != 1 || size.z != 1) {
      throw fastltc::emulator::Error("clusters are emulated along x alone");
    }
    cluster = size.x;
  }
  const auto limit = emulated_shared_limits.find(reinterpret_cast<const void*>(kernel));
  if (limit == emulated_shared_limits.end() && config->dynamicSmemBytes > (48u << 10)) {
    throw fastltc::emulator::Error("more than 48 KiB of shared memory, which a kernel asks for");
  }
  if (limit != emulated_shared_limits.end() && config->dynamicSmemBytes > limit->second) {
    throw fastltc::emulator::Error("more shared memory than the kernel has asked for");
  }
  if (cluster == 1 && config->dynamicSmemBytes > kEmulatedShared &&
      !fastltc::emulator::is_counting()) {
    throw fastltc::emulator::Error("more shared memory than every device has");
  }
  // By reference: what a function on the heap has captured would be counted as global memory.
  fastltc::emulator::launch(reinterpret_cast<const void*>(kernel), config->gridDim,
                            config->blockDim, cluster, config->dynamicSmemBytes, std::ref(body));
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  fastltc::emulator::count_copy("memset");
  std::memset(to, value, bytes);
  return cudaSuccess;
}

enum cudaMemcpyKind { cudaMemcpyDeviceToDevice };
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  fastltc::emulator::count_copy("memcpy");
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

inline void __syncthreads() { fastltc::emulator::sync_threads(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { fastltc::emulator::sync_warp(mask); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = fastltc::emulator::lane();
  const int first = lane & ~(width - 1);
  return fastltc::emulator::exchange_value(mask, value, first + (source & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = fastltc::emulator::lane();
  const int source = lane ^ bits;
  const bool inside = source < (lane & ~(width - 1)) + width;
  return fastltc::emulator::exchange_value(mask, value, inside ? source : lane);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const int lane = fastltc::emulator::lane();
  const int source = lane + static_cast<int>(distance);
  const bool inside = source < (lane & ~(width - 1)) + width;
  return fastltc::emulator::exchange_value(mask, value, inside ? source : lane);
}
// By exchanging what each half has.
inline unsigned __ballot_sync(unsigned mask, bool is) {
  unsigned all = is ? 1u << fastltc::emulator::lane() : 0u;
  for (int bits = 16; bits > 0; bits /= 2) all |= __shfl_xor_sync(mask, all, bits);
  return all;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
