// One CfC layer over a batch of sequences: a chain of cells (wired), or one cell, with or without a
// backbone. Plain data only, see sequence.h.
#pragma once

#include <cstdint>

#include "core/sequence.h"

namespace fastltc {

enum class CfcMode : int { gated = 0, no_gate = 1, pure = 2 };
enum class Activation : int { lecun_tanh = 0, silu = 1, relu = 2, tanh = 3, gelu = 4 };

template <typename T>
struct CfcInputs : SequenceInputs<T> {
  // size.N is the sum over the cells; the outputs are the last size.M of these neurons. Sizes of
  // cells and backbone, and the masks, are those of one network; factors of dropout are each one's.
  int64_t cells = 0;
  const int64_t* cell_sizes = nullptr;  // [cells]
  int64_t backbone_layers = 0;          // more than 0 only with one cell
  int64_t backbone_units = 0;
  CfcMode mode = CfcMode::gated;
  Activation activation = Activation::lecun_tanh;
  // Backbone (weight, bias) for each layer, then for each cell ff1, ff2, time_a, time_b (weight,
  // bias each), or in pure mode ff1 weight and bias, w_tau, A. Weights are [out, in], contiguous.
  const T* const* parameters = nullptr;
  // For each cell [size, inputs + size], of 0 and 1, for ff1 and ff2; null: all ones.
  const T* const* masks = nullptr;
  // Factors on the activations of backbone layers 1 and up, [backbone_layers - 1]; null: none.
  const SequenceView<const T>* dropout = nullptr;
};

// `states` holds, for every group of as many samples as a register has lanes, [T + 1, N] states,
// then [T, gates * N + backbone_layers * backbone_units]: each neuron's gates (pure: ff1; else
// tanh(ff1), tanh(ff2), the interpolation and, with time steps, time_a), then what goes into the
// backbone's activations; then, with mixed memory, the [T, 5N] values that the memory cell keeps.
// Groups follow each other; the last may be narrower. Behind the last step of a group's longest
// sample stand zeros.
template <typename T>
using CfcOutputs = SequenceOutputs<T>;

template <typename T>
struct CfcGradients : SequenceGradients<T> {
  T* const* parameters = nullptr;
};

}  // namespace fastltc
