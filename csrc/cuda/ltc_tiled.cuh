// The recurrent part of LTC with a kernel for each unfold, for networks of any size.
//
// Maths: ltc_persistent.cuh.
//
// Layout: states [T U + 1][N][B], so that lanes, which are samples, read and write whole lines.
// With mixed memory (memory_cell.cuh) [T (U + 1) + 1][N][B], the first of a step being that before
// its memory cell, and then what that keeps, [T][5][N][B].
//
// Plan: a warp takes one neuron of 32 samples. A synapse's parameters are the same for all its
// lanes, its presynaptic states are one line; neurons of a block share lines of the first cache.
// Backward an unfold is two kernels: the neurons' denominators, from which gt; then, by presynaptic
// neuron, the gradient of the states. The synapses' sums come at the end, over all unfolds, steps
// and samples at once (ltc_synapse_sums_kernel), because a warp that has samples in its lanes would
// otherwise add up over lanes for each synapse and unfold. Nothing is added by two threads.
//
// Bound by the special-function units for wide networks and batches (backward three evaluations for
// each of the forward pass), by launches, T U of them forward and 2 T U backward, for small ones; a
// CUDA graph makes those cheaper. Batches under 32 leave lanes idle.
#pragma once

#include "cuda/ltc_network.h"

namespace fastltc::cuda {

inline constexpr int kTileThreads = 256;
inline constexpr int kTileWarps = kTileThreads / kWarp;

template <typename T>
struct TiledForward {
  Network<T> net;
  Rows<T> rows;
  const T* num = nullptr;  // [N][rows]
  const T* den = nullptr;
  SequenceView<const T> h0;
  const T* output_w = nullptr;  // [M]; null: 1
  const T* output_b = nullptr;  // [M]; null: 0
  SequenceView<T> output;
  bool return_sequences = true;
  T* hn = nullptr;
};

template <typename T>
__device__ T mapped_output(const TiledForward<T>& call, int64_t m, T v) {
  if (call.output_w != nullptr) v *= call.output_w[m];
  if (call.output_b != nullptr) v += call.output_b[m];
  return v;
}

template <typename T>
__global__ void ltc_tiled_initial_kernel(const SequenceView<const T> h0, int64_t B, int64_t count,
                                         T* v) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= count) return;
  v[k] = h0.data == nullptr ? T(0) : h0.data[k % B * h0.stride_b + k / B * h0.stride_c];
}

// `from` and `to` are [N][B]. The last unfold of a step also writes that step's output.
template <typename T>
__global__ void __launch_bounds__(kTileThreads, 1)
    ltc_tiled_forward_kernel(const TiledForward<T> call, int64_t t, bool last, const T* from,
                             T* to) {
  const int64_t B = call.rows.B;
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x % kWarp;
  if (b >= B) return;
  const int neurons = call.net.recurrent.neurons;
  const bool active = t < call.rows.length(b);
  for (int j = blockIdx.y * kTileWarps + threadIdx.x / kWarp; j < neurons;
       j += gridDim.y * kTileWarps) {
    const int64_t at = j * B + b, row = j * call.rows.count + t * B + b;
    T v = from[at];
    if (active) {
      T num = call.num[row], den = call.den[row];
      add_column(call.net.recurrent, j, from + b, B, num, den);
      const T dt = call.rows.step(b, t, j), capacity = call.net.capacity[j];
      v = (capacity * v + dt * num) * reciprocal(capacity + dt * den);
    }
    to[at] = v;
    if (!last || !call.return_sequences) continue;
    const int64_t m = call.net.output_of(j);
    if (m < 0) continue;
    const SequenceView<T>& y = call.output;
    y.data[b * y.stride_b + t * y.stride_t + m * y.stride_c] =
        active ? mapped_output(call, m, v) : T(0);
  }
}

template <typename T>
__global__ void ltc_tiled_final_kernel(const TiledForward<T> call, const T* v, int64_t width) {
  const int64_t B = call.rows.B, N = call.net.size.N;
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= N * B) return;
  const int64_t j = k / B, b = k % B;
  call.hn[b * width + j] = v[k];
  const int64_t m = call.net.output_of(j);
  if (call.return_sequences || m < 0) return;
  const SequenceView<T>& y = call.output;
  y.data[b * y.stride_b + m * y.stride_c] = mapped_output(call, m, v[k]);
}

template <typename T>
struct TiledBackward {
  Network<T> net;
  Rows<T> rows;
  const T* num = nullptr;  // [N][rows]
  const T* den = nullptr;
  const T* output_w = nullptr;  // [M]; null: 1
  SequenceView<const T> grad_output;
  bool return_sequences = true;
  SequenceView<const T> grad_hn;
  T* g = nullptr;         // [N][B] gradient of the state, going back
  T* direct = nullptr;    // [N][B] C gt
  T* grad_num = nullptr;  // [N][rows], as the next ones
  T* grad_den = nullptr;
  T* grad_capacity = nullptr;
  T* grad_dt = nullptr;  // null: not wanted
};

