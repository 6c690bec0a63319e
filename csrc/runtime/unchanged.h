// Whether what a layer found out about its modules still holds: looked at in every call of one.
#pragma once

#include <pybind11/pybind11.h>

namespace fastltc::runtime {

// unchanged(seen) -> bool, a plain function of one argument: pybind11's own take as long to be
// called as this takes. `seen` is the tuple of fastltc.nn.changes.Watch.
pybind11::object unchanged_function();

}  // namespace fastltc::runtime
