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

template <typename T, Lanes lanes = Lanes::samples>
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
  FASTLTC_INLINE Synapse<T> at(int64_t k) const { return parameters[k]; }
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

// What the cell reads.
template <typename T, Lanes lanes>
struct LtcLayer : PackedLayer<T, lanes> {
  Synapses<T, lanes> recurrent;
  Synapses<T, lanes> sensory;
  // Neurons with and without recurrent synapses. Within a step the latter need no sigmoid and their
  // denominator is constant, so each of their unfolds is one multiply-add.
  int32_t* driven = nullptr;
  int32_t* leaky = nullptr;
  int64_t driven_count = 0;
  int64_t leaky_count = 0;
  int64_t max_in_degree = 0;
  bool puts_sigmoids_by = false;  // see core/ltc_problem.h
  T* capacity = nullptr;          // [N] pos(cm) * U, at least kLeastCapacity
  T* leak_numerator = nullptr;    // [N] pos(gleak) * vleak
  T* leak_denominator = nullptr;  // [N] pos(gleak) + epsilon

  // Sigmoids of one sample and step, a neuron's own work counted as one.
  int64_t evaluations(const LtcInputs<T>& in) const {
    return recurrent.count * in.size.U + sensory.count + in.size.N + this->memory.evaluations();
  }

 protected:
  // But the lists.
  void take_neurons(Arena& arena, const LtcInputs<T>& in) {
    const int64_t N = in.size.N, width = Parameter<T, lanes>::width;
    puts_sigmoids_by = ltc_puts_sigmoids_by(in.size, recurrent.count);
    // A step's first state is what the memory cell makes of the one before.
    this->history = {in.size.T,       N, in.kept_unfolds + (this->memory.present ? 1 : 0),
                     in.kept_unfolds, 0, this->memory.kept()};
    driven = arena.take<int32_t>(N);
    leaky = arena.take<int32_t>(N);
    this->motor = arena.take<int32_t>(in.size.M);
    capacity = arena.take<T>(N * width);
    leak_numerator = arena.take<T>(N * width);
    leak_denominator = arena.take<T>(N * width);
  }
  void sort_neurons(int64_t N) {
    driven_count = leaky_count = max_in_degree = 0;
    for (int64_t j = 0; j < N; ++j) {
      const int64_t degree = recurrent.column[j + 1] - recurrent.column[j];
      if (degree > max_in_degree) max_in_degree = degree;
      if (degree > 0) {
        driven[driven_count++] = static_cast<int32_t>(j);
      } else {
        leaky[leaky_count++] = static_cast<int32_t>(j);
      }
    }
  }
};

template <typename T>
struct PackedLtc : LtcLayer<T, Lanes::samples> {
  using Base = LtcLayer<T, Lanes::samples>;
  using Base::recurrent, Base::sensory, Base::capacity, Base::leak_numerator,
      Base::leak_denominator;

  T* gleak = nullptr;    // [N] pos(gleak)
  T* scratch = nullptr;  // [2 * the longer list]

