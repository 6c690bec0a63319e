// The memory of a call: blocks, and a bump allocator over one of them, sized by a dry run of the
// same calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

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

// Aligned memory for the time of a call.
class Block {
 public:
  explicit Block(size_t bytes)
      : data_(static_cast<char*>(::operator new(bytes + 1, std::align_val_t{64}))) {}
  ~Block() { ::operator delete(data_, std::align_val_t{64}); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  char* data() const { return data_; }

 private:
  char* data_;
};

// A packed layer in a block of its own. Layer has take(arena, in, with_backward) and fill(in,
// with_backward).
template <typename Layer>
class InBlock {
 public:
  template <typename Inputs>
  InBlock(const Inputs& in, bool with_backward) : block_(bytes(in, with_backward)) {
    Arena arena(block_.data());
    layer.take(arena, in, with_backward);
    layer.fill(in, with_backward);
  }
  Layer layer;

 private:
  template <typename Inputs>
  static size_t bytes(const Inputs& in, bool with_backward) {
    Layer counted;
    Arena counting;
    counted.take(counting, in, with_backward);
    return counting.used();
  }
  Block block_;
};

}  // namespace fastltc::cpu::FASTLTC_ISA
