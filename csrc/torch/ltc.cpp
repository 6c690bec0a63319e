// fastltc::ltc_forward and fastltc::ltc_backward on the CPU: checks, allocates, calls cpu/ltc.h.
#include "cpu/ltc.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <exception>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "core/synapse_check.h"
#include "torch/checks.h"

namespace fastltc {
namespace {

using OptionalTensor = std::optional<Tensor>;

Parallel torch_parallel() {
  Parallel parallel;
  parallel.threads = static_cast<int>(torch::stable::get_num_threads());
  parallel.run = [](int64_t n, void (*body)(void*, int64_t), void* context) {
    if (n == 1) return body(context, 0);
    torch::stable::parallel_for(0, n, 1, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(context, i);
    });
  };
  return parallel;
}

Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// The arguments that both operators take, checked. Holds the tensors that its pointers look into.
struct Arguments {
  const Tensor& x;
  const OptionalTensor& h0;
  const OptionalTensor& timespans;
  const OptionalTensor& lengths;
  // In the order of the schema; input_w to output_b may be absent.
  std::array<const Tensor*, 15> parameters;
  const Tensor& synapses;
  const Tensor& sensory_synapses;
  int64_t output_size;
  int64_t ode_unfolds;
  double epsilon;
  bool softplus;

  LtcSizes size{};
  std::array<std::optional<Tensor>, 17> contiguous{};  // the parameters, then the synapse lists

  static constexpr std::array<const char*, 15> names = {
      "gleak",   "vleak",         "cm",         "sigma",     "mu",           "w",
      "erev",    "sensory_sigma", "sensory_mu", "sensory_w", "sensory_erev", "input_w",
      "input_b", "output_w",      "output_b"};

  void check(const char* op) {
    const ScalarType dtype = x.scalar_type();
    const ArgumentCheck check(op, dtype);
    check.that(dtype == ScalarType::Float || dtype == ScalarType::Double, "x", [&] {
      return std::string("expected dtype float32 or float64, got ") + dtype_text(dtype);
    });
    check.cpu("x", x);
    check.that(x.dim() == 3, "x", [&] { return "expected shape [B, T, I], got " + shape_text(x); });
    check.that(parameters[0]->dim() == 1, "gleak",
               [&] { return "expected shape [N], got " + shape_text(*parameters[0]); });
    size.B = x.size(0);
    size.T = x.size(1);
    size.N = parameters[0]->size(0);
    size.M = output_size;
    size.U = ode_unfolds;
    check.that(size.U >= 1, "ode_unfolds",
               [&] { return "expected at least 1, got " + std::to_string(size.U); });
    check.that(size.M >= 0 && size.M <= size.N, "output_size", [&] {
      return "expected 0 to " + std::to_string(size.N) + " (the neurons), got " +
             std::to_string(size.M);
    });
    check.that(parameters[7]->dim() == 2, "sensory_sigma",
               [&] { return "expected shape [I, N], got " + shape_text(*parameters[7]); });
    size.I = parameters[7]->size(0);
    check.that(x.size(2) == size.I, "x", [&] {
      return "expected " + std::to_string(size.I) + " features (the rows of sensory_sigma), got " +
             std::to_string(x.size(2)) + " in shape " + shape_text(x);
    });
    const int64_t most = std::numeric_limits<int32_t>::max() / 64;
    check.that(size.N <= most, "gleak",
               [&] { return "expected at most " + std::to_string(most) + " neurons"; });
    check.that(size.I <= most, "x",
               [&] { return "expected at most " + std::to_string(most) + " features"; });
    for (size_t k = 0; k < parameters.size(); ++k) {
      if (parameters[k] == nullptr) continue;
      if (k < 3) {
        check.value(names[k], *parameters[k], {size.N});
      } else if (k < 7) {
        check.value(names[k], *parameters[k], {size.N, size.N});
      } else if (k < 11) {
        check.value(names[k], *parameters[k], {size.I, size.N});
      } else if (k < 13) {
        check.value(names[k], *parameters[k], {size.I});
      } else {
        check.value(names[k], *parameters[k], {size.M});
      }
      contiguous[k] = parameters[k]->is_contiguous() ? *parameters[k]
                                                     : torch::stable::contiguous(*parameters[k]);
    }
    check.value("h0", h0, {size.B, size.N});
    contiguous[15] = check_synapses(check, "synapses", synapses, size.N);
    contiguous[16] = check_synapses(check, "sensory_synapses", sensory_synapses, size.I);
    check_lengths(check);
    if (dtype == ScalarType::Float) {
      check_timespans<float>(check);
    } else {
      check_timespans<double>(check);
    }
  }

