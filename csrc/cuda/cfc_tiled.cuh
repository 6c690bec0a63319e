// The recurrent part of CfC in steps of all samples: the plan tiled, for layers of any size.
//
// Maths: cfc_layer.h. The memory cell has kernels of its own (memory.cuh).
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
#include "cuda/stage_rows.cuh"

namespace fastltc::cuda {

// A stage of a step. What it is given lies [B][pitch].
template <typename T>
struct CfcTiledForward {
  CfcLayer<T> layer;
  Results<T> out;
  Stage<T> stage;
  int64_t t = 0;
  const T* from = nullptr;  // of the stage before
  int64_t from_pitch = 0;
  const T* own = nullptr;   // [B][N], of the whole layer
  const T* held = nullptr;  // [B][N] the state before the step
  T* to = nullptr;          // cells: [B][N] the state after it; else [B][units]
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
  const Stage<T>& stage = call.stage;
  const int64_t r = layer.row(b, call.t), N = layer.size.N;
  FASTLTC_UNROLL
  for (int g = 0; g < gates; ++g) {
    const int64_t at = u * stage.stride + g;
    z[g] += stage.reads_x ? layer.given[r * stage.width() + at] : stage.bias[at];
  }
  if constexpr (gates == 1) {
    if (stage.role == StageRole::backbone) {
      T value = activate(layer.activation, z[0]).value;
      if (active) value *= dropout_factor(stage, b, call.t, u);
      call.to[b * stage.units + u] = value;
      if (stage.kept != nullptr) stage.kept[r * stage.kept_pitch + u] = active ? z[0] : T(0);
      return;
    }
  }
  const int j = stage.first + static_cast<int>(u);
  const T dt = active && gates != 3 ? layer.rows.step(b, call.t, j) : T(1);
  call.to[b * N + j] = finish_cell<T, gates>(layer, call.out, stage, b, call.t, static_cast<int>(u),
                                             z, dt, call.held[b * N + j], active);
}

// Blocks: x over samples, y over units and gates.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    cfc_tiled_forward_kernel(const CfcTiledForward<T> call) {
  const Stage<T>& stage = call.stage;
  const int64_t width = stage.width(), B = call.layer.rows.B;
  const ProductSize size{B, width, 0, stage.columns()};
  const StepInputs<T> inputs{call, stage.reads_x ? 0 : stage.inputs};
  const PackedColumns<T> weight{stage.step_weight(), width};
  each_tile<T>(inputs, weight, size, [&](const TileSums<T>& sums) {
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
  });
}

// A stage of a step backwards.
template <typename T>
struct CfcTiledBackward {
  CfcLayer<T> layer;
  CfcWanted<T> grad;
  Stage<T> stage;
  int64_t t = 0;
  T* g = nullptr;         // [B][N] gradient of the state after the step
  T* before = nullptr;    // [B][N] and before it
  T* of_layer = nullptr;  // [B][units] of a backbone layer's activations
  T* from = nullptr;      // what the stage before gave: [B][from_pitch]
  int64_t from_pitch = 0;
  bool adds = false;  // to what is in `from`
};

template <typename T, int gates>
__device__ void unit_gradient(const CfcTiledBackward<T>& call, int64_t b, int64_t u, bool active,
                              T* dz) {
  const T g = call.g[b * call.layer.size.N + call.stage.first + u];
  const CellGradient<T, gates> sums = finish_cell_backward<T, gates>(
      call.layer, call.grad, call.stage, b, call.t, static_cast<int>(u), g, active);
  FASTLTC_UNROLL
  for (int n = 0; n < gates; ++n) dz[n] = sums.dz[n];
  if (gates == 3) dz[3] = T(0);
}

// dz of a step. A thread for each unit and sample.
template <typename T>
__global__ void cfc_tiled_gates_kernel(const CfcTiledBackward<T> call) {
  const CfcLayer<T>& layer = call.layer;
  const Stage<T>& stage = call.stage;
  const int64_t k = thread_index();
  if (k >= layer.rows.B * stage.units) return;
  const int64_t b = k / stage.units, u = k % stage.units;
  const bool active = call.t < layer.rows.length(b);
  T* const dz = stage.dz + layer.row(b, call.t) * stage.width() + u * stage.stride;
  if (stage.role == StageRole::backbone) {
    dz[0] = active ? backbone_gradient(layer, stage, b, call.t, u, call.of_layer[k]) : T(0);
  } else if (stage.gates == 1) {
    unit_gradient<T, 1>(call, b, u, active, dz);
  } else if (stage.gates == 3) {
    unit_gradient<T, 3>(call, b, u, active, dz);
  } else {
    unit_gradient<T, 4>(call, b, u, active, dz);
  }
}

// From dz of a step to the gradients of what the stage was given; samples that do not run hold
// theirs. Blocks: x over samples, y over columns.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    cfc_tiled_backward_kernel(const CfcTiledBackward<T> call) {
  const Stage<T>& stage = call.stage;
  const int64_t width = stage.width(), B = call.layer.rows.B, N = call.layer.size.N;
  const int64_t columns = stage.columns(), inputs = stage.reads_x ? 0 : stage.inputs;
  const ProductSize size{B, columns, 0, width};
  const PackedRows<T> dz{stage.dz + call.layer.row(0, call.t) * width, width};
  const PackedRows<T> weight{stage.step_weight(), width};
  each_tile<T>(dz, weight, size, [&](const TileSums<T>& sums) {
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
          call.before[at] = active ? total : call.g[at];
        }
      }
    }
  });
}

// The gradient of the state after the last step. A thread for each neuron and sample.
template <typename T>
__global__ void cfc_tiled_last_gradient_kernel(const CfcLayer<T> layer, const CfcWanted<T> grad,
                                               T* g) {
  const int64_t k = thread_index(), N = layer.size.N;
  if (k < layer.rows.B * N) g[k] = grad.last_gradient(layer, k / N, k % N);
}

}  // namespace fastltc::cuda
