// States from one layout to another: those of the caller are [B, N] with any strides, those of
// kernels that run a step of all samples at once [N][B] or [B][N].
#pragma once

#include <utility>

#include "cuda/frame/launch.h"
#include "cuda/frame/results.h"

namespace fastltc::cuda {

template <typename T>
__global__ void state_copy_kernel(const SequenceView<const T> from, int64_t samples, int64_t count,
                                  const SequenceView<T> to) {
  const int64_t k = thread_index(), b = k % samples, j = k / samples;
  if (k < count) element(to, b, 0, j) = state_or_zero(from, b, j);
}

// Of B samples and N neurons; zeros where `from` is null.
template <typename T>
void copy_state(SequenceView<const T> from, SequenceView<T> to, int64_t B, int64_t N,
                cudaStream_t stream) {
  const int64_t count = B * N;
  // Neighbouring threads take what stands side by side.
  if (to.stride_c == 1 && (from.data == nullptr || from.stride_c == 1)) {
    std::swap(from.stride_b, from.stride_c);
    std::swap(to.stride_b, to.stride_c);
    std::swap(B, N);
  }
  launch_threads("state_copy", state_copy_kernel<T>, count, stream, from, B, count, to);
}

}  // namespace fastltc::cuda
