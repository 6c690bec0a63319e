// The arguments of the CfC operators; see sequence_operator.h.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "core/cfc_problem.h"
#include "torch/sequence_operator.h"

namespace fastltc {

struct CfcArguments : SequenceArguments {
  const Tensors& masks;
  const OptionalTensor& dropout;
  const std::vector<int64_t>& layer_sizes;
  int64_t backbone_layers;
  int64_t mode;
  int64_t activation;
  int64_t output_size;

  int64_t units = 0;  // of the backbone
  Tensors contiguous_masks{};

  template <typename T>
  using Gradients = CfcGradients<T>;

  static constexpr const char* forward_name = "fastltc::cfc_forward";
  static constexpr const char* backward_name = "fastltc::cfc_backward";
  static constexpr const char* schema =
      "Tensor[] masks, Tensor? dropout, int[] layer_sizes, int backbone_layers, int mode, "
      "int activation, int output_size";
  // Neurons of a cell or units of a backbone layer, so that kernels may count a step's in int.
  static constexpr int64_t kMostUnits = std::numeric_limits<int32_t>::max() / 64;

  bool pure() const { return mode == static_cast<int64_t>(CfcMode::pure); }
  int64_t cells() const { return static_cast<int64_t>(layer_sizes.size()); }

  void check(const ArgumentCheck& check) {
    check.that(mode >= 0 && mode <= 2, "mode",
               [&] { return "expected 0, 1 or 2, got " + std::to_string(mode); });
    check.that(activation >= 0 && activation <= 4, "activation",
               [&] { return "expected 0 to 4, got " + std::to_string(activation); });
    const auto [least, most] = std::ranges::minmax_element(layer_sizes);
    check.that(!layer_sizes.empty() && *least >= 1, "layer_sizes",
               [&] { return "expected sizes of 1 or more, got " + list_text(layer_sizes); });
    check.that(*most <= kMostUnits, "layer_sizes", [&] {
      return "expected at most " + std::to_string(kMostUnits) + " neurons each, got " +
             list_text(layer_sizes);
    });
    size.I = x.size(2);
    int64_t neurons = 0;
    for (const int64_t of_cell : layer_sizes) neurons += of_cell;
    check.that(output_size >= 1 && output_size <= neurons, "output_size", [&] {
      return "expected 1 to " + std::to_string(neurons) + " neurons, got " +
             std::to_string(output_size);
    });
    // The first parameter is a weight in any case.
    if (!parameters.empty()) check_networks(check, "parameters", parameters[0], 2);
    check.that(!stacked || check.can_read_values(), "parameters",
               [] { return "expected those of one layer on CUDA devices, got stacked ones"; });
    check.that(neurons <= std::numeric_limits<int64_t>::max() / (64 * nets), "parameters",
               [&] { return "expected fewer layers, got " + std::to_string(nets); });
    size.N = nets * neurons;
    size.M = nets * output_size;
    check.that(backbone_layers >= 0 && (backbone_layers == 0 || (cells() == 1 && is_none(masks))),
               "backbone_layers", [&] {
                 return "expected 0, or more with one cell and no masks, got " +
                        std::to_string(backbone_layers) + " with " + std::to_string(cells()) +
                        " cells and " + std::to_string(masks.size()) + " masks";
               });
    // Before it is doubled.
    check.that(backbone_layers <= static_cast<int64_t>(parameters.size()), "backbone_layers", [&] {
      return "expected at most as many as there are parameters, got " +
             std::to_string(backbone_layers);
    });
    check.that(is_none(masks) || masks.size() == layer_sizes.size(), "masks", [&] {
      return "expected none or one for each of " + std::to_string(cells()) + " cells, got " +
             std::to_string(masks.size());
    });
    const int64_t count = 2 * backbone_layers + cells() * (pure() ? 4 : 8);
    check.that(static_cast<int64_t>(parameters.size()) == count, "parameters", [&] {
      constexpr const char* modes[] = {"default", "no_gate", "pure"};
      return "expected " + std::to_string(count) + " tensors with " + std::to_string(cells()) +
             " cells, " + std::to_string(backbone_layers) + " backbone layers and mode '" +
             modes[mode] + "', got " + std::to_string(parameters.size());
    });
    check_parameters(check);
    if (!dropout.has_value()) return;
    check.value("dropout", dropout, "[backbone_layers - 1, B, T, units]",
                {backbone_layers - 1, size.B, size.T, nets * units});
  }

