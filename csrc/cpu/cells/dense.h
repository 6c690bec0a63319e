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

}  // namespace fastltc::cpu::FASTLTC_ISA
