// How a batch is shared out over threads and tiles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#include "cpu/frame/arena.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Below about this many sigmoids, waking another thread takes longer than it saves.
inline constexpr int64_t kEvaluationsWorthAThread = 50000;

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

// The registers of samples, shared out evenly: part i takes [begin(i), begin(i + 1)).
template <typename T>
struct Partition {
  int64_t registers = 0;
  int64_t parts = 0;

  // `evaluations` is the work of one sample, in sigmoids.
  Partition(int64_t batch, int64_t evaluations, int threads) {
    registers = (batch + Simd<T>::lanes - 1) / Simd<T>::lanes;
    parts = 1 + evaluations * registers * Simd<T>::lanes / kEvaluationsWorthAThread;
    if (parts > threads) parts = threads;
    if (parts > registers) parts = registers;
  }
  int64_t begin(int64_t part) const { return registers * part / parts; }
  // The widest tile that a part runs.
  int width() const {
    const int64_t most = parts == 0 ? 0 : (registers + parts - 1) / parts;
    int width = kMaxWidth;
    while (width > 1 && width > most) width /= 2;
    return width;
  }
};

// Runs call(width, first sample, samples) for the tiles of one part, widest first. Registers that
// are not full come in tiles of their own.
template <typename T, typename Call>
void for_each_tile(const Partition<T>& partition, int64_t part, int64_t batch, Call call) {
  constexpr int64_t L = Simd<T>::lanes;
  int64_t at = partition.begin(part);
  const int64_t end = partition.begin(part + 1);
  const int64_t full = end * L <= batch ? end : end - 1;
  while (at < full) {
    int width = kMaxWidth;
    while (at + width > full) width /= 2;
    call(width, at * L, static_cast<int>(width * L));
    at += width;
  }
  if (at < end) call(1, at * L, static_cast<int>(batch - at * L));
}

// Bytes that a tile of the given width or of a narrower one takes. The narrower can be the larger:
// how many steps a backward tile puts by is rounded down for each width.
template <template <typename, int> class Tile, typename T, typename... Arguments>
size_t scratch_of(int width, const Arguments&... arguments) {
  size_t most = 0;
  for (; width >= 1; width /= 2) {
    Arena counting;
    if (width == 4) {
      if constexpr (kMaxWidth >= 4) Tile<T, 4>(arguments..., Arena()).take(counting);
    } else if (width == 2) {
      Tile<T, 2>(arguments..., Arena()).take(counting);
    } else {
      Tile<T, 1>(arguments..., Arena()).take(counting);
    }
    if (counting.used() > most) most = counting.used();
  }
  return most;
}

// A tile's width as a type, so that a generic call can take it as a template argument.
template <int W>
struct Width {
  static constexpr int value = W;
};

// Calls run(Width, first sample, samples) for the tiles of one part.
template <typename T, typename Run>
void run_tiles(const Partition<T>& partition, int64_t part, int64_t batch, Run run) {
  for_each_tile(partition, part, batch, [&](int width, int64_t first, int valid) {
    if (width == 4) {
      if constexpr (kMaxWidth >= 4) run(Width<4>(), first, valid);
    } else if (width == 2) {
      run(Width<2>(), first, valid);
    } else {
      run(Width<1>(), first, valid);
    }
  });
}

}  // namespace fastltc::cpu::FASTLTC_ISA
