// Between a [B, T, C] tensor and rows of lanes: one register holds one channel of `lanes` samples,
// or of one sample of as many networks.
#pragma once

#include "core/sequence.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// W parts of rows of lanes; part r starts r * stride after the first.
template <typename T>
struct Rows {
  static constexpr int lanes = kVectorBytes / static_cast<int>(sizeof(T));
  T* data = nullptr;
  int64_t stride = 0;

  void take(Arena& arena, int width, int64_t rows) {
    stride = rows * lanes;
    data = arena.take<T>(width * stride);
  }
  FASTLTC_INLINE T* at(int r, int64_t row) const { return data + r * stride + row * lanes; }
  // The rows from one on.
  FASTLTC_INLINE Rows from(int64_t row) const { return {data + row * lanes, stride}; }
};

// A small square of a matrix, transposed in 16-byte registers: 4 x 4 floats or 2 x 2 doubles.
template <typename T>
struct TransposeBlock;

template <>
struct TransposeBlock<float> {
  static constexpr int size = 4;
  typedef float row __attribute__((vector_size(16), may_alias, aligned(4)));
  static FASTLTC_INLINE void apply(row (&m)[4]) {
    const row low01 = __builtin_shufflevector(m[0], m[1], 0, 4, 1, 5);
    const row low23 = __builtin_shufflevector(m[2], m[3], 0, 4, 1, 5);
    const row high01 = __builtin_shufflevector(m[0], m[1], 2, 6, 3, 7);
    const row high23 = __builtin_shufflevector(m[2], m[3], 2, 6, 3, 7);
    m[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
    m[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
    m[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
    m[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
  }
};

template <>
struct TransposeBlock<double> {
  static constexpr int size = 2;
  typedef double row __attribute__((vector_size(16), may_alias, aligned(8)));
  static FASTLTC_INLINE void apply(row (&m)[2]) {
    const row first = __builtin_shufflevector(m[0], m[1], 0, 2);
    m[1] = __builtin_shufflevector(m[0], m[1], 1, 3);
    m[0] = first;
  }
};

// What a lane is: a sample, of a network whose parameters all lanes share, or a network with
// parameters of its own, of which all run the same sample.
enum class Lanes { samples, networks };

// A parameter as a cell reads it: one number, or with network lanes that of each lane.
template <typename T, Lanes kind>
struct Parameter {
  static constexpr int64_t width = kind == Lanes::networks ? Simd<T>::lanes : 1;

  static FASTLTC_INLINE auto at(const T* values, int64_t k) {
    if constexpr (kind == Lanes::networks) {
      return Simd<T>::load(values + k * width);
    } else {
      return values[k];
    }
  }
};

// Samples [first, first + valid) of a tile of one register; with network lanes sample `first` of so
// many networks, whose channels stand beside each other.
struct LaneGroup {
  int64_t first = 0;
  int valid = 0;  // 1 to lanes
  Lanes kind = Lanes::samples;

  int64_t sample(int l) const { return kind == Lanes::networks ? first : first + l; }
  // From a lane's values in a view to those of the next.
  template <typename T>
  int64_t distance(const SequenceView<T>& view, int64_t channels) const {
    return kind == Lanes::networks ? channels * view.stride_c : view.stride_b;
  }
  // Where values of its lanes are kept, in lanes.
  int64_t kept_from() const { return kind == Lanes::networks ? first * valid : first; }
};

// rows[c][l] = view[first + l, t, c]. Lanes past the valid ones repeat the last sample, so that
// whatever is computed in them is as well behaved as what is computed for it.
template <typename T>
void load_rows(const SequenceView<const T>& view, int64_t t, int64_t channels, LaneGroup group,
               T* rows) {
  constexpr int lanes = Simd<T>::lanes;
  constexpr int size = TransposeBlock<T>::size;
  using Row = typename TransposeBlock<T>::row;
  const T* sample[lanes];
  const T* const base = view.data + group.first * view.stride_b + t * view.stride_t;
  const int64_t distance = group.distance(view, channels);
  for (int l = 0; l < lanes; ++l) {
    sample[l] = base + (l < group.valid ? l : group.valid - 1) * distance;
  }
  int64_t c = 0;
  if (view.stride_c == 1) {
    for (; c + size <= channels; c += size) {
      for (int l = 0; l < lanes; l += size) {
        Row m[size];
        for (int k = 0; k < size; ++k) m[k] = *reinterpret_cast<const Row*>(sample[l + k] + c);
        TransposeBlock<T>::apply(m);
        for (int k = 0; k < size; ++k) *reinterpret_cast<Row*>(rows + (c + k) * lanes + l) = m[k];
      }
    }
  }
  for (; c < channels; ++c) {
    for (int l = 0; l < lanes; ++l) rows[c * lanes + l] = sample[l][c * view.stride_c];
  }
}

// A step's lengths, `channels` for each sample, none longer than kLongestStep.
template <typename T>
void load_timespans(const SequenceView<const T>& view, int64_t t, int64_t channels, LaneGroup group,
                    T* rows) {
  using S = Simd<T>;
  load_rows(view, t, channels, group, rows);
  for (int64_t c = 0; c < channels; ++c) {
    T* const at = rows + c * S::lanes;
    S::store(at, S::at_most(S::load(at), kLongestStep<T>));
  }
}

// view[first + l, t, c] = rows[c][l] for the valid lanes.
template <typename T>
void store_rows(const SequenceView<T>& view, int64_t t, int64_t channels, LaneGroup group,
                const T* rows) {
  constexpr int lanes = Simd<T>::lanes;
  constexpr int size = TransposeBlock<T>::size;
  using Row = typename TransposeBlock<T>::row;
  T* const base = view.data + group.first * view.stride_b + t * view.stride_t;
  const int64_t distance = group.distance(view, channels);
  int64_t c = 0;
  if (view.stride_c == 1 && group.valid == lanes) {
    for (; c + size <= channels; c += size) {
      for (int l = 0; l < lanes; l += size) {
        Row m[size];
        for (int k = 0; k < size; ++k)
          m[k] = *reinterpret_cast<const Row*>(rows + (c + k) * lanes + l);
        TransposeBlock<T>::apply(m);
        for (int k = 0; k < size; ++k)
          *reinterpret_cast<Row*>(base + (l + k) * distance + c) = m[k];
      }
    }
  }
  for (; c < channels; ++c) {
    for (int l = 0; l < group.valid; ++l)
      base[l * distance + c * view.stride_c] = rows[c * lanes + l];
  }
}

// view[first + l, t, :] = 0 for t in [begin, end).
template <typename T>
void zero_steps(const SequenceView<T>& view, int64_t begin, int64_t end, int64_t channels,
                LaneGroup group) {
  const int64_t distance = group.distance(view, channels);
  for (int64_t t = begin; t < end; ++t) {
    for (int l = 0; l < group.valid; ++l) {
      T* const at = view.data + group.first * view.stride_b + l * distance + t * view.stride_t;
      for (int64_t c = 0; c < channels; ++c) at[c * view.stride_c] = T(0);
    }
  }
}

template <typename T>
void clear(T* values, int64_t count) {
  for (int64_t k = 0; k < count; ++k) values[k] = T(0);
}

// Which lanes still run at step t: all ones or all zeros in each lane's bits.
template <typename T>
struct ActiveLanes {
  using S = Simd<T>;
  typename S::ivec mask = typename S::ivec{} - 1;
  bool all = true;

  ActiveLanes() = default;
  FASTLTC_INLINE ActiveLanes(const SequenceInputs<T>& in, LaneGroup group, int64_t t) {
    if (in.lengths == nullptr) return;
    for (int l = 0; l < S::lanes; ++l) {
      const int64_t b = group.sample(l < group.valid ? l : group.valid - 1);
      if (in.lengths[b * in.lengths_stride] <= t) {
        mask[l] = 0;
        all = false;
      }
    }
  }
};

// Writes `value` into the lanes that do not run any more, in each row.
template <typename T>
void overwrite_inactive(const ActiveLanes<T>& active, T value, int64_t count, T* rows) {
  using S = Simd<T>;
  for (int64_t c = 0; c < count; ++c) {
    T* const at = rows + c * S::lanes;
    S::store(at, active.mask ? S::load(at) : S::set(value));
  }
}

// The longest of a group's sequences.
template <typename T>
int64_t last_step(const SequenceInputs<T>& in, LaneGroup group) {
  if (in.lengths == nullptr) return in.size.T;
  int64_t longest = 0;
  for (int l = 0; l < group.valid; ++l) {
    const int64_t length = in.lengths[group.sample(l) * in.lengths_stride];
    if (length > longest) longest = length;
  }
  return longest;
}

// The groups of a tile of samples [first, first + valid); fewer than W * lanes only where W is 1. A
// tile runs as long as its longest group. What is kept of a group ends with the group's own last
// step, because the pass that reads it may have other tiles: they follow the number of threads.
template <typename T, int W>
struct TileGroups {
  LaneGroup group[W];
  int64_t last[W] = {};  // the group's own steps
  int64_t steps = 0;     // of the longest

  TileGroups() = default;
  TileGroups(const SequenceInputs<T>& in, int64_t first, int valid, Lanes kind) {
    constexpr int L = Simd<T>::lanes;
    for (int r = 0; r < W; ++r) {
      group[r] = {first + r * L, valid < W * L ? valid : L, kind};
      last[r] = last_step(in, group[r]);
      if (last[r] > steps) steps = last[r];
    }
  }
};

// Rows of lanes to and from the kept values of a group, whose rows are as wide as the group.
template <typename T>
FASTLTC_INLINE void keep_rows(T* kept, const T* rows, int64_t count, LaneGroup group) {
  using S = Simd<T>;
  for (int64_t c = 0; c < count; ++c) {
    if (group.valid == S::lanes) {
      S::store(kept + c * S::lanes, S::load(rows + c * S::lanes));
    } else {
      S::store_first(kept + c * group.valid, S::load(rows + c * S::lanes), group.valid);
    }
  }
}
template <typename T>
FASTLTC_INLINE void kept_rows(const T* kept, T* rows, int64_t count, LaneGroup group) {
  using S = Simd<T>;
  for (int64_t c = 0; c < count; ++c) {
    if (group.valid == S::lanes) {
      S::store(rows + c * S::lanes, S::load(kept + c * S::lanes));
    } else {
      // As in load_rows: lanes past the valid ones repeat the last sample.
      S::store(rows + c * S::lanes, S::load_repeated(kept + c * group.valid, group.valid));
    }
  }
}

template <typename T>
void clear_rows(T* rows, int64_t count) {
  for (int64_t k = 0; k < count * Simd<T>::lanes; ++k) rows[k] = T(0);
}

// Lanes without a sample have no gradient.
template <typename T>
void clear_lanes_past(LaneGroup group, int64_t count, T* rows) {
  if (group.valid == Simd<T>::lanes) return;
  for (int64_t c = 0; c < count; ++c) {
    for (int l = group.valid; l < Simd<T>::lanes; ++l) rows[c * Simd<T>::lanes + l] = T(0);
  }
}

template <typename T>
FASTLTC_INLINE Rows<const T> constant(Rows<T> rows, int64_t first_row = 0) {
  return {rows.data + first_row * Simd<T>::lanes, rows.stride};
}

// `count` rows, then zeros up to `padded`.
template <typename T>
FASTLTC_INLINE void copy_rows(const T* from, int64_t count, T* to, int64_t padded) {
  using S = Simd<T>;
  for (int64_t k = 0; k < count; ++k) S::store(to + k * S::lanes, S::load(from + k * S::lanes));
  clear_rows(to + count * S::lanes, padded - count);
}

template <typename T, int W>
FASTLTC_INLINE void copy_tile(Rows<const T> from, int64_t count, Rows<T> to) {
  for (int r = 0; r < W; ++r) copy_rows<T>(from.at(r, 0), count, to.at(r, 0), count);
}

// Channels [begin, begin + count) of the states of a tile's samples, [B, state]. Zeros where there
// is no view.
template <typename T, int W>
void load_state(SequenceView<const T> view, int64_t begin, int64_t count,
                const LaneGroup (&group)[W], Rows<T> rows) {
  if (view.data != nullptr) view.data += begin * view.stride_c;
  for (int r = 0; r < W; ++r) {
    if (view.data != nullptr) {
      load_rows(view, 0, count, group[r], rows.at(r, 0));
    } else {
      clear_rows(rows.at(r, 0), count);
    }
  }
}
template <typename T, int W>
void store_state(SequenceView<T> view, int64_t begin, int64_t count, const LaneGroup (&group)[W],
                 Rows<T> rows) {
  view.data += begin * view.stride_c;
  for (int r = 0; r < W; ++r) store_rows(view, 0, count, group[r], rows.at(r, 0));
}
// The same of gradients, of which lanes without a sample have none.
template <typename T, int W>
void load_state_gradient(const SequenceView<const T>& view, int64_t begin, int64_t count,
                         const LaneGroup (&group)[W], Rows<T> rows) {
  load_state(view, begin, count, group, rows);
  for (int r = 0; r < W; ++r) clear_lanes_past(group[r], count, rows.at(r, 0));
}

}  // namespace fastltc::cpu::FASTLTC_ISA
