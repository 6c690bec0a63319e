// What both passes of LTC need before and besides the recurrent part, and where it lies in the
// scratch memory of a call.
#pragma once

#include <algorithm>

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
    // What clear_positions clears, in one piece.
    if (backward) list.position = scratch.take<int32_t>(N * list.rows_each);
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

  void gather(bool backward) const {
    const int64_t N = in.size.N;
    if (backward) {
      clear_positions(net.recurrent);
      clear_positions(net.sensory);
    }
    launch("ltc_gather", ltc_gather_kernel<T>, grid(ceil_div(N, 4), 3), 4 * kWarp, 0, stream, net,
           in.parameters);
    if (!backward) return;
    const int64_t most = std::max(N, in.size.I);
    launch("ltc_gather_out", ltc_gather_out_kernel<T>, grid(ceil_div(most, kBlockThreads), 2),
           kBlockThreads, 0, stream, net);
  }
  // To -1. A list that is not well formed may leave out any of its synapses.
  void clear_positions(const Synapses<T>& list) const {
    const size_t bytes = reinterpret_cast<unsigned char*>(list.post + list.count) -
                         reinterpret_cast<unsigned char*>(list.position);
    if (bytes > 0) check(cudaMemsetAsync(list.position, 0xff, bytes, stream), "memset");
  }
  void sensory_sums() const {
    launch("ltc_input_map", ltc_input_map_kernel<T>,
           grid(ceil_div(rows.count, kBlockThreads), map.I), kBlockThreads, 0, stream, rows, map);
    launch_rows("ltc_sensory_sums", ltc_sensory_sums_kernel<T>, rows.count, in.size.N, stream, net,
                rows.count, map.u, num, den);
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
