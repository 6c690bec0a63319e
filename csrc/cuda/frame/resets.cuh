// Where resets bring the initial state back, or zeros, for kernels that run a step of all samples at once,
// and for what is done for all rows after the recurrence. What is kept of a step is the state after
// it, whether or not a reset follows.
#pragma once

#include "cuda/frame/launch.h"
#include "cuda/frame/results.h"
#include "cuda/frame/rows.h"

namespace fastltc::cuda {

// `to` is the state with which each sample begins step t: `from`, or its initial one, null for
// zeros. A thread for each neuron and sample.
template <typename T>
__global__ void begin_step_kernel(const SequenceRows<T> rows, int64_t t, int64_t count,
                                  const SequenceView<const T> initial,
                                  const SequenceView<const T> from, const SequenceView<T> to) {
  const int64_t k = thread_index(), b = k % rows.B, j = k / rows.B;
  if (k >= count) return;
  element(to, b, 0, j) =
      rows.begins_anew(b, t) ? state_or_zero(initial, b, j) : element(from, b, 0, j);
}

// The gradient of that state goes to the initial one, where the sample began with it, and is zero
// for the one before. All began step 0 with it, but for resets to zeros.
template <typename T>
__global__ void begin_step_gradient_kernel(const SequenceRows<T> rows, int64_t t, int64_t count,
                                           const SequenceView<T> g,
                                           const SequenceView<T> grad_initial) {
  const int64_t k = thread_index(), b = k % rows.B, j = k / rows.B;
  if (k >= count) return;
  const bool anew = rows.begins_anew(b, t);
  if (t > 0 && !anew) return;
  T& value = element(g, b, 0, j);
  const bool to_initial = grad_initial.data != nullptr && !(anew && rows.reset_to_zero);
  if (to_initial) element(grad_initial, b, 0, j) += value;
  value = T(0);
}

// The states with which all steps begin, [B, T, N], from those before them. A thread for each
// neuron and row; entries of `to` that are those of `from` are not written where it is `in_place`.
template <typename T>
__global__ void begin_rows_kernel(const SequenceRows<T> rows, int64_t count,
                                  const SequenceView<const T> initial,
                                  const SequenceView<const T> from, bool in_place,
                                  const SequenceView<T> to) {
  const int64_t k = thread_index(), r = k % rows.count, j = k / rows.count;
  if (k >= count) return;
  const auto [b, t] = rows.place(r);
  if (rows.begins_anew(b, t)) {
    element(to, b, t, j) = state_or_zero(initial, b, j);
  } else if (!in_place) {
    element(to, b, t, j) = t < rows.length(b) ? element(from, b, t, j) : T(0);
  }
}

// Of the liquid cell's states, or of the memories, which stand behind them.
template <typename T>
struct Resets {
  SequenceRows<T> rows{};
  SequenceView<const T> initial{};  // to which they set; null: zeros
  int64_t neurons = 0;
  cudaStream_t stream = nullptr;

  bool present() const { return rows.resets.data != nullptr; }
  // Each of these only where they are present.
  void begin_step(int64_t t, const SequenceView<const T>& from, const SequenceView<T>& to) const {
    const int64_t count = neurons * rows.B;
    launch_threads("begin_step", begin_step_kernel<T>, count, stream, rows, t, count, initial, from,
                   to);
  }
  void begin_step_gradient(int64_t t, const SequenceView<T>& g,
                           const SequenceView<T>& grad_initial) const {
    const int64_t count = neurons * rows.B;
    launch_threads("begin_step_gradient", begin_step_gradient_kernel<T>, count, stream, rows, t,
                   count, g, grad_initial);
  }
  void begin_rows(const SequenceView<const T>& from, bool in_place,
                  const SequenceView<T>& to) const {
    const int64_t count = neurons * rows.count;
    launch_threads("begin_rows", begin_rows_kernel<T>, count, stream, rows, count, initial, from,
                   in_place, to);
  }
};

// What is added to by resets, before it is.
template <typename T>
void clear_gradient(T* grad_h0, int64_t count, cudaStream_t stream) {
  if (grad_h0 == nullptr || count == 0) return;
  check(cudaMemsetAsync(grad_h0, 0, sizeof(T) * static_cast<size_t>(count), stream), "memset");
}

}  // namespace fastltc::cuda
