// A layer over a batch of sequences as operators, forward and backward, for any layer and device:
// checks, allocates, calls the device's kernels.
//
// `Layer` (ltc_operator.h, cfc_operator.h) is SequenceArguments with the layer's own arguments
// behind them, in the order of its schema, and has
//   static constexpr const char* forward_name, backward_name
//   Gradients<T>, the struct of core/
//   void check(const ArgumentCheck&), which checks its own arguments and parameters, and sets the
//     sizes and `contiguous`
//   int64_t kept_of_step<Device>() const, how many values a sample keeps of a step for the backward
//     pass, besides its first state
//   bool partly_written(size_t k) const, whether kernels leave zeros in the gradient of parameter k
//   void with_inputs<T>(const std::vector<const T*>& parameters, Run run) const, which fills
//     the inputs of core/ and calls run(inputs); what it points to lives as long as the call
//   void fill_gradients<T>(Gradients<T>&, const std::vector<T*>& parameters) const
// `Device` (cpu.cpp, cuda.cpp) has
//   static constexpr bool wants_zeros, whether its kernels expect those zeros to be there
//   static void forward(const Layer&, const Inputs&, const SequenceOutputs<T>&)
//   static void backward(const Layer&, const Inputs&, const Gradients<T>&)
//   static int64_t kept_unfolds(const LtcArguments&), states of unfolds and rates kept of a step
// `Own` are the types of the layer's own arguments. Arrays of pointers are the host's, what they
// point to is the device's.
#pragma once

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "core/sequence.h"
#include "torch/checks.h"
#include "torch/tensors.h"

namespace fastltc {

// Whether a list of tensors is none: also one tensor without elements, as programs of torch.export
// have it, since AOTInductor calls operators with None in the place of an empty list.
inline bool is_none(const Tensors& list) {
  return list.empty() || (list.size() == 1 && list[0].numel() == 0);
}

// What all layers take, checked. Holds the tensors that its pointers look into.
struct SequenceArguments {
  const Tensor& x;
  const OptionalTensor& h0;
  const OptionalTensor& timespans;
  const OptionalTensor& lengths;
  const OptionalTensor& resets;
  const Tensors& parameters;
  const Tensors& memory;  // the memory cell's [4N, I], [4N] and [4N, N], or none

  bool reset_to_zero = false;
  LayerSizes size{};
  bool stacked = false;  // whether the parameters are those of several networks
  int64_t nets = 1;
  Tensors contiguous{};  // the parameters
  Tensors contiguous_memory{};
  // Where they can be read: what was checked is what is used, whoever writes to the tensor meanwhile.
  std::vector<int64_t> length_of{};

  bool has_memory() const { return !is_none(memory); }
  // Values of a sample's state.
  int64_t state_width() const { return has_memory() ? 2 * size.N : size.N; }
  bool timespans_per_neuron() const { return timespans.has_value() && timespans->dim() == 3; }

  // Sets B and T.
  void check_x(const ArgumentCheck& check) {
    check.first("x");
    check.that(x.dim() == 3, "x", [&] { return "expected shape [B, T, I], got " + shape_text(x); });
    size.B = x.size(0);
    size.T = x.size(1);
  }

  // Sets them, by the first parameter, whose axes those of one network are behind.
  void check_networks(const ArgumentCheck& check, const char* name, const Tensor& parameter,
                      int64_t axes) {
    constexpr int64_t most = std::numeric_limits<int32_t>::max() / 64;
    stacked = parameter.dim() == axes + 1;
    nets = stacked ? parameter.size(0) : 1;
    check.that(nets >= 1 && nets <= most, name, [&] {
      return "expected 1 to " + std::to_string(most) + " layers, got " + std::to_string(nets);
    });
    check.that(x.size(2) % nets == 0, "x", [&] {
      return "expected a multiple of " + std::to_string(nets) +
             " features, as many as there are layers, got " + std::to_string(x.size(2));
    });
    check.that(!stacked || !has_memory(), "memory",
               [] { return "expected None for several layers, got tensors"; });
  }

