// Methods of a type that is made by Python's own C interface.
#pragma once

#include <pybind11/pybind11.h>

#include <new>
#include <string>

namespace fastltc::runtime {

// Runs a method's body; what it throws becomes Python's exception.
template <typename Body>
PyObject* guarded(Body body) {
  try {
    return body();
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const pybind11::type_error& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  } catch (const pybind11::value_error& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const pybind11::index_error& error) {
    PyErr_SetString(PyExc_IndexError, error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// The names of a method's arguments, which is also their order, and how many must be there.
template <size_t n>
struct Signature {
  const char* method;
  const char* names[n];
  size_t required;

  // Writes borrowed references, null for what was not given.
  void parse(PyObject* const* given, Py_ssize_t count, PyObject* keywords,
             PyObject* (&values)[n]) const {
    if (count > static_cast<Py_ssize_t>(n)) {
      throw pybind11::type_error(std::string(method) + "() takes at most " + std::to_string(n) +
                                 " arguments, got " + std::to_string(count));
    }
    for (Py_ssize_t k = 0; k < count; ++k) values[k] = given[k];
    const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t k = 0; k < named; ++k) {
      PyObject* const keyword = PyTuple_GET_ITEM(keywords, k);
      size_t at = 0;
      while (at < n && PyUnicode_CompareWithASCIIString(keyword, names[at]) != 0) ++at;
      const std::string name = pybind11::cast<std::string>(pybind11::handle(keyword));
      if (at == n) {
        throw pybind11::type_error(std::string(method) + "() has no argument '" + name + "'");
      }
      if (values[at] != nullptr) {
        throw pybind11::type_error(std::string(method) + "() got '" + name + "' twice");
      }
      values[at] = given[count + k];
    }
    for (size_t k = 0; k < required; ++k) {
      if (values[k] == nullptr) {
        throw pybind11::type_error(std::string(method) + "() lacks the argument '" + names[k] +
                                   "'");
      }
    }
  }
};

}  // namespace fastltc::runtime
