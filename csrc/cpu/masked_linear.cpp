// Chooses the instruction set.
#include "cpu/masked_linear.h"

#include "cpu/frame/dispatch.h"

namespace fastltc::cpu {

// Defined by masked_linear_kernels.cpp, once for each instruction set.
#define FASTLTC_DECLARE(isa)                                                           \
  namespace isa {                                                                      \
  template <typename T>                                                                \
  void masked_linear(const MaskedLinear<T>&, T*, const Parallel&);                     \
  template <typename T>                                                                \
  void masked_linear_backward(const MaskedLinear<T>&, const MaskedLinearGradients<T>&, \
                              const Parallel&);                                        \
  }
FASTLTC_FOR_EACH_ISA(FASTLTC_DECLARE)
#undef FASTLTC_DECLARE

template <typename T>
void masked_linear(const MaskedLinear<T>& in, T* y, const Parallel& parallel) {
  FASTLTC_DISPATCH(masked_linear<T>(in, y, parallel));
}

template <typename T>
void masked_linear_backward(const MaskedLinear<T>& in, const MaskedLinearGradients<T>& grad,
                            const Parallel& parallel) {
  FASTLTC_DISPATCH(masked_linear_backward<T>(in, grad, parallel));
}

template void masked_linear(const MaskedLinear<float>&, float*, const Parallel&);
template void masked_linear(const MaskedLinear<double>&, double*, const Parallel&);
template void masked_linear_backward(const MaskedLinear<float>&,
                                     const MaskedLinearGradients<float>&, const Parallel&);
template void masked_linear_backward(const MaskedLinear<double>&,
                                     const MaskedLinearGradients<double>&, const Parallel&);

}  // namespace fastltc::cpu
