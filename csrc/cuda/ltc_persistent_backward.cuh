// The backward pass of the plans that run a sample's whole sequence in a warp or a block
// (ltc_persistent.cuh says how).
#pragma once

#include "cuda/ltc_backward_roles.cuh"

namespace fastltc::cuda {

template <typename T>
struct PersistentBackward : LtcBackward<T> {
  // null: not wanted. Where all neurons share a step, channels are layers.
  SequenceView<T> grad_timespans{};
  const T* states_before = nullptr;        // unfolds: as grad.states, but where resets begin a step
  SynapseSums<T>* synapse_sums = nullptr;  // [y of the grid][synapses]
  T* spilled_shares = nullptr;             // the same, of large blocks
  int most = 0;                            // synapses of any layer
  SampleMemory<T> memory{};
  T* grad_c = nullptr;  // [B][N], of the memory going back
};

template <typename T, int slots, int max_threads, int kind>
__device__ void persistent_backward_sample(const PersistentBackward<T>& call,
                                           const BackwardRole<T, slots, max_threads != kWarp>& role,
                                           const CollectRole& collect, int sample,
                                           const BackwardShared<T, slots, max_threads>& shared,
                                           SynapseSums<T> (&sums)[slots], T* warp_sums) {
  constexpr bool one_warp = max_threads == kWarp, resets = takes_resets<one_warp, kind>;
  const Network<T>& net = call.net;
  const Synapses<T>& list = net.recurrent;
  const Layer<T, kind> layer{net};
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int neurons = layer.neurons(), unfolds = static_cast<int>(net.size.U);
  const int outputs = net.outputs_each;
  const int length = static_cast<int>(call.rows.length(sample));
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
  constexpr bool parks = short_of_registers<slots, max_threads>;
  using At = Pitch<T, slots, max_threads>;
  T* const own_shares = shared.shares + thread * At::share;
  // Slots whose values are loaded together: fewer than all where that would take registers.
  constexpr int together = parks ? At::fours : slots;
  // Of those from n on b, or we.
  const auto parked = [&](int which, int n, T(&to)[together]) {
    struct alignas(16) Values {
      T value[together];
    };
    if constexpr (parks) {
      const T* const from = shared.parked + thread * At::parked + which * slots + n;
      const Values values = *reinterpret_cast<const Values*>(from);
      FASTLTC_UNROLL
      for (int k = 0; k < together; ++k) to[k] = values.value[k];
    } else {
      FASTLTC_UNROLL
      for (int k = 0; k < together; ++k) to[k] = which == 0 ? role.p[n + k].b : role.p[n + k].we;
    }
  };
  const auto park = [&](int which) -> T& {
    return shared.parked[thread * At::parked + 2 * slots + 2 + which];
  };
  const auto leaky_capacity = [&] { return parks ? park(0) : role.capacity[1]; };
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
      *to += shared.g(thread);
      if constexpr (mixed) to[neurons] += grad_c();
    }
    shared.g(thread) = T(0);
    if constexpr (mixed) grad_c() = T(0);
  };
  const bool has_outputs = call.grad.grad_output.data != nullptr;
  // Of the layer's synapse k, for which there is no slot.
  const auto spilled_share = [&](int k) -> T& {
    if constexpr (one_warp) {
      return shared.shares[zero_share(slots + 1, kWarp, neurons, kind) + 1 + k];
    } else {
      return call.spilled_shares[blockIdx.y * list.count + layer.first_synapse() + k];
    }
  };
  // The states before an unfold, for later.
  T *v = shared.v, *v_to_come = shared.v + neurons + 1;
  const auto fetch_states = [&](int64_t t, int u) {
    if (t < 0 || opaque(thread) >= neurons) return;
    copy_async(v_to_come + thread, call.states_before + state_at(t, u) + thread);
  };
  fetch_states(length - 1, unfolds - 1);
  // What a warp has registers for: what comes from outside in the step to come, of both neurons.
  StepSums<T> sums_to_come[2];
  const auto load_sums = [&](int64_t t, int n) {
    StepSums<T> found;
    const int j = n == 0 ? role.driven() : role.leaky();
    if (j >= 0) {
      found.load(call.rows, call.num, call.den, opaque(sample), t, layer.first_neuron() + j);
    }
    return found;
  };
  T output_to_come = 0;
  const bool adds_outputs = has_outputs && call.grad.return_sequences && opaque(thread) < outputs;
  const auto load_step = [&](int64_t t) {
    if (!one_warp || t < 0) return;
    for (int n = 0; n < 2; ++n) sums_to_come[n] = load_sums(t, n);
    if (adds_outputs) output_to_come = output_gradient(opaque(sample), t, thread);
  };
  load_step(length - 1);
  T after[2] = {};
  // shared.g[j] is thread j's between two barriers.
  if (opaque(thread) < neurons) {
    T g = state_or_zero(call.grad.grad_hn, sample, layer.first_neuron() + thread);
    if (has_outputs && !call.grad.return_sequences && opaque(thread) < outputs) {
      g += output_gradient(sample, 0, thread);
    }
    shared.g(thread) = g;
    if constexpr (mixed) {
      grad_c() = state_or_zero(call.memory.grad_c_last, sample, thread);
    }
  }
  for (int t = length; t < net.size.T; ++t) {
    const int64_t b = opaque(sample);
    const int own[2] = {role.leads() ? role.driven() : -1, role.leaky()};
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
    // Over the unfolds: gt, gt v' and gt (v - v').
    T sum_g[2] = {}, sum_ga[2] = {}, sum_c[2] = {};
    T driven_gdt = 0;
    const StepSums<T> step = one_warp ? sums_to_come[0] : load_sums(t, 0);
    const StepSums<T> leaky_step = one_warp ? sums_to_come[1] : load_sums(t, 1);
    if constexpr (parks) park(1) = step.num;
    const T rate = reciprocal(leaky_capacity() + leaky_step.dt * leaky_step.den);
    const T output = output_to_come;
    load_step(t - 1);
    // Before the step to come stood what was before this one's first unfold, but for resets.
    if (mixed || t == length - 1 || (resets && call.rows.resets.data != nullptr)) {
      FASTLTC_UNROLL
      for (int n = 0; n < 2; ++n) {
        const int j = n == 0 ? role.driven() : role.leaky();
        if (j >= 0) after[n] = call.grad.states[state_at(t, unfolds) + j];
      }
    }
    if (resets && call.rows.begins_anew(b, t + 1)) {
      barrier<one_warp>();
      begin_step_gradient(!call.rows.reset_to_zero);
    }
    if (has_outputs && call.grad.return_sequences) {
      // The last unfold's gradients are written by the threads that collect them.
      barrier<one_warp>();
      if (opaque(thread) < outputs) {
        shared.g(thread) += one_warp ? output : output_gradient(b, t, thread);
      }
    }
    for (int u = unfolds - 1; u >= 0; --u) {
      wait_for_copies();
      barrier<one_warp>();
      swap_buffers(v, v_to_come);
      fetch_states(u > 0 ? t : t - 1, u > 0 ? u - 1 : unfolds - 1);
      T s[slots];
      T num = 0, den = 0;
      // Loads of some slots, then their stores: the compiler does not know that these are different
      // places.
      FASTLTC_UNROLL
      for (int n = 0; n < slots; n += together) {
        T b_of[together], we_of[together];
        parked(0, n, b_of);
        if (grad_dt.data != nullptr) parked(1, n, we_of);
        FASTLTC_UNROLL
        for (int k = 0; k < together; ++k) {
          s[n + k] = sigmoid_exp2(role.p[n + k].a * v[role.pre(n + k)] + b_of[k]);
          den += role.p[n + k].w * s[n + k];
          if (grad_dt.data != nullptr) num += we_of[k] * s[n + k];
        }
        FASTLTC_UNROLL
        for (int k = 0; k < together && parks; ++k) own_shares[n + k] = s[n + k];
      }
      FASTLTC_NO_UNROLL
      for (int k = role.spilled(); k < role.end(); k += role.lanes()) {
        const int synapse = layer.first_synapse() + k;
        const Synapse<T> p = list.parameters[synapse];
        const T sk = sigmoid_exp2(p.a * v[layer.pre(synapse)] + p.b);
        num += p.we * sk;
        den += p.w * sk;
      }
      sum_groups(role.lanes(), den);
      den += step.den;
      if (grad_dt.data != nullptr) {
        sum_groups(role.lanes(), num);
        num += parks ? park(1) : step.num;
      }
      T gt[2] = {};
      if (role.driven() >= 0) {
        gt[0] = shared.g(role.driven()) * reciprocal(role.capacity[0] + step.dt * den);
      }
      if (role.leaky() >= 0) gt[1] = shared.g(role.leaky()) * rate;
      const T synapse_gn = step.dt * gt[0];
      const T synapse_gd = -synapse_gn * after[0];
      driven_gdt += gt[0] * (num - den * after[0]);
      FASTLTC_UNROLL
      for (int n = 0; n < 2; ++n) {
        const int j = n == 0 ? role.driven() : role.leaky();
        if (j < 0) continue;
        const T before = v[j];
        sum_g[n] += gt[n];
        sum_ga[n] += gt[n] * after[n];
        sum_c[n] += gt[n] * (before - after[n]);
        after[n] = before;
        if (n == 1 || role.leads())
          shared.direct(j, neurons) = (n == 0 ? role.capacity[0] : leaky_capacity()) * gt[n];
      }
      FASTLTC_UNROLL
      for (int n = 0; n < slots; n += together) {
        T we_of[together], share[together];
        parked(1, n, we_of);
        FASTLTC_UNROLL
        for (int k = 0; k < together; ++k) {
          Synapse<T> p = role.p[n + k];
          p.we = we_of[k];
          const T sn = parks ? own_shares[n + k] : s[n + k];
          const T before = v[role.pre(n + k)];
          share[k] = p.a * synapse_backward(p, sn, before, synapse_gn, synapse_gd, sums[n + k]);
        }
        FASTLTC_UNROLL
        for (int k = 0; k < together; ++k) own_shares[n + k] = share[k];
      }
      FASTLTC_NO_UNROLL
      for (int k = role.spilled(); k < role.end(); k += role.lanes()) {
        const int synapse = layer.first_synapse() + k;
        const Synapse<T> p = list.parameters[synapse];
        const T before = v[layer.pre(synapse)];
        SynapseSums<T>& stored = call.synapse_sums[blockIdx.y * list.count + synapse];
        SynapseSums<T> sum = stored;
        const T h = synapse_backward(p, sigmoid_exp2(p.a * before + p.b), before, synapse_gn,
                                     synapse_gd, sum);
        stored = sum;
        spilled_share(k) = h * p.a;
      }
      barrier<one_warp>();
      T total = 0;
      FASTLTC_UNROLL
      for (int n = 0; n < slots; ++n) total += shared.shares[role.position(n)];
      if (collect.more()) {
        const int zero = zero_share(slots + 1, threads, neurons, kind),
                  count = collect.outgoing(layer);
        const int lanes = collect.lanes();
        FASTLTC_NO_UNROLL
        for (int k = opaque(thread) & (lanes - 1); k < count; k += lanes) {
          const int at = collect.share(layer, call.most, role, k);
          if (collect.template has_position<slots>(k, at, zero)) continue;
          total += at <= zero ? shared.shares[at] : spilled_share(at - zero - 1);
        }
      }
      sum_groups(collect.lanes(), total);
      if (collect.leads()) {
        shared.g(collect.neuron()) =
            shared.direct(collect.neuron(), neurons) + total * (T(-1) / kLog2E<T>);
      }
    }
    T all_gdt = 0;
    FASTLTC_UNROLL
    for (int n = 0; n < 2; ++n) {
      const int own = n == 0 ? role.driven() : role.leaky();
      if (own < 0 || (n == 0 && !role.leads())) continue;
      const int64_t j = layer.first_neuron() + own;
      // A large block reads them again rather than to keep them through the unfolds.
      const StepSums<T> sums_of_step = !one_warp ? load_sums(t, n) : n == 0 ? step : leaky_step;
      const int64_t at = j * call.rows.count + t * call.rows.B + b;
      call.grad_num[at] = sums_of_step.dt * sum_g[n];
      call.grad_den[at] = -sums_of_step.dt * sum_ga[n];
      call.grad_capacity[at] = sum_c[n];
      // The sums of a neuron without synapses are the same in all unfolds.
      T gdt = n == 0 ? driven_gdt : sums_of_step.num * sum_g[1] - sums_of_step.den * sum_ga[1];
      // is_held, in two steps: with several layers one step would spill a register.
      if (sums_of_step.dt == T(0)) {
        if (call.net.capacity[j] == kLeastCapacity<T>) gdt = 0;
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
                         : t > 0 && !anew                ? (gates_at(t - 1) + thread)[4 * neurons]
                                                         : call.memory.initial(b, thread);
        T carried = grad_c();
        const Gates<T> grad =
            memory_backward<T>({kept[0], kept[neurons], kept[2 * neurons], kept[3 * neurons]},
                               before, kept[4 * neurons], shared.g(thread), carried);
        grad_c() = carried;
        gz[thread] = grad;
        call.memory.gz[(t * call.rows.B + b) * neurons + thread] = grad;
      }
      barrier<one_warp>();
      const T grad_h =
          memory_recurrent_transposed(call.memory.packed, gz, neurons, call.memory.lanes);
      if (collect.leads()) shared.g(collect.neuron()) = grad_h;
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
    *to = shared.g(thread);
    if constexpr (mixed) to[neurons] = grad_c();
  }
}

