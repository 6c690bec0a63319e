#include <algorithm>

#include "cuda/ltc.h"

namespace fastltc::cuda {

namespace {

constexpr int kMaxThreads = 512;
constexpr int64_t kMaxWarpSynapses = 384;
constexpr int64_t kMaxBlockSynapses = 4096;
// More blocks than any device runs at once; each leaves its own sums of the synapses.
constexpr int64_t kMaxWarps = 1024;
constexpr int64_t kMaxBlocks = 256;

}  // namespace

LtcSchedule ltc_schedule(const LayerSizes& size, const LtcCounts& counts, bool is_float64) {
  LtcSchedule schedule;
  const int64_t synapses = counts.synapses;
  if (size.N <= 32 && synapses <= kMaxWarpSynapses) {
    schedule.plan = LtcPlan::warp_per_sample;
    schedule.threads = 32;
    schedule.slots = synapses <= 96 || is_float64 ? 4 : synapses <= 192 ? 8 : 12;
    schedule.blocks = std::min(size.B, kMaxWarps);
  } else if (size.N <= kMaxThreads && synapses <= kMaxBlockSynapses) {
    schedule.plan = LtcPlan::block_per_sample;
    schedule.slots = is_float64 ? 2 : 8;
    const int64_t each = 2 * synapses > size.N * size.N ? 8 : 4;
    schedule.threads = 64;
    while (schedule.threads < kMaxThreads &&
           (schedule.threads < size.N || schedule.threads * each < synapses)) {
      schedule.threads *= 2;
    }
    schedule.blocks = std::min(size.B, kMaxBlocks);
  }
  return schedule;
}

LtcStateStrides ltc_state_strides(const LtcSchedule& schedule, const LayerSizes& size) {
  if (schedule.plan == LtcPlan::tiled) return {1, size.N * size.B, size.B};
  return {(size.T * size.U + 1) * size.N, size.N, 1};
}

}  // namespace fastltc::cuda
