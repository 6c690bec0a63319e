// The arguments of the LTC operators; see sequence_operator.h.
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/ltc_problem.h"
#include "core/synapse_check.h"
#include "torch/checked_list.h"
#include "torch/sequence_operator.h"

namespace fastltc {

struct LtcArguments : SequenceArguments {
  const Tensor& synapses;
  const Tensor& sensory_synapses;
  // Bit m: whether `parameters` has row kFirstMap + m of the table. All rows before are there.
  int64_t maps;
  int64_t output_size;
  int64_t ode_unfolds;
  double epsilon;
  bool softplus;
  bool medium_sigmoid;

  std::array<size_t, std::size(kLtcParameters<const void*>)> rows{};  // for each of `parameters`
  std::optional<Tensor> list{}, sensory_list{};
  CheckedList list_read{}, sensory_list_read{};  // where they can be read

  template <typename T>
  using Gradients = LtcGradients<T>;

  static constexpr const char* forward_name = "fastltc::ltc_forward";
  static constexpr const char* backward_name = "fastltc::ltc_backward";
  static constexpr const char* schema =
      "Tensor synapses, Tensor sensory_synapses, int maps, int output_size, int ode_unfolds, "
      "float epsilon, bool softplus, bool medium_sigmoid";
  static constexpr const auto& kTable = kLtcParameters<const void*>;
  static constexpr size_t kFirstMap = 11, kCm = 2;
  static_assert(kTable[kFirstMap - 1].shape == LtcShape::sensory &&
                kTable[kFirstMap].shape == LtcShape::input);

  void check(const ArgumentCheck& check) {
    size_t count = 0;
    for (size_t row = 0; row < std::size(kTable); ++row) {
      if (row < kFirstMap || (maps >> (row - kFirstMap) & 1) != 0) rows[count++] = row;
    }
    check.that(parameters.size() == count, "parameters", [&] {
      return "expected " + std::to_string(count) + " tensors, got " +
             std::to_string(parameters.size());
    });
    // Stacked parameters are those of several layers beside each other.
    const Tensor& cm = parameters[kCm];
    check_networks(check, "cm", cm, 1);
    const int64_t neurons = cm.dim() > 0 ? cm.size(cm.dim() - 1) : 0;
    const int64_t most = std::numeric_limits<int32_t>::max() / 64;
    const int64_t inputs = x.size(2) / nets;
    check.that(output_size >= 1 && output_size <= neurons, "output_size", [&] {
      return "expected 1 to the number of neurons, " + std::to_string(neurons) + ", got " +
             std::to_string(output_size);
    });
    check.that(ode_unfolds >= 1, "ode_unfolds",
               [&] { return "expected 1 or more, got " + std::to_string(ode_unfolds); });
    const auto check_most = [&](int64_t size, const char* name, const char* what) {
      check.that(size <= most, name, [&] {
        return "expected at most " + std::to_string(most) + what + ", got " + std::to_string(size);
      });
    };
    check_most(ode_unfolds, "ode_unfolds", "");
    check_most(x.size(2), "x", " features");
    check_most(neurons, "cm", " neurons");
    check_most(nets * neurons, "cm", " neurons");
    size.N = nets * neurons;
    size.I = x.size(2);
    size.M = nets * output_size;
    size.U = ode_unfolds;
    // By LtcShape, of one layer behind the K of stacked ones.
    const int64_t shapes[][3] = {{nets, neurons},
                                 {nets, neurons, neurons},
                                 {nets, inputs, neurons},
                                 {nets, inputs},
                                 {nets, output_size}};
    constexpr const char* letters[][2] = {{"[N]", "[K, N]"},
                                          {"[N, N]", "[K, N, N]"},
                                          {"[I, N]", "[K, I, N]"},
                                          {"[I]", "[K, I]"},
                                          {"[M]", "[K, M]"}};
    contiguous.reserve(count);
    for (size_t k = 0; k < count; ++k) {
      const auto shape = static_cast<size_t>(kTable[rows[k]].shape);
      const size_t dim = (partly_written(k) ? 2 : 1) + (stacked ? 1 : 0);
      const std::span expected(shapes[shape] + (stacked ? 0 : 1), dim);
      check.value(kTable[rows[k]].name, parameters[k], letters[shape][stacked], expected);
      contiguous.push_back(as_contiguous(parameters[k]));
    }
    list = check_synapses(check, "synapses", synapses, size.N, list_read);
    sensory_list =
        check_synapses(check, "sensory_synapses", sensory_synapses, size.I, sensory_list_read);
  }

  // Of matrices only the synapses are written.
  bool partly_written(size_t k) const {
    const LtcShape shape = kTable[rows[k]].shape;
    return shape == LtcShape::recurrent || shape == LtcShape::sensory;
  }

  Tensor check_synapses(const ArgumentCheck& check, const char* name, const Tensor& list,
                        int64_t rows, CheckedList& read) const {
    check.indices(name, list, "fastltc.nn.synapse_list");
    const Tensor values = as_contiguous(list);
    // Kernels for other devices hold a list that is not well formed inside its bounds, as long as
    // there is any matrix to be inside of.
    if (!check.can_read_values()) {
      const int64_t fewest = size.N + 1;
      const int64_t most = fewest + rows * size.N;
      check.that(
          values.numel() >= fewest && values.numel() <= most, name,
          [&] {
            return "expected " + std::to_string(fewest) + " to " + std::to_string(most) +
                   " integers, got " + std::to_string(values.numel());
          },
          Fault::broken);
      return values;
    }
    read = checked_list(values.const_data_ptr<int32_t>(), values.numel(), size.N, rows,
                        synapse_list_error, [&](const std::string& problem) {
                          check.that(false, name, [&] { return problem; }, Fault::broken);
                        });
    return values;
  }

  template <typename T, typename Run>
  void with_inputs(const std::vector<const T*>& pointers, Run run) const {
    LtcInputs<T> in;
    fill(in);
    for (size_t k = 0; k < parameters.size(); ++k) {
      in.parameters.*kLtcParameters<const T*>[rows[k]].pointer = pointers[k];
    }
    in.parameters.epsilon = epsilon;
    in.parameters.softplus = softplus;
    in.medium_sigmoid = medium_sigmoid;
    in.synapses = synapse_list(*list, list_read);
    in.sensory_synapses = synapse_list(*sensory_list, sensory_list_read);
    in.kept_unfolds = ltc_kept_unfolds(size, counts().synapses, nets);
    run(in);
  }

  template <typename T>
  void fill_gradients(LtcGradients<T>& grad, const std::vector<T*>& pointers) const {
    for (size_t k = 0; k < parameters.size(); ++k) {
      grad.*kLtcParameters<T*>[rows[k]].pointer = pointers[k];
    }
  }

  SynapseList synapse_list(const Tensor& list, const CheckedList& read) const {
    const int32_t* const values = read == nullptr ? list.const_data_ptr<int32_t>() : read->data();
    return {values, values + size.N + 1};
  }

  LtcCounts counts() const {
    return {list->numel() - size.N - 1, sensory_list->numel() - size.N - 1};
  }

  // See core/ltc_problem.h; the fake kernel has to say the same.
  template <typename Device>
  int64_t kept_of_step() const {
    return size.N * (Device::kept_unfolds(*this) + (has_memory() ? 1 + kMemoryRows : 0));
  }
};

template <typename Device>
using LtcOperator = SequenceOperator<LtcArguments, Device, const Tensor&, const Tensor&, int64_t,
                                     int64_t, int64_t, double, bool, bool>;

}  // namespace fastltc
