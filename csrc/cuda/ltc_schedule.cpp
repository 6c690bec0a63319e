#include <algorithm>

#include "cuda/ltc.h"
#include "cuda/ltc_cluster_sizes.h"

namespace fastltc::cuda {

namespace {

constexpr int kMaxThreads = 512;
constexpr int64_t kMaxWarpSynapses = 384;
constexpr int64_t kMaxBlockSynapses = 4096;
// More blocks than any device runs at once, of all layers; each leaves its own sums of the
// synapses.
constexpr int64_t kMaxWarps = 1024;
constexpr int64_t kMaxBlocks = 256;

bool set_clusters(LtcSchedule& schedule, const LayerSizes& size, const LtcDevice& device) {
  for (int n = 1; n <= 3 && 1 << n <= device.cluster_blocks; ++n) {
    const int cluster = 1 << n;
    if (cluster_posts(size.N, cluster) > kClusterPosts) continue;
    const int64_t clusters = std::max(device.clusters[n], 1);
    int samples = 4;
    while (samples < 16 && (size.B + samples - 1) / samples > clusters) samples *= 2;
    if (std::max(cluster_forward_shared(size.N, samples),
                 cluster_backward_shared(size.N, cluster, samples)) > device.shared_bytes) {
      continue;
    }
    schedule.plan = LtcPlan::cluster_per_tile;
    schedule.threads = kClusterThreads;
    schedule.cluster = cluster;
    schedule.samples = samples;
    schedule.blocks = std::min((size.B + samples - 1) / samples, clusters);
    return true;
  }
  return false;
}

}  // namespace

bool ltc_keeps_rates(const LayerSizes& size, const LtcCounts& counts, bool is_float64) {
  return !is_float64 && size.N <= kClusterNeurons && counts.synapses > kMaxBlockSynapses &&
         4 * counts.synapses >= size.N * size.N;
}

int64_t ltc_layer_synapses(const LayerSizes& size, const LtcCounts& counts, int64_t nets) {
  const int64_t neurons = size.N / nets;
  return nets == 1 ? counts.synapses : std::min(neurons * neurons, counts.synapses);
}

LtcSchedule ltc_schedule(const LayerSizes& size, const LtcCounts& counts, bool is_float64,
                         const LtcDevice& device, int64_t nets, bool memory, bool resets) {
  LtcSchedule schedule;
  const int64_t neurons = size.N / nets, synapses = (counts.synapses + nets - 1) / nets;
  const auto blocks = [&](int64_t most) {
    return std::min(size.B, std::max<int64_t>(1, most / nets));
  };
  if (neurons <= 32 && synapses <= kMaxWarpSynapses) {
    schedule.plan = LtcPlan::warp_per_sample;
    schedule.threads = 32;
    schedule.slots = synapses <= 96 || is_float64 ? 4 : synapses <= 192 ? 8 : 12;
    schedule.blocks = blocks(kMaxWarps);
  } else if (neurons <= kMaxThreads && !(resets && (nets > 1 || memory)) &&
             ltc_layer_synapses(size, counts, nets) <= kMaxBlockSynapses) {
    schedule.plan = LtcPlan::block_per_sample;
    schedule.slots = is_float64 ? 2 : 8;
    const int64_t each = 2 * synapses > neurons * neurons ? 8 : 4;
    schedule.threads = 64;
    while (schedule.threads < kMaxThreads &&
           (schedule.threads < neurons || schedule.threads * each < synapses)) {
      schedule.threads *= 2;
    }
    schedule.blocks = blocks(kMaxBlocks);
  } else if (nets == 1 && !memory && !resets && ltc_keeps_rates(size, counts, is_float64)) {
    set_clusters(schedule, size, device);
  }
  return schedule;
}

LtcStateStrides ltc_state_strides(const LtcSchedule& schedule, const LayerSizes& size,
                                  bool memory) {
  if (schedule.plan == LtcPlan::tiled || schedule.plan == LtcPlan::cluster_per_tile)
    return {1, size.N * size.B, size.B};
  // A memory cell adds a state and five kept values.
  const int64_t of_step = size.U + (memory ? 6 : 0);
  return {(size.T * of_step + 1) * size.N, size.N, 1};
}

}  // namespace fastltc::cuda
