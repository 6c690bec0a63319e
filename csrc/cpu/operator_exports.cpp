// What the operators call, each in the instruction set in use; *_kernels.cpp define it for each set.
#include "cpu/frame/dispatch.h"
#include "cpu/frame/isa.h"
#include "cpu/operators.h"

namespace fastltc::cpu {

#define FASTLTC_EXPORT_OPERATOR(name, Inputs, Outputs)                                         \
  FASTLTC_EXPORT_TYPED(name,                                                                   \
                       (const Inputs<T>& in, const Outputs<T>& out, const Parallel& parallel), \
                       (in, out, parallel))

FASTLTC_EXPORT_OPERATOR(ltc_forward, LtcInputs, LtcOutputs)
FASTLTC_EXPORT_OPERATOR(ltc_backward, LtcInputs, LtcGradients)
FASTLTC_EXPORT_OPERATOR(cfc_forward, CfcInputs, CfcOutputs)
FASTLTC_EXPORT_OPERATOR(cfc_backward, CfcInputs, CfcGradients)
FASTLTC_EXPORT_OPERATOR(masked_linear_backward, MaskedLinear, MaskedLinearGradients)
FASTLTC_EXPORT_TYPED(masked_linear, (const MaskedLinear<T>& in, T* y, const Parallel& parallel),
                     (in, y, parallel))

}  // namespace fastltc::cpu