  void check_parameters(const ArgumentCheck& check) {
    size_t k = 0;
    const auto next = [&](const auto& name, std::initializer_list<int64_t> shape) {
      int64_t sizes[3] = {nets};
      std::ranges::copy(shape, sizes + 1);
      check.value(
          [&] { return "parameters[" + std::to_string(k) + "] (" + std::string(name()) + ")"; },
          parameters[k], "", std::span(sizes + !stacked, shape.size() + stacked));
      contiguous.push_back(as_contiguous(parameters[k]));
      ++k;
    };
    // A weight [rows, columns] and its bias.
    const auto linear = [&](const auto& name, int64_t rows, int64_t columns) {
      next([&] { return name() + "weight"; }, {rows, columns});
      next([&] { return name() + "bias"; }, {rows});
    };
    contiguous.reserve(parameters.size());
    int64_t from = (size.I + size.N) / nets;
    if (backbone_layers > 0) {
      const Tensor& weight = parameters[0];
      units = weight.dim() > 1 ? weight.size(weight.dim() - 2) : 0;
    }
    check.that(units <= kMostUnits, "parameters", [&] {
      return "expected at most " + std::to_string(kMostUnits) + " backbone units, got " +
             std::to_string(units);
    });
    for (int64_t layer = 0; layer < backbone_layers; ++layer) {
      linear([&] { return "backbone " + std::to_string(layer) + " "; }, units, from);
      from = units;
    }
    if (backbone_layers == 0) from = size.I / nets;
    for (size_t cell = 0; cell < layer_sizes.size(); ++cell) {
      const int64_t neurons = layer_sizes[cell];
      const int64_t columns = backbone_layers > 0 ? units : from + neurons;
      if (!is_none(masks)) {
        check.value([&] { return "masks[" + std::to_string(cell) + "]"; }, masks[cell], "[n, K]",
                    {neurons, columns});
        contiguous_masks.push_back(as_contiguous(masks[cell]));
      }
      for (const char* const head : {"ff1.", "ff2.", "time_a.", "time_b."}) {
        linear([&] { return std::string(head); }, neurons, columns);
        if (pure()) break;
      }
      if (pure()) {
        next([] { return "w_tau"; }, {1, neurons});
        next([] { return "A"; }, {1, neurons});
      }
      from = neurons;
    }
  }

  bool partly_written(size_t) const { return false; }

  template <typename Device>
  int64_t kept_of_step() const {
    const int64_t gates = pure() ? 1 : timespans.has_value() ? 4 : 3;
    const int64_t of_neuron = 1 + gates + (has_memory() ? kMemoryRows : 0);
    return of_neuron * size.N + backbone_layers * nets * units;
  }

  template <typename T, typename Run>
  void with_inputs(const std::vector<const T*>& pointers, Run run) const {
    std::vector<const T*> mask_pointers;
    for (const Tensor& tensor : contiguous_masks) {
      mask_pointers.push_back(tensor.const_data_ptr<T>());
    }
    std::vector<SequenceView<const T>> factors;
    if (dropout.has_value()) {
      for (int64_t layer = 0; layer + 1 < backbone_layers; ++layer) {
        factors.push_back({dropout->const_data_ptr<T>() + layer * dropout->stride(0),
                           dropout->stride(1), dropout->stride(2), dropout->stride(3)});
      }
    }
    CfcInputs<T> in;
    fill(in);
    in.cells = cells();
    in.cell_sizes = layer_sizes.data();
    in.backbone_layers = backbone_layers;
    in.backbone_units = units;
    in.mode = static_cast<CfcMode>(mode);
    in.activation = static_cast<Activation>(activation);
    in.parameters = pointers.data();
    in.masks = is_none(masks) ? nullptr : mask_pointers.data();
    in.dropout = dropout.has_value() ? factors.data() : nullptr;
    run(in);
  }

  template <typename T>
  void fill_gradients(CfcGradients<T>& grad, const std::vector<T*>& pointers) const {
    grad.parameters = pointers.data();
  }
};

template <typename Device>
using CfcOperator =
    SequenceOperator<CfcArguments, Device, const Tensors&, const OptionalTensor&,
                     const std::vector<int64_t>&, int64_t, int64_t, int64_t, int64_t>;

}  // namespace fastltc