// g at the end of the sequence.
template <typename T>
__global__ void ltc_tiled_last_gradient_kernel(const TiledBackward<T> call) {
  const int64_t B = call.rows.B;
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= call.net.size.N * B) return;
  const int64_t j = k / B, b = k % B;
  const SequenceView<const T>&gh = call.grad_hn, &gy = call.grad_output;
  T g = gh.data == nullptr ? T(0) : gh.data[b * gh.stride_b + j * gh.stride_c];
  const int64_t m = call.net.output_of(j);
  if (gy.data != nullptr && !call.return_sequences && m >= 0) {
    const T value = gy.data[b * gy.stride_b + m * gy.stride_c];
    g += call.output_w == nullptr ? value : value * call.output_w[m];
  }
  call.g[k] = g;
}

// Adds the gradient of a step's output.
template <typename T>
__global__ void ltc_tiled_output_gradient_kernel(const TiledBackward<T> call, int64_t t) {
  const int64_t B = call.rows.B;
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= call.net.size.M * B) return;
  const int64_t m = k / B, b = k % B;
  if (t >= call.rows.length(b)) return;
  const SequenceView<const T>& gy = call.grad_output;
  const T value = gy.data[b * gy.stride_b + t * gy.stride_t + m * gy.stride_c];
  call.g[call.net.motor(m) * B + b] += call.output_w == nullptr ? value : value * call.output_w[m];
}

// gn of one unfold and what it adds to the step's gradients; `first` of a step's unfolds, which is
// its last one, begins those. `before` and `after` are the states around it, all [N][B].
template <typename T>
__global__ void __launch_bounds__(kTileThreads, 1)
    ltc_tiled_neuron_kernel(const TiledBackward<T> call, int64_t t, bool first, const T* before,
                            const T* after, T* gn) {
  const int64_t B = call.rows.B;
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x % kWarp;
  if (b >= B) return;
  const int neurons = call.net.recurrent.neurons;
  const bool active = t < call.rows.length(b);
  for (int j = blockIdx.y * kTileWarps + threadIdx.x / kWarp; j < neurons;
       j += gridDim.y * kTileWarps) {
    const int64_t at = j * B + b, row = j * call.rows.count + t * B + b;
    T num = 0, den = 0, gt = 0, dt = 0, capacity = 0;
    if (active) {
      num = call.num[row];
      den = call.den[row];
      add_column(call.net.recurrent, j, before + b, B, num, den);
      dt = call.rows.step(b, t, j);
      capacity = call.net.capacity[j];
      gt = call.g[at] * reciprocal(capacity + dt * den);
    }
    const T later = after[at];
    const T own_gn = dt * gt;
    gn[at] = own_gn;
    call.direct[at] = capacity * gt;
    const T own_gd = -own_gn * later, gc = gt * (before[at] - later);
    call.grad_num[row] = first ? own_gn : call.grad_num[row] + own_gn;
    call.grad_den[row] = first ? own_gd : call.grad_den[row] + own_gd;
    call.grad_capacity[row] = first ? gc : call.grad_capacity[row] + gc;
    if (call.grad_dt != nullptr) {
      const T gdt = is_held(dt, capacity) ? T(0) : gt * (num - den * later);
      call.grad_dt[row] = first ? gdt : call.grad_dt[row] + gdt;
    }
  }
}

// g of the states before the unfold.
template <typename T>
__global__ void __launch_bounds__(kTileThreads, 1)
    ltc_tiled_state_kernel(const TiledBackward<T> call, int64_t t, const T* before, const T* after,
                           const T* gn) {
  const int64_t B = call.rows.B;
  const int64_t b = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x % kWarp;
  if (b >= B || t >= call.rows.length(b)) return;
  const Synapses<T>& list = call.net.recurrent;
  for (int i = blockIdx.y * kTileWarps + threadIdx.x / kWarp; i < list.neurons;
       i += gridDim.y * kTileWarps) {
    const int64_t at = i * B + b;
    const T v = before[at];
    const int32_t* const out = list.outgoing(i);
    T total = 0;
    for (int n = 0; n < list.out_count[i]; ++n) {
      const Synapse<T> p = list.parameters[out[n]];
      const int64_t post = list.post[out[n]] * B + b;
      const T own_gn = gn[post];
      SynapseSums<T> unused;
      total += p.a * synapse_backward(p, sigmoid_exp2(p.a * v + p.b), v, own_gn,
                                      -own_gn * after[post], unused);
    }
    call.g[at] = call.direct[at] + total * (T(-1) / kLog2E<T>);
  }
}

template <typename T>
__global__ void ltc_tiled_h0_kernel(const TiledBackward<T> call, T* grad_h0, int64_t width) {
  const int64_t B = call.rows.B, N = call.net.size.N;
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= N * B) return;
  grad_h0[k % B * width + k / B] = call.g[k];
}

}  // namespace fastltc::cuda