template <typename T, int slots, int max_threads, int kind>
__global__ void __launch_bounds__(max_threads, 1)
    ltc_persistent_backward_kernel(const PersistentBackward<T> call) {
  FASTLTC_SHARED_ARRAY(T, warp_sums, max_threads / kWarp);
  const Layer<T, kind> layer{call.net};
  const int neurons = layer.neurons();
  using Shared = BackwardShared<T, slots, max_threads>;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int zero = zero_share(slots + 1, threads, neurons, kind);
  // What is read 16 bytes at a time first: what is parked, and the gradients of the gates.
  T* const parked = reinterpret_cast<T*>(dynamic_shared());
  T* const shares = parked + Shared::At::parked * threads;
  T* const v = shares + zero + 1 + (max_threads == kWarp ? call.most : 0);
  const Shared shared{parked, shares, v, v + 2 * (neurons + 1)};
  if (thread == 0) v[neurons] = v[2 * neurons + 1] = shares[zero] = T(0);
  BackwardRole<T, slots, short_of_registers<slots, max_threads>> role(
      Role<T, slots>(layer, call.most));
  const CollectRole collect(layer, call.most, role);
  FASTLTC_UNROLL
  for (int n = 0; n < slots && short_of_registers<slots, max_threads>; ++n) {
    parked[thread * Shared::At::parked + n] = role.p[n].b;
    parked[thread * Shared::At::parked + slots + n] = role.p[n].we;
    if (n == 0) parked[thread * Shared::At::parked + 2 * slots + 2] = role.capacity[1];
  }
  SynapseSums<T>* const left =
      call.synapse_sums + blockIdx.y * call.net.recurrent.count + layer.first_synapse();
  for (int k = role.spilled(); k < role.end(); k += role.lanes()) left[k] = SynapseSums<T>();
  SynapseSums<T> sums[slots];
  for (int b = static_cast<int>(blockIdx.y); b < call.rows.B; b += static_cast<int>(gridDim.y)) {
    persistent_backward_sample<T, slots, max_threads, kind>(call, role, collect, b, shared, sums,
                                                            warp_sums);
  }
  FASTLTC_UNROLL
  for (int n = 0; n < slots; ++n) {
    const int k = role.first() + n * role.lanes();
    if (k < role.end()) left[k] = sums[n];
  }
}

}  // namespace fastltc::cuda
