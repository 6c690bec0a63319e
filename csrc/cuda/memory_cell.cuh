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
// Layout: the four gates of a neuron, and of a weight between two neurons, stand together (Gates).
// W x + b of all rows (rows.h) is made before the recurrence and gz of all rows is kept by it, both
// by a GateView; a step keeps a, i, f, o as activated and c' for the backward pass, five values of
// a neuron, where the layer puts them.
//
// Plan: what is done for all rows at once are products by tiles. Within the recurrence a block that
// runs a sample gives each neuron G neighbouring lanes, which share out the weights onto it; these
// are packed once per call in the order in which the threads read them, so that every read is a
// whole line. They stay in the first cache, where all blocks of a processor share one copy, and
// need no room in shared memory. A layer whose lanes are samples has a kernel for each step, a
// product by tiles that ends in the gates. Sums over rows are parts added in their order.
#pragma once

#include "cuda/device.h"
#include "cuda/rows.h"
#include "cuda/tile_product.cuh"

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

// Values of each row and neuron for four gates, m = 4 j + gate.
template <typename T>
struct GateView {
  T* data = nullptr;
  int64_t row = 0;
  int64_t neuron = 0;
  int64_t gate = 0;

  FASTLTC_DEVICE T& at(int64_t r, int64_t m) const {
    return data[r * row + (m >> 2) * neuron + (m & 3) * gate];
  }
};

// A state [rows][N] as a block per sample has it, and as lanes that are samples have it.
template <typename T>
GateView<T> gates_by_row(T* data, int64_t neurons) {
  return {data, 4 * neurons, 4, 1};
}
template <typename T>
GateView<T> gates_by_channel(T* data, int64_t rows) {
  return {data, 1, 4 * rows, rows};
}

template <typename T>
struct MemoryCell {
  MemoryParameters<T> given;
  int64_t inputs = 0;
  int64_t neurons = 0;
  SequenceView<const T> x;

  FASTLTC_DEVICE int64_t weight_row(int64_t m) const { return (m & 3) * neurons + (m >> 2); }
};

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

// ---- A block that runs one sample: `lanes` neighbouring lanes for each neuron, thread / lanes.

// Weights that a thread reads in all, padding included.
inline int64_t packed_weights(int64_t neurons, int lanes, int threads) {
  return (neurons + lanes - 1) / lanes * threads;
}