  // Expanded tensors can name more steps than could be kept, and a count that wrapped around would
  // pass for a small one.
  void check_count_of_states(const ArgumentCheck& check, int64_t kept_of_step) const {
    const double of_step = static_cast<double>(kept_of_step) + static_cast<double>(size.N);
    const double count = (static_cast<double>(size.T) + 1) * static_cast<double>(size.B) * of_step;
    check.that(count < 0x1p62, "x", [&] {
      return "expected a batch and a number of steps whose states can be counted, got shape " +
             shape_text(x);
    });
  }

  // All but x and the parameters, once the sizes are known.
  void check_sequences(const ArgumentCheck& check) {
    check.value("h0", h0, has_memory() ? "[B, 2 N]" : "[B, N]", {size.B, state_width()});
    check_memory(check);
    check_lengths(check);
    check_resets(check);
    if (!timespans.has_value()) return;
    if (timespans_per_neuron()) {
      check.value("timespans", timespans, "[B, T, N]", {size.B, size.T, size.N});
    } else {
      check.value("timespans", timespans, "[B, T]", {size.B, size.T});
    }
    if (!check.can_read_values()) return;
    with_dtype(x.scalar_type(), [&](auto zero) { check_timespans<decltype(zero)>(check); });
  }

  void check_memory(const ArgumentCheck& check) {
    if (!has_memory()) return;
    check.that(memory.size() == 3, "memory",
               [&] { return "expected three tensors, got " + std::to_string(memory.size()); });
    check.value("memory[0]", memory[0], "[4 N, I]", {4 * size.N, size.I});
    check.value("memory[1]", memory[1], "[4 N]", {4 * size.N});
    check.value("memory[2]", memory[2], "[4 N, N]", {4 * size.N, size.N});
    for (const Tensor& tensor : memory) contiguous_memory.push_back(as_contiguous(tensor));
  }

  void check_lengths(const ArgumentCheck& check) {
    if (!lengths.has_value()) return;
    check.device("lengths", *lengths);
    check.that(
        lengths->scalar_type() == ScalarType::Long, "lengths",
        [&] { return "expected int64, got " + dtype_text(lengths->scalar_type()); }, Fault::type);
    check.shape("lengths", *lengths, "[B]", std::array{size.B});
    if (!check.can_read_values() || size.B == 0) return;
    const int64_t* const given = lengths->const_data_ptr<int64_t>();
    length_of.resize(static_cast<size_t>(size.B));
    for (int64_t b = 0; b < size.B; ++b) length_of[b] = given[b * lengths->stride(0)];
    const auto found = std::ranges::minmax(length_of);
    check.that(found.min >= 0 && found.max <= size.T, "lengths", [&] {
      return "expected values of 0 to T = " + std::to_string(size.T) + ", got " +
             std::to_string(found.min) + " to " + std::to_string(found.max);
    });
  }

  void check_resets(const ArgumentCheck& check) const {
    if (!resets.has_value()) return;
    check.device("resets", *resets);
    check.that(
        resets->scalar_type() == ScalarType::Bool, "resets",
        [&] { return "expected torch.bool, got " + dtype_text(resets->scalar_type()); },
        Fault::type);
    check.shape("resets", *resets, "[B, T]", std::array{size.B, size.T});
  }

  template <typename T>
  void check_timespans(const ArgumentCheck& check) const {
    const SequenceView<const T> view = sequence_view<T>(*timespans);
    // Calls use(dt, b, t, c) until it returns true. What stands behind the lengths does not count.
    const auto any = [&](int64_t samples, bool each_step, int64_t channels, auto use) {
      for (int64_t b = 0; b < samples; ++b) {
        int64_t steps = length_of.empty() ? size.T : length_of[b];
        if (!each_step && steps > 1) steps = 1;
        for (int64_t t = 0; t < steps; ++t) {
          for (int64_t c = 0; c < channels; ++c) {
            if (use(view.data[b * view.stride_b + t * view.stride_t + c * view.stride_c], b, t,
                    c)) {
              return true;
            }
          }
        }
      }
      return false;
    };
    const auto is_bad = [](T dt, int64_t, int64_t, int64_t) {
      return !(dt >= T(0) && dt <= std::numeric_limits<T>::max());
    };
    const int64_t channels = timespans_per_neuron() ? size.N : 1;
    // Values of expanded dimensions are looked at once, unless lengths tell the samples apart.
    const bool one_sample = view.stride_b == 0 && !lengths.has_value() && size.B > 0;
    const bool found =
        any(one_sample ? 1 : size.B, view.stride_t != 0, view.stride_c != 0 ? channels : 1, is_bad);
    check.that(!found, "timespans", [&] {
      int64_t count = 0;
      std::string first;
      any(size.B, true, channels, [&](T dt, int64_t b, int64_t t, int64_t c) {
        if (!is_bad(dt, b, t, c)) return false;
        if (count++ > 0) return false;
        std::vector<int64_t> place{b, t};
        if (timespans_per_neuron()) place.push_back(c);
        first = number_text(static_cast<double>(dt)) + " at " + list_text(place);
        return false;
      });
      return "expected finite time steps of 0 or more, got " + first + " (" +
             std::to_string(count) + " of " + std::to_string(timespans->numel()) + " are not)";
    });
  }

