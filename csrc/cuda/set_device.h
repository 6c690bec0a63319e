// Devices of this library's CUDA runtime. Both throw std::runtime_error.
#pragma once

#include <cstdint>

namespace fastltc::cuda {

// Makes a device the current one.
void set_device(int index);

// Bytes of shared memory that a block of a device may ask for.
int64_t shared_limit(int index);

}  // namespace fastltc::cuda
