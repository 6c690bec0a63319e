// The parts of CfC alone that all rows can do at once after the backward pass of its recurrence;
// stage_rows.cuh has what follows from its stages.
#pragma once

#include "cuda/cfc_layer.h"
#include "cuda/memory.cuh"

namespace fastltc::cuda {

// The activations of a backbone layer in all rows, [rows][units]. A thread for each.
template <typename T>
__global__ void cfc_activations_kernel(const Stage<T> stage, const SequenceRows<T> rows,
                                       Activation activation, T* to) {
  const int64_t k = thread_index();
  if (k >= rows.count * stage.units) return;
  const int64_t r = k / stage.units, u = k % stage.units;
  T value = activate(activation, stage.kept[r * stage.kept_pitch + u]).value;
  const auto [b, t] = rows.place(r);
  if (t < rows.length(b)) value *= dropout_factor(stage, b, t, u);
  to[k] = value;
}

// What the memory cell gave in all rows, [rows][N]. A thread for each.
template <typename T>
__global__ void cfc_recalled_kernel(const T* kept, int64_t count, T* to) {
  const int64_t k = thread_index();
  if (k < count) to[k] = tanh_exp2(kept[k * kKeptRows + 4]) * kept[k * kKeptRows + 3];
}

// Sums over rows of a cell's terms of w_tau and of A, `from` [row][pitch], N columns apart. Blocks:
// x for 32 neurons, whose lanes they are, warps taking every eighth row; y for w_tau and A.
template <typename T>
__global__ void cfc_pure_sums_kernel(const T* from, int64_t pitch, int64_t rows, int64_t neurons,
                                     int units, T* w_tau, T* A) {
  FASTLTC_SHARED_ARRAY(T, of_warps, kBlockThreads);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
  T total = 0;
  if (unit < units) {
    for (int64_t r = threadIdx.x / kWarp; r < rows; r += kBlockThreads / kWarp) {
      total += from[r * pitch + blockIdx.y * neurons + unit];
    }
  }
  of_warps[threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.x >= kWarp || unit >= units) return;
  for (int w = 1; w < kBlockThreads / kWarp; ++w) total += of_warps[w * kWarp + lane];
  (blockIdx.y == 0 ? w_tau : A)[unit] = total;
}

// The gradient of the time steps from that of each neuron's, [rows][N]. A warp for each row.
template <typename T>
__global__ void cfc_timespans_kernel(const SequenceRows<T> rows, int64_t neurons, const T* from,
                                     const SequenceView<T> to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t r = thread_index() / kWarp;
  if (r >= rows.count) return;
  const auto [b, t] = rows.place(r);
  T total = 0;
  for (int64_t j = lane; j < neurons; j += kWarp) {
    const T value = from[r * neurons + j];
    total += value;
    if (rows.timespans_per_neuron) element(to, b, t, j) = value;
  }
  total = sum_lanes(total);
  if (lane == 0 && !rows.timespans_per_neuron) element(to, b, t, 0) = total;
}

}  // namespace fastltc::cuda
