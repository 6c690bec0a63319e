// Sums over samples, steps and unfolds, of which a parameter's gradient is made. Each part of a
// batch has its own, and they are added in the order of the parts: no atomics, so the same input
// and thread count give the same bits.
#pragma once

#include "cpu/cells/dense.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Adds to one row of lanes of a sum.
template <typename T>
FASTLTC_INLINE void add_to_row(T* rows, int64_t row, typename Simd<T>::vec value) {
  using S = Simd<T>;
  S::store(rows + row * S::lanes, S::load(rows + row * S::lanes) + value);
}

// Four sums that stand together, as Simd::add_four has them; with network lanes, each of which is a
// sum of its own, four rows of lanes.
template <typename T, Lanes lanes>
struct FourSums {
  using S = Simd<T>;
  static constexpr int64_t size = lanes == Lanes::networks ? 4 * S::lanes : S::sums_per_synapse;

  static FASTLTC_INLINE void add(T* sums, typename S::vec a, typename S::vec b, typename S::vec c,
                                 typename S::vec d) {
    if constexpr (lanes == Lanes::networks) {
      add_to_row(sums, 0, a);
      add_to_row(sums, 1, b);
      add_to_row(sums, 2, c);
      add_to_row(sums, 3, d);
    } else {
      S::add_four(sums, a, b, c, d);
    }
  }
};

// The sums of all parts. Sums is a struct of pointers with take(arena, in, layer), which takes them
// for one part; what it points to is rows of lanes, fours of Simd::add_four, or OuterProducts'.
template <typename T, typename Sums>
class GradientSums {
 public:
  template <typename Inputs, typename Layer>
  GradientSums(const Inputs& in, const Layer& layer, int64_t parts)
      : parts_(parts),
        count_(bytes_of([&](Arena& arena) { Sums().take(arena, in, layer); }) / sizeof(T)),
        block_(sizeof(T) * count_ * (parts > 0 ? parts : 1)) {
    Arena arena(block_.data());
    first.take(arena, in, layer);
    if (parts == 0) clear(0);
  }

  Sums first;  // of the first part

  template <typename Inputs, typename Layer>
  Sums of(int64_t part, const Inputs& in, const Layer& layer) const {
    Arena arena(block_.data() + sizeof(T) * count_ * part);
    Sums sums;
    sums.take(arena, in, layer);
    return sums;
  }
  void clear(int64_t part) const {
    fastltc::cpu::FASTLTC_ISA::clear(values() + count_ * part, count_);
  }

  // The first part takes up the others, lane by lane, from one of its pointers on.
  void take_up(T* from) const {
    const int64_t begin = from - values();
    for (int64_t part = 1; part < parts_; ++part) {
      T* const other = values() + count_ * part;
      for (int64_t k = begin; k < count_; ++k) values()[k] += other[k];
    }
  }

  // Totals of what no part has taken up, by the first part's pointers: of a row of lanes, and of
  // the four sums that stand together.
  T row(const T* rows, int64_t at) const {
    T total = 0;
    for (int64_t part = 0; part < parts_; ++part) {
      total += S::sum(S::load(rows + count_ * part + at * S::lanes));
    }
    return total;
  }
  void write_rows(const T* rows, int64_t count, T* to) const {
    if (to == nullptr) return;
    for (int64_t c = 0; c < count; ++c) to[c] = row(rows, c);
  }
  void add_fours(const T* fours, int64_t at, T (&total)[4]) const {
    for (int64_t part = 0; part < parts_; ++part) {
      const T* const four = fours + count_ * part + at * S::sums_per_synapse;
      for (int q = 0; q < 4; ++q) {
        for (int l = 0; l < S::block; ++l) total[q] += four[q * S::block + l];
      }
    }
  }

 private:
  using S = Simd<T>;

  T* values() const { return reinterpret_cast<T*>(block_.data()); }

  int64_t parts_;
  int64_t count_;  // of one part
  Block block_;
};

// The same of one network, whose lane it is, once the first part has taken up the others.
template <typename T>
struct LaneSums {
  int lane = 0;

  T row(const T* rows, int64_t at) const { return rows[at * Simd<T>::lanes + lane]; }
  void write_rows(const T* rows, int64_t count, T* to) const {
    if (to == nullptr) return;
    for (int64_t c = 0; c < count; ++c) to[c] = row(rows, c);
  }
  void add_fours(const T* fours, int64_t at, T (&total)[4]) const {
    for (int q = 0; q < 4; ++q) total[q] += row(fours, 4 * at + q);
  }
};

