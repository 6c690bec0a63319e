#include "runtime/unchanged.h"

namespace fastltc::runtime {

namespace {

// Borrowed items; the caller has checked the kinds.
PyObject* item(PyObject* tuple, Py_ssize_t i) { return PyTuple_GET_ITEM(tuple, i); }
Py_ssize_t length(PyObject* tuple) { return PyTuple_GET_SIZE(tuple); }

// Whether a dictionary has exactly these values, the same objects in the same order.
bool has_values(PyObject* dictionary, PyObject* values) {
  if (PyDict_Size(dictionary) != length(values)) return false;
  Py_ssize_t position = 0;
  PyObject *key, *value;
  for (Py_ssize_t i = 0; PyDict_Next(dictionary, &position, &key, &value); ++i) {
    if (value != item(values, i)) return false;
  }
  return true;
}

// 1, 0, or -1 with an error set.
int look(PyObject* seen) {
  PyObject* const hooks = item(seen, 0);  // dictionaries that must be empty
  for (Py_ssize_t i = 0; i < length(hooks); ++i) {
    if (PyDict_Size(item(hooks, i)) != 0) return 0;
  }
  PyObject* const modules = item(seen, 1);
  PyObject* const kinds = item(seen, 2);       // their classes
  PyObject* const attributes = item(seen, 3);  // their __dict__, which must not have `forward`
  PyObject* const forward = item(seen, 4);
  for (Py_ssize_t i = 0; i < length(modules); ++i) {
    if (reinterpret_cast<PyObject*>(Py_TYPE(item(modules, i))) != item(kinds, i)) return 0;
    const int found = PyDict_Contains(item(attributes, i), forward);
    if (found != 0) return found < 0 ? -1 : 0;
  }
  PyObject* const containers = item(seen, 5);  // dictionaries of modules
  PyObject* const children = item(seen, 6);    // and what is in them
  for (Py_ssize_t i = 0; i < length(containers); ++i) {
    if (!has_values(item(containers, i), item(children, i))) return 0;
  }
  PyObject* const settings = item(seen, 7);  // (dictionary, key, value)
  for (Py_ssize_t i = 0; i < length(settings); ++i) {
    PyObject* const setting = item(settings, i);
    PyObject* const value = PyDict_GetItemWithError(item(setting, 0), item(setting, 1));
    if (value == nullptr) return PyErr_Occurred() != nullptr ? -1 : 0;
    const int same = PyObject_RichCompareBool(value, item(setting, 2), Py_EQ);
    if (same != 1) return same;
  }
  return 1;
}

// Tuples of the lengths and with the dictionaries that `look` relies on.
bool is_well_formed(PyObject* seen) {
  if (!PyTuple_Check(seen) || length(seen) != 8) return false;
  for (Py_ssize_t i = 0; i < 8; ++i) {
    if (i != 4 && !PyTuple_Check(item(seen, i))) return false;
  }
  const auto all_dictionaries = [](PyObject* tuple) {
    for (Py_ssize_t i = 0; i < length(tuple); ++i) {
      if (!PyDict_Check(item(tuple, i))) return false;
    }
    return true;
  };
  const Py_ssize_t modules = length(item(seen, 1));
  if (length(item(seen, 2)) != modules || length(item(seen, 3)) != modules) return false;
  if (length(item(seen, 5)) != length(item(seen, 6))) return false;
  for (Py_ssize_t i = 0; i < length(item(seen, 6)); ++i) {
    if (!PyTuple_Check(item(item(seen, 6), i))) return false;
  }
  for (Py_ssize_t i = 0; i < length(item(seen, 7)); ++i) {
    PyObject* const setting = item(item(seen, 7), i);
    if (!PyTuple_Check(setting) || length(setting) != 3 || !PyDict_Check(item(setting, 0))) {
      return false;
    }
  }
  return all_dictionaries(item(seen, 0)) && all_dictionaries(item(seen, 3)) &&
         all_dictionaries(item(seen, 5));
}

PyObject* unchanged(PyObject*, PyObject* seen) {
  if (!is_well_formed(seen)) {
    PyErr_SetString(PyExc_TypeError, "seen: expected the tuple that fastltc.nn.changes makes");
    return nullptr;
  }
  const int result = look(seen);
  return result < 0 ? nullptr : PyBool_FromLong(result);
}

PyMethodDef definition = {"unchanged", unchanged, METH_O,
                          "unchanged(seen): whether what was seen of modules still holds."};

}  // namespace

pybind11::object unchanged_function() {
  PyObject* const function = PyCFunction_NewEx(&definition, nullptr, nullptr);
  if (function == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::object>(function);
}

}  // namespace fastltc::runtime
