// Launches of what a layer's stages need besides the recurrence (stage_rows.cuh), and where it lies
// in the scratch memory of a call.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/frame/launch.h"
#include "cuda/frame/scratch.h"
#include "cuda/stage_rows.cuh"

namespace fastltc::cuda {

// A block for each tile of a product.
template <typename... P, typename... A>
void launch_tiles(const char* name, void (*kernel)(P...), int64_t m, int64_t n, cudaStream_t stream,
                  const A&... arguments) {
  launch(name, kernel, grid(ceil_div(m, kTileSide), ceil_div(n, kTileSide)), kBlockThreads, 0,
         stream, arguments...);
}

template <typename T>
struct StagePass {
  InputsOfRows<T> x{};
  cudaStream_t stream = nullptr;
  std::vector<Stage<T>> stages{};
  std::vector<StageTensors<const T>> tensors{};
  std::vector<const T*> masks{};
  // Of the backward pass.
  int64_t part_count = 1;
  std::vector<T*> parts{};

  int64_t size() const { return static_cast<int64_t>(stages.size()); }

  static int64_t tiles(const Stage<T>& stage) {
    return ceil_div(stage.inputs + stage.own + 1, kTileSide) * ceil_div(stage.width(), kTileSide);
  }
  static int64_t values(const Stage<T>& stage) {
    return (stage.inputs + stage.own + 1) * stage.width();
  }

  // Room for the stage's packed weights, and for the transposed ones of a step.
  void add(Scratch& scratch, Stage<T> stage, const StageTensors<const T>& given, const T* mask,
           bool transposed) {
    stage.weight = scratch.take<T>((stage.inputs + stage.own) * stage.width());
    stage.bias = scratch.take<T>(stage.width());
    if (transposed) stage.transposed = scratch.take<T>(stage.columns() * stage.width());
    stages.push_back(stage);
    tensors.push_back(given);
    masks.push_back(mask);
  }
  // Room for sums over rows: enough blocks to fill a device, of at least 64 rows each.
  void take_parts(Scratch& scratch) {
    int64_t all = 0;
    for (const Stage<T>& stage : stages) all += tiles(stage);
    const int64_t most = ceil_div(x.rows.count, 64);
    part_count = std::max<int64_t>(1, std::min(ceil_div(512, all), most));
    for (const Stage<T>& stage : stages)
      parts.push_back(scratch.take<T>(part_count * values(stage)));
  }

  // Calls run(first, count, blocks) for up to kStageBatch stages at a time, whose largest weight
  // has a thread for each of its values in so many blocks.
  template <typename Run>
  void in_batches(const Run& run) const {
    // Blocks beyond these go on with the values of others.
    constexpr int64_t most_blocks = 1 << 20;
    for (int64_t first = 0; first < size(); first += kStageBatch) {
      const int64_t number = std::min<int64_t>(size() - first, kStageBatch);
      int64_t most = 0;
      for (int64_t s = first; s < first + number; ++s) most = std::max(most, values(stages[s]));
      run(first, number, std::min(ceil_div(most, kBlockThreads), most_blocks));
    }
  }

  void pack() const {
    in_batches([&](int64_t first, int64_t number, int64_t blocks) {
      PackBatch<T> batch;
      for (int64_t n = 0; n < number; ++n) {
        batch.stages[n] = {stages[first + n], tensors[first + n], masks[first + n]};
      }
      launch("stage_pack", stage_pack_kernel<T>, grid(blocks, number), kBlockThreads, 0, stream,
             batch);
    });
  }

  void products_with_x(const Stage<T>& stage, T* to) const {
    launch_tiles("stage_given", stage_given_kernel<T>, x.rows.count, stage.width(), stream, stage,
                 x, to);
  }

  // source(s, sums) says what stage s was given, target(s) where its gradients go.
  template <typename Source, typename Target>
  void weight_gradients(const Source& source, const Target& target) const {
    in_batches([&](int64_t first, int64_t number, int64_t blocks) {
      SumsBatch<T> sums;
      GradientsBatch<T> gradients;
      sums.x = x;
      gradients.parts = static_cast<int>(part_count);
      int64_t most_tiles = 0;
      for (int64_t n = 0; n < number; ++n) {
        const int64_t s = first + n;
        sums.stages[n].stage = stages[s];
        sums.stages[n].parts = parts[s];
        source(s, sums.stages[n]);
        most_tiles = std::max(most_tiles, tiles(stages[s]));
        gradients.stages[n] = {stages[s], parts[s], masks[s], target(s)};
      }
      launch("stage_weight_sums", stage_weight_sums_kernel<T>, grid(most_tiles, part_count, number),
             kBlockThreads, 0, stream, sums);
      launch("stage_weight_gradients", stage_weight_gradients_kernel<T>, grid(blocks, number),
             kBlockThreads, 0, stream, gradients);
    });
  }

  // The gradient of x, through the stages that read it.
  void input_gradient(bool adds, const SequenceView<T>& to) const {
    InputGradientStages<T> through;
    int n = 0;
    for (const Stage<T>& stage : stages) {
      if (!stage.reads_x) continue;
      through.dz.values[n] = stage.dz;
      through.weight.values[n] = stage.weight;
      through.dz.width[n] = through.weight.width[n] = stage.width();
      ++n;
    }
    launch_tiles("stage_input_gradient", stage_input_gradient_kernel<T>, x.rows.count,
                 stages[0].inputs, stream, through, x.rows, stages[0].inputs, adds, to);
  }
};

}  // namespace fastltc::cuda
