// Launches of the CfC kernels. Order of a forward pass: pack the weights, the products with x of
// all rows, the recurrent part by the plan asked for. Of a backward pass: pack, the recurrent part,
// then the gradients of the weights, of x and of the rest for all rows.
#include "cuda/cfc.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "cuda/cfc_block.cuh"
#include "cuda/cfc_rows.cuh"
#include "cuda/cfc_sizes.h"
#include "cuda/cfc_tiled.cuh"
#include "cuda/cfc_warp.cuh"
#include "cuda/frame/launch.h"
#include "cuda/frame/resets.cuh"
#include "cuda/frame/scratch.h"
#include "cuda/frame/state_copy.cuh"
#include "cuda/frame/static_switch.h"
#include "cuda/memory_pass.h"
#include "cuda/stage_pass.h"

namespace fastltc::cuda {

namespace {

// A call of either pass, and where what it needs lies in the scratch memory.
template <typename T>
struct Pass {
  const CfcSchedule& schedule;
  const CfcInputs<T>& in;
  bool backward;
  cudaStream_t stream;

  CfcLayer<T> layer{};
  // Of the backbone's layers, then of the cells, then of the memory cell if there is one.
  StagePass<T> products{};
  // What the memory cell gives: [B][N], of a step; backward of all rows, [rows][N].
  T* recalled = nullptr;
  // Of the tiled plan: states, or their gradients, [B][N]; the same of backbone layers' activations,
  // [B][units].
  MemorySteps<T, false> memory{};
  T* turn[2] = {};
  T* of_layer[2] = {};
  Resets<T> resets{};
  // With resets, the states with which steps begin, [B][N] of one; backward of all, [rows][N].
  T* begun = nullptr;
  // Forward.
  T* given = nullptr;
  T* given_memory = nullptr;
  // Backward.
  T* grad_dt = nullptr;           // [rows][N]
  T* grad_pure = nullptr;         // [rows][2][N]
  std::vector<T*> activations{};  // [rows][units], of each backbone layer

  const std::vector<Stage<T>>& stages() const { return products.stages; }
  int64_t count() const { return in.backbone_layers + in.cells; }
  bool remembers() const { return in.memory.weight != nullptr; }
  bool tiled() const { return schedule.plan == CfcPlan::tiled; }
  bool pure() const { return in.mode == CfcMode::pure; }
  int64_t first_parameter(int64_t s) const {
    if (s < in.backbone_layers) return 2 * s;
    return 2 * in.backbone_layers + (s - in.backbone_layers) * (pure() ? 4 : 8);
  }