// The recurrent weights in the order in which a block reads them: the n-th of a thread is that from
// (transposed: onto) neuron thread % lanes + n lanes onto (from) the thread's. A thread for each.
template <typename T>
__global__ void memory_pack_kernel(const MemoryCell<T> cell, int lanes, int threads,
                                   bool transposed, Gates<T>* packed) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t N = cell.neurons;
  if (k >= (N + lanes - 1) / lanes * threads) return;
  const int64_t own = k % threads / lanes, other = k % threads % lanes + k / threads * lanes;
  Gates<T> w{};
  if (own < N && other < N) {
    const int64_t from = transposed ? own : other, onto = transposed ? other : own;
    const T* const weight = cell.given.recurrent_weight + onto * N + from;
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
  return {sum_lanes(z.a, lanes), sum_lanes(z.i, lanes), sum_lanes(z.f, lanes),
          sum_lanes(z.o, lanes)};
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
  return sum_lanes(total, lanes);
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

// ---- All rows at once.

template <typename T>
struct InputWeights {  // (m, k)
  const MemoryCell<T>& cell;
  static constexpr bool along_k = true;
  __device__ T operator()(int64_t m, int64_t k) const {
    return cell.given.weight[cell.weight_row(m) * cell.inputs + k];
  }
};
template <typename T>
struct InputRows {  // (row, k); what lies past the end of a sample is not read
  const MemoryCell<T>& cell;
  const Rows<T>& rows;
  bool along_k;
  __device__ T operator()(int64_t r, int64_t k) const {
    const auto [b, t] = rows.place(r);
    if (t >= rows.length(b)) return T(0);
    return cell.x.data[b * cell.x.stride_b + t * cell.x.stride_t + k * cell.x.stride_c];
  }
};

// z = W x + b, and 1 more for f. Blocks: x over rows, y over gates.
template <typename T>
__global__ void __launch_bounds__(kProductThreads)
    memory_input_kernel(const MemoryCell<T> cell, const Rows<T> rows, const GateView<T> z) {
  const ProductSize size{4 * cell.neurons, rows.count, 0, cell.inputs};
  for (int64_t tile = blockIdx.y; tile * kTileSide < size.m; tile += gridDim.y) {
    const TileSums<T> sums =
        tile_product<T>(InputWeights<T>{cell}, InputRows<T>{cell, rows, cell.x.stride_c == 1}, tile,
                        static_cast<int64_t>(blockIdx.x), size);
    if (sums.m >= size.m) continue;
    FASTLTC_UNROLL
    for (int q = 0; q < 4; ++q) {
      if (sums.n + q >= size.n) break;
      FASTLTC_UNROLL
      for (int p = 0; p < 4; ++p) {
        const T bias = cell.given.bias[cell.weight_row(sums.m + p)];
        z.at(sums.n + q, sums.m + p) = sums.value[p][q] + bias + (p == 2 ? T(1) : T(0));
      }
    }
  }
}

template <typename T>
struct GateGradients {  // (m, row)
  const GateView<const T>& gz;
  const Rows<T>& rows;
  bool along_k;
  __device__ T operator()(int64_t m, int64_t r) const {
    const auto [b, t] = rows.place(r);
    return t < rows.length(b) ? gz.at(r, m) : T(0);
  }
};
// What the memory cell was given: x, then h, then 1 for the bias. h [B, T, N] is the state before
// the step.
template <typename T>
struct GivenRows {  // (column, row)
  const MemoryCell<T>& cell;
  const Rows<T>& rows;
  const SequenceView<const T>& h;
  bool along_k;
  __device__ T operator()(int64_t column, int64_t r) const {
    const auto [b, t] = rows.place(r);
    if (t >= rows.length(b)) return T(0);
    const int64_t j = column - cell.inputs;
    if (j < 0) {
      return cell.x.data[b * cell.x.stride_b + t * cell.x.stride_t + column * cell.x.stride_c];
    }
    if (j == cell.neurons) return T(1);
    return h.data[b * h.stride_b + t * h.stride_t + j * h.stride_c];
  }
};

// Parts of the sums over rows, [parts][4N][I + N + 1], rows of gates m. Blocks: x tiles of columns,
// y of gates, z parts.
template <typename T>
__global__ void __launch_bounds__(kProductThreads)
    memory_weight_sums_kernel(const MemoryCell<T> cell, const Rows<T> rows,
                              const GateView<const T> gz, const SequenceView<const T> h, T* parts) {
  const int64_t columns = cell.inputs + cell.neurons + 1;
  const int64_t each = (rows.count + gridDim.z - 1) / gridDim.z;
  const int64_t begin = blockIdx.z * each;
  const int64_t end = begin + each < rows.count ? begin + each : rows.count;
  const ProductSize size{4 * cell.neurons, columns, begin, end};
  for (int64_t tile = blockIdx.y; tile * kTileSide < size.m; tile += gridDim.y) {
    const TileSums<T> sums = tile_product<T>(GateGradients<T>{gz, rows, gz.row == 1},
                                             GivenRows<T>{cell, rows, h, h.stride_c != 1}, tile,
                                             static_cast<int64_t>(blockIdx.x), size);
    T* const to = parts + (blockIdx.z * size.m + sums.m) * columns + sums.n;
    FASTLTC_UNROLL
    for (int p = 0; p < 4; ++p) {
      FASTLTC_UNROLL
      for (int q = 0; q < 4; ++q) {
        if (sums.m + p < size.m && sums.n + q < size.n) to[p * columns + q] = sums.value[p][q];
      }
    }
  }
}

// Adds up the parts. A thread for each of the 4N (I + N + 1) values.
template <typename T>
__global__ void memory_weight_gradients_kernel(const MemoryCell<T> cell, int64_t count,
                                               const T* parts, const MemoryGradients<T> grad) {
  const int64_t columns = cell.inputs + cell.neurons + 1;
  const int64_t values = 4 * cell.neurons * columns;
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= values) return;
  T total = 0;
  for (int64_t part = 0; part < count; ++part) total += parts[part * values + k];
  const int64_t row = cell.weight_row(k / columns), column = k % columns;
  const int64_t j = column - cell.inputs;
  if (j < 0) {
    grad.weight[row * cell.inputs + column] = total;
  } else if (j < cell.neurons) {
    grad.recurrent_weight[row * cell.neurons + j] = total;
  } else {
    grad.bias[row] = total;
  }
}

