// Checks of the operators' arguments, before any memory is touched: each refusal names the operator,
// what kind of fault it is, the argument, what was expected and what came. fastltc/ops/errors.py
// makes Python's errors of it.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "core/list_text.h"

namespace fastltc {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
using OptionalTensor = std::optional<Tensor>;

inline std::string shape_text(const Tensor& tensor) {
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < tensor.dim(); ++d) sizes.push_back(tensor.size(d));
  return list_text(sizes);
}

inline std::string dtype_text(ScalarType type) {
  // In the order of ScalarType.
  constexpr const char* names[] = {
      "uint8",     "int8",      "int16",      "int32", "int64", "float16", "float32", "float64",
      "complex32", "complex64", "complex128", "bool",  "qint8", "quint8",  "qint32",  "bfloat16"};
  const auto index = static_cast<size_t>(type);
  return index < std::size(names) ? std::string("torch.") + names[index] : "another dtype";
}

inline std::string device_text(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  if (tensor.is_cuda()) return "cuda:" + std::to_string(tensor.get_device_index());
  return "another device";
}

// The shortest decimal number that is this one, as Python writes it.
inline std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  const double size = std::abs(value);
  const bool plain = size == 0.0 || (size >= 1e-4 && size < 1e16);
  char text[32];
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const std::string digits(text, std::to_chars(text, std::end(text), value, format).ptr);
  return plain && digits.find('.') == std::string::npos ? digits + ".0" : digits;
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
    stored(name, first_);
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
    stored(name, tensor);
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
  // A storage can be made smaller under its tensors, which then point behind it or nowhere.
  template <typename Name>
  void stored(const Name& name, const Tensor& tensor) const {
    int64_t bytes, offset, *sizes, *strides;
    int32_t dtype;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(tensor.get(), &offset));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor.get(), &sizes));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(tensor.get(), &strides));
    int64_t last = offset;
    for (int64_t d = 0, dim = tensor.dim(); d < dim; ++d) {
      if (sizes[d] == 0) return;
      last += (sizes[d] - 1) * strides[d];
    }
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &dtype));
    const auto size = static_cast<int64_t>(aoti_torch_dtype_element_size(dtype));
    that(last < bytes / size, name, [&] {
      return "expected a storage of at least " + std::to_string((last + 1) * size) +
             " bytes, got one of " + std::to_string(bytes);
    });
  }
  bool on_device(const Tensor& tensor) const {
    return device_code(tensor) == device_ &&
           (cpu_ || tensor.get_device_index() == first_.get_device_index());
  }
  template <typename Sizes>
  static bool has_shape(const Tensor& tensor, const Sizes& expected) {
    if (tensor.dim() != static_cast<int64_t>(expected.size())) return false;
    int64_t* sizes;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor.get(), &sizes));
    return std::equal(expected.begin(), expected.end(), sizes);
  }
  // Torch's numbers, to make a ScalarType or a DeviceType of which takes longer than to compare.
  static int32_t dtype_code(const Tensor& tensor) {
    int32_t code;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &code));
    return code;
  }
  static int32_t device_code(const Tensor& tensor) {
    int32_t code;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &code));
    return code;
  }

  const char* op_;
  const Tensor& first_;
  int32_t dtype_;
  int32_t device_;
  bool cpu_;
};

}  // namespace fastltc
