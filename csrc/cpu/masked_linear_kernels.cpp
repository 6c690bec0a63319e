// y[b, o] = bias[o] + sum over the mask's ones of row o of weight[o, i] x[b, i], and its gradients
//   gx[b, i] = sum_o weight[o, i] g[b, o]    gW[o, i] = sum_b g[b, o] x[b, i]    gb[o] = sum_b g[b,
//   o]
//
// Layout: samples in blocks of W registers, rows of them side by side, [block][row][W][lanes]: what
// a synapse reads is one piece of memory. Blocks are padded with zeros.
//
// Plan: threads take outputs (in the gradient of x, inputs), each for the whole batch, so nothing
// is added up across threads and the result does not depend on their number. A synapse is W
// multiply-adds with a broadcast weight. Bound by the loads: one for each multiply-add, and the
// weight's cache lines, which at low densities hold one used value each.
#include "core/masked_linear_problem.h"
#include "cpu/arena.h"
#include "cpu/lane_rows.h"
#include "cpu/partition.h"
#include "cpu/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {
namespace {

// Multiply-adds of registers that are worth waking a thread for, about 10 us.
constexpr int64_t kMultiplyAddsWorthAThread = 40000;

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

// To and from rows of samples; part p of n takes its share of the registers.
template <typename T>
struct Transposition {
  const T* from;
  T* to;
  int64_t stride;
  int64_t batch;
  Blocks<T> blocks;
  T* scratch;  // [part][rows][lanes]
  int64_t parts;

  template <bool into_blocks>
  static void run(void* context, int64_t part) {
    constexpr int L = Simd<T>::lanes;
    const auto& job = *static_cast<const Transposition*>(context);
    const Blocks<T>& blocks = job.blocks;
    T* const rows = job.scratch + part * blocks.rows * L;
    for (int64_t q = blocks.registers() * part / job.parts;
         q < blocks.registers() * (part + 1) / job.parts; ++q) {
      const int64_t first = q * L;
      T* const at = blocks.row(q / blocks.width, 0) + q % blocks.width * L;
      if (first >= job.batch) {
        for (int64_t r = 0; into_blocks && r < blocks.rows; ++r) {
          Simd<T>::store(at + r * blocks.width * L, typename Simd<T>::vec{});
        }
        continue;
      }
      const LaneGroup group{first, static_cast<int>(job.batch - first < L ? job.batch - first : L)};
      if constexpr (into_blocks) {
        load_rows(SequenceView<const T>{job.from, job.stride, 0, 1}, 0, blocks.rows, group, rows);
        for (int64_t r = 0; r < blocks.rows; ++r) {
          for (int l = group.valid; l < L; ++l) rows[r * L + l] = T(0);
          Simd<T>::store(at + r * blocks.width * L, Simd<T>::load(rows + r * L));
        }
      } else {
        for (int64_t r = 0; r < blocks.rows; ++r) {
          Simd<T>::store(rows + r * L, Simd<T>::load(at + r * blocks.width * L));
        }
        store_rows(SequenceView<T>{job.to, job.stride, 0, 1}, 0, blocks.rows, group, rows);
      }
    }
  }
};

// out row = bias + sum weight * in row, for rows given by a list whose weights lie anywhere.
template <typename T>
struct Product {
  const int32_t* first;
  const int32_t* index;
  const T* values;  // of the list's entries, or
  const T* dense;   // the matrix that they are in, [rows][columns]
  int64_t columns;
  const T* bias;
  Blocks<T> in;
  Blocks<T> out;
  int64_t parts;

  template <int W>
  void rows(int64_t begin, int64_t end) const {
    using S = Simd<T>;
    for (int64_t block = 0; block < in.count; ++block) {
      const T* const x = in.row(block, 0);
      for (int64_t r = begin; r < end; ++r) {
        typename S::vec sum[W];
        for (int k = 0; k < W; ++k) sum[k] = S::set(bias == nullptr ? T(0) : bias[r]);
        const T* const weight = values == nullptr ? dense + r * columns : nullptr;
        for (int64_t e = first[r]; e < first[r + 1]; ++e) {
          const T* const at = x + static_cast<int64_t>(index[e]) * W * S::lanes;
          const T w = weight == nullptr ? values[e] : weight[index[e]];
#pragma GCC unroll 4
          for (int k = 0; k < W; ++k) sum[k] += S::load(at + k * S::lanes) * w;
        }
        for (int k = 0; k < W; ++k) S::store(out.row(block, r) + k * S::lanes, sum[k]);
      }
    }
  }

