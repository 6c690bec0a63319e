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
  T* spilled_shares = nullptr;             // the same, of large blocks
  int most = 0;                            // synapses of any layer
  SampleMemory<T> memory{};
  T* grad_c = nullptr;  // [B][N], of the memory going back
};

// A thread of a large block has not enough registers for its slots' four parameters and four sums:
// two of the parameters are in shared memory, and a sigmoid waits for its gradient where the share
// will stand.
template <int slots, int max_threads>
inline constexpr bool short_of_registers = max_threads != kWarp;

// Where values of threads stand in shared memory: those of one side by side, so that addresses
// differ by constants, and pitches between threads by which no two lanes meet in a bank.
template <typename T, int slots, int max_threads>
struct Pitch {
  static constexpr int fours = 16 / static_cast<int>(sizeof(T));  // values of 16 bytes
  static constexpr int share = slots + 1;                         // odd
  // Of float an odd number of 16 bytes: they are read as such. Double has no room for more.
  static constexpr int parked = short_of_registers<slots, max_threads> ? 2 * slots + 4 : 0;
};

// Shares, those of a thread's slots at [thread][slot]; with mixed memory the gradients of the gates
// take turns with them. Then a zero, then the shares of the list's other synapses, by position. A
// large block leaves the last in global memory: it has no room for as many as there may be, and few
// if any.
FASTLTC_DEVICE int zero_share(int pitch, int threads, int64_t neurons, int kind) {
  const int shares = pitch * threads;
  const int gates = kind == kMixedMemory ? 4 * static_cast<int>(neurons) : 0;
  return gates > shares ? gates : shares;
}

template <typename T, int slots, int max_threads>
struct BackwardShared {
  using At = Pitch<T, slots, max_threads>;

  // [threads][b of slots, we of slots; of the neuron of the thread's number g and C gt; of the leaky
  // neuron that it runs the capacity, and what its driven neuron gets in a step]
  T* parked;
  T* shares;  // sigma h times -log2(e)
  T* v;       // [2][N + 1] before the unfold and before the one to come
  T* own;     // [2][N] g and C gt, where nothing is parked

  // The gradient of neuron j's state after the unfold, and C gt.
  __device__ T& g(int j) const {
    return At::parked > 0 ? parked[j * At::parked + 2 * slots] : own[j];
  }
  __device__ T& direct(int j, [[maybe_unused]] int neurons) const {
    return At::parked > 0 ? parked[j * At::parked + 2 * slots + 1] : own[neurons + j];
  }
};

template <typename T, int slots, int max_threads, int kind>
size_t persistent_backward_shared(int64_t neurons, int64_t most, int threads) {
  using At = Pitch<T, slots, max_threads>;
  const int64_t of_warp = max_threads == kWarp ? most + 2 * neurons : 0;
  const int64_t shares = zero_share(At::share, threads, neurons, kind) + 1;
  return static_cast<size_t>(At::parked * threads + shares + 2 * (neurons + 1) + of_warp) *
         sizeof(T);
}

// A thread's role; `packed` where registers are short: in words that are taken apart at each use.
template <typename T, int slots, bool packed>
struct BackwardRole {
  uint32_t who;
  uint32_t where;
  T capacity[2];
  Synapse<T> p[slots];
  // Of presynaptic neurons in the lower half, of shares to collect in the upper one.
  uint32_t indices[slots];

  __device__ explicit BackwardRole(const Role<T, slots>& role)
      : who(static_cast<uint32_t>(role.driven + 1) | static_cast<uint32_t>(role.leaky + 1) << 10 |
            static_cast<uint32_t>(role.lanes) << 20 | static_cast<uint32_t>(role.leads) << 26),
        where(static_cast<uint32_t>(role.first) | static_cast<uint32_t>(role.end) << 16),
        capacity{role.capacity[0], role.capacity[1]} {
    FASTLTC_UNROLL
    for (int n = 0; n < slots; ++n) {
      p[n] = role.p[n];
      indices[n] = role.indices[n];
    }
  }
  static __device__ uint32_t word(uint32_t value) { return packed ? opaque(value) : value; }
  __device__ int driven() const { return static_cast<int>(word(who) & 0x3ffu) - 1; }
  __device__ int leaky() const { return static_cast<int>(word(who) >> 10 & 0x3ffu) - 1; }
  __device__ int lanes() const { return static_cast<int>(word(who) >> 20 & 0x3fu); }
  __device__ bool leads() const { return (word(who) >> 26) != 0; }
  __device__ int first() const { return static_cast<int>(word(where) & 0xffffu); }
  __device__ int end() const { return static_cast<int>(word(where) >> 16); }
  __device__ int spilled() const { return first() + slots * lanes(); }
  __device__ int pre(int n) const { return static_cast<int>(opaque(indices[n]) & 0xffffu); }
  __device__ int position(int n) const { return static_cast<int>(opaque(indices[n]) >> 16); }
};

