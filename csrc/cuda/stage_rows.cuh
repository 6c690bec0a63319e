// The parts of a layer's stages (stage.h) that all rows (pairs of a time step and a sample) can do
// at once: the packing of the weights and the products with x before the recurrent part; after its
// backward pass the gradients of x and of all weights.
//
// Maths, for each stage with inputs z and the gradient dz of its sums:
//   given = W_x x + b      dx = W_x^T dz      dW = sum over rows of dz z      db = sum of dz
//
// Layout: of a stage's weight, packed, the values [column][unit][gate] stand together, so that a
// row of the weight's gradient is one line of dz.
//
// Plan: dense products by tiles (tile_product.cuh), all stages of a layer in one launch where there
// are up to eight. The sums over rows are taken in parts, whose number follows from the sizes, and
// a last kernel adds the parts in their order and writes the gradients of the parameters as they
// are kept. Bound by the multiply-adds for large layers, by launches for small ones.
#pragma once

#include "cuda/frame/tile_product.cuh"
#include "cuda/stage.h"

namespace fastltc::cuda {

inline constexpr int kStageBatch = 8;

template <typename T>
struct StagePacking {
  Stage<T> stage;
  StageTensors<const T> given;
  const T* mask = nullptr;  // [units, inputs + own], of the first two heads; null: all ones
};
template <typename T>
struct PackBatch {
  StagePacking<T> stages[kStageBatch];
};

// Whether the weight of a head is there.
template <typename T>
FASTLTC_DEVICE bool is_present(const Stage<T>& stage, const T* mask, int head, int64_t unit,
                               int64_t column) {
  return head > 1 || mask == nullptr || mask[unit * (stage.inputs + stage.own) + column] != T(0);
}

// A thread for each value of weight and bias; blocks in y: stages.
template <typename T>
__global__ void stage_pack_kernel(const PackBatch<T> batch) {
  const Stage<T>& stage = batch.stages[blockIdx.y].stage;
  const StageTensors<const T>& given = batch.stages[blockIdx.y].given;
  const int64_t columns = stage.inputs + stage.own, width = stage.width();
  const int64_t first = thread_index();
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t k = first; k < (columns + 1) * width; k += threads) {
    const int64_t column = k / width, unit = k % width / stage.stride;
    const int gate = static_cast<int>(k % stage.stride);
    T value = 0;
    // Without time steps the third gate is time_a + time_b.
    const int last = gate == stage.gates - 1 ? given.heads : gate + 1;
    for (int head = gate; head < last; ++head) {
      if (column == columns) {
        value += given.bias[head][unit];
      } else if (is_present(stage, batch.stages[blockIdx.y].mask, head, unit, column)) {
        value += column < stage.inputs
                     ? given.from[head][unit * given.from_pitch + column]
                     : given.own[head][unit * given.own_pitch + column - stage.inputs];
      }
    }
    if (column == columns) {
      if (stage.role == StageRole::memory && gate == 2) value += T(1);
      stage.bias[unit * stage.stride + gate] = value;
      continue;
    }
    stage.weight[k] = value;
    const int64_t kept = column - stage.skipped();
    if (stage.transposed != nullptr && kept >= 0) {
      stage.transposed[(unit * stage.columns() + kept) * stage.stride + gate] = value;
    }
  }
}

// x of a row; 0 past the end of its sample, where x is not read.
template <typename T>
struct InputsOfRows {
  SequenceView<const T> x;
  SequenceRows<T> rows;
  FASTLTC_DEVICE T operator()(int64_t r, int64_t i) const {
    const auto [b, t] = rows.place(r);
    if (t >= rows.length(b)) return T(0);
    return element(x, b, t, i);
  }
};

