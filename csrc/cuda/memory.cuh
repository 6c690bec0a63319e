// Mixed memory: an LSTM cell that runs before the liquid cell in every step. For every layer that
// may have it.
//
// Maths (Lechner and Hasani, Learning Long-Term Dependencies in Irregularly-Sampled Time Series,
// 2020), from the state h that the liquid cell left and the input x as given:
//   a, i, f, o = W x + b + R h
//   c' = c sigmoid(f + 1) + tanh(a) sigmoid(i)     v = tanh(c') sigmoid(o)
// v is the state from which the liquid cell goes on. Backward, g the gradient of v and gc that of
// c', z standing for all four:
//   gc += g o (1 - tanh(c')^2)
//   gz = gc (i (1 - a^2), a i (1 - i), c f (1 - f)), g tanh(c') o (1 - o)
//   gc <- gc f   gh = R^T gz   gx += W^T gz   dW, dR, db = sum of gz x, gz h, gz over rows
//
// Layout: the cell is a stage (stage.h). The four gates of a neuron, and of a weight between two
// neurons, stand together (Gates): W x + b of all rows, made before the recurrence, and gz of all
// rows, left by it, are [row][N][4]. A step keeps a, i, f, o as activated and c' for the backward
// pass, five values of a neuron.
//
// Plan: what is done for all rows at once are a stage's products (stage_rows.cuh). Within the
// recurrence a block that runs a sample gives each neuron G neighbouring lanes, which share out the
// weights onto it; these are packed once per call in the order in which the threads read them, so
// that every read is a whole line. They stay in the first cache, where all blocks of a processor
// share one copy, and need no room in shared memory. Where a step of all samples is run at once, a
// kernel does, a product by tiles that ends in the gates; backward two.
#pragma once

#include "cuda/frame/tile_product.cuh"
#include "cuda/stage.h"
#include "cuda/stage_rows.cuh"

namespace fastltc::cuda {

template <typename T>
struct alignas(16) Gates {
  T a;  // activation
  T i;  // input gate
  T f;  // forget gate
  T o;  // output gate
};

// Weights that a thread has under way: 16 registers.
template <typename T>
inline constexpr int kWeightsAtOnce = 16 / sizeof(T);

inline constexpr int kKeptRows = static_cast<int>(kMemoryRows);

// ---- One neuron.

// The state v that the liquid cell goes on from. `z` becomes the gates as activated, `c` the memory
// after the step; the 1 that is added to f stands in z already.
template <typename T>
FASTLTC_DEVICE T memory_forward(Gates<T>& z, T& c) {
  z = {tanh_exp2(z.a), sigmoid(z.i), sigmoid(z.f), sigmoid(z.o)};
  c = c * z.f + z.a * z.i;
  return tanh_exp2(c) * z.o;
}

// The gradient of z. `g` is that of v; `grad_c` that of the memory after the step, and then before.
template <typename T>
FASTLTC_DEVICE Gates<T> memory_backward(const Gates<T>& gates, T c_before, T c_after, T g,
                                        T& grad_c) {
  const T size = tanh_exp2(c_after);
  const T gc = grad_c + g * gates.o * (T(1) - size * size);
  grad_c = gc * gates.f;
  return {gc * gates.i * (T(1) - gates.a * gates.a), gc * gates.a * gates.i * (T(1) - gates.i),
          gc * c_before * gates.f * (T(1) - gates.f), g * size * gates.o * (T(1) - gates.o)};
}

// What a neuron keeps of a step, side by side; zeros where the sample does not run.
template <typename T>
FASTLTC_DEVICE void keep_memory(T* keep, const Gates<T>& gates, T c, bool active) {
  const T values[kKeptRows] = {gates.a, gates.i, gates.f, gates.o, c};
  FASTLTC_UNROLL
  for (int n = 0; n < kKeptRows; ++n) keep[n] = active ? values[n] : T(0);
}
template <typename T>
FASTLTC_DEVICE Gates<T> memory_backward(const T* keep, T c_before, T g, T& grad_c) {
  return memory_backward<T>({keep[0], keep[1], keep[2], keep[3]}, c_before, keep[4], g, grad_c);
}

// ---- A block that runs one sample: `lanes` neighbouring lanes for each neuron, thread / lanes.

// Weights that a thread reads in all, padding included.
inline int64_t packed_weights(int64_t neurons, int lanes, int threads) {
  return (neurons + lanes - 1) / lanes * threads;
}

// The recurrent weights in the order in which a block reads them: the n-th of a thread is that from
// (transposed: onto) neuron thread % lanes + n lanes onto (from) the thread's. A thread for each.
template <typename T>
__global__ void memory_pack_kernel(const T* weights, int64_t N, int lanes, int threads,
                                   bool transposed, Gates<T>* packed) {
  const int64_t k = thread_index();
  if (k >= (N + lanes - 1) / lanes * threads) return;
  const int64_t own = k % threads / lanes, other = k % threads % lanes + k / threads * lanes;
  Gates<T> w{};
  if (own < N && other < N) {
    const int64_t from = transposed ? own : other, onto = transposed ? other : own;
    const T* const weight = weights + onto * N + from;
    w = {weight[0], weight[N * N], weight[2 * N * N], weight[3 * N * N]};
  }
  packed[k] = w;
}

// R h for the thread's neuron, in all of its lanes. h [N] is the same for the whole block.
template <typename T>
__device__ Gates<T> memory_recurrent(const Gates<T>* packed, const T* h, int neurons, int lanes) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int first = thread / lanes < neurons ? thread % lanes : neurons;
  Gates<T> z{};
  const Gates<T>* w = packed + thread;
  FASTLTC_UNROLL_BY(kWeightsAtOnce<T>)
  for (int i = first; i < neurons; i += lanes, w += threads) {
    const T value = h[i];
    z.a += w->a * value;
    z.i += w->i * value;
    z.f += w->f * value;
    z.o += w->o * value;
  }
  sum_groups(lanes, z.a, z.i, z.f, z.o);
  return z;
}

