// CfC, compiled once for each instruction set.
#include "core/cfc_problem.h"
#include "cpu/cells/cfc.h"
#include "cpu/cells/cfc_packed.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/dispatch.h"
#include "cpu/frame/sequence_tile.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

template <typename T>
void cfc_forward(const CfcInputs<T>& in, const CfcOutputs<T>& out, const Parallel& parallel) {
  const InBlock<PackedCfc<T>> packed(in, false);
  run_forward<CfcForward>(in, out, packed.layer, parallel);
}

template <typename T>
void cfc_backward(const CfcInputs<T>& in, const CfcGradients<T>& grad, const Parallel& parallel) {
  const InBlock<PackedCfc<T>> packed(in, true);
  run_backward<CfcBackward, T>(in, grad, packed.layer, parallel, [&](const auto& sums) {
    write_cfc_gradients(in, grad, packed.layer, sums);
  });
}

FASTLTC_INSTANTIATE(cfc_forward)
FASTLTC_INSTANTIATE(cfc_backward)

}  // namespace fastltc::cpu::FASTLTC_ISA
