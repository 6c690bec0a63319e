// y[b, o] = bias[o] + sum over the mask's ones of row o of weight[o, i] x[b, i], and its gradients
//   gx[b, i] = sum_o weight[o, i] g[b, o]    gW[o, i] = sum_b g[b, o] x[b, i]
//   gb[o] = sum_b g[b, o]
//
// Layout: samples in blocks of W registers, rows of them side by side, [block][row][W][lanes]: what
// a synapse reads is one piece of memory. Blocks are padded with zeros.
//
// Plan: threads take outputs (in the gradient of x, inputs), each for the whole batch, so nothing
// is added up across threads and the result does not depend on their number. Weights are packed in
// the order of the list first, because at low densities each cache line of the matrix holds one or
// two of them. A synapse is W multiply-adds with a broadcast weight, and reads W registers that
// stand together. Bound by the second cache, which a block of samples fits into: two cycles a
// register.
#include "core/masked_linear_problem.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/dispatch.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {
namespace {

// Multiply-adds of registers that are worth waking a thread for, about 10 us.
constexpr int64_t kMultiplyAddsWorthAThread = 40000;
// What moving a register of samples into or out of its block takes, in multiply-adds: 5 to 6 ns.
constexpr int64_t kMultiplyAddsOfAMove = 20;

int64_t parts_of(int64_t multiply_adds, int64_t rows, int threads) {
  int64_t parts = 1 + multiply_adds / kMultiplyAddsWorthAThread;
  if (parts > threads) parts = threads;
  return parts > rows ? rows : parts;
}

template <typename T>
struct Blocks {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t count = 0;
  int width = 1;  // registers

  void take(Arena& arena, int64_t batch, int64_t row_count) {
    constexpr int64_t L = Simd<T>::lanes;
    rows = row_count;
    width = 1;
    while (width < kMaxWidth && width * L < batch) width *= 2;
    count = (batch + width * L - 1) / (width * L);
    data = arena.take<T>(count * rows * width * L);
  }
  int64_t registers() const { return count * width; }
  T* row(int64_t block, int64_t r) const {
    return data + (block * rows + r) * width * Simd<T>::lanes;
  }
};

// To and from rows of samples, each part its share of the registers. Samples of wide layers
// are a multiple of 4 KiB apart, where they share the few places of a cache set: a handful of them
// at a time go through a few cache lines of theirs.
template <bool into_blocks, typename T>
struct Transposition {
  using Row = typename TransposeBlock<T>::row;
  static constexpr int size = TransposeBlock<T>::size;
  static constexpr int64_t chunk = 64 / static_cast<int64_t>(sizeof(T));

  const T* from;
  T* to;
  int64_t stride;
  int64_t batch;
  Blocks<T> blocks;
  int64_t parts;

  void operator()(int64_t part) const {
    constexpr int L = Simd<T>::lanes;
    const int64_t step = blocks.width * L;  // between rows
    for (int64_t q = blocks.registers() * part / parts; q < blocks.registers() * (part + 1) / parts;
         ++q) {
      const int64_t first = q * L;
      T* const at = blocks.row(q / blocks.width, 0) + q % blocks.width * L;
      for (int64_t begin = 0; begin < blocks.rows; begin += chunk) {
        const int64_t end = begin + chunk < blocks.rows ? begin + chunk : blocks.rows;
        for (int l = 0; l < L; l += size) {
          int64_t r = begin;
          if (first + l + size <= batch) {
            for (; r + size <= end; r += size) square(at, step, first, l, r);
          }
          for (; r < end; ++r) {
            for (int k = l; k < l + size; ++k) {
              T* const value = at + r * step + k;
              if (first + k >= batch) {
                if constexpr (into_blocks) *value = T(0);
              } else if constexpr (into_blocks) {
                *value = from[(first + k) * stride + r];
              } else {
                to[(first + k) * stride + r] = *value;
              }
            }
          }
        }
      }
    }
  }

