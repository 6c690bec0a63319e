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

// Bytes of the arrays that take(arena) takes.
template <typename Take>
size_t bytes_of(const Take& take) {
  Arena counting;
  take(counting);
  return counting.used();
}

// Memory for these arrays, from which they have been taken.
struct BlockOf : Block {
  template <typename Take>
  explicit BlockOf(const Take& take) : Block(bytes_of(take)) {
    Arena arena(data());
    take(arena);
  }
};

// A packed layer in a block of its own. Layer has take(arena, in, with_backward) and fill(in,
// with_backward).
template <typename Layer>
class InBlock {
 public:
  template <typename Inputs>
  InBlock(const Inputs& in, bool with_backward)
      : block_([&](Arena& arena) { layer.take(arena, in, with_backward); }) {
    layer.fill(in, with_backward);
  }
  Layer layer;

 private:
  BlockOf block_;
};

}  // namespace fastltc::cpu::FASTLTC_ISA
