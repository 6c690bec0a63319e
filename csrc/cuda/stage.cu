// Launchers of what the stages of any layer need besides the recurrence.
#include <algorithm>
#include <vector>

#include "cuda/stage_pass.h"

namespace fastltc::cuda {

// Calls run(first, count, blocks) for up to kStageBatch stages at a time, whose largest weight has a
// thread for each of its values in so many blocks.
template <typename T>
template <typename Run>
void StagePass<T>::in_batches(const Run& run) const {
  // Blocks beyond these go on with the values of others.
  constexpr int64_t most_blocks = 1 << 20;
  for (int64_t first = 0; first < size(); first += kStageBatch) {
    const int64_t number = std::min<int64_t>(size() - first, kStageBatch);
    int64_t most = 0;
    for (int64_t s = first; s < first + number; ++s) most = std::max(most, values(stages[s]));
    run(first, number, std::min(ceil_div(most, kBlockThreads), most_blocks));
  }
}

template <typename T>
void StagePass<T>::pack() const {
  in_batches([&](int64_t first, int64_t number, int64_t blocks) {
    PackBatch<T> batch;
    for (int64_t n = 0; n < number; ++n) {
      batch.stages[n] = {stages[first + n], tensors[first + n], masks[first + n]};
    }
    launch("stage_pack", stage_pack_kernel<T>, grid(blocks, number), kBlockThreads, 0, stream,
           batch);
  });
}

template <typename T>
void StagePass<T>::products_with_x(const Stage<T>& stage, T* to) const {
  launch_tiles("stage_given", stage_given_kernel<T>, x.rows.count, stage.width(), stream, stage, x,
               to);
}

template <typename T>
void StagePass<T>::weight_gradients(const std::vector<StageSums<T>>& sums,
                                    const std::vector<StageTensors<T>>& gradients) const {
  in_batches([&](int64_t first, int64_t number, int64_t blocks) {
    SumsBatch<T> sums_batch;
    GradientsBatch<T> gradients_batch;
    sums_batch.x = x;
    gradients_batch.parts = static_cast<int>(part_count);
    int64_t most_tiles = 0;
    for (int64_t n = 0; n < number; ++n) {
      const int64_t s = first + n;
      sums_batch.stages[n] = sums[s];
      most_tiles = std::max(most_tiles, tiles(stages[s]));
      gradients_batch.stages[n] = {stages[s], parts[s], masks[s], gradients[s]};
    }
    launch("stage_weight_sums", stage_weight_sums_kernel<T>, grid(most_tiles, part_count, number),
           kBlockThreads, 0, stream, sums_batch);
    launch("stage_weight_gradients", stage_weight_gradients_kernel<T>, grid(blocks, number),
           kBlockThreads, 0, stream, gradients_batch);
  });
}

template <typename T>
void StagePass<T>::input_gradient(bool adds, const SequenceView<T>& to) const {
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

template struct StagePass<float>;
template struct StagePass<double>;

}  // namespace fastltc::cuda
