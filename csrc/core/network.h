// A trained network for inference: layers in the order in which they run. Plain data only, see
// sequence.h.
#pragma once

#include <cstdint>

#include "core/cfc_problem.h"
#include "core/ltc_problem.h"

namespace fastltc {

enum class LayerType : int { ltc, cfc, linear, function };

// The first five are those of Activation, by value.
enum class Function : int {
  lecun_tanh = 0,
  silu = 1,
  relu = 2,
  tanh = 3,
  gelu = 4,
  sigmoid = 5,
  softplus = 6,
  softmax = 7,  // over all values; the others take each value by itself
};

struct NetworkLayer {
  LayerType type = LayerType::linear;
  int64_t inputs = 0;
  int64_t outputs = 0;
  // Of both, batch, time steps, memory and everything that belongs to a sequence stay unset.
  LtcInputs<float> ltc;
  CfcInputs<float> cfc;
  MemoryParameters<float> memory;  // null: no mixed memory
  const float* weight = nullptr;   // linear: [outputs, inputs]
  const float* bias = nullptr;     // linear: [outputs]; null: none
  Function function = Function::relu;
};

struct Network {
  const NetworkLayer* layers = nullptr;
  int64_t count = 0;            // at least 1
  bool medium_sigmoid = false;  // as LtcInputs has it, of all layers
};

}  // namespace fastltc
