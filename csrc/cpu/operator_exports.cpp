// What the operators call, each in the instruction set in use; *_kernels.cpp define it for each set.
#include "cpu/frame/dispatch.h"
#include "cpu/frame/isa.h"
#include "cpu/operators.h"

namespace fastltc::cpu {

FASTLTC_EXPORT_TYPED(ltc_forward,
                     (const LtcInputs<T>& in, const LtcOutputs<T>& out, const Parallel& parallel),
                     (in, out, parallel))
FASTLTC_EXPORT_TYPED(ltc_backward,
                     (const LtcInputs<T>& in, const LtcGradients<T>& grad,
                      const Parallel& parallel),
                     (in, grad, parallel))
FASTLTC_EXPORT_TYPED(cfc_forward,
                     (const CfcInputs<T>& in, const CfcOutputs<T>& out, const Parallel& parallel),
                     (in, out, parallel))
FASTLTC_EXPORT_TYPED(cfc_backward,
                     (const CfcInputs<T>& in, const CfcGradients<T>& grad,
                      const Parallel& parallel),
                     (in, grad, parallel))
FASTLTC_EXPORT_TYPED(masked_linear, (const MaskedLinear<T>& in, T* y, const Parallel& parallel),
                     (in, y, parallel))
FASTLTC_EXPORT_TYPED(masked_linear_backward,
                     (const MaskedLinear<T>& in, const MaskedLinearGradients<T>& grad,
                      const Parallel& parallel),
                     (in, grad, parallel))

}  // namespace fastltc::cpu
