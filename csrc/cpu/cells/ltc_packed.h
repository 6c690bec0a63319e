// What the LTC kernels need of a layer's parameters, gathered once per call from the dense
// matrices; and from what they sum up, the parameters' gradients.
//
// With a = -sigma log2(e) and b = sigma mu log2(e), a synapse's sigmoid is 1 / (1 + 2^(a v + b)):
// the slope and the offset fold into one fused multiply-add before the power of two
// (docs/equations.md: folding).
#pragma once

#include "core/ltc_problem.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/gradient_sums.h"
#include "cpu/frame/simd.h"
#include "cpu/frame/step.h"

namespace fastltc::cpu::FASTLTC_ISA {

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

// pos(), in place.
template <typename T>
void make_positive(T* values, int64_t n) {
  map_values(values, n, [](auto x) { return Simd<T>::softplus(x); }, values);
}

// values[k] *= pos'(raw[k])
template <typename T>
void multiply_by_positive_slope(T* values, const T* raw, int64_t n) {
  const auto multiply = [](auto x, auto at) { return x * Simd<T>::softplus_slope(at); };
  map_values(values, n, multiply, values, raw);
}

template <typename T>
struct PackedLtc : PackedLayer<T> {
  Synapses<T> recurrent;
  Synapses<T> sensory;
  // Neurons with and without recurrent synapses. Within a step the latter need no sigmoid and their
  // denominator is constant, so each of their unfolds is one multiply-add.
  int32_t* driven = nullptr;
  int32_t* leaky = nullptr;
  int64_t driven_count = 0;
  int64_t leaky_count = 0;
  int64_t max_in_degree = 0;
  bool puts_sigmoids_by = false;  // see core/ltc_problem.h
  T* gleak = nullptr;             // [N] pos(gleak)
  T* capacity = nullptr;          // [N] pos(cm) * U, at least kLeastCapacity
  T* leak_numerator = nullptr;    // [N] pos(gleak) * vleak
  T* leak_denominator = nullptr;  // [N] pos(gleak) + epsilon
  T* scratch = nullptr;           // [2 * the longer list]

  void take(Arena& arena, const LtcInputs<T>& in, bool with_backward) {
    const int64_t N = in.size.N;
    this->memory.take(arena, in, with_backward);
    recurrent.take(arena, in.synapses, N);
    sensory.take(arena, in.sensory_synapses, N);
    puts_sigmoids_by = ltc_puts_sigmoids_by(in.size, recurrent.count);
    // A step's first state is what the memory cell makes of the one before.
    this->history = {in.size.T,       N, in.kept_unfolds + (this->memory.present ? 1 : 0),
                     in.kept_unfolds, 0, this->memory.kept()};
    max_in_degree = 0;
    for (int64_t j = 0; j < N; ++j) {
      const int64_t degree = recurrent.column[j + 1] - recurrent.column[j];
      if (degree > max_in_degree) max_in_degree = degree;
    }
    driven = arena.take<int32_t>(N);
    leaky = arena.take<int32_t>(N);
    this->motor = arena.take<int32_t>(in.size.M);
    gleak = arena.take<T>(N);
    capacity = arena.take<T>(N);
    leak_numerator = arena.take<T>(N);
    leak_denominator = arena.take<T>(N);
    scratch =
        arena.take<T>(2 * (recurrent.count > sensory.count ? recurrent.count : sensory.count));
  }

  // Sigmoids of one sample and step, a neuron's own work counted as one.
  int64_t evaluations(const LtcInputs<T>& in) const {
    return recurrent.count * in.size.U + sensory.count + in.size.N + this->memory.evaluations();
  }

  // `least` is 0 where something else holds a neuron without capacitance in a step of 0.
  void fill(const LtcInputs<T>& in, bool with_backward, T least = kLeastCapacity<T>) {
    const LtcParameters<T>& p = in.parameters;
    const int64_t N = in.size.N;
    this->memory.fill(in, with_backward);
    this->input_w = p.input_w;
    this->input_b = p.input_b;
    this->output_w = p.output_w;
    this->output_b = p.output_b;
    const int64_t outputs = in.size.M / in.nets;
    for (int64_t m = 0; m < in.size.M; ++m) {
      this->motor[m] = static_cast<int32_t>(m / outputs * (N / in.nets) + m % outputs);
    }
    const int64_t columns = N / in.nets;
    fill_synapses(recurrent, in.synapses.row, N, columns, p.softplus, {p.sigma, p.mu, p.w, p.erev});
    fill_synapses(sensory, in.sensory_synapses.row, N, columns, p.softplus,
                  {p.sensory_sigma, p.sensory_mu, p.sensory_w, p.sensory_erev});
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

 private:
  // `columns`: neurons of one layer.
  void fill_synapses(Synapses<T>& list, const int32_t* row, int64_t N, int64_t columns,
                     bool softplus, const SynapseMatrices<const T*>& given) {
    T* positive = scratch;
    for (int64_t j = 0; j < N; ++j) {
      const int64_t column = j % columns;
      for (int64_t k = list.column[j]; k < list.column[j + 1]; ++k) {
        list.offset[k] = row[k] * Simd<T>::lanes;
        positive[k] = given.w[row[k] * columns + column];
      }
    }
    if (softplus) make_positive(positive, list.count);
    for (int64_t j = 0; j < N; ++j) {
      const int64_t column = j % columns;
      for (int64_t k = list.column[j]; k < list.column[j + 1]; ++k) {
        const int64_t at = row[k] * columns + column;
        const T slope = given.sigma[at] * kLog2E<T>;
        list.parameters[k] = {-slope, slope * given.mu[at], positive[k] * given.erev[at],
                              positive[k]};
      }
    }
  }
};

// What goes into the synapses' gradients is times kScale, so that the gradient of the presynaptic
// state has the factor `a` that is at hand in place of sigma = a * kScale. The four sums of a synapse
// then have it too, and lose it once in the end.
template <typename T>
inline constexpr T kScale = T(-1) / kLog2E<T>;
template <typename T>
inline constexpr T kUnscale = -kLog2E<T>;

// Rows of lanes, but the synapses' four sums, which are Simd::add_four's.
template <typename T>
struct LtcSums : SequenceSums<T> {
  T* recurrent = nullptr;    // [synapses][sums_per_synapse]: P, Q, H, HV
  T* sensory = nullptr;      // the same of the sensory synapses
  T* numerator = nullptr;    // [N] gn
  T* denominator = nullptr;  // [N] gd
  T* capacity = nullptr;     // [N] gC

