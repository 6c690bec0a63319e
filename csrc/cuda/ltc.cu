// Launches of the LTC kernels. Order of a pass: gather the network, input map and sensory sums for
// all rows, the recurrent part by the plan asked for; backward then the sensory synapses' gradients
// and the sums over rows.
#include "cuda/ltc.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <mutex>

#include "cuda/frame/launch.h"
#include "cuda/frame/resets.cuh"
#include "cuda/frame/scratch.h"
#include "cuda/frame/static_switch.h"
#include "cuda/ltc_cluster_backward.cuh"
#include "cuda/ltc_cluster_forward.cuh"
#include "cuda/ltc_pass.h"
#include "cuda/ltc_persistent_backward.cuh"
#include "cuda/ltc_persistent_forward.cuh"
#include "cuda/ltc_tiled.cuh"
#include "cuda/set_device.h"

namespace fastltc::cuda {

namespace {

// Parts in which a list's sums over `rows` are taken: enough blocks to fill a device, at least 256
// rows each, and no more than some megabytes of sums.
int64_t sum_parts(int64_t synapses, int64_t rows) {
  const int64_t blocks = ceil_div(synapses, kSynapsesPerWarp * kBlockWarps);
  const int64_t wanted = ceil_div(1024, std::max<int64_t>(blocks, 1));
  return std::max<int64_t>(1, std::min(wanted, ceil_div(rows, 256)));
}

template <typename T>
struct ForwardPass : LtcPass<T> {
  using LtcPass<T>::in;
  using LtcPass<T>::memory;
  using LtcPass<T>::stream;

  T* turn[2] = {};     // [N][B], where the tiled plan keeps no states
  T* begun = nullptr;  // [N][B] with which a step begins, of the tiled plan with resets

  void take(Scratch& scratch, bool keeps_states) {
    LtcPass<T>::take(scratch, false);
    if (!this->tiled()) return;
    begun = scratch.take<T>(this->resets.present() ? in.size.N * in.size.B : 0);
    if (keeps_states) return;
    for (T*& state : turn) state = scratch.take<T>(in.size.N * in.size.B);
  }

  void run(const LtcOutputs<T>& out) const {
    const LayerSizes& size = in.size;
    if (size.B == 0 || size.N == 0) return;
    this->gather();
    this->sensory_sums();
    memory.prepare({});
    if (this->tiled()) {
      run_tiled(out);
    } else if (this->clusters()) {
      if constexpr (sizeof(T) == 4) run_clusters(out);
    } else {
      run_persistent(out);
    }
  }

  void run_persistent(const LtcOutputs<T>& out) const {
    PersistentForward<T> call{common(out)};
    call.most = static_cast<int>(ltc_layer_synapses(in.size, this->counts, in.nets));
    call.memory = memory.of_sample({});
    this->with_instance([&](auto slots, auto threads, auto kind) {
      launch("ltc_persistent_forward", ltc_persistent_forward_kernel<T, slots(), threads(), kind()>,
             grid(in.nets, in.size.B), this->schedule.threads,
             persistent_forward_shared<T>(in.size.N / in.nets), stream, call);
    });
  }

  void run_clusters(const LtcOutputs<float>& out) const {
    const LayerSizes& size = in.size;
    ClusterForward call{common(out)};
    if (out.states != nullptr) {
      call.rates = out.states + (size.T * size.U + 1) * size.N * size.B;
    }
    call.tiles = ceil_div(size.B, this->schedule.samples);
    static_switch<4, 8, 16>(this->schedule.samples, [&](auto samples) {
      launch_clusters("ltc_cluster_forward", ltc_cluster_forward_kernel<samples()>,
                      grid(this->schedule.blocks * this->schedule.cluster), kClusterThreads,
                      this->schedule.cluster, cluster_forward_shared(size.N, samples()), stream,
                      call);
    });
  }

  void run_tiled(const LtcOutputs<T>& out) const {
    const LayerSizes& size = in.size;
    const int64_t count = size.N * size.B;
    const LtcForward<T> call = common(out);
    const auto state = [&](int64_t index) {
      return out.states == nullptr ? turn[index % 2] : out.states + index * count;
    };
    const int64_t of_step = this->of_step();
    const MemorySteps<T, true> cell = memory.keeping(
        out.states == nullptr ? nullptr : out.states + (size.T * of_step + 1) * count);
    copy_state(in.h0, this->by_neuron(state(0)), size.B, size.N, stream);
    for (int64_t t = 0; t < size.T; ++t) {
      int64_t index = t * of_step;
      const T* from = state(index);
      if (this->rows.may_begin_anew(t)) {
        this->resets.begin_step(t, this->by_neuron(from), this->by_neuron(begun));
        from = begun;
      }
      if (memory.present()) {
        cell.step(t, from, state(index + 1));
        from = state(++index);
      }
      for (int64_t u = 0; u < size.U; ++u, from = state(++index)) {
        launch_rows("ltc_tiled_forward", ltc_tiled_forward_kernel<T>, size.B, size.N, stream, call,
                    t, u == size.U - 1, from, state(index + 1));
      }
    }
    const T* const last = state(size.T * of_step);
    this->write_state(last, out.hn);
    if (out.return_sequences) return;
    launch_threads("ltc_tiled_output", ltc_tiled_output_kernel<T>, size.M * size.B, stream, call,
                   last);
  }

