// What the CfC kernels need of a layer's parameters, packed once per call; and from what they sum
// up, the parameters' gradients.
//
// Layout: the layer is a chain of products. A cell's heads are one packed weight, the gates of a
// neuron in neighbouring rows. Without time steps the two time heads are added up beforehand. With
// network lanes the parameters given are stacked, those of the first network at hand.
#pragma once

#include "core/cfc_problem.h"
#include "cpu/cells/dense.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/gradient_sums.h"
#include "cpu/frame/simd.h"
#include "cpu/frame/step.h"

namespace fastltc::cpu::FASTLTC_ISA {

// One product of the layer: a backbone layer, or the heads of a cell.
template <typename T, Lanes lanes>
struct CfcStage {
  PackedWeight<T, lanes> forward;
  PackedWeight<T, lanes> backward;  // the transpose
  const T* w_tau = nullptr;         // [size], pure
  const T* A = nullptr;
  T* own_w_tau = nullptr;  // these of network lanes
  T* own_A = nullptr;
  int64_t inputs = 0;     // from the stage before, or x
  int64_t own = 0;        // from the cell's own state
  int64_t size = 0;       // neurons, or units of the backbone
  int64_t state_row = 0;  // where the cell's own state starts
  int64_t kept_row = 0;   // where what a step keeps of the stage starts
  int64_t gates = 0;      // rows of a neuron in its heads, and what a step keeps of it; or 1
  int64_t parameter = 0;  // the first of its weights
  bool backbone = false;
};

template <typename T, Lanes lanes = Lanes::samples>
struct PackedCfc : PackedLayer<T, lanes> {
  static constexpr int64_t width = Parameter<T, lanes>::width;
  int64_t count = 0;
  CfcStage<T, lanes>* stages = nullptr;
  T* scratch = nullptr;  // [widest] registers, with network lanes
  int64_t gates = 0;     // of a cell
  int64_t kept_rows = 0;
  int64_t widest = 0;  // rows of the widest stage, in or out, padded
  int64_t multiply_adds = 0;

  void take(Arena& arena, const CfcInputs<T>& in, bool with_backward) {
    const bool unit_time = in.timespans.data == nullptr;
    gates = in.mode == CfcMode::pure ? 1 : unit_time ? 3 : 4;
    count = in.backbone_layers + in.cells;
    if constexpr (lanes == Lanes::networks) {
      const int64_t after = in.beside - in.net;
      this->networks = static_cast<int>(after < width ? after : width);
    }
    this->memory.take(arena, in, with_backward);
    this->motor = arena.take<int32_t>(in.size.M);
    stages = arena.take<CfcStage<T, lanes>>(count);
    // Counting runs without memory for the stages, so that their sizes are found twice.
    widest = padded_rows(in.size.I);
    kept_rows = multiply_adds = 0;
    int64_t from = in.size.I, state_row = 0, parameter = 0;
    for (int64_t s = 0; s < count; ++s) {
      CfcStage<T, lanes> stage;
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
      if constexpr (lanes == Lanes::networks) {
        const int64_t pure = in.mode == CfcMode::pure && !stage.backbone ? stage.size : 0;
        stage.w_tau = stage.own_w_tau = arena.take<T>(pure * width);
        stage.A = stage.own_A = arena.take<T>(pure * width);
      }
      if (padded_rows(rows) > widest) widest = padded_rows(rows);
      if (padded_rows(columns) > widest) widest = padded_rows(columns);
      stage.kept_row = kept_rows;
      kept_rows += rows;
      multiply_adds += rows * columns;
      from = stage.size;
      if (stages != nullptr) stages[s] = stage;
    }
    if constexpr (lanes == Lanes::networks) scratch = arena.take<T>(widest * width);
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
      CfcStage<T, lanes>& stage = stages[s];
      PackedWeight<T, lanes>& packed = stage.forward;
      packed.clear();
      const T* const* const p = in.parameters + stage.parameter;
      const T* const mask = mask_of(in, s);
      const int64_t first = in.net * stage.size;  // of the rows of a stacked parameter
      for (int64_t j = 0; j < stage.size; ++j) {
        for (int64_t gate = 0; gate < stage.gates; ++gate) {
          const int64_t row = j * stage.gates + gate, from = first + j;
          const T* const weight = p[2 * gate] + from * packed.inputs;
          const T* const own_mask =
              mask == nullptr || gate > 1 ? nullptr : mask + j * packed.inputs;
          // Without time steps the third row is time_a + time_b.
          const bool both = stage.gates == 3 && gate == 2;
          const T* const second = both ? p[6] + from * packed.inputs : nullptr;
          if constexpr (lanes == Lanes::networks) {
            const int64_t distance = stage.size * packed.inputs;
            load_row(weight, second, distance, packed.inputs, &packed.at(row, 0));
            clear_absent(own_mask, packed.inputs, &packed.at(row, 0));
            load_row(p[2 * gate + 1] + from, both ? p[7] + from : nullptr, stage.size, 1,
                     packed.bias + row * width);
            continue;
          }
          for (int64_t k = 0; k < packed.inputs; ++k) {
            const bool present = own_mask == nullptr || own_mask[k] != T(0);
            packed.at(row, k) = !present ? T(0) : both ? weight[k] + second[k] : weight[k];
          }
          packed.bias[row] = p[2 * gate + 1][from] + (both ? p[7][from] : T(0));
        }
      }
      if (with_backward) stage.backward.transpose_of(packed);
      if (stage.backbone || in.mode != CfcMode::pure) continue;
      if constexpr (lanes == Lanes::networks) {
        load_row(p[2] + first, nullptr, stage.size, stage.size, stage.own_w_tau);
        load_row(p[3] + first, nullptr, stage.size, stage.size, stage.own_A);
      } else {
        stage.w_tau = p[2] + first;
        stage.A = p[3] + first;
      }
    }
  }

