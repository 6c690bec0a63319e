// Launches of the CfC kernels. Order of a forward pass: pack the weights, the products with x of
// all rows, the recurrent part by the plan asked for. Of a backward pass: pack, the recurrent part,
// then the gradients of the weights, of x and of the rest for all rows.
#include "cuda/cfc.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "cuda/cfc_block.cuh"
#include "cuda/cfc_rows.cuh"
#include "cuda/cfc_sizes.h"
#include "cuda/cfc_tiled.cuh"
#include "cuda/cfc_warp.cuh"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace fastltc::cuda {

namespace {

// Blocks beyond these go on with the values of others.
constexpr int64_t kMaxGridX = 1 << 20;

// A thread for each of n.
dim3 threads_grid(int64_t n) { return grid(ceil_div(n, kCfcThreads)); }
dim3 tiles_grid(int64_t m, int64_t n) {
  return grid(ceil_div(m, kTileSide), ceil_div(n, kTileSide));
}

// What both passes need, and where it lies in the scratch memory.
template <typename T>
struct Pass {
  const CfcSchedule& schedule;
  const CfcInputs<T>& in;
  cudaStream_t stream;

  CfcLayer<T> layer{};
  // Of the backbone's layers, then of the cells, then of the memory cell if there is one.
  std::vector<CfcStage<T>> stages{};
  std::vector<StageTensors<const T>> tensors{};
  std::vector<const T*> masks{};

  int64_t count() const { return in.backbone_layers + in.cells; }
  bool remembers() const { return in.memory.weight != nullptr; }
  int64_t first_parameter(int64_t s) const {
    if (s < in.backbone_layers) return 2 * s;
    return 2 * in.backbone_layers + (s - in.backbone_layers) * (pure() ? 4 : 8);
  }
  bool pure() const { return in.mode == CfcMode::pure; }

  void take(Scratch& scratch, T* states, bool backward) {
    const LayerSizes& size = in.size;
    Rows<T>& rows = layer.rows;
    rows.B = size.B;
    rows.steps = size.T;
    rows.count = size.B * size.T;
    rows.timespans = in.timespans;
    rows.timespans_per_neuron = in.timespans_per_neuron;
    rows.lengths = in.lengths;
    rows.lengths_stride = in.lengths_stride;
    layer.size = size;
    layer.mode = in.mode;
    layer.activation = in.activation;
    layer.remembers = remembers();
    layer.h0 = in.h0;
    std::vector<CfcStageSizes> sizes = cfc_stages(in);
    if (remembers()) sizes.push_back(cfc_memory_stage(in));
    const int64_t gates = cfc_gates(in);
    T* const of_cells = states == nullptr ? nullptr : states + (size.T + 1) * size.B * size.N;
    T* at = of_cells == nullptr ? nullptr : of_cells + rows.count * size.N * gates;
    for (size_t s = 0; s < sizes.size(); ++s) {
      CfcStage<T> stage;
      const bool memory = s == static_cast<size_t>(count());
      stage.kind = memory              ? StageKind::memory
                   : sizes[s].backbone ? StageKind::backbone
                                       : StageKind::cell;
      stage.units = static_cast<int>(sizes[s].units);
      stage.gates = static_cast<int>(sizes[s].gates);
      stage.stride = static_cast<int>(sizes[s].stride());
      stage.inputs = static_cast<int>(sizes[s].inputs);
      stage.own = static_cast<int>(sizes[s].own);
      stage.first = static_cast<int>(sizes[s].first);
      stage.reads_x = s == 0 || memory;
      stage.weight = scratch.take<T>((sizes[s].inputs + sizes[s].own) * sizes[s].width());
      stage.bias = scratch.take<T>(sizes[s].width());
      if (backward) {
        if (schedule.plan == CfcPlan::block_per_tile) {
          stage.transposed = scratch.take<T>(stage.columns() * sizes[s].width());
        }
        stage.dz = scratch.take<T>(rows.count * sizes[s].width());
      }
      if (of_cells != nullptr) {
        stage.kept_pitch = static_cast<int>(memory              ? kKeptRows * size.N
                                            : sizes[s].backbone ? sizes[s].units
                                                                : size.N * gates);
        stage.kept = !memory && !sizes[s].backbone ? of_cells + sizes[s].first * gates : at;
        if (sizes[s].backbone) at += rows.count * sizes[s].units;
      }
      if (stage.kind == StageKind::cell && pure()) {
        const T* const* const p = in.parameters + first_parameter(static_cast<int64_t>(s));
        stage.w_tau = p[2];
        stage.A = p[3];
      }
      if (stage.kind == StageKind::backbone && s > 0 && in.dropout != nullptr) {
        stage.dropout = in.dropout[s - 1];
      }
      stages.push_back(stage);
      tensors.push_back(tensors_of<const T>(static_cast<int64_t>(s), in.parameters,
                                            in.memory.weight, in.memory.bias,
                                            in.memory.recurrent_weight));
      masks.push_back(stage.kind == StageKind::cell && in.masks != nullptr
                          ? in.masks[s - in.backbone_layers]
                          : nullptr);
    }
  }

