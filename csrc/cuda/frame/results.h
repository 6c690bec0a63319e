// What the recurrent kernels of every layer write, and what they go back from.
#pragma once

#include "core/sequence.h"
#include "cuda/frame/device.h"

namespace fastltc::cuda {

// Where sample b, step t and channel c stand. States have no steps.
template <typename V>
FASTLTC_DEVICE V& element(const SequenceView<V>& view, int64_t b, int64_t t, int64_t c) {
  return view.data[b * view.stride_b + t * view.stride_t + c * view.stride_c];
}
template <typename T>
FASTLTC_DEVICE T state_or_zero(const SequenceView<const T>& state, int64_t b, int64_t j) {
  return state.data == nullptr ? T(0) : state.data[b * state.stride_b + j * state.stride_c];
}

template <typename T>
struct Results {
  SequenceView<T> output;
  bool return_sequences = true;
  T* hn = nullptr;
  T* states = nullptr;  // null: not kept

  template <typename Outputs>
  static Results of(const Outputs& out) {
    return {out.output, out.return_sequences, out.hn, out.states};
  }
};

template <typename T>
struct Wanted {
  SequenceView<const T> grad_output;  // null: zeros
  bool return_sequences = true;
  SequenceView<const T> grad_hn;  // null: zeros
  const T* states = nullptr;
  T* grad_h0 = nullptr;  // null: not wanted

  template <typename Gradients>
  static Wanted of(const Gradients& grad) {
    return {grad.grad_output, grad.return_sequences, grad.grad_hn, grad.states, grad.h0};
  }
  // Whether each step's output has a gradient, or the last one's.
  FASTLTC_DEVICE bool of_steps() const { return grad_output.data != nullptr && return_sequences; }
  FASTLTC_DEVICE bool of_last() const { return grad_output.data != nullptr && !return_sequences; }
};

}  // namespace fastltc::cuda
