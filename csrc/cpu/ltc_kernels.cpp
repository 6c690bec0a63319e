// LTC, compiled once for each instruction set: takes the call apart into threads and tiles.
#include <new>

#include "core/ltc_problem.h"
#include "cpu/arena.h"
#include "cpu/ltc_batch_lanes.h"
#include "cpu/ltc_plan.h"
#include "cpu/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {
namespace {

// Below about this many sigmoids, waking the other threads takes longer than they save.
constexpr int64_t kSigmoidsWorthAThread = 50000;

class Block {
 public:
  explicit Block(size_t bytes)
      : data_(static_cast<char*>(::operator new(bytes + 1, std::align_val_t{64}))) {}
  ~Block() { ::operator delete(data_, std::align_val_t{64}); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  char* data() const { return data_; }

 private:
  char* data_;
};

// The registers of samples, shared out evenly: part i takes [begin(i), begin(i + 1)).
template <typename T>
struct Partition {
  int64_t registers = 0;
  int64_t parts = 0;

  Partition(const LtcInputs<T>& in, const LtcPlan<T>& plan, int threads) {
    registers = (in.size.B + Simd<T>::lanes - 1) / Simd<T>::lanes;
    const int64_t sigmoids = (plan.recurrent.count * in.size.U + plan.sensory.count + in.size.N) *
                             in.size.T * registers * Simd<T>::lanes;
    parts = 1 + sigmoids / kSigmoidsWorthAThread;
    if (parts > threads) parts = threads;
    if (parts > registers) parts = registers;
  }
  int64_t begin(int64_t part) const { return registers * part / parts; }
  // The widest tile that a part runs.
  int width() const {
    const int64_t most = parts == 0 ? 0 : (registers + parts - 1) / parts;
    int width = kMaxWidth;
    while (width > 1 && width > most) width /= 2;
    return width;
  }
};

// Runs call(width, first sample, samples) for the tiles of one part, widest first. Registers that
// are not full come in tiles of their own.
template <typename T, typename Call>
void for_each_tile(const Partition<T>& partition, int64_t part, int64_t batch, Call call) {
  constexpr int64_t L = Simd<T>::lanes;
  int64_t at = partition.begin(part);
  const int64_t end = partition.begin(part + 1);
  const int64_t full = end * L <= batch ? end : end - 1;
  while (at < full) {
    int width = kMaxWidth;
    while (at + width > full) width /= 2;
    call(width, at * L, static_cast<int>(width * L));
    at += width;
  }
  if (at < end) call(1, at * L, static_cast<int>(batch - at * L));
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
    for_each_tile(job.partition, part, job.in.size.B, [&](int width, int64_t first, int valid) {
      if (width == 4) {
        if constexpr (kMaxWidth >= 4) job.template tile_of_width<4>(part, first, valid);
      } else if (width == 2) {
        job.template tile_of_width<2>(part, first, valid);
      } else {
        job.template tile_of_width<1>(part, first, valid);
      }
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
    for_each_tile(job.partition, part, job.in.size.B, [&](int width, int64_t first, int valid) {
      if (width == 4) {
        if constexpr (kMaxWidth >= 4) job.template tile_of_width<4>(part, first, valid);
      } else if (width == 2) {
        job.template tile_of_width<2>(part, first, valid);
      } else {
        job.template tile_of_width<1>(part, first, valid);
      }
    });
  }
};

// The scratch of one part, counted for its widest tile: W parts take W times what one does.
template <typename Tile>
size_t scratch_of(Tile tile) {
  Arena counting;
  tile.take(counting);
  return counting.used();
}

}  // namespace

template <typename T>
void ltc_forward(const LtcInputs<T>& in, const LtcOutputs<T>& out, const Parallel& parallel) {
  LtcPlan<T> plan;
  Arena counting;
  plan.take(counting, in);
  const Partition<T> partition(in, plan, parallel.threads);
  const size_t plan_bytes = counting.used();
  const size_t tile_bytes = scratch_of(ForwardTile<T, kMaxWidth>(in, out, plan, Arena()));
  Block block(plan_bytes + tile_bytes * partition.parts);
  Arena arena(block.data());
  plan.take(arena, in);
  plan.fill(in);
  ForwardJob<T> job{in, out, plan, partition, block.data() + plan_bytes, tile_bytes};
  parallel.run(partition.parts, &ForwardJob<T>::run, &job);
}

template <typename T>
void ltc_backward(const LtcInputs<T>& in, const LtcGradients<T>& grad, const Parallel& parallel) {
  LtcPlan<T> plan;
  Arena counting;
  plan.take(counting, in);
  const Partition<T> partition(in, plan, parallel.threads);
  LtcSums<T>* sums = counting.take<LtcSums<T>>(partition.parts);
  for (int64_t k = 0; k < partition.parts; ++k) LtcSums<T>().take(counting, in, plan);
  const size_t shared_bytes = counting.used();
  const size_t tile_bytes =
      scratch_of(BackwardTile<T, kMaxWidth>(in, grad, plan, LtcSums<T>(), Arena()));
  Block block(shared_bytes + tile_bytes * partition.parts);
  Arena arena(block.data());
  plan.take(arena, in);
  plan.fill(in);
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
