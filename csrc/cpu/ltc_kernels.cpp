// LTC, compiled once for each instruction set.
#include "core/ltc_problem.h"
#include "cpu/cells/ltc.h"
#include "cpu/cells/ltc_packed.h"
#include "cpu/cells/ltc_post_lanes.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/dispatch.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/sequence_tile.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {
namespace {

// Whether post lanes take fewer evaluations than batch lanes: they do for few samples, of which
// batch lanes would leave most lanes empty. They keep no states, so training always uses batch
// lanes. Runs the forward pass if so.
template <typename T>
bool forward_by_post_lanes(const LtcInputs<T>& in, const LtcOutputs<T>& out,
                           const PackedLtc<T>& layer, const Parallel& parallel) {
  const int64_t B = in.size.B, U = in.size.U;
  if (out.states != nullptr || layer.memory.present || B == 0 || B >= Simd<T>::lanes) return false;
  PostLanes<T> lanes;
  const BlockOf dealt([&](Arena& arena) { lanes.take(arena, in); });
  lanes.deal(in);
  const int64_t by_batch =
      U * (layer.recurrent.count + in.size.N) + layer.sensory.count + in.size.N;
  if (B * lanes.cost(U) >= by_batch) return false;

  const BlockOf slots([&](Arena& arena) { lanes.take_slots(arena); });
  lanes.fill(in, layer);
  int64_t parts = 1 + B * in.size.T * lanes.cost(U) * Simd<T>::lanes / kEvaluationsWorthAThread;
  if (parts > parallel.threads) parts = parallel.threads;
  if (parts > B) parts = B;
  const size_t bytes = bytes_of([&](Arena& arena) { PostLanesForward<T>(in, out, lanes, arena); });
  const Block block(bytes * parts);
  run_parts(parallel, parts, [&](int64_t part) {
    Arena arena(block.data() + bytes * part);
    PostLanesForward<T> forward(in, out, lanes, arena);
    for (int64_t b = B * part / parts; b < B * (part + 1) / parts; ++b) forward.run(b);
  });
  return true;
}

}  // namespace

template <typename T>
void ltc_forward(const LtcInputs<T>& in, const LtcOutputs<T>& out, const Parallel& parallel) {
  const InBlock<PackedLtc<T>> packed(in, false);
  if (forward_by_post_lanes(in, out, packed.layer, parallel)) return;
  run_forward<LtcForward>(in, out, packed.layer, parallel);
}

template <typename T>
void ltc_backward(const LtcInputs<T>& in, const LtcGradients<T>& grad, const Parallel& parallel) {
  const InBlock<PackedLtc<T>> packed(in, true);
  run_backward<LtcBackward, T>(in, grad, packed.layer, parallel, [&](const auto& sums) {
    write_ltc_gradients(in, grad, packed.layer, sums);
  });
}

FASTLTC_INSTANTIATE(ltc_forward)
FASTLTC_INSTANTIATE(ltc_backward)

}  // namespace fastltc::cpu::FASTLTC_ISA
