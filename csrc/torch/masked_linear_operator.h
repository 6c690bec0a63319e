// The masked product's operators for any device: checks, allocates, calls the device's kernels.
// `Device` (cpu.cpp, cuda.cpp) has
//   static void forward(const MaskedLinearArguments&, const MaskedLinear<T>&, T* y)
//   static void backward(const MaskedLinearArguments&, const MaskedLinear<T>&,
//                        const MaskedLinearGradients<T>&)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/masked_linear_problem.h"
#include "core/synapse_check.h"
#include "torch/checked_list.h"
#include "torch/checks.h"
#include "torch/tensors.h"

namespace fastltc {

// The arguments that both operators take, checked. Holds the tensors that its pointers look into.
struct MaskedLinearArguments {
  const Tensor& x;
  const Tensor& weight;
  const OptionalTensor& bias;
  const Tensor& entries;

  int64_t B = 0, I = 0, O = 0;
  int64_t count = 0;             // of entries
  std::optional<Tensor> rows{};  // x, with contiguous inputs
  std::optional<Tensor> dense{};
  std::optional<Tensor> offset{};
  std::optional<Tensor> list{};
  CheckedList list_read{};  // where it can be read

  void check(const ArgumentCheck& check) {
    check.first("x");
    check.that(x.dim() == 2, "x", [&] { return "expected shape [B, I], got " + shape_text(x); });
    check.that(weight.dim() == 2, "weight",
               [&] { return "expected shape [O, I], got " + shape_text(weight); });
    B = x.size(0);
    I = x.size(1);
    O = weight.size(0);
    check.value("weight", weight, "[O, I]", {O, I});
    check.value("bias", bias, "[O]", {O});
    check.indices("entries", entries, "fastltc.ops.mask_entries");
    list = as_contiguous(entries);
    const auto refuse = [&](const std::string& problem) {
      check.that(problem.empty(), "entries", [&] { return problem; }, Fault::broken);
    };
    if (check.can_read_values()) {
      list_read = checked_list(list->const_data_ptr<int32_t>(), list->numel(), O, I,
                               mask_entries_error, refuse);
    } else {
      // Kernels for other devices hold a list that is not well formed inside its bounds.
      refuse(mask_entries_count_error(list->numel(), O, I));
    }
    count = (list->numel() - (O + 1) - (I + 1)) / 3;
    rows = inner_contiguous(x);
    dense = as_contiguous(weight);
    if (bias.has_value()) offset = as_contiguous(*bias);
  }

  const int32_t* values() const {
    return list_read == nullptr ? list->const_data_ptr<int32_t>() : list_read->data();
  }

  static Tensor inner_contiguous(const Tensor& tensor) {
    return tensor.size(1) <= 1 || tensor.stride(1) == 1 ? tensor : as_contiguous(tensor);
  }

  template <typename T>
  MaskedLinear<T> problem() const {
    MaskedLinear<T> in;
    in.B = B;
    in.I = I;
    in.O = O;
    in.x = rows->const_data_ptr<T>();
    in.stride_x = rows->stride(0);
    in.weight = dense->const_data_ptr<T>();
    if (offset.has_value()) in.bias = offset->const_data_ptr<T>();
    in.entries.first = values();
    in.entries.input = in.entries.first + O + 1;
    in.entries.first_of_input = in.entries.input + count;
    in.entries.output = in.entries.first_of_input + I + 1;
    in.entries.place = in.entries.output + count;
    return in;
  }
};

template <typename Device>
Tensor masked_linear(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                     const Tensor& entries) {
  MaskedLinearArguments arguments{x, weight, bias, entries};
  arguments.check(ArgumentCheck("fastltc::masked_linear", x));
  Tensor y = new_tensor(x, {arguments.B, arguments.O});
  with_dtype(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    Device::forward(arguments, arguments.problem<T>(), y.mutable_data_ptr<T>());
  });
  return y;
}

template <typename Device>
std::tuple<Tensor, Tensor, Tensor> masked_linear_backward(const Tensor& grad_output,
                                                          const Tensor& x, const Tensor& weight,
                                                          const Tensor& entries, bool bias_grad) {
  const OptionalTensor no_bias;
  MaskedLinearArguments arguments{x, weight, no_bias, entries};
  const ArgumentCheck check("fastltc::masked_linear_backward", x);
  arguments.check(check);
  check.value("grad_output", grad_output, "[B, O]", {arguments.B, arguments.O});
  const Tensor grad_rows = MaskedLinearArguments::inner_contiguous(grad_output);
  Tensor grad_x = new_like(x);
  Tensor grad_weight = new_like(weight);
  Tensor grad_bias = new_tensor(x, {bias_grad ? arguments.O : 0});
  with_dtype(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    MaskedLinearGradients<T> grad;
    grad.grad = grad_rows.const_data_ptr<T>();
    grad.stride = grad_rows.stride(0);
    grad.x = grad_x.mutable_data_ptr<T>();
    grad.weight = grad_weight.mutable_data_ptr<T>();
    if (bias_grad) grad.bias = grad_bias.mutable_data_ptr<T>();
    Device::backward(arguments, arguments.problem<T>(), grad);
  });
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace fastltc