// R^T gz for the thread's neuron, in all of its lanes. gz [N] is the same for the whole block, the
// weights are packed transposed.
template <typename T>
__device__ T memory_recurrent_transposed(const Gates<T>* packed, const Gates<T>* gz, int neurons,
                                         int lanes) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int first = thread / lanes < neurons ? thread % lanes : neurons;
  T total = 0;
  const Gates<T>* w = packed + thread;
  FASTLTC_UNROLL_BY(kWeightsAtOnce<T>)
  for (int j = first; j < neurons; j += lanes, w += threads) {
    const Gates<T> g = gz[j];
    total += w->a * g.a + w->i * g.i + w->f * g.f + w->o * g.o;
  }
  sum_groups(lanes, total);
  return total;
}

// What such a block needs of mixed memory.
template <typename T>
struct SampleMemory {
  const Gates<T>* input = nullptr;   // [rows][N]: W x + b
  const Gates<T>* packed = nullptr;  // backward: transposed
  SequenceView<const T> c0;          // [B, N]; null: zeros
  int lanes = 0;
  // Backward.
  Gates<T>* gz = nullptr;             // [rows][N]
  SequenceView<const T> grad_c_last;  // [B, N]; null: zeros

  // In full: state_or_zero of it takes up to five registers more.
  FASTLTC_DEVICE T initial(int64_t b, int64_t j) const {
    return c0.data == nullptr ? T(0) : c0.data[b * c0.stride_b + j * c0.stride_c];
  }
};

// A step: from h [N] to v [N], both the same for the block and not the same place; a barrier has to
// stand before and after. `c` is the memory of the thread that leads its neuron's lanes. What is
// kept goes to `kept` [5][N], which may be null.
template <typename T>
__device__ void memory_forward_step(const SampleMemory<T>& memory, int neurons, int64_t row,
                                    const T* h, T* v, T* kept, T& c) {
  const int thread = static_cast<int>(threadIdx.x), j = thread / memory.lanes;
  const bool leads = j < neurons && thread % memory.lanes == 0;
  Gates<T> given{};
  if (leads) given = memory.input[row * neurons + j];
  Gates<T> z = memory_recurrent(memory.packed, h, neurons, memory.lanes);
  if (!leads) return;
  z = {z.a + given.a, z.i + given.i, z.f + given.f, z.o + given.o};
  v[j] = memory_forward(z, c);
  if (kept == nullptr) return;
  kept[j] = z.a;
  kept[neurons + j] = z.i;
  kept[2 * neurons + j] = z.f;
  kept[3 * neurons + j] = z.o;
  kept[4 * neurons + j] = c;
}

// ---- A step of all samples at once. A state is [N][B], by neuron, or [B][N].

template <bool by_neuron>
FASTLTC_DEVICE int64_t state_index(int64_t b, int64_t j, int64_t samples, int64_t neurons) {
  return by_neuron ? j * samples + b : b * neurons + j;
}

template <typename T>
struct MemoryStep {
  Stage<T> stage;
  SequenceRows<T> rows;
  const T* given = nullptr;  // [rows][N][4]: W x + b
  SequenceView<const T> c0;  // [B, N]; null: zeros
  T* c = nullptr;            // [B][N] the memory; backward its gradient
};

