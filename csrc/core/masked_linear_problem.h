// y = x (W * mask)^T + b by the list of the mask's ones. Plain data only, see sequence.h.
#pragma once

#include <cstdint>

#include "core/sequence.h"

namespace fastltc {

template <typename T>
struct MaskedLinear {
  int64_t B = 0;         // samples
  int64_t I = 0;         // inputs
  int64_t O = 0;         // outputs
  const T* x = nullptr;  // [B, I], stride_x between samples, inputs contiguous
  int64_t stride_x = 0;
  const T* weight = nullptr;  // [O, I] contiguous; entries off the list are never read
  const T* bias = nullptr;    // [O]; null: none
  // Inputs of output o: index[first[o]] to index[first[o + 1] - 1], ascending.
  const int32_t* first = nullptr;  // [O + 1]
  const int32_t* index = nullptr;
};

template <typename T>
struct MaskedLinearGradients {
  const T* grad = nullptr;  // [B, O], stride between samples, outputs contiguous
  int64_t stride = 0;
  T* x = nullptr;       // [B, I] contiguous, written in full
  T* weight = nullptr;  // [O, I] zeroed by the caller; entries of the list are written
  T* bias = nullptr;    // [O]; null: not wanted
};

}  // namespace fastltc