  // `size` samples from l on, `size` rows from r on.
  FASTLTC_INLINE void square(T* at, int64_t step, int64_t first, int l, int64_t r) const {
    Row m[size];
    for (int k = 0; k < size; ++k) {
      const T* const source =
          into_blocks ? from + (first + l + k) * stride + r : at + (r + k) * step + l;
      m[k] = *reinterpret_cast<const Row*>(source);
    }
    TransposeBlock<T>::apply(m);
    for (int k = 0; k < size; ++k) {
      T* const target = into_blocks ? at + (r + k) * step + l : to + (first + l + k) * stride + r;
      *reinterpret_cast<Row*>(target) = m[k];
    }
  }
};

// out row = bias + sum weight * in row.
template <typename T>
struct Product {
  const int32_t* first;
  const int32_t* index;
  const T* values;  // of the list's entries
  const T* bias;
  Blocks<T> in;
  Blocks<T> out;
  int64_t parts;

  template <int W>
  void add_rows(int64_t begin, int64_t end) const {
    using S = Simd<T>;
    for (int64_t block = 0; block < in.count; ++block) {
      const T* const x = in.row(block, 0);
      for (int64_t r = begin; r < end; ++r) {
        typename S::vec sum[W];
        for (int k = 0; k < W; ++k) sum[k] = S::set(bias == nullptr ? T(0) : bias[r]);
        for (int64_t e = first[r]; e < first[r + 1]; ++e) {
          const T* const at = x + static_cast<int64_t>(index[e]) * W * S::lanes;
#pragma GCC unroll 4
          for (int k = 0; k < W; ++k) sum[k] += S::load(at + k * S::lanes) * values[e];
        }
        for (int k = 0; k < W; ++k) S::store(out.row(block, r) + k * S::lanes, sum[k]);
      }
    }
  }

  void operator()(int64_t part) const {
    with_width(in.width, [&](auto width) {
      this->template add_rows<decltype(width)::value>(out.rows * part / parts,
                                                      out.rows * (part + 1) / parts);
    });
  }
};

template <typename T>
struct WeightGradient {
  const MaskedLinear<T>& in;
  const MaskedLinearGradients<T>& grad;
  Blocks<T> x;
  Blocks<T> g;
  int64_t parts;

  // Four entries at a time, whose sums fold into one register (Simd::add_four) and then into one
  // value each. An output's gradients are cleared here, just before some of them are written.
  template <int W>
  void add_rows(int64_t begin, int64_t end) const {
    using S = Simd<T>;
    using vec = typename S::vec;
    using Row = typename TransposeBlock<T>::row;
    constexpr int size = TransposeBlock<T>::size;
    const MaskEntries& list = in.entries;
    alignas(kVectorBytes) T sums[S::sums_per_synapse];
    alignas(16) T totals[4];
    for (int64_t o = begin; o < end; ++o) {
      T* const to = grad.weight + o * in.I;
      clear(to, in.I);
      for (int64_t e = list.first[o]; e < list.first[o + 1]; e += 4) {
        const int64_t entries = list.first[o + 1] - e < 4 ? list.first[o + 1] - e : 4;
        int64_t row[4];
        for (int64_t k = 0; k < 4; ++k) row[k] = list.input[e + (k < entries ? k : 0)];
        vec sum[4] = {};
        for (int64_t block = 0; block < x.count; ++block) {
          const T* const from = x.row(block, 0);
          const T* const factor = g.row(block, o);
#pragma GCC unroll 4
          for (int r = 0; r < W; ++r) {
            const vec v = S::load(factor + r * S::lanes);
#pragma GCC unroll 4
            for (int k = 0; k < 4; ++k) {
              sum[k] += S::load(from + (row[k] * W + r) * S::lanes) * v;
            }
          }
        }
        clear(sums, S::sums_per_synapse);
        S::add_four(sums, sum[0], sum[1], sum[2], sum[3]);
        for (int k = 0; k < 4; k += size) {
          Row m[size];
          for (int n = 0; n < size; ++n) {
            m[n] = *reinterpret_cast<const Row*>(sums + (k + n) * S::block);
          }
          TransposeBlock<T>::apply(m);
          Row total = m[0];
          for (int n = 1; n < size; ++n) total += m[n];
          *reinterpret_cast<Row*>(totals + k) = total;
        }
        for (int64_t k = 0; k < entries; ++k) to[row[k]] = totals[k];
      }
      if (grad.bias == nullptr) continue;
      vec sum{};
      for (int64_t block = 0; block < g.count; ++block) {
        for (int r = 0; r < W; ++r) sum += S::load(g.row(block, o) + r * S::lanes);
      }
      grad.bias[o] = S::sum(sum);
    }
  }