template <typename T, bool by_neuron>
struct StateColumns {  // (sample, neuron)
  const T* h;
  int64_t samples, neurons;
  static constexpr bool along_k = !by_neuron;
  __device__ T operator()(int64_t b, int64_t i) const {
    return h[state_index<by_neuron>(b, i, samples, neurons)];
  }
};

// From h to v; c is the memory before the step, then after it. Samples that do not run hold both.
// Blocks: x over samples, y over gates.
template <typename T, bool by_neuron>
__global__ void __launch_bounds__(kBlockThreads)
    memory_step_kernel(const MemoryStep<T> step, int64_t t, const T* h, T* v) {
  const Stage<T>& stage = step.stage;
  const int64_t B = step.rows.B, N = stage.units, width = stage.width();
  const ProductSize size{B, width, 0, N};
  const StateColumns<T, by_neuron> states{h, B, N};
  const PackedColumns<T> weight{stage.step_weight(), width};
  each_tile<T>(states, weight, size, [&](const TileSums<T>& sums) {
    if (sums.n >= width) return;
    const int64_t j = sums.n / 4;
    FASTLTC_UNROLL
    for (int p = 0; p < 4; ++p) {
      const int64_t b = sums.m + p, r = t * B + b;
      if (b >= B) break;
      const bool active = t < step.rows.length(b);
      const Gates<T> given = reinterpret_cast<const Gates<T>*>(step.given)[r * N + j];
      Gates<T> z{sums.value[p][0] + given.a, sums.value[p][1] + given.i, sums.value[p][2] + given.f,
                 sums.value[p][3] + given.o};
      T c = step.c[b * N + j];
      const T next = memory_forward(z, c);
      const int64_t at = state_index<by_neuron>(b, j, B, N);
      v[at] = active ? next : h[at];
      if (active) step.c[b * N + j] = c;
      if (stage.kept == nullptr) continue;
      keep_memory(stage.kept + r * stage.kept_pitch + j * kKeptRows, z, c, active);
    }
  });
}

// gz of a step and the gradient of the memory before it, from those of v, `g`, and of the memory
// after it, `step.c`. A thread for each neuron and sample.
template <typename T, bool by_neuron>
__global__ void memory_step_gradient_kernel(const MemoryStep<T> step, int64_t t, const T* g) {
  const Stage<T>& stage = step.stage;
  const int64_t k = thread_index(), N = stage.units, b = k / N, j = k % N;
  if (b >= step.rows.B) return;
  const int64_t r = t * step.rows.B + b;
  Gates<T> dz{};
  if (t < step.rows.length(b)) {
    const T* const keep = stage.kept + r * stage.kept_pitch + j * kKeptRows;
    const bool anew = step.rows.begins_anew(b, t);
    const T c_before = anew && step.rows.reset_to_zero ? T(0)
                       : t == 0 || anew
                           ? state_or_zero(step.c0, b, j)
                           : keep[4 - step.rows.B * static_cast<int64_t>(stage.kept_pitch)];
    dz =
        memory_backward(keep, c_before, g[state_index<by_neuron>(b, j, step.rows.B, N)], step.c[k]);
  }
  reinterpret_cast<Gates<T>*>(stage.dz)[r * N + j] = dz;
}

// gh = R^T gz of a step, into g; samples that do not run keep theirs. Blocks: x over samples, y
// over neurons.
template <typename T, bool by_neuron>
__global__ void __launch_bounds__(kBlockThreads, sizeof(T) == 4 ? 3 : 2)
    memory_state_gradient_kernel(const MemoryStep<T> step, int64_t t, T* g) {
  const Stage<T>& stage = step.stage;
  const int64_t B = step.rows.B, N = stage.units, width = stage.width();
  const ProductSize size{B, N, 0, width};
  const PackedRows<T> dz{stage.dz + t * B * width, width}, weight{stage.step_weight(), width};
  each_tile<T>(dz, weight, size, [&](const TileSums<T>& sums) {
    FASTLTC_UNROLL
    for (int p = 0; p < 4; ++p) {
      const int64_t b = sums.m + p;
      if (b >= B) break;
      if (t >= step.rows.length(b)) continue;
      T* const to = g + state_index<by_neuron>(b, sums.n, B, N);
      FASTLTC_UNROLL
      for (int q = 0; q < 4; ++q) {
        if (sums.n + q < N) to[q * (by_neuron ? B : 1)] = sums.value[p][q];
      }
    }
  });
}

}  // namespace fastltc::cuda
