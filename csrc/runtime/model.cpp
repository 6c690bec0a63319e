#include "runtime/model.h"

#include <pybind11/numpy.h>

#include <string>
#include <typeinfo>

#include "model/network_builder.h"

namespace py = pybind11;

namespace fastltc::runtime {

namespace {

model::Value to_value(py::handle object) {
  if (object.is_none()) return {nullptr};
  if (py::isinstance<py::bool_>(object)) return {object.cast<bool>()};
  if (py::isinstance<py::int_>(object)) {
    // Past int64 it is no size of anything, but has to have a type.
    const long long integer = PyLong_AsLongLong(object.ptr());
    if (integer != -1 || !PyErr_Occurred()) return {int64_t{integer}};
    PyErr_Clear();
    return {py::repr(object).cast<std::string>()};
  }
  if (py::isinstance<py::float_>(object)) return {object.cast<double>()};
  if (py::isinstance<py::list>(object)) {
    model::Value::List list;
    for (const py::handle each : object) list.push_back(to_value(each));
    return {std::move(list)};
  }
  if (py::isinstance<py::dict>(object)) {
    model::Value::Object members;
    for (const auto& [name, value] : object.cast<py::dict>()) {
      members.push_back({py::str(name).cast<std::string>(), to_value(value)});
    }
    return {std::move(members)};
  }
  return {py::str(object).cast<std::string>()};
}

model::Tensor find_tensor(const py::dict& tensors, const std::string& name) {
  if (!tensors.contains(name.c_str())) return {};
  const py::object object = tensors[name.c_str()];
  if (!py::isinstance<py::array_t<float, py::array::c_style>>(object) ||
      py::hasattr(object, "mask")) {
    throw py::value_error(name + ": expected a C-contiguous float32 array without a mask");
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  return {static_cast<const float*>(array.data()), {array.shape(), array.shape() + array.ndim()}};
}

}  // namespace

NetworkObject::NetworkObject(int64_t input_size, const py::list& layers, const py::dict& tensors,
                             double time_unit, bool medium_sigmoid)
    : time_unit_(time_unit) {
  model::NetworkBuilder builder(
      input_size, [&](const std::string& name) { return find_tensor(tensors, name); });
  for (const py::handle layer : layers) builder.add(to_value(layer));
  network_ = cpu::prepare_network(builder.network(medium_sigmoid));
}

const NetworkObject& network_of(const char* name, py::handle object) {
  if (!py::isinstance<NetworkObject>(object)) {
    throw py::type_error(std::string(name) + ": expected a Network, got " +
                         Py_TYPE(object.ptr())->tp_name);
  }
  // A cast would take memory where there is no NetworkObject yet for one.
  const auto* const type = py::detail::get_type_info(typeid(NetworkObject));
  auto* const instance = reinterpret_cast<py::detail::instance*>(object.ptr());
  if (!instance->get_value_and_holder(type).holder_constructed()) {
    throw py::type_error(std::string(name) +
                         ": expected an initialized Network, got one whose __init__ has not run");
  }
  return py::cast<const NetworkObject&>(object);
}

}  // namespace fastltc::runtime
