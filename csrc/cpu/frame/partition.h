// How a batch is shared out over threads and tiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/sequence.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"
#include "cpu/frame/subnormals.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Below about this many sigmoids, waking another thread takes longer than it saves.
inline constexpr int64_t kEvaluationsWorthAThread = 50000;

// The registers of samples, shared out evenly: part i takes [begin(i), begin(i + 1)). With network
// lanes a sample is one of all networks, and fills a register.
template <typename T>
struct Partition {
  int64_t registers = 0;
  int64_t parts = 0;

  // `evaluations` is the work of one sample, of one network, in sigmoids.
  Partition(int64_t batch, int64_t evaluations, int threads, Lanes kind = Lanes::samples) {
    const int64_t in_register = kind == Lanes::networks ? 1 : Simd<T>::lanes;
    registers = (batch + in_register - 1) / in_register;
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

// A value as a type, so that a generic call can take it as a template argument.
template <auto constant>
struct Constant {
  static constexpr auto value = constant;
};

// Calls call(Constant<value>); the last of the constants stands for all others.
template <auto first, auto... others, typename Call>
FASTLTC_INLINE void static_switch(decltype(first) value, Call call) {
  if constexpr (sizeof...(others) > 0) {
    if (value != first) return static_switch<others...>(value, call);
  }
  call(Constant<first>());
}
template <typename Call>
FASTLTC_INLINE void with_width(int width, Call call) {
  if constexpr (kMaxWidth >= 4) {
    static_switch<4, 2, 1>(width, call);
  } else {
    static_switch<2, 1>(width, call);
  }
}

// Calls run(Constant<width>, first sample, samples) for the tiles of one part, widest first.
// Registers that are not full come in tiles of their own.
template <typename T, typename Run>
void run_tiles(const Partition<T>& partition, int64_t part, int64_t batch, Run run) {
  constexpr int64_t L = Simd<T>::lanes;
  int64_t at = partition.begin(part);
  const int64_t end = partition.begin(part + 1);
  const int64_t full = end * L <= batch ? end : end - 1;
  while (at < full) {
    int width = kMaxWidth;
    while (at + width > full) width /= 2;
    with_width(width, [&](auto w) { run(w, at * L, static_cast<int>(width * L)); });
    at += width;
  }
  if (at < end) run(Constant<1>(), at * L, static_cast<int>(batch - at * L));
}

// Bytes that take(Constant<width>, arena) takes for a tile of the given width or of a narrower one.
// The narrower can be the larger: how many steps a backward tile puts by is rounded down for each.
template <typename Take>
size_t most_bytes(int width, Take take) {
  size_t most = 0;
  for (; width >= 1; width /= 2) {
    const size_t bytes =
        bytes_of([&](Arena& arena) { with_width(width, [&](auto w) { take(w, arena); }); });
    if (bytes > most) most = bytes;
  }
  return most;
}

// Runs body(part) for all parts, on the threads. Subnormal numbers are zeros in it.
template <typename Body>
void run_parts(const Parallel& parallel, int64_t parts, const Body& body) {
  const auto run = [](void* context, int64_t part) {
    const FlushSubnormals flush;
    (*static_cast<const Body*>(context))(part);
  };
  parallel.run(parts, run, const_cast<Body*>(&body));
}

// Runs body(begin, end) for the parts of [0, count), of which there are at most `parts`.
template <typename Body>
void run_ranges(const Parallel& parallel, int64_t count, int64_t parts, const Body& body) {
  if (parts > parallel.threads) parts = parallel.threads;
  if (parts > count) parts = count;
  run_parts(parallel, parts,
            [&](int64_t part) { body(count * part / parts, count * (part + 1) / parts); });
}

}  // namespace fastltc::cpu::FASTLTC_ISA
