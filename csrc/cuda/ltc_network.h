// The network as the kernels read it, gathered at the start of each call, and what all LTC kernels
// have in common: the sums over a neuron's synapses and their gradient.
//
// With a = -sigma log2(e) and b = sigma mu log2(e), a synapse's sigmoid is 1 / (1 + 2^(a v + b))
// (docs/equations.md: folding). What belongs to rows (rows.h) is stored [channel][row]: lanes take
// neighbouring rows, so every access is one line.
#pragma once

#include "core/ltc_problem.h"
#include "cuda/frame/results.h"
#include "cuda/frame/rows.h"

namespace fastltc::cuda {

template <typename T>
struct Synapses {
  // As given.
  const int32_t* given_column = nullptr;
  const int32_t* given_row = nullptr;
  SynapseMatrices<const T*> given;
  int64_t count = 0;
  int rows = 0;  // presynaptic neurons, or inputs
  int neurons = 0;
  // Of one layer, where several stand beside each other: dense matrices are stacked, and no synapse
  // leads from one to another.
  int rows_each = 0;
  int neurons_each = 0;
  // Gathered. Positions are those of the list.
  int32_t* column = nullptr;         // [neurons + 1]
  int32_t* pre = nullptr;            // [count], as post and parameters where is_synapse
  int32_t* post = nullptr;           // [count]
  Synapse<T>* parameters = nullptr;  // [count]
  // For the backward pass, else null: the synapses from each presynaptic neuron.
  int32_t* position = nullptr;   // [neurons][rows_each], -1 where there is no synapse; of clusters
  int32_t* out_count = nullptr;  // [rows]
  int32_t* out = nullptr;        // [rows][neurons_each]: positions, out_count of them

  // Of the synapse from i onto j in the dense matrices.
  FASTLTC_DEVICE int64_t dense(int64_t i, int64_t j) const {
    return i * neurons_each + j % neurons_each;
  }
  // Columns that are not well formed leave out some positions of the list, where nothing is gathered:
  // what stands there as `post` is then no column that has them.
  FASTLTC_DEVICE bool is_synapse(int64_t k) const {
    const int32_t j = post[k];
    return j >= 0 && j < neurons && column[j] <= k && k < column[j + 1];
  }
  FASTLTC_DEVICE const int32_t* outgoing(int64_t i) const { return out + i * neurons_each; }
};

template <typename T>
struct Network {
  LayerSizes size;
  Synapses<T> recurrent;
  Synapses<T> sensory;
  T* gleak = nullptr;             // [N] pos(gleak)
  T* capacity = nullptr;          // [N] pos(cm) * U, at least kLeastCapacity
  T* leak_numerator = nullptr;    // [N] pos(gleak) * vleak
  T* leak_denominator = nullptr;  // [N] pos(gleak) + epsilon
  // Neurons with recurrent synapses, then those without: within a step, the latter need no sigmoid
  // and their denominator is constant. Of each layer by itself, counted from its first neuron.
  int32_t* order = nullptr;         // [N]
  int32_t* place = nullptr;         // [N] in the order
  int32_t* driven_count = nullptr;  // [nets]
  int nets = 1;
  int outputs_each = 0;  // of one layer

  // The output of neuron j, or -1; the neuron of output m.
  FASTLTC_DEVICE int64_t output_of(int64_t j) const {
    const int64_t each = recurrent.neurons_each, own = j % each;
    return own < outputs_each ? j / each * outputs_each + own : -1;
  }
  FASTLTC_DEVICE int64_t motor(int64_t m) const {
    return m / outputs_each * recurrent.neurons_each + m % outputs_each;
  }
};

// Adds the synapses onto neuron j to its numerator and denominator; `pre` is [rows][pitch], at the
// row wanted.
template <typename T>
FASTLTC_DEVICE void add_column(const Synapses<T>& list, int j, const T* pre, int64_t pitch, T& num,
                               T& den) {
  const int end = list.column[j + 1];
  for (int k = list.column[j]; k < end; ++k) {
    const Synapse<T> p = list.parameters[k];
    const T s = sigmoid_exp2(p.a * pre[list.pre[k] * pitch] + p.b);
    num += p.we * s;
    den += p.w * s;
  }
}

// Whether a time step of 0 holds a neuron without capacitance. Any longer one takes it to its end
// at once, so that there is no derivative by the step: taken for 0, as the reference has it.
template <typename T>
FASTLTC_DEVICE bool is_held(T dt, T capacity) {
  return dt == T(0) && capacity == kLeastCapacity<T>;
}

// The four sums of a synapse over rows.
template <typename T>
struct alignas(4 * sizeof(T)) SynapseSums {
  T P = 0;   // s gn
  T Q = 0;   // s gd
  T H = 0;   // h
  T HV = 0;  // h v

