// What the bindings of all sequence operators have in common.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>

#include "core/sequence.h"
#include "torch/checks.h"

namespace fastltc {

using OptionalTensor = std::optional<Tensor>;

inline Parallel torch_parallel() {
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

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// [B, T, C], or [B, T] with C = 1, or [B, C] with no time.
template <typename T>
SequenceView<const T> sequence_view(const Tensor& tensor, bool has_time = true) {
  SequenceView<const T> view;
  view.data = tensor.const_data_ptr<T>();
  view.stride_b = tensor.stride(0);
  if (has_time) view.stride_t = tensor.stride(1);
  const int64_t channel_dim = has_time ? 2 : 1;
  if (tensor.dim() > channel_dim) view.stride_c = tensor.stride(channel_dim);
  return view;
}

// A new tensor with the device, and unless it is given the dtype, of another.
// torch::stable::new_empty goes through the dispatcher by name, which takes as long as a step of a
// small layer.
inline Tensor new_strided(const Tensor& like, int32_t dtype, std::initializer_list<int64_t> sizes,
                          std::initializer_list<int64_t> strides) {
  int32_t device;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  AtenTensorHandle result;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()),
                                                         sizes.begin(), strides.begin(), dtype,
                                                         device, like.get_device_index(), &result));
  return Tensor(result);
}
inline Tensor new_strided(const Tensor& like, std::initializer_list<int64_t> sizes,
                          std::initializer_list<int64_t> strides) {
  int32_t dtype;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  return new_strided(like, dtype, sizes, strides);
}

// Uninitialised memory on the device of another tensor.
inline Tensor new_bytes(const Tensor& like, size_t bytes) {
  return new_strided(like, aoti_torch_dtype_uint8(), {static_cast<int64_t>(bytes)}, {1});
}

inline Tensor new_tensor(const Tensor& like, int64_t n) { return new_strided(like, {n}, {1}); }
inline Tensor new_tensor(const Tensor& like, int64_t rows, int64_t columns) {
  return new_strided(like, {rows, columns}, {std::max<int64_t>(columns, 1), 1});
}

// A contiguous tensor of the shape of another, which has one to three dimensions.
inline Tensor new_like(const Tensor& like, bool zeroed) {
  const int64_t dim = like.dim();
  const int64_t n0 = like.size(0), n1 = dim > 1 ? like.size(1) : 1, n2 = dim > 2 ? like.size(2) : 1;
  const int64_t s1 = std::max<int64_t>(n2, 1), s0 = std::max<int64_t>(n1, 1) * s1;
  Tensor result = dim == 1   ? new_strided(like, {n0}, {1})
                  : dim == 2 ? new_strided(like, {n0, n1}, {std::max<int64_t>(n1, 1), 1})
                             : new_strided(like, {n0, n1, n2}, {s0, s1, 1});
  const size_t size = like.scalar_type() == ScalarType::Float ? sizeof(float) : sizeof(double);
  if (zeroed && result.numel() > 0) {
    std::memset(result.mutable_data_ptr(), 0, result.numel() * size);
  }
  return result;
}

// [B, T, C], stored time first where `time_major`.
inline Tensor new_sequence(const Tensor& like, int64_t B, int64_t T, int64_t C, bool time_major) {
  // Strides as torch has them for empty dimensions, too.
  const int64_t inner = std::max<int64_t>(C, 1);
  if (time_major) return new_strided(like, {B, T, C}, {inner, inner * std::max<int64_t>(B, 1), 1});
  return new_strided(like, {B, T, C}, {inner * std::max<int64_t>(T, 1), inner, 1});
}

