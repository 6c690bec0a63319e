// The LTC operators for any device: checks, allocates, calls the device's kernels. `Device` has
//   static constexpr bool wants_zeros, whether its kernels expect the gradients of matrices zeroed
//   static ArgumentCheck check(const char* op, const Tensor& x)
//   static bool keeps_rates(const LayerSizes&, const LtcCounts&, bool is_float64), whether the
//     rates of all unfolds stand behind their states; the fake kernel has to say the same
//   static void forward(const Tensor& x, const LtcInputs<T>&, const LtcCounts&,
//                       const LtcOutputs<T>&)
//   static void backward(..., const LtcGradients<T>&)
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <tuple>

#include "core/ltc_problem.h"
#include "core/synapse_check.h"
#include "torch/checks.h"
#include "torch/sequence_arguments.h"

namespace fastltc {

// The arguments that both operators take, checked. Holds the tensors that its pointers look into.
struct LtcArguments : SequenceArguments {
  // In the order of the schema; input_w to output_b may be absent.
  std::array<const Tensor*, 15> parameters;
  const Tensor& synapses;
  const Tensor& sensory_synapses;
  int64_t output_size;
  int64_t ode_unfolds;
  double epsilon;
  bool softplus;

  bool stacked = false;
  int64_t nets = 1;
  std::array<std::optional<Tensor>, 17> contiguous{};  // the parameters, then the synapse lists

  static constexpr std::array<const char*, 15> names = {
      "gleak",   "vleak",         "cm",         "sigma",     "mu",           "w",
      "erev",    "sensory_sigma", "sensory_mu", "sensory_w", "sensory_erev", "input_w",
      "input_b", "output_w",      "output_b"};

  void check(const ArgumentCheck& check) {
    check_x(check);
    // Stacked parameters are those of several layers beside each other.
    stacked = parameters[0]->dim() == 2;
    check.that(stacked || parameters[0]->dim() == 1, "gleak", [&] {
      return "expected shape [N], or [K, N] of K layers, got " + shape_text(*parameters[0]);
    });
    nets = stacked ? parameters[0]->size(0) : 1;
    check.that(nets >= 1, "gleak", [] { return std::string("expected at least one layer"); });
    const int64_t neurons = parameters[0]->size(stacked ? 1 : 0);
    size.U = ode_unfolds;
    check.that(size.U >= 1, "ode_unfolds",
               [&] { return "expected at least 1, got " + std::to_string(size.U); });
    check.that(output_size >= 1 && output_size <= neurons, "output_size", [&] {
      return "expected 1 to " + std::to_string(neurons) + " (the neurons), got " +
             std::to_string(output_size);
    });
    check.that(parameters[7]->dim() == (stacked ? 3 : 2), "sensory_sigma", [&] {
      return std::string("expected shape ") + (stacked ? "[K, I, N]" : "[I, N]") + ", got " +
             shape_text(*parameters[7]);
    });
    const int64_t inputs = parameters[7]->size(stacked ? 1 : 0);
    const int64_t most = std::numeric_limits<int32_t>::max() / 64;
    check.that(nets <= most, "gleak",
               [&] { return "expected at most " + std::to_string(most) + " layers"; });
    size.N = nets * (neurons < most ? neurons : most + 1);
    size.I = nets * (inputs < most ? inputs : most + 1);
    size.M = nets * output_size;
    check.that(x.size(2) == size.I, "x", [&] {
      return "expected " + std::to_string(size.I) + " features (the rows of sensory_sigma), got " +
             std::to_string(x.size(2)) + " in shape " + shape_text(x);
    });
    check.that(size.N <= most, "gleak",
               [&] { return "expected at most " + std::to_string(most) + " neurons"; });
    check.that(size.I <= most, "x",
               [&] { return "expected at most " + std::to_string(most) + " features"; });
    check.that(size.U <= most, "ode_unfolds", [&] {
      return "expected at most " + std::to_string(most) + ", got " + std::to_string(size.U);
    });
    check_count_of_states(check,
                          static_cast<double>(size.N) * (2 * static_cast<double>(size.U) + 6));
    for (size_t k = 0; k < parameters.size(); ++k) {
      if (parameters[k] == nullptr) continue;
      if (k < 3) {
        check_parameter(check, k, {neurons});
      } else if (k < 7) {
        check_parameter(check, k, {neurons, neurons});
      } else if (k < 11) {
        check_parameter(check, k, {inputs, neurons});
      } else if (k < 13) {
        check_parameter(check, k, {inputs});
      } else {
        check_parameter(check, k, {output_size});
      }
      contiguous[k] = as_contiguous(*parameters[k]);
    }
    check.that(!stacked || !has_memory(), "memory_w",
               [] { return std::string("expected None for several layers, got a tensor"); });
    contiguous[15] = check_synapses(check, "synapses", synapses, size.N);
    contiguous[16] = check_synapses(check, "sensory_synapses", sensory_synapses, size.I);
    check_sequences(check);
  }

