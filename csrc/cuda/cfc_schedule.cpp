#include <algorithm>
#include <cstddef>

#include "cuda/cfc.h"
#include "cuda/cfc_sizes.h"

namespace fastltc::cuda {

namespace {

constexpr int64_t kMaxBlockWeights = 65536;
constexpr int64_t kMaxBlockStates = 48 << 10;
constexpr int64_t kMaxThreads = 512;
// Far more than any device runs at once.
constexpr int64_t kMaxBlocks = 1 << 20;

}  // namespace

template <typename T>
CfcSchedule cfc_schedule(const CfcInputs<T>& in, int64_t shared_limit) {
  CfcSchedule schedule;
  constexpr bool is_float64 = sizeof(T) == 8;
  std::vector<CfcStageSizes> stages = cfc_stages(in);
  const int64_t N = in.size.N;
  const bool remembers = in.memory.weight != nullptr;
  const bool few = static_cast<int64_t>(stages.size()) <= kCfcMaxStages;
  int64_t most_neighbours = 0;
  for (size_t s = 0; s < stages.size(); ++s) {
    most_neighbours =
        std::max(most_neighbours, stages[s].units + (s == 0 ? 0 : stages[s - 1].units));
  }
  if (few && N <= 32 && in.backbone_layers == 0 && !remembers && in.resets.data == nullptr &&
      most_neighbours <= (is_float64 ? 20 : 32)) {
    schedule.plan = CfcPlan::warp_per_sample;
    schedule.threads = 32;
    schedule.blocks = std::min(in.size.B, kMaxBlocks);
    schedule.slots = most_neighbours > 20 ? 32 : most_neighbours > 8 || is_float64 ? 20 : 8;
    return schedule;
  }
  if (remembers) stages.push_back(cfc_memory_stage(in));
  int64_t weights = 0, most_units = 0, most_values = 0, most_columns = 0;
  for (size_t s = 0; s < stages.size(); ++s) {
    const CfcStageSizes& stage = stages[s];
    const bool reads_x = s == 0 || (remembers && s + 1 == stages.size());
    const int64_t columns = stage.own + (reads_x ? 0 : stage.inputs);
    weights += (columns * stage.width() + 3) / 4 * 4;
    most_units = std::max(most_units, stage.units);
    most_values = std::max(most_values, stage.units * stage.gates);
    most_columns = std::max(most_columns, columns);
  }
  // Of either pass.
  const int64_t quads = std::max(4 * N + 2 * most_units, 3 * N + most_units + most_values);
  const int64_t bytes = quads * 4 * static_cast<int64_t>(sizeof(T));
  if (!few || weights > kMaxBlockWeights || bytes > kMaxBlockStates) return schedule;
  schedule.plan = CfcPlan::block_per_tile;
  schedule.blocks = std::min((in.size.B + 3) / 4, kMaxBlocks);
  const int64_t wanted = (4 * std::max(most_units, most_columns) + 31) / 32 * 32;
  schedule.threads = static_cast<int>(std::min(std::max<int64_t>(wanted, 64), kMaxThreads));
  schedule.weights_in_shared = bytes + weights * static_cast<int64_t>(sizeof(T)) <= shared_limit;
  return schedule;
}

template CfcSchedule cfc_schedule(const CfcInputs<float>&, int64_t);
template CfcSchedule cfc_schedule(const CfcInputs<double>&, int64_t);

}  // namespace fastltc::cuda
