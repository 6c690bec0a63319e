// fastltc::cfc_forward and fastltc::cfc_backward on the CPU.
#include "cpu/cfc.h"

#include <torch/csrc/stable/library.h>

#include "torch/cfc_operator.h"

namespace fastltc {
namespace {

struct Cpu {
  static ArgumentCheck check(const char* op, const Tensor& x) { return {op, x.scalar_type()}; }
  template <typename T>
  static void forward(const Tensor&, const CfcInputs<T>& in, const CfcOutputs<T>& out) {
    cpu::cfc_forward(in, out, torch_parallel());
  }
  template <typename T>
  static void backward(const Tensor&, const CfcInputs<T>& in, const CfcGradients<T>& grad) {
    cpu::cfc_backward(in, grad, torch_parallel());
  }
};

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_IMPL(fastltc, CPU, m) {
  m.impl("cfc_forward", TORCH_BOX(&fastltc::cfc_forward<fastltc::Cpu>));
  m.impl("cfc_backward", TORCH_BOX(&fastltc::cfc_backward<fastltc::Cpu>));
}
