// The parts of LTC that all rows (pairs of a time step and a sample) can do at once: before the
// recurrent part the input map and the sensory synapses, after its backward pass their gradients
// and all sums over rows.
//
//   u_k = x_k input_w_k + input_b_k
//   num_j = gl_j vleak_j + sum_k wse_kj ss_kj      den_j = gl_j + eps + sum_k ws'_kj ss_kj
//   hs_kj = (wse gn_j + ws' gd_j)(ss - ss^2)       gu_k = sum_j sensory_sigma_kj hs_kj
//
// Layout: everything is [channel][row] (ltc_network.h) but the caller's tensors.
//
// Plan: lanes are rows, a warp takes one neuron, input or a few synapses: a synapse's parameters
// are the same for all lanes, which the cache broadcasts, and values of rows are whole lines. Bound
// by the special-function units for many synapses, by launches for few. Sums over rows are kept by
// lane, added within a warp by a fixed tree, and parts of the rows are added in their order by a
// last kernel: no atomics.
#pragma once

#include "cuda/ltc.h"
#include "cuda/ltc_network.h"

namespace fastltc::cuda {

template <typename T>
struct InputMap {
  SequenceView<const T> x;
  const T* w = nullptr;  // [I]; null: 1
  const T* b = nullptr;  // [I]; null: 0
  int I = 0;
  T* u = nullptr;  // [I][rows]
};

// u is 0 in rows past the end of their sample, whose x is not read.
template <typename T>
__global__ void ltc_input_map_kernel(const SequenceRows<T> rows, const InputMap<T> map) {
  const int64_t r = thread_index();
  if (r >= rows.count) return;
  const int64_t t = r / rows.B, b = r % rows.B;
  const bool active = t < rows.length(b);
  for (int k = blockIdx.y; k < map.I; k += gridDim.y) {
    T u = 0;
    if (active) {
      u = element(map.x, b, t, k);
      if (map.w != nullptr) u *= map.w[k];
      if (map.b != nullptr) u += map.b[k];
    }
    map.u[k * rows.count + r] = u;
  }
}

// num and den without the recurrent synapses, [N][rows].
template <typename T>
__global__ void ltc_sensory_sums_kernel(const Network<T> net, int64_t rows, const T* u, T* num,
                                        T* den) {
  each_row(rows, net.sensory.neurons, [&](int64_t r, int j) {
    T n = net.leak_numerator[j], d = net.leak_denominator[j];
    add_column(net.sensory, j, u + r, rows, n, d);
    num[j * rows + r] = n;
    den[j * rows + r] = d;
  });
}

// gu, the gradient of u, [I][rows].
template <typename T>
__global__ void ltc_sensory_gradient_kernel(const Synapses<T> list, int64_t rows, const T* u,
                                            const T* gn, const T* gd, T* gu) {
  each_row(rows, list.rows, [&](int64_t r, int k) {
    gu[k * rows + r] = outgoing_gradient(list, k, u[k * rows + r], rows, gn + r,
                                         [&](int64_t at) { return gd[at + r]; });
  });
}

// The gradient of x, written in full, and of the input map. A block for each input.
template <typename T>
struct InputGradients {
  SequenceView<T> x;
  T* w = nullptr;  // [I]; null: not wanted
  T* b = nullptr;
};
template <typename T>
__global__ void ltc_input_gradient_kernel(const SequenceRows<T> rows, const InputMap<T> map,
                                          const T* gu, const InputGradients<T> grad) {
  const int64_t k = blockIdx.x;
  T sums[2] = {};
  for (int64_t r = threadIdx.x; r < rows.count; r += kBlockThreads) {
    const int64_t t = r / rows.B, b = r % rows.B;
    T value = 0;
    if (t < rows.length(b)) {
      value = gu[k * rows.count + r];
      sums[0] += value * element(map.x, b, t, k);
      sums[1] += value;
      if (map.w != nullptr) value *= map.w[k];
    }
    element(grad.x, b, t, k) = value;
  }
  sum_block(sums);
  if (threadIdx.x != 0) return;
  if (grad.w != nullptr) grad.w[k] = sums[0];
  if (grad.b != nullptr) grad.b[k] = sums[1];
}

// What synapses are summed over: `count` rows, in groups of `inner` that lie `outer` apart; after
// every `groups` of them, so many are skipped.
template <typename T>
struct SummedRows {
  int64_t count = 0;
  int64_t inner = 0;
  int64_t outer = 0;
  int64_t groups = 1;
  int64_t skipped = 0;
  int64_t pitch = 0;         // between channels
  const T* pre = nullptr;    // presynaptic values
  const T* gn = nullptr;     // of the postsynaptic neuron
  const T* gd = nullptr;     // null: -gn * after
  const T* after = nullptr;  // the postsynaptic value after the unfold
};

inline constexpr int kSynapsesPerWarp = 4;

// Parts of the sums of each synapse, [parts][count]; a part is a range of rows, in y.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads, 1)
    ltc_synapse_sums_kernel(const Synapses<T> list, const SummedRows<T> rows,
                            SynapseSums<T>* parts) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t first =
      (static_cast<int64_t>(blockIdx.x) * kBlockWarps + threadIdx.x / kWarp) * kSynapsesPerWarp;
  if (first >= list.count) return;
  Synapse<T> p[kSynapsesPerWarp];
  int64_t pre[kSynapsesPerWarp], post[kSynapsesPerWarp];
  SynapseSums<T> sums[kSynapsesPerWarp];
  FASTLTC_UNROLL
  for (int n = 0; n < kSynapsesPerWarp; ++n) {
    const int64_t k = first + n < list.count ? first + n : first;
    p[n] = list.parameters[k];
    pre[n] = (list.pre[k] < 0 ? 0 : list.pre[k]) * rows.pitch;
    post[n] = (list.post[k] < 0 ? 0 : list.post[k]) * rows.pitch;
  }
  const int64_t size = (rows.count + gridDim.y - 1) / gridDim.y;
  const int64_t begin = blockIdx.y * size;
  const int64_t end = begin + size < rows.count ? begin + size : rows.count;
  for (int64_t r = begin + lane; r < end; r += kWarp) {
    int64_t group = r / rows.inner;
    const int64_t within = r - group * rows.inner;
    if (rows.skipped > 0) group += group / rows.groups * rows.skipped;
    const int64_t at = group * rows.outer + within;
    FASTLTC_UNROLL
    for (int n = 0; n < kSynapsesPerWarp; ++n) {
      const T v = rows.pre[pre[n] + at];
      const T gn = rows.gn[post[n] + at];
      const T gd = rows.gd != nullptr ? rows.gd[post[n] + at] : -gn * rows.after[post[n] + at];
      synapse_backward(p[n], sigmoid_exp2(p[n].a * v + p[n].b), v, gn, gd, sums[n]);
    }
  }
  FASTLTC_UNROLL
  for (int n = 0; n < kSynapsesPerWarp; ++n) {
    const SynapseSums<T> total = sum_lanes(sums[n]);
    if (lane == 0 && first + n < list.count) parts[blockIdx.y * list.count + first + n] = total;
  }
}

