// What the LTC kernels need of a layer's parameters, gathered once per call from the dense
// matrices.
//
// With a = -sigma log2(e) and b = sigma mu log2(e), a synapse's sigmoid is 1 / (1 + 2^(a v + b)):
// the slope and the offset fold into one fused multiply-add before the power of two
// (docs/equations.md: folding).
#pragma once

#include "core/ltc_problem.h"
#include "cpu/cells/memory.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// One synapse, in the order of its list; read as four broadcasts.
template <typename T>
struct Synapse {
  T a;   // -sigma log2(e)
  T b;   // sigma mu log2(e)
  T we;  // pos(w) erev
  T w;   // pos(w)
};

template <typename T>
struct Synapses {
  int64_t count = 0;
  const int32_t* column = nullptr;  // [N + 1]
  int32_t* offset = nullptr;  // [count]: where the presynaptic row starts in a tile's [rows][lanes]
  Synapse<T>* parameters = nullptr;  // [count]

  void take(Arena& arena, const SynapseList& list, int64_t neurons) {
    column = list.column;
    count = list.column[neurons];
    offset = arena.take<int32_t>(count);
    parameters = arena.take<Synapse<T>>(count);
  }
};

// pos() of n values and nothing past them: in place, whole registers first, then the rest.
template <typename T>
void make_positive(T* values, int64_t n) {
  using S = Simd<T>;
  int64_t k = 0;
  for (; k + S::lanes <= n; k += S::lanes) S::store(values + k, S::softplus(S::load(values + k)));
  if (k < n) {
    const int rest = static_cast<int>(n - k);
    S::store_first(values + k, S::softplus(S::load_first(values + k, rest)), rest);
  }
}

// values[k] *= pos'(raw[k])
template <typename T>
void multiply_by_positive_slope(T* values, const T* raw, int64_t n) {
  using S = Simd<T>;
  int64_t k = 0;
  for (; k + S::lanes <= n; k += S::lanes) {
    S::store(values + k, S::load(values + k) * S::softplus_slope(S::load(raw + k)));
  }
  if (k < n) {
    const int rest = static_cast<int>(n - k);
    const auto slope = S::softplus_slope(S::load_first(raw + k, rest));
    S::store_first(values + k, S::load_first(values + k, rest) * slope, rest);
  }
}

template <typename T>
struct LtcPlan {
  Synapses<T> recurrent;
  Synapses<T> sensory;
  MemoryPlan<T> memory;
  // Neurons with and without recurrent synapses. Within a step the latter need no sigmoid and their
  // denominator is constant, so each of their unfolds is one multiply-add.
  int32_t* driven = nullptr;
  int32_t* leaky = nullptr;
  int32_t* motor = nullptr;  // [M] the neuron of each output
  int64_t driven_count = 0;
  int64_t leaky_count = 0;
  int64_t max_in_degree = 0;
  T* gleak = nullptr;             // [N] pos(gleak)
  T* capacity = nullptr;          // [N] pos(cm) * U, at least kLeastCapacity
  T* leak_numerator = nullptr;    // [N] pos(gleak) * vleak
  T* leak_denominator = nullptr;  // [N] pos(gleak) + epsilon
  T* scratch = nullptr;           // [2 * the longer list]

  void take(Arena& arena, const LtcInputs<T>& in, bool with_backward) {
    const int64_t N = in.size.N;
    memory.take(arena, in, with_backward);
    recurrent.take(arena, in.synapses, N);
    sensory.take(arena, in.sensory_synapses, N);
    max_in_degree = 0;
    for (int64_t j = 0; j < N; ++j) {
      const int64_t degree = recurrent.column[j + 1] - recurrent.column[j];
      if (degree > max_in_degree) max_in_degree = degree;
    }
    driven = arena.take<int32_t>(N);
    leaky = arena.take<int32_t>(N);
    motor = arena.take<int32_t>(in.size.M);
    gleak = arena.take<T>(N);
    capacity = arena.take<T>(N);
    leak_numerator = arena.take<T>(N);
    leak_denominator = arena.take<T>(N);
    scratch =
        arena.take<T>(2 * (recurrent.count > sensory.count ? recurrent.count : sensory.count));
  }