  Tensor check_synapses(const ArgumentCheck& check, const char* name, const Tensor& list,
                        int64_t rows) const {
    check.cpu(name, list);
    check.dtype(name, list, ScalarType::Int);
    check.that(list.dim() == 1, name,
               [&] { return "expected one dimension, got " + shape_text(list); });
    const Tensor values = as_contiguous(list);
    const std::string problem =
        synapse_list_error(values.const_data_ptr<int32_t>(), values.numel(), size.N, rows);
    check.that(problem.empty(), name, [&] { return problem; });
    return values;
  }

  void check_lengths(const ArgumentCheck& check) const {
    if (!lengths.has_value()) return;
    check.cpu("lengths", *lengths);
    check.dtype("lengths", *lengths, ScalarType::Long);
    check.shape("lengths", *lengths, {size.B});
    const int64_t* const length = lengths->const_data_ptr<int64_t>();
    for (int64_t b = 0; b < size.B; ++b) {
      const int64_t value = length[b * lengths->stride(0)];
      check.that(value >= 0 && value <= size.T, "lengths", [&] {
        return "expected 0 to " + std::to_string(size.T) + " (the time steps), got " +
               std::to_string(value) + " for sample " + std::to_string(b);
      });
    }
  }

  bool timespans_per_neuron() const { return timespans.has_value() && timespans->dim() == 3; }

  template <typename T>
  void check_timespans(const ArgumentCheck& check) const {
    if (!timespans.has_value()) return;
    if (timespans->dim() == 3) {
      check.value("timespans", *timespans, {size.B, size.T, size.N});
    } else {
      check.value("timespans", *timespans, {size.B, size.T});
    }
    const SequenceView<const T> view = sequence<T>(*timespans);
    const int64_t* const length =
        lengths.has_value() ? lengths->const_data_ptr<int64_t>() : nullptr;
    const int64_t channels = timespans_per_neuron() && view.stride_c != 0 ? size.N : 1;
    // Values of expanded dimensions are looked at once, unless lengths tell the samples apart.
    const int64_t samples = view.stride_b == 0 && length == nullptr && size.B > 0 ? 1 : size.B;
    for (int64_t b = 0; b < samples; ++b) {
      int64_t steps = length == nullptr ? size.T : length[b * lengths->stride(0)];
      if (view.stride_t == 0 && steps > 1) steps = 1;
      for (int64_t t = 0; t < steps; ++t) {
        for (int64_t c = 0; c < channels; ++c) {
          const T dt = view.data[b * view.stride_b + t * view.stride_t + c * view.stride_c];
          if (dt >= T(0) && dt <= std::numeric_limits<T>::max()) continue;
          check.that(false, "timespans", [&] {
            return "expected finite values >= 0, got " + std::to_string(dt) + " for sample " +
                   std::to_string(b) + ", step " + std::to_string(t);
          });
        }
      }
    }
  }

  // [B, T, C], or [B, T] with C = 1, or [B, C] with no time.
  template <typename T>
  static SequenceView<const T> sequence(const Tensor& tensor, bool has_time = true) {
    SequenceView<const T> view;
    view.data = tensor.const_data_ptr<T>();
    view.stride_b = tensor.stride(0);
    if (has_time) view.stride_t = tensor.stride(1);
    const int64_t channel_dim = has_time ? 2 : 1;
    if (tensor.dim() > channel_dim) view.stride_c = tensor.stride(channel_dim);
    return view;
  }

  template <typename T>
  LtcInputs<T> inputs() const {
    LtcInputs<T> in;
    in.size = size;
    in.x = sequence<T>(x);
    if (h0.has_value()) in.h0 = sequence<T>(*h0, false);
    if (timespans.has_value()) in.timespans = sequence<T>(*timespans);
    in.timespans_per_neuron = timespans_per_neuron();
    if (lengths.has_value()) {
      in.lengths = lengths->const_data_ptr<int64_t>();
      in.lengths_stride = lengths->stride(0);
    }
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
    return in;
  }