  LtcForward<T> common(const LtcOutputs<T>& out) const {
    return {this->call(), in.parameters.output_b, in.h0, Results<T>::of(out)};
  }
};

template <typename T>
struct BackwardPass : LtcPass<T> {
  using LtcPass<T>::in;
  using LtcPass<T>::memory;
  using LtcPass<T>::counts;
  using LtcPass<T>::net;
  using LtcPass<T>::rows;
  using LtcPass<T>::schedule;
  using LtcPass<T>::stream;

  T* grad_num = nullptr;  // [N][rows], as the next two
  T* grad_den = nullptr;
  T* grad_capacity = nullptr;
  T* grad_u = nullptr;  // [I][rows]
  int64_t parts = 0, sensory_parts = 0;
  SynapseSums<T>* sums = nullptr;           // [parts][synapses]
  SynapseSums<T>* sensory_sums_ = nullptr;  // [sensory_parts][sensory synapses]
  T* grad_dt = nullptr;                     // [N][rows], or [nets][rows]
  // Of the tiled plan.
  T* gn = nullptr;      // [T * of_step][N][B]
  T* g = nullptr;       // [N][B]
  T* direct = nullptr;  // [N][B]
  T* gt = nullptr;      // [T * U][N][B], of the plan with clusters
  // Of the plans by sample, with mixed memory.
  T* grad_c = nullptr;          // [B][N]
  T* spilled_shares = nullptr;  // [parts][synapses], of large blocks
  // With resets: the kept states, but where a step begins those with which it does; with mixed
  // memory, which keeps what its cell makes of them, of the beginnings alone, [N][rows].
  T* begun = nullptr;

  void take(Scratch& scratch) {
    LtcPass<T>::take(scratch, true);
    const LayerSizes& size = in.size;
    grad_num = scratch.take<T>(size.N * rows.count);
    grad_den = scratch.take<T>(size.N * rows.count);
    grad_capacity = scratch.take<T>(size.N * rows.count);
    grad_u = scratch.take<T>(size.I * rows.count);
    parts = this->tiled() ? sum_parts(counts.synapses, size.T * size.U * size.B) : schedule.blocks;
    sensory_parts = sum_parts(counts.sensory_synapses, rows.count);
    sums = scratch.take<SynapseSums<T>>(parts * counts.synapses);
    sensory_sums_ = scratch.take<SynapseSums<T>>(sensory_parts * counts.sensory_synapses);
    begun = scratch.take<T>(!this->resets.present() ? 0
                            : memory.present()      ? size.N * rows.count
                                                    : (size.T * size.U + 1) * size.N * size.B);
    const bool by_neuron = this->tiled() || this->clusters();
    const int64_t channels = by_neuron ? size.N : in.nets > 1 ? in.nets : 0;
    grad_dt = scratch.take<T>(in.timespans.data == nullptr ? 0 : channels * rows.count);
    if (this->clusters()) {
      gt = scratch.take<T>(in.timespans.data == nullptr ? 0 : size.T * size.U * size.N * size.B);
      return;
    }
    if (!this->tiled()) {
      grad_c = scratch.take<T>(memory.present() ? size.N * size.B : 0);
      const bool is_warp = schedule.plan == LtcPlan::warp_per_sample;
      spilled_shares = scratch.take<T>(is_warp ? 0 : parts * counts.synapses);
      return;
    }
    gn = scratch.take<T>(size.T * this->of_step() * size.N * size.B);
    g = scratch.take<T>(size.N * size.B);
    direct = scratch.take<T>(size.N * size.B);
  }

