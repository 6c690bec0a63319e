// Chooses the instruction set.
#include "cpu/cfc.h"

#include "cpu/frame/dispatch.h"

namespace fastltc::cpu {

// Defined by cfc_kernels.cpp, once for each instruction set.
#define FASTLTC_DECLARE(isa)                                                       \
  namespace isa {                                                                  \
  template <typename T>                                                            \
  void cfc_forward(const CfcInputs<T>&, const CfcOutputs<T>&, const Parallel&);    \
  template <typename T>                                                            \
  void cfc_backward(const CfcInputs<T>&, const CfcGradients<T>&, const Parallel&); \
  }
FASTLTC_FOR_EACH_ISA(FASTLTC_DECLARE)
#undef FASTLTC_DECLARE

template <typename T>
void cfc_forward(const CfcInputs<T>& in, const CfcOutputs<T>& out, const Parallel& parallel) {
  FASTLTC_DISPATCH(cfc_forward<T>(in, out, parallel));
}

template <typename T>
void cfc_backward(const CfcInputs<T>& in, const CfcGradients<T>& grad, const Parallel& parallel) {
  FASTLTC_DISPATCH(cfc_backward<T>(in, grad, parallel));
}

template void cfc_forward(const CfcInputs<float>&, const CfcOutputs<float>&, const Parallel&);
template void cfc_forward(const CfcInputs<double>&, const CfcOutputs<double>&, const Parallel&);
template void cfc_backward(const CfcInputs<float>&, const CfcGradients<float>&, const Parallel&);
template void cfc_backward(const CfcInputs<double>&, const CfcGradients<double>&, const Parallel&);

}  // namespace fastltc::cpu
