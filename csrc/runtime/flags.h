// Arguments that say of streams, or of steps and streams, whether something is so.
#pragma once

#include <pybind11/numpy.h>

#include <string>
#include <vector>

#include "runtime/arrays.h"

namespace fastltc::runtime {

// A bool, or an array of bool, which is read where it is if it is C-contiguous.
class Flags {
 public:
  // None where there is no object, or it is None.
  Flags(const char* name, PyObject* object) {
    namespace py = pybind11;
    if (object == nullptr || object == Py_None) return;
    if (PyBool_Check(object)) {
      one_ = object == Py_True;
      present_ = true;
      return;
    }
    const auto array = py::array::ensure(py::handle(object), py::array::c_style);
    if (!array) throw py::error_already_set();
    if (array.dtype().kind() != 'b') {
      throw py::type_error(std::string(name) + ": expected bool, got " + Py_TYPE(object)->tp_name +
                           " of dtype " + py::str(array.dtype()).cast<std::string>());
    }
    refuse_more_than_numbers(name, object);
    present_ = true;
    if (array.ndim() == 0) {
      one_ = *static_cast<const bool*>(array.data());
    } else {
      array_ = array;
    }
  }
  Flags(const Flags&) = delete;
  Flags& operator=(const Flags&) = delete;

  explicit operator bool() const { return present_; }
  bool is_array() const { return static_cast<bool>(array_); }
  // Of an array; its numbers are none.
  ArrayView view() const { return ArrayView(array_.ptr()); }
  // Those of the array, or the one.
  const bool* data() const {
    return is_array() ? reinterpret_cast<const bool*>(view().data) : &one_;
  }

 private:
  bool present_ = false;
  bool one_ = false;
  pybind11::object array_;
};

}  // namespace fastltc::runtime
