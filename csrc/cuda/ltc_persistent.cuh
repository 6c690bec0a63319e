// The recurrent part of LTC, a whole sequence of one sample in one block: the plans warp_per_sample
// (a block is one warp) and block_per_sample.
//
// Maths (csrc/cpu/ltc_batch_lanes.h says where it is from), num and den being the sensory sums:
//   v'_j = (C_j v_j + dt (num_j + sum_i we_ij s_ij)) / (C_j + dt (den_j + sum_i w'_ij s_ij))
// Backward of one unfold, g the gradient of v':
//   gt = g / (C + dt den)   gn = dt gt   gd = -gn v'   h = (we gn + w' gd)(s - s^2)
//   g_j <- C_j gt_j + sum sigma h    P += s gn   Q += s gd   H += h   HV += h v_i
//
// Layout: num, den and their gradients [N][rows] (ltc_network.h); states [B][T U + 1][N].
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
//
// Bound by the chain of an unfold (shared memory, 2^t, reciprocal, log2(G) shuffles, reciprocal,
// shared memory, barrier) while a warp or block does not fill its processor, else by the
// special-function units.
#pragma once

#include "cuda/ltc_network.h"

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

// What a thread does.
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

  __device__ explicit Role(const Network<T>& net) {
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    const int neurons = net.recurrent.neurons;
    const int count = *net.driven_count;
    lanes = lanes_each(threads, count);
    const int group = thread / lanes;
    driven = group < count ? net.order[group] : -1;
    leads = driven >= 0 && thread % lanes == 0;
    leaky = count + thread < neurons ? net.order[count + thread] : -1;
    first = driven >= 0 ? net.recurrent.column[driven] + thread % lanes : 0;
    end = driven >= 0 ? net.recurrent.column[driven + 1] : 0;
    capacity[0] = driven >= 0 ? net.capacity[driven] : T(1);
    capacity[1] = leaky >= 0 ? net.capacity[leaky] : T(1);
    FASTLTC_UNROLL
    for (int n = 0; n < slots; ++n) {
      const int k = first + n * lanes;
      p[n] = k < end ? net.recurrent.parameters[k] : Synapse<T>{T(0), T(0), T(0), T(0)};
      indices[n] = static_cast<uint32_t>(k < end ? net.recurrent.pre[k] : neurons);
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
                       int j) {
    if (j < 0) return;
    const int64_t at = j * rows.count + t * rows.B + b;
    num = nums[at];
    den = dens[at];
    dt = rows.step(b, t, j);
  }
};

template <typename T>
struct PersistentForward {
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
  T* states = nullptr;  // null: not kept
};

template <typename T>
size_t persistent_forward_shared(int64_t neurons) {
  return 2 * static_cast<size_t>(neurons + 1) * sizeof(T);
}

template <typename T>
__device__ void write_output(const PersistentForward<T>& call, int64_t b, int64_t t, int m, T v) {
  if (call.output_w != nullptr) v *= call.output_w[m];
  if (call.output_b != nullptr) v += call.output_b[m];
  const SequenceView<T>& y = call.output;
  y.data[b * y.stride_b + t * y.stride_t + m * y.stride_c] = v;
}

