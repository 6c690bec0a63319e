// The recurrent part of LTC, a whole sequence of one sample in one block: the plans warp_per_sample
// (a block is one warp) and block_per_sample.
//
// Maths (csrc/cpu/ltc_batch_lanes.h says where it is from), num and den being the sensory sums:
//   v'_j = (C_j v_j + dt (num_j + sum_i we_ij s_ij)) / (C_j + dt (den_j + sum_i w'_ij s_ij))
// Backward of one unfold, g the gradient of v':
//   gt = g / (C + dt den)   gn = dt gt   gd = -gn v'   h = (we gn + w' gd)(s - s^2)
//   g_j <- C_j gt_j + sum sigma h    P += s gn   Q += s gd   H += h   HV += h v_i
//
// Layout: num, den and their gradients [N][rows] (ltc_network.h); states [B][T U + 1][N]. With
// mixed memory a step has one more state, that before the memory cell, and a sample's states [T (U
// + 1) + 1][N] are followed by what the memory cell keeps, [T][5][N].
//
// Plan: the driven neurons, those with recurrent synapses, share the threads of a block: each gets
// G neighbouring lanes, a power of two, and each lane every G-th of its synapses. A lane keeps the
// parameters of the first `slots` in registers, and in the backward pass their four sums too, over
// all its samples and steps; further ones it reads from memory. States are exchanged through shared
// memory: forward one barrier for each unfold, backward two. Neurons without synapses (11 of the 19
// of AutoNCP(19, 2)) are another role of the threads: one multiply-add for each unfold.
// Backward, each synapse's share of the gradient of its presynaptic neuron goes through shared
// memory to the lanes that add up that neuron's, in the order of its list. No atomics; each block
// leaves its own sums, which ltc_synapse_gradients_kernel adds in order.
// Layers beside each other have blocks of their own: x of the grid is the layer, y shares out the
// samples. With mixed memory (memory.cuh) a step begins with its product and gates, which take
// one barrier more forward and two backward.
//
// Bound by the chain of an unfold (shared memory, 2^t, reciprocal, log2(G) shuffles, reciprocal,
// shared memory, barrier) while a warp or block does not fill its processor, else by the
// special-function units.
#pragma once

#include "cuda/ltc_network.h"
#include "cuda/memory.cuh"

namespace fastltc::cuda {

template <bool one_warp>
__device__ __forceinline__ void barrier() {
  if constexpr (one_warp) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

// The largest power of two up to threads / parts, and no more than a warp.
__device__ __forceinline__ int lanes_each(int threads, int parts) {
  int lanes = 1;
  while (lanes < kWarp && 2 * lanes * parts <= threads) lanes *= 2;
  return lanes;
}

// The same value, of which the compiler knows nothing: else it computes what depends on it once,
// before the loops, into registers that are not there.
template <typename Integer>
__device__ __forceinline__ Integer opaque(Integer value) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(Integer) == 8) {
    asm volatile("" : "+l"(value));
  } else {
    asm volatile("" : "+r"(value));
  }
#endif
  return value;
}

// What a call is about. Each has kernels of its own: the first of them is short of registers as it
// is.
enum LtcKind : int { kOneLayer, kLayers, kMixedMemory };

// The layer that a block runs, where several stand beside each other.
template <typename T, int kind>
struct Layer {
  const Network<T>& net;

  // Read again rather than kept in registers.
  __device__ int index() const {
    return kind == kLayers ? static_cast<int>(opaque(blockIdx.x)) : 0;
  }
  __device__ int neurons() const { return net.recurrent.neurons_each; }
  __device__ int64_t first_neuron() const { return int64_t{index()} * neurons(); }
  __device__ int first_synapse() const {
    return kind == kLayers ? net.recurrent.column[first_neuron()] : 0;
  }
  // Of the synapse at a position of the whole list. A list that is not well formed may lead to
  // another layer's: then the zero behind the states.
  __device__ int pre(int position) const {
    const int64_t own = net.recurrent.pre[position] - first_neuron();
    if (kind == kLayers && (own < 0 || own >= neurons())) return neurons();
    return static_cast<int>(own);
  }
};

