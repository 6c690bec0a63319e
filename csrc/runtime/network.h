// A network prepared from its Python description.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>

#include "cpu/stream.h"

namespace fastltc::runtime {

class PreparedNetwork {
 public:
  // The arguments are those of fastltc.runtime.Model. Throws ValueError, naming it, where a key or
  // tensor is missing or does not fit: nothing is read before its size is known.
  PreparedNetwork(int64_t input_size, const pybind11::list& layers, const pybind11::dict& tensors,
                  double time_unit);

  const cpu::StreamNetwork& network() const { return *network_; }
  double time_unit() const { return time_unit_; }  // seconds

 private:
  double time_unit_;
  std::unique_ptr<const cpu::StreamNetwork> network_;
};

// The network of a Python object. Throws TypeError, naming the argument, where it is no
// PreparedNetwork or one whose __init__ has not run.
const PreparedNetwork& network_of(const char* name, pybind11::handle object);

}  // namespace fastltc::runtime