  static void run(void* context, int64_t part) {
    const auto& job = *static_cast<const Product*>(context);
    const int64_t begin = job.out.rows * part / job.parts;
    const int64_t end = job.out.rows * (part + 1) / job.parts;
    if (job.in.width == 4) {
      if constexpr (kMaxWidth >= 4) job.template rows<4>(begin, end);
    } else if (job.in.width == 2) {
      job.template rows<2>(begin, end);
    } else {
      job.template rows<1>(begin, end);
    }
  }
};

template <typename T>
struct WeightGradient {
  const MaskedLinear<T>& in;
  const MaskedLinearGradients<T>& grad;
  Blocks<T> x;
  Blocks<T> g;
  int64_t parts;

  // Four entries at a time, whose sums fold into one register (Simd::add_four).
  template <int W>
  void rows(int64_t begin, int64_t end) const {
    using S = Simd<T>;
    using vec = typename S::vec;
    alignas(kVectorBytes) T sums[S::sums_per_synapse];
    for (int64_t o = begin; o < end; ++o) {
      T* const to = grad.weight + o * in.I;
      for (int64_t e = in.first[o]; e < in.first[o + 1]; e += 4) {
        const int64_t entries = in.first[o + 1] - e < 4 ? in.first[o + 1] - e : 4;
        int64_t row[4];
        for (int64_t k = 0; k < 4; ++k) row[k] = in.index[e + (k < entries ? k : 0)];
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
        for (int k = 0; k < S::sums_per_synapse; ++k) sums[k] = T(0);
        S::add_four(sums, sum[0], sum[1], sum[2], sum[3]);
        for (int64_t k = 0; k < entries; ++k) {
          T total = sums[k * S::block];
          for (int l = 1; l < S::block; ++l) total += sums[k * S::block + l];
          to[row[k]] = total;
        }
      }
      if (grad.bias == nullptr) continue;
      vec sum{};
      for (int64_t block = 0; block < g.count; ++block) {
        for (int r = 0; r < W; ++r) sum += S::load(g.row(block, o) + r * S::lanes);
      }
      grad.bias[o] = S::sum(sum);
    }
  }

  static void run(void* context, int64_t part) {
    const auto& job = *static_cast<const WeightGradient*>(context);
    const int64_t begin = job.in.O * part / job.parts, end = job.in.O * (part + 1) / job.parts;
    if (job.x.width == 4) {
      if constexpr (kMaxWidth >= 4) job.template rows<4>(begin, end);
    } else if (job.x.width == 2) {
      job.template rows<2>(begin, end);
    } else {
      job.template rows<1>(begin, end);
    }
  }
};

// Moves [batch, rows] into blocks, or blocks out.
template <bool into_blocks, typename T>
void transpose(const T* from, T* to, int64_t stride, int64_t batch, Blocks<T> blocks, T* scratch,
               const Parallel& parallel) {
  const int64_t parts =
      parts_of(blocks.registers() * blocks.rows * 8, blocks.registers(), parallel.threads);
  Transposition<T> job{from, to, stride, batch, blocks, scratch, parts};
  parallel.run(parts, &Transposition<T>::template run<into_blocks>, &job);
}

template <typename T>
int64_t scratch_values(const MaskedLinear<T>& in, int threads) {
  return threads * (in.I > in.O ? in.I : in.O) * Simd<T>::lanes;
}

// The list by inputs instead of outputs, with its weights.
template <typename T>
struct TransposedList {
  int32_t* first = nullptr;  // [I + 2]
  int32_t* index = nullptr;
  T* values = nullptr;

