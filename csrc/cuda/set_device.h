// Makes a device the current one of this library's CUDA runtime.
#pragma once

namespace fastltc::cuda {

// Throws std::runtime_error.
void set_device(int index);

}  // namespace fastltc::cuda
