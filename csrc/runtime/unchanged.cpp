#include "runtime/unchanged.h"

#include <algorithm>
#include <span>

namespace fastltc::runtime {

namespace {

// The items of a tuple, borrowed; the caller has checked that it is one.
std::span<PyObject* const> items(PyObject* tuple) {
  return {reinterpret_cast<PyTupleObject*>(tuple)->ob_item,
          static_cast<size_t>(PyTuple_GET_SIZE(tuple))};
}

// Whether a dictionary has exactly these values, the same objects in the same order.
bool has_values(PyObject* dictionary, std::span<PyObject* const> values) {
  if (PyDict_Size(dictionary) != static_cast<Py_ssize_t>(values.size())) return false;
  Py_ssize_t position = 0;
  PyObject *key, *value;
  for (size_t i = 0; PyDict_Next(dictionary, &position, &key, &value); ++i) {
    if (value != values[i]) return false;
  }
  return true;
}

// 1, 0, or -1 with an error set.
int look(std::span<PyObject* const> seen) {
  for (PyObject* const hooks : items(seen[0])) {  // dictionaries that must be empty
    if (PyDict_Size(hooks) != 0) return 0;
  }
  const auto modules = items(seen[1]), kinds = items(seen[2]);  // and their classes
  const auto attributes = items(seen[3]);  // their __dict__, which must not have `forward`
  PyObject* const forward = seen[4];
  for (size_t i = 0; i < modules.size(); ++i) {
    if (reinterpret_cast<PyObject*>(Py_TYPE(modules[i])) != kinds[i]) return 0;
    const int found = PyDict_Contains(attributes[i], forward);
    if (found != 0) return found < 0 ? -1 : 0;
  }
  // Dictionaries of modules, and what is in them.
  const auto containers = items(seen[5]), children = items(seen[6]);
  for (size_t i = 0; i < containers.size(); ++i) {
    if (!has_values(containers[i], items(children[i]))) return 0;
  }
  for (PyObject* const setting : items(seen[7])) {  // (dictionary, key, value)
    const auto of = items(setting);
    PyObject* const value = PyDict_GetItemWithError(of[0], of[1]);
    if (value == nullptr) return PyErr_Occurred() != nullptr ? -1 : 0;
    const int same = PyObject_RichCompareBool(value, of[2], Py_EQ);
    if (same != 1) return same;
  }
  return 1;
}

// Tuples of the lengths and with the dictionaries that `look` relies on.
bool is_well_formed(PyObject* seen) {
  if (!PyTuple_Check(seen) || PyTuple_GET_SIZE(seen) != 8) return false;
  const auto all = [](PyObject* tuple, auto is) {
    return PyTuple_Check(tuple) && std::ranges::all_of(items(tuple), is);
  };
  const auto is_any = [](PyObject*) { return true; };
  const auto is_tuple = [](PyObject* object) { return PyTuple_Check(object) != 0; };
  const auto is_dictionary = [](PyObject* object) { return PyDict_Check(object) != 0; };
  const auto is_setting = [](PyObject* object) {
    return PyTuple_Check(object) && PyTuple_GET_SIZE(object) == 3 && PyDict_Check(items(object)[0]);
  };
  const auto of = items(seen);
  const auto as_many = [&](size_t a, size_t b) {
    return PyTuple_GET_SIZE(of[a]) == PyTuple_GET_SIZE(of[b]);
  };
  return all(of[0], is_dictionary) && all(of[1], is_any) && all(of[2], is_any) &&
         all(of[3], is_dictionary) && all(of[5], is_dictionary) && all(of[6], is_tuple) &&
         all(of[7], is_setting) && as_many(1, 2) && as_many(1, 3) && as_many(5, 6);
}

PyObject* unchanged(PyObject*, PyObject* seen) {
  if (!is_well_formed(seen)) {
    PyErr_SetString(PyExc_TypeError, "seen: expected the tuple that fastltc.nn.changes makes");
    return nullptr;
  }
  const int result = look(items(seen));
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
