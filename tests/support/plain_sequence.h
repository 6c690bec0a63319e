// What the plain loops of all cells read alike of a sequence, in float64.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/sequence.h"

namespace fastltc::test {

using Values = std::vector<double>;

inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

inline int64_t length_of(const SequenceInputs<double>& in, int64_t b) {
  return in.lengths == nullptr ? in.size.T : in.lengths[b * in.lengths_stride];
}
inline double read(const SequenceView<const double>& view, int64_t b, int64_t t, int64_t c) {
  return view.data[b * view.stride_b + t * view.stride_t + c * view.stride_c];
}
inline double& at(const SequenceView<double>& view, int64_t b, int64_t t, int64_t c) {
  return view.data[b * view.stride_b + t * view.stride_t + c * view.stride_c];
}
inline bool begins_anew(const SequenceInputs<double>& in, int64_t b, int64_t t) {
  const SequenceView<const bool>& resets = in.resets;
  return resets.data != nullptr && resets.data[b * resets.stride_b + t * resets.stride_t];
}
inline double time_step(const SequenceInputs<double>& in, int64_t b, int64_t t, int64_t j) {
  if (in.timespans.data == nullptr) return 1.0;
  return read(in.timespans, b, t, in.timespans_per_neuron ? j : 0);
}

}  // namespace fastltc::test
