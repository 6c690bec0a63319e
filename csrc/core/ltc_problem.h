// One LTC layer over one sequence batch: sizes, strides and pointers, for every device.
//
// Plain data only: this header is included by sources compiled for different instruction sets, and
// an inline function here could be merged by the linker with a copy that the processor cannot run.
#pragma once

#include <cstdint>

#include "core/sequence.h"

namespace fastltc {

// The layer's parameters, dense and contiguous as ncps keeps them. Entries outside the synapse
// lists are never read.
template <typename T>
struct LtcParameters {
  const T* gleak = nullptr;          // [N]
  const T* vleak = nullptr;          // [N]
  const T* cm = nullptr;             // [N]
  const T* sigma = nullptr;          // [N, N], presynaptic first
  const T* mu = nullptr;             // [N, N]
  const T* w = nullptr;              // [N, N]
  const T* erev = nullptr;           // [N, N]
  const T* sensory_sigma = nullptr;  // [I, N]
  const T* sensory_mu = nullptr;     // [I, N]
  const T* sensory_w = nullptr;      // [I, N]
  const T* sensory_erev = nullptr;   // [I, N]
  const T* input_w = nullptr;        // [I]; null: the inputs are not scaled
  const T* input_b = nullptr;        // [I]; null: nothing is added
  const T* output_w = nullptr;       // [M]; null: the outputs are not scaled
  const T* output_b = nullptr;       // [M]; null: nothing is added
  double epsilon = 0;                // added to the denominator
  bool softplus = false;             // w, sensory_w, cm and gleak pass through softplus
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
  SynapseList synapses;          // [N, N]
  SynapseList sensory_synapses;  // [I, N]
  // More than 1: as many layers of one shape beside each other, which share batch and time and have
  // no synapses between them. N, I and M count all of them, one layer after another; the
  // parameters are stacked, so that a matrix is [nets, N / nets, N / nets] or
  // [nets, I / nets, N / nets], and the synapse lists have all layers' neurons. Without memory.
  int64_t nets = 1;
};

// `states` holds the state before every unfold and the last one, [T * U + 1, N] for every group of
// as many samples as a register has lanes, so that a group's history is one contiguous stream.
// Groups follow each other; the last may be narrower. Behind the last step of a group's longest
// sample stand zeros. In all (T * U + 1) * N * B values. With mixed
// memory a step adds U + 1 states, of which the first goes into the memory cell, and behind a
// group's states stand the [T, 5N] values that the memory cell keeps: in all
// (T * (U + 6) + 1) * N * B. CUDA devices have layouts of their own (cuda/ltc.h) of the same size,
// but for the problems of ltc_keeps_rates, whose rates [T * U, N, B] are added.
template <typename T>
using LtcOutputs = SequenceOutputs<T>;

// The parameters' gradients are written in full but the dense [N, N] and [I, N] ones, which the
// caller has zeroed and of which only synapses are written.
template <typename T>
struct LtcGradients : SequenceGradients<T> {
  T* gleak = nullptr;
  T* vleak = nullptr;
  T* cm = nullptr;
  T* sigma = nullptr;
  T* mu = nullptr;
  T* w = nullptr;
  T* erev = nullptr;
  T* sensory_sigma = nullptr;
  T* sensory_mu = nullptr;
  T* sensory_w = nullptr;
  T* sensory_erev = nullptr;
  T* input_w = nullptr;  // null where the parameter is null
  T* input_b = nullptr;
  T* output_w = nullptr;
  T* output_b = nullptr;
};

}  // namespace fastltc
