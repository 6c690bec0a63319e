// A network prepared from the Python description of a model.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>

#include "cpu/stream.h"

namespace fastltc::runtime {

// What the Python type Network holds.
class NetworkObject {
 public:
  // The arguments are those of fastltc.runtime.Model, which fastltc.runtime.check_model has found
  // valid. Checked again is only what keeps from reading or computing outside of the arrays: throws
  // ValueError, naming it, where a key or tensor is missing or sizes do not fit.
  NetworkObject(int64_t input_size, const pybind11::list& layers, const pybind11::dict& tensors,
                double time_unit, bool medium_sigmoid);

  const cpu::StreamNetwork& network() const { return *network_; }
  double time_unit() const { return time_unit_; }  // seconds

 private:
  double time_unit_;
  std::unique_ptr<const cpu::StreamNetwork> network_;
};

// The network of a Python object. Throws TypeError, naming the argument, where it is no
// Network or one whose __init__ has not run.
const NetworkObject& network_of(const char* name, pybind11::handle object);

}  // namespace fastltc::runtime
