// The CfC operators for any device: checks, allocates, calls the device's kernels. `Device` has
//   static ArgumentCheck check(const char* op, const Tensor& x)
//   static void forward(const Tensor& x, const CfcInputs<T>&, const CfcOutputs<T>&)
//   static void backward(const Tensor& x, const CfcInputs<T>&, const CfcGradients<T>&)
// The arrays of pointers that a CfcInputs holds are the host's, what they point to is the device's.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "core/cfc_problem.h"
#include "torch/checks.h"
#include "torch/sequence_arguments.h"

namespace fastltc {

using Tensors = std::vector<Tensor>;

// The arguments that both operators take, checked. Holds the tensors that its pointers look into.
struct CfcArguments : SequenceArguments {
  const Tensors& parameters;
  const Tensors& masks;
  const std::vector<int64_t>& layer_sizes;
  int64_t backbone_layers;
  int64_t mode;
  int64_t activation;
  const OptionalTensor& dropout;

  // Neurons of a cell or units of a backbone layer, so that kernels may count a step's in int.
  static constexpr int64_t kMostUnits = std::numeric_limits<int32_t>::max() / 64;

  int64_t units = 0;  // of the backbone
  Tensors contiguous{};
  Tensors contiguous_masks{};

  bool pure() const { return mode == static_cast<int64_t>(CfcMode::pure); }
  int64_t cell_parameters() const { return pure() ? 4 : 8; }

  void check(const ArgumentCheck& check) {
    check_x(check);
    check.that(mode >= 0 && mode <= 2, "mode",
               [&] { return "expected 0, 1 or 2, got " + std::to_string(mode); });
    check.that(activation >= 0 && activation <= 4, "activation",
               [&] { return "expected 0 to 4, got " + std::to_string(activation); });
    check.that(!layer_sizes.empty(), "layer_sizes", [] { return "expected at least one layer"; });
    const int64_t cells = static_cast<int64_t>(layer_sizes.size());
    size.I = x.size(2);
    for (const int64_t neurons : layer_sizes) {
      check.that(neurons >= 1 && neurons <= kMostUnits, "layer_sizes", [&] {
        return "expected 1 to " + std::to_string(kMostUnits) + " neurons each, got " +
               std::to_string(neurons);
      });
      size.N += neurons;
    }
    size.M = layer_sizes.back();
    check.that(backbone_layers >= 0 && (backbone_layers == 0 || (cells == 1 && masks.empty())),
               "backbone_layers", [&] {
                 return "expected 0, or more with one layer and no masks, got " +
                        std::to_string(backbone_layers);
               });
    // Before it is doubled.
    check.that(backbone_layers <= static_cast<int64_t>(parameters.size()), "backbone_layers", [&] {
      return "expected at most as many as there are parameters, got " +
             std::to_string(backbone_layers);
    });
    check_count(check, "parameters", parameters, 2 * backbone_layers + cells * cell_parameters());
    if (!masks.empty()) check_count(check, "masks", masks, cells);
    check_parameters(check);
    const double kept = static_cast<double>(gates() + 6) * static_cast<double>(size.N) +
                        static_cast<double>(backbone_layers) * static_cast<double>(units);
    check_count_of_states(check, kept);
    check_dropout(check);
    check_sequences(check);
  }

  static void check_count(const ArgumentCheck& check, const char* name, const Tensors& tensors,
                          int64_t expected) {
    check.that(static_cast<int64_t>(tensors.size()) == expected, name, [&] {
      return "expected " + std::to_string(expected) + " tensors, got " +
             std::to_string(tensors.size());
    });
  }

  void check_parameters(const ArgumentCheck& check) {
    int64_t k = 0;
    const auto next = [&](const char* kind, int64_t number, const char* part,
                          std::initializer_list<int64_t> shape) {
      check.value_of(
          [&] { return std::string("parameters: ") + kind + std::to_string(number) + part; },
          parameters[k], shape);
      contiguous.push_back(as_contiguous(parameters[k]));
      ++k;
    };
    contiguous.reserve(parameters.size());
    int64_t from = size.I;
    for (int64_t layer = 0; layer < backbone_layers; ++layer) {
      check.that(parameters[k].dim() == 2, "parameters", [&] {
        return "expected the weight of backbone " + std::to_string(layer) +
               " to have two dimensions, got " + shape_text(parameters[k]);
      });
      const int64_t columns = layer == 0 ? size.I + size.N : units;
      if (layer == 0) units = parameters[k].size(0);
      check.that(units <= kMostUnits, "parameters", [&] {
        return "expected at most " + std::to_string(kMostUnits) + " backbone units, got " +
               std::to_string(units);
      });
      next("backbone ", layer, ".weight", {units, columns});
      next("backbone ", layer, ".bias", {units});
      from = units;
    }
    for (size_t cell = 0; cell < layer_sizes.size(); ++cell) {
      const int64_t neurons = layer_sizes[cell];
      const int64_t columns = backbone_layers > 0 ? units : from + neurons;
      const int64_t layer = static_cast<int64_t>(cell);
      if (pure()) {
        next("layer ", layer, " ff1.weight", {neurons, columns});
        next("layer ", layer, " ff1.bias", {neurons});
        next("layer ", layer, " w_tau", {1, neurons});
        next("layer ", layer, " A", {1, neurons});
      } else {
        constexpr const char* heads[][2] = {{" ff1.weight", " ff1.bias"},
                                            {" ff2.weight", " ff2.bias"},
                                            {" time_a.weight", " time_a.bias"},
                                            {" time_b.weight", " time_b.bias"}};
        for (const auto& [weight, bias] : heads) {
          next("layer ", layer, weight, {neurons, columns});
          next("layer ", layer, bias, {neurons});
        }
      }
      if (!masks.empty()) {
        check.value("masks", masks[cell], {neurons, columns});
        contiguous_masks.push_back(as_contiguous(masks[cell]));
      }
      from = neurons;
    }
  }

