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

#include "cuda/frame/block_range.h"
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

// u is 0 in rows past the end of their sample, whose x is not read. A thread for each row, blocks in
// y for inputs.
template <typename T>
__device__ void map_inputs(const SequenceRows<T>& rows, const InputMap<T>& map,
                           const RangePlace& block) {
  const int64_t r = block.x * kBlockThreads + threadIdx.x;
  if (r >= rows.count) return;
  const auto [b, t] = rows.place(r);
  const bool active = t < rows.length(b);
  for (int k = static_cast<int>(block.y); k < map.I; k += static_cast<int>(block.count_y)) {
    T u = 0;
    if (active) {
      u = element(map.x, b, t, k);
      if (map.w != nullptr) u *= map.w[k];
      if (map.b != nullptr) u += map.b[k];
      if (u > kLargestInput<T>) u = kLargestInput<T>;
      if (u < -kLargestInput<T>) u = -kLargestInput<T>;
    }
    map.u[k * rows.count + r] = u;
  }
}

// num and den without the recurrent synapses, [N][rows].
template <typename T>
struct SensorySums {
  Network<T> net;
  int64_t rows = 0;
  const T* u = nullptr;
  T* num = nullptr;
  T* den = nullptr;
  BlockRange sums, positions;
};
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    ltc_sensory_sums_kernel(const __grid_constant__ SensorySums<T> call) {
  const int64_t block = blockIdx.x, rows = call.rows;
  const Network<T>& net = call.net;
  if (call.positions.has(block)) {
    // Where the synapses stand in the list, of which all else is -1.
    const Synapses<T>& list = net.recurrent;
    const int64_t k = call.positions.at(block).x * kBlockThreads + threadIdx.x;
    if (k < list.count && list.is_synapse(k)) {
      list.position[int64_t{list.post[k]} * list.neurons_each + list.pre[k]] =
          static_cast<int32_t>(k);
    }
    return;
  }
  const RangePlace place = call.sums.at(block);
  each_row(place.x, place.y, place.count_y, rows, net.sensory.neurons, [&](int64_t r, int j) {
    T n = net.leak_numerator[j], d = net.leak_denominator[j];
    add_column(net.sensory, j, call.u + r, rows, n, d);
    call.num[j * rows + r] = n;
    call.den[j * rows + r] = d;
  });
}

// gu, the gradient of u, [I][rows].
template <typename T>
struct SensoryGradient {
  const T* u = nullptr;
  const T* gn = nullptr;  // [N][rows]
  const T* gd = nullptr;
  T* gu = nullptr;
};
template <typename T>
__device__ void sensory_gradient(const Synapses<T>& list, int64_t rows,
                                 const SensoryGradient<T>& grad, const RangePlace& block) {
  each_row(block.x, block.y, block.count_y, rows, list.rows, [&](int64_t r, int k) {
    grad.gu[k * rows + r] = outgoing_gradient(list, k, grad.u[k * rows + r], rows, grad.gn + r,
                                              [&](int64_t at) { return grad.gd[at + r]; });
  });
}