// What a thread does. Neurons and synapses are counted from the first of the block's layer.
template <typename T, int slots>
struct Role {
  int lanes;      // G
  int driven;     // the neuron whose synapses it shares, or -1
  bool leads;     // the first of the neuron's lanes
  int leaky;      // the neuron without synapses that it runs, or -1
  int first;      // position of its first synapse
  int end;        // position after the neuron's last synapse
  T capacity[2];  // of the driven and of the leaky neuron
  // Empty slots read a zero behind the states and have no weight.
  Synapse<T> p[slots];
  // Their presynaptic neurons in the lower half; the upper half is for CollectRole.
  uint32_t indices[slots];

  // `most`: synapses of any layer.
  template <int kind>
  __device__ Role(const Layer<T, kind>& layer, int most) {
    const Network<T>& net = layer.net;
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    const int neurons = layer.neurons();
    const int64_t base = layer.first_neuron();
    const int first_synapse = layer.first_synapse();
    const int32_t* const order = net.order + base;
    const int32_t* const column = net.recurrent.column + base;
    const int count = net.driven_count[layer.index()];
    lanes = lanes_each(threads, count);
    const int group = thread / lanes;
    driven = group < count ? order[group] : -1;
    leads = driven >= 0 && thread % lanes == 0;
    leaky = count + thread < neurons ? order[count + thread] : -1;
    // A list that is not well formed may lead anywhere.
    const auto inside = [&](int k) { return k < 0 ? 0 : k > most ? most : k; };
    first = driven >= 0 ? inside(column[driven] - first_synapse) + thread % lanes : 0;
    end = driven >= 0 ? inside(column[driven + 1] - first_synapse) : 0;
    capacity[0] = driven >= 0 ? net.capacity[base + driven] : T(1);
    capacity[1] = leaky >= 0 ? net.capacity[base + leaky] : T(1);
    FASTLTC_UNROLL
    for (int n = 0; n < slots; ++n) {
      const int k = first + n * lanes;
      p[n] = k < end ? net.recurrent.parameters[first_synapse + k]
                     : Synapse<T>{T(0), T(0), T(0), T(0)};
      indices[n] = static_cast<uint32_t>(k < end ? layer.pre(first_synapse + k) : neurons);
    }
  }
  __device__ int pre(int n) const { return static_cast<int>(opaque(indices[n]) & 0xffffu); }
  __device__ int position(int n) const { return static_cast<int>(opaque(indices[n]) >> 16); }
  // The first synapse that has no slot.
  __device__ int spilled() const { return first + slots * lanes; }
};

// What a neuron gets from outside in a step.
template <typename T>
struct StepSums {
  T num = 0;
  T den = 0;
  T dt = 1;

  __device__ void load(const Rows<T>& rows, const T* nums, const T* dens, int64_t b, int64_t t,
                       int64_t j) {
    const int64_t at = j * rows.count + t * rows.B + b;
    num = nums[at];
    den = dens[at];
    dt = rows.step(b, t, static_cast<int>(j));
  }
};

template <typename T>
struct PersistentForward : LtcForward<T> {
  int most = 0;  // synapses of any layer
  SampleMemory<T> memory;
};

template <typename T>
size_t persistent_forward_shared(int64_t neurons) {
  return 2 * static_cast<size_t>(neurons + 1) * sizeof(T);
}