  // A stage's tensors among the layer's parameters, or among their gradients.
  template <typename V>
  StageTensors<V> tensors_of(int64_t s, V* const* parameters, V* memory, V* memory_bias,
                             V* memory_recurrent) const {
    StageTensors<V> found;
    const CfcStage<T>& stage = stages[s];
    if (stage.kind == StageKind::memory) {
      found.heads = 4;
      found.from_pitch = stage.inputs;
      found.own_pitch = stage.own;
      for (int64_t gate = 0; gate < 4; ++gate) {
        found.from[gate] = memory + gate * stage.units * found.from_pitch;
        found.own[gate] = memory_recurrent + gate * stage.units * found.own_pitch;
        found.bias[gate] = memory_bias + gate * stage.units;
      }
      return found;
    }
    V* const* const p = parameters + first_parameter(s);
    found.heads = stage.kind == StageKind::backbone || pure() ? 1 : 4;
    found.from_pitch = found.own_pitch = stage.inputs + stage.own;
    for (int head = 0; head < found.heads; ++head) {
      found.from[head] = p[2 * head];
      found.own[head] = p[2 * head] + stage.inputs;
      found.bias[head] = p[2 * head + 1];
    }
    return found;
  }

  // Calls run(first, count) for up to kStageBatch stages at a time.
  template <typename Run>
  void in_batches(const Run& run) const {
    const int64_t all = static_cast<int64_t>(stages.size());
    for (int64_t first = 0; first < all; first += kStageBatch) {
      run(first, std::min<int64_t>(all - first, kStageBatch));
    }
  }
  // Values of the largest weight of some stages, bias included.
  int64_t most_values(int64_t first, int64_t number) const {
    int64_t most = 0;
    for (int64_t s = first; s < first + number; ++s) {
      most = std::max(most, (stages[s].inputs + stages[s].own + 1) * stages[s].width());
    }
    return most;
  }

  void pack() const {
    in_batches([&](int64_t first, int64_t number) {
      PackBatch<T> batch;
      for (int64_t n = 0; n < number; ++n) {
        batch.stages[n] = {stages[first + n], tensors[first + n], masks[first + n]};
      }
      const int64_t blocks = ceil_div(most_values(first, number), kCfcThreads);
      launch("cfc_pack", cfc_pack_kernel<T>, grid(std::min(blocks, kMaxGridX), number), kCfcThreads,
             0, stream, batch);
    });
  }

  InputsOfRows<T> x() const { return {in.x, layer.rows}; }

  // Calls run(gates), a compile-time constant.
  template <typename Run>
  void with_gates(const Run& run) const {
    using std::integral_constant;
    const int64_t gates = cfc_gates(in);
    if (gates == 1) return run(integral_constant<int, 1>());
    if (gates == 3) return run(integral_constant<int, 3>());
    run(integral_constant<int, 4>());
  }
  template <typename Run>
  void with_slots(const Run& run) const {
    using std::integral_constant;
    if constexpr (sizeof(T) == 4) {
      if (schedule.slots == 8) return run(integral_constant<int, 8>());
      if (schedule.slots == 32) return run(integral_constant<int, 32>());
    }
    run(integral_constant<int, 20>());
  }
  template <typename Run>
  void with_place_of_weights(const Run& run) const {
    if (schedule.weights_in_shared) return run(std::bool_constant<true>());
    run(std::bool_constant<false>());
  }

