// What the CfC kernels need of a layer's parameters, packed once per call; and from what they sum
// up, the parameters' gradients.
//
// Layout: the layer is a chain of products. A cell's heads are one packed weight, the gates of a
// neuron in neighbouring rows. Without time steps the two time heads are added up beforehand.
#pragma once

#include "core/cfc_problem.h"
#include "cpu/cells/dense.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/gradient_sums.h"
#include "cpu/frame/simd.h"
#include "cpu/frame/step.h"

namespace fastltc::cpu::FASTLTC_ISA {

// One product of the layer: a backbone layer, or the heads of a cell.
template <typename T>
struct CfcStage {
  PackedWeight<T> forward;
  PackedWeight<T> backward;  // the transpose
  int64_t inputs = 0;        // from the stage before, or x
  int64_t own = 0;           // from the cell's own state
  int64_t size = 0;          // neurons, or units of the backbone
  int64_t state_row = 0;     // where the cell's own state starts
  int64_t kept_row = 0;      // where what a step keeps of the stage starts
  int64_t gates = 0;         // rows of a neuron in its heads, and what a step keeps of it; or 1
  int64_t parameter = 0;     // the first of its weights
  bool backbone = false;
};

template <typename T>
struct PackedCfc : PackedLayer<T> {
  int64_t count = 0;
  CfcStage<T>* stages = nullptr;
  int64_t gates = 0;  // of a cell
  int64_t kept_rows = 0;
  int64_t widest = 0;  // rows of the widest stage, in or out, padded
  int64_t multiply_adds = 0;

  void take(Arena& arena, const CfcInputs<T>& in, bool with_backward) {
    const bool unit_time = in.timespans.data == nullptr;
    gates = in.mode == CfcMode::pure ? 1 : unit_time ? 3 : 4;
    count = in.backbone_layers + in.cells;
    this->memory.take(arena, in, with_backward);
    this->motor = arena.take<int32_t>(in.size.M);
    stages = arena.take<CfcStage<T>>(count);
    // Counting runs without memory for the stages, so that their sizes are found twice.
    widest = padded_rows(in.size.I);
    kept_rows = multiply_adds = 0;
    int64_t from = in.size.I, state_row = 0, parameter = 0;
    for (int64_t s = 0; s < count; ++s) {
      CfcStage<T> stage;
      stage.backbone = s < in.backbone_layers;
      stage.size = stage.backbone ? in.backbone_units : in.cell_sizes[s - in.backbone_layers];
      stage.inputs = from;
      // The state enters at the backbone's first layer, or at the heads where there is none.
      const bool first_of_cell = s == 0 || (!stage.backbone && in.backbone_layers == 0);
      stage.own = !first_of_cell ? 0 : stage.backbone ? in.size.N : stage.size;
      stage.state_row = state_row;
      if (!stage.backbone) state_row += stage.size;
      stage.gates = stage.backbone ? 1 : gates;
      stage.parameter = parameter;
      parameter += stage.backbone ? 2 : in.mode == CfcMode::pure ? 4 : 8;
      const int64_t rows = stage.size * stage.gates;
      const int64_t columns = stage.inputs + stage.own;
      stage.forward.take(arena, rows, columns);
      if (with_backward) stage.backward.take(arena, columns, rows);
      if (padded_rows(rows) > widest) widest = padded_rows(rows);
      if (padded_rows(columns) > widest) widest = padded_rows(columns);
      stage.kept_row = kept_rows;
      kept_rows += rows;
      multiply_adds += rows * columns;
      from = stage.size;
      if (stages != nullptr) stages[s] = stage;
    }
    this->history = {in.size.T, in.size.N, 1, 1, kept_rows, this->memory.kept()};
  }

  // The work of one sample and step in sigmoids, a dozen multiply-adds counted as one.
  int64_t evaluations(const CfcInputs<T>& in) const {
    return multiply_adds / 12 + 3 * in.size.N + this->memory.evaluations();
  }

  // Of ff1 and ff2 of a cell, [size, inputs + own]; null: all ones.
  static const T* mask_of(const CfcInputs<T>& in, int64_t stage) {
    return in.masks == nullptr || stage < in.backbone_layers ? nullptr
                                                             : in.masks[stage - in.backbone_layers];
  }

