// y = x (W * mask)^T + b by the list of the mask's ones, its entries. Plain data only, see
// sequence.h.
#pragma once

#include <cstdint>

#include "core/sequence.h"

namespace fastltc {

// The entries of a mask [O, I] by outputs, and again by inputs.
struct MaskEntries {
  // Inputs of output o: input[first[o]] to input[first[o + 1] - 1], ascending.
  const int32_t* first = nullptr;  // [O + 1]
  const int32_t* input = nullptr;
  // Outputs of input i: output[first_of_input[i]] and so on, ascending; `place` says where the same
  // entry stands in the order of the outputs.
  const int32_t* first_of_input = nullptr;  // [I + 1]
  const int32_t* output = nullptr;
  const int32_t* place = nullptr;
};

template <typename T>
struct MaskedLinear {
  int64_t B = 0;         // samples
  int64_t I = 0;         // inputs
  int64_t O = 0;         // outputs
  const T* x = nullptr;  // [B, I], stride_x between samples, inputs contiguous
  int64_t stride_x = 0;
  const T* weight = nullptr;  // [O, I] contiguous; what is off the list is never read
  const T* bias = nullptr;    // [O]; null: none
  MaskEntries entries;
};

template <typename T>
struct MaskedLinearGradients {
  const T* grad = nullptr;  // [B, O], stride between samples, outputs contiguous
  int64_t stride = 0;
  T* x = nullptr;       // [B, I] contiguous, written in full
  T* weight = nullptr;  // [O, I] contiguous, written in full
  T* bias = nullptr;    // [O]; null: not wanted
};

}  // namespace fastltc