  void take(Scratch& scratch, T* states) {
    const LayerSizes& size = in.size;
    const SequenceRows<T> rows = SequenceRows<T>::of(in);
    resets = {rows, in.reset_state(), size.N, stream};
    layer.size = size;
    layer.rows = rows;
    layer.mode = in.mode;
    layer.activation = in.activation;
    layer.remembers = remembers();
    layer.h0 = in.h0;
    products.x = {in.x, rows};
    products.stream = stream;
    std::vector<CfcStageSizes> sizes = cfc_stages(in);
    if (remembers()) sizes.push_back(cfc_memory_stage(in));
    const int64_t gates = cfc_gates(in);
    T* const of_cells = states == nullptr ? nullptr : states + (size.T + 1) * size.B * size.N;
    T* at = of_cells == nullptr ? nullptr : of_cells + rows.count * size.N * gates;
    for (int64_t s = 0; s < static_cast<int64_t>(sizes.size()); ++s) {
      const CfcStageSizes& of = sizes[s];
      Stage<T> stage;
      const bool is_memory = s == count();
      stage.role = is_memory     ? StageRole::memory
                   : of.backbone ? StageRole::backbone
                                 : StageRole::cell;
      stage.units = static_cast<int>(of.units);
      stage.gates = static_cast<int>(of.gates);
      stage.stride = static_cast<int>(of.stride());
      stage.inputs = static_cast<int>(of.inputs);
      stage.own = static_cast<int>(of.own);
      stage.first = static_cast<int>(of.first);
      stage.reads_x = s == 0 || is_memory;
      if (backward) stage.dz = scratch.take<T>(rows.count * of.width());
      if (of_cells != nullptr) {
        const bool is_cell = stage.role == StageRole::cell;
        const int64_t pitch = is_cell ? size.N * gates : is_memory ? kKeptRows * size.N : of.units;
        stage.kept_pitch = static_cast<int>(pitch);
        stage.kept = is_cell ? of_cells + of.first * gates : at;
        if (of.backbone) at += rows.count * of.units;
      }
      if (stage.role == StageRole::cell && pure()) {
        const T* const* const p = in.parameters + first_parameter(s);
        stage.w_tau = p[2];
        stage.A = p[3];
      }
      if (of.backbone && s > 0 && in.dropout != nullptr) stage.dropout = in.dropout[s - 1];
      const bool masked = stage.role == StageRole::cell && in.masks != nullptr;
      products.add(scratch, stage, tensors_of<const T>(stage, s, in.parameters, in.memory),
                   masked ? in.masks[s - in.backbone_layers] : nullptr,
                   backward && schedule.plan == CfcPlan::block_per_tile);
    }
    if (tiled()) {
      for (T*& buffer : turn) buffer = scratch.take<T>(size.B * size.N);
      for (T*& buffer : of_layer) buffer = scratch.take<T>(size.B * in.backbone_units);
    }
    if (resets.present() && (tiled() || backward)) {
      begun = scratch.take<T>((backward ? rows.count : size.B) * size.N);
    }
    if (remembers() && (tiled() || backward)) {
      recalled = scratch.take<T>((backward ? rows.count : size.B) * size.N);
    }
    if (remembers() && tiled()) {
      memory.stream = stream;
      memory.call = {stages().back(), rows, nullptr, memory_half(in.h0, size.N),
                     scratch.take<T>(size.B * size.N)};
    }
    if (!backward) {
      layer.given = given = scratch.take<T>(rows.count * stages()[0].width());
      if (!remembers()) return;
      given_memory = scratch.take<T>(rows.count * stages().back().width());
      layer.given_memory = memory.call.given = given_memory;
      return;
    }
    if (in.timespans.data != nullptr) grad_dt = scratch.take<T>(rows.count * size.N);
    if (pure()) grad_pure = scratch.take<T>(2 * rows.count * size.N);
    for (int64_t s = 0; s < in.backbone_layers; ++s) {
      activations.push_back(scratch.take<T>(rows.count * in.backbone_units));
    }
    products.take_parts(scratch);
  }

  // A stage's tensors among the layer's parameters, or among their gradients.
  template <typename V, typename Memory>
  StageTensors<V> tensors_of(const Stage<T>& stage, int64_t s, V* const* parameters,
                             const Memory& memory) const {
    if (stage.role == StageRole::memory) {
      return memory_tensors<V>(memory, stage.inputs, stage.own);
    }
    StageTensors<V> found;
    V* const* const p = parameters + first_parameter(s);
    found.heads = stage.role == StageRole::backbone || pure() ? 1 : 4;
    found.from_pitch = found.own_pitch = stage.inputs + stage.own;
    for (int head = 0; head < found.heads; ++head) {
      found.from[head] = p[2 * head];
      found.own[head] = p[2 * head] + stage.inputs;
      found.bias[head] = p[2 * head + 1];
    }
    return found;
  }

  // [B][N] as a view, and such a state with the memory's as one of the caller's.
  template <typename V>
  SequenceView<V> by_sample(V* state) const {
    return {state, in.size.N, 0, 1};
  }
  void write_state(const T* state, T* to) const {
    const SequenceView<T> view{to, layer.state_width(), 0, 1};
    copy_state(by_sample(state), view, in.size.B, in.size.N, stream);
    if (remembers()) memory.end(memory_half(view, in.size.N));
  }

