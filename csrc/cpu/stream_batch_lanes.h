// One step of a network for many streams: one stream per lane.
//
// Maths as in stream_post_lanes.h.
//
// Layout: a tile is W registers of streams, and everything of it is rows of lanes,
// [W][rows][lanes], as in cells/ltc.h: the values that pass from stage to stage, the state,
// scratch. A stage knows the rows it reads and writes. The state stays in that layout between
// steps; only inputs and outputs are transposed.
//
// Plan: tiles one after another. Weights are broadcast and shared by the tile's registers. Bound by
// the sigmoids of LTC and the multiply-adds of the rest.
#pragma once

#include "core/network.h"
#include "cpu/cells/cfc.h"
#include "cpu/cells/dense.h"
#include "cpu/cells/ltc.h"
#include "cpu/cells/ltc_packed.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/pool.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"
#include "cpu/frame/step.h"
#include "cpu/stream.h"
#include "cpu/stream_cells.h"
#include "cpu/stream_post_lanes.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Rows where PostStage has offsets.
struct BatchStage {
  StageKind kind = StageKind::copy;
  int64_t from = 0;
  int64_t inputs = 0;
  int64_t own = 0;
  int64_t own_count = 0;
  int64_t to = 0;
  int64_t size = 0;
  PackedWeight<float> weight;  // the gates of a neuron in neighbouring rows
  int gates = 1;
  CfcMode mode = CfcMode::gated;
  float* abs_w_tau = nullptr;  // pure cells: [size]
  float* A = nullptr;
  bool activated = false;
  Function function = Function::relu;
  int64_t memory = 0;  // row of the memory cell's c
  int64_t layer = 0;   // of LTC: which
};

// An LTC layer's part of a tile.
struct BatchLtc {
  LtcInputs<float> in;  // its maps point to copies, its other parameters nowhere
  PackedLtc<float> plan;
  int64_t state = 0;  // row
};

// Rows of the state: `count` of them.
struct StateRows {
  int64_t at = 0;
  int64_t count = 0;
};

class BatchLanesNetwork {
 public:
  using S = Simd<float>;
  using vec = S::vec;
  static constexpr int L = S::lanes;

  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t state_size = 0;
  int64_t cycles = 0;  // of a step of one register of streams, about

  explicit BatchLanesNetwork(const Network& network) {
    int64_t most = 0;
    for (int64_t n = 0; n < network.count; ++n) most += stages_of(network.layers[n]);
    stages_ = pool_.take<BatchStage>(most);
    ltc_ = pool_.take<BatchLtc>(network.count);
    parts_ = pool_.take<StateRows>(2 * network.count);
    inputs = network.layers[0].inputs;
    outputs = network.layers[network.count - 1].outputs;
    int64_t at = reserve(inputs);
    for (int64_t n = 0; n < network.count; ++n) {
      const NetworkLayer& layer = network.layers[n];
      switch (layer.type) {
        case LayerType::ltc:
          at = add_ltc(layer, at);
          break;
        case LayerType::cfc:
          at = add_cfc(layer, at);
          break;
        case LayerType::linear: {
          BatchStage& stage = add_dense(at, layer.inputs, 0, 0, layer.outputs);
          pack_dense(stage, layer.weight, layer.bias);
          at = stage.to;
          break;
        }
        case LayerType::function: {
          BatchStage& stage = add(StageKind::function, at, layer.inputs, layer.outputs);
          stage.function = layer.function;
          stage.to = reserve(stage.size);
          cycles += kSigmoidCycles * stage.size;
          at = stage.to;
          break;
        }
      }
    }
    result_ = at;
    product_ = reserve(widest_product_);
    dt_ = reserve(1);
    // An odd number of lines apart, the parts of a tile do not fall onto the same sets of the
    // cache.
    rows_ += 1 - rows_ % 2;
    tile_sizes_[0] = count_tile<1>();
    tile_sizes_[1] = count_tile<2>();
    if constexpr (kMaxWidth >= 4) tile_sizes_[2] = count_tile<4>();
  }

