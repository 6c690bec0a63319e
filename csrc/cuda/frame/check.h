// Errors of the CUDA runtime, thrown.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace fastltc::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
}

}  // namespace fastltc::cuda
