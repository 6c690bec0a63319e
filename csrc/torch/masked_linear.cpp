// fastltc::masked_linear and its backward on the CPU.
#include "cpu/masked_linear.h"

#include <torch/csrc/stable/library.h>

#include "torch/masked_linear_operator.h"

namespace fastltc {
namespace {

struct Cpu {
  static ArgumentCheck check(const char* op, const Tensor& x) { return {op, x.scalar_type()}; }
  template <typename T>
  static void forward(const Tensor&, const MaskedLinear<T>& in, int64_t, T* y) {
    cpu::masked_linear(in, y, torch_parallel());
  }
  template <typename T>
  static void backward(const Tensor&, const MaskedLinear<T>& in, int64_t,
                       const MaskedLinearGradients<T>& grad) {
    cpu::masked_linear_backward(in, grad, torch_parallel());
  }
};

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_IMPL(fastltc, CPU, m) {
  m.impl("masked_linear", TORCH_BOX(&fastltc::masked_linear<fastltc::Cpu>));
  m.impl("masked_linear_backward", TORCH_BOX(&fastltc::masked_linear_backward<fastltc::Cpu>));
}