  // Floats of a tile of W registers, scratch included.
  template <int W>
  int64_t tile_size() const {
    return W == 1 ? tile_sizes_[0] : W == 2 ? tile_sizes_[1] : tile_sizes_[2];
  }

  // Streams [first, first + valid); fewer than W * L only where W is 1.
  template <int W>
  void step(float* memory, LaneGroup all, const float* x, const float* dt, int64_t dt_stride,
            float* y) const {
    const Rows<float> rows = rows_of<W>(memory);
    float* const scratch = memory + W * rows_ * L;
    for (int r = 0; r < W; ++r) {
      const LaneGroup group = group_of<W>(all, r);
      load_rows(SequenceView<const float>{x, inputs, 0, 1}, 0, inputs, group, rows.at(r, 0));
      load_rows(SequenceView<const float>{dt, dt_stride, 0, 0}, 0, 1, group, rows.at(r, dt_));
    }
    for (int64_t s = 0; s < stage_count_; ++s) {
      const BatchStage& stage = stages_[s];
      switch (stage.kind) {
        case StageKind::ltc:
          run_ltc<W>(ltc_[stage.layer], stage, rows, scratch);
          break;
        case StageKind::cell:
          run_cell<W>(stage, rows);
          break;
        case StageKind::memory:
          run_memory<W>(stage, rows);
          break;
        case StageKind::dense:
          run_dense<W>(stage, rows);
          break;
        case StageKind::function:
          run_function<W>(stage, rows);
          break;
        case StageKind::copy:
          copy<W>(at(rows, stage.from), stage.size, at(rows, stage.to));
          break;
      }
    }
    for (int r = 0; r < W; ++r) {
      store_rows(SequenceView<float>{y, outputs, 0, 1}, 0, outputs, group_of<W>(all, r),
                 rows.at(r, result_));
    }
  }

  template <int W>
  void get_state(float* memory, LaneGroup all, float* state) const {
    const Rows<float> rows = rows_of<W>(memory);
    for (int64_t p = 0; p < part_count_; ++p) {
      for (int r = 0; r < W; ++r) {
        store_rows(SequenceView<float>{state, state_size, 0, 1}, 0, parts_[p].count,
                   group_of<W>(all, r), rows.at(r, parts_[p].at));
      }
      state += parts_[p].count;
    }
  }
  template <int W>
  void set_state(float* memory, LaneGroup all, const float* state) const {
    const Rows<float> rows = rows_of<W>(memory);
    for (int64_t p = 0; p < part_count_; ++p) {
      for (int r = 0; r < W; ++r) {
        load_rows(SequenceView<const float>{state, state_size, 0, 1}, 0, parts_[p].count,
                  group_of<W>(all, r), rows.at(r, parts_[p].at));
      }
      state += parts_[p].count;
    }
  }

 private:
  static constexpr int64_t kSigmoidCycles = 12;  // of a register
  static constexpr int64_t kCellSigmoids = 5;    // of a neuron, the division of its unfold included

  Pool pool_;
  BatchStage* stages_ = nullptr;
  int64_t stage_count_ = 0;
  BatchLtc* ltc_ = nullptr;
  int64_t ltc_count_ = 0;
  StateRows* parts_ = nullptr;
  int64_t part_count_ = 0;
  int64_t rows_ = 0;
  int64_t result_ = 0;   // rows of the last stage's values
  int64_t product_ = 0;  // rows of the product at hand
  int64_t widest_product_ = 0;
  int64_t dt_ = 0;              // row
  int64_t tile_sizes_[3] = {};  // of one, two and four registers