template <typename T, int slots, bool one_warp>
__device__ void persistent_forward_sample(const PersistentForward<T>& call,
                                          const Role<T, slots>& role, int64_t b, T* from, T* to) {
  const Network<T>& net = call.net;
  const Synapses<T>& list = net.recurrent;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int neurons = list.neurons, unfolds = static_cast<int>(net.size.U);
  const int outputs = static_cast<int>(net.size.M);
  const int64_t length = call.rows.length(b);
  const int64_t history = (net.size.T * unfolds + 1) * neurons;
  T* kept = call.states == nullptr ? nullptr : call.states + b * history;
  // Of the neurons that this thread writes; -1: none.
  const int own[2] = {role.leads ? role.driven : -1, role.leaky};
  const int read[2] = {role.driven, role.leaky};
  T v[2] = {};
  FASTLTC_UNROLL
  for (int n = 0; n < 2; ++n) {
    if (read[n] >= 0 && call.h0.data != nullptr) {
      v[n] = call.h0.data[b * call.h0.stride_b + read[n] * call.h0.stride_c];
    }
    if (own[n] < 0) continue;
    from[own[n]] = v[n];
    if (kept != nullptr) kept[own[n]] = v[n];
  }
  StepSums<T> step[2];
  FASTLTC_UNROLL
  for (int n = 0; n < 2; ++n) {
    if (length > 0) step[n].load(call.rows, call.num, call.den, b, 0, read[n]);
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
      if (t + 1 < length) step[n].load(call.rows, call.num, call.den, b, t + 1, read[n]);
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
        const Synapse<T> p = list.parameters[k];
        const T s = sigmoid_exp2(p.a * from[list.pre[k]] + p.b);
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
      if (call.return_sequences && own[n] >= 0 && own[n] < outputs) {
        write_output(call, b, t, own[n], v[n]);
      }
    }
  }
  FASTLTC_UNROLL
  for (int n = 0; n < 2; ++n) {
    if (own[n] < 0) continue;
    call.hn[b * neurons + own[n]] = v[n];
    if (!call.return_sequences && own[n] < outputs) write_output(call, b, 0, own[n], v[n]);
  }
  // Nobody reads these states, but outputs of an operator should not be left to chance.
  if (kept != nullptr) {
    const int64_t written = (length * unfolds + 1) * neurons;
    for (int64_t k = written + thread; k < history; k += threads) {
      call.states[b * history + k] = T(0);
    }
  }
  if (call.return_sequences) {
    const SequenceView<T>& y = call.output;
    for (int64_t k = length * outputs + thread; k < net.size.T * outputs; k += threads) {
      y.data[b * y.stride_b + k / outputs * y.stride_t + k % outputs * y.stride_c] = T(0);
    }
  }
}

template <typename T, int slots, int max_threads>
__global__ void __launch_bounds__(max_threads, 1)
    ltc_persistent_forward_kernel(const PersistentForward<T> call) {
  constexpr bool one_warp = max_threads == kWarp;
  const int neurons = call.net.recurrent.neurons;
  T* const from = reinterpret_cast<T*>(dynamic_shared());
  T* const to = from + neurons + 1;
  if (threadIdx.x == 0) from[neurons] = to[neurons] = T(0);
  const Role<T, slots> role(call.net);
  for (int64_t b = blockIdx.x; b < call.rows.B; b += gridDim.x) {
    // Its last barrier comes after all that reads the shared states.
    persistent_forward_sample<T, slots, one_warp>(call, role, b, from, to);
  }
}

template <typename T>
struct PersistentBackward {
  Network<T> net;
  Rows<T> rows;
  const T* num = nullptr;  // [N][rows]
  const T* den = nullptr;
  const T* output_w = nullptr;  // [M]; null: 1
  SequenceView<const T> grad_output;
  bool return_sequences = true;
  SequenceView<const T> grad_hn;
  const T* states = nullptr;
  // Written.
  T* grad_num = nullptr;  // [N][rows]
  T* grad_den = nullptr;
  T* grad_capacity = nullptr;
  SequenceView<T> grad_timespans;          // null: not wanted
  T* grad_h0 = nullptr;                    // null: not wanted
  SynapseSums<T>* synapse_sums = nullptr;  // [blocks][synapses]
};

// A thread of a large block has not enough registers for its slots' four parameters and four sums:
// two of the parameters are in shared memory, and a sigmoid waits for its gradient where the share
// will stand.
template <int slots, int max_threads>
inline constexpr bool short_of_registers = max_threads != kWarp;

template <typename T, int slots, int max_threads>
size_t persistent_backward_shared(int64_t neurons, int64_t synapses, int threads) {
  const int64_t parked = short_of_registers<slots, max_threads> ? 2 * slots * threads : 0;
  return static_cast<size_t>(3 * neurons + 1 + synapses + 1 + parked) * sizeof(T);
}

template <typename T>
struct BackwardShared {
  T* v;       // [N + 1] before the unfold
  T* g;       // [N] gradient of the state after it
  T* direct;  // [N] C gt
  T* shares;  // [synapses + 1] sigma h times -log2(e)
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