  CfcWarpCall<T> warp_call() const {
    CfcWarpCall<T> call;
    call.layer = layer;
    call.cells = static_cast<int>(count());
    std::copy_n(stages.begin(), count(), call.stages);
    return call;
  }
  CfcBlockCall<T> block_call() const {
    CfcBlockCall<T> call;
    call.layer = layer;
    call.count = static_cast<int>(count());
    std::copy_n(stages.begin(), count(), call.stages);
    if (remembers()) call.memory = stages.back();
    for (const CfcStage<T>& stage : stages) {
      call.most_units = std::max(call.most_units, stage.units);
      call.most_values = std::max(call.most_values, stage.units * stage.gates);
    }
    return call;
  }
  size_t block_shared(const CfcBlockCall<T>& call, int64_t quads) const {
    const int64_t weights = schedule.weights_in_shared ? step_weights(call) : 0;
    return static_cast<size_t>(weights + 4 * quads) * sizeof(T);
  }
};

template <typename T>
struct ForwardPass : Pass<T> {
  using Pass<T>::in;
  using Pass<T>::layer;
  using Pass<T>::schedule;
  using Pass<T>::stages;
  using Pass<T>::stream;

  T* given = nullptr;
  T* given_memory = nullptr;
  // Of the tiled plan: [B][N] but for the activations, [B][units].
  T* turn[2] = {};
  T* c = nullptr;
  T* recalled = nullptr;
  T* activations[2] = {};

  void take(Scratch& scratch, T* states) {
    Pass<T>::take(scratch, states, false);
    const int64_t rows = layer.rows.count, state = in.size.B * in.size.N;
    given = scratch.take<T>(rows * stages[0].width());
    layer.given = given;
    if (this->remembers()) {
      given_memory = scratch.take<T>(rows * stages.back().width());
      layer.given_memory = given_memory;
    }
    if (schedule.plan != CfcPlan::tiled) return;
    for (T*& buffer : turn) buffer = scratch.take<T>(state);
    for (T*& buffer : activations) buffer = scratch.take<T>(in.size.B * in.backbone_units);
    if (!this->remembers()) return;
    c = scratch.take<T>(state);
    recalled = scratch.take<T>(state);
  }

  void run(const CfcOutputs<T>& out) const {
    if (in.size.B == 0) return;
    this->pack();
    if (layer.rows.count > 0) {
      products_with_x(stages[0], given);
      if (this->remembers()) products_with_x(stages.back(), given_memory);
    }
    const CfcResults<T> results{out.output, out.return_sequences, out.hn, out.states};
    if (schedule.plan == CfcPlan::warp_per_sample) {
      run_warp(results);
    } else if (schedule.plan == CfcPlan::block_per_tile) {
      run_block(results);
    } else {
      run_tiled(results);
    }
  }

  void products_with_x(const CfcStage<T>& stage, T* to) const {
    launch("cfc_given", cfc_given_kernel<T>, tiles_grid(layer.rows.count, stage.width()),
           kProductThreads, 0, stream, stage, this->x(), to);
  }

  void run_warp(const CfcResults<T>& results) const {
    CfcWarpCall<T> call = this->warp_call();
    call.out = results;
    this->with_slots([&](auto slots) {
      this->with_gates([&](auto gates) {
        launch("cfc_warp_forward", cfc_warp_forward_kernel<T, slots(), gates()>,
               grid(schedule.blocks), schedule.threads, 0, stream, call);
      });
    });
  }

  void run_block(const CfcResults<T>& results) const {
    CfcBlockCall<T> call = this->block_call();
    call.out = results;
    const size_t shared = this->block_shared(call, block_forward_quads(in.size.N, call.most_units));
    this->with_place_of_weights([&](auto in_shared) {
      this->with_gates([&](auto gates) {
        launch("cfc_block_forward", cfc_block_forward_kernel<T, gates(), in_shared()>,
               grid(schedule.blocks), schedule.threads, shared, stream, call);
      });
    });
  }