// Strides as sequence_view has them.
template <typename T>
SequenceView<T> writable(Tensor& tensor, bool has_time = true) {
  const SequenceView<const T> view = sequence_view<T>(tensor, has_time);
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

// The inputs of a batch of sequences.
struct SequenceArguments {
  const Tensor& x;
  const OptionalTensor& h0;
  const OptionalTensor& timespans;
  const OptionalTensor& lengths;
  // The memory cell's [4N, I], [4N] and [4N, N]; all or none.
  const OptionalTensor& memory_w;
  const OptionalTensor& memory_b;
  const OptionalTensor& memory_recurrent_w;

  LayerSizes size{};
  std::array<OptionalTensor, 3> contiguous_memory{};

  bool has_memory() const { return memory_w.has_value(); }
  // Values of a sample's state.
  int64_t state_width() const { return has_memory() ? 2 * size.N : size.N; }

  // Sets B and T.
  void check_x(const ArgumentCheck& check) {
    const ScalarType dtype = x.scalar_type();
    check.that(dtype == ScalarType::Float || dtype == ScalarType::Double, "x", [&] {
      return std::string("expected dtype float32 or float64, got ") + dtype_text(dtype);
    });
    check.device("x", x);
    check.that(x.dim() == 3, "x", [&] { return "expected shape [B, T, I], got " + shape_text(x); });
    size.B = x.size(0);
    size.T = x.size(1);
  }

  // Expanded tensors can name more steps than could be kept, and a count that wrapped around would
  // pass for a small one. `each_step` is what a sample keeps of a step.
  void check_count_of_states(const ArgumentCheck& check, double each_step) const {
    const double count =
        (static_cast<double>(size.T) + 1) * static_cast<double>(size.B) * each_step;
    check.that(count < 0x1p62, "x", [&] {
      return "expected a batch and a number of steps whose states can be counted, got shape " +
             shape_text(x);
    });
  }

  // All but x, once the sizes are known.
  void check_sequences(const ArgumentCheck& check) {
    check.value("h0", h0, {size.B, state_width()});
    check_memory(check);
    check_lengths(check);
    if (x.scalar_type() == ScalarType::Float) {
      check_timespans<float>(check);
    } else {
      check_timespans<double>(check);
    }
  }

  template <typename T>
  void fill(SequenceInputs<T>& in) const {
    in.size = size;
    in.x = sequence_view<T>(x);
    if (h0.has_value()) in.h0 = sequence_view<T>(*h0, false);
    if (timespans.has_value()) in.timespans = sequence_view<T>(*timespans);
    in.timespans_per_neuron = timespans_per_neuron();
    if (lengths.has_value()) {
      in.lengths = lengths->const_data_ptr<int64_t>();
      in.lengths_stride = lengths->stride(0);
    }
    if (has_memory()) {
      in.memory.weight = contiguous_memory[0]->const_data_ptr<T>();
      in.memory.bias = contiguous_memory[1]->const_data_ptr<T>();
      in.memory.recurrent_weight = contiguous_memory[2]->const_data_ptr<T>();
    }
  }

  void check_memory(const ArgumentCheck& check) {
    check.that(memory_b.has_value() == has_memory(), "memory_b", [] {
      return std::string("expected a tensor or None as for memory_w, got the other");
    });
    check.that(memory_recurrent_w.has_value() == has_memory(), "memory_recurrent_w", [] {
      return std::string("expected a tensor or None as for memory_w, got the other");
    });
    if (!has_memory()) return;
    check.value("memory_w", memory_w, {4 * size.N, size.I});
    check.value("memory_b", memory_b, {4 * size.N});
    check.value("memory_recurrent_w", memory_recurrent_w, {4 * size.N, size.N});
    contiguous_memory = {as_contiguous(*memory_w), as_contiguous(*memory_b),
                         as_contiguous(*memory_recurrent_w)};
  }

  void check_lengths(const ArgumentCheck& check) const {
    if (!lengths.has_value()) return;
    check.device("lengths", *lengths);
    check.dtype("lengths", *lengths, ScalarType::Long);
    check.shape("lengths", *lengths, {size.B});
    if (!check.can_read_values()) return;
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
    if (!check.can_read_values()) return;
    const SequenceView<const T> view = sequence_view<T>(*timespans);
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
};

// What a forward operator returns.
struct SequenceResults {
  Tensor output;
  Tensor hn;
  Tensor states;

  SequenceResults(const SequenceArguments& arguments, int64_t states_numel, bool return_sequences,
                  bool time_major, bool save_states)
      : output(return_sequences ? new_sequence(arguments.x, arguments.size.B, arguments.size.T,
                                               arguments.size.M, time_major)
                                : new_tensor(arguments.x, arguments.size.B, arguments.size.M)),
        hn(new_tensor(arguments.x, arguments.size.B, arguments.state_width())),
        states(new_tensor(arguments.x, save_states ? states_numel : 0)),
        return_sequences_(return_sequences),
        save_states_(save_states) {}

  // Outputs is LtcOutputs<T> or CfcOutputs<T>.
  template <typename T, typename Outputs>
  void fill(Outputs& out) {
    out.output = writable<T>(output, return_sequences_);
    out.return_sequences = return_sequences_;
    out.hn = hn.mutable_data_ptr<T>();
    if (save_states_) out.states = states.mutable_data_ptr<T>();
  }

 private:
  bool return_sequences_;
  bool save_states_;
};

// What a backward operator is given besides the arguments of the forward one, and what it returns
// but for the layer's own parameters. What is not wanted is a tensor without elements.
struct SequenceGradients {
  const OptionalTensor& grad_output;
  const OptionalTensor& grad_hn;
  Tensor history;
  Tensor x;
  Tensor h0;
  Tensor timespans;
  std::array<Tensor, 3> memory;

  SequenceGradients(const ArgumentCheck& check, const SequenceArguments& arguments,
                    const OptionalTensor& of_output, const OptionalTensor& of_hn,
                    const Tensor& states, int64_t states_numel, bool return_sequences,
                    bool time_major, bool timespans_grad)
      : grad_output(of_output), grad_hn(of_hn), return_sequences_(return_sequences) {
    const LayerSizes& size = arguments.size;
    const Tensor& like = arguments.x;
    if (return_sequences) {
      check.value("grad_output", grad_output, {size.B, size.T, size.M});
    } else {
      check.value("grad_output", grad_output, {size.B, size.M});
    }
    check.value("grad_hn", grad_hn, {size.B, arguments.state_width()});
    check.value("states", states, {states_numel});
    history = as_contiguous(states);
    wants_h0_ = arguments.h0.has_value();
    wants_timespans_ = timespans_grad && arguments.timespans.has_value();
    wants_memory_ = arguments.has_memory();
    const auto absent = [&] { return new_tensor(like, 0); };
    x = new_sequence(like, size.B, size.T, size.I, time_major);
    h0 = wants_h0_ ? new_tensor(like, size.B, arguments.state_width()) : absent();
    timespans = !wants_timespans_ ? absent()
                : arguments.timespans_per_neuron()
                    ? new_sequence(like, size.B, size.T, size.N, false)
                    : new_tensor(like, size.B, size.T);
    if (wants_memory_) {
      memory = {new_tensor(like, 4 * size.N, size.I), new_tensor(like, 4 * size.N),
                new_tensor(like, 4 * size.N, size.N)};
    } else {
      memory = {absent(), absent(), absent()};
    }
  }

  // Gradients is LtcGradients<T> or CfcGradients<T>.
  template <typename T, typename Gradients>
  void fill(Gradients& g) {
    if (grad_output.has_value()) g.grad_output = sequence_view<T>(*grad_output, return_sequences_);
    g.return_sequences = return_sequences_;
    if (grad_hn.has_value()) g.grad_hn = sequence_view<T>(*grad_hn, false);
    g.states = history.const_data_ptr<T>();
    g.x = writable<T>(x);
    if (wants_h0_) g.h0 = h0.mutable_data_ptr<T>();
    if (wants_timespans_) g.timespans = writable<T>(timespans);
    if (!wants_memory_) return;
    g.memory.weight = memory[0].mutable_data_ptr<T>();
    g.memory.bias = memory[1].mutable_data_ptr<T>();
    g.memory.recurrent_weight = memory[2].mutable_data_ptr<T>();
  }

 private:
  bool return_sequences_;
  bool wants_h0_ = false;
  bool wants_timespans_ = false;
  bool wants_memory_ = false;
};

}  // namespace fastltc
