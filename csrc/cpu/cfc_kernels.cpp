// CfC, compiled once for each instruction set.
#include "core/cfc_problem.h"
#include "cpu/cells/cfc.h"
#include "cpu/cells/cfc_packed.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/dispatch.h"
#include "cpu/frame/networks.h"
#include "cpu/frame/sequence_tile.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {
namespace {

template <typename T, int W>
using NetworksForward = CfcForward<T, W, Lanes::networks>;
template <typename T, int W>
using NetworksBackward = CfcBackward<T, W, Lanes::networks>;

// One network, or as many as a register has lanes.
template <template <typename, int> class Cell, Lanes lanes, typename T>
void run_part(const CfcInputs<T>& in, const CfcOutputs<T>& out, const Parallel& parallel) {
  const InBlock<PackedCfc<T, lanes>> packed(in, false);
  run_forward<Cell>(in, outputs_of(out, in, packed.layer.history.size()), packed.layer, parallel);
}
template <template <typename, int> class Cell, Lanes lanes, typename T>
void run_part_backward(const CfcInputs<T>& in, const CfcGradients<T>& grad,
                       const Parallel& parallel) {
  const InBlock<PackedCfc<T, lanes>> packed(in, true);
  const CfcGradients<T> own = gradients_of(grad, in, packed.layer.history.size());
  run_backward<Cell, T>(in, own, packed.layer, parallel, [&](const auto& sums) {
    write_cfc_gradients(in, own, packed.layer, sums);
  });
}

}  // namespace

template <typename T>
void cfc_forward(const CfcInputs<T>& in, const CfcOutputs<T>& out, const Parallel& parallel) {
  if (in.nets == 1) return run_part<CfcForward, Lanes::samples>(in, out, parallel);
  const int64_t together = networks_together(in);
  run_networks(in, together, parallel, [&](int64_t first, const Parallel& inner) {
    const CfcInputs<T> part = networks_from(in, first);
    if (together == 1) return run_part<CfcForward, Lanes::samples>(part, out, inner);
    run_part<NetworksForward, Lanes::networks>(part, out, inner);
  });
}

template <typename T>
void cfc_backward(const CfcInputs<T>& in, const CfcGradients<T>& grad, const Parallel& parallel) {
  if (in.nets == 1) return run_part_backward<CfcBackward, Lanes::samples>(in, grad, parallel);
  const int64_t together = networks_together(in);
  run_networks_backward(in, grad, together, parallel,
                        [&](int64_t first, const CfcGradients<T>& own, const Parallel& inner) {
                          const CfcInputs<T> part = networks_from(in, first);
                          if (together == 1)
                            return run_part_backward<CfcBackward, Lanes::samples>(part, own, inner);
                          run_part_backward<NetworksBackward, Lanes::networks>(part, own, inner);
                        });
}

FASTLTC_INSTANTIATE(cfc_forward)
FASTLTC_INSTANTIATE(cfc_backward)

}  // namespace fastltc::cpu::FASTLTC_ISA