template <typename T>
struct RowsOfX {  // (row, input)
  const InputsOfRows<T>& x;
  bool along_k;
  __device__ T operator()(int64_t r, int64_t i) const { return x(r, i); }
};
template <typename T>
struct PackedColumns {  // (unit and gate, column)
  const T* weight;
  int64_t width;
  static constexpr bool along_k = false;
  __device__ T operator()(int64_t n, int64_t column) const { return weight[column * width + n]; }
};

template <typename T>
struct PackedRows {  // (row or column, unit and gate)
  const T* values;
  int64_t width;
  static constexpr bool along_k = true;
  __device__ T operator()(int64_t row, int64_t n) const { return values[row * width + n]; }
};

// A stage's bias and its product with x, for all rows. Blocks: x over rows, y over units and gates.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    stage_given_kernel(const Stage<T> stage, const InputsOfRows<T> x, T* given) {
  const int64_t width = stage.width();
  const ProductSize size{x.rows.count, width, 0, stage.inputs};
  const RowsOfX<T> rows{x, x.x.stride_c == 1};
  const PackedColumns<T> weight{stage.weight, width};
  each_tile<T>(rows, weight, size, [&](const TileSums<T>& sums) {
    FASTLTC_UNROLL
    for (int p = 0; p < 4; ++p) {
      FASTLTC_UNROLL
      for (int q = 0; q < 4; ++q) {
        const int64_t r = sums.m + p, n = sums.n + q;
        if (r < size.m && n < size.n) given[r * width + n] = sums.value[p][q] + stage.bias[n];
      }
    }
  });
}

// The gradient of x is through one stage or two: the columns of both stand behind each other.
template <typename T>
struct RowsOfTwo {          // (row or input, unit and gate)
  const T* values[2] = {};  // [rows or inputs][width]
  int64_t width[2] = {};
  static constexpr bool along_k = true;
  __device__ T operator()(int64_t row, int64_t n) const {
    if (n < width[0]) return values[0][row * width[0] + n];
    return values[1][row * width[1] + n - width[0]];
  }
};
template <typename T>
struct InputGradientStages {
  RowsOfTwo<T> dz;
  RowsOfTwo<T> weight;
};

// Written in full, or added. Blocks: x over rows, y over inputs.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    stage_input_gradient_kernel(const InputGradientStages<T> stages, const SequenceRows<T> rows,
                                int64_t inputs, bool adds, const SequenceView<T> grad_x) {
  const ProductSize size{rows.count, inputs, 0, stages.dz.width[0] + stages.dz.width[1]};
  each_tile<T>(stages.dz, stages.weight, size, [&](const TileSums<T>& sums) {
    FASTLTC_UNROLL
    for (int p = 0; p < 4; ++p) {
      if (sums.m + p >= size.m) break;
      const auto [b, t] = rows.place(sums.m + p);
      const bool active = t < rows.length(b);
      FASTLTC_UNROLL
      for (int q = 0; q < 4; ++q) {
        if (sums.n + q >= inputs) break;
        T& to = element(grad_x, b, t, sums.n + q);
        to = (adds ? to : T(0)) + (active ? sums.value[p][q] : T(0));
      }
    }
  });
}

// What a stage was given in all rows, and the parts of its weight's gradient.
template <typename T>
struct StageSums {
  Stage<T> stage;
  const T* from = nullptr;  // [row][from_pitch]; null: x
  int64_t from_pitch = 0;
  const T* own = nullptr;  // [row][own_pitch]; null: own_view
  int64_t own_pitch = 0;
  SequenceView<const T> own_view;  // [B, T, own], not read past the end of a sample
  T* parts = nullptr;  // [parts][inputs + own + 1][width], the last column that of the bias
};
template <typename T>
struct SumsBatch {
  StageSums<T> stages[kStageBatch];
  InputsOfRows<T> x;
};

