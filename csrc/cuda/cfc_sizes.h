// What follows from the sizes of a CfC layer alone: its stages (cfc_layer.h) without any memory.
#pragma once

#include <cstdint>
#include <vector>

#include "core/cfc_problem.h"

namespace fastltc::cuda {

// Stages that the plans with a warp or a block for samples have room for.
inline constexpr int kCfcMaxStages = 12;

struct CfcStageSizes {
  bool backbone = false;
  int64_t units = 0;
  int64_t gates = 0;
  int64_t inputs = 0;
  int64_t own = 0;
  int64_t first = 0;

  int64_t stride() const { return gates == 1 ? 1 : 4; }
  int64_t width() const { return units * stride(); }
};

template <typename T>
int64_t cfc_gates(const CfcInputs<T>& in) {
  return in.mode == CfcMode::pure ? 1 : in.timespans.data == nullptr ? 3 : 4;
}

// Of the backbone's layers, then of the cells.
template <typename T>
std::vector<CfcStageSizes> cfc_stages(const CfcInputs<T>& in) {
  std::vector<CfcStageSizes> stages;
  int64_t from = in.size.I, first = 0;
  for (int64_t s = 0; s < in.backbone_layers + in.cells; ++s) {
    CfcStageSizes stage;
    stage.backbone = s < in.backbone_layers;
    stage.units = stage.backbone ? in.backbone_units : in.cell_sizes[s - in.backbone_layers];
    stage.gates = stage.backbone ? 1 : cfc_gates(in);
    stage.inputs = from;
    stage.first = first;
    // The state enters at the backbone's first layer, or at the cells where there is none.
    if (s == 0 || in.backbone_layers == 0) stage.own = stage.backbone ? in.size.N : stage.units;
    if (!stage.backbone) first += stage.units;
    from = stage.units;
    stages.push_back(stage);
  }
  return stages;
}

template <typename T>
CfcStageSizes cfc_memory_stage(const CfcInputs<T>& in) {
  return {false, in.size.N, 4, in.size.I, in.size.N, 0};
}

}  // namespace fastltc::cuda
