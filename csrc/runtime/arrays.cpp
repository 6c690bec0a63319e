#include "runtime/arrays.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/stream.h"

namespace py = pybind11;

namespace fastltc::runtime {

void refuse_more_than_numbers(const char* name, py::handle object) {
  if (is_array(object.ptr())) return;
  for (const char* part : {"mask", "unit", "units"}) {
    // pandas has a method of that name.
    const py::object attribute = py::getattr(py::type::handle_of(object), part, py::none());
    if (PyObject_TypeCheck(attribute.ptr(), &PyProperty_Type)) {
      throw py::type_error(std::string(name) + ": expected numbers alone, got " +
                           Py_TYPE(object.ptr())->tp_name + ", whose " + part +
                           " would be ignored; pass an array of plain numbers");
    }
  }
  if (!PyList_Check(object.ptr()) && !PyTuple_Check(object.ptr())) return;
  for (const py::handle item : py::reinterpret_borrow<py::sequence>(object)) {
    if (!PyFloat_CheckExact(item.ptr()) && !PyLong_CheckExact(item.ptr())) {
      refuse_more_than_numbers(name, item);
    }
  }
}

py::object convert(const char* name, PyObject* object) {
  const auto from_any = [](PyObject* from, PyObject* descriptor, int flags) {
    Py_XINCREF(descriptor);  // which the call takes
    return py::reinterpret_steal<py::object>(
        numpy().PyArray_FromAny_(from, descriptor, 0, 0, flags, nullptr));
  };
  const py::object array = from_any(object, nullptr, 0);
  if (!array) throw py::error_already_set();
  const auto dtype = py::reinterpret_borrow<py::array>(array).dtype();
  if (std::strchr("biuf", dtype.kind()) == nullptr) {
    throw py::type_error(std::string(name) + ": expected real numbers, got " +
                         Py_TYPE(object)->tp_name + " of dtype " +
                         py::str(dtype).cast<std::string>());
  }
  // Both: what is no array may give one that is masked. Only here, where lists are known to end.
  refuse_more_than_numbers(name, array);
  refuse_more_than_numbers(name, object);
  py::object result = from_any(
      array.ptr(), float32(),
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_ |
          py::detail::npy_api::NPY_ARRAY_ENSUREARRAY_ | py::detail::npy_api::NPY_ARRAY_FORCECAST_);
  if (!result) throw py::error_already_set();
  return result;
}

std::string given_text(PyObject* object, int64_t at) {
  const py::object array = py::module_::import("numpy").attr("asarray")(py::handle(object));
  return py::str(array.attr("reshape")(-1)[py::int_(at)]).cast<std::string>();
}

void check_finite(const char* name, const Input& input) {
  const ArrayView& array = input.view;
  const int64_t count = array.size();
  if (cpu::all_finite(array.data, count)) return;
  int64_t at = 0;
  while (std::isfinite(array.data[at])) ++at;
  std::string index;
  int64_t rest = at;
  for (int k = array.dimensions - 1; k >= 0; --k) {
    index = std::to_string(rest % array.shape[k]) + (index.empty() ? "" : ", ") + index;
    rest /= array.shape[k];
  }
  const std::string found = given_text(input.given, at);
  const bool large = found.find_first_of("0123456789") != std::string::npos;
  throw py::value_error(std::string(name) + ": expected finite numbers" +
                        (large ? std::string(" of at most ") + kLargest : "") + ", got " + found +
                        " at [" + index + "]");
}

py::object new_array(int dimensions, const Py_intptr_t* shape) {
  Py_INCREF(float32());  // which the call takes
  PyObject* const array = numpy().PyArray_NewFromDescr_(
      numpy().PyArray_Type_, float32(), dimensions, shape, nullptr, nullptr, 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(array);
}

py::object output_array(PyObject* out, const ArrayView& like, int64_t last) {
  Py_intptr_t shape[3];
  std::ranges::copy(like.sizes(), shape);
  shape[like.dimensions - 1] = last;
  if (out == nullptr || out == Py_None) return new_array(like.dimensions, shape);
  if (!numpy().PyArray_Check_(out)) {
    throw py::type_error(std::string("out: expected a numpy array, got ") + Py_TYPE(out)->tp_name);
  }
  if (!is_array(out)) refuse_more_than_numbers("out", out);
  if (!has_plain_memory(out)) {
    const auto dtype = py::reinterpret_borrow<py::array>(out).dtype();
    if (!dtype.is(py::handle(float32()))) {
      throw py::type_error("out: expected dtype float32, got " +
                           py::str(dtype).cast<std::string>());
    }
    throw py::value_error("out: expected a C-contiguous array");
  }
  const ArrayView view(out);
  const std::span wanted(shape, like.sizes().size());
  if (!std::ranges::equal(view.sizes(), wanted)) {
    throw py::value_error("out: expected shape " + list_text(wanted) + ", got " +
                          view.shape_text());
  }
  if (!(py::detail::array_proxy(out)->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)) {
    throw py::value_error("out: expected a writeable array");
  }
  return py::reinterpret_borrow<py::object>(out);
}

}  // namespace fastltc::runtime