  void run(const LtcGradients<T>& grad) const {
    const LayerSizes& size = in.size;
    if (size.N == 0) return;
    // What is no synapse has a gradient of zero.
    std::vector<std::pair<T*, int64_t>> dense;
    // Arrays, because nvcc loses the names that a loop over a list in braces looks up.
    T* const of_neurons[] = {grad.sigma, grad.mu, grad.w, grad.erev};
    T* const of_inputs[] = {grad.sensory_sigma, grad.sensory_mu, grad.sensory_w, grad.sensory_erev};
    for (T* const to : of_neurons) dense.emplace_back(to, size.N);
    for (T* const to : of_inputs) {
      dense.emplace_back(to, size.I);
    }
    this->gather(dense);
    this->sensory_sums();
    if (size.B > 0) {
      memory.prepare(grad.grad_hn);
      begin_steps(grad);
      if (this->tiled()) {
        run_tiled(grad);
      } else if (this->clusters()) {
        if constexpr (sizeof(T) == 4) run_clusters(grad);
      } else {
        run_persistent(grad);
      }
    }
    row_sums(grad);
    last_gradients(grad);
    memory.gradients(this->resets.present() ? SequenceView<const T>{begun, 1, in.size.B, rows.count}
                                            : states_before_steps(grad),
                     grad.memory, grad.x);
  }
  SequenceView<const T> states_before_steps(const LtcGradients<T>& grad) const {
    const LtcStateStrides at = state_strides();
    return {grad.states, at.sample, this->of_step() * at.step, at.neuron};
  }
  // What resets ask for, before the recurrence.
  void begin_steps(const LtcGradients<T>& grad) const {
    if (!this->resets.present()) return;
    const LayerSizes& size = in.size;
    clear_gradient(grad.h0, size.B * this->state_width(), stream);
    const SequenceView<const T> before = states_before_steps(grad);
    if (memory.present()) {
      this->resets.begin_rows(before, false, {begun, 1, size.B, rows.count});
      return;
    }
    const size_t count = static_cast<size_t>((size.T * size.U + 1) * size.N * size.B);
    check(cudaMemcpyAsync(begun, grad.states, sizeof(T) * count, cudaMemcpyDeviceToDevice, stream),
          "memcpy");
    this->resets.begin_rows(before, true,
                            {begun, before.stride_b, before.stride_t, before.stride_c});
  }
  // The states before unfolds.
  const T* states_before(const LtcGradients<T>& grad) const {
    return this->resets.present() && !memory.present() ? begun : grad.states;
  }
  LtcStateStrides state_strides() const {
    return ltc_state_strides(schedule, in.size, memory.present());
  }

  void run_persistent(const LtcGradients<T>& grad) const {
    PersistentBackward<T> call{common(grad)};
    call.grad_timespans = grad.timespans;
    call.states_before = states_before(grad);
    call.synapse_sums = sums;
    call.spilled_shares = spilled_shares;
    call.most = static_cast<int>(ltc_layer_synapses(in.size, counts, in.nets));
    call.memory = memory.of_sample(grad.grad_hn);
    call.grad_c = grad_c;
    // What the layers have to say about a step that they share is added up at the end.
    if (shares_steps() && grad.timespans.data != nullptr) {
      call.grad_timespans = {grad_dt, 1, in.size.B, rows.count};
    }
    this->with_instance([&](auto slots, auto threads, auto kind) {
      launch("ltc_persistent_backward",
             ltc_persistent_backward_kernel<T, slots(), threads(), kind()>,
             grid(in.nets, schedule.blocks), schedule.threads,
             persistent_backward_shared<T, slots(), threads(), kind()>(in.size.N / in.nets,
                                                                       call.most, schedule.threads),
             stream, call);
    });
  }
  bool shares_steps() const { return in.nets > 1 && !in.timespans_per_neuron; }

  void run_clusters(const LtcGradients<float>& grad) const {
    const LayerSizes& size = in.size;
    const bool wants_timespans = grad.timespans.data != nullptr && rows.count > 0;
    ClusterBackward call{common(grad)};
    call.rates = grad.states + (size.T * size.U + 1) * size.N * size.B;
    call.tiles = ceil_div(size.B, schedule.samples);
    call.pitch = cluster_pitch(size.N);
    call.set_posts = cluster_set_posts(size.N, schedule.cluster);
    call.gt = wants_timespans ? gt : nullptr;
    call.synapse_sums = sums;
    static_switch<4, 8, 16>(schedule.samples, [&](auto samples) {
      launch_clusters("ltc_cluster_backward", ltc_cluster_backward_kernel<samples()>,
                      grid(schedule.blocks * schedule.cluster), kClusterThreads, schedule.cluster,
                      cluster_backward_shared(size.N, schedule.cluster, samples()), stream, call);
    });
    if (!wants_timespans) return;
    launch_rows("ltc_cluster_timespans", ltc_cluster_timespans_kernel<float>, rows.count, size.N,
                stream, net, rows, this->num, this->den, grad.states, gt, grad_dt);
  }

