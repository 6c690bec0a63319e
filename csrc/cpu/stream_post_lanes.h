// One step of a network for one stream at a time: lanes over the neurons of a layer.
//
// Maths: LTC as in cells/ltc.h, CfC as in cells/cfc.h, the memory cell
//   c' = c sigmoid(f + 1) + tanh(a) sigmoid(i)    h' = tanh(c') sigmoid(o)
// with [a i f o] = Wx x + b + Wh h (fastltc.nn.LSTMCell).
//
// Layout: a stream's memory is one block of floats, at fixed offsets: the values that pass from
// stage to stage, the state, scratch. A product's rows lie in lanes; the gates of a register of
// neurons are neighbouring registers of one packed weight, [register][column][gate][lane], read
// once from front to back. Masked entries are packed as zeros.
//
// Plan: the layers become a list of stages. Bound by latency in small networks (a chain of about 50
// cycles for a cell's functions, 120 to 150 for an unfold), by reading the weights in large ones.
#pragma once

#include "core/network.h"
#include "cpu/cells/ltc_packed.h"
#include "cpu/cells/ltc_post_lanes.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/pool.h"
#include "cpu/frame/simd.h"
#include "cpu/stream.h"
#include "cpu/stream_cells.h"

namespace fastltc::cpu::FASTLTC_ISA {

enum class StageKind : int { ltc, cell, memory, dense, function, copy };

struct PostStage {
  static constexpr int L = Simd<float>::lanes;

  StageKind kind = StageKind::copy;
  int64_t from = 0;  // offset of the values that come in
  int64_t inputs = 0;
  int64_t own = 0;  // offset of the state that enters the product with them
  int64_t own_count = 0;
  int64_t to = 0;  // offset of the result; not that of what comes in or of `own`
  int64_t size = 0;
  int64_t blocks = 0;       // groups of registers of the result
  int gates = 1;            // registers in a group
  float* weight = nullptr;  // [blocks][inputs + own_count][gates][L]
  float* bias = nullptr;    // [blocks][gates][L]
  CfcMode mode = CfcMode::gated;
  float* abs_w_tau = nullptr;  // pure cells: [blocks * L]
  float* A = nullptr;
  bool activated = false;  // a product that goes through `function`
  Function function = Function::relu;
  int64_t memory = 0;  // offset of the memory cell's c
  int64_t layer = 0;   // of LTC: which

  int64_t columns() const { return inputs + own_count; }
  void take(Pool& pool) {
    weight = pool.take<float>(blocks * columns() * gates * L);
    bias = pool.take<float>(blocks * gates * L);
  }
  // One row of a product; `mask` may be null.
  void pack(int64_t block, int gate, int64_t lane, const float* row, const float* mask, float b) {
    for (int64_t k = 0; k < columns(); ++k) {
      const bool present = mask == nullptr || mask[k] != 0.0f;
      weight[((block * columns() + k) * gates + gate) * L + lane] = present ? row[k] : 0.0f;
    }
    bias[(block * gates + gate) * L + lane] = b;
  }
};

// An LTC layer's part of a stream.
struct PostLtc {
  PostLanes<float> lanes;
  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t unfolds = 0;
  float* input_w = nullptr;  // [inputs, padded], ones where there is none
  float* input_b = nullptr;
  float* output_w = nullptr;  // [outputs]
  float* output_b = nullptr;
  int64_t scratch = 0;  // offset of PostLanesStep's arrays
  int64_t state = 0;    // offset of the state in its lanes
  int64_t other = 0;    // offset of a second one
  int64_t memory = -1;  // with mixed memory: offset of h in the order of neurons
};

// Where a part of the state stands: `count` values, in lanes where `lanes` is not null.
struct StatePart {
  int64_t at = 0;
  int64_t count = 0;
  const PostLanes<float>* lanes = nullptr;
};

template <int G, int C>
FASTLTC_INLINE void accumulate(const float* weight, const float* values, int64_t count,
                               Simd<float>::vec (&sum)[C][G]) {
  using S = Simd<float>;
  int64_t k = 0;
  for (; k + C <= count; k += C) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        sum[c][g] += S::load(weight + ((k + c) * G + g) * S::lanes) * values[k + c];
      }
    }
  }
  for (; k < count; ++k) {
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) sum[0][g] += S::load(weight + (k * G + g) * S::lanes) * values[k];
  }
}

