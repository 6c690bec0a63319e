// LTC, compiled once for each instruction set: takes the call apart into threads and tiles.
#include "core/ltc_problem.h"
#include "cpu/cells/ltc.h"
#include "cpu/cells/ltc_plan.h"
#include "cpu/cells/ltc_post_lanes.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {
namespace {

// Sigmoids of one sample, a neuron's own work counted as one.
template <typename T>
int64_t evaluations(const LtcInputs<T>& in, const LtcPlan<T>& plan) {
  return in.size.T * (plan.recurrent.count * in.size.U + plan.sensory.count + in.size.N +
                      plan.memory.evaluations());
}

template <typename T>
struct ForwardJob {
  const LtcInputs<T>& in;
  const LtcOutputs<T>& out;
  const LtcPlan<T>& plan;
  Partition<T> partition;
  char* scratch;
  size_t scratch_bytes;  // of one part

  template <int W, Timespans timespans>
  void tile(int64_t part, int64_t first, int valid) const {
    ForwardTile<T, W>(in, out, plan, Arena(scratch + part * scratch_bytes))
        .template run<timespans>(first, valid);
  }
  template <int W>
  void tile_of_width(int64_t part, int64_t first, int valid) const {
    if (in.timespans.data == nullptr) {
      tile<W, Timespans::unit>(part, first, valid);
    } else {
      tile<W, Timespans::given>(part, first, valid);
    }
  }
  static void run(void* context, int64_t part) {
    const auto& job = *static_cast<const ForwardJob*>(context);
    run_tiles(job.partition, part, job.in.size.B, [&](auto width, int64_t first, int valid) {
      job.template tile_of_width<decltype(width)::value>(part, first, valid);
    });
  }
};

template <typename T>
struct BackwardJob {
  const LtcInputs<T>& in;
  const LtcGradients<T>& grad;
  const LtcPlan<T>& plan;
  Partition<T> partition;
  LtcSums<T>* sums;  // one for each part
  char* scratch;
  size_t scratch_bytes;

  template <int W, Timespans timespans>
  void tile(int64_t part, int64_t first, int valid) const {
    BackwardTile<T, W>(in, grad, plan, sums[part], Arena(scratch + part * scratch_bytes))
        .template run<timespans>(first, valid);
  }
  template <int W>
  void tile_of_width(int64_t part, int64_t first, int valid) const {
    if (in.timespans.data == nullptr) {
      tile<W, Timespans::unit>(part, first, valid);
    } else if (grad.timespans.data == nullptr) {
      tile<W, Timespans::given>(part, first, valid);
    } else {
      tile<W, Timespans::differentiated>(part, first, valid);
    }
  }
  static void run(void* context, int64_t part) {
    const auto& job = *static_cast<const BackwardJob*>(context);
    job.sums[part].clear();
    run_tiles(job.partition, part, job.in.size.B, [&](auto width, int64_t first, int valid) {
      job.template tile_of_width<decltype(width)::value>(part, first, valid);
    });
  }
};

template <typename T>
struct PostLanesJob {
  const LtcInputs<T>& in;
  const LtcOutputs<T>& out;
  const PostLanes<T>& lanes;
  int64_t parts;
  char* scratch;
  size_t scratch_bytes;