  // Values of one sample's history, see core/ltc_problem.h.
  int64_t history(const LayerSizes& size) const {
    return (size.T * rows_of_states(size) + 1) * size.N + memory.kept(size.T);
  }
  // States that a step adds to it.
  int64_t rows_of_states(const LayerSizes& size) const { return size.U + (memory.present ? 1 : 0); }

  // `least` is 0 where something else holds a neuron without capacitance in a step of 0.
  void fill(const LtcInputs<T>& in, bool with_backward, T least = kLeastCapacity<T>) {
    const LtcParameters<T>& p = in.parameters;
    const int64_t N = in.size.N;
    memory.fill(in, with_backward);
    const int64_t outputs = in.size.M / in.nets;
    for (int64_t m = 0; m < in.size.M; ++m) {
      motor[m] = static_cast<int32_t>(m / outputs * (N / in.nets) + m % outputs);
    }
    const int64_t columns = N / in.nets;
    fill_synapses(recurrent, in.synapses.row, N, columns, p.sigma, p.mu, p.w, p.erev, p.softplus);
    fill_synapses(sensory, in.sensory_synapses.row, N, columns, p.sensory_sigma, p.sensory_mu,
                  p.sensory_w, p.sensory_erev, p.softplus);
    driven_count = leaky_count = 0;
    for (int64_t j = 0; j < N; ++j) {
      if (recurrent.column[j + 1] > recurrent.column[j]) {
        driven[driven_count++] = static_cast<int32_t>(j);
      } else {
        leaky[leaky_count++] = static_cast<int32_t>(j);
      }
      gleak[j] = p.gleak[j];
      capacity[j] = p.cm[j];
    }
    if (p.softplus) {
      make_positive(gleak, N);
      make_positive(capacity, N);
    }
    for (int64_t j = 0; j < N; ++j) {
      capacity[j] *= static_cast<T>(in.size.U);
      if (capacity[j] >= T(0) && capacity[j] < least) capacity[j] = least;
      leak_numerator[j] = gleak[j] * p.vleak[j];
      leak_denominator[j] = gleak[j] + static_cast<T>(p.epsilon);
    }
  }

  // For the backward pass: the weights times -1 / log2(e). What they multiply then has that factor
  // too, which `unscale` takes out once for each neuron or synapse instead of in each evaluation.
  T unscale = T(1);
  void scale_weights() {
    scale_weights(recurrent);
    scale_weights(sensory);
    unscale = -kLog2E<T>;
  }

 private:
  static void scale_weights(Synapses<T>& list) {
    for (int64_t k = 0; k < list.count; ++k) {
      list.parameters[k].we *= T(-1) / kLog2E<T>;
      list.parameters[k].w *= T(-1) / kLog2E<T>;
    }
  }

  // `columns`: neurons of one layer.
  void fill_synapses(Synapses<T>& list, const int32_t* row, int64_t N, int64_t columns,
                     const T* sigma, const T* mu, const T* w, const T* erev, bool softplus) {
    T* positive = scratch;
    for (int64_t j = 0; j < N; ++j) {
      const int64_t column = j % columns;
      for (int64_t k = list.column[j]; k < list.column[j + 1]; ++k) {
        list.offset[k] = row[k] * Simd<T>::lanes;
        positive[k] = w[row[k] * columns + column];
      }
    }
    if (softplus) make_positive(positive, list.count);
    for (int64_t j = 0; j < N; ++j) {
      const int64_t column = j % columns;
      for (int64_t k = list.column[j]; k < list.column[j + 1]; ++k) {
        const int64_t at = row[k] * columns + column;
        const T slope = sigma[at] * kLog2E<T>;
        list.parameters[k] = {-slope, slope * mu[at], positive[k] * erev[at], positive[k]};
      }
    }
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
