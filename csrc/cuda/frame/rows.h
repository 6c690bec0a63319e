// Rows: pairs of a time step and a sample, r = t B + b, that kernels outside of the recurrence take
// all at once.
#pragma once

#include "core/sequence.h"
#include "cuda/frame/device.h"
#include "cuda/frame/results.h"

namespace fastltc::cuda {

// Inputs that any kernel may need, by row.
template <typename T>
struct SequenceRows {
  int64_t B = 0;
  int64_t steps = 0;
  int64_t count = 0;  // B * steps
  SequenceView<const T> timespans;
  bool timespans_per_neuron = false;
  const int64_t* lengths = nullptr;
  int64_t lengths_stride = 0;
  SequenceView<const bool> resets{};
  bool reset_to_zero = false;

  static SequenceRows of(const SequenceInputs<T>& in) {
    SequenceRows rows{
        in.size.B,  in.size.T,        in.size.B * in.size.T, in.timespans, in.timespans_per_neuron,
        in.lengths, in.lengths_stride};
    // To the state that a sample begins with in any case, none comes before a second step.
    if (in.size.T > (in.reset_to_zero ? 0 : 1)) rows.resets = in.resets;
    rows.reset_to_zero = in.reset_to_zero;
    return rows;
  }

  struct Place {
    int64_t b, t;
  };
  FASTLTC_DEVICE Place place(int64_t r) const {
    // A division of 64 bits takes four times as long.
    if (count <= 0xffffffff) {
      const uint32_t t = static_cast<uint32_t>(r) / static_cast<uint32_t>(B);
      return {static_cast<int64_t>(static_cast<uint32_t>(r) - t * static_cast<uint32_t>(B)), t};
    }
    return {r % B, r / B};
  }
  FASTLTC_DEVICE int64_t length(int64_t b) const {
    if (lengths == nullptr) return steps;
    const int64_t given = lengths[b * lengths_stride];
    return given < 0 ? 0 : given > steps ? steps : given;
  }
  // Whether sample b runs in step t; there may be no such sample.
  FASTLTC_DEVICE bool runs(int64_t b, int64_t t) const { return b < B && t < length(b); }
  // Whether there can be a reset before step t.
  FASTLTC_DEVICE bool may_begin_anew(int64_t t) const {
    return resets.data != nullptr && (t > 0 || reset_to_zero);
  }
  // Whether a reset gives the sample its initial state, or zeros, before step t, in which it runs.
  // Before its first step it has the initial one anyway.
  FASTLTC_DEVICE bool begins_anew(int64_t b, int64_t t) const {
    return may_begin_anew(t) && t < length(b) &&
           resets.data[b * resets.stride_b + t * resets.stride_t];
  }
  FASTLTC_DEVICE T step(int64_t b, int64_t t, int j) const {
    if (timespans.data == nullptr) return T(1);
    const int64_t channel = timespans_per_neuron ? j * timespans.stride_c : 0;
    const T dt = timespans.data[b * timespans.stride_b + t * timespans.stride_t + channel];
    // The host cannot refuse what it does not see: better NaN than a plausible result.
    if (!(dt >= T(0))) return T(NAN);
    return dt > kLongestStep<T> ? kLongestStep<T> : dt;
  }
};

}  // namespace fastltc::cuda
