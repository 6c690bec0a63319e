// CfC, compiled once for each instruction set: takes the call apart into threads and tiles.
#include "core/cfc_problem.h"
#include "cpu/cells/cfc.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {
namespace {

// The work of one sample in sigmoids, a dozen multiply-adds counted as one.
template <typename T>
int64_t evaluations(const CfcInputs<T>& in, const CfcPlan<T>& plan) {
  return in.size.T * (plan.multiply_adds / 12 + 3 * in.size.N + plan.memory.evaluations());
}

// Packs the weights into a block of their own, so that all sizes are known after it.
template <typename T>
class PackedPlan {
 public:
  PackedPlan(const CfcInputs<T>& in, bool with_backward) : block_(bytes(in, with_backward)) {
    Arena arena(block_.data());
    plan.take(arena, in, with_backward);
    plan.fill(in, with_backward);
  }
  CfcPlan<T> plan;

 private:
  static size_t bytes(const CfcInputs<T>& in, bool with_backward) {
    CfcPlan<T> counted;
    Arena counting;
    counted.take(counting, in, with_backward);
    return counting.used();
  }
  Block block_;
};

template <typename T>
struct CfcForwardJob {
  const CfcInputs<T>& in;
  const CfcOutputs<T>& out;
  const CfcPlan<T>& plan;
  Partition<T> partition;
  char* scratch;
  size_t scratch_bytes;  // of one part

  static void run(void* context, int64_t part) {
    const auto& job = *static_cast<const CfcForwardJob*>(context);
    run_tiles(job.partition, part, job.in.size.B, [&](auto width, int64_t first, int valid) {
      CfcForwardTile<T, decltype(width)::value>(job.in, job.out, job.plan,
                                                Arena(job.scratch + part * job.scratch_bytes))
          .run(first, valid);
    });
  }
};

template <typename T>
struct CfcBackwardJob {
  const CfcInputs<T>& in;
  const CfcGradients<T>& grad;
  const CfcPlan<T>& plan;
  Partition<T> partition;
  CfcSums<T>* sums;  // one for each part
  char* scratch;
  size_t scratch_bytes;

  static void run(void* context, int64_t part) {
    const auto& job = *static_cast<const CfcBackwardJob*>(context);
    job.sums[part].clear();
    run_tiles(job.partition, part, job.in.size.B, [&](auto width, int64_t first, int valid) {
      CfcBackwardTile<T, decltype(width)::value>(job.in, job.grad, job.plan, job.sums[part],
                                                 Arena(job.scratch + part * job.scratch_bytes))
          .run(first, valid);
    });
  }
};

}  // namespace

template <typename T>
void cfc_forward(const CfcInputs<T>& in, const CfcOutputs<T>& out, const Parallel& parallel) {
  const PackedPlan<T> packed(in, false);
  const CfcPlan<T>& plan = packed.plan;
  const Partition<T> partition(in.size.B, evaluations(in, plan), parallel.threads);
  const size_t tile_bytes = scratch_of<CfcForwardTile, T>(partition.width(), in, out, plan);
  const Block block(tile_bytes * partition.parts);
  CfcForwardJob<T> job{in, out, plan, partition, block.data(), tile_bytes};
  parallel.run(partition.parts, &CfcForwardJob<T>::run, &job);
}

template <typename T>
void cfc_backward(const CfcInputs<T>& in, const CfcGradients<T>& grad, const Parallel& parallel) {
  const PackedPlan<T> packed(in, true);
  const CfcPlan<T>& plan = packed.plan;
  const Partition<T> partition(in.size.B, evaluations(in, plan), parallel.threads);
  Arena counting;
  counting.take<CfcSums<T>>(partition.parts);
  for (int64_t k = 0; k < partition.parts; ++k) CfcSums<T>().take(counting, in, plan, plan.stages);
  const size_t sums_bytes = counting.used();
  const size_t tile_bytes =
      scratch_of<CfcBackwardTile, T>(partition.width(), in, grad, plan, CfcSums<T>());
  const Block block(sums_bytes + tile_bytes * partition.parts);
  Arena arena(block.data());
  CfcSums<T>* const sums = arena.take<CfcSums<T>>(partition.parts);
  for (int64_t k = 0; k < partition.parts; ++k) {
    sums[k] = CfcSums<T>();
    sums[k].take(arena, in, plan, plan.stages);
  }
  CfcBackwardJob<T> job{in, grad, plan, partition, sums, block.data() + sums_bytes, tile_bytes};
  parallel.run(partition.parts, &CfcBackwardJob<T>::run, &job);
  write_cfc_gradients(in, grad, plan, sums, partition.parts);
}

template void cfc_forward(const CfcInputs<float>&, const CfcOutputs<float>&, const Parallel&);
template void cfc_forward(const CfcInputs<double>&, const CfcOutputs<double>&, const Parallel&);
template void cfc_backward(const CfcInputs<float>&, const CfcGradients<float>&, const Parallel&);
template void cfc_backward(const CfcInputs<double>&, const CfcGradients<double>&, const Parallel&);

}  // namespace fastltc::cpu::FASTLTC_ISA
