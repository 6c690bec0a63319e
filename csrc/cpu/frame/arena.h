// A bump allocator over one aligned block, sized by a dry run of the same calls.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastltc::cpu::FASTLTC_ISA {

class Arena {
 public:
  // With no block it only counts.
  explicit Arena(char* block = nullptr) : block_(block) {}

  template <typename T>
  T* take(int64_t count) {
    const size_t at = used_;
    // Whole cache lines, so that neighbours never share one between threads.
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + at);
  }
  size_t used() const { return used_; }

 private:
  char* block_;
  size_t used_ = 0;
};

}  // namespace fastltc::cpu::FASTLTC_ISA