template <typename T>
struct InputWeightsTransposed {  // (input, m)
  const MemoryCell<T>& cell;
  static constexpr bool along_k = false;
  __device__ T operator()(int64_t k, int64_t m) const {
    return cell.given.weight[cell.weight_row(m) * cell.inputs + k];
  }
};
template <typename T>
struct GateGradientRows {  // (row, m)
  const GateView<const T>& gz;
  bool along_k;
  __device__ T operator()(int64_t r, int64_t m) const { return gz.at(r, m); }
};

// Adds W^T gz to the gradient of x. Blocks: x over rows, y over inputs.
template <typename T>
__global__ void __launch_bounds__(kProductThreads)
    memory_input_gradient_kernel(const MemoryCell<T> cell, const Rows<T> rows,
                                 const GateView<const T> gz, const SequenceView<T> grad_x) {
  const ProductSize size{cell.inputs, rows.count, 0, 4 * cell.neurons};
  for (int64_t tile = blockIdx.y; tile * kTileSide < size.m; tile += gridDim.y) {
    const TileSums<T> sums =
        tile_product<T>(InputWeightsTransposed<T>{cell}, GateGradientRows<T>{gz, gz.row != 1}, tile,
                        static_cast<int64_t>(blockIdx.x), size);
    FASTLTC_UNROLL
    for (int q = 0; q < 4; ++q) {
      if (sums.n + q >= size.n) break;
      const auto [b, t] = rows.place(sums.n + q);
      if (t >= rows.length(b)) continue;
      T* const to = grad_x.data + b * grad_x.stride_b + t * grad_x.stride_t;
      FASTLTC_UNROLL
      for (int p = 0; p < 4; ++p) {
        if (sums.m + p < size.m) to[(sums.m + p) * grad_x.stride_c] += sums.value[p][q];
      }
    }
  }
}

// ---- A step of all samples at once: lanes are samples, a state is [N][B].

template <typename T>
struct RecurrentWeights {  // (m, i)
  const MemoryCell<T>& cell;
  static constexpr bool along_k = true;
  __device__ T operator()(int64_t m, int64_t i) const {
    return cell.given.recurrent_weight[cell.weight_row(m) * cell.neurons + i];
  }
};
template <typename T>
struct StateColumns {  // (sample, i)
  const T* h;
  int64_t B;
  static constexpr bool along_k = false;
  __device__ T operator()(int64_t b, int64_t i) const { return h[i * B + b]; }
};

template <typename T>
struct MemoryStep {
  MemoryCell<T> cell;
  Rows<T> rows;
  T* c = nullptr;  // [N][B]
};

// From h to v; c is the memory before the step, then after it. `kept` [5][N][B] may be null.
// Samples that do not run hold both. Blocks: x over samples, y over gates.
template <typename T>
__global__ void __launch_bounds__(kProductThreads)
    memory_step_kernel(const MemoryStep<T> step, int64_t t, const GateView<const T> input,
                       const T* h, T* v, T* kept) {
  const MemoryCell<T>& cell = step.cell;
  const int64_t B = step.rows.B, N = cell.neurons;
  const ProductSize size{4 * N, B, 0, N};
  for (int64_t tile = blockIdx.y; tile * kTileSide < size.m; tile += gridDim.y) {
    const TileSums<T> sums = tile_product<T>(RecurrentWeights<T>{cell}, StateColumns<T>{h, B}, tile,
                                             static_cast<int64_t>(blockIdx.x), size);
    if (sums.m >= size.m) continue;
    const int64_t j = sums.m / 4;
    FASTLTC_UNROLL
    for (int q = 0; q < 4; ++q) {
      const int64_t b = sums.n + q, at = j * B + b;
      if (b >= B) break;
      const bool active = t < step.rows.length(b);
      Gates<T> z{};
      T c = step.c[at], next = h[at];
      if (active) {
        const int64_t r = t * B + b;
        z = {sums.value[0][q] + input.at(r, sums.m), sums.value[1][q] + input.at(r, sums.m + 1),
             sums.value[2][q] + input.at(r, sums.m + 2),
             sums.value[3][q] + input.at(r, sums.m + 3)};
        next = memory_forward(z, c);
        step.c[at] = c;
      }
      v[at] = next;
      if (kept == nullptr) continue;
      kept[at] = z.a;
      kept[N * B + at] = z.i;
      kept[2 * N * B + at] = z.f;
      kept[3 * N * B + at] = z.o;
      kept[4 * N * B + at] = c;
    }
  }
}