template <typename T, int slots, bool one_warp, int kind>
__device__ void persistent_forward_sample(const PersistentForward<T>& call,
                                          const Role<T, slots>& role, int64_t b, T* from, T* to) {
  const Network<T>& net = call.net;
  const Synapses<T>& list = net.recurrent;
  const Layer<T, kind> layer{net};
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int unfolds = static_cast<int>(net.size.U), outputs = net.outputs_each;
  const int64_t base = layer.first_neuron(), first_output = int64_t{layer.index()} * outputs;
  // Of all layers.
  const int64_t neurons = list.neurons;
  const int64_t length = call.rows.length(b);
  constexpr bool mixed = kind == kMixedMemory;
  const int64_t of_step = unfolds + (mixed ? 1 : 0), state_rows = net.size.T * of_step + 1;
  const int64_t history = (state_rows + (mixed ? kKeptRows * net.size.T : 0)) * neurons;
  const Results<T>& out = call.out;
  T* kept = out.states == nullptr ? nullptr : out.states + b * history + base;
  T* gates = kept == nullptr ? nullptr : kept + state_rows * neurons;
  const int led = mixed && thread % call.memory.lanes == 0 ? thread / call.memory.lanes : -1;
  T c = 0;
  if (mixed && led >= 0 && led < neurons) c = call.memory.initial(b, led);
  // Of the neurons that this thread writes; -1: none.
  const int own[2] = {role.leads ? role.driven : -1, role.leaky};
  const int read[2] = {role.driven, role.leaky};
  T v[2] = {};
  FASTLTC_UNROLL
  for (int n = 0; n < 2; ++n) {
    if (read[n] >= 0) v[n] = state_or_zero(call.h0, b, base + read[n]);
    if (own[n] < 0) continue;
    from[own[n]] = v[n];
    if (kept != nullptr) kept[own[n]] = v[n];
  }
  StepSums<T> step[2];
  FASTLTC_UNROLL
  for (int n = 0; n < 2; ++n) {
    if (length > 0 && read[n] >= 0) {
      step[n].load(call.rows, call.num, call.den, b, 0, base + read[n]);
    }
  }
  barrier<one_warp>();
  for (int64_t t = 0; t < length; ++t) {
    const StepSums<T> now = step[0];
    const T rate = reciprocal(role.capacity[1] + step[1].dt * step[1].den);
    const T leaky_num = step[1].dt * step[1].num * rate;
    const T leaky_den = role.capacity[1] * rate;
    // Long before they are needed.
    FASTLTC_UNROLL
    for (int n = 0; n < 2; ++n) {
      if (t + 1 < length && read[n] >= 0) {
        step[n].load(call.rows, call.num, call.den, b, t + 1, base + read[n]);
      }
    }
    if constexpr (mixed) {
      if (kept != nullptr) kept += neurons;
      memory_forward_step(call.memory, static_cast<int>(neurons), t * call.rows.B + b, from, to,
                          gates, c);
      if (gates != nullptr) gates += kKeptRows * neurons;
      barrier<one_warp>();
      T* const other = from;
      from = to;
      to = other;
      FASTLTC_UNROLL
      for (int n = 0; n < 2; ++n) {
        if (read[n] < 0) continue;
        v[n] = from[read[n]];
        if (kept != nullptr && own[n] >= 0) kept[own[n]] = v[n];
      }
    }
    for (int u = 0; u < unfolds; ++u) {
      T num = 0, den = 0;
      FASTLTC_UNROLL
      for (int n = 0; n < slots; ++n) {
        const T s = sigmoid_exp2(role.p[n].a * from[role.pre(n)] + role.p[n].b);
        num += role.p[n].we * s;
        den += role.p[n].w * s;
      }
      for (int k = role.spilled(); k < role.end; k += role.lanes) {
        const int at = layer.first_synapse() + k;
        const Synapse<T> p = list.parameters[at];
        const T s = sigmoid_exp2(p.a * from[layer.pre(at)] + p.b);
        num += p.we * s;
        den += p.w * s;
      }
      num = sum_lanes(num, role.lanes) + now.num;
      den = sum_lanes(den, role.lanes) + now.den;
      v[0] = (role.capacity[0] * v[0] + now.dt * num) * reciprocal(role.capacity[0] + now.dt * den);
      v[1] = leaky_den * v[1] + leaky_num;
      if (kept != nullptr) kept += neurons;
      FASTLTC_UNROLL
      for (int n = 0; n < 2; ++n) {
        if (own[n] < 0) continue;
        to[own[n]] = v[n];
        if (kept != nullptr) kept[own[n]] = v[n];
      }
      barrier<one_warp>();
      T* const other = from;
      from = to;
      to = other;
    }
    FASTLTC_UNROLL
    for (int n = 0; n < 2; ++n) {
      if (out.return_sequences && own[n] >= 0 && own[n] < outputs) {
        call.write_output(b, t, first_output + own[n], v[n]);
      }
    }
  }
  FASTLTC_UNROLL
  for (int n = 0; n < 2; ++n) {
    if (own[n] < 0) continue;
    out.hn[b * (mixed ? 2 * neurons : neurons) + base + own[n]] = v[n];
    if (!out.return_sequences && own[n] < outputs) {
      call.write_output(b, 0, first_output + own[n], v[n]);
    }
  }
  if (mixed && led >= 0 && led < neurons) out.hn[(2 * b + 1) * neurons + led] = c;
  // The rest is left to the first layer.
  if (base > 0) return;
  // Nobody reads these states, but outputs of an operator should not be left to chance.
  if (kept != nullptr) {
    T* const states = out.states + b * history;
    const int64_t written = (length * of_step + 1) * neurons;
    for (int64_t k = written + thread; k < state_rows * neurons; k += threads) states[k] = T(0);
    for (int64_t k = (state_rows + kKeptRows * length) * neurons + thread; mixed && k < history;
         k += threads) {
      states[k] = T(0);
    }
  }
  const int64_t all = out.return_sequences ? net.size.M : 0;
  for (int64_t k = length * all + thread; k < net.size.T * all; k += threads) {
    element(out.output, b, k / all, k % all) = T(0);
  }
}