  static int64_t stages_of(const NetworkLayer& layer) {
    // Memory cell, backbone, cells, and the copy of the state at the end.
    return layer.type == LayerType::cfc ? 2 + layer.cfc.backbone_layers + layer.cfc.cells : 2;
  }
  template <int W>
  static LaneGroup group_of(LaneGroup all, int r) {
    return {all.first + r * L, all.valid < W * L ? all.valid : L};
  }
  template <int W>
  Rows<float> rows_of(float* memory) const {
    Rows<float> rows;
    rows.data = memory;
    rows.stride = rows_ * L;
    return rows;
  }
  static FASTLTC_INLINE Rows<float> at(Rows<float> rows, int64_t row) {
    return {rows.data + row * L, rows.stride};
  }

  template <int W>
  int64_t count_tile() const {
    size_t scratch = 0;
    for (int64_t n = 0; n < ltc_count_; ++n) {
      Arena counting;
      LtcTile<W>(ltc_[n], counting);
      if (counting.used() > scratch) scratch = counting.used();
    }
    return W * rows_ * L + static_cast<int64_t>(scratch / sizeof(float));
  }

  int64_t reserve(int64_t rows) {
    const int64_t row = rows_;
    rows_ += rows;
    return row;
  }
  BatchStage& add(StageKind kind, int64_t from, int64_t input_count, int64_t size) {
    BatchStage& stage = stages_[stage_count_++];
    stage = BatchStage();
    stage.kind = kind;
    stage.from = from;
    stage.inputs = input_count;
    stage.size = size;
    return stage;
  }
  void take_product(BatchStage& stage) {
    PackedWeight<float>& weight = stage.weight;
    const int64_t columns = stage.inputs + stage.own_count;
    Arena counting;
    weight.take(counting, stage.size * stage.gates, columns);
    Arena arena(pool_.take<char>(static_cast<int64_t>(counting.used())));
    weight.take(arena, stage.size * stage.gates, columns);
    weight.clear();
    const int64_t padded = padded_rows(weight.rows);
    if (padded > widest_product_) widest_product_ = padded;
    cycles += weight.rows * columns;
  }
  static void pack(BatchStage& stage, int64_t row, const float* values, const float* mask,
                   float bias) {
    for (int64_t k = 0; k < stage.weight.inputs; ++k) {
      if (mask == nullptr || mask[k] != 0.0f) stage.weight.at(row, k) = values[k];
    }
    stage.weight.bias[row] = bias;
  }
  template <int W>
  void product(const BatchStage& stage, Rows<float> rows) const {
    dense_rows<float, W>(stage.weight, constant(rows, stage.from), stage.inputs,
                         constant(rows, stage.own), stage.own_count, at(rows, product_));
  }
  template <int W>
  static void copy(Rows<float> from, int64_t count, Rows<float> to) {
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < count; ++j) S::store(to.at(r, j), S::load(from.at(r, j)));
    }
  }

  // --- dense layers ---

  BatchStage& add_dense(int64_t from, int64_t input_count, int64_t own, int64_t own_count,
                        int64_t size) {
    BatchStage& stage = add(StageKind::dense, from, input_count, size);
    stage.own = own;
    stage.own_count = own_count;
    stage.to = reserve(size);
    take_product(stage);
    return stage;
  }
  static void pack_dense(BatchStage& stage, const float* weight, const float* bias) {
    for (int64_t row = 0; row < stage.size; ++row) {
      pack(stage, row, weight + row * stage.weight.inputs, nullptr,
           bias == nullptr ? 0.0f : bias[row]);
    }
  }
  template <int W>
  void run_dense(const BatchStage& stage, Rows<float> rows) const {
    product<W>(stage, rows);
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < stage.size; ++j) {
        const vec value = S::load(rows.at(r, product_ + j));
        S::store(rows.at(r, stage.to + j), stage.activated ? apply(stage.function, value) : value);
      }
    }
  }

  // --- functions of all values ---

  template <int W>
  void run_function(const BatchStage& stage, Rows<float> rows) const {
    for (int r = 0; r < W; ++r) {
      const float* const from = rows.at(r, stage.from);
      float* const to = rows.at(r, stage.to);
      if (stage.function == Function::softmax) {
        softmax(from, stage.size, to);
      } else {
        for (int64_t k = 0; k < stage.size; ++k) {
          S::store(to + k * L, apply(stage.function, S::load(from + k * L)));
        }
      }
    }
  }
  static void softmax(const float* from, int64_t count, float* to) {
    vec most = S::load(from), sum{};
    for (int64_t k = 1; k < count; ++k) {
      const vec value = S::load(from + k * L);
      most = value > most ? value : most;
    }
    for (int64_t k = 0; k < count; ++k) {
      const vec t = (S::load(from + k * L) - most) * kLog2E<float>;
      const vec power = S::exp2(S::at_least(t, -Exp2Constants<float>::bound));
      S::store(to + k * L, power);
      sum += power;
    }
    for (int64_t k = 0; k < count; ++k) S::store(to + k * L, S::load(to + k * L) / sum);
  }

  // --- memory cell ---

  int64_t add_memory(const NetworkLayer& layer, int64_t from, int64_t N, int64_t h) {
    const MemoryParameters<float>& p = layer.memory;
    BatchStage& stage = add(StageKind::memory, from, layer.inputs, N);
    stage.own = h;
    stage.own_count = N;
    stage.gates = static_cast<int>(kMemoryGates);
    stage.to = reserve(N);
    stage.memory = reserve(N);
    take_product(stage);
    for (int64_t j = 0; j < N; ++j) {
      for (int gate = 0; gate < kMemoryGates; ++gate) {
        const int64_t r = gate * N + j, row = j * kMemoryGates + gate;
        for (int64_t k = 0; k < layer.inputs; ++k) {
          stage.weight.at(row, k) = p.weight[r * layer.inputs + k];
        }
        for (int64_t k = 0; k < N; ++k) {
          stage.weight.at(row, layer.inputs + k) = p.recurrent_weight[r * N + k];
        }
        stage.weight.bias[row] = p.bias[r] + (gate == 2 ? 1.0f : 0.0f);
      }
    }
    add_part(h, N);
    add_part(stage.memory, N);
    cycles += kCellSigmoids * kSigmoidCycles * N;
    return stage.to;
  }
  void add_part(int64_t row, int64_t count) {
    parts_[part_count_++] = {row, count};
    state_size += count;
  }
  template <int W>
  void run_memory(const BatchStage& stage, Rows<float> rows) const {
    product<W>(stage, rows);
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < stage.size; ++j) {
        vec gate[kMemoryGates];
        load_gates(rows.at(r, product_ + j * kMemoryGates), gate);
        vec c = S::load(rows.at(r, stage.memory + j));
        S::store(rows.at(r, stage.to + j), memory_state(gate, c));
        S::store(rows.at(r, stage.memory + j), c);
      }
    }
  }
  static FASTLTC_INLINE void load_gates(const float* rows, vec (&gate)[4]) {
    for (int k = 0; k < 4; ++k) gate[k] = S::load(rows + k * L);
  }

  // --- CfC ---

  int64_t add_cfc(const NetworkLayer& layer, int64_t from) {
    const CfcInputs<float>& in = layer.cfc;
    const int64_t N = in.size.N;
    const int64_t h = reserve(N), next = reserve(N);
    int64_t own = h;
    if (layer.memory.weight != nullptr) {
      own = add_memory(layer, from, N, h);
    } else {
      add_part(h, N);
    }
    const float* const* p = in.parameters;
    int64_t input_count = layer.inputs;
    for (int64_t b = 0; b < in.backbone_layers; ++b, p += 2) {
      BatchStage& stage = add_dense(from, input_count, own, b == 0 ? N : 0, in.backbone_units);
      stage.activated = true;
      stage.function = static_cast<Function>(in.activation);
      pack_dense(stage, p[0], p[1]);
      cycles += kSigmoidCycles * in.backbone_units;
      from = stage.to;
      input_count = in.backbone_units;
    }
    int64_t first = 0;
    for (int64_t c = 0; c < in.cells; ++c) {
      const int64_t size = in.cell_sizes[c];
      BatchStage& stage = add(StageKind::cell, from, input_count, size);
      stage.mode = in.mode;
      stage.gates = in.mode == CfcMode::pure ? 1 : kCfcGates;
      stage.own = own + first;
      stage.own_count = in.backbone_layers > 0 ? 0 : size;
      stage.to = next + first;
      take_product(stage);
      const int64_t columns = stage.weight.inputs;
      const float* const mask = in.masks == nullptr ? nullptr : in.masks[c];
      for (int64_t j = 0; j < size; ++j) {
        for (int gate = 0; gate < stage.gates; ++gate) {
          const bool masked = mask != nullptr && gate < 2;
          pack(stage, j * stage.gates + gate, p[2 * gate] + j * columns,
               masked ? mask + j * columns : nullptr, p[2 * gate + 1][j]);
        }
      }
      if (in.mode == CfcMode::pure) {
        stage.abs_w_tau = pool_.take<float>(size);
        stage.A = pool_.take<float>(size);
        for (int64_t j = 0; j < size; ++j) {
          stage.abs_w_tau[j] = p[2][j] < 0.0f ? -p[2][j] : p[2][j];
          stage.A[j] = p[3][j];
        }
      }
      cycles += kCellSigmoids * kSigmoidCycles * size;
      p += in.mode == CfcMode::pure ? 4 : 8;
      from = next + first;
      input_count = size;
      first += size;
    }
    // Only now: until the last cell, the old state was read.
    BatchStage& last = add(StageKind::copy, next, N, N);
    last.to = h;
    return from;
  }

  template <int W>
  void run_cell(const BatchStage& stage, Rows<float> rows) const {
    product<W>(stage, rows);
    for (int r = 0; r < W; ++r) {
      const vec dt = S::load(rows.at(r, dt_));
      for (int64_t j = 0; j < stage.size; ++j) {
        const float* const z = rows.at(r, product_ + j * stage.gates);
        vec state;
        if (stage.mode == CfcMode::pure) {
          state = pure_state(S::load(z), S::set(stage.abs_w_tau[j]), S::set(stage.A[j]), dt);
        } else {
          vec gate[kCfcGates];
          load_gates(z, gate);
          state = gated_state(stage.mode, gate, dt);
        }
        S::store(rows.at(r, stage.to + j), state);
      }
    }
  }

  // --- LTC ---

  int64_t add_ltc(const NetworkLayer& layer, int64_t from) {
    const int64_t N = layer.ltc.size.N;
    BatchLtc& ltc = ltc_[ltc_count_];
    ltc = BatchLtc();
    fill_plan(ltc.plan, layer.ltc);
    LtcParameters<float>& p = ltc.in.parameters;
    const LtcParameters<float>& given = layer.ltc.parameters;
    ltc.in.size = layer.ltc.size;
    p.input_w = copy_of(given.input_w, layer.inputs);
    p.input_b = copy_of(given.input_b, layer.inputs);
    p.output_w = copy_of(given.output_w, layer.outputs);
    p.output_b = copy_of(given.output_b, layer.outputs);
    // Says that there are time steps, [B, 1]; they are taken from the tile's own row.
    static const float some = 1.0f;
    ltc.in.timespans.data = &some;
    ltc.state = reserve(N);
    int64_t own = ltc.state;
    if (layer.memory.weight != nullptr) {
      own = add_memory(layer, from, N, ltc.state);
    } else {
      add_part(ltc.state, N);
    }
    BatchStage& stage = add(StageKind::ltc, from, layer.inputs, layer.outputs);
    stage.own = own;
    stage.to = reserve(layer.outputs);
    stage.layer = ltc_count_++;
    cycles += kSigmoidCycles *
              (layer.ltc.size.U * (ltc.plan.recurrent.count + N) + ltc.plan.sensory.count + N);
    return stage.to;
  }

  const float* copy_of(const float* values, int64_t count) {
    if (values == nullptr) return nullptr;
    float* const result = pool_.take<float>(count);
    for (int64_t k = 0; k < count; ++k) result[k] = values[k];
    return result;
  }

  // With the columns of the synapse lists copied.
  void fill_plan(PackedLtc<float>& plan, const LtcInputs<float>& given) {
    LtcInputs<float> in = given;
    in.synapses.column = copy_columns(given.synapses.column, given.size.N);
    in.sensory_synapses.column = copy_columns(given.sensory_synapses.column, given.size.N);
    Arena counting;
    plan.take(counting, in, false);
    Arena arena(pool_.take<char>(static_cast<int64_t>(counting.used())));
    plan.take(arena, in, false);
    plan.fill(in, false, 0.0f);
  }
  const int32_t* copy_columns(const int32_t* column, int64_t neurons) {
    int32_t* const result = pool_.take<int32_t>(neurons + 1);
    for (int64_t j = 0; j <= neurons; ++j) result[j] = column[j];
    return result;
  }

  // The cell of a sequence, fed with the rows of this one.
  template <int W>
  struct LtcTile {
    StepInputs<float, W> step;
    LtcForward<float, W> cell;
    Rows<float> ping;
    Rows<float> pong;
    LtcTile(const BatchLtc& ltc, Arena& arena) : cell(ltc.in, ltc.plan) {
      step.take(arena, ltc.in, ltc.plan);
      cell.take(arena);
      ping.take(arena, W, ltc.in.size.N);
      pong.take(arena, W, ltc.in.size.N);
    }
  };

  template <int W>
  void run_ltc(const BatchLtc& ltc, const BatchStage& stage, Rows<float> rows,
               float* scratch) const {
    Arena arena(reinterpret_cast<char*>(scratch));
    LtcTile<W> tile(ltc, arena);
    const LtcParameters<float>& p = ltc.in.parameters;
    for (int r = 0; r < W; ++r) {
      const vec dt = S::at_least(S::load(rows.at(r, dt_)), kLeastStep);
      S::store(tile.step.dt.at(r, 0), S::at_most(dt, kMostStep));
      for (int64_t k = 0; k < stage.inputs; ++k) {
        vec value = S::load(rows.at(r, stage.from + k));
        if (p.input_w != nullptr) value *= p.input_w[k];
        if (p.input_b != nullptr) value += p.input_b[k];
        S::store(tile.step.u.at(r, k), value);
      }
    }
    tile.cell.template sensory_sums<Timespans::given>(tile.step);
    Rows<float> v = at(rows, stage.own);
    for (int64_t u = 0; u < ltc.in.size.U; ++u) {
      const Rows<float> next = u % 2 == 0 ? tile.ping : tile.pong;
      tile.cell.template unfold<Timespans::given>(tile.step, constant(v), next);
      v = next;
    }
    for (int r = 0; r < W; ++r) {
      // A time step of 0 holds the potentials, also where cm is 0.
      const auto moves = S::load(rows.at(r, dt_)) > 0.0f;
      for (int64_t j = 0; j < ltc.in.size.N; ++j) {
        const vec held = S::load(rows.at(r, stage.own + j));
        S::store(rows.at(r, ltc.state + j), moves ? S::load(v.at(r, j)) : held);
      }
      for (int64_t m = 0; m < stage.size; ++m) {
        vec value = S::load(rows.at(r, ltc.state + m));
        if (p.output_w != nullptr) value *= p.output_w[m];
        if (p.output_b != nullptr) value += p.output_b[m];
        S::store(rows.at(r, stage.to + m), value);
      }
    }
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