  void run_tiled(const LtcGradients<T>& grad) const {
    const LayerSizes& size = in.size;
    const int64_t count = size.N * size.B;
    TiledBackward<T> call{common(grad)};
    call.g = g;
    call.direct = direct;
    call.grad_dt = grad.timespans.data == nullptr ? nullptr : grad_dt;
    copy_state(grad.grad_hn, this->by_neuron(g), size.B, size.N, stream);
    const auto add_output_gradient = [&](int64_t t) {
      launch_threads("ltc_tiled_output_gradient", ltc_tiled_output_gradient_kernel<T>,
                     size.M * size.B, stream, call, t);
    };
    if (call.grad.of_last()) add_output_gradient(-1);
    const int64_t of_step = this->of_step();
    const MemorySteps<T, true> cell =
        memory.keeping(const_cast<T*>(grad.states) + (size.T * of_step + 1) * count);
    const SequenceView<T> grad_h0{grad.h0, this->state_width(), 0, 1};
    for (int64_t t = size.T - 1; t >= 0; --t) {
      if (call.grad.of_steps()) add_output_gradient(t);
      for (int64_t u = size.U - 1; u >= 0; --u) {
        const int64_t at = (t * of_step + u) * count;
        const int64_t from = at + (of_step - size.U) * count;
        const T* const before = states_before(grad) + from;
        const T* const after = grad.states + from + count;
        launch_rows("ltc_tiled_neuron", ltc_tiled_neuron_kernel<T>, size.B, size.N, stream, call, t,
                    u == size.U - 1, before, after, gn + at);
        launch_rows("ltc_tiled_state", ltc_tiled_state_kernel<T>, size.B, size.N, stream, call, t,
                    before, after, gn + at);
      }
      if (memory.present()) cell.step_backward(t, g, memory_half(grad_h0, size.N));
      if (this->resets.present()) {
        this->resets.begin_step_gradient(t, this->by_neuron(g), grad_h0);
      }
    }
    if (grad.h0 != nullptr && !this->resets.present()) this->write_state(g, grad.h0);
  }

  // What a recurrence leaves for all rows at once.
  void row_sums(const LtcGradients<T>& grad) const {
    const LayerSizes& size = in.size;
    RowSums<T> call;
    call.net = net;
    call.given = in.parameters;
    call.rows = rows;
    BlockRanges ranges;
    const auto synapses = [&](int64_t count, int64_t in_parts) {
      return ranges.take(ceil_div(count, kSynapsesPerWarp * kBlockWarps), in_parts);
    };
    if (this->tiled() && size.B > 0) {
      const int64_t count = size.N * size.B, skipped = this->of_step() - size.U;
      SummedRows<T>& summed = call.recurrent;
      summed.count = size.T * size.U * size.B;
      summed.inner = summed.pitch = size.B;
      summed.outer = count;
      summed.groups = size.U;
      summed.skipped = skipped;
      summed.pre = states_before(grad) + skipped * count;
      summed.gn = gn;
      summed.after = grad.states + (skipped + 1) * count;
      summed.parts = sums;
      call.of_recurrent = synapses(counts.synapses, parts);
    }
    call.sensory.count = call.sensory.outer = call.sensory.pitch = rows.count;
    call.sensory.inner = std::max<int64_t>(rows.count, 1);
    call.sensory.pre = this->map.u;
    call.sensory.gn = grad_num;
    call.sensory.gd = grad_den;
    call.sensory.parts = sensory_sums_;
    call.of_sensory = synapses(counts.sensory_synapses, sensory_parts);
    call.inputs = {this->map.u, grad_num, grad_den, grad_u};
    call.of_inputs = ranges.take(ceil_div(rows.count, kWarp), ceil_div(size.I, kBlockWarps));
    call.neurons = {grad_num, grad_den, grad_capacity, grad.gleak, grad.vleak, grad.cm};
    call.of_neurons = ranges.take(size.N, 1);
    call.outputs = {Wanted<T>::of(grad), state_strides(), this->of_step(), grad.output_w,
                    grad.output_b};
    call.of_outputs = ranges.take(size.M, 1);
    const bool by_neuron = this->tiled() || this->clusters();
    if (grad.timespans.data != nullptr && size.B > 0 && (by_neuron || shares_steps())) {
      call.timespans = {static_cast<int>(by_neuron ? size.N : in.nets), grad_dt, grad.timespans};
      call.of_timespans = ranges.take(ceil_div(rows.count, kBlockThreads), 1);
    }
    launch("ltc_row_sums", ltc_row_sums_kernel<T>, grid(ranges.blocks), kBlockThreads, 0, stream,
           call);
  }