template <typename T, int slots, int max_threads, int kind>
__global__ void __launch_bounds__(max_threads, 1)
    ltc_persistent_forward_kernel(const PersistentForward<T> call) {
  constexpr bool one_warp = max_threads == kWarp;
  const int neurons = call.net.recurrent.neurons_each;
  T* const from = reinterpret_cast<T*>(dynamic_shared());
  T* const to = from + neurons + 1;
  if (threadIdx.x == 0) from[neurons] = to[neurons] = T(0);
  const Role<T, slots> role(Layer<T, kind>{call.net}, call.most);
  for (int64_t b = blockIdx.y; b < call.rows.B; b += gridDim.y) {
    // Its last barrier comes after all that reads the shared states.
    persistent_forward_sample<T, slots, one_warp, kind>(call, role, b, from, to);
  }
}

template <typename T>
struct PersistentBackward : LtcBackward<T> {
  // null: not wanted. Where all neurons share a step, channels are layers.
  SequenceView<T> grad_timespans;
  SynapseSums<T>* synapse_sums = nullptr;  // [y of the grid][synapses]
  int most = 0;                            // synapses of any layer
  SampleMemory<T> memory;
  T* grad_c = nullptr;  // [B][N], of the memory going back
};

// A thread of a large block has not enough registers for its slots' four parameters and four sums:
// two of the parameters are in shared memory, and a sigmoid waits for its gradient where the share
// will stand.
template <int slots, int max_threads>
inline constexpr bool short_of_registers = max_threads != kWarp;

// Shares, or with mixed memory the gradients of the gates, which take turns.
FASTLTC_DEVICE int64_t shared_shares(int64_t neurons, int64_t most, int kind) {
  return kind == kMixedMemory && 4 * neurons > most ? 4 * neurons : most;
}
template <typename T, int slots, int max_threads, int kind>
size_t persistent_backward_shared(int64_t neurons, int64_t most, int threads) {
  const int64_t parked = short_of_registers<slots, max_threads> ? 2 * slots * threads : 0;
  const int64_t shares = shared_shares(neurons, most, kind);
  return static_cast<size_t>(shares + 1 + 3 * neurons + 1 + parked) * sizeof(T);
}

