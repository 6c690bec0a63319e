// Chooses the instruction set.
#include "cpu/ltc.h"

#include "cpu/frame/dispatch.h"

namespace fastltc::cpu {

// Defined by ltc_kernels.cpp, once for each instruction set.
#define FASTLTC_DECLARE(isa)                                                       \
  namespace isa {                                                                  \
  template <typename T>                                                            \
  void ltc_forward(const LtcInputs<T>&, const LtcOutputs<T>&, const Parallel&);    \
  template <typename T>                                                            \
  void ltc_backward(const LtcInputs<T>&, const LtcGradients<T>&, const Parallel&); \
  }
FASTLTC_FOR_EACH_ISA(FASTLTC_DECLARE)
#undef FASTLTC_DECLARE

template <typename T>
void ltc_forward(const LtcInputs<T>& in, const LtcOutputs<T>& out, const Parallel& parallel) {
  FASTLTC_DISPATCH(ltc_forward<T>(in, out, parallel));
}

template <typename T>
void ltc_backward(const LtcInputs<T>& in, const LtcGradients<T>& grad, const Parallel& parallel) {
  FASTLTC_DISPATCH(ltc_backward<T>(in, grad, parallel));
}

template void ltc_forward(const LtcInputs<float>&, const LtcOutputs<float>&, const Parallel&);
template void ltc_forward(const LtcInputs<double>&, const LtcOutputs<double>&, const Parallel&);
template void ltc_backward(const LtcInputs<float>&, const LtcGradients<float>&, const Parallel&);
template void ltc_backward(const LtcInputs<double>&, const LtcGradients<double>&, const Parallel&);

}  // namespace fastltc::cpu
