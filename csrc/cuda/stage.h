// A stage of a layer: the product of a packed weight with what the stage before it gives, or with
// x, and with a state, of which gates are made. CfC is a chain of them (cfc_layer.h); the memory
// cell of mixed memory is one in every layer that has it (memory.cuh).
//
// Layout: what belongs to rows (rows.h) is [row][unit][stride], a weight [column][unit][stride].
#pragma once

#include "cuda/frame/results.h"
#include "cuda/frame/rows.h"

namespace fastltc::cuda {

enum class StageRole : int { backbone, cell, memory };

template <typename T>
struct Stage {
  StageRole role = StageRole::cell;
  int units = 0;   // neurons, or units of the backbone
  int gates = 0;   // values of a unit: 1, 3 or 4
  int stride = 0;  // between units in what is packed: 1 or 4
  int inputs = 0;  // from the stage before, or x
  int own = 0;     // from the cell's own state
  int first = 0;   // the first neuron of the state that is the stage's own
  bool reads_x = false;
  T* weight = nullptr;      // [inputs + own][units][stride]
  T* bias = nullptr;        // [units][stride]
  T* transposed = nullptr;  // [units][columns][stride]; null: not wanted
  T* kept = nullptr;        // of row 0; null: not kept
  int kept_pitch = 0;       // between rows
  const T* w_tau = nullptr;
  const T* A = nullptr;
  SequenceView<const T> dropout;  // null: none
  T* dz = nullptr;                // [rows][units][stride], of the backward pass

  FASTLTC_DEVICE int64_t width() const { return static_cast<int64_t>(units) * stride; }
  // The products with x are taken for all rows at once; a step has the others.
  FASTLTC_DEVICE int skipped() const { return reads_x ? inputs : 0; }
  FASTLTC_DEVICE int columns() const { return inputs + own - skipped(); }
  FASTLTC_DEVICE const T* step_weight() const { return weight + skipped() * width(); }
};

// A stage's parameters as they are kept, or their gradients: for each gate the weights of what
// comes from the stage before and of the own state, [units, ...] with `pitch` between units, and
// the bias.
template <typename V>
struct StageTensors {
  V* from[4] = {};
  V* own[4] = {};
  V* bias[4] = {};
  int64_t from_pitch = 0;
  int64_t own_pitch = 0;
  int heads = 0;
};

// Of the memory cell (core/sequence.h).
template <typename V, typename Memory>
StageTensors<V> memory_tensors(const Memory& memory, int64_t inputs, int64_t neurons) {
  StageTensors<V> found;
  found.heads = 4;
  found.from_pitch = inputs;
  found.own_pitch = neurons;
  for (int64_t gate = 0; gate < 4; ++gate) {
    found.from[gate] = memory.weight + gate * neurons * inputs;
    found.own[gate] = memory.recurrent_weight + gate * neurons * neurons;
    found.bias[gate] = memory.bias + gate * neurons;
  }
  return found;
}

}  // namespace fastltc::cuda