  void operator()(int64_t part) const {
    with_width(x.width, [&](auto width) {
      this->template add_rows<decltype(width)::value>(in.O * part / parts,
                                                      in.O * (part + 1) / parts);
    });
  }
};

// Moves [batch, rows] into blocks, or blocks out.
template <bool into_blocks, typename T>
void transpose(const T* from, T* to, int64_t stride, int64_t batch, Blocks<T> blocks,
               const Parallel& parallel) {
  const int64_t parts = parts_of(blocks.registers() * blocks.rows * kMultiplyAddsOfAMove,
                                 blocks.registers(), parallel.threads);
  run_parts(parallel, parts, Transposition<into_blocks, T>{from, to, stride, batch, blocks, parts});
}

// values[e] = weight of the list's entry e.
template <typename T>
void pack(const MaskedLinear<T>& in, T* values, int64_t parts, const Parallel& parallel) {
  run_parts(parallel, parts, [&](int64_t part) {
    const MaskEntries& list = in.entries;
    for (int64_t o = in.O * part / parts; o < in.O * (part + 1) / parts; ++o) {
      const T* const weight = in.weight + o * in.I;
      for (int64_t e = list.first[o]; e < list.first[o + 1]; ++e) {
        values[e] = weight[list.input[e]];
      }
    }
  });
}

}  // namespace

template <typename T>
void masked_linear(const MaskedLinear<T>& in, T* y, const Parallel& parallel) {
  const MaskEntries& list = in.entries;
  Blocks<T> x, out;
  const auto take = [&](Arena& arena) {
    x.take(arena, in.B, in.I);
    out.take(arena, in.B, in.O);
    return arena.take<T>(list.first[in.O]);
  };
  Arena counting;
  take(counting);
  const Block block(counting.used());
  Arena arena(block.data());
  T* const values = take(arena);
  transpose<true>(in.x, static_cast<T*>(nullptr), in.stride_x, in.B, x, parallel);
  const int64_t parts = parts_of(list.first[in.O] * x.registers(), in.O, parallel.threads);
  pack(in, values, parts, parallel);
  run_parts(parallel, parts, Product<T>{list.first, list.input, values, in.bias, x, out, parts});
  transpose<false>(static_cast<const T*>(nullptr), y, in.O, in.B, out, parallel);
}

template <typename T>
void masked_linear_backward(const MaskedLinear<T>& in, const MaskedLinearGradients<T>& grad,
                            const Parallel& parallel) {
  const MaskEntries& list = in.entries;
  const int64_t entries = list.first[in.O];
  Blocks<T> x, g, grad_x;
  T *by_output = nullptr, *by_input = nullptr;  // the weights in both orders
  const auto take = [&](Arena& arena) {
    x.take(arena, in.B, in.I);
    g.take(arena, in.B, in.O);
    grad_x.take(arena, in.B, in.I);
    by_output = arena.take<T>(entries);
    by_input = arena.take<T>(entries);
  };
  Arena counting;
  take(counting);
  const Block block(counting.used());
  Arena arena(block.data());
  take(arena);
  transpose<true>(in.x, static_cast<T*>(nullptr), in.stride_x, in.B, x, parallel);
  transpose<true>(grad.grad, static_cast<T*>(nullptr), grad.stride, in.B, g, parallel);
  const int64_t work = entries * x.registers();
  const int64_t output_parts = parts_of(work, in.O, parallel.threads);
  const int64_t input_parts = parts_of(work, in.I, parallel.threads);
  pack(in, by_output, output_parts, parallel);
  run_parts(parallel, input_parts, [&](int64_t part) {
    for (int64_t k = entries * part / input_parts; k < entries * (part + 1) / input_parts; ++k) {
      by_input[k] = by_output[list.place[k]];
    }
  });
  run_parts(
      parallel, input_parts,
      Product<T>{list.first_of_input, list.output, by_input, nullptr, g, grad_x, input_parts});
  transpose<false>(static_cast<const T*>(nullptr), grad.x, in.I, in.B, grad_x, parallel);
  run_parts(parallel, output_parts, WeightGradient<T>{in, grad, x, g, output_parts});
}

FASTLTC_INSTANTIATE(masked_linear)
FASTLTC_INSTANTIATE(masked_linear_backward)

}  // namespace fastltc::cpu::FASTLTC_ISA
