// The forward pass of the plans that run a sample's whole sequence in a warp or a block
// (ltc_persistent.cuh says how).
#pragma once

#include "cuda/ltc_persistent.cuh"

namespace fastltc::cuda {

template <typename T>
struct PersistentForward : LtcForward<T> {
  int most = 0;  // synapses of any layer
  SampleMemory<T> memory{};
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
    if (takes_resets<one_warp, kind> && call.rows.begins_anew(b, t)) {
      FASTLTC_UNROLL
      for (int n = 0; n < 2; ++n) {
        if (read[n] < 0) continue;
        v[n] = call.rows.reset_to_zero ? T(0) : state_or_zero(call.h0, b, base + read[n]);
        if (own[n] >= 0) from[own[n]] = v[n];
      }
      if (mixed && led >= 0 && led < neurons) {
        c = call.rows.reset_to_zero ? T(0) : call.memory.initial(b, led);
      }
      barrier<one_warp>();
    }
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
      swap_buffers(from, to);
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
      sum_groups(role.lanes, num, den);
      num += now.num;
      den += now.den;
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
      swap_buffers(from, to);
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

}  // namespace fastltc::cuda