template <typename T>
struct GivenColumns {  // (column, row)
  const StageSums<T>& sums;
  const InputsOfRows<T>& x;
  static constexpr bool along_k = false;
  __device__ T operator()(int64_t column, int64_t r) const {
    const int64_t own = column - sums.stage.inputs;
    if (own < 0) {
      return sums.from == nullptr ? x(r, column) : sums.from[r * sums.from_pitch + column];
    }
    if (own == sums.stage.own) return T(1);
    if (sums.own != nullptr) return sums.own[r * sums.own_pitch + own];
    const auto [b, t] = x.rows.place(r);
    return t < x.rows.length(b) ? element(sums.own_view, b, t, own) : T(0);
  }
};
template <typename T>
struct GradientColumns {  // (unit and gate, row)
  const T* dz;
  int64_t width;
  static constexpr bool along_k = false;
  __device__ T operator()(int64_t n, int64_t r) const { return dz[r * width + n]; }
};

// Blocks: x over tiles of a stage's weight (those past its last do nothing), y over parts of the
// rows, z over stages.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    stage_weight_sums_kernel(const SumsBatch<T> batch) {
  const StageSums<T>& sums = batch.stages[blockIdx.z];
  const int64_t columns = sums.stage.inputs + sums.stage.own + 1, width = sums.stage.width();
  const int64_t across = (width + kTileSide - 1) / kTileSide;
  const int64_t tile_m = blockIdx.x / across, tile_n = blockIdx.x % across;
  if (tile_m * kTileSide >= columns) return;
  const int64_t count = batch.x.rows.count;
  const int64_t each = (count + gridDim.y - 1) / gridDim.y;
  const int64_t begin = blockIdx.y * each;
  const int64_t end = begin + each < count ? begin + each : count;
  const ProductSize size{columns, width, begin, end};
  const TileSums<T> tile =
      tile_product<T>(GivenColumns<T>{sums, batch.x}, GradientColumns<T>{sums.stage.dz, width},
                      tile_m, tile_n, size);
  T* const to = sums.parts + (blockIdx.y * columns + tile.m) * width + tile.n;
  FASTLTC_UNROLL
  for (int p = 0; p < 4; ++p) {
    FASTLTC_UNROLL
    for (int q = 0; q < 4; ++q) {
      if (tile.m + p < columns && tile.n + q < width) to[p * width + q] = tile.value[p][q];
    }
  }
}

template <typename T>
struct StageGradients {
  Stage<T> stage;
  const T* parts = nullptr;
  const T* mask = nullptr;
  StageTensors<T> grad;
};
template <typename T>
struct GradientsBatch {
  StageGradients<T> stages[kStageBatch];
  int parts = 0;
};

// A thread for each value of a packed weight and its bias: adds up its parts, writes the gradient
// of what it was packed from. Blocks in y: stages.
template <typename T>
__global__ void stage_weight_gradients_kernel(const GradientsBatch<T> batch) {
  const StageGradients<T>& of = batch.stages[blockIdx.y];
  const Stage<T>& stage = of.stage;
  const int64_t columns = stage.inputs + stage.own, width = stage.width();
  const int64_t count = (columns + 1) * width;
  const int64_t first = thread_index();
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t k = first; k < count; k += threads) {
    const int64_t column = k / width, unit = k % width / stage.stride;
    const int gate = static_cast<int>(k % stage.stride);
    T total = 0;
    for (int part = 0; part < batch.parts; ++part) total += of.parts[part * count + k];
    // Without time steps both time heads have the gradient of their sum.
    const int last = gate == stage.gates - 1 ? of.grad.heads : gate + 1;
    for (int head = gate; head < last && gate < stage.gates; ++head) {
      if (column == columns) {
        of.grad.bias[head][unit] = total;
        continue;
      }
      const T value = is_present(stage, of.mask, head, unit, column) ? total : T(0);
      if (column < stage.inputs) {
        of.grad.from[head][unit * of.grad.from_pitch + column] = value;
      } else {
        of.grad.own[head][unit * of.grad.own_pitch + column - stage.inputs] = value;
      }
    }
  }
}

}  // namespace fastltc::cuda