  void run_tiled(const CfcResults<T>& results) const {
    const int64_t B = in.size.B, N = in.size.N, count = B * N;
    const auto state = [&](int64_t t) {
      return results.states == nullptr ? turn[t % 2] : results.states + t * count;
    };
    launch("cfc_tiled_initial", cfc_tiled_initial_kernel<T>, threads_grid(count), kCfcThreads, 0,
           stream, layer, state(0), c);
    CfcTiledForward<T> call;
    call.layer = layer;
    call.out = results;
    call.c = c;
    for (int64_t t = 0; t < in.size.T; ++t) {
      call.t = t;
      call.held = state(t);
      call.own = state(t);
      const auto run_stage = [&](const CfcStage<T>& stage, T* to) {
        call.stage = stage;
        call.to = to;
        launch("cfc_tiled_forward", cfc_tiled_forward_kernel<T>, tiles_grid(B, stage.width()),
               kProductThreads, 0, stream, call);
      };
      if (this->remembers()) {
        run_stage(stages.back(), recalled);
        call.own = recalled;
      }
      for (int64_t s = 0; s < this->count(); ++s) {
        const bool backbone = stages[s].kind == StageKind::backbone;
        T* const to = backbone ? activations[s % 2] : state(t + 1);
        run_stage(stages[s], to);
        call.from = backbone ? to : to + stages[s].first;
        call.from_pitch = backbone ? stages[s].units : N;
      }
    }
    launch("cfc_tiled_final", cfc_tiled_final_kernel<T>, threads_grid(count), kCfcThreads, 0,
           stream, layer, results, state(in.size.T), c);
  }
};

template <typename T>
struct BackwardPass : Pass<T> {
  using Pass<T>::in;
  using Pass<T>::layer;
  using Pass<T>::schedule;
  using Pass<T>::stages;
  using Pass<T>::stream;

  T* grad_dt = nullptr;           // [rows][N]
  T* grad_pure = nullptr;         // [rows][2][N]
  T* recalled = nullptr;          // [rows][N]
  std::vector<T*> activations{};  // [rows][units], of each backbone layer
  int64_t part_count = 1;
  std::vector<T*> parts{};
  // Of the tiled plan.
  T* g = nullptr;  // [B][N], as the next two
  T* before = nullptr;
  T* gc = nullptr;
  T* of_layer = nullptr;  // [B][units]

  void take(Scratch& scratch, const T* states) {
    Pass<T>::take(scratch, const_cast<T*>(states), true);
    const int64_t rows = layer.rows.count, N = in.size.N, state = in.size.B * N;
    if (in.timespans.data != nullptr) grad_dt = scratch.take<T>(rows * N);
    if (this->pure()) grad_pure = scratch.take<T>(2 * rows * N);
    if (this->remembers()) recalled = scratch.take<T>(rows * N);
    for (int64_t s = 0; s < in.backbone_layers; ++s) {
      activations.push_back(scratch.take<T>(rows * in.backbone_units));
    }
    part_count = parts_of_sums();
    for (const CfcStage<T>& stage : stages) {
      parts.push_back(scratch.take<T>(part_count * (stage.inputs + stage.own + 1) * stage.width()));
    }
    if (schedule.plan != CfcPlan::tiled) return;
    g = scratch.take<T>(state);
    before = scratch.take<T>(state);
    if (this->remembers()) gc = scratch.take<T>(state);
    of_layer = scratch.take<T>(in.size.B * in.backbone_units);
  }

  static int64_t tiles(const CfcStage<T>& stage) {
    return ceil_div(stage.inputs + stage.own + 1, kTileSide) * ceil_div(stage.width(), kTileSide);
  }
  // Enough blocks to fill a device, of at least 64 rows each.
  int64_t parts_of_sums() const {
    int64_t all = 0;
    for (const CfcStage<T>& stage : stages) all += tiles(stage);
    const int64_t most = ceil_div(layer.rows.count, 64);
    return std::max<int64_t>(1, std::min(ceil_div(512, all), most));
  }