  // Calls run(gates), a compile-time constant.
  template <typename Run>
  void with_gates(const Run& run) const {
    static_switch<1, 3, 4>(static_cast<int>(cfc_gates(in)), run);
  }
  // Calls run(slots, gates).
  template <typename Run>
  void with_slots(const Run& run) const {
    const auto run_slots = [&](auto slots) { with_gates([&](auto gates) { run(slots, gates); }); };
    if constexpr (sizeof(T) == 4) {
      static_switch<8, 32, 20>(schedule.slots, run_slots);
    } else {
      run_slots(Constant<20>());
    }
  }
  // Calls run(gates, in_shared).
  template <typename Run>
  void with_place_of_weights(const Run& run) const {
    static_switch<true, false>(schedule.weights_in_shared, [&](auto in_shared) {
      with_gates([&](auto gates) { run(gates, in_shared); });
    });
  }

  // The recurrence by the plans that run whole sequences; fill(call) gives the call what its pass
  // reads and writes. run_tiled() is the third plan.
  template <bool back, typename Fill, typename Tiled>
  void run_plan(const Fill& fill, const Tiled& run_tiled) const {
    if (schedule.plan == CfcPlan::warp_per_sample) {
      run_warp<back>(fill);
    } else if (schedule.plan == CfcPlan::block_per_tile) {
      run_block<back>(fill);
    } else {
      run_tiled();
    }
  }
  template <bool back, typename Fill>
  void run_warp(const Fill& fill) const {
    CfcWarpCall<T> call;
    call.layer = layer;
    call.cells = static_cast<int>(count());
    std::copy_n(stages().begin(), count(), call.stages);
    fill(call);
    with_slots([&](auto slots, auto gates) {
      const auto kernel = back ? cfc_warp_backward_kernel<T, slots(), gates()>
                               : cfc_warp_forward_kernel<T, slots(), gates()>;
      launch(back ? "cfc_warp_backward" : "cfc_warp_forward", kernel, grid(schedule.blocks),
             schedule.threads, 0, stream, call);
    });
  }
  template <bool back, typename Fill>
  void run_block(const Fill& fill) const {
    CfcBlockCall<T> call;
    call.layer = layer;
    call.count = static_cast<int>(count());
    std::copy_n(stages().begin(), count(), call.stages);
    if (remembers()) call.memory = stages().back();
    for (const Stage<T>& stage : stages()) {
      call.most_units = std::max(call.most_units, stage.units);
      call.most_values = std::max(call.most_values, stage.units * stage.gates);
    }
    fill(call);
    const int64_t quads = back ? block_backward_quads(in.size.N, call.most_units, call.most_values)
                               : block_forward_quads(in.size.N, call.most_units);
    const int64_t weights = schedule.weights_in_shared ? step_weights(call) : 0;
    const size_t shared = static_cast<size_t>(weights + 4 * quads) * sizeof(T);
    with_place_of_weights([&](auto gates, auto in_shared) {
      const auto kernel = back ? cfc_block_backward_kernel<T, gates(), in_shared()>
                               : cfc_block_forward_kernel<T, gates(), in_shared()>;
      launch(back ? "cfc_block_backward" : "cfc_block_forward", kernel, grid(schedule.blocks),
             schedule.threads, shared, stream, call);
    });
  }

  void run_forward(const CfcOutputs<T>& out) const {
    if (in.size.B == 0) return;
    products.pack();
    products.products_with_x(stages()[0], given);
    if (remembers()) products.products_with_x(stages().back(), given_memory);
    const Results<T> results = Results<T>::of(out);
    run_plan<false>([&](auto& call) { call.out = results; }, [&] { run_tiled(results); });
  }

