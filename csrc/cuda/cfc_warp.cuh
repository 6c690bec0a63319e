// The recurrent part of CfC, a whole sequence of one sample in one warp: the plan warp_per_sample,
// of cells without backbone and memory cell that have 32 neurons in all.
//
// Maths: cfc_layer.h.
//
// Plan: a lane is a neuron. Cells run at once, each a step behind the one before it: in tick n cell
// c takes step n - c, so that a tick needs nothing but what the ticks before it left. Forward a
// neuron needs the states of its own cell and of the one before, which are neighbours in the state;
// backward the gradients of its own cell and of the one after it. It reads them from shared memory,
// all lanes of a cell the same word, and has their weights in registers, at most `slots` of each
// gate. A tick has one barrier, __syncwarp: what is read and what is written take turns. What comes
// from outside is read a tick ahead.
//
// A sequence takes T + cells - 1 ticks, of one shared-memory round trip, slots x gates
// multiply-adds and the gates' functions each: that chain bounds it, until there are warps enough
// to fill the multiply-add units. No sum crosses a lane, so that its order is that of the neurons.
#pragma once

#include "cuda/cfc_layer.h"
#include "cuda/cfc_sizes.h"

namespace fastltc::cuda {

template <typename T>
struct CfcWarpCall {
  CfcLayer<T> layer;
  Results<T> out;
  CfcWanted<T> grad;
  int cells = 0;
  Stage<T> stages[kCfcMaxStages];
};

// Values that a lane reads past the last neuron have a weight of zero.
inline constexpr int kWarpBuffer = 2 * kWarp;

// What a lane is.
template <typename T>
struct CfcLane {
  int neuron;
  int cell;
  bool is_neuron;
  Stage<T> stage;
  int unit;
  T w_tau = 0;
  T A = 0;

