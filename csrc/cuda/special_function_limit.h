// The limit that benchmarks compare the LTC kernels with: their sigmoid on data in registers.
#pragma once

#include <cstdint>

namespace fastltc::cuda {

// Evaluations of one thread and repetition.
inline constexpr int kLimitSynapses = 8;

// Each of `threads` threads does what a kernel does for each synapse (a multiply-add, the sigmoid,
// two accumulations) for 8 synapses, `repeats` times, and writes the sum of both accumulators to
// sums [threads], memory of the device. Enough threads for every multiprocessor, and enough
// repetitions to outlast the launch, give a rate of evaluations that no kernel with this sigmoid
// can exceed on the device. `stream` is a cudaStream_t. Throws std::runtime_error when the launch
// fails.
void launch_special_function_limit(float* sums, int64_t threads, int64_t repeats, void* stream);

}  // namespace fastltc::cuda
