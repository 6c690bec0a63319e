// The recurrent part of LTC with a kernel for each unfold, for networks of any size.
//
// Maths: ltc_persistent.cuh.
//
// Layout: states [T U + 1][N][B], so that lanes, which are samples, read and write whole lines.
// With mixed memory (memory.cuh) [T (U + 1) + 1][N][B], the first of a step being that before
// its memory cell, and then what that keeps, [T][B][N][5].
//
// Plan: a warp takes one neuron of 32 samples. A synapse's parameters are the same for all its
// lanes, its presynaptic states are one line; neurons of a block share lines of the first cache.
// Backward an unfold is two kernels: the neurons' denominators, from which gt; then, by presynaptic
// neuron, the gradient of the states. The synapses' sums come at the end, over all unfolds, steps
// and samples at once (ltc_row_sums_kernel), because a warp that has samples in its lanes would
// otherwise add up over lanes for each synapse and unfold. Nothing is added by two threads.
//
// Bound by the special-function units for wide networks and batches (backward three evaluations for
// each of the forward pass), by launches, T U of them forward and 2 T U backward, for small ones; a
// CUDA graph makes those cheaper. Batches under 32 leave lanes idle.
#pragma once

#include "cuda/ltc_network.h"

namespace fastltc::cuda {

// `from` and `to` are [N][B]. The last unfold of a step also writes that step's output.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads, 1)
    ltc_tiled_forward_kernel(const LtcForward<T> call, int64_t t, bool last, const T* from, T* to) {
  const int64_t B = call.rows.B;
  const bool active = call.rows.runs(lane_row(), t);
  each_row(B, call.net.recurrent.neurons, [&](int64_t b, int j) {
    const int64_t at = j * B + b, row = j * call.rows.count + t * B + b;
    T v = from[at];
    if (active) {
      T num = call.num[row], den = call.den[row];
      add_column(call.net.recurrent, j, from + b, B, num, den);
      const T dt = call.rows.step(b, t, j), capacity = call.net.capacity[j];
      v = (capacity * v + dt * num) * reciprocal(capacity + dt * den);
    }
    to[at] = v;
    if (!last || !call.out.return_sequences) return;
    const int64_t m = call.net.output_of(j);
    if (m >= 0) call.write_output(b, t, m, v, active);
  });
}

// The output where only the last is wanted, from the last state. A thread for each output and
// sample.
template <typename T>
__global__ void ltc_tiled_output_kernel(const LtcForward<T> call, const T* v) {
  const int64_t B = call.rows.B, k = thread_index(), m = k / B, b = k % B;
  if (m < call.net.size.M) call.write_output(b, 0, m, v[call.net.motor(m) * B + b]);
}

template <typename T>
struct TiledBackward : LtcBackward<T> {
  T* g = nullptr;        // [N][B] gradient of the state, going back
  T* direct = nullptr;   // [N][B] C gt
  T* grad_dt = nullptr;  // [N][rows]; null: not wanted
};

// Adds the gradient of a step's output, or of the only one where t is -1. A thread for each output
// and sample.
template <typename T>
__global__ void ltc_tiled_output_gradient_kernel(const TiledBackward<T> call, int64_t t) {
  const int64_t B = call.rows.B, k = thread_index(), m = k / B, b = k % B;
  if (m >= call.net.size.M || t >= call.rows.length(b)) return;
  call.g[call.net.motor(m) * B + b] += call.output_gradient(b, t < 0 ? 0 : t, m);
}

// gn of one unfold and what it adds to the step's gradients; `first` of a step's unfolds, which is
// its last one, begins those. `before` and `after` are the states around it, all [N][B].
template <typename T>
__global__ void __launch_bounds__(kBlockThreads, 1)
    ltc_tiled_neuron_kernel(const TiledBackward<T> call, int64_t t, bool first, const T* before,
                            const T* after, T* gn) {
  const int64_t B = call.rows.B;
  const bool active = call.rows.runs(lane_row(), t);
  each_row(B, call.net.recurrent.neurons, [&](int64_t b, int j) {
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
    const auto add = [&](T* to, T value) { to[row] = first ? value : to[row] + value; };
    add(call.grad_num, own_gn);
    add(call.grad_den, -own_gn * later);
    add(call.grad_capacity, gt * (before[at] - later));
    if (call.grad_dt == nullptr) return;
    add(call.grad_dt, is_held(dt, capacity) ? T(0) : gt * (num - den * later));
  });
}

// g of the states before the unfold.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads, 1)
    ltc_tiled_state_kernel(const TiledBackward<T> call, int64_t t, const T* before, const T* after,
                           const T* gn) {
  const int64_t B = call.rows.B;
  const Synapses<T>& list = call.net.recurrent;
  if (!call.rows.runs(lane_row(), t)) return;
  each_row(B, list.neurons, [&](int64_t b, int i) {
    const int64_t at = i * B + b;
    const T *const gn_b = gn + b, *const after_b = after + b;
    const T total = outgoing_gradient(list, i, before[at], B, gn_b,
                                      [&](int64_t post) { return -gn_b[post] * after_b[post]; });
    call.g[at] = call.direct[at] + total;
  });
}

}  // namespace fastltc::cuda