template <typename T>
struct BackwardShared {
  T* v;       // [N + 1] before the unfold
  T* g;       // [N] gradient of the state after it
  T* direct;  // [N] C gt
  T* shares;  // [shared_shares + 1] sigma h times -log2(e), and a zero at the end
  T* parked;  // [2][slots][threads]: b and we
};

// A thread's part in the gradients of the states: G' lanes for each neuron, and of its outgoing
// synapses `slots` positions for each lane in registers, beside the role's indices: the block plan
// has no register to spare.
struct CollectRole {
  int lanes;
  int neuron;  // -1: none
  bool leads;
  int first;  // of the neuron's outgoing synapses
  int count;

  template <typename T, int slots, int kind>
  __device__ CollectRole(const Layer<T, kind>& layer, int zero, Role<T, slots>& role) {
    const int thread = static_cast<int>(threadIdx.x);
    lanes = lanes_each(static_cast<int>(blockDim.x), layer.neurons());
    const int group = thread / lanes;
    neuron = group < layer.neurons() ? group : -1;
    leads = neuron >= 0 && thread % lanes == 0;
    first = thread % lanes;
    count = neuron >= 0 ? layer.net.recurrent.out_count[layer.first_neuron() + neuron] : 0;
    FASTLTC_UNROLL
    for (int n = 0; n < slots; ++n) {
      const int k = first + n * lanes;
      // Behind the shares stands a zero.
      role.indices[n] |= static_cast<uint32_t>(k < count ? share(layer, zero, k) : zero) << 16;
    }
  }
  // Where the share of the neuron's k-th outgoing synapse stands; `zero` where it has none.
  template <typename T, int kind>
  __device__ int share(const Layer<T, kind>& layer, int zero, int k) const {
    const int32_t* const out = layer.net.recurrent.outgoing(layer.first_neuron() + neuron);
    const int at = out[k] - layer.first_synapse();
    return at < 0 || at > zero ? zero : at;
  }
};