  template <typename T>
  void fill(SequenceInputs<T>& in) const {
    in.size = size;
    in.nets = nets;
    in.x = sequence_view<T>(x);
    if (h0.has_value()) in.h0 = sequence_view<T>(*h0, false);
    if (timespans.has_value()) in.timespans = sequence_view<T>(*timespans);
    in.timespans_per_neuron = timespans_per_neuron();
    if (!length_of.empty()) {
      in.lengths = length_of.data();
      in.lengths_stride = 1;
    } else if (lengths.has_value()) {
      in.lengths = lengths->const_data_ptr<int64_t>();
      in.lengths_stride = lengths->stride(0);
    }
    if (resets.has_value()) in.resets = sequence_view<bool>(*resets);
    in.reset_to_zero = reset_to_zero;
    if (has_memory()) {
      in.memory.weight = contiguous_memory[0].const_data_ptr<T>();
      in.memory.bias = contiguous_memory[1].const_data_ptr<T>();
      in.memory.recurrent_weight = contiguous_memory[2].const_data_ptr<T>();
    }
  }
};

template <typename Layer, typename Device, typename... Own>
struct SequenceOperator {
  // -> output, hn, states
  static std::tuple<Tensor, Tensor, Tensor> forward(
      const Tensor& x, const OptionalTensor& h0, const OptionalTensor& timespans,
      const OptionalTensor& lengths, const OptionalTensor& resets, const Tensors& parameters,
      const Tensors& memory, Own... own, bool reset_to_zero, bool return_sequences, bool time_major,
      bool save_states) {
    Layer layer{{x, h0, timespans, lengths, resets, parameters, memory, reset_to_zero}, own...};
    const int64_t states_numel = checked(layer, ArgumentCheck(Layer::forward_name, x));
    const LayerSizes& size = layer.size;
    Tensor output = return_sequences ? new_sequence(x, size.B, size.T, size.M, time_major)
                                     : new_tensor(x, {size.B, size.M});
    Tensor hn = new_tensor(x, {size.B, layer.state_width()});
    Tensor states = new_tensor(x, {save_states ? states_numel : 0});
    with_dtype(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      SequenceOutputs<T> out;
      out.output = writable<T>(output, return_sequences);
      out.return_sequences = return_sequences;
      out.hn = hn.mutable_data_ptr<T>();
      if (save_states) out.states = states.mutable_data_ptr<T>();
      with_inputs<T>(layer, [&](const auto& in) { Device::forward(layer, in, out); });
    });
    return {output, hn, states};
  }

