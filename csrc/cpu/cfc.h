// CfC on the CPU: whole sequences forward and backward, in the instruction set of cpu/frame/isa.h.
#pragma once

#include "core/cfc_problem.h"

namespace fastltc::cpu {

// As ltc_forward and ltc_backward in ltc.h.
template <typename T>
void cfc_forward(const CfcInputs<T>& in, const CfcOutputs<T>& out, const Parallel& parallel);

template <typename T>
void cfc_backward(const CfcInputs<T>& in, const CfcGradients<T>& grad, const Parallel& parallel);

}  // namespace fastltc::cpu