template <typename T, int slots, int max_threads, int kind>
__device__ void persistent_backward_sample(const PersistentBackward<T>& call,
                                           const Role<T, slots>& role, const CollectRole& collect,
                                           int sample, const BackwardShared<T>& shared,
                                           SynapseSums<T> (&sums)[slots], T* warp_sums) {
  constexpr bool one_warp = max_threads == kWarp;
  const Network<T>& net = call.net;
  const Synapses<T>& list = net.recurrent;
  const Layer<T, kind> layer{net};
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int neurons = layer.neurons(), unfolds = static_cast<int>(net.size.U);
  const int outputs = net.outputs_each;
  const int length = static_cast<int>(call.rows.length(sample));
  const int zero = static_cast<int>(shared_shares(neurons, call.most, kind));
  constexpr bool mixed = kind == kMixedMemory;
  // Of the layer's first neuron, before unfold u of step t; with mixed memory -1 is before its
  // cell.
  const auto state_at = [&](int64_t t, int u) {
    const int64_t of_step = unfolds + (mixed ? 1 : 0);
    const int64_t rows = net.size.T * (of_step + (mixed ? kKeptRows : 0)) + 1;
    const int64_t row = int64_t{opaque(sample)} * rows + t * of_step + u + (mixed ? 1 : 0);
    return row * list.neurons + layer.first_neuron();
  };
  // What the memory cell kept of step t.
  const auto gates_at = [&](int64_t t) {
    return call.grad.states + state_at(net.size.T, 0) + t * kKeptRows * list.neurons;
  };
  const auto grad_c = [&]() -> T& {
    return call.grad_c[int64_t{opaque(sample)} * neurons + opaque(thread)];
  };
  const SequenceView<T>& grad_dt = call.grad_timespans;
  const auto parameters = [&](int n) {
    Synapse<T> p = role.p[n];
    if constexpr (short_of_registers<slots, max_threads>) {
      p.b = shared.parked[n * threads + thread];
      p.we = shared.parked[(slots + n) * threads + thread];
    }
    return p;
  };
  const auto output_gradient = [&](int64_t b, int64_t t, int own) {
    return call.output_gradient(b, t, int64_t{layer.index()} * outputs + own);
  };
  const bool has_outputs = call.grad.grad_output.data != nullptr;
  // shared.g[j] is thread j's between two barriers.
  if (opaque(thread) < neurons) {
    T g = state_or_zero(call.grad.grad_hn, sample, layer.first_neuron() + thread);
    if (has_outputs && !call.grad.return_sequences && opaque(thread) < outputs) {
      g += output_gradient(sample, 0, thread);
    }
    shared.g[thread] = g;
    if constexpr (mixed) {
      grad_c() = state_or_zero(call.memory.grad_c_last, sample, thread);
    }
  }
  for (int t = length; t < net.size.T; ++t) {
    const int64_t b = opaque(sample);
    const int own[2] = {role.leads ? role.driven : -1, role.leaky};
    FASTLTC_UNROLL
    for (int n = 0; n < 2; ++n) {
      if (own[n] < 0) continue;
      const int64_t j = layer.first_neuron() + own[n];
      const int64_t at = j * call.rows.count + t * call.rows.B + b;
      call.grad_num[at] = call.grad_den[at] = call.grad_capacity[at] = T(0);
      if (grad_dt.data != nullptr && call.rows.timespans_per_neuron)
        element(grad_dt, b, t, j) = T(0);
    }
    if (grad_dt.data != nullptr && !call.rows.timespans_per_neuron && opaque(thread) == 0) {
      element(grad_dt, b, t, layer.index()) = T(0);
    }
  }
  for (int t = length - 1; t >= 0; --t) {
    const int64_t b = opaque(sample);
    const int read[2] = {opaque(role.driven), opaque(role.leaky)};
    const int own[2] = {role.leads ? read[0] : -1, read[1]};
    T after[2] = {};
    // Over the unfolds: gt, gt v' and gt (v - v').
    T sum_g[2] = {}, sum_ga[2] = {}, sum_c[2] = {};
    T driven_gdt = 0;
    StepSums<T> step;
    if (role.driven >= 0) {
      step.load(call.rows, call.num, call.den, b, t, layer.first_neuron() + role.driven);
    }
    T rate = 0;
    if (role.leaky >= 0) {
      StepSums<T> leaky;
      leaky.load(call.rows, call.num, call.den, b, t, layer.first_neuron() + role.leaky);
      rate = reciprocal(role.capacity[1] + leaky.dt * leaky.den);
    }
    FASTLTC_UNROLL
    for (int n = 0; n < 2; ++n) {
      if (read[n] >= 0) after[n] = call.grad.states[state_at(t, unfolds) + read[n]];
    }
    if (has_outputs && call.grad.return_sequences) {
      // The last unfold's gradients are written by the threads that collect them.
      barrier<one_warp>();
      if (opaque(thread) < outputs) shared.g[thread] += output_gradient(b, t, thread);
    }
    for (int u = unfolds - 1; u >= 0; --u) {
      if (opaque(thread) < neurons) shared.v[thread] = call.grad.states[state_at(t, u) + thread];
      barrier<one_warp>();
      T s[slots];
      T num = 0, den = 0;
      int at = opaque(role.first);
      FASTLTC_UNROLL
      for (int n = 0; n < slots; ++n) {
        const Synapse<T> p = parameters(n);
        const T sn = sigmoid_exp2(p.a * shared.v[role.pre(n)] + p.b);
        den += p.w * sn;
        if (grad_dt.data != nullptr) num += p.we * sn;
        if constexpr (!short_of_registers<slots, max_threads>) {
          s[n] = sn;
        } else if (at < role.end) {
          shared.shares[at] = sn;
          at += role.lanes;
        }
      }
      for (int k = role.spilled(); k < role.end; k += role.lanes) {
        const int synapse = layer.first_synapse() + k;
        const Synapse<T> p = list.parameters[synapse];
        const T sk = sigmoid_exp2(p.a * shared.v[layer.pre(synapse)] + p.b);
        num += p.we * sk;
        den += p.w * sk;
      }
      den = sum_lanes(den, role.lanes) + step.den;
      if (grad_dt.data != nullptr) num = sum_lanes(num, role.lanes) + step.num;
      T gt[2] = {};
      if (role.driven >= 0) {
        gt[0] = shared.g[role.driven] * reciprocal(role.capacity[0] + step.dt * den);
      }
      if (role.leaky >= 0) gt[1] = shared.g[role.leaky] * rate;
      const T synapse_gn = step.dt * gt[0];
      const T synapse_gd = -synapse_gn * after[0];
      driven_gdt += gt[0] * (num - den * after[0]);
      int k = opaque(role.first);
      FASTLTC_UNROLL
      for (int n = 0; n < slots; ++n) {
        const Synapse<T> p = parameters(n);
        if constexpr (short_of_registers<slots, max_threads>) {
          s[n] = k < role.end ? shared.shares[k] : T(0);
        }
        const T h =
            synapse_backward(p, s[n], shared.v[role.pre(n)], synapse_gn, synapse_gd, sums[n]);
        if (k < role.end) shared.shares[k] = h * p.a;
        k += role.lanes;
      }
      for (; k < role.end; k += role.lanes) {
        const int synapse = layer.first_synapse() + k;
        const Synapse<T> p = list.parameters[synapse];
        const T v = shared.v[layer.pre(synapse)];
        SynapseSums<T>& stored = call.synapse_sums[blockIdx.y * list.count + synapse];
        SynapseSums<T> sum = stored;
        const T h =
            synapse_backward(p, sigmoid_exp2(p.a * v + p.b), v, synapse_gn, synapse_gd, sum);
        stored = sum;
        shared.shares[k] = h * p.a;
      }
      FASTLTC_UNROLL
      for (int n = 0; n < 2; ++n) {
        if (read[n] < 0) continue;
        const T before = shared.v[read[n]];
        sum_g[n] += gt[n];
        sum_ga[n] += gt[n] * after[n];
        sum_c[n] += gt[n] * (before - after[n]);
        after[n] = before;
        if (own[n] >= 0) shared.direct[own[n]] = role.capacity[n] * gt[n];
      }
      barrier<one_warp>();
      T total = 0;
      FASTLTC_UNROLL
      for (int n = 0; n < slots; ++n) total += shared.shares[role.position(n)];
      for (int k = collect.first + slots * collect.lanes; k < collect.count; k += collect.lanes) {
        total += shared.shares[collect.share(layer, zero, k)];
      }
      total = sum_lanes(total, collect.lanes);
      if (collect.leads) {
        shared.g[collect.neuron] = shared.direct[collect.neuron] + total * (T(-1) / kLog2E<T>);
      }
    }
    T all_gdt = 0;
    FASTLTC_UNROLL
    for (int n = 0; n < 2; ++n) {
      if (own[n] < 0) continue;
      // Read again rather than kept through the unfolds.
      StepSums<T> sums_of_step;
      const int64_t j = layer.first_neuron() + own[n];
      sums_of_step.load(call.rows, call.num, call.den, b, t, j);
      const int64_t at = j * call.rows.count + t * call.rows.B + b;
      call.grad_num[at] = sums_of_step.dt * sum_g[n];
      call.grad_den[at] = -sums_of_step.dt * sum_ga[n];
      call.grad_capacity[at] = sum_c[n];
      // The sums of a neuron without synapses are the same in all unfolds.
      T gdt = n == 0 ? driven_gdt : sums_of_step.num * sum_g[1] - sums_of_step.den * sum_ga[1];
      // is_held, in two steps: with several layers one step would spill a register.
      if (sums_of_step.dt == T(0)) {
        const T capacity = kind == kLayers ? call.net.capacity[j] : role.capacity[n];
        if (capacity == kLeastCapacity<T>) gdt = 0;
      }
      all_gdt += gdt;
      if (grad_dt.data != nullptr && call.rows.timespans_per_neuron)
        element(grad_dt, b, t, j) = gdt;
    }
    if (grad_dt.data != nullptr && !call.rows.timespans_per_neuron) {
      T total = all_gdt;
      if constexpr (one_warp) {
        total = sum_lanes(total);
      } else {
        total = sum_block(total, warp_sums, threads / kWarp);
      }
      if (opaque(thread) == 0) element(grad_dt, b, t, layer.index()) = total;
    }
    if constexpr (mixed) {
      Gates<T>* const gz = reinterpret_cast<Gates<T>*>(shared.shares);
      barrier<one_warp>();
      if (opaque(thread) < neurons) {
        const T* const kept = gates_at(t) + thread;
        const T before =
            t > 0 ? (gates_at(t - 1) + thread)[4 * neurons] : call.memory.initial(b, thread);
        T carried = grad_c();
        const Gates<T> grad =
            memory_backward<T>({kept[0], kept[neurons], kept[2 * neurons], kept[3 * neurons]},
                               before, kept[4 * neurons], shared.g[thread], carried);
        grad_c() = carried;
        gz[thread] = grad;
        call.memory.gz[(t * call.rows.B + b) * neurons + thread] = grad;
      }
      barrier<one_warp>();
      const T grad_h =
          memory_recurrent_transposed(call.memory.packed, gz, neurons, call.memory.lanes);
      if (collect.leads) shared.g[collect.neuron] = grad_h;
    }
  }
  barrier<one_warp>();
  if (call.grad.grad_h0 != nullptr && opaque(thread) < neurons) {
    const int64_t width = mixed ? 2 * list.neurons : list.neurons;
    T* const to = call.grad.grad_h0 + int64_t{sample} * width + layer.first_neuron() + thread;
    *to = shared.g[thread];
    if constexpr (mixed) to[neurons] = grad_c();
  }
}

