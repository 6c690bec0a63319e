// Matrix products with rows of lanes: out[row] = bias[row] + sum_k weight[row, k] in[k].
#pragma once

#include "cpu/frame/arena.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Rows of a weight that are computed together: enough independent sums to hide the latency of a
// multiply-add, few enough for the registers of the widest tile.
inline constexpr int kRowBlock = 4;

inline int64_t padded_rows(int64_t rows) { return (rows + kRowBlock - 1) / kRowBlock * kRowBlock; }

// A weight packed in blocks of rows, [block][k][kRowBlock]; rows past the last are zero.
template <typename T>
struct PackedWeight {
  int64_t rows = 0;
  int64_t inputs = 0;
  T* weight = nullptr;
  T* bias = nullptr;  // [padded rows]

  void take(Arena& arena, int64_t row_count, int64_t input_count) {
    rows = row_count;
    inputs = input_count;
    weight = arena.take<T>(padded_rows(rows) * inputs);
    bias = arena.take<T>(padded_rows(rows));
  }
  void clear() {
    for (int64_t k = 0; k < padded_rows(rows) * inputs; ++k) weight[k] = T(0);
    for (int64_t k = 0; k < padded_rows(rows); ++k) bias[k] = T(0);
  }
  T& at(int64_t row, int64_t k) {
    return weight[(row / kRowBlock * inputs + k) * kRowBlock + row % kRowBlock];
  }
  // Packs the transpose of another weight, without bias.
  void transpose_of(PackedWeight& other) {
    clear();
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t k = 0; k < inputs; ++k) at(row, k) = other.at(k, row);
    }
  }
};

template <typename T, int W>
FASTLTC_INLINE void multiply_add(const T* weight, int64_t count, Rows<const T> in,
                                 typename Simd<T>::vec (&sum)[kRowBlock][W]) {
  using S = Simd<T>;
  for (int64_t k = 0; k < count; ++k) {
#pragma GCC unroll 4
    for (int r = 0; r < W; ++r) {
      const auto x = S::load(in.at(r, k));
#pragma GCC unroll 4
      for (int i = 0; i < kRowBlock; ++i) sum[i][r] += x * weight[k * kRowBlock + i];
    }
  }
}

// The inputs are the rows of `first` and then those of `second`. Writes padded_rows(rows) rows.
template <typename T, int W>
void dense_rows(const PackedWeight<T>& weight, Rows<const T> first, int64_t first_count,
                Rows<const T> second, int64_t second_count, Rows<T> out) {
  using S = Simd<T>;
  for (int64_t row = 0; row < weight.rows; row += kRowBlock) {
    typename S::vec sum[kRowBlock][W];
    for (int i = 0; i < kRowBlock; ++i) {
      for (int r = 0; r < W; ++r) sum[i][r] = S::set(weight.bias[row + i]);
    }
    const T* const at = weight.weight + row * weight.inputs;
    multiply_add<T, W>(at, first_count, first, sum);
    multiply_add<T, W>(at + first_count * kRowBlock, second_count, second, sum);
    for (int i = 0; i < kRowBlock; ++i) {
      for (int r = 0; r < W; ++r) S::store(out.at(r, row + i), sum[i][r]);
    }
  }
}

// How many steps' factors of outer products are put by, of `rows` rows of a tile: what should stay
// in the second cache until it is multiplied.
inline int64_t steps_put_by(int64_t rows, int width, int64_t steps) {
  constexpr int64_t bytes = 256 * 1024;
  int64_t count = bytes / (rows * width * kVectorBytes + 1);
  if (count > 32) count = 32;
  if (count < 1) count = 1;
  return count < steps ? count : steps;
}

// The gradient of a weight is a sum of outer products over samples and steps. Rows of both factors
// are put by for a number of steps, then a block of 4 x 4 entries runs over them in registers.
template <typename T>
struct OuterProducts {
  using S = Simd<T>;
  using vec = typename S::vec;

  int64_t rows = 0;     // padded
  int64_t columns = 0;  // padded
  T* left = nullptr;    // [places][rows][lanes], the gradients of the product
  T* right = nullptr;   // [places][columns][lanes], its inputs
  T* sums = nullptr;  // [rows][columns / 4][Simd::sums_per_synapse], then [rows][lanes] of the bias

  static int64_t sums_count(int64_t row_count, int64_t column_count) {
    return padded_rows(row_count) *
           (padded_rows(column_count) / kRowBlock * S::sums_per_synapse + S::lanes);
  }

  void take(Arena& arena, int64_t row_count, int64_t column_count, int64_t places) {
    rows = padded_rows(row_count);
    columns = padded_rows(column_count);
    left = arena.take<T>(places * rows * S::lanes);
    right = arena.take<T>(places * columns * S::lanes);
  }
  T* bias_sums() const { return sums + rows * (columns / kRowBlock) * S::sums_per_synapse; }
  T* left_at(int64_t place) const { return left + place * rows * S::lanes; }
  T* right_at(int64_t place) const { return right + place * columns * S::lanes; }

  // Adds the products of the first `places` pairs to the sums.
  void add(int64_t places) {
    for (int64_t row = 0; row < rows; row += kRowBlock) {
      for (int64_t column = 0; column < columns; column += kRowBlock) {
        vec sum[kRowBlock][kRowBlock] = {};
        for (int64_t place = 0; place < places; ++place) {
          const T* const l = left_at(place) + row * S::lanes;
          const T* const r = right_at(place) + column * S::lanes;
          vec factor[kRowBlock];
#pragma GCC unroll 4
          for (int k = 0; k < kRowBlock; ++k) factor[k] = S::load(r + k * S::lanes);
#pragma GCC unroll 4
          for (int i = 0; i < kRowBlock; ++i) {
            const vec g = S::load(l + i * S::lanes);
#pragma GCC unroll 4
            for (int k = 0; k < kRowBlock; ++k) sum[i][k] += g * factor[k];
          }
        }
        for (int i = 0; i < kRowBlock; ++i) {
          T* const at =
              sums + ((row + i) * (columns / kRowBlock) + column / kRowBlock) * S::sums_per_synapse;
          S::add_four(at, sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
        }
      }
      for (int i = 0; i < kRowBlock; ++i) {
        vec sum{};
        for (int64_t place = 0; place < places; ++place) {
          sum += S::load(left_at(place) + (row + i) * S::lanes);
        }
        T* const at = bias_sums() + (row + i) * S::lanes;
        S::store(at, S::load(at) + sum);
      }
    }
  }

  T weight_sum(int64_t row, int64_t column) const {
    const T* const four = sums +
                          (row * (columns / kRowBlock) + column / kRowBlock) * S::sums_per_synapse +
                          column % kRowBlock * S::block;
    T total = four[0];
    for (int l = 1; l < S::block; ++l) total += four[l];
    return total;
  }
  T bias_sum(int64_t row) const { return S::sum(S::load(bias_sums() + row * S::lanes)); }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
