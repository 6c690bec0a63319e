// The sparse masked product on CUDA devices: how a problem is run, and launches. No torch and no CUDA header. All pointers of a problem, the list of entries included,
// are to memory of the device; a stream is a cudaStream_t. Nothing here waits for the device.
#pragma once

#include <cstdint>

#include "core/masked_linear_problem.h"
#include "cuda/frame/scratch.h"

namespace fastltc::cuda {

// How the lanes of a warp are used; a function of the sizes alone.
struct MaskedLinearSchedule {
  int samples = 1;    // lanes that take samples, a power of two; the others share a row's entries
  int width = 1;      // neighbouring samples of a lane: 1, 2 or 4 (float64: 1 or 2)
  int64_t pitch = 0;  // samples that a row in scratch memory holds: a multiple of both
};

// Whole warps of samples, as many to a lane as one load fetches, as long as `rows` outputs (of the
// product that gives the gradient of x: inputs) still make some warps for every multiprocessor;
// with few rows a quarter of a warp.
MaskedLinearSchedule masked_linear_schedule(int64_t batch, int64_t rows, bool is_float64);

// y is [B, O] contiguous; `entries` is how many the list has. Where the list is not well formed
// (core/synapse_check.h) the outputs that it concerns, or the gradients of the inputs, become NaN,
// or a weight's gradient stays 0; no memory outside is touched. Throws std::runtime_error when a
// launch fails.
template <typename T>
void launch_masked_linear(const MaskedLinearSchedule& schedule, const MaskedLinear<T>& in,
                          int64_t entries, T* y, const Allocate& allocate, void* stream);
template <typename T>
void launch_masked_linear_backward(const MaskedLinearSchedule& schedule, const MaskedLinear<T>& in,
                                   int64_t entries, const MaskedLinearGradients<T>& grad,
                                   const Allocate& allocate, void* stream);

}  // namespace fastltc::cuda
