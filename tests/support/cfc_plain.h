// CfC as its equations stand: plain loops over samples, steps and neurons, in float64. What kernels
// are compared with.
#pragma once

#include "core/cfc_problem.h"

namespace fastltc::test {

// Keeps no states.
void plain_cfc_forward(const CfcInputs<double>& in, const CfcOutputs<double>& out);

// Runs forward again; `grad.states` is not read. Parameters under a mask of 0 have a gradient of 0.
void plain_cfc_backward(const CfcInputs<double>& in, const CfcGradients<double>& grad);

}  // namespace fastltc::test