// The G registers of one group of a product.
template <int G>
FASTLTC_INLINE void product(const PostStage& stage, int64_t block, const float* memory,
                            Simd<float>::vec (&result)[G]) {
  using S = Simd<float>;
  // Eight sums hide the latency of a multiply-add.
  constexpr int C = 8 / G;
  S::vec sum[C][G] = {};
  for (int g = 0; g < G; ++g) sum[0][g] = S::load(stage.bias + (block * G + g) * S::lanes);
  const float* const weight = stage.weight + block * stage.columns() * G * S::lanes;
  accumulate<G, C>(weight, memory + stage.from, stage.inputs, sum);
  accumulate<G, C>(weight + stage.inputs * G * S::lanes, memory + stage.own, stage.own_count, sum);
#pragma GCC unroll 3
  for (int step = C / 2; step > 0; step /= 2) {
    for (int c = 0; c < step; ++c) {
      for (int g = 0; g < G; ++g) sum[c][g] += sum[c + step][g];
    }
  }
  for (int g = 0; g < G; ++g) result[g] = sum[0][g];
}

class PostLanesNetwork {
 public:
  using S = Simd<float>;
  using vec = S::vec;
  static constexpr int L = S::lanes;

  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t state_size = 0;
  int64_t cycles = 0;       // of a step, about
  int64_t memory_size = 0;  // floats of a stream

