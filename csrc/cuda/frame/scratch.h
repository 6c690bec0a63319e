// The scratch memory of a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace fastltc::cuda {

// Gives so many bytes of the device's memory, aligned to 256, for as long as the kernels of a call
// run. Their content is not read.
using Allocate = std::function<void*(size_t bytes)>;

// Hands out parts of a block; with no block it only counts the bytes.
class Scratch {
 public:
  explicit Scratch(void* base = nullptr) : base_(static_cast<unsigned char*>(base)) {}

  template <typename T>
  T* take(int64_t count) {
    unsigned char* const at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + kAlign - 1) / kAlign * kAlign;
    return reinterpret_cast<T*>(at);
  }
  size_t used() const { return used_; }

 private:
  static constexpr size_t kAlign = 256;
  unsigned char* base_;
  size_t used_ = 0;
};

// What take(scratch) returns when it takes from memory of the size that it takes.
template <typename Take>
auto in_scratch(const Allocate& allocate, const Take& take) {
  Scratch counting;
  take(counting);
  Scratch memory(allocate(counting.used()));
  return take(memory);
}

}  // namespace fastltc::cuda
