#include "cuda/set_device.h"

#include <cuda_runtime.h>

#include "cuda/frame/check.h"

namespace fastltc::cuda {

void set_device(int index) { check(cudaSetDevice(index), "cudaSetDevice"); }

int64_t shared_limit(int index) {
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index),
        "cudaDeviceGetAttribute");
  return bytes;
}

}  // namespace fastltc::cuda
