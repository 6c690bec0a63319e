// The operators on the CPU.
#include "cpu/operators.h"
#include "torch/implement.h"

namespace fastltc {
namespace {

struct Cpu {
  static constexpr bool wants_zeros = true;
  static int64_t kept_unfolds(const LtcArguments& layer) {
    return ltc_kept_unfolds(layer.size, layer.counts().synapses, layer.nets);
  }

  template <typename T>
  static void forward(const LtcArguments&, const LtcInputs<T>& in, const LtcOutputs<T>& out) {
    cpu::ltc_forward(in, out, torch_parallel());
  }
  template <typename T>
  static void backward(const LtcArguments&, const LtcInputs<T>& in, const LtcGradients<T>& grad) {
    cpu::ltc_backward(in, grad, torch_parallel());
  }

  template <typename T>
  static void forward(const CfcArguments&, const CfcInputs<T>& in, const CfcOutputs<T>& out) {
    cpu::cfc_forward(in, out, torch_parallel());
  }
  template <typename T>
  static void backward(const CfcArguments&, const CfcInputs<T>& in, const CfcGradients<T>& grad) {
    cpu::cfc_backward(in, grad, torch_parallel());
  }

  template <typename T>
  static void forward(const MaskedLinearArguments&, const MaskedLinear<T>& in, T* y) {
    cpu::masked_linear(in, y, torch_parallel());
  }
  template <typename T>
  static void backward(const MaskedLinearArguments&, const MaskedLinear<T>& in,
                       const MaskedLinearGradients<T>& grad) {
    cpu::masked_linear_backward(in, grad, torch_parallel());
  }
};

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_IMPL(fastltc, CPU, m) { fastltc::implement_operators<fastltc::Cpu>(m); }