  void run(const CfcGradients<T>& grad) const {
    this->pack();
    CfcWanted<T> wanted;
    wanted.grad_output = grad.grad_output;
    wanted.return_sequences = grad.return_sequences;
    wanted.grad_hn = grad.grad_hn;
    wanted.grad_h0 = grad.h0;
    wanted.grad_dt = grad.timespans.data == nullptr ? nullptr : grad_dt;
    wanted.grad_pure = grad_pure;
    if (in.size.B > 0) {
      if (schedule.plan == CfcPlan::warp_per_sample) {
        run_warp(wanted);
      } else if (schedule.plan == CfcPlan::block_per_tile) {
        run_block(wanted);
      } else {
        run_tiled(wanted);
      }
    }
    weight_gradients(grad);
    const int64_t rows = layer.rows.count;
    if (rows > 0 && in.size.I > 0) {
      InputGradientStages<T> through;
      const auto add = [&](int n, const CfcStage<T>& stage) {
        through.dz[n] = stage.dz;
        through.weight[n] = stage.weight;
        through.width[n] = stage.width();
      };
      add(0, stages[0]);
      if (this->remembers()) add(1, stages.back());
      launch("cfc_input_gradient", cfc_input_gradient_kernel<T>, tiles_grid(rows, in.size.I),
             kProductThreads, 0, stream, through, layer.rows, in.size.I, grad.x);
    }
    if (rows > 0 && wanted.grad_dt != nullptr) {
      launch("cfc_timespans", cfc_timespans_kernel<T>, threads_grid(rows * kWarp), kCfcThreads, 0,
             stream, layer.rows, in.size.N, grad_dt, grad.timespans);
    }
    for (int64_t s = in.backbone_layers; s < this->count() && this->pure(); ++s) {
      T* const* const p = grad.parameters + this->first_parameter(s);
      launch("cfc_pure_sums", cfc_pure_sums_kernel<T>, grid(ceil_div(stages[s].units, kWarp), 2),
             kCfcThreads, 0, stream, grad_pure + stages[s].first, 2 * in.size.N, rows, in.size.N,
             stages[s].units, p[2], p[3]);
    }
  }

  void weight_gradients(const CfcGradients<T>& grad) const {
    const int64_t rows = layer.rows.count, N = in.size.N;
    for (int64_t s = 0; s < in.backbone_layers && rows > 0; ++s) {
      launch("cfc_activations", cfc_activations_kernel<T>, threads_grid(rows * in.backbone_units),
             kCfcThreads, 0, stream, stages[s], layer.rows, in.activation, activations[s]);
    }
    if (this->remembers() && rows > 0) {
      launch("cfc_recalled", cfc_recalled_kernel<T>, threads_grid(rows * N), kCfcThreads, 0, stream,
             stages.back().kept, rows * N, recalled);
    }
    this->in_batches([&](int64_t first, int64_t number) {
      SumsBatch<T> sums;
      GradientsBatch<T> gradients;
      sums.x = this->x();
      gradients.parts = static_cast<int>(part_count);
      int64_t most_tiles = 0;
      for (int64_t n = 0; n < number; ++n) {
        const int64_t s = first + n;
        const CfcStage<T>& stage = stages[s];
        StageSums<T>& of = sums.stages[n];
        of.stage = stage;
        of.parts = parts[s];
        if (!stage.reads_x) {
          const CfcStage<T>& from = stages[s - 1];
          const bool backbone = from.kind == StageKind::backbone;
          // What a cell gives is its state after the step.
          of.from = backbone ? activations[s - 1] : grad.states + in.size.B * N + from.first;
          of.from_pitch = backbone ? from.units : N;
        }
        const bool recalls = this->remembers() && stage.kind != StageKind::memory;
        of.own = (recalls ? recalled : grad.states) + stage.first;
        of.own_pitch = N;
        most_tiles = std::max(most_tiles, tiles(stage));
        gradients.stages[n] = {
            stage, parts[s], this->masks[s],
            this->template tensors_of<T>(s, grad.parameters, grad.memory.weight, grad.memory.bias,
                                         grad.memory.recurrent_weight)};
      }
      launch("cfc_weight_sums", cfc_weight_sums_kernel<T>, grid(most_tiles, part_count, number),
             kProductThreads, 0, stream, sums);
      const int64_t blocks = ceil_div(this->most_values(first, number), kCfcThreads);
      launch("cfc_weight_gradients", cfc_weight_gradients_kernel<T>,
             grid(std::min(blocks, kMaxGridX), number), kCfcThreads, 0, stream, gradients);
    });
  }

  void run_warp(const CfcWanted<T>& wanted) const {
    CfcWarpCall<T> call = this->warp_call();
    call.grad = wanted;
    this->with_slots([&](auto slots) {
      this->with_gates([&](auto gates) {
        launch("cfc_warp_backward", cfc_warp_backward_kernel<T, slots(), gates()>,
               grid(schedule.blocks), schedule.threads, 0, stream, call);
      });
    });
  }