template <typename T, int slots, int max_threads, int kind>
__global__ void __launch_bounds__(max_threads, 1)
    ltc_persistent_backward_kernel(const PersistentBackward<T> call) {
  FASTLTC_SHARED_ARRAY(T, warp_sums, max_threads / kWarp);
  const Layer<T, kind> layer{call.net};
  const int neurons = layer.neurons();
  const int zero = static_cast<int>(shared_shares(neurons, call.most, kind));
  // The shares first, because the gradients of the gates are read four at a time.
  T* const shares = reinterpret_cast<T*>(dynamic_shared());
  T* const v = shares + zero + 1;
  const BackwardShared<T> shared{v, v + neurons + 1, v + 2 * neurons + 1, shares,
                                 v + 3 * neurons + 1};
  if (threadIdx.x == 0) shared.v[neurons] = shared.shares[zero] = T(0);
  Role<T, slots> role(layer, call.most);
  const CollectRole collect(layer, zero, role);
  FASTLTC_UNROLL
  for (int n = 0; n < slots && short_of_registers<slots, max_threads>; ++n) {
    shared.parked[n * blockDim.x + threadIdx.x] = role.p[n].b;
    shared.parked[(slots + n) * blockDim.x + threadIdx.x] = role.p[n].we;
  }
  SynapseSums<T>* const left =
      call.synapse_sums + blockIdx.y * call.net.recurrent.count + layer.first_synapse();
  for (int k = role.spilled(); k < role.end; k += role.lanes) left[k] = SynapseSums<T>();
  SynapseSums<T> sums[slots];
  for (int b = static_cast<int>(blockIdx.y); b < call.rows.B; b += static_cast<int>(gridDim.y)) {
    persistent_backward_sample<T, slots, max_threads, kind>(call, role, collect, b, shared, sums,
                                                            warp_sums);
  }
  FASTLTC_UNROLL
  for (int n = 0; n < slots; ++n) {
    const int k = role.first + n * role.lanes;
    if (k < role.end) left[k] = sums[n];
  }
}

}  // namespace fastltc::cuda
