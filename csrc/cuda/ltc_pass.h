// What both passes of LTC need before and besides the recurrent part, and where it lies in the
// scratch memory of a call.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "cuda/frame/launch.h"
#include "cuda/frame/resets.cuh"
#include "cuda/frame/scratch.h"
#include "cuda/frame/state_copy.cuh"
#include "cuda/frame/static_switch.h"
#include "cuda/ltc.h"
#include "cuda/ltc_gather.cuh"
#include "cuda/ltc_persistent.cuh"
#include "cuda/ltc_rows.cuh"
#include "cuda/memory_pass.h"

namespace fastltc::cuda {

template <typename T>
struct LtcPass {
  const LtcSchedule& schedule;
  const LtcInputs<T>& in;
  const LtcCounts& counts;
  cudaStream_t stream;

  Network<T> net{};
  SequenceRows<T> rows{};
  InputMap<T> map{};
  T* num = nullptr;
  T* den = nullptr;
  MemoryPass<T> memory{};
  Resets<T> resets{};

  bool tiled() const { return schedule.plan == LtcPlan::tiled; }
  bool clusters() const { return schedule.plan == LtcPlan::cluster_per_tile; }
  // States that a step adds; with mixed memory the first goes into the memory cell.
  int64_t of_step() const { return in.size.U + (memory.present() ? 1 : 0); }
  int64_t state_width() const { return (memory.present() ? 2 : 1) * in.size.N; }
  LtcKind kind() const {
    return memory.present() ? kMixedMemory : in.nets > 1 ? kLayers : kOneLayer;
  }

  void take(Scratch& scratch, bool backward) {
    const LayerSizes& size = in.size;
    const LtcParameters<T>& p = in.parameters;
    rows = SequenceRows<T>::of(in);
    resets = {rows, in.reset_state(), size.N, stream};
    net.size = size;
    net.recurrent.given = {p.sigma, p.mu, p.w, p.erev};
    net.nets = static_cast<int>(in.nets);
    net.outputs_each = static_cast<int>(size.M / in.nets);
    take(scratch, net.recurrent, in.synapses, counts.synapses, size.N, backward);
    net.sensory.given = {p.sensory_sigma, p.sensory_mu, p.sensory_w, p.sensory_erev};
    take(scratch, net.sensory, in.sensory_synapses, counts.sensory_synapses, size.I, backward);
    net.gleak = scratch.take<T>(size.N);
    net.capacity = scratch.take<T>(size.N);
    net.leak_numerator = scratch.take<T>(size.N);
    net.leak_denominator = scratch.take<T>(size.N);
    if (!tiled() && !clusters()) {
      net.order = scratch.take<int32_t>(size.N);
      net.place = scratch.take<int32_t>(size.N);
      net.driven_count = scratch.take<int32_t>(in.nets);
    }
    map.x = in.x;
    map.w = p.input_w;
    map.b = p.input_b;
    map.I = static_cast<int>(size.I);
    map.u = scratch.take<T>(size.I * rows.count);
    num = scratch.take<T>(size.N * rows.count);
    den = scratch.take<T>(size.N * rows.count);
    memory.steps.stream = stream;
    memory.take(scratch, in, rows, tiled() ? 0 : schedule.threads, backward);
  }
  void take(Scratch& scratch, Synapses<T>& list, const SynapseList& given, int64_t count,
            int64_t pre, bool backward) {
    const int64_t N = in.size.N;
    list.given_column = given.column;
    list.given_row = given.row;
    list.count = count;
    list.rows = static_cast<int>(pre);
    list.neurons = static_cast<int>(N);
    list.rows_each = static_cast<int>(pre / in.nets);
    list.neurons_each = static_cast<int>(N / in.nets);
    list.column = scratch.take<int32_t>(N + 1);
    list.parameters = scratch.take<Synapse<T>>(count);
    const bool is_recurrent = &list == &net.recurrent;
    if (backward && clusters() && is_recurrent) list.position = scratch.take<int32_t>(N * N);
    list.pre = scratch.take<int32_t>(count);
    list.post = scratch.take<int32_t>(count);
    if (!backward) return;
    list.out_count = scratch.take<int32_t>(pre);
    list.out = scratch.take<int32_t>(pre * list.neurons_each);
  }