  void run_block(const CfcWanted<T>& wanted) const {
    CfcBlockCall<T> call = this->block_call();
    call.grad = wanted;
    const size_t shared = this->block_shared(
        call, block_backward_quads(in.size.N, call.most_units, call.most_values));
    this->with_place_of_weights([&](auto in_shared) {
      this->with_gates([&](auto gates) {
        launch("cfc_block_backward", cfc_block_backward_kernel<T, gates(), in_shared()>,
               grid(schedule.blocks), schedule.threads, shared, stream, call);
      });
    });
  }

  void run_tiled(const CfcWanted<T>& wanted) const {
    const int64_t B = in.size.B, N = in.size.N, count = B * N;
    CfcTiledBackward<T> call;
    call.layer = layer;
    call.grad = wanted;
    call.g = g;
    call.before = before;
    call.gc = gc;
    call.of_layer = of_layer;
    launch("cfc_tiled_last_gradient", cfc_tiled_last_gradient_kernel<T>, threads_grid(count),
           kCfcThreads, 0, stream, layer, wanted, g, gc);
    for (int64_t t = in.size.T - 1; t >= 0; --t) {
      call.t = t;
      const auto run_stage = [&](const CfcStage<T>& stage) {
        call.stage = stage;
        launch("cfc_tiled_gates", cfc_tiled_gates_kernel<T>, threads_grid(B * stage.units),
               kCfcThreads, 0, stream, call);
        launch("cfc_tiled_backward", cfc_tiled_backward_kernel<T>, tiles_grid(B, stage.columns()),
               kProductThreads, 0, stream, call);
      };
      for (int64_t s = this->count() - 1; s >= 0; --s) {
        const bool after_cell = s > 0 && stages[s - 1].kind == StageKind::cell;
        call.from = after_cell ? call.g + stages[s - 1].first : of_layer;
        call.from_pitch = after_cell ? N : in.backbone_units;
        call.adds = after_cell;
        run_stage(stages[s]);
      }
      if (this->remembers()) {
        run_stage(stages.back());
      } else {
        std::swap(call.g, call.before);
      }
    }
    if (wanted.grad_h0 != nullptr) {
      launch("cfc_tiled_h0", cfc_tiled_h0_kernel<T>, threads_grid(count), kCfcThreads, 0, stream,
             layer, call.g, gc, wanted.grad_h0);
    }
  }
};

}  // namespace

template <typename T>
size_t cfc_forward_scratch(const CfcSchedule& schedule, const CfcInputs<T>& in) {
  Scratch scratch;
  ForwardPass<T>{{schedule, in, nullptr}}.take(scratch, nullptr);
  return scratch.used();
}

template <typename T>
size_t cfc_backward_scratch(const CfcSchedule& schedule, const CfcInputs<T>& in) {
  Scratch scratch;
  BackwardPass<T>{{schedule, in, nullptr}}.take(scratch, nullptr);
  return scratch.used();
}

template <typename T>
void launch_cfc_forward(const CfcSchedule& schedule, const CfcInputs<T>& in,
                        const CfcOutputs<T>& out, void* scratch, void* stream) {
  ForwardPass<T> pass{{schedule, in, static_cast<cudaStream_t>(stream)}};
  Scratch memory(scratch);
  pass.take(memory, out.states);
  pass.run(out);
}

template <typename T>
void launch_cfc_backward(const CfcSchedule& schedule, const CfcInputs<T>& in,
                         const CfcGradients<T>& grad, void* scratch, void* stream) {
  BackwardPass<T> pass{{schedule, in, static_cast<cudaStream_t>(stream)}};
  Scratch memory(scratch);
  pass.take(memory, grad.states);
  pass.run(grad);
}

#define FASTLTC_INSTANTIATE(T)                                                                    \
  template size_t cfc_forward_scratch(const CfcSchedule&, const CfcInputs<T>&);                   \
  template size_t cfc_backward_scratch(const CfcSchedule&, const CfcInputs<T>&);                  \
  template void launch_cfc_forward(const CfcSchedule&, const CfcInputs<T>&, const CfcOutputs<T>&, \
                                   void*, void*);                                                 \
  template void launch_cfc_backward(const CfcSchedule&, const CfcInputs<T>&,                      \
                                    const CfcGradients<T>&, void*, void*);
FASTLTC_INSTANTIATE(float)
FASTLTC_INSTANTIATE(double)

}  // namespace fastltc::cuda
