// What the operators call, each in the instruction set in use; *_kernels.cpp define it for each set.
#include "cpu/frame/dispatch.h"
#include "cpu/frame/isa.h"
#include "cpu/operators.h"

namespace fastltc::cpu {

#define FASTLTC_EXPORT_OPERATOR(name, Inputs, Outputs)                                         \
  FASTLTC_EXPORT_TYPED(name,                                                                   \
                       (const Inputs<T>& in, const Outputs<T>& out, const Parallel& parallel), \
                       (in, out, parallel))

#define FASTLTC_EXPORT_LTC(name, Outputs)                                                    \
  FASTLTC_DECLARE(template <typename T>                                                      \
                  void name(const LtcInputs<T>&, const Outputs<T>&, const Parallel&))        \
  FASTLTC_DECLARE_MEDIUM(template <typename T>                                               \
                         void name(const LtcInputs<T>&, const Outputs<T>&, const Parallel&)) \
  template <typename T>                                                                      \
  void name(const LtcInputs<T>& in, const Outputs<T>& out, const Parallel& parallel) {       \
    if constexpr (sizeof(T) == sizeof(float)) {                                              \
      if (in.medium_sigmoid) {                                                               \
        FASTLTC_CALL_MEDIUM(name<T>(in, out, parallel))                                      \
      }                                                                                      \
    }                                                                                        \
    FASTLTC_CALL(name<T>(in, out, parallel))                                                 \
  }                                                                                          \
  FASTLTC_INSTANTIATE(name)

FASTLTC_EXPORT_LTC(ltc_forward, LtcOutputs)
FASTLTC_EXPORT_LTC(ltc_backward, LtcGradients)
FASTLTC_EXPORT_OPERATOR(cfc_forward, CfcInputs, CfcOutputs)
FASTLTC_EXPORT_OPERATOR(cfc_backward, CfcInputs, CfcGradients)
FASTLTC_EXPORT_OPERATOR(masked_linear_backward, MaskedLinear, MaskedLinearGradients)
FASTLTC_EXPORT_TYPED(masked_linear, (const MaskedLinear<T>& in, T* y, const Parallel& parallel),
                     (in, y, parallel))

}  // namespace fastltc::cpu