  void run_tiled(const Results<T>& results) const {
    const int64_t B = in.size.B, N = in.size.N, state_size = B * N;
    const auto state = [&](int64_t t) {
      return results.states == nullptr ? turn[t % 2] : results.states + t * state_size;
    };
    copy_state(in.h0, by_sample(state(0)), B, N, stream);
    if (remembers()) memory.begin(memory.call.c0);
    CfcTiledForward<T> call;
    call.layer = layer;
    call.out = results;
    for (int64_t t = 0; t < in.size.T; ++t) {
      call.t = t;
      call.held = state(t);
      if (resets.rows.may_begin_anew(t)) {
        resets.begin_step(t, by_sample(call.held), by_sample(begun));
        call.held = begun;
      }
      call.own = call.held;
      if (remembers()) {
        memory.step(t, call.held, recalled);
        call.own = recalled;
      }
      for (int64_t s = 0; s < count(); ++s) {
        call.stage = stages()[s];
        const bool backbone = call.stage.role == StageRole::backbone;
        call.to = backbone ? of_layer[s % 2] : state(t + 1);
        launch_tiles("cfc_tiled_forward", cfc_tiled_forward_kernel<T>, B, call.stage.width(),
                     stream, call);
        call.from = backbone ? call.to : call.to + call.stage.first;
        call.from_pitch = backbone ? call.stage.units : N;
      }
    }
    const T* const last = state(in.size.T);
    write_state(last, results.hn);
    if (results.return_sequences) return;
    copy_state(by_sample(last + N - in.size.M), results.output, B, in.size.M, stream);
  }

  void run_backward(const CfcGradients<T>& grad) const {
    products.pack();
    const CfcWanted<T> wanted{Wanted<T>::of(grad),
                              grad.timespans.data == nullptr ? nullptr : grad_dt, grad_pure};
    if (in.size.B > 0) {
      if (resets.present()) {
        clear_gradient(grad.h0, in.size.B * layer.state_width(), stream);
        resets.begin_rows({grad.states, in.size.N, in.size.B * in.size.N, 1}, false,
                          {begun, in.size.N, in.size.B * in.size.N, 1});
      }
      run_plan<true>([&](auto& call) { call.grad = wanted; }, [&] { run_tiled(wanted); });
    }
    weight_gradients(grad);
    const int64_t rows = layer.rows.count;
    products.input_gradient(false, grad.x);
    if (wanted.grad_dt != nullptr) {
      launch_threads("cfc_timespans", cfc_timespans_kernel<T>, rows * kWarp, stream, layer.rows,
                     in.size.N, grad_dt, grad.timespans);
    }
    for (int64_t s = in.backbone_layers; s < count() && pure(); ++s) {
      const Stage<T>& stage = stages()[s];
      T* const* const p = grad.parameters + first_parameter(s);
      launch("cfc_pure_sums", cfc_pure_sums_kernel<T>, grid(ceil_div(stage.units, kWarp), 2),
             kBlockThreads, 0, stream, grad_pure + stage.first, 2 * in.size.N, rows, in.size.N,
             stage.units, p[2], p[3]);
    }
  }

  void weight_gradients(const CfcGradients<T>& grad) const {
    const int64_t rows = layer.rows.count, N = in.size.N;
    for (int64_t s = 0; s < in.backbone_layers; ++s) {
      launch_threads("cfc_activations", cfc_activations_kernel<T>, rows * in.backbone_units, stream,
                     stages()[s], layer.rows, in.activation, activations[s]);
    }
    if (remembers()) {
      launch_threads("cfc_recalled", cfc_recalled_kernel<T>, rows * N, stream, stages().back().kept,
                     rows * N, recalled);
    }
    products.weight_gradients(
        [&](int64_t s, StageSums<T>& sums) {
          const Stage<T>& stage = stages()[s];
          if (!stage.reads_x) {
            const Stage<T>& from = stages()[s - 1];
            const bool backbone = from.role == StageRole::backbone;
            // What a cell gives is its state after the step.
            sums.from = backbone ? activations[s - 1] : grad.states + in.size.B * N + from.first;
            sums.from_pitch = backbone ? from.units : N;
          }
          const bool recalls = remembers() && stage.role != StageRole::memory;
          const T* const before = resets.present() ? begun : grad.states;
          sums.own = (recalls ? recalled : before) + stage.first;
          sums.own_pitch = N;
        },
        [&](int64_t s) { return tensors_of<T>(stages()[s], s, grad.parameters, grad.memory); });
  }