// The gradient of x, written in full, and of the input map. A block for each input.
template <typename T>
struct InputGradients {
  const T* gu = nullptr;
  SequenceView<T> x;
  T* w = nullptr;  // [I]; null: not wanted
  T* b = nullptr;
};
template <typename T>
__device__ void input_gradient(const SequenceRows<T>& rows, const InputMap<T>& map,
                               const InputGradients<T>& grad, int64_t k) {
  T sums[2] = {};
  for (int64_t r = threadIdx.x; r < rows.count; r += kBlockThreads) {
    const auto [b, t] = rows.place(r);
    T value = 0;
    if (t < rows.length(b)) {
      value = grad.gu[k * rows.count + r];
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
  int64_t pitch = 0;                // between channels
  const T* pre = nullptr;           // presynaptic values
  const T* gn = nullptr;            // of the postsynaptic neuron
  const T* gd = nullptr;            // null: -gn * after
  const T* after = nullptr;         // the postsynaptic value after the unfold
  SynapseSums<T>* parts = nullptr;  // [parts][synapses], a part being a range of rows
};

inline constexpr int kSynapsesPerWarp = 4;

// Blocks in x for synapses, in y for parts.
template <typename T>
__device__ void synapse_sums(const Synapses<T>& list, const SummedRows<T>& rows,
                             const RangePlace& block) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t first = (block.x * kBlockWarps + threadIdx.x / kWarp) * kSynapsesPerWarp;
  if (first >= list.count) return;
  Synapse<T> p[kSynapsesPerWarp];
  int64_t pre[kSynapsesPerWarp], post[kSynapsesPerWarp];
  SynapseSums<T> sums[kSynapsesPerWarp];
  FASTLTC_UNROLL
  for (int n = 0; n < kSynapsesPerWarp; ++n) {
    const int64_t k = first + n < list.count ? first + n : first;
    const bool is_synapse = list.is_synapse(k);
    p[n] = list.parameters[k];
    pre[n] = (is_synapse ? list.pre[k] : 0) * rows.pitch;
    post[n] = (is_synapse ? list.post[k] : 0) * rows.pitch;
  }
  const int64_t size = (rows.count + block.count_y - 1) / block.count_y;
  const int64_t begin = block.y * size;
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
    if (lane == 0 && first + n < list.count) {
      rows.parts[block.y * list.count + first + n] = total;
    }
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
__device__ void synapse_gradients(const Synapses<T>& list, const SynapseGradients<T>& grad,
                                  int64_t block, bool softplus_weights) {
  const int64_t k = block * kBlockWarps + threadIdx.x / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (k >= list.count) return;
  SynapseSums<T> sum;
  for (int part = lane; part < grad.parts; part += kWarp) {
    sum.add(grad.sums[part * list.count + k]);
  }
  sum = sum_lanes(sum);
  if (lane != 0 || !list.is_synapse(k)) return;
  const int64_t at = list.dense(list.pre[k], list.post[k]);
  const T slope = softplus_weights ? softplus_slope(list.given.w[at]) : T(1);
  grad.dense.w[at] = (list.given.erev[at] * sum.P + sum.Q) * slope;
  grad.dense.erev[at] = list.parameters[k].w * sum.P;
  grad.dense.mu[at] = -list.given.sigma[at] * sum.H;
  grad.dense.sigma[at] = sum.HV - list.given.mu[at] * sum.H;
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
__device__ void neuron_gradients(const Network<T>& net, const LtcParameters<T>& given, int64_t rows,
                                 const NeuronGradients<T>& grad, int64_t j) {
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
__device__ void output_gradients(const Network<T>& net, const SequenceRows<T>& rows,
                                 const OutputGradients<T>& call, int64_t m) {
  const int64_t j = net.motor(m);
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
struct TimespansGradient {
  int channels = 0;
  const T* grad_dt = nullptr;  // [channels][rows]
  SequenceView<T> to{};        // null: not wanted, or written already
};
template <typename T>
__device__ void timespans_gradient(const SequenceRows<T>& rows, const TimespansGradient<T>& grad,
                                   int64_t block) {
  const int64_t r = block * kBlockThreads + threadIdx.x;
  if (r >= rows.count) return;
  const auto [b, t] = rows.place(r);
  T total = 0;
  for (int j = 0; j < grad.channels; ++j) {
    const T value = grad.grad_dt[j * rows.count + r];
    if (rows.timespans_per_neuron) element(grad.to, b, t, j) = value;
    total += value;
  }
  if (!rows.timespans_per_neuron) element(grad.to, b, t, 0) = total;
}

// What follows a backward recurrence, in two launches whose blocks share it out. First all that
// needs its gradients alone.
template <typename T>
struct RowSums {
  Network<T> net;
  LtcParameters<T> given;
  SequenceRows<T> rows;
  SummedRows<T> recurrent, sensory;
  SensoryGradient<T> inputs;
  NeuronGradients<T> neurons;
  OutputGradients<T> outputs;
  TimespansGradient<T> timespans;
  BlockRange of_recurrent, of_sensory, of_inputs, of_neurons, of_outputs, of_timespans;
};
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    ltc_row_sums_kernel(const __grid_constant__ RowSums<T> call) {
  const int64_t block = blockIdx.x;
  if (call.of_recurrent.has(block)) {
    synapse_sums(call.net.recurrent, call.recurrent, call.of_recurrent.at(block));
  } else if (call.of_sensory.has(block)) {
    synapse_sums(call.net.sensory, call.sensory, call.of_sensory.at(block));
  } else if (call.of_inputs.has(block)) {
    sensory_gradient(call.net.sensory, call.rows.count, call.inputs, call.of_inputs.at(block));
  } else if (call.of_neurons.has(block)) {
    neuron_gradients(call.net, call.given, call.rows.count, call.neurons,
                     call.of_neurons.at(block).x);
  } else if (call.of_outputs.has(block)) {
    output_gradients(call.net, call.rows, call.outputs, call.of_outputs.at(block).x);
  } else if (call.of_timespans.has(block)) {
    timespans_gradient(call.rows, call.timespans, call.of_timespans.at(block).x);
  }
}

// Then what needs those sums: the gradients of the synapses' parameters, and of x.
template <typename T>
struct LastGradients {
  Network<T> net;
  SequenceRows<T> rows;
  InputMap<T> map;
  SynapseGradients<T> recurrent, sensory;
  InputGradients<T> inputs;
  bool softplus = false;
  BlockRange of_recurrent, of_sensory, of_inputs;
};
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    ltc_last_gradients_kernel(const __grid_constant__ LastGradients<T> call) {
  const int64_t block = blockIdx.x;
  if (call.of_inputs.has(block)) {
    input_gradient(call.rows, call.map, call.inputs, call.of_inputs.at(block).x);
  } else if (call.of_recurrent.has(block)) {
    synapse_gradients(call.net.recurrent, call.recurrent, call.of_recurrent.at(block).x,
                      call.softplus);
  } else if (call.of_sensory.has(block)) {
    synapse_gradients(call.net.sensory, call.sensory, call.of_sensory.at(block).x, call.softplus);
  }
}

}  // namespace fastltc::cuda
