// Hands out parts of a block of device memory; with no block it only counts the bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastltc::cuda {

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

}  // namespace fastltc::cuda
