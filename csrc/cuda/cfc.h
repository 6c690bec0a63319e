// The CfC layer on CUDA devices: which plan a problem takes, and launches. No torch and no CUDA header. The arrays that a problem holds (cell sizes, pointers to
// parameters, masks and gradients, views of dropout) are the host's, all that they point to is the
// device's; a stream is a cudaStream_t. Nothing here waits for the device.
#pragma once

#include <cstdint>

#include "core/cfc_problem.h"
#include "cuda/frame/scratch.h"

namespace fastltc::cuda {

enum class CfcPlan {
  warp_per_sample,  // one warp runs a sample's whole sequence, the weights in registers
  block_per_tile,   // one block runs those of four samples
  tiled,            // a kernel for each stage of each step; any size
};

// How a problem is run: a function of its sizes and of the shared memory of the device, so that the
// same call takes the same way, and the backward pass the way of the forward pass.
struct CfcSchedule {
  CfcPlan plan = CfcPlan::tiled;
  int threads = 0;                 // of a block that runs samples
  int slots = 0;                   // with a warp per sample: weights of a gate in a lane
  bool weights_in_shared = false;  // with a block per tile; else it reads them from the caches
  int64_t blocks = 0;              // that run samples; each takes every blocks-th of them, or tile
};

// - A warp: cells without backbone, memory cell and resets, up to 32 neurons in all. `slots` is 8,
//   20 or 32, whichever holds the most neurons that two neighbouring cells have together
//   (AutoNCP(19, 2): 17); float64 has 20, or takes a block.
// - A block: up to 12 products in a step, up to 65536 weights, those of x not counted, and states
//   and activations of up to 48 KiB. The weights stand in shared memory where both fit into it, as
//   those of CfC(64) with 128 backbone units do from compute capability 9.0 on (168 of 227 KiB).
// - Else tiled: to split a step over the device is then worth its launches.
//
// `shared_limit`: bytes that a block may ask for (set_device.h).
template <typename T>
CfcSchedule cfc_schedule(const CfcInputs<T>& in, int64_t shared_limit);

// `states` are laid out as cuda/cfc_layer.h says, in all as many as cfc_problem.h has. Lengths
// outside of 0 to T count as the nearer of the two; a negative or NaN time step makes its sample
// NaN. Throws std::runtime_error when a launch fails.
template <typename T>
void launch_cfc_forward(const CfcSchedule& schedule, const CfcInputs<T>& in,
                        const CfcOutputs<T>& out, const Allocate& allocate, void* stream);
template <typename T>
void launch_cfc_backward(const CfcSchedule& schedule, const CfcInputs<T>& in,
                         const CfcGradients<T>& grad, const Allocate& allocate, void* stream);

}  // namespace fastltc::cuda