  template <typename T, int slots>
  __device__ CollectRole(const Synapses<T>& list, Role<T, slots>& role) {
    const int thread = static_cast<int>(threadIdx.x);
    lanes = lanes_each(static_cast<int>(blockDim.x), list.neurons);
    const int group = thread / lanes;
    neuron = group < list.neurons ? group : -1;
    leads = neuron >= 0 && thread % lanes == 0;
    first = thread % lanes;
    count = neuron >= 0 ? list.out_count[neuron] : 0;
    const int32_t* const out = outgoing(list);
    FASTLTC_UNROLL
    for (int n = 0; n < slots; ++n) {
      const int k = first + n * lanes;
      // Behind the shares stands a zero.
      const uint32_t position = static_cast<uint32_t>(k < count ? out[k] : list.count);
      role.indices[n] |= position << 16;
    }
  }
  template <typename T>
  __device__ const int32_t* outgoing(const Synapses<T>& list) const {
    return list.out + static_cast<int64_t>(neuron < 0 ? 0 : neuron) * list.neurons;
  }
};

template <typename T, int slots, int max_threads>
__device__ void persistent_backward_sample(const PersistentBackward<T>& call,
                                           const Role<T, slots>& role, const CollectRole& collect,
                                           int sample, const BackwardShared<T>& shared,
                                           SynapseSums<T> (&sums)[slots], T* warp_sums) {
  constexpr bool one_warp = max_threads == kWarp;
  const Network<T>& net = call.net;
  const Synapses<T>& list = net.recurrent;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int neurons = list.neurons, unfolds = static_cast<int>(net.size.U);
  const int outputs = static_cast<int>(net.size.M);
  const int length = static_cast<int>(call.rows.length(sample));
  // Before unfold u of step t.
  const auto state_at = [&](int64_t t, int u) {
    return (int64_t{opaque(sample)} * (net.size.T * unfolds + 1) + t * unfolds + u) * neurons;
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
  const auto output_gradient = [&](int64_t b, int64_t t, int m) {
    const SequenceView<const T>& gy = call.grad_output;
    T value = gy.data[b * gy.stride_b + t * gy.stride_t + m * gy.stride_c];
    if (call.output_w != nullptr) value *= call.output_w[m];
    return value;
  };
  // shared.g[j] is thread j's between two barriers.
  if (opaque(thread) < neurons) {
    T g = 0;
    if (call.grad_hn.data != nullptr) {
      g = call.grad_hn.data[sample * call.grad_hn.stride_b + thread * call.grad_hn.stride_c];
    }
    if (call.grad_output.data != nullptr && !call.return_sequences && opaque(thread) < outputs) {
      g += output_gradient(sample, 0, thread);
    }
    shared.g[thread] = g;
  }
  for (int t = length; t < net.size.T; ++t) {
    const int64_t b = opaque(sample);
    const int own[2] = {role.leads ? role.driven : -1, role.leaky};
    FASTLTC_UNROLL
    for (int n = 0; n < 2; ++n) {
      if (own[n] < 0) continue;
      const int64_t at = own[n] * call.rows.count + t * call.rows.B + b;
      call.grad_num[at] = call.grad_den[at] = call.grad_capacity[at] = T(0);
      if (grad_dt.data != nullptr && call.rows.timespans_per_neuron) {
        grad_dt.data[b * grad_dt.stride_b + t * grad_dt.stride_t + own[n] * grad_dt.stride_c] = 0;
      }
    }
    if (grad_dt.data != nullptr && !call.rows.timespans_per_neuron && opaque(thread) == 0) {
      grad_dt.data[b * grad_dt.stride_b + t * grad_dt.stride_t] = T(0);
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
    step.load(call.rows, call.num, call.den, b, t, role.driven);
    T rate = 0;
    if (role.leaky >= 0) {
      StepSums<T> leaky;
      leaky.load(call.rows, call.num, call.den, b, t, role.leaky);
      rate = reciprocal(role.capacity[1] + leaky.dt * leaky.den);
    }
    FASTLTC_UNROLL
    for (int n = 0; n < 2; ++n) {
      if (read[n] >= 0) after[n] = call.states[state_at(t, unfolds) + read[n]];
    }
    if (call.grad_output.data != nullptr && call.return_sequences) {
      // The last unfold's gradients are written by the threads that collect them.
      barrier<one_warp>();
      if (opaque(thread) < outputs) shared.g[thread] += output_gradient(b, t, thread);
    }
    for (int u = unfolds - 1; u >= 0; --u) {
      if (opaque(thread) < neurons) shared.v[thread] = call.states[state_at(t, u) + thread];
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
        const Synapse<T> p = list.parameters[k];
        const T sk = sigmoid_exp2(p.a * shared.v[list.pre[k]] + p.b);
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
        const Synapse<T> p = list.parameters[k];
        const T v = shared.v[list.pre[k]];
        SynapseSums<T>& stored = call.synapse_sums[blockIdx.x * list.count + k];
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
        total += shared.shares[collect.outgoing(list)[k]];
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
      sums_of_step.load(call.rows, call.num, call.den, b, t, own[n]);
      const int64_t at = own[n] * call.rows.count + t * call.rows.B + b;
      call.grad_num[at] = sums_of_step.dt * sum_g[n];
      call.grad_den[at] = -sums_of_step.dt * sum_ga[n];
      call.grad_capacity[at] = sum_c[n];
      // The sums of a neuron without synapses are the same in all unfolds.
      const T gdt =
          n == 0 ? driven_gdt : sums_of_step.num * sum_g[1] - sums_of_step.den * sum_ga[1];
      all_gdt += gdt;
      if (grad_dt.data != nullptr && call.rows.timespans_per_neuron) {
        grad_dt.data[b * grad_dt.stride_b + t * grad_dt.stride_t + own[n] * grad_dt.stride_c] = gdt;
      }
    }
    if (grad_dt.data != nullptr && !call.rows.timespans_per_neuron) {
      T total = all_gdt;
      if constexpr (one_warp) {
        total = sum_lanes(total);
      } else {
        total = sum_block(total, warp_sums, threads / kWarp);
      }
      if (opaque(thread) == 0) grad_dt.data[b * grad_dt.stride_b + t * grad_dt.stride_t] = total;
    }
  }
  barrier<one_warp>();
  if (call.grad_h0 != nullptr && opaque(thread) < neurons) {
    call.grad_h0[int64_t{sample} * neurons + thread] = shared.g[thread];
  }
}

template <typename T, int slots, int max_threads>
__global__ void __launch_bounds__(max_threads, 1)
    ltc_persistent_backward_kernel(const PersistentBackward<T> call) {
  FASTLTC_SHARED_ARRAY(T, warp_sums, max_threads / kWarp);
  const Synapses<T>& list = call.net.recurrent;
  T* const memory = reinterpret_cast<T*>(dynamic_shared());
  const BackwardShared<T> shared{memory, memory + list.neurons + 1, memory + 2 * list.neurons + 1,
                                 memory + 3 * list.neurons + 1,
                                 memory + 3 * list.neurons + 1 + list.count + 1};
  if (threadIdx.x == 0) shared.v[list.neurons] = shared.shares[list.count] = T(0);
  Role<T, slots> role(call.net);
  const CollectRole collect(list, role);
  FASTLTC_UNROLL
  for (int n = 0; n < slots && short_of_registers<slots, max_threads>; ++n) {
    shared.parked[n * blockDim.x + threadIdx.x] = role.p[n].b;
    shared.parked[(slots + n) * blockDim.x + threadIdx.x] = role.p[n].we;
  }
  SynapseSums<T>* const left = call.synapse_sums + blockIdx.x * list.count;
  for (int k = role.spilled(); k < role.end; k += role.lanes) left[k] = SynapseSums<T>();
  SynapseSums<T> sums[slots];
  for (int b = static_cast<int>(blockIdx.x); b < call.rows.B; b += static_cast<int>(gridDim.x)) {
    persistent_backward_sample<T, slots, max_threads>(call, role, collect, b, shared, sums,
                                                      warp_sums);
  }
  FASTLTC_UNROLL
  for (int n = 0; n < slots; ++n) {
    const int k = role.first + n * role.lanes;
    if (k < role.end) left[k] = sums[n];
  }
}

}  // namespace fastltc::cuda
