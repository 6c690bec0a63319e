// Checks of the operators' arguments: each names the operator, the argument, what was expected and
// what came, before any memory is touched.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>

namespace fastltc {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_text(const Tensor& tensor) {
  std::string text = "[";
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (d > 0) text += ", ";
    text += std::to_string(tensor.size(d));
  }
  return text + "]";
}

inline std::string shape_text(std::initializer_list<int64_t> shape) {
  std::string text = "[";
  const char* separator = "";
  for (const int64_t size : shape) {
    text += separator + std::to_string(size);
    separator = ", ";
  }
  return text + "]";
}

inline const char* dtype_text(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Bool:
      return "bool";
    default:
      return "another dtype";
  }
}

// The arguments of one call of one operator.
class ArgumentCheck {
 public:
  // `cuda_device`: the device whose tensors are expected; -1: the CPU.
  ArgumentCheck(const char* op, ScalarType dtype, int32_t cuda_device = -1)
      : op_(op), dtype_(dtype), cuda_device_(cuda_device) {}

  // Values on a CUDA device cannot be looked at without waiting for it.
  bool can_read_values() const { return cuda_device_ < 0; }

  void dtype(const char* name, const Tensor& tensor, ScalarType expected) const {
    that(tensor.scalar_type() == expected, name, [&] {
      return std::string("expected dtype ") + dtype_text(expected) + ", got " +
             dtype_text(tensor.scalar_type());
    });
  }
  bool on_device(const Tensor& tensor) const {
    if (cuda_device_ < 0) return tensor.is_cpu();
    return tensor.is_cuda() && tensor.get_device_index() == cuda_device_;
  }
  void device(const char* name, const Tensor& tensor) const {
    that(on_device(tensor), name, [&] {
      const std::string expected =
          cuda_device_ < 0 ? "CPU tensor" : "tensor on cuda:" + std::to_string(cuda_device_);
      return "expected a " + expected + " like the others, got one on another device";
    });
  }
  void shape(const char* name, const Tensor& tensor,
             std::initializer_list<int64_t> expected) const {
    bool same = tensor.dim() == static_cast<int64_t>(expected.size());
    int64_t d = 0;
    for (const int64_t size : expected) same = same && tensor.size(d++) == size;
    that(same, name,
         [&] { return "expected shape " + shape_text(expected) + ", got " + shape_text(tensor); });
  }
  // A floating-point tensor of the call's dtype.
  void value(const char* name, const Tensor& tensor,
             std::initializer_list<int64_t> expected) const {
    device(name, tensor);
    dtype(name, tensor, dtype_);
    shape(name, tensor, expected);
  }
  // The same, where the name has to be put together: `name()` does it, and only where it is needed.
  template <typename Name>
  void value_of(Name name, const Tensor& tensor, std::initializer_list<int64_t> expected) const {
    bool same = tensor.dim() == static_cast<int64_t>(expected.size());
    int64_t d = 0;
    for (const int64_t size : expected) same = same && tensor.size(d++) == size;
    if (same && tensor.scalar_type() == dtype_ && on_device(tensor)) return;
    value(name().c_str(), tensor, expected);
  }
  void value(const char* name, const std::optional<Tensor>& tensor,
             std::initializer_list<int64_t> expected) const {
    if (tensor.has_value()) value(name, *tensor, expected);
  }
  // `problem()` makes the text, and only where it is needed: a streaming call takes microseconds in
  // all.
  template <typename Problem>
  void that(bool condition, const char* name, Problem problem) const {
    // Not STD_TORCH_CHECK, which begins its text with the place in this file.
    if (!condition) throw std::runtime_error(std::string(op_) + ": " + name + ": " + problem());
  }

 private:
  const char* op_;
  ScalarType dtype_;
  int32_t cuda_device_;
};

}  // namespace fastltc