template <typename T>
struct SynapseGradients {
  int parts = 0;
  const SynapseSums<T>* sums = nullptr;  // [parts][count]
  SynapseMatrices<T*> dense;
};

// Adds up the parts and writes the gradients of a list's dense parameters. A warp for each synapse.
template <typename T>
__device__ void write_synapse_gradient(const Synapses<T>& list, const SynapseGradients<T>& grad,
                                       int64_t k, int lane, bool softplus_weights) {
  SynapseSums<T> sum;
  for (int part = lane; part < grad.parts; part += kWarp) {
    sum.add(grad.sums[part * list.count + k]);
  }
  sum = sum_lanes(sum);
  if (lane != 0 || list.pre[k] < 0) return;
  const int64_t at = list.dense(list.pre[k], list.post[k]);
  const T slope = softplus_weights ? softplus_slope(list.given.w[at]) : T(1);
  grad.dense.w[at] = (list.given.erev[at] * sum.P + sum.Q) * slope;
  grad.dense.erev[at] = list.parameters[k].w * sum.P;
  grad.dense.mu[at] = -list.given.sigma[at] * sum.H;
  grad.dense.sigma[at] = sum.HV - list.given.mu[at] * sum.H;
}

// Blocks in y: the lists.
template <typename T>
__global__ void ltc_synapse_gradients_kernel(const Network<T> net,
                                             const SynapseGradients<T> recurrent,
                                             const SynapseGradients<T> sensory,
                                             bool softplus_weights) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kBlockWarps + threadIdx.x / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Synapses<T>& list = blockIdx.y == 0 ? net.recurrent : net.sensory;
  if (k >= list.count) return;
  write_synapse_gradient(list, blockIdx.y == 0 ? recurrent : sensory, k, lane, softplus_weights);
}