  // -> grad_x, grad_h0, grad_timespans, grad_parameters, grad_memory. What is not wanted is a tensor
  // without elements.
  static std::tuple<Tensor, Tensor, Tensor, Tensors, Tensors> backward(
      const OptionalTensor& grad_output, const OptionalTensor& grad_hn, const Tensor& states,
      const Tensor& x, const OptionalTensor& h0, const OptionalTensor& timespans,
      const OptionalTensor& lengths, const OptionalTensor& resets, const Tensors& parameters,
      const Tensors& memory, Own... own, bool reset_to_zero, bool return_sequences, bool time_major,
      bool timespans_grad) {
    Layer layer{{x, h0, timespans, lengths, resets, parameters, memory, reset_to_zero}, own...};
    const ArgumentCheck check(Layer::backward_name, x);
    const int64_t states_numel = checked(layer, check);
    const LayerSizes& size = layer.size;
    if (return_sequences) {
      check.value("grad_output", grad_output, "[B, T, M]", {size.B, size.T, size.M});
    } else {
      check.value("grad_output", grad_output, "[B, M]", {size.B, size.M});
    }
    check.value("grad_hn", grad_hn, "[B, state]", {size.B, layer.state_width()});
    check.value("states", states, "", {states_numel});
    const Tensor history = as_contiguous(states);
    const bool wants_timespans = timespans_grad && timespans.has_value();
    Tensor grad_x = new_sequence(x, size.B, size.T, size.I, time_major);
    Tensor grad_h0 = h0.has_value() ? new_like(*h0) : new_tensor(x, {0});
    Tensor grad_timespans = wants_timespans ? new_like(*timespans) : new_tensor(x, {0});
    Tensors grad_parameters, grad_memory;
    grad_parameters.reserve(parameters.size());
    for (size_t k = 0; k < parameters.size(); ++k) {
      const bool zeroed = Device::wants_zeros && layer.partly_written(k);
      grad_parameters.push_back(new_like(parameters[k], zeroed));
    }
    for (const Tensor& tensor : memory) grad_memory.push_back(new_like(tensor));
    with_dtype(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      typename Layer::template Gradients<T> g;
      if (grad_output.has_value()) {
        g.grad_output = sequence_view<T>(*grad_output, return_sequences);
      }
      g.return_sequences = return_sequences;
      if (grad_hn.has_value()) g.grad_hn = sequence_view<T>(*grad_hn, false);
      g.states = history.const_data_ptr<T>();
      g.x = writable<T>(grad_x);
      if (h0.has_value()) g.h0 = grad_h0.mutable_data_ptr<T>();
      if (wants_timespans) g.timespans = writable<T>(grad_timespans);
      if (layer.has_memory()) {
        g.memory = {grad_memory[0].mutable_data_ptr<T>(), grad_memory[1].mutable_data_ptr<T>(),
                    grad_memory[2].mutable_data_ptr<T>()};
      }
      std::vector<T*> pointers;
      for (Tensor& tensor : grad_parameters) pointers.push_back(tensor.mutable_data_ptr<T>());
      layer.template fill_gradients<T>(g, pointers);
      with_inputs<T>(layer, [&](const auto& in) { Device::backward(layer, in, g); });
    });
    return {grad_x, grad_h0, grad_timespans, grad_parameters, grad_memory};
  }

 private:
  // Returns how many values are kept of all states.
  static int64_t checked(Layer& layer, const ArgumentCheck& check) {
    layer.check_x(check);
    layer.check(check);
    const int64_t kept_of_step = layer.template kept_of_step<Device>();
    layer.check_count_of_states(check, kept_of_step);
    layer.check_sequences(check);
    return layer.size.B * (layer.size.N + layer.size.T * kept_of_step);
  }

  template <typename T, typename Run>
  static void with_inputs(const Layer& layer, Run run) {
    std::vector<const T*> pointers;
    pointers.reserve(layer.contiguous.size());
    for (const Tensor& tensor : layer.contiguous) pointers.push_back(tensor.const_data_ptr<T>());
    layer.template with_inputs<T>(pointers, run);
  }
};

// The schemas of a layer's operators; `own` are those of its own arguments.
inline void define_sequence_operators(torch::stable::detail::StableLibrary& library,
                                      const std::string& layer, const std::string& own) {
  const std::string arguments =
      "Tensor x, Tensor? h0, Tensor? timespans, Tensor? lengths, Tensor? resets, "
      "Tensor[] parameters, Tensor[] memory, " +
      own + ", bool reset_to_zero, bool return_sequences, bool time_major, ";
  const std::string forward = layer + "_forward(" + arguments +
                              "bool save_states) -> (Tensor output, Tensor hn, Tensor states)";
  const std::string backward =
      layer + "_backward(Tensor? grad_output, Tensor? grad_hn, Tensor states, " + arguments +
      "bool timespans_grad) -> (Tensor grad_x, Tensor grad_h0, Tensor grad_timespans, "
      "Tensor[] grad_parameters, Tensor[] grad_memory)";
  library.def(forward.c_str());
  library.def(backward.c_str());
}

}  // namespace fastltc
