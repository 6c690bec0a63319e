// Devices of this library's CUDA runtime. All throw std::runtime_error.
#pragma once

#include <cstdint>

namespace fastltc::cuda {

// Makes a device the current one. The first call sees to it that the driver is new enough for the
// runtime.
void set_device(int index);

// Bytes of shared memory that a block of a device may ask for.
int64_t shared_limit(int index);

// While it lives, this thread may do what a capture of its streams into a graph else forbids: the
// first use of a kernel loads its code, and of a device asks what it can do.
class RelaxedCapture {
 public:
  RelaxedCapture();
  ~RelaxedCapture();
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  int before_ = 0;
};

}  // namespace fastltc::cuda
