// What the operators do on the CPU, in the instruction set of cpu/frame/isa.h.
//
// T is float or double. All throw std::bad_alloc where scratch memory cannot be had, before anything
// is written, and std::invalid_argument where FASTLTC_CPU asks for what is not there. The caller has
// checked sizes, synapse lists (core/synapse_check.h), lengths (0 to T) and time steps (>= 0).
#pragma once

#include "core/cfc_problem.h"
#include "core/ltc_problem.h"
#include "core/masked_linear_problem.h"

namespace fastltc::cpu {

template <typename T>
void ltc_forward(const LtcInputs<T>& in, const LtcOutputs<T>& out, const Parallel& parallel);
template <typename T>
void ltc_backward(const LtcInputs<T>& in, const LtcGradients<T>& grad, const Parallel& parallel);

template <typename T>
void cfc_forward(const CfcInputs<T>& in, const CfcOutputs<T>& out, const Parallel& parallel);
template <typename T>
void cfc_backward(const CfcInputs<T>& in, const CfcGradients<T>& grad, const Parallel& parallel);

// y is [B, O] contiguous.
template <typename T>
void masked_linear(const MaskedLinear<T>& in, T* y, const Parallel& parallel);
template <typename T>
void masked_linear_backward(const MaskedLinear<T>& in, const MaskedLinearGradients<T>& grad,
                            const Parallel& parallel);

}  // namespace fastltc::cpu