  // Of the tiled plan: [N][B] as a view, and such a state with the memory's as one of the caller's.
  template <typename V>
  SequenceView<V> by_neuron(V* state) const {
    return {state, 1, 0, in.size.B};
  }
  void write_state(const T* state, T* to) const {
    const SequenceView<T> view{to, state_width(), 0, 1};
    copy_state(by_neuron(state), view, in.size.B, in.size.N, stream);
    if (memory.present()) memory.steps.end(memory_half(view, in.size.N));
  }

  // And maps the inputs; backward, clears these dense gradients [rows, N].
  void gather(const std::vector<std::pair<T*, int64_t>>& to_clear = {}) const {
    const bool backward = net.sensory.out != nullptr;
    LtcGather<T> call{net, in.parameters, rows, map, {}, {}, {}, {}, {}, {}};
    BlockRanges ranges;
    const auto warps = [&](int64_t count) { return ranges.take(ceil_div(count, kBlockWarps), 1); };
    for (int n = 0; n < 2; ++n) {
      const Synapses<T>& list = n == 0 ? net.recurrent : net.sensory;
      if (backward && list.position == nullptr) call.outgoing[n] = warps(list.rows);
      call.columns[n] = warps(list.neurons);
    }
    call.neurons = warps(in.nets * ceil_div(net.recurrent.neurons_each, kWarp));
    call.inputs = ranges.take(ceil_div(rows.count, kBlockThreads), map.I);
    int fills = 0;
    int64_t most = 0;
    const auto fill = [&](void* at, int64_t bytes, uint32_t value) {
      if (bytes == 0) return;
      call.fills[fills++] = {static_cast<uint32_t*>(at), bytes / 4, value};
      most = std::max(most, bytes / 4);
    };
    for (const auto& [at, rows_of] : to_clear) {
      fill(at, static_cast<int64_t>(sizeof(T)) * rows_of / in.nets * in.size.N, 0);
    }
    if (net.recurrent.position != nullptr) {
      fill(net.recurrent.position, 4 * in.size.N * in.size.N, 0xffffffffu);
    }
    // A thread for each 16 words.
    call.filling = ranges.take(std::min<int64_t>(ceil_div(most, 16 * kBlockThreads), 1024), fills);
    launch("ltc_gather", ltc_gather_kernel<T>, grid(ranges.blocks), kBlockThreads, 0, stream, call);
  }
  void sensory_sums() const {
    SensorySums<T> call{net, rows.count, map.u, num, den, {}, {}};
    BlockRanges ranges;
    if (net.recurrent.position != nullptr) {
      call.positions = ranges.take(ceil_div(counts.synapses, kBlockThreads), 1);
    }
    call.sums = ranges.take(ceil_div(rows.count, kWarp), ceil_div(in.size.N, kBlockWarps));
    launch("ltc_sensory_sums", ltc_sensory_sums_kernel<T>, grid(ranges.blocks), kBlockThreads, 0,
           stream, call);
  }

  LtcCall<T> call() const { return {net, rows, num, den, in.parameters.output_w}; }

  // Calls run(slots, threads, kind), all compile-time constants, for the plans by sample.
  template <typename Run>
  void with_instance(const Run& run) const {
    static_switch<kMixedMemory, kLayers, kOneLayer>(kind(), [&](auto kind) {
      if (schedule.plan == LtcPlan::block_per_sample) {
        constexpr Constant<sizeof(T) == 8 ? 2 : 8> slots;
        if constexpr (kind() == kOneLayer) {
          if (resets.present()) return run(slots, Constant<512>(), Constant<kWithResets>());
        }
        run(slots, Constant<512>(), kind);
      } else if constexpr (sizeof(T) == 8) {
        run(Constant<4>(), Constant<kWarp>(), kind);
      } else {
        static_switch<12, 8, 4>(schedule.slots,
                                [&](auto slots) { run(slots, Constant<kWarp>(), kind); });
      }
    });
  }
};

}  // namespace fastltc::cuda