  explicit PostLanesNetwork(const Network& network) {
    int64_t most = 0;
    for (int64_t n = 0; n < network.count; ++n) most += stages_of(network.layers[n]);
    stages_ = pool_.take<PostStage>(most);
    ltc_ = pool_.take<PostLtc>(network.count);
    parts_ = pool_.take<StatePart>(2 * network.count);
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
          PostStage& stage = add_dense(at, layer.inputs, 0, 0, layer.outputs);
          pack_dense(stage, layer.weight, layer.bias);
          at = stage.to;
          break;
        }
        case LayerType::function: {
          PostStage& stage = add(StageKind::function, at, layer.inputs, layer.outputs);
          stage.function = layer.function;
          stage.to = reserve(stage.size);
          at = stage.to;
          break;
        }
      }
    }
    result_ = at;
  }

  void step(float* memory, const float* x, float dt, float* y) const {
    copy(x, inputs, memory);
    for (int64_t s = 0; s < stage_count_; ++s) {
      const PostStage& stage = stages_[s];
      switch (stage.kind) {
        case StageKind::ltc:
          run_ltc(ltc_[stage.layer], stage, memory, dt);
          break;
        case StageKind::cell:
          run_cell(stage, memory, dt);
          break;
        case StageKind::memory:
          run_memory(stage, memory);
          break;
        case StageKind::dense:
          stage.gates == 4   ? run_dense<4>(stage, memory)
          : stage.gates == 2 ? run_dense<2>(stage, memory)
                             : run_dense<1>(stage, memory);
          break;
        case StageKind::function:
          run_function(stage, memory);
          break;
        case StageKind::copy:
          for (int64_t k = 0; k < stage.size; k += L) {
            S::store(memory + stage.to + k, S::load(memory + stage.from + k));
          }
          break;
      }
    }
    copy(memory + result_, outputs, y);
  }

  void get_state(const float* memory, float* state) const {
    for (int64_t p = 0; p < part_count_; ++p) {
      const StatePart& part = parts_[p];
      for (int64_t j = 0; j < part.count; ++j) {
        *state++ = memory[part.at + (part.lanes == nullptr ? j : part.lanes->position[j])];
      }
    }
  }
  void set_state(float* memory, const float* state) const {
    for (int64_t p = 0; p < part_count_; ++p) {
      const StatePart& part = parts_[p];
      if (part.lanes == nullptr) {
        copy(state, part.count, memory + part.at);
      } else {
        PostLanesStep<float>(*part.lanes, 0).spread(state, 1, memory + part.at);
      }
      state += part.count;
    }
  }

 private:
  static constexpr int64_t kCellCycles = 70;     // of a cell's functions, one after another
  static constexpr int64_t kSigmoidCycles = 12;  // of a register of sigmoids, side by side
  static constexpr int64_t kFirstCache = 16384;  // bytes that surely stay in it

  Pool pool_;
  PostStage* stages_ = nullptr;
  int64_t stage_count_ = 0;
  PostLtc* ltc_ = nullptr;
  int64_t ltc_count_ = 0;
  StatePart* parts_ = nullptr;
  int64_t part_count_ = 0;
  int64_t result_ = 0;  // offset of the last stage's values

  static int64_t stages_of(const NetworkLayer& layer) {
    // Memory cell, backbone, cells, and the copy of the state at the end.
    return layer.type == LayerType::cfc ? 2 + layer.cfc.backbone_layers + layer.cfc.cells : 2;
  }
  static int64_t registers_of(int64_t count) { return (count + L - 1) / L; }

  // Whole cache lines, with room for a register that starts at the last value.
  int64_t reserve(int64_t count) {
    const int64_t at = memory_size;
    memory_size += (count + L + 15) / 16 * 16;
    return at;
  }

  PostStage& add(StageKind kind, int64_t from, int64_t input_count, int64_t size) {
    PostStage& stage = stages_[stage_count_++];
    stage = PostStage();
    stage.kind = kind;
    stage.from = from;
    stage.inputs = input_count;
    stage.size = size;
    stage.blocks = registers_of(size);
    cycles += kCellCycles;
    return stage;
  }

  void take_product(PostStage& stage) {
    stage.take(pool_);
    const int64_t registers = stage.blocks * stage.gates * stage.columns();
    // Of a large product each step reads all weights anew, from the second cache.
    cycles += registers * L * static_cast<int64_t>(sizeof(float)) > kFirstCache ? 2 * registers
                                                                                : registers;
  }

  // --- dense layers ---

  PostStage& add_dense(int64_t from, int64_t input_count, int64_t own, int64_t own_count,
                       int64_t size) {
    PostStage& stage = add(StageKind::dense, from, input_count, size);
    const int64_t registers = registers_of(size);
    stage.own = own;
    stage.own_count = own_count;
    stage.gates = registers % 4 == 0 || registers > 8 ? 4 : registers % 2 == 0 ? 2 : 1;
    stage.blocks = (registers + stage.gates - 1) / stage.gates;
    stage.to = reserve(stage.blocks * stage.gates * L);
    take_product(stage);
    return stage;
  }
  void pack_dense(PostStage& stage, const float* weight, const float* bias) {
    for (int64_t row = 0; row < stage.size; ++row) {
      const int64_t at = row / L;
      stage.pack(at / stage.gates, static_cast<int>(at % stage.gates), row % L,
                 weight + row * stage.columns(), nullptr, bias == nullptr ? 0.0f : bias[row]);
    }
  }

  template <int G>
  void run_dense(const PostStage& stage, float* memory) const {
    for (int64_t block = 0; block < stage.blocks; ++block) {
      vec sum[G];
      product<G>(stage, block, memory, sum);
      for (int g = 0; g < G; ++g) {
        const vec value = stage.activated ? apply(stage.function, sum[g]) : sum[g];
        S::store(memory + stage.to + (block * G + g) * L, value);
      }
    }
  }

  // --- functions of all values ---

  void run_function(const PostStage& stage, float* memory) const {
    const float* const from = memory + stage.from;
    float* const to = memory + stage.to;
    if (stage.function == Function::softmax) return softmax(from, stage.size, to);
    for (int64_t k = 0; k < stage.size; k += L)
      S::store(to + k, apply(stage.function, S::load(from + k)));
  }

  static void softmax(const float* from, int64_t count, float* to) {
    float most = from[0];
    for (int64_t k = 1; k < count; ++k) most = from[k] > most ? from[k] : most;
    for (int64_t k = 0; k < count; k += L) {
      const vec t = (S::load(from + k) - most) * kLog2E<float>;
      // Past the last value stands anything.
      S::store(to + k, S::exp2(S::at_most(S::at_least(t, -Exp2Constants<float>::bound), 0.0f)));
    }
    float sum = 0.0f;
    for (int64_t k = 0; k < count; ++k) sum += to[k];
    for (int64_t k = 0; k < count; k += L) S::store(to + k, S::load(to + k) / sum);
  }

  // --- memory cell ---

  // Reads x and h, updates c, leaves the new h at the offset returned.
  int64_t add_memory(const NetworkLayer& layer, int64_t from, int64_t N, int64_t h) {
    const MemoryParameters<float>& p = layer.memory;
    PostStage& stage = add(StageKind::memory, from, layer.inputs, N);
    stage.own = h;
    stage.own_count = N;
    stage.gates = static_cast<int>(kMemoryGates);
    stage.to = reserve(N);
    stage.memory = reserve(N);
    take_product(stage);
    float* const row = pool_.take<float>(stage.columns());
    for (int64_t j = 0; j < N; ++j) {
      for (int gate = 0; gate < kMemoryGates; ++gate) {
        const int64_t r = gate * N + j;
        for (int64_t k = 0; k < layer.inputs; ++k) row[k] = p.weight[r * layer.inputs + k];
        for (int64_t k = 0; k < N; ++k) row[layer.inputs + k] = p.recurrent_weight[r * N + k];
        stage.pack(j / L, gate, j % L, row, nullptr, p.bias[r] + (gate == 2 ? 1.0f : 0.0f));
      }
    }
    parts_[part_count_++] = {h, N, nullptr};
    parts_[part_count_++] = {stage.memory, N, nullptr};
    state_size += 2 * N;
    cycles += kCellCycles;
    return stage.to;
  }

  void run_memory(const PostStage& stage, float* memory) const {
    for (int64_t block = 0; block < stage.blocks; ++block) {
      vec gate[kMemoryGates];
      product<kMemoryGates>(stage, block, memory, gate);
      vec c = S::load(memory + stage.memory + block * L);
      const vec h = memory_state(gate, c);
      S::store(memory + stage.memory + block * L, c);
      S::store(memory + stage.to + block * L, h);
    }
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
      parts_[part_count_++] = {h, N, nullptr};
      state_size += N;
    }
    const float* const* p = in.parameters;
    int64_t input_count = layer.inputs;
    for (int64_t b = 0; b < in.backbone_layers; ++b, p += 2) {
      PostStage& stage = add_dense(from, input_count, own, b == 0 ? N : 0, in.backbone_units);
      stage.activated = true;
      stage.function = static_cast<Function>(in.activation);
      pack_dense(stage, p[0], p[1]);
      from = stage.to;
      input_count = in.backbone_units;
    }
    int64_t row = 0;
    for (int64_t c = 0; c < in.cells; ++c) {
      const int64_t size = in.cell_sizes[c];
      PostStage& stage = add(StageKind::cell, from, input_count, size);
      stage.mode = in.mode;
      stage.gates = in.mode == CfcMode::pure ? 1 : kCfcGates;
      stage.own = own + row;
      stage.own_count = in.backbone_layers > 0 ? 0 : size;
      stage.to = next + row;
      take_product(stage);
      const float* const mask = in.masks == nullptr ? nullptr : in.masks[c];
      for (int64_t j = 0; j < size; ++j) {
        for (int gate = 0; gate < stage.gates; ++gate) {
          const bool masked = mask != nullptr && gate < 2;
          stage.pack(j / L, gate, j % L, p[2 * gate] + j * stage.columns(),
                     masked ? mask + j * stage.columns() : nullptr, p[2 * gate + 1][j]);
        }
      }
      if (in.mode == CfcMode::pure) {
        stage.abs_w_tau = pool_.take<float>(stage.blocks * L);
        stage.A = pool_.take<float>(stage.blocks * L);
        for (int64_t j = 0; j < size; ++j) {
          stage.abs_w_tau[j] = p[2][j] < 0.0f ? -p[2][j] : p[2][j];
          stage.A[j] = p[3][j];
        }
      }
      p += in.mode == CfcMode::pure ? 4 : 8;
      from = next + row;
      input_count = size;
      row += size;
    }
    // Only now: until the last cell, the old state was read.
    PostStage& last = add(StageKind::copy, next, N, N);
    last.to = h;
    return from;
  }

  void run_cell(const PostStage& stage, float* memory, float dt) const {
    const vec time = S::set(dt);
    for (int64_t block = 0; block < stage.blocks; ++block) {
      float* const to = memory + stage.to + block * L;
      if (stage.mode == CfcMode::pure) {
        vec f[1];
        product<1>(stage, block, memory, f);
        S::store(to, pure_state(f[0], S::load(stage.abs_w_tau + block * L),
                                S::load(stage.A + block * L), time));
      } else {
        vec gate[kCfcGates];
        product<kCfcGates>(stage, block, memory, gate);
        S::store(to, gated_state(stage.mode, gate, time));
      }
    }
  }

  // --- LTC ---

  int64_t add_ltc(const NetworkLayer& layer, int64_t from) {
    const LtcInputs<float>& in = layer.ltc;
    const int64_t N = in.size.N;
    PostLtc& ltc = ltc_[ltc_count_];
    ltc = PostLtc();
    ltc.inputs = layer.inputs;
    ltc.outputs = layer.outputs;
    ltc.unfolds = in.size.U;
    fill_lanes(ltc.lanes, in);
    const LtcParameters<float>& p = in.parameters;
    const int64_t padded = registers_of(layer.inputs) * L;
    ltc.input_w = map(p.input_w, layer.inputs, padded, 1.0f);
    ltc.input_b = map(p.input_b, layer.inputs, padded, 0.0f);
    ltc.output_w = map(p.output_w, layer.outputs, layer.outputs, 1.0f);
    ltc.output_b = map(p.output_b, layer.outputs, layer.outputs, 0.0f);
    Arena scratch;
    PostLanesStep<float>(ltc.lanes, layer.inputs).take(scratch);
    ltc.scratch = reserve(static_cast<int64_t>(scratch.used() / sizeof(float)));
    ltc.state = reserve(PostLanesStep<float>::state_width(ltc.lanes));
    ltc.other = reserve(PostLanesStep<float>::state_width(ltc.lanes));
    int64_t own = ltc.state;
    if (layer.memory.weight != nullptr) {
      ltc.memory = reserve(N);
      own = add_memory(layer, from, N, ltc.memory);
    } else {
      parts_[part_count_++] = {ltc.state, N, &ltc.lanes};
      state_size += N;
    }
    PostStage& stage = add(StageKind::ltc, from, layer.inputs, layer.outputs);
    stage.own = own;
    stage.to = reserve(layer.outputs);
    stage.layer = ltc_count_++;
    cycles += kSigmoidCycles * ltc.lanes.cost(ltc.unfolds);
    return stage.to;
  }

  float* map(const float* values, int64_t count, int64_t padded, float neutral) {
    float* const result = pool_.take<float>(padded);
    for (int64_t k = 0; k < count; ++k) result[k] = values == nullptr ? neutral : values[k];
    return result;
  }

  void fill_lanes(PostLanes<float>& lanes, const LtcInputs<float>& in) {
    PackedLtc<float> plan;
    Arena counting;
    plan.take(counting, in, false);
    counting.take<int32_t>(in.size.N + 2);
    const Block block(counting.used());
    Arena arena(block.data());
    plan.take(arena, in, false);
    plan.fill(in, false, 0.0f);
    int32_t* const bins = arena.take<int32_t>(in.size.N + 2);
    Arena size;
    lanes.take(size, in);
    Arena dealt(pool_.take<char>(static_cast<int64_t>(size.used())));
    lanes.take(dealt, in);
    lanes.deal(in, bins);
    Arena slots_size;
    lanes.take_slots(slots_size);
    Arena slots(pool_.take<char>(static_cast<int64_t>(slots_size.used())));
    lanes.take_slots(slots);
    lanes.fill(in, plan);
  }

  void run_ltc(const PostLtc& ltc, const PostStage& stage, float* memory, float dt) const {
    PostLanesStep<float> step(ltc.lanes, ltc.inputs);
    Arena arena(reinterpret_cast<char*>(memory + ltc.scratch));
    step.take(arena);
    for (int64_t k = 0; k < ltc.inputs; k += L) {
      const vec x = S::load(memory + stage.from + k);
      S::store(step.u + k, x * S::load(ltc.input_w + k) + S::load(ltc.input_b + k));
    }
    float* const state = memory + ltc.state;
    if (ltc.memory >= 0) step.spread(memory + stage.own, 1, state);
    const float* v = state;
    // A time step of 0 holds the potentials, also where cm is 0.
    if (dt > 0.0f) {
      const float within = dt > kMostStep ? kMostStep : dt < kLeastStep ? kLeastStep : dt;
      for (int64_t q = 0; q < ltc.lanes.registers; ++q) S::store(step.dt + q * L, S::set(within));
      step.sensory_sums();
      v = step.solve(state, memory + ltc.other, ltc.unfolds);
    }
    const int32_t* const position = ltc.lanes.position;
    if (ltc.memory >= 0) {
      for (int64_t j = 0; j < ltc.lanes.neurons; ++j) memory[ltc.memory + j] = v[position[j]];
    } else if (v != state) {
      for (int64_t q = 0; q < ltc.lanes.registers; ++q) S::store(state + q * L, S::load(v + q * L));
    }
    float* const y = memory + stage.to;
    for (int64_t m = 0; m < ltc.outputs; ++m) {
      y[m] = v[position[m]] * ltc.output_w[m] + ltc.output_b[m];
    }
  }

  static FASTLTC_INLINE void copy(const float* from, int64_t count, float* to) {
    int64_t k = 0;
    for (; k + L <= count; k += L) S::store(to + k, S::load(from + k));
    for (; k < count; ++k) to[k] = from[k];
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
