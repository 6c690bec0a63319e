// What all sequence operators have in common: sizes, views of tensors, and the inputs of a batch of
// sequences.
//
// Plain data only: this header is included by sources compiled for different instruction sets, and
// an inline function here could be merged by the linker with a copy that the processor cannot run.
#pragma once

#include <cstdint>

namespace fastltc {

// B samples, T time steps, I inputs, N neurons, M outputs, U solver unfolds per step (1 for CfC).
struct LayerSizes {
  int64_t B = 0;
  int64_t T = 0;
  int64_t I = 0;
  int64_t N = 0;
  int64_t M = 0;
  int64_t U = 1;
};

// A [B, T, C] view; strides in elements, zero for an expanded dimension.
template <typename T>
struct SequenceView {
  T* data = nullptr;  // null: absent
  int64_t stride_b = 0;
  int64_t stride_t = 0;
  int64_t stride_c = 0;
};

// The LSTM cell of a layer with mixed memory. Rows of its weights: N of the activation, then of the
// input, forget and output gate.
template <typename T>
struct MemoryParameters {
  const T* weight = nullptr;            // [4N, I] contiguous; null: no memory
  const T* bias = nullptr;              // [4N]
  const T* recurrent_weight = nullptr;  // [4N, N]
};
template <typename T>
struct MemoryGradients {
  T* weight = nullptr;
  T* bias = nullptr;
  T* recurrent_weight = nullptr;
};

// Values that the cell keeps of a neuron and step for the backward pass: its four gates as
// activated, and the memory after it.
inline constexpr int64_t kMemoryRows = 5;

// With mixed memory a layer's state is [B, 2N], that of the liquid cell and then the memory; else
// [B, N]. The same holds for hn and for the gradients of both.
template <typename T>
struct SequenceInputs {
  LayerSizes size;
  SequenceView<const T> x;          // [B, T, I]
  SequenceView<const T> h0;         // [B, state] with stride_c between neurons; null: zeros
  SequenceView<const T> timespans;  // [B, T] (stride_c = 0) or [B, T, N]; null: 1
  bool timespans_per_neuron = false;
  const int64_t* lengths = nullptr;  // valid steps of each sample; null: T
  int64_t lengths_stride = 0;
  // [B, T]: before which steps a sample's state, with its memory, is set to that of h0, or to zeros;
  // null: none.
  SequenceView<const bool> resets;
  bool reset_to_zero = false;
  MemoryParameters<T> memory;
  // More than 1: as many networks of one shape beside each other, with nothing between them, which
  // share batch and time. N, I and M count all of them, one network after another; the parameters
  // are stacked, so that a matrix is [nets, N / nets, I / nets]. Without memory.
  int64_t nets = 1;
  // Of a part of them, which has the sizes of one: the first, and how many networks' states a row
  // of hn and of the gradient of h0 has.
  int64_t net = 0;
  int64_t beside = 1;

  // What resets set a state to, as h0.
  SequenceView<const T> reset_state() const { return reset_to_zero ? SequenceView<const T>() : h0; }
};

template <typename T>
struct SequenceOutputs {
  SequenceView<T> output;  // [B, T, M], or [B, M] (stride_t unused) when not return_sequences
  bool return_sequences = true;
  T* hn = nullptr;      // [B, state]
  T* states = nullptr;  // what the backward pass needs of the forward one; null: not kept
};

template <typename T>
struct SequenceGradients {
  // Given.
  SequenceView<const T> grad_output;  // as SequenceOutputs::output; null: zeros
  bool return_sequences = true;
  SequenceView<const T> grad_hn;  // [B, state]; null: zeros
  const T* states = nullptr;
  // Written in full, each as large as what it is the gradient of.
  SequenceView<T> x;
  T* h0 = nullptr;            // [B, state]; null: not wanted
  SequenceView<T> timespans;  // contiguous; null: not wanted
  MemoryGradients<T> memory;  // null where the parameters are
};

// Longer time steps count as this one, the root of the largest value: products of a step with what
// a layer computes stay finite, and what is left out of the limit is below rounding.
template <typename T>
inline constexpr T kLongestStep;
template <>
inline constexpr float kLongestStep<float> = 0x1p64f;
template <>
inline constexpr double kLongestStep<double> = 0x1p512;

// Mapped inputs of an LTC beyond these, infinite ones too, count as these: the sigmoids of synapses
// are at their ends long before, and infinity times the slope 0 of a missing synapse would be NaN.
template <typename T>
inline constexpr T kLargestInput;
template <>
inline constexpr float kLargestInput<float> = 0x1p96f;
template <>
inline constexpr double kLargestInput<double> = 0x1p768;

// Runs body(context, i) for i in [0, n), in any order and possibly at once on several threads.
struct Parallel {
  int threads = 1;
  void (*run)(int64_t n, void (*body)(void* context, int64_t i), void* context) = nullptr;
};

}  // namespace fastltc