  void check_dropout(const ArgumentCheck& check) const {
    if (!dropout.has_value()) return;
    check.that(backbone_layers > 1, "dropout",
               [] { return "expected None without a second backbone layer, got a tensor"; });
    check.value("dropout", *dropout, {backbone_layers - 1, size.B, size.T, units});
  }

  int64_t gates() const { return pure() ? 1 : timespans.has_value() ? 4 : 3; }
  int64_t states_numel() const {
    const int64_t of_memory = has_memory() ? kMemoryRows : 0;
    return size.B * ((size.T + 1) * size.N +
                     size.T * ((gates() + of_memory) * size.N + backbone_layers * units));
  }

  // Calls run(inputs); their arrays live as long as the call.
  template <typename T, typename Run>
  void with_inputs(Run run) const {
    std::vector<const T*> pointers, mask_pointers;
    for (const Tensor& tensor : contiguous) pointers.push_back(tensor.const_data_ptr<T>());
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
    in.cells = static_cast<int64_t>(layer_sizes.size());
    in.cell_sizes = layer_sizes.data();
    in.backbone_layers = backbone_layers;
    in.backbone_units = units;
    in.mode = static_cast<CfcMode>(mode);
    in.activation = static_cast<Activation>(activation);
    in.parameters = pointers.data();
    in.masks = masks.empty() ? nullptr : mask_pointers.data();
    in.dropout = dropout.has_value() ? factors.data() : nullptr;
    run(in);
  }
};

template <typename Device>
std::tuple<Tensor, Tensor, Tensor> cfc_forward(
    const Tensor& x, const OptionalTensor& h0, const OptionalTensor& timespans,
    const OptionalTensor& lengths, Tensors parameters, Tensors masks,
    std::vector<int64_t> layer_sizes, int64_t backbone_layers, int64_t mode, int64_t activation,
    const OptionalTensor& dropout, const OptionalTensor& memory_w, const OptionalTensor& memory_b,
    const OptionalTensor& memory_recurrent_w, bool return_sequences, bool time_major,
    bool save_states) {
  CfcArguments arguments{{x, h0, timespans, lengths, memory_w, memory_b, memory_recurrent_w},
                         parameters,
                         masks,
                         layer_sizes,
                         backbone_layers,
                         mode,
                         activation,
                         dropout};
  arguments.check(Device::check("fastltc::cfc_forward", x));
  SequenceResults results(arguments, arguments.states_numel(), return_sequences, time_major,
                          save_states);
  with_dtype(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    CfcOutputs<T> out;
    results.fill<T>(out);
    arguments.with_inputs<T>([&](const CfcInputs<T>& in) { Device::forward(x, in, out); });
  });
  return {results.output, results.hn, results.states};
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor, Tensors, Tensor, Tensor, Tensor> cfc_backward(
    const OptionalTensor& grad_output, const OptionalTensor& grad_hn, const Tensor& x,
    const OptionalTensor& h0, const OptionalTensor& timespans, const OptionalTensor& lengths,
    Tensors parameters, Tensors masks, std::vector<int64_t> layer_sizes, int64_t backbone_layers,
    int64_t mode, int64_t activation, const OptionalTensor& dropout, const OptionalTensor& memory_w,
    const OptionalTensor& memory_b, const OptionalTensor& memory_recurrent_w, const Tensor& states,
    bool return_sequences, bool time_major, bool timespans_grad) {
  CfcArguments arguments{{x, h0, timespans, lengths, memory_w, memory_b, memory_recurrent_w},
                         parameters,
                         masks,
                         layer_sizes,
                         backbone_layers,
                         mode,
                         activation,
                         dropout};
  const ArgumentCheck check = Device::check("fastltc::cfc_backward", x);
  arguments.check(check);
  SequenceGradients results(check, arguments, grad_output, grad_hn, states,
                            arguments.states_numel(), return_sequences, time_major, timespans_grad);
  Tensors grad_parameters;
  for (const Tensor& parameter : arguments.contiguous) {
    grad_parameters.push_back(parameter.dim() == 1
                                  ? new_tensor(x, parameter.size(0))
                                  : new_tensor(x, parameter.size(0), parameter.size(1)));
  }
  with_dtype(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    std::vector<T*> pointers;
    for (Tensor& tensor : grad_parameters) pointers.push_back(tensor.mutable_data_ptr<T>());
    CfcGradients<T> g;
    results.fill<T>(g);
    g.parameters = pointers.data();
    arguments.with_inputs<T>([&](const CfcInputs<T>& in) { Device::backward(x, in, g); });
  });
  return {results.x,         results.h0,        results.timespans, grad_parameters,
          results.memory[0], results.memory[1], results.memory[2]};
}

}  // namespace fastltc
