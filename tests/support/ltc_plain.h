// The LTC equations as they stand, one sample after another, in float64: what kernels are compared
// with. docs/equations.md.
#pragma once

#include "core/ltc_problem.h"

namespace fastltc::test {

// Writes output and hn; states are not kept.
void plain_ltc_forward(const LtcInputs<double>& in, const LtcOutputs<double>& out);

// Writes all gradients; `states` of `grad` is not read.
void plain_ltc_backward(const LtcInputs<double>& in, const LtcGradients<double>& grad);

}  // namespace fastltc::test
