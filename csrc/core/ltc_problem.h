// One LTC layer over one sequence batch: sizes, strides and pointers, for every device.
//
// Plain data only: this header is included by sources compiled for different instruction sets, and
// an inline function here could be merged by the linker with a copy that the processor cannot run.
#pragma once

#include <cstdint>

#include "core/sequence.h"

namespace fastltc {

// The shape of a parameter, and with it what it belongs to.
enum class LtcShape : int {
  neuron,     // [N]
  recurrent,  // [N, N], synapses, presynaptic neuron first
  sensory,    // [I, N], synapses of the inputs
  input,      // [I], of the input map, which need not be there
  output      // [M], of the output map, which need not be there
};

// The table of the parameters, in the order of the operators: name, shape, what it is. Everything
// else that goes through all of them is made from it.
// clang-format off
#define FASTLTC_LTC_PARAMETERS(row)                                          \
  row(gleak, neuron)              /* leak conductance; positive */           \
  row(vleak, neuron)              /* leak potential */                       \
  row(cm, neuron)                 /* membrane capacitance; positive */       \
  row(sigma, recurrent)           /* slope of the sigmoid */                 \
  row(mu, recurrent)              /* its midpoint */                         \
  row(w, recurrent)               /* conductance; positive */                \
  row(erev, recurrent)            /* reversal potential */                   \
  row(sensory_sigma, sensory)     /* the same four of the inputs */          \
  row(sensory_mu, sensory)                                                   \
  row(sensory_w, sensory)         /* positive */                             \
  row(sensory_erev, sensory)                                                 \
  row(input_w, input)             /* null: the inputs are not scaled */      \
  row(input_b, input)             /* null: nothing is added */               \
  row(output_w, output)           /* null: the outputs are not scaled */     \
  row(output_b, output)           /* null: nothing is added */
// clang-format on

// One pointer for each, dense and contiguous as ncps keeps them.
template <typename Pointer>
struct LtcTensors {
#define FASTLTC_LTC_POINTER(name, shape) Pointer name = nullptr;
  FASTLTC_LTC_PARAMETERS(FASTLTC_LTC_POINTER)
#undef FASTLTC_LTC_POINTER
};

template <typename Pointer>
struct LtcParameter {
  const char* name;
  LtcShape shape;
  Pointer LtcTensors<Pointer>::* pointer;
};

#define FASTLTC_LTC_ROW(name, shape) {#name, LtcShape::shape, &LtcTensors<Pointer>::name},
template <typename Pointer>
inline constexpr LtcParameter<Pointer> kLtcParameters[] = {FASTLTC_LTC_PARAMETERS(FASTLTC_LTC_ROW)};
#undef FASTLTC_LTC_ROW

// Entries outside the synapse lists are never read.
template <typename T>
struct LtcParameters : LtcTensors<const T*> {
  double epsilon = 0;     // added to the denominator
  bool softplus = false;  // what is positive passes through softplus
};

// A smaller membrane capacitance counts as this one, whose effect in any time step of more than
// 2^-56 / den is below rounding. So a neuron without capacitance is held by a time step of 0, where
// num / den would be 0 / 0; a power of two holds it exactly.
template <typename T>
inline constexpr T kLeastCapacity;
template <>
inline constexpr float kLeastCapacity<float> = 0x1p-80f;
template <>
inline constexpr double kLeastCapacity<double> = 0x1p-500;

// The dense matrices of a list's synapses, [presynaptic, N], or their gradients.
template <typename Pointer>
struct SynapseMatrices {
  Pointer sigma = nullptr;
  Pointer mu = nullptr;
  Pointer w = nullptr;
  Pointer erev = nullptr;
};

// A synapse as kernels read it, all four values at once: its sigmoid is 1 / (1 + 2^(a v + b))
// (docs/equations.md: folding).
template <typename T>
struct alignas(4 * sizeof(T)) Synapse {
  T a;   // -sigma log2(e)
  T b;   // sigma mu log2(e)
  T we;  // pos(w) erev
  T w;   // pos(w)
};

// Synapses in compressed columns: those onto neuron j are [column[j], column[j + 1]), with their
// presynaptic index in row[].
struct SynapseList {
  const int32_t* column = nullptr;  // [N + 1]
  const int32_t* row = nullptr;     // [column[N]]
};

// Synapses in the lists. Their last column pointers say the same, but where the lists lie on a
// device only that can read them.
struct LtcCounts {
  int64_t synapses = 0;
  int64_t sensory_synapses = 0;
};

template <typename T>
struct LtcInputs : SequenceInputs<T> {
  LtcParameters<T> parameters;
  SynapseList synapses;          // [N, N], of all networks, as the next
  SynapseList sensory_synapses;  // [I, N]
  // On a CPU: how many of the states between unfolds are kept for the backward pass, 1 or U; see
  // ltc_kept_unfolds.
  int64_t kept_unfolds = 1;
  // On a CPU, of floats: the sigmoids of synapses with less precision, see cpu/sigmoid.h.
  bool medium_sigmoid = false;
};

// Whether the sigmoids of a step's recurrent synapses fit into the second cache of a processor: 1
// MiB for four registers of 16 samples each. The synapses are those of all networks.
inline bool ltc_puts_sigmoids_by(const LayerSizes& size, int64_t synapses, int64_t nets = 1) {
  return synapses * size.U <= 4096 * nets;
}

// Unfolds whose states a CPU keeps of a step: the last, from which the backward pass repeats the
// others, or all. To repeat costs nothing where the sigmoids are put by; else they are evaluated
// twice, which takes 1.3 times as long and is done where the states of all unfolds would be more
// than 2^28 values (1 GiB of floats).
inline int64_t ltc_kept_unfolds(const LayerSizes& size, int64_t synapses, int64_t nets) {
  const double of_all = static_cast<double>(size.B) * static_cast<double>(size.T) *
                        static_cast<double>(size.N) * static_cast<double>(size.U);
  return ltc_puts_sigmoids_by(size, synapses, nets) || of_all > 0x1p28 ? 1 : size.U;
}

// `states` holds the first state and those that each step adds, [1 + T * kept, N] for every group
// of as many samples as a register has lanes, so that a group's history is one contiguous stream.
// Groups follow each other; the last may be narrower. Behind the last step of a group's longest
// sample stand zeros. A step adds the states after `kept_unfolds` of its unfolds; with mixed
// memory first what the memory cell makes of the state before, and behind a group's states stand
// the [T, 5N] values that the memory cell keeps. CUDA devices have layouts of their own (cuda/ltc.h):
// the states of all unfolds, and for the problems of ltc_keeps_rates as many rates.
template <typename T>
using LtcOutputs = SequenceOutputs<T>;

// The parameters' gradients, null where the parameter is null, are written in full but the dense
// [N, N] and [I, N] ones, which the caller has zeroed and of which only synapses are written.
template <typename T>
struct LtcGradients : SequenceGradients<T>, LtcTensors<T*> {};

}  // namespace fastltc