  void fill(const CfcInputs<T>& in, bool with_backward) {
    this->memory.fill(in, with_backward);
    // The outputs are the last cell's neurons.
    for (int64_t m = 0; m < in.size.M; ++m) {
      this->motor[m] = static_cast<int32_t>(in.size.N - in.size.M + m);
    }
    for (int64_t s = 0; s < count; ++s) {
      CfcStage<T>& stage = stages[s];
      PackedWeight<T>& packed = stage.forward;
      packed.clear();
      const T* const* const p = in.parameters + stage.parameter;
      const T* const mask = mask_of(in, s);
      for (int64_t j = 0; j < stage.size; ++j) {
        for (int64_t gate = 0; gate < stage.gates; ++gate) {
          const int64_t row = j * stage.gates + gate;
          const T* const weight = p[2 * gate] + j * packed.inputs;
          // Without time steps the third row is time_a + time_b.
          const bool both = stage.gates == 3 && gate == 2;
          const T* const second = both ? p[6] + j * packed.inputs : nullptr;
          for (int64_t k = 0; k < packed.inputs; ++k) {
            const bool present = gate > 1 || mask == nullptr || mask[j * packed.inputs + k] != T(0);
            packed.at(row, k) = !present ? T(0) : both ? weight[k] + second[k] : weight[k];
          }
          packed.bias[row] = p[2 * gate + 1][j] + (both ? p[7][j] : T(0));
        }
      }
      if (with_backward) stage.backward.transpose_of(packed);
    }
  }
};

template <typename T>
struct CfcSums : SequenceSums<T> {
  T* stages = nullptr;  // OuterProducts::sums of each stage, one after another
  T* w_tau = nullptr;   // pure: [N] rows of lanes
  T* A = nullptr;       // [N]

  void take(Arena& arena, const CfcInputs<T>& in, const PackedCfc<T>& layer) {
    int64_t of_stages = 0;
    for (int64_t s = 0; s < layer.count; ++s) {
      of_stages += OuterProducts<T>(layer.stages[s].forward, nullptr).sums_count();
    }
    const int64_t own = in.mode == CfcMode::pure ? in.size.N * Simd<T>::lanes : 0;
    stages = arena.take<T>(of_stages);
    w_tau = arena.take<T>(own);
    A = arena.take<T>(own);
    SequenceSums<T>::take(arena, in, layer);
  }
};

// Writes the parameters' gradients but the memory cell's.
template <typename T>
void write_cfc_gradients(const CfcInputs<T>& in, const CfcGradients<T>& grad,
                         const PackedCfc<T>& layer, const GradientSums<T, CfcSums<T>>& sums) {
  const CfcSums<T>& total = sums.first;
  sums.take_up(total.stages);
  T* of_stage = total.stages;
  for (int64_t s = 0; s < layer.count; ++s) {
    const CfcStage<T>& stage = layer.stages[s];
    const int64_t columns = stage.forward.inputs;
    const OuterProducts<T> product(stage.forward, of_stage);
    of_stage += product.sums_count();
    T* const* const g = grad.parameters + stage.parameter;
    const T* const mask = layer.mask_of(in, s);
    const int64_t heads = stage.gates == 3 ? 4 : stage.gates;
    for (int64_t head = 0; head < heads; ++head) {
      // Without time steps both time heads have the gradient of their sum.
      const int64_t gate = head < stage.gates ? head : stage.gates - 1;
      for (int64_t j = 0; j < stage.size; ++j) {
        const int64_t row = j * stage.gates + gate;
        for (int64_t k = 0; k < columns; ++k) {
          const bool present = head > 1 || mask == nullptr || mask[j * columns + k] != T(0);
          g[2 * head][j * columns + k] = present ? product.weight_sum(row, k) : T(0);
        }
        g[2 * head + 1][j] = product.bias_sum(row);
      }
    }
    if (stage.backbone || in.mode != CfcMode::pure) continue;
    for (int64_t j = 0; j < stage.size; ++j) {
      const int64_t at = (stage.state_row + j) * Simd<T>::lanes;
      g[2][j] = Simd<T>::sum(Simd<T>::load(total.w_tau + at));
      g[3][j] = Simd<T>::sum(Simd<T>::load(total.A + at));
    }
  }
}

}  // namespace fastltc::cpu::FASTLTC_ISA
