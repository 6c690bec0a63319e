// The recurrent part of CfC in steps of all samples: the plan tiled, for layers of any size.
//
// Maths: cfc_layer.h; of the memory cell, memory_cell.cuh.
//
// Layout: states, activations and their gradients are [B][channel].
//
// Plan: a kernel for each stage of each step, a product by tiles (tile_product.cuh) that ends in
// the gates: the four gates of a neuron are four neighbours of the product, which one thread has.
// Backward two: dz of all units and samples, then its product with the weight. Bound by the
// multiply-adds where batch and layer fill the device, else by the chain of launches, two or three
// microseconds for each stage and step.
#pragma once

#include "cuda/cfc_layer.h"
#include "cuda/cfc_rows.cuh"
#include "cuda/memory_cell.cuh"
#include "cuda/tile_product.cuh"

namespace fastltc::cuda {

// A stage of a step. What it is given lies [B][pitch].
template <typename T>
struct CfcTiledForward {
  CfcLayer<T> layer;
  CfcResults<T> out;
  CfcStage<T> stage;
  int64_t t = 0;
  const T* from = nullptr;  // of the stage before
  int64_t from_pitch = 0;
  const T* own = nullptr;   // [B][N], of the whole layer
  const T* held = nullptr;  // [B][N] the state before the step
  T* to = nullptr;          // cells: [B][N] the state after it; else [B][units]
  T* c = nullptr;           // [B][N] the memory
};

template <typename T>
struct StepInputs {  // (sample, column)
  const CfcTiledForward<T>& call;
  int64_t inputs;
  static constexpr bool along_k = true;
  __device__ T operator()(int64_t b, int64_t k) const {
    if (k < inputs) return call.from[b * call.from_pitch + k];
    return call.own[b * call.layer.size.N + call.stage.first + k - inputs];
  }
};

// One unit and sample, from its sums without bias.
template <typename T, int gates>
__device__ void finish_unit(const CfcTiledForward<T>& call, int64_t b, int64_t u, T (&z)[gates],
                            bool active) {
  const CfcLayer<T>& layer = call.layer;
  const CfcStage<T>& stage = call.stage;
  const int64_t r = layer.row(b, call.t), N = layer.size.N;
  const T* const given = stage.kind == StageKind::memory ? layer.given_memory : layer.given;
  FASTLTC_UNROLL
  for (int g = 0; g < gates; ++g) {
    const int64_t at = u * stage.stride + g;
    z[g] += stage.reads_x ? given[r * stage.width() + at] : stage.bias[at];
  }
  T* const keep = stage.kept == nullptr ? nullptr : stage.kept + r * stage.kept_pitch;
  if constexpr (gates == 1) {
    if (stage.kind == StageKind::backbone) {
      T value = activate(layer.activation, z[0]).value;
      const SequenceView<const T>& drop = stage.dropout;
      if (active && drop.data != nullptr) {
        value *= drop.data[b * drop.stride_b + call.t * drop.stride_t + u * drop.stride_c];
      }
      call.to[b * stage.units + u] = value;
      if (keep != nullptr) keep[u] = active ? z[0] : T(0);
      return;
    }
  }
  if constexpr (gates == 4) {
    if (stage.kind == StageKind::memory) {
      Gates<T> gate{z[0], z[1], z[2], z[3]};
      T memory = call.c[b * N + u];
      call.to[b * N + u] = memory_forward(gate, memory);
      if (active) call.c[b * N + u] = memory;
      if (keep == nullptr) return;
      keep[u * kKeptRows] = active ? gate.a : T(0);
      keep[u * kKeptRows + 1] = active ? gate.i : T(0);
      keep[u * kKeptRows + 2] = active ? gate.f : T(0);
      keep[u * kKeptRows + 3] = active ? gate.o : T(0);
      keep[u * kKeptRows + 4] = active ? memory : T(0);
      return;
    }
  }
  const int64_t j = stage.first + u, m = j - (N - layer.size.M);
  const T w_tau = gates == 1 ? stage.w_tau[u] : T(0), A = gates == 1 ? stage.A[u] : T(0);
  const T dt = active && gates != 3 ? layer.rows.step(b, call.t, static_cast<int>(j)) : T(1);
  T kept[gates];
  const T after = cell_forward<T, gates>(layer.mode, z, dt, w_tau, A, kept);
  const T state = active ? after : call.held[b * N + j];
  call.to[b * N + j] = state;
  if (keep != nullptr) {
    FASTLTC_UNROLL
    for (int g = 0; g < gates; ++g) keep[u * gates + g] = active ? kept[g] : T(0);
  }
  if (call.out.return_sequences && m >= 0) {
    call.out.write_output(b, call.t, m, active ? state : T(0));
  }
}

// Blocks: x over samples, y over units and gates.
template <typename T>
__global__ void __launch_bounds__(kProductThreads)
    cfc_tiled_forward_kernel(const CfcTiledForward<T> call) {
  const CfcStage<T>& stage = call.stage;
  const int64_t width = stage.width(), B = call.layer.rows.B;
  const ProductSize size{B, width, 0, stage.columns()};
  const StepInputs<T> inputs{call, stage.reads_x ? 0 : stage.inputs};
  const PackedColumns<T> weight{stage.weight + stage.skipped() * width, width};
  for (int64_t tile = blockIdx.y; tile * kTileSide < width; tile += gridDim.y) {
    const TileSums<T> sums =
        tile_product<T>(inputs, weight, static_cast<int64_t>(blockIdx.x), tile, size);
    FASTLTC_UNROLL
    for (int p = 0; p < 4; ++p) {
      const int64_t b = sums.m + p;
      if (b >= B || sums.n >= width) break;
      const bool active = call.t < call.layer.rows.length(b);
      if (stage.stride == 1) {
        FASTLTC_UNROLL
        for (int q = 0; q < 4; ++q) {
          T z[1] = {sums.value[p][q]};
          if (sums.n + q < width) finish_unit<T, 1>(call, b, sums.n + q, z, active);
        }
      } else if (stage.gates == 3) {
        T z[3] = {sums.value[p][0], sums.value[p][1], sums.value[p][2]};
        finish_unit<T, 3>(call, b, sums.n / 4, z, active);
      } else {
        T z[4] = {sums.value[p][0], sums.value[p][1], sums.value[p][2], sums.value[p][3]};
        finish_unit<T, 4>(call, b, sums.n / 4, z, active);
      }
    }
  }
}

// The initial state [B][N], and memory where `c` is not null. A thread for each.
template <typename T>
__global__ void cfc_tiled_initial_kernel(const CfcLayer<T> layer, T* h, T* c) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t N = layer.size.N;
  if (k >= layer.rows.B * N) return;
  h[k] = layer.initial(k / N, k % N);
  if (c != nullptr) c[k] = layer.initial(k / N, N + k % N);
}