  __device__ explicit CfcLane(const CfcWarpCall<T>& call) {
    neuron = static_cast<int>(threadIdx.x);
    is_neuron = neuron < call.layer.size.N;
    cell = 0;
    for (int c = 1; c < call.cells; ++c) {
      if (is_neuron && neuron >= call.stages[c].first) cell = c;
    }
    stage = call.stages[cell];
    unit = is_neuron ? neuron - stage.first : 0;
    if (is_neuron && stage.w_tau != nullptr) {
      w_tau = stage.w_tau[unit];
      A = stage.A[unit];
    }
  }
};

template <typename T, int slots, int gates>
__global__ void __launch_bounds__(kWarp, 1)
    cfc_warp_forward_kernel(const __grid_constant__ CfcWarpCall<T> call) {
  FASTLTC_SHARED_ARRAY(T, buffers, 2 * kWarpBuffer);
  const CfcLayer<T>& layer = call.layer;
  const Results<T>& out = call.out;
  const CfcLane<T> lane(call);
  const Stage<T>& stage = lane.stage;
  const int N = static_cast<int>(layer.size.N), first_output = N - static_cast<int>(layer.size.M);
  const int width = static_cast<int>(stage.width());
  // The first cell has its inputs' share given.
  const int window = stage.reads_x ? stage.first : stage.first - stage.inputs;
  T weight[slots][gates], bias[gates];
  FASTLTC_UNROLL
  for (int k = 0; k < slots; ++k) {
    FASTLTC_UNROLL
    for (int g = 0; g < gates; ++g) {
      const bool there = lane.is_neuron && k < stage.columns();
      const int64_t column = stage.skipped() + k;
      weight[k][g] = there ? stage.weight[column * width + lane.unit * stage.stride + g] : T(0);
    }
  }
  FASTLTC_UNROLL
  for (int g = 0; g < gates; ++g) bias[g] = stage.bias[lane.unit * stage.stride + g];
  for (int k = lane.neuron; k < 2 * kWarpBuffer; k += kWarp) buffers[k] = T(0);

  for (int64_t b = blockIdx.x; b < layer.rows.B; b += gridDim.x) {
    const int64_t length = layer.rows.length(b);
    T* from = buffers;
    T* to = buffers + kWarpBuffer;
    T h = lane.is_neuron ? layer.initial(b, lane.neuron) : T(0);
    if (lane.is_neuron) {
      from[lane.neuron] = h;
      if (out.states != nullptr) out.states[b * N + lane.neuron] = h;
    }
    T next[gates] = {}, next_dt = T(1);
    const auto load = [&](int64_t t) {
      if (!lane.is_neuron || t < 0 || t >= length) return;
      const int64_t r = layer.row(b, t);
      FASTLTC_UNROLL
      for (int g = 0; g < gates; ++g) {
        next[g] = stage.reads_x ? layer.given[r * width + lane.unit * stage.stride + g] : bias[g];
      }
      if constexpr (gates != 3) next_dt = layer.rows.step(b, t, lane.neuron);
    };
    load(-lane.cell);
    __syncwarp();
    const int64_t ticks = length == 0 ? 0 : length + call.cells - 1;
    for (int64_t tick = 0; tick < ticks; ++tick) {
      const int64_t t = tick - lane.cell;
      // Two sums for each gate, so that a chain of multiply-adds is half as long.
      T z[gates], second[gates] = {};
      FASTLTC_UNROLL
      for (int g = 0; g < gates; ++g) z[g] = next[g];
      const T dt = next_dt;
      load(t + 1);
      FASTLTC_UNROLL
      for (int k = 0; k < slots; k += 2) {
        const T even = from[window + k], odd = from[window + k + 1];
        FASTLTC_UNROLL
        for (int g = 0; g < gates; ++g) {
          z[g] += weight[k][g] * even;
          second[g] += weight[k + 1][g] * odd;
        }
      }
      FASTLTC_UNROLL
      for (int g = 0; g < gates; ++g) z[g] += second[g];
      T keep[gates];
      const T after = cell_forward<T, gates>(layer.mode, z, dt, lane.w_tau, lane.A, keep);
      if (lane.is_neuron) {
        if (t >= 0 && t < length) {
          h = after;
          const int64_t r = layer.row(b, t);
          if (out.states != nullptr) {
            out.states[(r + layer.rows.B) * N + lane.neuron] = h;
            FASTLTC_UNROLL
            for (int g = 0; g < gates; ++g) {
              stage.kept[r * stage.kept_pitch + lane.unit * gates + g] = keep[g];
            }
          }
          if (out.return_sequences && lane.neuron >= first_output) {
            element(out.output, b, t, lane.neuron - first_output) = h;
          }
        }
        to[lane.neuron] = h;
      }
      __syncwarp();
      swap_buffers(from, to);
    }
    if (!lane.is_neuron) continue;
    out.hn[b * N + lane.neuron] = h;
    const bool is_output = lane.neuron >= first_output;
    if (is_output && !out.return_sequences)
      element(out.output, b, 0, lane.neuron - first_output) = h;
    for (int64_t t = length; t < layer.size.T; ++t) {
      const int64_t r = layer.row(b, t);
      if (out.states != nullptr) {
        out.states[(r + layer.rows.B) * N + lane.neuron] = h;
        for (int g = 0; g < gates; ++g) {
          stage.kept[r * stage.kept_pitch + lane.unit * gates + g] = T(0);
        }
      }
      if (is_output && out.return_sequences)
        element(out.output, b, t, lane.neuron - first_output) = T(0);
    }
  }
}

template <typename T, int slots, int gates>
__global__ void __launch_bounds__(kWarp, 1)
    cfc_warp_backward_kernel(const __grid_constant__ CfcWarpCall<T> call) {
  constexpr int stride = gates == 1 ? 1 : 4;
  using Gradient = CellGradient<T, gates>;
  struct alignas(stride == 4 ? 16 : sizeof(T)) Packed {
    T value[stride];
  };
  FASTLTC_SHARED_ARRAY(Packed, buffers, 2 * kWarpBuffer);
  const CfcLayer<T>& layer = call.layer;
  const CfcWanted<T>& grad = call.grad;
  const CfcLane<T> lane(call);
  const Stage<T>& stage = lane.stage;
  const int N = static_cast<int>(layer.size.N), width = static_cast<int>(stage.width());
  // Onto whom the neuron has weights: its own cell and the next one.
  T weight[slots][gates];
  {
    const bool last = lane.cell == call.cells - 1;
    const Stage<T>& after = call.stages[last ? lane.cell : lane.cell + 1];
    const int reached = stage.units + (last ? 0 : after.units);
    FASTLTC_UNROLL
    for (int k = 0; k < slots; ++k) {
      const bool own = k < stage.units;
      const T* from = stage.weight + (stage.inputs + lane.unit) * width + k * stride;
      if (!own) from = after.weight + lane.unit * after.width() + (k - stage.units) * stride;
      FASTLTC_UNROLL
      for (int g = 0; g < gates; ++g) {
        weight[k][g] = lane.is_neuron && k < reached ? from[g] : T(0);
      }
    }
  }
  for (int k = lane.neuron; k < 2 * kWarpBuffer; k += kWarp) buffers[k] = Packed{};
  __syncwarp();

  for (int64_t b = blockIdx.x; b < layer.rows.B; b += gridDim.x) {
    const int64_t length = layer.rows.length(b);
    Packed* from = buffers;
    Packed* to = buffers + kWarpBuffer;
    // Of step `t`, read a tick ahead.
    T next[gates] = {}, next_dt = T(1), next_g = 0;
    const auto load = [&](int64_t t) {
      if (!lane.is_neuron || t < 0 || t >= length) return;
      const int64_t r = layer.row(b, t);
      FASTLTC_UNROLL
      for (int g = 0; g < gates; ++g) {
        next[g] = stage.kept[r * stage.kept_pitch + lane.unit * gates + g];
      }
      if constexpr (gates != 3) next_dt = layer.rows.step(b, t, lane.neuron);
      next_g = grad.step_gradient(layer, b, t, lane.neuron);
    };
    // Written at every step, so that the sums over rows need not ask for lengths.
    const auto write = [&](int64_t t, const Gradient& g, const Packed& dz) {
      const int64_t r = layer.row(b, t);
      *reinterpret_cast<Packed*>(stage.dz + r * width + lane.unit * stride) = dz;
      if (grad.grad_dt != nullptr) grad.grad_dt[r * N + lane.neuron] = g.dt;
      if (grad.grad_pure != nullptr) {
        grad.grad_pure[2 * r * N + lane.neuron] = g.w_tau;
        grad.grad_pure[(2 * r + 1) * N + lane.neuron] = g.A;
      }
    };
    for (int64_t t = length; t < layer.size.T && lane.is_neuron; ++t) write(t, {}, {});
    // The last cell begins; each lane goes on to step -1, where only the gradient of its initial
    // state is left.
    const int64_t begin = length - 1 + (call.cells - 1 - lane.cell);
    load(begin);
    const int64_t ticks = length + call.cells;
    for (int64_t tick = 0; tick < ticks; ++tick) {
      const int64_t t = begin - tick;
      T keep[gates];
      FASTLTC_UNROLL
      for (int g = 0; g < gates; ++g) keep[g] = next[g];
      const T dt = next_dt;
      T total = t >= 0 && t < length ? next_g : T(0), second = 0;
      load(t - 1);
      FASTLTC_UNROLL
      for (int k = 0; k < slots; k += 2) {
        const Packed even = from[stage.first + k], odd = from[stage.first + k + 1];
        FASTLTC_UNROLL
        for (int g = 0; g < gates; ++g) {
          total += weight[k][g] * even.value[g];
          second += weight[k + 1][g] * odd.value[g];
        }
      }
      total += second;
      Packed dz{};
      if (lane.is_neuron) {
        if (t == length - 1) total += grad.last_gradient(layer, b, lane.neuron);
        if (t >= 0 && t < length) {
          const Gradient g =
              cell_backward<T, gates>(layer.mode, keep, dt, lane.w_tau, lane.A, total);
          FASTLTC_UNROLL
          for (int n = 0; n < gates; ++n) dz.value[n] = g.dz[n];
          write(t, g, dz);
        } else if (t == -1 && grad.grad_h0 != nullptr) {
          grad.grad_h0[b * N + lane.neuron] = total;
        }
        to[lane.neuron] = dz;
      }
      __syncwarp();
      swap_buffers(from, to);
    }
    // What the next sample begins with.
    from[lane.neuron] = to[lane.neuron] = Packed{};
    __syncwarp();
  }
}

}  // namespace fastltc::cuda
