// Checks of the operators' arguments, before any memory is touched: each refusal names the operator,
// what kind of fault it is, the argument, what was expected and what came. fastltc/ops/errors.py
// makes Python's errors of it.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace fastltc {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
using OptionalTensor = std::optional<Tensor>;

template <typename Sizes>
std::string list_text(const Sizes& sizes) {
  std::string text = "[";
  const char* separator = "";
  for (const int64_t size : sizes) {
    text += separator + std::to_string(size);
    separator = ", ";
  }
  return text + "]";
}

inline std::string shape_text(const Tensor& tensor) {
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < tensor.dim(); ++d) sizes.push_back(tensor.size(d));
  return list_text(sizes);
}

inline std::string dtype_text(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::Byte:
      return "torch.uint8";
    case ScalarType::Char:
      return "torch.int8";
    case ScalarType::Short:
      return "torch.int16";
    case ScalarType::Int:
      return "torch.int32";
    case ScalarType::Long:
      return "torch.int64";
    case ScalarType::Bool:
      return "torch.bool";
    case ScalarType::ComplexFloat:
      return "torch.complex64";
    case ScalarType::ComplexDouble:
      return "torch.complex128";
    default:
      return "another dtype";
  }
}

inline std::string device_text(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  if (tensor.is_cuda()) return "cuda:" + std::to_string(tensor.get_device_index());
  return "another device";
}

// The shortest decimal number that is this one, as Python writes it.
inline std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char text[64];
  int decimals = 0;
  do {
    std::snprintf(text, sizeof text, "%.*e", decimals++, value);
  } while (std::strtod(text, nullptr) != value);
  const int exponent = std::atoi(std::string(text).substr(std::string(text).find('e') + 1).c_str());
  if (exponent < -4 || exponent >= 16) return text;
  const int behind = decimals - 1 - exponent;
  std::snprintf(text, sizeof text, "%.*f", behind < 1 ? 1 : behind, value);
  return text;
}

// What Python raises for it; `broken` is what no caller of a function can cause.
enum class Fault { value, type, broken };

// The arguments of one call of one operator, whose floating-point tensors are all on one device and
// of one dtype. A name is a string, or a function that puts it together, which is called only where
// it is needed; so is `problem`: a streaming call takes microseconds in all.
class ArgumentCheck {
 public:
  ArgumentCheck(const char* op, const Tensor& first)
      : op_(op),
        first_(first),
        dtype_(dtype_code(first)),
        device_(device_code(first)),
        cpu_(first.is_cpu()) {}

  // Values on a CUDA device cannot be looked at without waiting for it.
  bool can_read_values() const { return cpu_; }

  template <typename Name, typename Problem>
  void that(bool condition, const Name& name, Problem problem, Fault fault = Fault::value) const {
    if (condition) return;
    constexpr const char* kinds[] = {"ValueError: ", "TypeError: ", ""};
    std::string text = std::string(op_) + ": " + kinds[static_cast<int>(fault)];
    if constexpr (std::is_invocable_v<Name>) {
      text += name();
    } else {
      text += name;
    }
    // Not STD_TORCH_CHECK, which begins its text with the place in this file.
    throw std::runtime_error(text + ": " + problem());
  }

  // That the first tensor is one that kernels take.
  void first(const char* name) const {
    const ScalarType dtype = first_.scalar_type();
    that(
        dtype == ScalarType::Float || dtype == ScalarType::Double, name,
        [&] {
          return "expected a floating point dtype of at most 64 bits, got " + dtype_text(dtype);
        },
        Fault::type);
  }
  template <typename Name>
  void device(const Name& name, const Tensor& tensor) const {
    that(
        on_device(tensor), name,
        [&] {
          return "expected a tensor on " + device_text(first_) +
                 ", where the first argument is, got one on " + device_text(tensor);
        },
        Fault::type);
  }
  // `letters` are the names of the sizes, if they have any.
  template <typename Name, typename Sizes>
  void shape(const Name& name, const Tensor& tensor, const char* letters,
             const Sizes& expected) const {
    that(has_shape(tensor, expected), name, [&] {
      const std::string named = *letters == '\0' ? "" : std::string(letters) + " = ";
      return "expected shape " + named + list_text(expected) + ", got " + shape_text(tensor);
    });
  }
  // A floating-point tensor of the call's device and dtype.
  template <typename Name, typename Sizes>
  void value(const Name& name, const Tensor& tensor, const char* letters,
             const Sizes& expected) const {
    device(name, tensor);
    that(
        dtype_code(tensor) == dtype_, name,
        [&] {
          return "expected " + dtype_text(first_.scalar_type()) +
                 ", the dtype of the first argument, got " + dtype_text(tensor.scalar_type());
        },
        Fault::type);
    shape(name, tensor, letters, expected);
  }
  template <typename Name>
  void value(const Name& name, const Tensor& tensor, const char* letters,
             std::initializer_list<int64_t> expected) const {
    value<Name, std::initializer_list<int64_t>>(name, tensor, letters, expected);
  }
  void value(const char* name, const OptionalTensor& tensor, const char* letters,
             std::initializer_list<int64_t> expected) const {
    if (tensor.has_value()) value(name, *tensor, letters, expected);
  }
  // An int32 list of indices; `made` says what makes it.
  void indices(const char* name, const Tensor& tensor, const char* made) const {
    device(name, tensor);
    that(
        tensor.scalar_type() == ScalarType::Int && tensor.dim() == 1, name,
        [&] {
          return std::string("expected the int32 list that ") + made + " makes, got " +
                 dtype_text(tensor.scalar_type()) + " of shape " + shape_text(tensor);
        },
        Fault::type);
  }

 private:
  bool on_device(const Tensor& tensor) const {
    return device_code(tensor) == device_ &&
           (cpu_ || tensor.get_device_index() == first_.get_device_index());
  }
  template <typename Sizes>
  static bool has_shape(const Tensor& tensor, const Sizes& expected) {
    if (tensor.dim() != static_cast<int64_t>(expected.size())) return false;
    int64_t* sizes;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor.get(), &sizes));
    return std::equal(expected.begin(), expected.end(), sizes);
  }
  // Torch's numbers, to make a ScalarType or a DeviceType of which takes longer than to compare.
  static int32_t dtype_code(const Tensor& tensor) {
    int32_t code;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &code));
    return code;
  }
  static int32_t device_code(const Tensor& tensor) {
    int32_t code;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &code));
    return code;
  }

  const char* op_;
  const Tensor& first_;
  int32_t dtype_;
  int32_t device_;
  bool cpu_;
};

}  // namespace fastltc