// hn, and the output where only the last is wanted.
template <typename T>
__global__ void cfc_tiled_final_kernel(const CfcLayer<T> layer, const CfcResults<T> out, const T* h,
                                       const T* c) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t N = layer.size.N;
  if (k >= layer.rows.B * N) return;
  const int64_t b = k / N, j = k % N, m = j - (N - layer.size.M);
  out.hn[b * layer.state_width() + j] = h[k];
  if (c != nullptr) out.hn[b * layer.state_width() + N + j] = c[k];
  if (m >= 0 && !out.return_sequences) out.write_output(b, 0, m, h[k]);
}

// A stage of a step backwards.
template <typename T>
struct CfcTiledBackward {
  CfcLayer<T> layer;
  CfcWanted<T> grad;
  CfcStage<T> stage;
  int64_t t = 0;
  // [B][N] gradients of the state after the step, and before it. The memory cell has them the other
  // way round: what the cells left is its input.
  T* g = nullptr;
  T* before = nullptr;
  T* gc = nullptr;        // [B][N] of the memory
  T* of_layer = nullptr;  // [B][units] of a backbone layer's activations
  T* from = nullptr;      // what the stage before gave: [B][from_pitch]
  int64_t from_pitch = 0;
  bool adds = false;  // to what is in `from`
};

template <typename T, int gates>
__device__ void unit_gradient(const CfcTiledBackward<T>& call, int64_t b, int64_t u, bool active,
                              T* dz) {
  const CfcLayer<T>& layer = call.layer;
  const CfcWanted<T>& grad = call.grad;
  const CfcStage<T>& stage = call.stage;
  const int64_t N = layer.size.N, j = stage.first + u, r = layer.row(b, call.t);
  const T* const kept = stage.kept + r * stage.kept_pitch;
  CellGradient<T, gates> sums;
  if (active) {
    const T w_tau = gates == 1 ? stage.w_tau[u] : T(0), A = gates == 1 ? stage.A[u] : T(0);
    const T dt = gates == 3 ? T(1) : layer.rows.step(b, call.t, static_cast<int>(j));
    T keep[gates];
    FASTLTC_UNROLL
    for (int n = 0; n < gates; ++n) keep[n] = kept[u * gates + n];
    const T total = call.g[b * N + j] + grad.step_gradient(layer.size, b, call.t, j);
    sums = cell_backward<T, gates>(layer.mode, keep, dt, w_tau, A, total);
  }
  FASTLTC_UNROLL
  for (int n = 0; n < gates; ++n) dz[n] = sums.dz[n];
  if (gates == 3) dz[3] = T(0);
  if (grad.grad_dt != nullptr) grad.grad_dt[r * N + j] = sums.dt;
  if (grad.grad_pure != nullptr) {
    grad.grad_pure[2 * r * N + j] = sums.w_tau;
    grad.grad_pure[(2 * r + 1) * N + j] = sums.A;
  }
}