// A thread's part in the gradients of the states: G' lanes for each neuron, and of its outgoing
// synapses `slots` positions for each lane in registers, beside the role's indices: the block plan
// has no register to spare.
FASTLTC_DEVICE int log2_lanes(int lanes) {
  int result = 0;
  FASTLTC_UNROLL
  for (int bit = 1; bit < 6; ++bit) result += lanes >> bit != 0;
  return result;
}
struct CollectRole {
  uint32_t who;

  // `most`: synapses of any layer.
  template <typename T, int slots, bool packed, int kind>
  __device__ CollectRole(const Layer<T, kind>& layer, int most,
                         BackwardRole<T, slots, packed>& role) {
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    const int zero = zero_share(slots + 1, threads, layer.neurons(), kind);
    const int lanes = lanes_each(threads, layer.neurons());
    const int neuron = thread / lanes < layer.neurons() ? thread / lanes : -1;
    who = static_cast<uint32_t>(neuron + 1) | static_cast<uint32_t>(lanes) << 16;
    const int count = outgoing(layer);
    bool more = false;
    FASTLTC_UNROLL
    for (int n = 0; n < slots; ++n) role.indices[n] |= static_cast<uint32_t>(zero) << 16;
    for (int k = thread % lanes, n = 0; k < count; k += lanes, ++n) {
      const int at = share(layer, most, role, k);
      const bool has = has_position<slots>(k, at, zero);
      if (!has) more = true;
      FASTLTC_UNROLL
      for (int m = 0; m < slots; ++m) {
        if (has && m == n) {
          role.indices[m] = (role.indices[m] & 0xffffu) | static_cast<uint32_t>(at) << 16;
        }
      }
    }
    who |= static_cast<uint32_t>(more) << 24;
  }
  __device__ int neuron() const { return static_cast<int>(opaque(who) & 0xffffu) - 1; }  // or -1
  __device__ int lanes() const { return static_cast<int>(opaque(who) >> 16 & 0xffu); }
  // The first of the neuron's lanes.
  __device__ bool leads() const {
    return neuron() >= 0 && (threadIdx.x & static_cast<unsigned>(lanes() - 1)) == 0;
  }
  // Shares than it has positions for.
  __device__ bool more() const { return (opaque(who) >> 24) != 0; }
  // The neuron's synapses.
  template <typename T, int kind>
  __device__ int outgoing(const Layer<T, kind>& layer) const {
    return neuron() >= 0 ? layer.net.recurrent.out_count[layer.first_neuron() + neuron()] : 0;
  }
  // Not where a large block has the share in global memory, nor beyond its slots.
  template <int slots>
  __device__ bool has_position(int k, int at, int zero) const {
    return k >> log2_lanes(lanes()) < slots &&
           (at <= zero || static_cast<int>(blockDim.x) == kWarp);
  }
  // Where the share of the neuron's k-th outgoing synapse stands.
  template <typename T, int slots, bool packed, int kind>
  __device__ int share(const Layer<T, kind>& layer, int most,
                       const BackwardRole<T, slots, packed>& role, int k) const {
    const Network<T>& net = layer.net;
    const int threads = static_cast<int>(blockDim.x), lanes = role.lanes();
    const int zero = zero_share(slots + 1, threads, layer.neurons(), kind);
    const int64_t base = layer.first_neuron();
    const int position = net.recurrent.outgoing(base + neuron())[k];
    const int64_t post = net.recurrent.post[position];
    // A list that is not well formed may lead anywhere: to the zero.
    if (post < base || post >= base + layer.neurons()) return zero;
    const int own = position - net.recurrent.column[post], slot = own >> log2_lanes(lanes);
    const int thread = net.place[post] * lanes + (own & (lanes - 1));
    if (own < 0 || thread >= threads) return zero;
    if (slot < slots) return thread * (slots + 1) + slot;
    const int of_layer = position - layer.first_synapse();
    return of_layer < 0 || of_layer >= most ? zero : zero + 1 + of_layer;
  }
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
