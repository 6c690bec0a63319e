// The backward pass of the plans that run a sample's whole sequence in a warp or a block
// (ltc_persistent.cuh says how).
#pragma once

#include "cuda/ltc_persistent.cuh"

namespace fastltc::cuda {

template <typename T>
struct PersistentBackward : LtcBackward<T> {
  // null: not wanted. Where all neurons share a step, channels are layers.
  SequenceView<T> grad_timespans{};
  const T* states_before = nullptr;        // unfolds: as grad.states, but where resets begin a step
  SynapseSums<T>* synapse_sums = nullptr;  // [y of the grid][synapses]
  int most = 0;                            // synapses of any layer
  SampleMemory<T> memory{};
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
  constexpr bool one_warp = max_threads == kWarp, resets = takes_resets<one_warp, kind>;
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
  // From the gradient of the state with which a step begins to that of the initial one, if it was
  // that, and to that of the state before, which has none.
  const auto begin_step_gradient = [&](bool was_initial) {
    if (opaque(thread) >= neurons) return;
    if (call.grad.grad_h0 != nullptr && was_initial) {
      const int64_t width = mixed ? 2 * list.neurons : list.neurons;
      T* const to =
          call.grad.grad_h0 + int64_t{opaque(sample)} * width + layer.first_neuron() + thread;
      *to += shared.g[thread];
      if constexpr (mixed) to[neurons] += grad_c();
    }
    shared.g[thread] = T(0);
    if constexpr (mixed) grad_c() = T(0);
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
    if (resets && call.rows.begins_anew(b, t + 1)) {
      barrier<one_warp>();
      begin_step_gradient(!call.rows.reset_to_zero);
    }
    if (has_outputs && call.grad.return_sequences) {
      // The last unfold's gradients are written by the threads that collect them.
      barrier<one_warp>();
      if (opaque(thread) < outputs) shared.g[thread] += output_gradient(b, t, thread);
    }
    for (int u = unfolds - 1; u >= 0; --u) {
      if (opaque(thread) < neurons) shared.v[thread] = call.states_before[state_at(t, u) + thread];
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
        const bool anew = resets && call.rows.begins_anew(b, t);
        const T before = anew && call.rows.reset_to_zero ? T(0)
                         : t > 0 && !anew ? (gates_at(t - 1) + thread)[4 * neurons]
                                          : call.memory.initial(b, thread);
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
  if (resets && call.rows.resets.data != nullptr) {
    return begin_step_gradient(!call.rows.begins_anew(sample, 0));
  }
  // In full: by the same function large blocks would spill.
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