  void take(Arena& arena, const LtcInputs<T>& in, const PackedLtc<T>& layer) {
    using S = Simd<T>;
    recurrent = arena.take<T>(layer.recurrent.count * S::sums_per_synapse);
    sensory = arena.take<T>(layer.sensory.count * S::sums_per_synapse);
    numerator = arena.take<T>(in.size.N * S::lanes);
    denominator = arena.take<T>(in.size.N * S::lanes);
    capacity = arena.take<T>(in.size.N * S::lanes);
    SequenceSums<T>::take(arena, in, layer);
  }
};

// One list's gradients, of the four sums of each synapse at `fours`.
template <typename T>
void write_synapse_gradients(const LtcInputs<T>& in, const PackedLtc<T>& layer,
                             const GradientSums<T, LtcSums<T>>& sums, const Synapses<T>& list,
                             const int32_t* rows, const T* fours,
                             const SynapseMatrices<const T*>& given,
                             const SynapseMatrices<T*>& grad) {
  const int64_t N = in.size.N, columns = N / in.nets;
  T* const slope = layer.scratch;
  for (int64_t k = 0; k < list.count; ++k) slope[k] = T(1);
  if (in.parameters.softplus) {
    T* const raw = layer.scratch + list.count;
    for (int64_t j = 0; j < N; ++j) {
      for (int64_t k = list.column[j]; k < list.column[j + 1]; ++k) {
        raw[k] = given.w[rows[k] * columns + j % columns];
      }
    }
    multiply_by_positive_slope(slope, raw, list.count);
  }
  for (int64_t j = 0; j < N; ++j) {
    for (int64_t k = list.column[j]; k < list.column[j + 1]; ++k) {
      T total[4] = {};
      sums.add_fours(fours, k, total);
      const int64_t at = rows[k] * columns + j % columns;
      const T P = kUnscale<T> * total[0], Q = kUnscale<T> * total[1], H = kUnscale<T> * total[2],
              HV = kUnscale<T> * total[3];
      grad.w[at] = (given.erev[at] * P + Q) * slope[k];
      grad.erev[at] = list.parameters[k].w * P;
      grad.mu[at] = -given.sigma[at] * H;
      grad.sigma[at] = HV - given.mu[at] * H;
    }
  }
}

// The parameters' gradients but the memory cell's, whose sums the first part takes up.
template <typename T>
void write_ltc_gradients(const LtcInputs<T>& in, const LtcGradients<T>& grad,
                         const PackedLtc<T>& layer, const GradientSums<T, LtcSums<T>>& sums) {
  const LtcParameters<T>& p = in.parameters;
  const LtcSums<T>& first = sums.first;
  write_synapse_gradients(in, layer, sums, layer.recurrent, in.synapses.row, first.recurrent,
                          {p.sigma, p.mu, p.w, p.erev}, {grad.sigma, grad.mu, grad.w, grad.erev});
  write_synapse_gradients(in, layer, sums, layer.sensory, in.sensory_synapses.row, first.sensory,
                          {p.sensory_sigma, p.sensory_mu, p.sensory_w, p.sensory_erev},
                          {grad.sensory_sigma, grad.sensory_mu, grad.sensory_w, grad.sensory_erev});
  for (int64_t j = 0; j < in.size.N; ++j) {
    const T gn = sums.row(first.numerator, j), gd = sums.row(first.denominator, j);
    grad.gleak[j] = p.vleak[j] * gn + gd;
    grad.vleak[j] = layer.gleak[j] * gn;
    grad.cm[j] = sums.row(first.capacity, j) * static_cast<T>(in.size.U);
  }
  if (p.softplus) {
    multiply_by_positive_slope(grad.gleak, p.gleak, in.size.N);
    multiply_by_positive_slope(grad.cm, p.cm, in.size.N);
  }
  sums.write_rows(first.input_w, in.size.I, grad.input_w);
  sums.write_rows(first.input_b, in.size.I, grad.input_b);
  sums.write_rows(first.output_w, in.size.M, grad.output_w);
  sums.write_rows(first.output_b, in.size.M, grad.output_b);
  sums.take_up(first.memory);
}

}  // namespace fastltc::cpu::FASTLTC_ISA