template <typename T>
struct NeuronGradients {
  const T* gn = nullptr;        // [N][rows]
  const T* gd = nullptr;        // [N][rows]
  const T* capacity = nullptr;  // [N][rows]
  T* gleak = nullptr;           // [N]
  T* vleak = nullptr;
  T* cm = nullptr;
};

// A block for each neuron.
template <typename T>
__global__ void ltc_neuron_gradients_kernel(const Network<T> net, const LtcParameters<T> given,
                                            int64_t rows, const NeuronGradients<T> grad) {
  const int64_t j = blockIdx.x;
  T sums[3] = {};
  for (int64_t r = threadIdx.x; r < rows; r += kBlockThreads) {
    sums[0] += grad.gn[j * rows + r];
    sums[1] += grad.gd[j * rows + r];
    sums[2] += grad.capacity[j * rows + r];
  }
  sum_block(sums);
  if (threadIdx.x != 0) return;
  const T leak_slope = given.softplus ? softplus_slope(given.gleak[j]) : T(1);
  const T cm_slope = given.softplus ? softplus_slope(given.cm[j]) : T(1);
  grad.gleak[j] = (given.vleak[j] * sums[0] + sums[1]) * leak_slope;
  grad.vleak[j] = net.gleak[j] * sums[0];
  grad.cm[j] = sums[2] * static_cast<T>(net.size.U) * cm_slope;
}

template <typename T>
struct OutputGradients {
  Wanted<T> grad;
  LtcStateStrides at;   // of the states
  int64_t of_step = 0;  // states of a step
  T* w = nullptr;       // [M]; null: not wanted
  T* b = nullptr;
};

// A block for each output.
template <typename T>
__global__ void ltc_output_gradients_kernel(const Network<T> net, const SequenceRows<T> rows,
                                            const OutputGradients<T> call) {
  const int64_t m = blockIdx.x, j = net.motor(m);
  const Wanted<T>& grad = call.grad;
  const int64_t count = grad.of_steps() ? rows.count : grad.of_last() ? rows.B : 0;
  T sums[2] = {};
  for (int64_t r = threadIdx.x; r < count; r += kBlockThreads) {
    const int64_t b = r % rows.B, t = r / rows.B, length = rows.length(b);
    if (grad.return_sequences && t >= length) continue;
    const int64_t after = (grad.return_sequences ? t + 1 : length) * call.of_step;
    const T value = element(grad.grad_output, b, t, m);
    sums[0] += value * grad.states[b * call.at.sample + after * call.at.step + j * call.at.neuron];
    sums[1] += value;
  }
  sum_block(sums);
  if (threadIdx.x != 0) return;
  if (call.w != nullptr) call.w[m] = sums[0];
  if (call.b != nullptr) call.b[m] = sums[1];
}

// The gradient of the time steps, from those of neurons or layers: added up where they share one.
template <typename T>
__global__ void ltc_timespans_kernel(const SequenceRows<T> rows, int channels, const T* grad_dt,
                                     const SequenceView<T> grad) {
  const int64_t r = thread_index();
  if (r >= rows.count) return;
  const int64_t b = r % rows.B, t = r / rows.B;
  T total = 0;
  for (int j = 0; j < channels; ++j) {
    const T value = grad_dt[j * rows.count + r];
    if (rows.timespans_per_neuron) element(grad, b, t, j) = value;
    total += value;
  }
  if (!rows.timespans_per_neuron) element(grad, b, t, 0) = total;
}

}  // namespace fastltc::cuda
