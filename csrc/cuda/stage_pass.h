// Launches of what a layer's stages need besides the recurrence (stage_rows.cuh), and where it lies
// in the scratch memory of a call. In a source of its own: all layers with stages share the kernels.
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

  void pack() const;
  void products_with_x(const Stage<T>& stage, T* to) const;
  // source(s, sums) says what stage s was given, target(s) where its gradients go.
  template <typename Source, typename Target>
  void weight_gradients(const Source& source, const Target& target) const {
    std::vector<StageSums<T>> sums(size());
    std::vector<StageTensors<T>> gradients;
    for (int64_t s = 0; s < size(); ++s) {
      sums[s].stage = stages[s];
      sums[s].parts = parts[s];
      source(s, sums[s]);
      gradients.push_back(target(s));
    }
    weight_gradients(sums, gradients);
  }
  void weight_gradients(const std::vector<StageSums<T>>& sums,
                        const std::vector<StageTensors<T>>& gradients) const;
  // The gradient of x, through the stages that read it.
  void input_gradient(bool adds, const SequenceView<T>& to) const;

 private:
  template <typename Run>
  void in_batches(const Run& run) const;
};

extern template struct StagePass<float>;
extern template struct StagePass<double>;

}  // namespace fastltc::cuda
