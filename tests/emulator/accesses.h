// Which accesses to memory race: two of different threads to the same four bytes, one of them a
// write, with no barrier between them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <unordered_map>

namespace fastltc::emulator {

inline constexpr int kWarp = 32;

// Who accessed four bytes, and when, as barriers count it.
struct Access {
  int64_t cluster = -1;
  int64_t block = -1;
  int thread = 0;
  uint32_t block_epoch = 0;
  uint32_t warp_epoch = 0;
  // Of the thread at the cluster's barrier. What comes before an arrival is ordered before what
  // comes after another thread's wait of the same number, and nothing else is.
  int arrivals = 0;
  int waits = 0;

  int warp() const { return thread / kWarp; }
};

// The reads since the last write, no more of them than a write to come can race with: once a
// barrier has passed, those before it are done with. Of the others, the most arrivals that one had
// behind it; -1: there are none.
struct Reads {
  Access last;
  bool other_clusters = false;
  int same_block = -1;     // all of the last one's block, whatever its barriers
  int other_blocks = -1;   // of its cluster
  int other_warps = -1;    // in the same epoch of the block
  int other_threads = -1;  // in the same epoch of the warp

  Reads() = default;
  explicit Reads(const Access& access) : last(access), same_block(access.arrivals) {}

  void add(const Access& read) {
    if (last.block < 0) {
      *this = Reads(read);
      return;
    }
    if (last.cluster != read.cluster) other_clusters = true;
    if (last.block != read.block) {
      other_blocks = std::max(other_blocks, same_block);
      same_block = other_warps = other_threads = -1;
    } else if (last.block_epoch != read.block_epoch) {
      other_warps = other_threads = -1;
    } else if (last.warp() != read.warp()) {
      other_warps = std::max({other_warps, other_threads, last.arrivals});
      other_threads = -1;
    } else if (last.warp_epoch != read.warp_epoch) {
      other_threads = -1;
    } else if (last.thread != read.thread) {
      other_threads = std::max(other_threads, last.arrivals);
    }
    same_block = std::max(same_block, read.arrivals);
    last = read;
  }
};

// Whether no barrier lies between an access (and others like it) and a later one.
inline bool race(const Reads& earlier, const Access& later) {
  const Access& last = earlier.last;
  if (last.block < 0) return false;
  if (earlier.other_clusters || last.cluster != later.cluster) return true;
  if (earlier.other_blocks >= later.waits) return true;
  if (last.block != later.block) return earlier.same_block >= later.waits;
  if (last.block_epoch != later.block_epoch) return false;
  if (earlier.other_warps >= later.waits) return true;
  if (last.warp() != later.warp()) {
    return std::max(earlier.other_threads, last.arrivals) >= later.waits;
  }
  if (last.warp_epoch != later.warp_epoch) return false;
  if (earlier.other_threads >= later.waits) return true;
  return last.thread != later.thread && last.arrivals >= later.waits;
}

struct Shadow {
  Reads write;  // the last one alone
  Reads reads;
};

// The shadows of all words, by pages.
class Shadows {
 public:
  Shadow& of(uintptr_t word) {
    const uintptr_t page = word / kWords;
    if (last_ == nullptr || page != last_page_) {
      auto& entry = pages_[page];
      if (entry == nullptr) entry = std::make_unique<Shadow[]>(kWords);
      last_ = entry.get();
      last_page_ = page;
    }
    return last_[word % kWords];
  }
  bool empty() const { return pages_.empty(); }
  void clear() {
    pages_.clear();
    last_ = nullptr;
  }

 private:
  static constexpr uintptr_t kWords = 256;
  std::unordered_map<uintptr_t, std::unique_ptr<Shadow[]>> pages_;
  Shadow* last_ = nullptr;
  uintptr_t last_page_ = 0;
};

}  // namespace fastltc::emulator
