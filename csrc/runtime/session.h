// The Python type of a session.
#pragma once

#include <pybind11/pybind11.h>

namespace fastltc::runtime {

// Adds the type Session to the module.
void add_session(pybind11::module_& module);

}  // namespace fastltc::runtime