  SynapseList synapse_list(const Tensor& list) const {
    const int32_t* const values = list.const_data_ptr<int32_t>();
    return {values, values + size.N + 1};
  }

  int64_t states_numel() const { return (size.T * size.U + 1) * size.N * size.B; }
};

// The view of a new [B, T, C] tensor, stored time first where `time_major`.
Tensor new_sequence(const Tensor& like, int64_t B, int64_t T, int64_t C, bool time_major) {
  if (!time_major) return torch::stable::new_empty(like, {B, T, C});
  Tensor stored = torch::stable::new_empty(like, {T, B, C});
  return torch::stable::transpose(stored, 0, 1);
}

// Strides as Arguments::sequence has them.
template <typename T>
SequenceView<T> writable(Tensor& tensor, bool has_time = true) {
  const SequenceView<const T> view = Arguments::sequence<T>(tensor, has_time);
  return {tensor.mutable_data_ptr<T>(), view.stride_b, view.stride_t, view.stride_c};
}

template <typename Call>
void with_dtype(ScalarType dtype, Call call) {
  if (dtype == ScalarType::Float) {
    call(float{});
  } else {
    call(double{});
  }
}

std::tuple<Tensor, Tensor, Tensor> ltc_forward(
    const Tensor& x, const OptionalTensor& h0, const OptionalTensor& timespans,
    const OptionalTensor& lengths, const Tensor& gleak, const Tensor& vleak, const Tensor& cm,
    const Tensor& sigma, const Tensor& mu, const Tensor& w, const Tensor& erev,
    const Tensor& sensory_sigma, const Tensor& sensory_mu, const Tensor& sensory_w,
    const Tensor& sensory_erev, const OptionalTensor& input_w, const OptionalTensor& input_b,
    const OptionalTensor& output_w, const OptionalTensor& output_b, const Tensor& synapses,
    const Tensor& sensory_synapses, int64_t output_size, int64_t ode_unfolds, double epsilon,
    bool softplus, bool return_sequences, bool time_major, bool save_states) {
  const auto optional = [](const OptionalTensor& t) { return t.has_value() ? &*t : nullptr; };
  Arguments arguments{
      x,
      h0,
      timespans,
      lengths,
      {&gleak, &vleak, &cm, &sigma, &mu, &w, &erev, &sensory_sigma, &sensory_mu, &sensory_w,
       &sensory_erev, optional(input_w), optional(input_b), optional(output_w), optional(output_b)},
      synapses,
      sensory_synapses,
      output_size,
      ode_unfolds,
      epsilon,
      softplus};
  arguments.check("fastltc::ltc_forward");
  const LtcSizes& size = arguments.size;
  Tensor output = return_sequences ? new_sequence(x, size.B, size.T, size.M, time_major)
                                   : torch::stable::new_empty(x, {size.B, size.M});
  Tensor hn = torch::stable::new_empty(x, {size.B, size.N});
  Tensor states = torch::stable::new_empty(x, {save_states ? arguments.states_numel() : 0});
  with_dtype(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    LtcOutputs<T> out;
    out.output = writable<T>(output, return_sequences);
    out.return_sequences = return_sequences;
    out.hn = hn.mutable_data_ptr<T>();
    if (save_states) out.states = states.mutable_data_ptr<T>();
    cpu::ltc_forward(arguments.inputs<T>(), out, torch_parallel());
  });
  return {output, hn, states};
}