  void take(Arena& arena, const LtcInputs<T>& in, bool with_backward) {
    const int64_t N = in.size.N;
    this->memory.take(arena, in, with_backward);
    recurrent.take(arena, in.synapses, N);
    sensory.take(arena, in.sensory_synapses, N);
    this->take_neurons(arena, in);
    gleak = arena.take<T>(N);
    scratch =
        arena.take<T>(2 * (recurrent.count > sensory.count ? recurrent.count : sensory.count));
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
    this->sort_neurons(N);
    for (int64_t j = 0; j < N; ++j) {
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

// Rows of lanes, but the synapses' four sums.
template <typename T, Lanes lanes = Lanes::samples>
struct LtcSums : SequenceSums<T> {
  T* recurrent = nullptr;    // [synapses] FourSums: P, Q, H, HV
  T* sensory = nullptr;      // the same of the sensory synapses
  T* numerator = nullptr;    // [N] gn
  T* denominator = nullptr;  // [N] gd
  T* capacity = nullptr;     // [N] gC

  void take(Arena& arena, const LtcInputs<T>& in, const LtcLayer<T, lanes>& layer) {
    using S = Simd<T>;
    recurrent = arena.take<T>(layer.recurrent.count * FourSums<T, lanes>::size);
    sensory = arena.take<T>(layer.sensory.count * FourSums<T, lanes>::size);
    numerator = arena.take<T>(in.size.N * S::lanes);
    denominator = arena.take<T>(in.size.N * S::lanes);
    capacity = arena.take<T>(in.size.N * S::lanes);
    SequenceSums<T>::take(arena, in, layer);
  }
};

// One list's gradients, of one network; add_sums(k, total) adds the four sums of a synapse.
// `scratch`: twice as many values as it has synapses.
template <typename T, typename Add>
void write_synapse_gradients(const LtcInputs<T>& in, int64_t net, const Synapses<T>& list,
                             const int32_t* rows, const Add& add_sums, T* scratch,
                             const SynapseMatrices<const T*>& given,
                             const SynapseMatrices<T*>& grad) {
  const int64_t columns = in.size.N / in.nets;
  const int32_t* const column = list.column + net * columns;
  const int64_t begin = column[0], count = column[columns] - begin;
  T* const slope = scratch;
  for (int64_t k = 0; k < count; ++k) slope[k] = T(1);
  if (in.parameters.softplus) {
    T* const raw = scratch + count;
    for (int64_t j = 0; j < columns; ++j) {
      for (int64_t k = column[j]; k < column[j + 1]; ++k) {
        raw[k - begin] = given.w[rows[k] * columns + j];
      }
    }
    multiply_by_positive_slope(slope, raw, count);
  }
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t k = column[j]; k < column[j + 1]; ++k) {
      T total[4] = {};
      add_sums(k, total);
      const int64_t at = rows[k] * columns + j;
      const T P = kUnscale<T> * total[0], Q = kUnscale<T> * total[1], H = kUnscale<T> * total[2],
              HV = kUnscale<T> * total[3];
      grad.w[at] = (given.erev[at] * P + Q) * slope[k - begin];
      grad.erev[at] = list.parameters[k].w * P;
      grad.mu[at] = -given.sigma[at] * H;
      grad.sigma[at] = HV - given.mu[at] * H;
    }
  }
}

// The parameters' gradients of one network, but the memory cell's. `totals` gives them of the sums
// of a part, as GradientSums does; the sums of synapse k of a list stand at place(k).
template <typename T, typename Sums, typename Totals, typename Place>
void write_ltc_gradients(const LtcInputs<T>& in, const LtcGradients<T>& grad,
                         const PackedLtc<T>& layer, int64_t net, const Sums& sums,
                         const Totals& totals, const Place& place, const Place& sensory_place,
                         T* scratch) {
  const LtcParameters<T>& p = in.parameters;
  write_synapse_gradients(
      in, net, layer.recurrent, in.synapses.row,
      [&](int64_t k, T(&total)[4]) { totals.add_fours(sums.recurrent, place(k), total); }, scratch,
      {p.sigma, p.mu, p.w, p.erev}, {grad.sigma, grad.mu, grad.w, grad.erev});
  write_synapse_gradients(
      in, net, layer.sensory, in.sensory_synapses.row,
      [&](int64_t k, T(&total)[4]) { totals.add_fours(sums.sensory, sensory_place(k), total); },
      scratch, {p.sensory_sigma, p.sensory_mu, p.sensory_w, p.sensory_erev},
      {grad.sensory_sigma, grad.sensory_mu, grad.sensory_w, grad.sensory_erev});
  const int64_t N = in.size.N / in.nets, I = in.size.I / in.nets, M = in.size.M / in.nets;
  for (int64_t j = 0; j < N; ++j) {
    const int64_t at = net * N + j;
    const T gn = totals.row(sums.numerator, j), gd = totals.row(sums.denominator, j);
    grad.gleak[at] = p.vleak[at] * gn + gd;
    grad.vleak[at] = layer.gleak[at] * gn;
    grad.cm[at] = totals.row(sums.capacity, j) * static_cast<T>(in.size.U);
  }
  if (p.softplus) {
    multiply_by_positive_slope(grad.gleak + net * N, p.gleak + net * N, N);
    multiply_by_positive_slope(grad.cm + net * N, p.cm + net * N, N);
  }
  const auto write_rows = [&](const T* rows, int64_t count, T* to) {
    if (to != nullptr) totals.write_rows(rows, count, to + net * count);
  };
  write_rows(sums.input_w, I, grad.input_w);
  write_rows(sums.input_b, I, grad.input_b);
  write_rows(sums.output_w, M, grad.output_w);
  write_rows(sums.output_b, M, grad.output_b);
}

}  // namespace fastltc::cpu::FASTLTC_ISA
