// LTC on the CPU: whole sequences forward and backward, in the instruction set of cpu/frame/isa.h.
#pragma once

#include "core/ltc_problem.h"

namespace fastltc::cpu {

// T is float or double. Both throw std::bad_alloc where scratch memory cannot be had, before
// anything is written, and std::invalid_argument where FASTLTC_CPU asks for what is not there. The
// caller has checked sizes, synapse lists (core/synapse_check.h), lengths (0 to T) and time steps
// (>= 0).
template <typename T>
void ltc_forward(const LtcInputs<T>& in, const LtcOutputs<T>& out, const Parallel& parallel);

template <typename T>
void ltc_backward(const LtcInputs<T>& in, const LtcGradients<T>& grad, const Parallel& parallel);

}  // namespace fastltc::cpu