using Gradients =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
               Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients ltc_backward(const OptionalTensor& grad_output, const OptionalTensor& grad_hn,
                       const Tensor& x, const OptionalTensor& h0, const OptionalTensor& timespans,
                       const OptionalTensor& lengths, const Tensor& gleak, const Tensor& vleak,
                       const Tensor& cm, const Tensor& sigma, const Tensor& mu, const Tensor& w,
                       const Tensor& erev, const Tensor& sensory_sigma, const Tensor& sensory_mu,
                       const Tensor& sensory_w, const Tensor& sensory_erev,
                       const OptionalTensor& input_w, const OptionalTensor& input_b,
                       const OptionalTensor& output_w, const OptionalTensor& output_b,
                       const Tensor& synapses, const Tensor& sensory_synapses, const Tensor& states,
                       int64_t output_size, int64_t ode_unfolds, double epsilon, bool softplus,
                       bool return_sequences, bool time_major, bool timespans_grad) {
  const auto optional = [](const OptionalTensor& t) { return t.has_value() ? &*t : nullptr; };
  Arguments arguments{
      x,
      h0,
      timespans,
      lengths,
      {&gleak, &vleak, &cm, &sigma, &mu, &w, &erev, &sensory_sigma, &sensory_mu, &sensory_w,
       &sensory_erev, optional(input_w), optional(input_b), optional(output_w), optional(output_b)},
      synapses,
      sensory_synapses,
      output_size,
      ode_unfolds,
      epsilon,
      softplus};
  const char* const op = "fastltc::ltc_backward";
  arguments.check(op);
  const LtcSizes& size = arguments.size;
  const ArgumentCheck check(op, x.scalar_type());
  if (return_sequences) {
    check.value("grad_output", grad_output, {size.B, size.T, size.M});
  } else {
    check.value("grad_output", grad_output, {size.B, size.M});
  }
  check.value("grad_hn", grad_hn, {size.B, size.N});
  check.value("states", states, {arguments.states_numel()});
  const Tensor history = as_contiguous(states);

  const auto absent = [&] { return torch::stable::new_empty(x, {0}); };
  const bool wants_timespans = timespans_grad && timespans.has_value();
  Tensor grad_x = new_sequence(x, size.B, size.T, size.I, time_major);
  Tensor grad_h0 = h0.has_value() ? torch::stable::new_empty(x, {size.B, size.N}) : absent();
  Tensor grad_timespans = !wants_timespans ? absent()
                          : arguments.timespans_per_neuron()
                              ? torch::stable::new_empty(x, {size.B, size.T, size.N})
                              : torch::stable::new_empty(x, {size.B, size.T});
  std::array<Tensor, 15> grad;
  for (size_t k = 0; k < grad.size(); ++k) {
    if (arguments.parameters[k] == nullptr) {
      grad[k] = absent();
    } else if (k < 3) {
      grad[k] = torch::stable::new_empty(x, {size.N});
    } else if (k < 7) {
      grad[k] = torch::stable::new_zeros(x, {size.N, size.N});
    } else if (k < 11) {
      grad[k] = torch::stable::new_zeros(x, {size.I, size.N});
    } else {
      grad[k] = torch::stable::new_empty(x, {k < 13 ? size.I : size.M});
    }
  }
  with_dtype(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    LtcGradients<T> g;
    if (grad_output.has_value())
      g.grad_output = Arguments::sequence<T>(*grad_output, return_sequences);
    g.return_sequences = return_sequences;
    if (grad_hn.has_value()) g.grad_hn = Arguments::sequence<T>(*grad_hn, false);
    g.states = history.const_data_ptr<T>();
    g.x = writable<T>(grad_x);
    if (h0.has_value()) g.h0 = grad_h0.mutable_data_ptr<T>();
    if (wants_timespans) g.timespans = writable<T>(grad_timespans);
    T** const pointers[] = {&g.gleak,      &g.vleak,     &g.cm,           &g.sigma,
                            &g.mu,         &g.w,         &g.erev,         &g.sensory_sigma,
                            &g.sensory_mu, &g.sensory_w, &g.sensory_erev, &g.input_w,
                            &g.input_b,    &g.output_w,  &g.output_b};
    for (size_t k = 0; k < grad.size(); ++k) {
      if (arguments.parameters[k] != nullptr) *pointers[k] = grad[k].mutable_data_ptr<T>();
    }
    cpu::ltc_backward(arguments.inputs<T>(), g, torch_parallel());
  });
  return {grad_x,  grad_h0,  grad_timespans, grad[0],  grad[1],  grad[2],
          grad[3], grad[4],  grad[5],        grad[6],  grad[7],  grad[8],
          grad[9], grad[10], grad[11],       grad[12], grad[13], grad[14]};
}

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_IMPL(fastltc, CPU, m) {
  m.impl("ltc_forward", TORCH_BOX(&fastltc::ltc_forward));
  m.impl("ltc_backward", TORCH_BOX(&fastltc::ltc_backward));
}
