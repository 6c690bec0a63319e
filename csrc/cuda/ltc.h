// The LTC layer on CUDA devices: which plan a problem takes, and launches. No torch and no CUDA header. All pointers of a problem, the synapse lists included, are
// to memory of the device; a stream is a cudaStream_t. Nothing here waits for the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/ltc_problem.h"
#include "cuda/frame/scratch.h"

namespace fastltc::cuda {

enum class LtcPlan {
  warp_per_sample,   // one warp runs a sample's whole sequence, its synapses in registers
  block_per_sample,  // one block does; at most 4096 synapses
  cluster_per_tile,  // a thread-block cluster does for a tile of samples; dense, up to 256 neurons
  tiled,             // a kernel for each unfold; any size
};

// What the plan with clusters asks of a device. The default has none.
struct LtcDevice {
  int cluster_blocks = 1;   // most blocks of a cluster that it runs with that much shared memory
  size_t shared_bytes = 0;  // that a block may ask for
  // Clusters of 1, 2, 4 and 8 blocks that it runs at once: what 132 multiprocessors have.
  int clusters[4] = {128, 64, 32, 16};
};
// Of a CUDA device; asked once and kept. Throws std::runtime_error.
LtcDevice ltc_device(int index);

// How a problem is run: a function of its sizes and the device alone, so that the same call takes
// the same way, and the backward pass reads the states in the layout that the forward pass wrote.
struct LtcSchedule {
  LtcPlan plan = LtcPlan::tiled;
  int threads = 0;     // of a block that runs samples; at least N; 32 with a warp per sample
  int slots = 0;       // synapses that a thread keeps in registers; it reads the rest from memory
  int64_t blocks = 0;  // of the backward pass, for each layer; each takes every blocks-th sample
  int cluster = 1;     // blocks of a cluster; `blocks` then counts clusters, also forward
  int samples = 0;     // of a cluster's tile: 4, 8 or 16
};

// - A warp: up to 32 neurons and 384 synapses. Each driven neuron gets as many of the lanes as
//   there are for it, a power of two; 4, 8 or 12 slots for each lane.
// - A block: up to 512 neurons and 4096 synapses, as FullyConnected(64) has: 8 slots for each
//   thread (4 where less than half of the matrix is there, because neurons then differ in their
//   number).
// - A cluster of 4 or 8 blocks, if the device has it: what ltc_keeps_rates says, where 32 neurons
//   for each block and the shared memory suffice. Tiles of as few samples as give work to all
//   clusters that the device runs at once, at most 16.
// - Else tiled: the parameters do not fit into a block's registers.
//
// float64 takes the same plans with 4 slots (2 in a block): its values take two registers. It never
// takes clusters, whose shared memory it would need twice; neither do mixed memory and resets.
// Several layers beside each other (`nets` of them; sizes and counts are those of all together)
// take the plan of one with the mean number of synapses, and a warp or block runs a sample of one
// layer. Which of them has more is not known here: a block takes those that have at most 4096 in
// any case. They take no clusters. With resets neither they nor mixed memory take blocks.
LtcSchedule ltc_schedule(const LayerSizes& size, const LtcCounts& counts, bool is_float64,
                         const LtcDevice& device = {}, int64_t nets = 1, bool memory = false,
                         bool resets = false);

// Problems that take clusters where a device has them: float32, up to 256 neurons, more than 4096
// synapses and at least a quarter of the matrix, all of which that plan evaluates; one layer
// without mixed memory. Where it is so, LtcOutputs::states has the rates [T * U, N, B] behind its
// states, on every device.
bool ltc_keeps_rates(const LayerSizes& size, const LtcCounts& counts, bool is_float64);

// The most synapses that one of the layers may have.
int64_t ltc_layer_synapses(const LayerSizes& size, const LtcCounts& counts, int64_t nets);

// Where a state stands in LtcOutputs::states: b * sample + index * step + j * neuron, with index 0
// for the initial state. A step adds U states, or with mixed memory U + 1, the first of which goes
// into its cell.
struct LtcStateStrides {
  int64_t sample = 0;
  int64_t step = 0;
  int64_t neuron = 0;
};
LtcStateStrides ltc_state_strides(const LtcSchedule& schedule, const LayerSizes& size, bool memory);

// The gradients of dense parameters are written in full, too. Lengths outside of 0 to T count as
// the nearer of the two. Where a synapse list is not well formed (core/synapse_check.h), the
// neurons that it concerns become NaN; no memory outside is touched. Throws std::runtime_error when
// a launch fails.
template <typename T>
void launch_ltc_forward(const LtcSchedule& schedule, const LtcInputs<T>& in,
                        const LtcCounts& counts, const LtcOutputs<T>& out, const Allocate& allocate,
                        void* stream);
template <typename T>
void launch_ltc_backward(const LtcSchedule& schedule, const LtcInputs<T>& in,
                         const LtcCounts& counts, const LtcGradients<T>& grad,
                         const Allocate& allocate, void* stream);

}  // namespace fastltc::cuda