// The gradient of a weight is a sum of outer products over samples and steps. Rows of both factors
// are put by for a number of steps, then a block of 4 x 4 entries runs over them in registers.
template <typename T, Lanes lanes = Lanes::samples>
struct OuterProducts {
  using S = Simd<T>;
  using Fours = FourSums<T, lanes>;
  using vec = typename S::vec;

  int64_t filled = 0;   // rows that are put by; those past them stay zero
  int64_t rows = 0;     // padded
  int64_t columns = 0;  // padded
  T* left = nullptr;    // [places][rows][lanes], the gradients of the product
  T* right = nullptr;   // [places][columns][lanes], its inputs
  T* sums = nullptr;    // [rows][columns / 4] FourSums, then [rows][lanes] of the bias

  OuterProducts(const PackedWeight<T, lanes>& weight, T* to)
      : filled(weight.rows),
        rows(padded_rows(weight.rows)),
        columns(padded_rows(weight.inputs)),
        sums(to) {}

  int64_t sums_count() const { return rows * (columns / kRowBlock * Fours::size + S::lanes); }
  void take(Arena& arena, int64_t places) {
    left = arena.take<T>(places * rows * S::lanes);
    right = arena.take<T>(places * columns * S::lanes);
  }
  T* bias_sums() const { return sums + rows * (columns / kRowBlock) * Fours::size; }
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
          T* const at = four(row + i, column);
          Fours::add(at, sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
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

  // The sums of four columns, among them this one.
  T* four(int64_t row, int64_t column) const {
    return sums + (row * (columns / kRowBlock) + column / kRowBlock) * Fours::size;
  }
  T weight_sum(int64_t row, int64_t column) const {
    const T* const own = four(row, column) + column % kRowBlock * S::block;
    T total = own[0];
    for (int l = 1; l < S::block; ++l) total += own[l];
    return total;
  }
  T bias_sum(int64_t row) const { return S::sum(S::load(bias_sums() + row * S::lanes)); }
};

// How many steps' factors of outer products are put by, of `rows` rows of a tile: what should stay
// in the second cache until it is multiplied.
inline int64_t steps_put_by(int64_t rows, int width, int64_t steps) {
  constexpr int64_t bytes = 256 * 1024;
  int64_t count = bytes / (rows * width * kVectorBytes + 1);
  if (count > 32) count = 32;
  if (count < 1) count = 1;
  return count < steps ? count : steps;
}

// The outer products of one or several weights, whose factors are put by and multiplied together.
// W places are a step's.
template <typename T, int W, Lanes lanes = Lanes::samples>
struct PutByProducts {
  OuterProducts<T, lanes>* products = nullptr;
  int64_t count = 0;
  int64_t places = 0;
  int64_t place = 0;  // the next step's first

  // `weight(k)`: each packed weight; `sums`: those of all, one after another.
  template <typename WeightOf>
  void take(Arena& arena, int64_t weights, int64_t steps, T* sums, WeightOf weight) {
    count = weights;
    products = arena.take<OuterProducts<T, lanes>>(count);
    int64_t rows = 0;
    for (int64_t k = 0; k < count; ++k) {
      rows += padded_rows(weight(k).rows) + padded_rows(weight(k).inputs);
    }
    places = W * steps_put_by(rows, W, steps);
    for (int64_t k = 0; k < count; ++k) {
      OuterProducts<T, lanes> product(weight(k), sums);
      product.take(arena, places);
      if (sums != nullptr) sums += product.sums_count();
      if (products != nullptr) products[k] = product;
    }
  }

  void start() {
    place = 0;
    for (int64_t k = 0; k < count; ++k) {
      const OuterProducts<T, lanes>& p = products[k];
      for (int64_t at = 0; at < places; ++at) {
        clear_rows(p.left_at(at) + p.filled * Simd<T>::lanes, p.rows - p.filled);
      }
    }
  }
  // Where a step puts the gradients of product k by.
  Rows<T> gradients(int64_t k) const {
    return {products[k].left_at(place), products[k].rows * Simd<T>::lanes};
  }
  // Puts its inputs by: rows of `first`, then of `second`.
  FASTLTC_INLINE void put_inputs(int64_t k, Rows<const T> first, int64_t first_count,
                                 Rows<const T> second, int64_t second_count) const {
    for (int r = 0; r < W; ++r) {
      T* const to = products[k].right_at(place + r);
      copy_rows<T>(first.at(r, 0), first_count, to, first_count);
      copy_rows<T>(second.at(r, 0), second_count, to + first_count * Simd<T>::lanes,
                   products[k].columns - first_count);
    }
  }
  void end_step(bool last) {
    place += W;
    if (place < places && !last) return;
    for (int64_t k = 0; k < count; ++k) products[k].add(place);
    place = 0;
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