  FASTLTC_DEVICE void add(const SynapseSums& other) {
    P += other.P;
    Q += other.Q;
    H += other.H;
    HV += other.HV;
  }
};
// Over the lanes of a warp.
template <typename T>
__device__ __forceinline__ SynapseSums<T> sum_lanes(const SynapseSums<T>& sums) {
  return {sum_lanes(sums.P), sum_lanes(sums.Q), sum_lanes(sums.H), sum_lanes(sums.HV)};
}

// Gradient through one synapse whose sigmoid is s, and whose neuron's numerator and denominator
// have the gradients gn and gd. Returns h.
template <typename T>
FASTLTC_DEVICE T synapse_backward(const Synapse<T>& p, T s, T v, T gn, T gd, SynapseSums<T>& sums) {
  const T sgn = s * gn;
  const T sgd = s * gd;
  const T ks = sgn * p.we + sgd * p.w;
  const T h = ks - ks * s;
  sums.P += sgn;
  sums.Q += sgd;
  sums.H += h;
  sums.HV += h * v;
  return h;
}

// The gradient of v, the value of presynaptic neuron i, through its synapses; `gd` gives that of a
// denominator from where the neuron's numerator has its gradient, [neurons][pitch], at the row
// wanted.
template <typename T, typename Gd>
FASTLTC_DEVICE T outgoing_gradient(const Synapses<T>& list, int64_t i, T v, int64_t pitch,
                                   const T* gn, const Gd& gd) {
  const int32_t* const out = list.outgoing(i);
  T total = 0;
  for (int n = 0; n < list.out_count[i]; ++n) {
    const Synapse<T> p = list.parameters[out[n]];
    const int64_t at = list.post[out[n]] * pitch;
    SynapseSums<T> unused;
    total += p.a * synapse_backward(p, sigmoid_exp2(p.a * v + p.b), v, gn[at], gd(at), unused);
  }
  return total * (T(-1) / kLog2E<T>);
}

// What the recurrent kernels of all plans share.
template <typename T>
struct LtcCall {
  Network<T> net;
  SequenceRows<T> rows;
  const T* num = nullptr;  // [N][rows], of leaks and sensory synapses
  const T* den = nullptr;
  const T* output_w = nullptr;  // [M]; null: 1
};

template <typename T>
struct LtcForward : LtcCall<T> {
  const T* output_b = nullptr;  // [M]; null: 0
  SequenceView<const T> h0;     // null: zeros
  Results<T> out;

  // Output m of a neuron whose state is v; 0 past the end of the sample.
  FASTLTC_DEVICE void write_output(int64_t b, int64_t t, int64_t m, T v, bool active = true) const {
    if (this->output_w != nullptr) v *= this->output_w[m];
    if (output_b != nullptr) v += output_b[m];
    element(out.output, b, t, m) = active ? v : T(0);
  }
};

template <typename T>
struct LtcBackward : LtcCall<T> {
  Wanted<T> grad;
  // Written.
  T* grad_num = nullptr;  // [N][rows], as the next two
  T* grad_den = nullptr;
  T* grad_capacity = nullptr;

  // Of the state from which output m is made.
  FASTLTC_DEVICE T output_gradient(int64_t b, int64_t t, int64_t m) const {
    T value = element(grad.grad_output, b, t, m);
    if (this->output_w != nullptr) value *= this->output_w[m];
    return value;
  }
};

}  // namespace fastltc::cuda
