#include "cuda/set_device.h"

#include <cuda_runtime.h>

#include "cuda/launch.h"

namespace fastltc::cuda {

void set_device(int index) { check(cudaSetDevice(index), "cudaSetDevice"); }

}  // namespace fastltc::cuda