  void check_parameter(const ArgumentCheck& check, size_t k,
                       std::initializer_list<int64_t> shape) const {
    if (!stacked) return check.value(names[k], *parameters[k], shape);
    const int64_t* const sizes = shape.begin();
    if (shape.size() == 1) return check.value(names[k], *parameters[k], {nets, sizes[0]});
    check.value(names[k], *parameters[k], {nets, sizes[0], sizes[1]});
  }

  Tensor check_synapses(const ArgumentCheck& check, const char* name, const Tensor& list,
                        int64_t rows) const {
    check.device(name, list);
    check.dtype(name, list, ScalarType::Int);
    check.that(list.dim() == 1, name,
               [&] { return "expected one dimension, got " + shape_text(list); });
    const Tensor values = as_contiguous(list);
    // Kernels for other devices hold a list that is not well formed inside its bounds, as long as
    // there is any matrix to be inside of.
    if (!check.can_read_values()) {
      const int64_t fewest = size.N + 1;
      const int64_t most = fewest + rows * size.N;
      check.that(values.numel() >= fewest && values.numel() <= most, name, [&] {
        return "expected " + std::to_string(fewest) + " to " + std::to_string(most) +
               " integers, got " + std::to_string(values.numel());
      });
      return values;
    }
    const std::string problem =
        synapse_list_error(values.const_data_ptr<int32_t>(), values.numel(), size.N, rows);
    check.that(problem.empty(), name, [&] { return problem; });
    return values;
  }

  template <typename T>
  LtcInputs<T> inputs() const {
    LtcInputs<T> in;
    fill(in);
    const T** const pointers[] = {&in.parameters.gleak,        &in.parameters.vleak,
                                  &in.parameters.cm,           &in.parameters.sigma,
                                  &in.parameters.mu,           &in.parameters.w,
                                  &in.parameters.erev,         &in.parameters.sensory_sigma,
                                  &in.parameters.sensory_mu,   &in.parameters.sensory_w,
                                  &in.parameters.sensory_erev, &in.parameters.input_w,
                                  &in.parameters.input_b,      &in.parameters.output_w,
                                  &in.parameters.output_b};
    for (size_t k = 0; k < parameters.size(); ++k) {
      if (parameters[k] != nullptr) *pointers[k] = contiguous[k]->const_data_ptr<T>();
    }
    in.parameters.epsilon = epsilon;
    in.parameters.softplus = softplus;
    in.synapses = synapse_list(*contiguous[15]);
    in.sensory_synapses = synapse_list(*contiguous[16]);
    in.nets = nets;
    return in;
  }

  SynapseList synapse_list(const Tensor& list) const {
    const int32_t* const values = list.const_data_ptr<int32_t>();
    return {values, values + size.N + 1};
  }

  LtcCounts counts() const {
    return {contiguous[15]->numel() - size.N - 1, contiguous[16]->numel() - size.N - 1};
  }

  template <typename Device>
  int64_t states_numel() const {
    // See core/ltc_problem.h.
    const bool rates = !has_memory() && nets == 1 &&
                       Device::keeps_rates(size, counts(), x.scalar_type() == ScalarType::Double);
    const int64_t of_step = has_memory() ? size.U + 1 + kMemoryRows : rates ? 2 * size.U : size.U;
    return (size.T * of_step + 1) * size.N * size.B;
  }
};

template <typename Device>
std::tuple<Tensor, Tensor, Tensor> ltc_forward(
    const Tensor& x, const OptionalTensor& h0, const OptionalTensor& timespans,
    const OptionalTensor& lengths, const Tensor& gleak, const Tensor& vleak, const Tensor& cm,
    const Tensor& sigma, const Tensor& mu, const Tensor& w, const Tensor& erev,
    const Tensor& sensory_sigma, const Tensor& sensory_mu, const Tensor& sensory_w,
    const Tensor& sensory_erev, const OptionalTensor& input_w, const OptionalTensor& input_b,
    const OptionalTensor& output_w, const OptionalTensor& output_b, const OptionalTensor& memory_w,
    const OptionalTensor& memory_b, const OptionalTensor& memory_recurrent_w,
    const Tensor& synapses, const Tensor& sensory_synapses, int64_t output_size,
    int64_t ode_unfolds, double epsilon, bool softplus, bool return_sequences, bool time_major,
    bool save_states) {
  const auto optional = [](const OptionalTensor& t) { return t.has_value() ? &*t : nullptr; };
  LtcArguments arguments{
      {x, h0, timespans, lengths, memory_w, memory_b, memory_recurrent_w},
      {&gleak, &vleak, &cm, &sigma, &mu, &w, &erev, &sensory_sigma, &sensory_mu, &sensory_w,
       &sensory_erev, optional(input_w), optional(input_b), optional(output_w), optional(output_b)},
      synapses,
      sensory_synapses,
      output_size,
      ode_unfolds,
      epsilon,
      softplus};
  const ArgumentCheck check = Device::check("fastltc::ltc_forward", x);
  arguments.check(check);
  SequenceResults results(arguments, arguments.states_numel<Device>(), return_sequences, time_major,
                          save_states);
  with_dtype(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    LtcOutputs<T> out;
    results.fill<T>(out);
    Device::forward(x, arguments.inputs<T>(), arguments.counts(), out);
  });
  return {results.output, results.hn, results.states};
}

using LtcGradientTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                      Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                      Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename Device>
LtcGradientTensors ltc_backward(
    const OptionalTensor& grad_output, const OptionalTensor& grad_hn, const Tensor& x,
    const OptionalTensor& h0, const OptionalTensor& timespans, const OptionalTensor& lengths,
    const Tensor& gleak, const Tensor& vleak, const Tensor& cm, const Tensor& sigma,
    const Tensor& mu, const Tensor& w, const Tensor& erev, const Tensor& sensory_sigma,
    const Tensor& sensory_mu, const Tensor& sensory_w, const Tensor& sensory_erev,
    const OptionalTensor& input_w, const OptionalTensor& input_b, const OptionalTensor& output_w,
    const OptionalTensor& output_b, const OptionalTensor& memory_w, const OptionalTensor& memory_b,
    const OptionalTensor& memory_recurrent_w, const Tensor& synapses,
    const Tensor& sensory_synapses, const Tensor& states, int64_t output_size, int64_t ode_unfolds,
    double epsilon, bool softplus, bool return_sequences, bool time_major, bool timespans_grad) {
  const auto optional = [](const OptionalTensor& t) { return t.has_value() ? &*t : nullptr; };
  LtcArguments arguments{
      {x, h0, timespans, lengths, memory_w, memory_b, memory_recurrent_w},
      {&gleak, &vleak, &cm, &sigma, &mu, &w, &erev, &sensory_sigma, &sensory_mu, &sensory_w,
       &sensory_erev, optional(input_w), optional(input_b), optional(output_w), optional(output_b)},
      synapses,
      sensory_synapses,
      output_size,
      ode_unfolds,
      epsilon,
      softplus};
  const ArgumentCheck check = Device::check("fastltc::ltc_backward", x);
  arguments.check(check);
  SequenceGradients results(check, arguments, grad_output, grad_hn, states,
                            arguments.states_numel<Device>(), return_sequences, time_major,
                            timespans_grad);
  std::array<Tensor, 15> grad;
  for (size_t k = 0; k < grad.size(); ++k) {
    // Of the matrices only the synapses are written.
    grad[k] = arguments.parameters[k] == nullptr
                  ? new_tensor(x, 0)
                  : new_like(*arguments.parameters[k], Device::wants_zeros && k >= 3 && k < 11);
  }
  with_dtype(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    LtcGradients<T> g;
    results.fill<T>(g);
    T** const pointers[] = {&g.gleak,      &g.vleak,     &g.cm,           &g.sigma,
                            &g.mu,         &g.w,         &g.erev,         &g.sensory_sigma,
                            &g.sensory_mu, &g.sensory_w, &g.sensory_erev, &g.input_w,
                            &g.input_b,    &g.output_w,  &g.output_b};
    for (size_t k = 0; k < grad.size(); ++k) {
      if (arguments.parameters[k] != nullptr) *pointers[k] = grad[k].mutable_data_ptr<T>();
    }
    Device::backward(x, arguments.inputs<T>(), arguments.counts(), g);
  });
  return {results.x,         results.h0,        results.timespans, grad[0],  grad[1],  grad[2],
          grad[3],           grad[4],           grad[5],           grad[6],  grad[7],  grad[8],
          grad[9],           grad[10],          grad[11],          grad[12], grad[13], grad[14],
          results.memory[0], results.memory[1], results.memory[2]};
}

}  // namespace fastltc
