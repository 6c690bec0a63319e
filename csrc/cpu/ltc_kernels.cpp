// LTC, compiled once for each instruction set.
#include "core/ltc_problem.h"
#include "cpu/cells/ltc.h"
#include "cpu/cells/ltc_packed.h"
#include "cpu/cells/ltc_post_lanes.h"
#include "cpu/cells/ltc_stacked.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/dispatch.h"
#include "cpu/frame/networks.h"
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

// As kRegisterOfNetworks, of samples by post lanes.
constexpr int64_t kRegisterOfPostLanes = 4;

template <typename T, int W>
using NetworksForward = LtcForward<T, W, Lanes::networks>;
template <typename T, int W>
using NetworksBackward = LtcBackward<T, W, Lanes::networks>;

template <typename T>
void forward_of_one(const LtcInputs<T>& in, const LtcOutputs<T>& out, const Parallel& parallel) {
  const InBlock<PackedLtc<T>> packed(in, false);
  const LtcOutputs<T> own = outputs_of(out, in, packed.layer.history.size());
  if (forward_by_post_lanes(in, own, packed.layer, parallel)) return;
  run_forward<LtcForward>(in, own, packed.layer, parallel);
}

template <typename T>
void backward_of_one(const LtcInputs<T>& in, const LtcGradients<T>& grad,
                     const Parallel& parallel) {
  const InBlock<PackedLtc<T>> packed(in, true);
  const LtcGradients<T> own = gradients_of(grad, in, packed.layer.history.size());
  run_backward<LtcBackward, T>(in, own, packed.layer, parallel, [&](const auto& sums) {
    const auto place = [](int64_t k) { return k; };
    write_ltc_gradients(in, own, packed.layer, 0, sums.first, sums, place, place,
                        packed.layer.scratch);
    sums.take_up(sums.first.memory);
  });
}

}  // namespace

template <typename T>
void ltc_forward(const LtcInputs<T>& in, const LtcOutputs<T>& out, const Parallel& parallel) {
  if (in.nets == 1) return forward_of_one(in, out, parallel);
  const int64_t together =
      networks_together(in, out.states == nullptr ? kRegisterOfPostLanes : kRegisterOfNetworks);
  if (together == 1) {
    const LtcOneByOne<T> each(in);
    return run_networks(in, 1, parallel, [&](int64_t net, const Parallel& inner) {
      forward_of_one(each.of(net), out, inner);
    });
  }
  const InBlock<PackedLtc<T>> packed(in, false);
  run_networks(in, together, parallel, [&](int64_t first, const Parallel& inner) {
    const LtcInputs<T> part = networks_from(in, first);
    const InBlock<StackedLtc<T>> stacked(LtcNetworks<T>(in, packed.layer, first), false);
    run_forward<NetworksForward>(part, outputs_of(out, part, stacked.layer.history.size()),
                                 stacked.layer, inner);
  });
}

template <typename T>
void ltc_backward(const LtcInputs<T>& in, const LtcGradients<T>& grad, const Parallel& parallel) {
  if (in.nets == 1) return backward_of_one(in, grad, parallel);
  const int64_t together = networks_together(in);
  if (together == 1) {
    const LtcOneByOne<T> each(in);
    return run_networks_backward(
        in, grad, 1, parallel, [&](int64_t net, const LtcGradients<T>& own, const Parallel& inner) {
          backward_of_one(each.of(net), each.of(net, own), inner);
        });
  }
  const InBlock<PackedLtc<T>> packed(in, true);
  run_networks_backward(
      in, grad, together, parallel,
      [&](int64_t first, const LtcGradients<T>& given, const Parallel& inner) {
        const LtcInputs<T> part = networks_from(in, first);
        const LtcNetworks<T> nets(in, packed.layer, first);
        const InBlock<StackedLtc<T>> stacked(nets, true);
        const LtcGradients<T> own = gradients_of(given, part, stacked.layer.history.size());
        run_backward<NetworksBackward, T>(part, own, stacked.layer, inner, [&](const auto& sums) {
          stacked.layer.write_gradients(nets, own, sums);
        });
      });
}

FASTLTC_INSTANTIATE(ltc_forward)
FASTLTC_INSTANTIATE(ltc_backward)

}  // namespace fastltc::cpu::FASTLTC_ISA