// dz of a step. A thread for each unit and sample.
template <typename T>
__global__ void cfc_tiled_gates_kernel(const CfcTiledBackward<T> call) {
  const CfcLayer<T>& layer = call.layer;
  const CfcStage<T>& stage = call.stage;
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= layer.rows.B * stage.units) return;
  const int64_t b = k / stage.units, u = k % stage.units, r = layer.row(b, call.t);
  const bool active = call.t < layer.rows.length(b);
  T* const dz = stage.dz + r * stage.width() + u * stage.stride;
  const T* const kept = stage.kept + r * stage.kept_pitch;
  if (stage.kind == StageKind::backbone) {
    T value = 0;
    if (active) {
      value = call.of_layer[k] * activate(layer.activation, kept[u]).slope;
      const SequenceView<const T>& drop = stage.dropout;
      if (drop.data != nullptr) {
        value *= drop.data[b * drop.stride_b + call.t * drop.stride_t + u * drop.stride_c];
      }
    }
    dz[0] = value;
  } else if (stage.kind == StageKind::memory) {
    Gates<T> sums{};
    if (active) {
      const T* const keep = kept + u * kKeptRows;
      const int64_t N = layer.size.N;
      const T c_before =
          call.t == 0 ? layer.initial(b, N + u) : keep[4 - layer.rows.B * stage.kept_pitch];
      sums = memory_backward(Gates<T>{keep[0], keep[1], keep[2], keep[3]}, c_before, keep[4],
                             call.before[k], call.gc[k]);
    }
    dz[0] = sums.a;
    dz[1] = sums.i;
    dz[2] = sums.f;
    dz[3] = sums.o;
  } else if (stage.gates == 1) {
    unit_gradient<T, 1>(call, b, u, active, dz);
  } else if (stage.gates == 3) {
    unit_gradient<T, 3>(call, b, u, active, dz);
  } else {
    unit_gradient<T, 4>(call, b, u, active, dz);
  }
}

template <typename T>
struct StepDz {  // (sample, unit and gate)
  const T* dz;
  int64_t width;
  static constexpr bool along_k = true;
  __device__ T operator()(int64_t b, int64_t n) const { return dz[b * width + n]; }
};
template <typename T>
struct PackedRows {  // (column, unit and gate)
  const T* weight;
  int64_t width;
  static constexpr bool along_k = true;
  __device__ T operator()(int64_t column, int64_t n) const { return weight[column * width + n]; }
};

// From dz of a step to the gradients of what the stage was given; samples that do not run hold
// theirs. Blocks: x over samples, y over columns.
template <typename T>
__global__ void __launch_bounds__(kProductThreads)
    cfc_tiled_backward_kernel(const CfcTiledBackward<T> call) {
  const CfcStage<T>& stage = call.stage;
  const int64_t width = stage.width(), B = call.layer.rows.B, N = call.layer.size.N;
  const int64_t columns = stage.columns(), inputs = stage.reads_x ? 0 : stage.inputs;
  const bool memory = stage.kind == StageKind::memory;
  T* const to = memory ? call.g : call.before;
  const T* const held = memory ? call.before : call.g;
  const ProductSize size{B, columns, 0, width};
  const StepDz<T> dz{stage.dz + call.layer.row(0, call.t) * width, width};
  const PackedRows<T> weight{stage.weight + stage.skipped() * width, width};
  for (int64_t tile = blockIdx.y; tile * kTileSide < columns; tile += gridDim.y) {
    const TileSums<T> sums =
        tile_product<T>(dz, weight, static_cast<int64_t>(blockIdx.x), tile, size);
    FASTLTC_UNROLL
    for (int p = 0; p < 4; ++p) {
      const int64_t b = sums.m + p;
      if (b >= B) break;
      const bool active = call.t < call.layer.rows.length(b);
      FASTLTC_UNROLL
      for (int q = 0; q < 4; ++q) {
        const int64_t k = sums.n + q;
        if (k >= columns) break;
        const T total = sums.value[p][q];
        if (k < inputs) {
          T& at = call.from[b * call.from_pitch + k];
          at = call.adds ? at + total : total;
        } else {
          const int64_t at = b * N + stage.first + k - inputs;
          to[at] = active ? total : held[at];
        }
      }
    }
  }
}

// The gradient of the state after the last step, and of the memory where `gc` is not null.
template <typename T>
__global__ void cfc_tiled_last_gradient_kernel(const CfcLayer<T> layer, const CfcWanted<T> grad,
                                               T* g, T* gc) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t N = layer.size.N;
  if (k >= layer.rows.B * N) return;
  g[k] = grad.last_gradient(layer.size, k / N, k % N);
  if (gc != nullptr) gc[k] = grad.last_gradient(layer.size, k / N, N + k % N);
}

template <typename T>
__global__ void cfc_tiled_h0_kernel(const CfcLayer<T> layer, const T* g, const T* gc, T* grad_h0) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t N = layer.size.N, width = layer.state_width();
  if (k >= layer.rows.B * N) return;
  grad_h0[k / N * width + k % N] = g[k];
  if (gc != nullptr) grad_h0[k / N * width + N + k % N] = gc[k];
}

}  // namespace fastltc::cuda