  // Values of all networks, one `distance` after another, into rows of lanes, and the other way.
  // `second`, where it is not null, is added.
  void load_row(const T* values, const T* second, int64_t distance, int64_t count, T* to) const {
    const LaneGroup all{0, this->networks};
    load_rows(SequenceView<const T>{values, distance, 0, 1}, 0, count, all, to);
    if (second == nullptr) return;
    load_rows(SequenceView<const T>{second, distance, 0, 1}, 0, count, all, scratch);
    for (int64_t k = 0; k < count * width; ++k) to[k] += scratch[k];
  }
  void store_row(const T* rows, int64_t distance, int64_t count, T* to) const {
    store_rows(SequenceView<T>{to, distance, 0, 1}, 0, count, {0, this->networks}, rows);
  }
  static void clear_absent(const T* mask, int64_t count, T* rows) {
    for (int64_t k = 0; mask != nullptr && k < count; ++k) {
      if (mask[k] == T(0)) clear_rows(rows + k * width, 1);
    }
  }
};

template <typename T, Lanes lanes = Lanes::samples>
struct CfcSums : SequenceSums<T> {
  T* stages = nullptr;  // OuterProducts::sums of each stage, one after another
  T* w_tau = nullptr;   // pure: [N] rows of lanes
  T* A = nullptr;       // [N]

  void take(Arena& arena, const CfcInputs<T>& in, const PackedCfc<T, lanes>& layer) {
    int64_t of_stages = 0;
    for (int64_t s = 0; s < layer.count; ++s) {
      of_stages += OuterProducts<T, lanes>(layer.stages[s].forward, nullptr).sums_count();
    }
    const int64_t own = in.mode == CfcMode::pure ? in.size.N * Simd<T>::lanes : 0;
    stages = arena.take<T>(of_stages);
    w_tau = arena.take<T>(own);
    A = arena.take<T>(own);
    SequenceSums<T>::take(arena, in, layer);
  }
};

// Writes the parameters' gradients but the memory cell's.
template <typename T, Lanes lanes>
void write_cfc_gradients(const CfcInputs<T>& in, const CfcGradients<T>& grad,
                         const PackedCfc<T, lanes>& layer,
                         const GradientSums<T, CfcSums<T, lanes>>& sums) {
  const CfcSums<T, lanes>& total = sums.first;
  sums.take_up(total.stages);
  T* of_stage = total.stages;
  for (int64_t s = 0; s < layer.count; ++s) {
    const CfcStage<T, lanes>& stage = layer.stages[s];
    const int64_t columns = stage.forward.inputs;
    const OuterProducts<T, lanes> product(stage.forward, of_stage);
    of_stage += product.sums_count();
    T* const* const g = grad.parameters + stage.parameter;
    const T* const mask = layer.mask_of(in, s);
    const int64_t first = in.net * stage.size;
    const int64_t heads = stage.gates == 3 ? 4 : stage.gates;
    for (int64_t head = 0; head < heads; ++head) {
      // Without time steps both time heads have the gradient of their sum.
      const int64_t gate = head < stage.gates ? head : stage.gates - 1;
      for (int64_t j = 0; j < stage.size; ++j) {
        const int64_t row = j * stage.gates + gate;
        const T* const own_mask = mask == nullptr || head > 1 ? nullptr : mask + j * columns;
        if constexpr (lanes == Lanes::networks) {
          layer.clear_absent(own_mask, columns, product.four(row, 0));
          layer.store_row(product.four(row, 0), stage.size * columns, columns,
                          g[2 * head] + (first + j) * columns);
          layer.store_row(product.bias_sums() + row * layer.width, stage.size, 1,
                          g[2 * head + 1] + first + j);
          continue;
        }
        for (int64_t k = 0; k < columns; ++k) {
          const bool present = own_mask == nullptr || own_mask[k] != T(0);
          g[2 * head][(first + j) * columns + k] = present ? product.weight_sum(row, k) : T(0);
        }
        g[2 * head + 1][first + j] = product.bias_sum(row);
      }
    }
    if (stage.backbone || in.mode != CfcMode::pure) continue;
    if constexpr (lanes == Lanes::networks) {
      const int64_t from = stage.state_row * layer.width;
      layer.store_row(total.w_tau + from, stage.size, stage.size, g[2] + first);
      layer.store_row(total.A + from, stage.size, stage.size, g[3] + first);
      continue;
    }
    for (int64_t j = 0; j < stage.size; ++j) {
      const int64_t at = (stage.state_row + j) * Simd<T>::lanes;
      g[2][first + j] = Simd<T>::sum(Simd<T>::load(total.w_tau + at));
      g[3][first + j] = Simd<T>::sum(Simd<T>::load(total.A + at));
    }
  }
}

}  // namespace fastltc::cpu::FASTLTC_ISA