// gz of a step and the gradient of the memory before it, from those of v, `g`, and of the memory
// after it, `step.c`. `c_before` is the memory before the step [N][B]. A thread for each neuron and
// sample.
template <typename T>
__global__ void memory_step_gradient_kernel(const MemoryStep<T> step, int64_t t, const T* kept,
                                            const T* c_before, const T* g, const GateView<T> gz) {
  const int64_t B = step.rows.B, count = step.cell.neurons * B;
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= count) return;
  const int64_t j = k / B, b = k % B;
  if (t >= step.rows.length(b)) return;
  const Gates<T> gates{kept[k], kept[count + k], kept[2 * count + k], kept[3 * count + k]};
  const Gates<T> grad = memory_backward(gates, c_before[k], kept[4 * count + k], g[k], step.c[k]);
  const int64_t r = t * B + b;
  gz.at(r, 4 * j) = grad.a;
  gz.at(r, 4 * j + 1) = grad.i;
  gz.at(r, 4 * j + 2) = grad.f;
  gz.at(r, 4 * j + 3) = grad.o;
}

template <typename T>
struct RecurrentWeightsTransposed {  // (i, m)
  const MemoryCell<T>& cell;
  static constexpr bool along_k = false;
  __device__ T operator()(int64_t i, int64_t m) const {
    return cell.given.recurrent_weight[cell.weight_row(m) * cell.neurons + i];
  }
};
template <typename T>
struct StepGradients {  // (sample, m)
  const GateView<const T>& gz;
  const Rows<T>& rows;
  int64_t t;
  static constexpr bool along_k = false;
  __device__ T operator()(int64_t b, int64_t m) const {
    return t < rows.length(b) ? gz.at(t * rows.B + b, m) : T(0);
  }
};

// gh = R^T gz of a step, into g [N][B]; samples that do not run keep theirs. Blocks: x over
// samples, y over neurons.
template <typename T>
__global__ void __launch_bounds__(kProductThreads)
    memory_state_gradient_kernel(const MemoryStep<T> step, int64_t t, const GateView<const T> gz,
                                 T* g) {
  const int64_t B = step.rows.B;
  const ProductSize size{step.cell.neurons, B, 0, 4 * step.cell.neurons};
  for (int64_t tile = blockIdx.y; tile * kTileSide < size.m; tile += gridDim.y) {
    const TileSums<T> sums = tile_product<T>(RecurrentWeightsTransposed<T>{step.cell},
                                             StepGradients<T>{gz, step.rows, t}, tile,
                                             static_cast<int64_t>(blockIdx.x), size);
    FASTLTC_UNROLL
    for (int p = 0; p < 4; ++p) {
      FASTLTC_UNROLL
      for (int q = 0; q < 4; ++q) {
        const int64_t b = sums.n + q;
        if (sums.m + p >= size.m || b >= B || t >= step.rows.length(b)) continue;
        g[(sums.m + p) * B + b] = sums.value[p][q];
      }
    }
  }
}

// [B, N] of the caller, such as the memory in h0, as [N][B]; zeros where it is null. And back.
template <typename T>
__global__ void memory_take_kernel(const SequenceView<const T> from, int64_t B, int64_t count,
                                   T* to) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= count) return;
  to[k] = from.data == nullptr ? T(0) : from.data[k % B * from.stride_b + k / B * from.stride_c];
}
template <typename T>
__global__ void memory_give_kernel(const T* from, int64_t B, int64_t count,
                                   const SequenceView<T> to) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < count) to.data[k % B * to.stride_b + k / B * to.stride_c] = from[k];
}

}  // namespace fastltc::cuda
