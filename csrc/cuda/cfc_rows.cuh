// The parts of CfC that all rows (pairs of a time step and a sample) can do at once: the packing of
// the weights and the products with x before the recurrent part; after its backward pass the
// gradients of x and of all parameters.
//
// Maths, for each stage with inputs z and the gradient dz of its sums (cfc_layer.h):
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

#include "cuda/cfc_layer.h"
#include "cuda/memory_cell.cuh"
#include "cuda/tile_product.cuh"

namespace fastltc::cuda {

inline constexpr int kCfcThreads = 256;
inline constexpr int kStageBatch = 8;

// A stage's parameters as they are kept, or their gradients: for each gate the weights of what
// comes from the stage before and of the own state, [units, ...] with `pitch` between units, and
// the bias.
template <typename V>
struct StageTensors {
  V* from[4] = {};
  V* own[4] = {};
  V* bias[4] = {};
  int64_t from_pitch = 0;
  int64_t own_pitch = 0;
  int heads = 0;
};

template <typename T>
struct StagePacking {
  CfcStage<T> stage;
  StageTensors<const T> given;
  const T* mask = nullptr;  // [units, inputs + own], of the first two heads; null: all ones
};
template <typename T>
struct PackBatch {
  StagePacking<T> stages[kStageBatch];
};

// Whether the weight of a head is there.
template <typename T>
FASTLTC_DEVICE bool is_present(const CfcStage<T>& stage, const T* mask, int head, int64_t unit,
                               int64_t column) {
  return head > 1 || mask == nullptr || mask[unit * (stage.inputs + stage.own) + column] != T(0);
}

// A thread for each value of weight and bias; blocks in y: stages.
template <typename T>
__global__ void cfc_pack_kernel(const PackBatch<T> batch) {
  const CfcStage<T>& stage = batch.stages[blockIdx.y].stage;
  const StageTensors<const T>& given = batch.stages[blockIdx.y].given;
  const int64_t columns = stage.inputs + stage.own, width = stage.width();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
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
      if (stage.kind == StageKind::memory && gate == 2) value += T(1);
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
  Rows<T> rows;
  FASTLTC_DEVICE T operator()(int64_t r, int64_t i) const {
    const auto [b, t] = rows.place(r);
    if (t >= rows.length(b)) return T(0);
    return x.data[b * x.stride_b + t * x.stride_t + i * x.stride_c];
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

// A stage's bias and its product with x, for all rows. Blocks: x over rows, y over units and gates.
template <typename T>
__global__ void __launch_bounds__(kProductThreads)
    cfc_given_kernel(const CfcStage<T> stage, const InputsOfRows<T> x, T* given) {
  const int64_t width = stage.width();
  const ProductSize size{x.rows.count, width, 0, stage.inputs};
  for (int64_t tile = blockIdx.y; tile * kTileSide < width; tile += gridDim.y) {
    const TileSums<T> sums =
        tile_product<T>(RowsOfX<T>{x, x.x.stride_c == 1}, PackedColumns<T>{stage.weight, width},
                        static_cast<int64_t>(blockIdx.x), tile, size);
    FASTLTC_UNROLL
    for (int p = 0; p < 4; ++p) {
      FASTLTC_UNROLL
      for (int q = 0; q < 4; ++q) {
        const int64_t r = sums.m + p, n = sums.n + q;
        if (r < size.m && n < size.n) given[r * width + n] = sums.value[p][q] + stage.bias[n];
      }
    }
  }
}

// The gradient of x, through one stage or two: the columns of both stand behind each other.
template <typename T>
struct InputGradientStages {
  const T* dz[2] = {};      // [rows][width]
  const T* weight[2] = {};  // [inputs][width]
  int64_t width[2] = {};
};
template <typename T>
struct GradientRows {  // (row, unit and gate)
  const InputGradientStages<T>& stages;
  static constexpr bool along_k = true;
  __device__ T operator()(int64_t r, int64_t n) const {
    if (n < stages.width[0]) return stages.dz[0][r * stages.width[0] + n];
    return stages.dz[1][r * stages.width[1] + n - stages.width[0]];
  }
};
template <typename T>
struct WeightRows {  // (input, unit and gate)
  const InputGradientStages<T>& stages;
  static constexpr bool along_k = true;
  __device__ T operator()(int64_t i, int64_t n) const {
    if (n < stages.width[0]) return stages.weight[0][i * stages.width[0] + n];
    return stages.weight[1][i * stages.width[1] + n - stages.width[0]];
  }
};

// Written in full. Blocks: x over rows, y over inputs.
template <typename T>
__global__ void __launch_bounds__(kProductThreads)
    cfc_input_gradient_kernel(const InputGradientStages<T> stages, const Rows<T> rows,
                              int64_t inputs, const SequenceView<T> grad_x) {
  const ProductSize size{rows.count, inputs, 0, stages.width[0] + stages.width[1]};
  for (int64_t tile = blockIdx.y; tile * kTileSide < inputs; tile += gridDim.y) {
    const TileSums<T> sums = tile_product<T>(GradientRows<T>{stages}, WeightRows<T>{stages},
                                             static_cast<int64_t>(blockIdx.x), tile, size);
    FASTLTC_UNROLL
    for (int p = 0; p < 4; ++p) {
      if (sums.m + p >= size.m) break;
      const auto [b, t] = rows.place(sums.m + p);
      const bool active = t < rows.length(b);
      T* const to = grad_x.data + b * grad_x.stride_b + t * grad_x.stride_t;
      FASTLTC_UNROLL
      for (int q = 0; q < 4; ++q) {
        const int64_t i = sums.n + q;
        if (i < inputs) to[i * grad_x.stride_c] = active ? sums.value[p][q] : T(0);
      }
    }
  }
}

// What a stage was given in all rows, and the parts of its weight's gradient.
template <typename T>
struct StageSums {
  CfcStage<T> stage;
  const T* from = nullptr;  // [row][from_pitch]; null: x
  int64_t from_pitch = 0;
  const T* own = nullptr;  // [row][own_pitch]
  int64_t own_pitch = 0;
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
    return own == sums.stage.own ? T(1) : sums.own[r * sums.own_pitch + own];
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
__global__ void __launch_bounds__(kProductThreads)
    cfc_weight_sums_kernel(const SumsBatch<T> batch) {
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
  CfcStage<T> stage;
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
__global__ void cfc_weight_gradients_kernel(const GradientsBatch<T> batch) {
  const StageGradients<T>& of = batch.stages[blockIdx.y];
  const CfcStage<T>& stage = of.stage;
  const int64_t columns = stage.inputs + stage.own, width = stage.width();
  const int64_t count = (columns + 1) * width;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
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

// The activations of a backbone layer in all rows, [rows][units]. A thread for each.
template <typename T>
__global__ void cfc_activations_kernel(const CfcStage<T> stage, const Rows<T> rows,
                                       Activation activation, T* to) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= rows.count * stage.units) return;
  const int64_t r = k / stage.units, u = k % stage.units;
  T value = activate(activation, stage.kept[r * stage.kept_pitch + u]).value;
  const auto [b, t] = rows.place(r);
  const SequenceView<const T>& factor = stage.dropout;
  if (factor.data != nullptr && t < rows.length(b)) {
    value *= factor.data[b * factor.stride_b + t * factor.stride_t + u * factor.stride_c];
  }
  to[k] = value;
}

// What the memory cell gave in all rows, [rows][N]. A thread for each.
template <typename T>
__global__ void cfc_recalled_kernel(const T* kept, int64_t count, T* to) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < count) to[k] = tanh_exp2(kept[k * kKeptRows + 4]) * kept[k * kKeptRows + 3];
}

// Sums over rows of a cell's terms of w_tau and of A, `from` [row][pitch], N columns apart. Blocks:
// x for 32 neurons, whose lanes they are, warps taking every eighth row; y for w_tau and A.
template <typename T>
__global__ void cfc_pure_sums_kernel(const T* from, int64_t pitch, int64_t rows, int64_t neurons,
                                     int units, T* w_tau, T* A) {
  FASTLTC_SHARED_ARRAY(T, of_warps, kCfcThreads);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
  T total = 0;
  if (unit < units) {
    for (int64_t r = threadIdx.x / kWarp; r < rows; r += kCfcThreads / kWarp) {
      total += from[r * pitch + blockIdx.y * neurons + unit];
    }
  }
  of_warps[threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.x >= kWarp || unit >= units) return;
  for (int w = 1; w < kCfcThreads / kWarp; ++w) total += of_warps[w * kWarp + lane];
  (blockIdx.y == 0 ? w_tau : A)[unit] = total;
}

// The gradient of the time steps from that of each neuron's, [rows][N]. A warp for each row.
template <typename T>
__global__ void cfc_timespans_kernel(const Rows<T> rows, int64_t neurons, const T* from,
                                     const SequenceView<T> to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t r = (static_cast<int64_t>(blockIdx.x) * kCfcThreads + threadIdx.x) / kWarp;
  if (r >= rows.count) return;
  const auto [b, t] = rows.place(r);
  T* const at = to.data + b * to.stride_b + t * to.stride_t;
  T total = 0;
  for (int64_t j = lane; j < neurons; j += kWarp) {
    const T value = from[r * neurons + j];
    total += value;
    if (rows.timespans_per_neuron) at[j * to.stride_c] = value;
  }
  total = sum_lanes(total);
  if (lane == 0 && !rows.timespans_per_neuron) at[0] = total;
}

}  // namespace fastltc::cuda