  void take(Arena& arena, const MaskedLinear<T>& in) {
    first = arena.take<int32_t>(in.I + 2);
    index = arena.take<int32_t>(in.first[in.O]);
    values = arena.take<T>(in.first[in.O]);
  }
  void fill(const MaskedLinear<T>& in) {
    // Counting sort; the counts stand two places on, so that filling leaves the starts in place.
    for (int64_t i = 0; i < in.I + 2; ++i) first[i] = 0;
    for (int64_t e = 0; e < in.first[in.O]; ++e) ++first[in.index[e] + 2];
    for (int64_t i = 2; i < in.I + 2; ++i) first[i] += first[i - 1];
    for (int64_t o = 0; o < in.O; ++o) {
      for (int64_t e = in.first[o]; e < in.first[o + 1]; ++e) {
        const int32_t at = first[in.index[e] + 1]++;
        index[at] = static_cast<int32_t>(o);
        values[at] = in.weight[o * in.I + in.index[e]];
      }
    }
  }
};

}  // namespace

template <typename T>
void masked_linear(const MaskedLinear<T>& in, T* y, const Parallel& parallel) {
  Blocks<T> x, out;
  const auto take = [&](Arena& arena) {
    x.take(arena, in.B, in.I);
    out.take(arena, in.B, in.O);
    return arena.take<T>(scratch_values(in, parallel.threads));
  };
  Arena counting;
  take(counting);
  const Block block(counting.used());
  Arena arena(block.data());
  T* const scratch = take(arena);
  transpose<true>(in.x, static_cast<T*>(nullptr), in.stride_x, in.B, x, scratch, parallel);
  const int64_t parts = parts_of(in.first[in.O] * x.registers(), in.O, parallel.threads);
  Product<T> product{in.first, in.index, nullptr, in.weight, in.I, in.bias, x, out, parts};
  parallel.run(parts, &Product<T>::run, &product);
  transpose<false>(static_cast<const T*>(nullptr), y, in.O, in.B, out, scratch, parallel);
}

template <typename T>
void masked_linear_backward(const MaskedLinear<T>& in, const MaskedLinearGradients<T>& grad,
                            const Parallel& parallel) {
  Blocks<T> x, g, grad_x;
  TransposedList<T> list;
  const auto take = [&](Arena& arena) {
    x.take(arena, in.B, in.I);
    g.take(arena, in.B, in.O);
    grad_x.take(arena, in.B, in.I);
    list.take(arena, in);
    return arena.take<T>(scratch_values(in, parallel.threads));
  };
  Arena counting;
  take(counting);
  const Block block(counting.used());
  Arena arena(block.data());
  T* const scratch = take(arena);
  transpose<true>(in.x, static_cast<T*>(nullptr), in.stride_x, in.B, x, scratch, parallel);
  transpose<true>(grad.grad, static_cast<T*>(nullptr), grad.stride, in.B, g, scratch, parallel);
  list.fill(in);
  const int64_t work = in.first[in.O] * x.registers();
  const int64_t by_inputs = parts_of(work, in.I, parallel.threads);
  Product<T> product{list.first, list.index, list.values, nullptr,  0,
                     nullptr,    g,          grad_x,      by_inputs};
  parallel.run(by_inputs, &Product<T>::run, &product);
  transpose<false>(static_cast<const T*>(nullptr), grad.x, in.I, in.B, grad_x, scratch, parallel);
  const int64_t by_outputs = parts_of(work, in.O, parallel.threads);
  WeightGradient<T> weights{in, grad, x, g, by_outputs};
  parallel.run(by_outputs, &WeightGradient<T>::run, &weights);
}

template void masked_linear(const MaskedLinear<float>&, float*, const Parallel&);
template void masked_linear(const MaskedLinear<double>&, double*, const Parallel&);
template void masked_linear_backward(const MaskedLinear<float>&,
                                     const MaskedLinearGradients<float>&, const Parallel&);
template void masked_linear_backward(const MaskedLinear<double>&,
                                     const MaskedLinearGradients<double>&, const Parallel&);

}  // namespace fastltc::cpu::FASTLTC_ISA