  void last_gradients(const LtcGradients<T>& grad) const {
    LastGradients<T> call;
    call.net = net;
    call.rows = rows;
    call.map = this->map;
    call.recurrent = {static_cast<int>(in.size.B == 0 ? 0 : parts),
                      sums,
                      {grad.sigma, grad.mu, grad.w, grad.erev}};
    call.sensory = {static_cast<int>(sensory_parts),
                    sensory_sums_,
                    {grad.sensory_sigma, grad.sensory_mu, grad.sensory_w, grad.sensory_erev}};
    call.inputs = {grad_u, grad.x, grad.input_w, grad.input_b};
    call.softplus = in.parameters.softplus;
    BlockRanges ranges;
    call.of_inputs = ranges.take(in.size.I, 1);
    call.of_recurrent = ranges.take(ceil_div(counts.synapses, kBlockWarps), 1);
    call.of_sensory = ranges.take(ceil_div(counts.sensory_synapses, kBlockWarps), 1);
    launch("ltc_last_gradients", ltc_last_gradients_kernel<T>, grid(ranges.blocks), kBlockThreads,
           0, stream, call);
  }

  LtcBackward<T> common(const LtcGradients<T>& grad) const {
    return {this->call(), Wanted<T>::of(grad), grad_num, grad_den, grad_capacity};
  }
};

}  // namespace

#if defined(__CUDACC__)
namespace {

LtcDevice ask_device(int index) {
  LtcDevice device;
  int clusters = 0;
  check(cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, index), "device attributes");
  device.shared_bytes = static_cast<size_t>(shared_limit(index));
  if (clusters == 0) return device;
  const auto kernel = ltc_cluster_backward_kernel<16>;
  // Code made from PTX of an older architecture has no clusters, whatever the device has.
  cudaFuncAttributes code{};
  check(cudaFuncGetAttributes(&code, kernel), "code of a cluster");
  if (code.ptxVersion < 90) return device;
  allow_shared("shared memory of a cluster", kernel, device.shared_bytes);
  // A part of a device may have fewer multiprocessors together than a cluster has blocks, and a
  // device more of them than make whole clusters.
  for (int n = 1; n <= 3; ++n) {
    const int cluster = 1 << n;
    const LaunchConfig config(grid(cluster), kClusterThreads, cluster, device.shared_bytes,
                              nullptr);
    check(cudaOccupancyMaxActiveClusters(&device.clusters[n], kernel, &config.call),
          "clusters of a device");
    if (device.clusters[n] > 0) device.cluster_blocks = cluster;
  }
  return device;
}

}  // namespace

LtcDevice ltc_device(int index) {
  constexpr int most = 64;
  static std::once_flag asked[most];
  static LtcDevice known[most];
  if (index < 0 || index >= most) return ask_device(index);
  std::call_once(asked[index], [&] { known[index] = ask_device(index); });
  return known[index];
}
#endif

template <typename T>
void launch_ltc_forward(const LtcSchedule& schedule, const LtcInputs<T>& in,
                        const LtcCounts& counts, const LtcOutputs<T>& out, const Allocate& allocate,
                        void* stream) {
  const auto take = [&](Scratch& scratch) {
    ForwardPass<T> pass{{schedule, in, counts, static_cast<cudaStream_t>(stream)}};
    pass.take(scratch, out.states != nullptr);
    return pass;
  };
  in_scratch(allocate, take).run(out);
}

template <typename T>
void launch_ltc_backward(const LtcSchedule& schedule, const LtcInputs<T>& in,
                         const LtcCounts& counts, const LtcGradients<T>& grad,
                         const Allocate& allocate, void* stream) {
  const auto take = [&](Scratch& scratch) {
    BackwardPass<T> pass{{schedule, in, counts, static_cast<cudaStream_t>(stream)}};
    pass.take(scratch);
    return pass;
  };
  in_scratch(allocate, take).run(grad);
}

#define FASTLTC_INSTANTIATE(T)                                                                 \
  template void launch_ltc_forward(const LtcSchedule&, const LtcInputs<T>&, const LtcCounts&,  \
                                   const LtcOutputs<T>&, const Allocate&, void*);              \
  template void launch_ltc_backward(const LtcSchedule&, const LtcInputs<T>&, const LtcCounts&, \
                                    const LtcGradients<T>&, const Allocate&, void*);
FASTLTC_INSTANTIATE(float)
FASTLTC_INSTANTIATE(double)

}  // namespace fastltc::cuda
