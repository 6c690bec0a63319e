// fastltc::ltc_forward and fastltc::ltc_backward on the CPU.
#include <torch/csrc/stable/library.h>

#include "cpu/ltc.h"
#include "torch/ltc_operator.h"

namespace fastltc {
namespace {

struct Cpu {
  static constexpr bool wants_zeros = true;
  static ArgumentCheck check(const char* op, const Tensor& x) { return {op, x.scalar_type()}; }
  static bool keeps_rates(const LayerSizes&, const LtcCounts&, bool) { return false; }
  template <typename T>
  static void forward(const Tensor&, const LtcInputs<T>& in, const LtcCounts&,
                      const LtcOutputs<T>& out) {
    cpu::ltc_forward(in, out, torch_parallel());
  }
  template <typename T>
  static void backward(const Tensor&, const LtcInputs<T>& in, const LtcCounts&,
                       const LtcGradients<T>& grad) {
    cpu::ltc_backward(in, grad, torch_parallel());
  }
};

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_IMPL(fastltc, CPU, m) {
  m.impl("ltc_forward", TORCH_BOX(&fastltc::ltc_forward<fastltc::Cpu>));
  m.impl("ltc_backward", TORCH_BOX(&fastltc::ltc_backward<fastltc::Cpu>));
}
