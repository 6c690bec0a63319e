// Matrix products with rows of lanes: out[row] = bias[row] + sum_k weight[row, k] in[k].
#pragma once

#include "cpu/frame/arena.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Rows of a weight that stand together, and are computed together in wide tiles: enough independent
// sums to hide the latency of a multiply-add, few enough for the registers. Two such blocks in a
// tile of one register.
inline constexpr int kRowBlock = 4;

inline int64_t padded_rows(int64_t rows) { return (rows + kRowBlock - 1) / kRowBlock * kRowBlock; }

// A weight packed in blocks of rows, [block][k][kRowBlock]; rows past the last are zero. With
// network lanes [row][k], so that a row of all networks is transposed into its place.
template <typename T, Lanes lanes = Lanes::samples>
struct PackedWeight {
  static constexpr int64_t width = Parameter<T, lanes>::width;
  int64_t rows = 0;
  int64_t inputs = 0;
  T* weight = nullptr;
  T* bias = nullptr;  // [padded rows]

  void take(Arena& arena, int64_t row_count, int64_t input_count) {
    rows = row_count;
    inputs = input_count;
    weight = arena.take<T>(padded_rows(rows) * inputs * width);
    bias = arena.take<T>(padded_rows(rows) * width);
  }
  void clear() {
    for (int64_t k = 0; k < padded_rows(rows) * inputs * width; ++k) weight[k] = T(0);
    for (int64_t k = 0; k < padded_rows(rows) * width; ++k) bias[k] = T(0);
  }
  // With network lanes of the first of them.
  T& at(int64_t row, int64_t k) {
    if constexpr (lanes == Lanes::networks) {
      return weight[(row * inputs + k) * width];
    } else {
      return weight[(row / kRowBlock * inputs + k) * kRowBlock + row % kRowBlock];
    }
  }
  // Packs the transpose of another weight, without bias.
  void transpose_of(PackedWeight& other) {
    clear();
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t k = 0; k < inputs; ++k) {
        for (int64_t l = 0; l < width; ++l) (&at(row, k))[l] = (&other.at(k, row))[l];
      }
    }
  }
};

// `weight`: that of some blocks of rows, from the inputs on that `in` has.
template <typename T, int W, Lanes lanes, int rows>
FASTLTC_INLINE void multiply_add(const T* weight, int64_t inputs, int64_t count, Rows<const T> in,
                                 typename Simd<T>::vec (&sum)[rows][W]) {
  using S = Simd<T>;
  for (int64_t k = 0; k < count; ++k) {
#pragma GCC unroll 4
    for (int r = 0; r < W; ++r) {
      const auto x = S::load(in.at(r, k));
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
        if constexpr (lanes == Lanes::networks) {
          sum[i][r] += x * S::load(weight + (i * inputs + k) * S::lanes);
        } else {
          sum[i][r] += x * weight[(i / kRowBlock * inputs + k) * kRowBlock + i % kRowBlock];
        }
      }
    }
  }
}

// Rows [row, row + rows) of dense_rows.
template <int rows, typename T, int W, Lanes lanes>
FASTLTC_INLINE void dense_block(const PackedWeight<T, lanes>& weight, int64_t row,
                                Rows<const T> first, int64_t first_count, Rows<const T> second,
                                int64_t second_count, Rows<T> out) {
  using S = Simd<T>;
  typename S::vec sum[rows][W];
  for (int i = 0; i < rows; ++i) {
    const auto bias = Parameter<T, lanes>::at(weight.bias, row + i);
    for (int r = 0; r < W; ++r) sum[i][r] = S::set(bias);
  }
  constexpr int64_t step = lanes == Lanes::networks ? weight.width : kRowBlock;
  const T* const at = weight.weight + row * weight.inputs * weight.width;
  multiply_add<T, W, lanes>(at, weight.inputs, first_count, first, sum);
  multiply_add<T, W, lanes>(at + first_count * step, weight.inputs, second_count, second, sum);
  for (int i = 0; i < rows; ++i) {
    for (int r = 0; r < W; ++r) S::store(out.at(r, row + i), sum[i][r]);
  }
}

// The inputs are the rows of `first` and then those of `second`. Writes padded_rows(rows) rows.
template <typename T, int W, Lanes lanes>
void dense_rows(const PackedWeight<T, lanes>& weight, Rows<const T> first, int64_t first_count,
                Rows<const T> second, int64_t second_count, Rows<T> out) {
  int64_t row = 0;
  const auto block = [&](auto rows) {
    dense_block<decltype(rows)::value, T, W>(weight, row, first, first_count, second, second_count,
                                             out);
    row += decltype(rows)::value;
  };
  if constexpr (W == 1) {
    while (row + kRowBlock < weight.rows) block(Constant<2 * kRowBlock>());
  }
  while (row < weight.rows) block(Constant<kRowBlock>());
}

}  // namespace fastltc::cpu::FASTLTC_ISA
