// Arrays of numpy as arguments and results.
//
// Arrays that are float32, C-contiguous and of the right shape are read where they are; whatever
// else numpy makes real numbers of is converted first, unless it says more than its numbers (a
// mask, a unit). What every step of a session runs is in this header.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "core/list_text.h"

namespace fastltc::runtime {

using Shape = std::initializer_list<int64_t>;

inline constexpr const char* kLargest = "3.40282e+38";  // of a float, for people

inline const pybind11::detail::npy_api& numpy() { return pybind11::detail::npy_api::get(); }

// The one descriptor of native float32.
inline PyObject* float32() {
  static PyObject* const descriptor =
      numpy().PyArray_DescrFromType_(pybind11::detail::npy_api::NPY_FLOAT_);
  return descriptor;
}

struct ArrayView {
  float* data = nullptr;
  int dimensions = 0;
  const Py_intptr_t* shape = nullptr;

  explicit ArrayView(PyObject* array) {
    const pybind11::detail::PyArray_Proxy* const proxy = pybind11::detail::array_proxy(array);
    data = reinterpret_cast<float*>(proxy->data);
    dimensions = proxy->nd;
    shape = proxy->dimensions;
  }
  bool has_shape(Shape wanted) const {
    return dimensions == static_cast<int>(wanted.size()) && ends_with(wanted);
  }
  bool has_shape_after(int64_t first, Shape rest) const {
    return dimensions == static_cast<int>(rest.size()) + 1 && shape[0] == first && ends_with(rest);
  }
  int64_t size() const {
    int64_t total = 1;
    for (int k = 0; k < dimensions; ++k) total *= shape[k];
    return total;
  }
  std::span<const Py_intptr_t> sizes() const { return {shape, static_cast<size_t>(dimensions)}; }
  std::string shape_text() const { return list_text(sizes()); }

 private:
  bool ends_with(Shape wanted) const {
    const Py_intptr_t* at = shape + dimensions - static_cast<int>(wanted.size());
    for (const int64_t size : wanted) {
      if (*at++ != size) return false;
    }
    return true;
  }
};

// Of an array, whether its memory is that of a plain one.
inline bool has_plain_memory(PyObject* array) {
  constexpr int wanted = pybind11::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ |
                         pybind11::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const pybind11::detail::PyArray_Proxy* const proxy = pybind11::detail::array_proxy(array);
  return proxy->descr == float32() && (proxy->flags & wanted) == wanted;
}

// Not so for subclasses, which may mean something else than their numbers.
inline bool is_array(PyObject* object) { return Py_TYPE(object) == numpy().PyArray_Type_; }
inline bool is_plain(PyObject* object) { return is_array(object) && has_plain_memory(object); }

// Whatever numpy makes real numbers of, as a plain array. Throws TypeError, naming the argument.
pybind11::object convert(const char* name, PyObject* object);

// Throws TypeError where a class says more than its numbers, which would be lost: masked arrays,
// quantities with a unit; also in lists, which have to end.
void refuse_more_than_numbers(const char* name, pybind11::handle object);

// An array to read: the argument itself where it is plain, else a copy that lives as long as this.
class Input {
 public:
  Input(const char* name, PyObject* object)
      : copy_(is_plain(object) ? pybind11::object() : convert(name, object)),
        view(copy_ ? copy_.ptr() : object),
        given(object) {}

 private:
  pybind11::object copy_;

 public:
  ArrayView view;
  PyObject* given;  // the argument
};

// A number of an argument as it was given: converted to float32, a finite one may be infinite.
std::string given_text(PyObject* object, int64_t at);

// Throws ValueError, naming the argument, the first number that is not finite and where it is.
void check_finite(const char* name, const Input& input);

pybind11::object new_array(int dimensions, const Py_intptr_t* shape);

// `out`, or a new array where it is null or None: of the shape of `like`, but for its last
// dimension. Throws TypeError and ValueError where `out` is none that can be written to.
pybind11::object output_array(PyObject* out, const ArrayView& like, int64_t last);

}  // namespace fastltc::runtime