  static void run(void* context, int64_t part) {
    const auto& job = *static_cast<const PostLanesJob*>(context);
    PostLanesForward<T> forward(job.in, job.out, job.lanes,
                                Arena(job.scratch + part * job.scratch_bytes));
    const int64_t B = job.in.size.B;
    for (int64_t b = B * part / job.parts; b < B * (part + 1) / job.parts; ++b) forward.run(b);
  }
};

// Whether post lanes take fewer evaluations than batch lanes: they do for few samples, of which
// batch lanes would leave most lanes empty. They keep no states, so training always uses batch
// lanes. Runs the forward pass if so.
template <typename T>
bool forward_by_post_lanes(const LtcInputs<T>& in, const LtcOutputs<T>& out, const LtcPlan<T>& plan,
                           const Parallel& parallel) {
  const int64_t B = in.size.B, U = in.size.U;
  if (out.states != nullptr || plan.memory.present || B == 0 || B >= Simd<T>::lanes) return false;
  PostLanes<T> lanes;
  Arena counting;
  lanes.take(counting, in);
  counting.take<int32_t>(in.size.N + 2);
  const Block dealt(counting.used());
  Arena arena(dealt.data());
  lanes.take(arena, in);
  lanes.deal(in, arena.take<int32_t>(in.size.N + 2));
  const int64_t by_batch = U * (plan.recurrent.count + in.size.N) + plan.sensory.count + in.size.N;
  if (B * lanes.cost(U) >= by_batch) return false;

  int64_t parts = 1 + B * in.size.T * lanes.cost(U) * Simd<T>::lanes / kEvaluationsWorthAThread;
  if (parts > parallel.threads) parts = parallel.threads;
  if (parts > B) parts = B;
  Arena slots;
  lanes.take_slots(slots);
  Arena one;
  PostLanesForward<T>(in, out, lanes, Arena()).take(one);
  const Block block(slots.used() + one.used() * parts);
  Arena filled(block.data());
  lanes.take_slots(filled);
  lanes.fill(in, plan);
  PostLanesJob<T> job{in, out, lanes, parts, block.data() + slots.used(), one.used()};
  parallel.run(parts, &PostLanesJob<T>::run, &job);
  return true;
}

}  // namespace

template <typename T>
void ltc_forward(const LtcInputs<T>& in, const LtcOutputs<T>& out, const Parallel& parallel) {
  LtcPlan<T> plan;
  Arena counting;
  plan.take(counting, in, false);
  const Partition<T> partition(in.size.B, evaluations(in, plan), parallel.threads);
  const size_t plan_bytes = counting.used();
  const Block plan_block(plan_bytes);
  Arena arena(plan_block.data());
  plan.take(arena, in, false);
  plan.fill(in, false);
  if (forward_by_post_lanes(in, out, plan, parallel)) return;
  const size_t tile_bytes = scratch_of<ForwardTile, T>(partition.width(), in, out, plan);
  const Block block(tile_bytes * partition.parts);
  ForwardJob<T> job{in, out, plan, partition, block.data(), tile_bytes};
  parallel.run(partition.parts, &ForwardJob<T>::run, &job);
}

template <typename T>
void ltc_backward(const LtcInputs<T>& in, const LtcGradients<T>& grad, const Parallel& parallel) {
  LtcPlan<T> plan;
  Arena counting;
  plan.take(counting, in, true);
  const Partition<T> partition(in.size.B, evaluations(in, plan), parallel.threads);
  LtcSums<T>* sums = counting.take<LtcSums<T>>(partition.parts);
  for (int64_t k = 0; k < partition.parts; ++k) LtcSums<T>().take(counting, in, plan);
  const size_t shared_bytes = counting.used();
  const size_t tile_bytes =
      scratch_of<BackwardTile, T>(partition.width(), in, grad, plan, LtcSums<T>());
  const Block block(shared_bytes + tile_bytes * partition.parts);
  Arena arena(block.data());
  plan.take(arena, in, true);
  plan.fill(in, true);
  plan.scale_weights();
  sums = arena.take<LtcSums<T>>(partition.parts);
  for (int64_t k = 0; k < partition.parts; ++k) {
    sums[k] = LtcSums<T>();
    sums[k].take(arena, in, plan);
  }
  BackwardJob<T> job{in, grad, plan, partition, sums, block.data() + shared_bytes, tile_bytes};
  parallel.run(partition.parts, &BackwardJob<T>::run, &job);
  LtcGradientSums<T>(in, grad, plan, sums, static_cast<int>(partition.parts)).write();
}

template void ltc_forward(const LtcInputs<float>&, const LtcOutputs<float>&, const Parallel&);
template void ltc_forward(const LtcInputs<double>&, const LtcOutputs<double>&, const Parallel&);
template void ltc_backward(const LtcInputs<float>&, const LtcGradients<float>&, const Parallel&);
template void ltc_backward(const LtcInputs<double>&, const LtcGradients<double>&, const Parallel&);

}  // namespace fastltc::cpu::FASTLTC_ISA