  void run_tiled(const CfcWanted<T>& wanted) const {
    const int64_t B = in.size.B, N = in.size.N, state_size = B * N;
    CfcTiledBackward<T> call;
    call.layer = layer;
    call.grad = wanted;
    call.g = turn[0];
    call.before = turn[1];
    call.of_layer = of_layer[0];
    launch_threads("cfc_tiled_last_gradient", cfc_tiled_last_gradient_kernel<T>, state_size, stream,
                   layer, wanted, call.g);
    if (remembers()) memory.begin(memory_half(wanted.grad_hn, N));
    const SequenceView<T> grad_h0{wanted.grad_h0, layer.state_width(), 0, 1};
    for (int64_t t = in.size.T - 1; t >= 0; --t) {
      call.t = t;
      for (int64_t s = count() - 1; s >= 0; --s) {
        const bool after_cell = s > 0 && stages()[s - 1].role == StageRole::cell;
        call.stage = stages()[s];
        call.from = after_cell ? call.g + stages()[s - 1].first : of_layer[0];
        call.from_pitch = after_cell ? N : in.backbone_units;
        call.adds = after_cell;
        launch_threads("cfc_tiled_gates", cfc_tiled_gates_kernel<T>, B * call.stage.units, stream,
                       call);
        launch_tiles("cfc_tiled_backward", cfc_tiled_backward_kernel<T>, B, call.stage.columns(),
                     stream, call);
      }
      if (remembers()) memory.step_backward(t, call.before, memory_half(grad_h0, N));
      std::swap(call.g, call.before);
      if (resets.present()) resets.begin_step_gradient(t, by_sample(call.g), grad_h0);
    }
    if (wanted.grad_h0 != nullptr && !resets.present()) write_state(call.g, wanted.grad_h0);
  }
};

}  // namespace

template <typename T>
void launch_cfc_forward(const CfcSchedule& schedule, const CfcInputs<T>& in,
                        const CfcOutputs<T>& out, const Allocate& allocate, void* stream) {
  const auto take = [&](Scratch& scratch) {
    Pass<T> pass{schedule, in, false, static_cast<cudaStream_t>(stream)};
    pass.take(scratch, out.states);
    return pass;
  };
  in_scratch(allocate, take).run_forward(out);
}

template <typename T>
void launch_cfc_backward(const CfcSchedule& schedule, const CfcInputs<T>& in,
                         const CfcGradients<T>& grad, const Allocate& allocate, void* stream) {
  const auto take = [&](Scratch& scratch) {
    Pass<T> pass{schedule, in, true, static_cast<cudaStream_t>(stream)};
    pass.take(scratch, const_cast<T*>(grad.states));
    return pass;
  };
  in_scratch(allocate, take).run_backward(grad);
}

#define FASTLTC_INSTANTIATE(T)                                                                    \
  template void launch_cfc_forward(const CfcSchedule&, const CfcInputs<T>&, const CfcOutputs<T>&, \
                                   const Allocate&, void*);                                       \
  template void launch_cfc_backward(const CfcSchedule&, const CfcInputs<T>&,                      \
                                    const CfcGradients<T>&, const Allocate&, void*);
FASTLTC_INSTANTIATE(float)
FASTLTC_INSTANTIATE(double)

}  // namespace fastltc::cuda
