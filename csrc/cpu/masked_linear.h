// The sparse masked product on the CPU, in the instruction set of cpu/frame/isa.h.
#pragma once

#include "core/masked_linear_problem.h"

namespace fastltc::cpu {

// T is float or double; y is [B, O] contiguous. Both throw as ltc_forward does (ltc.h).
template <typename T>
void masked_linear(const MaskedLinear<T>& in, T* y, const Parallel& parallel);

template <typename T>
void masked_linear_backward(const MaskedLinear<T>& in, const MaskedLinearGradients<T>& grad,
                            const Parallel& parallel);

}  // namespace fastltc::cpu
