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
// Plan: the stages of lowering.h, one after another. Bound by latency in small networks (a chain of about 50
// cycles for a cell's functions, 120 to 150 for an unfold), by reading the weights in large ones.
#pragma once

#include "cpu/cells/ltc_packed.h"
#include "cpu/cells/ltc_post_lanes.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/pool.h"
#include "cpu/frame/simd.h"
#include "cpu/stream/cells.h"
#include "cpu/stream/layout.h"
#include "cpu/stream/lowering.h"

namespace fastltc::cpu::FASTLTC_ISA {

// A stage with its weights. Its places are offsets in a stream's memory.
struct PostStage : StreamStage {
  int64_t blocks = 0;       // groups of registers of the result
  int registers = 1;        // in a group: gates, or neighbours of a dense layer
  float* weight = nullptr;  // [blocks][columns][registers][L]
  float* bias = nullptr;    // [blocks][registers][L]
  PureParameters pure;
};

// An LTC layer's part of a stream.
struct PostLtc {
  PostLanes<float> lanes;
  int64_t unfolds = 0;
  float* input_w = nullptr;  // [inputs, padded], ones where there is none
  float* input_b = nullptr;
  float* output_w = nullptr;  // [outputs]
  float* output_b = nullptr;
  int64_t scratch = 0;  // offset of PostLanesStep's arrays
  int64_t state = -1;  // with mixed memory: offset of the state in lanes, else that is what is kept
  int64_t other = 0;   // offset of a second one
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
  const float* const weight = stage.weight + block * stage.columns * G * S::lanes;
  accumulate<G, C>(weight, memory + stage.from.at, stage.inputs, sum);
  accumulate<G, C>(weight + stage.inputs * G * S::lanes, memory + stage.own.at, stage.own_count,
                   sum);
#pragma GCC unroll 3
  for (int step = C / 2; step > 0; step /= 2) {
    for (int c = 0; c < step; ++c) {
      for (int g = 0; g < G; ++g) sum[c][g] += sum[c + step][g];
    }
  }
  for (int g = 0; g < G; ++g) result[g] = sum[0][g];
}

class PostLanesNetwork : public StreamLayout<PostStage> {
 public:
  explicit PostLanesNetwork(const LoweredNetwork& network) {
    ltc_ = pool_.take<PostLtc>(network.ltc_count);
    lay_out(
        network, [&](PostStage& stage, int64_t* buffers) { prepare(stage, buffers); },
        [&](int64_t count) { return reserve(count); });
  }

  // Floats that so many streams take. Throws std::bad_alloc where that is no number.
  int64_t memory_of(int64_t streams) const { return multiplied(streams, memory_size_); }

  void step(float* memory, int64_t streams, const float* x, const float* dt, int64_t dt_stride,
            float* y) const {
    for (int64_t s = 0; s < streams; ++s) {
      step_one(memory + s * memory_size_, x + s * inputs, dt[s * dt_stride], y + s * outputs);
    }
  }
  void reset(float* memory, int64_t streams, const bool* which) const {
    const float zero = 0.0f;
    for (int64_t s = 0; s < streams; ++s, memory += memory_size_) {
      for (int64_t p = 0; which[s] && p < part_count_; ++p) {
        const StatePart& part = parts_[p];
        if (part.of_ltc) {
          PostLanesStep<float>(ltc_[part.ltc].lanes, 0).spread(&zero, 0, memory + part.buffer);
        } else {
          clear(memory + part.buffer, part.count);
        }
      }
    }
  }
  void get_state(const float* memory, int64_t streams, float* state) const {
    for (int64_t s = 0; s < streams; ++s, memory += memory_size_) {
      for (int64_t p = 0; p < part_count_; ++p) {
        const StatePart& part = parts_[p];
        const int32_t* const position = part.of_ltc ? ltc_[part.ltc].lanes.position : nullptr;
        for (int64_t j = 0; j < part.count; ++j) {
          *state++ = memory[part.buffer + (position == nullptr ? j : position[j])];
        }
      }
    }
  }
  void set_state(float* memory, int64_t streams, const float* state) const {
    for (int64_t s = 0; s < streams; ++s, memory += memory_size_) {
      for (int64_t p = 0; p < part_count_; ++p) {
        const StatePart& part = parts_[p];
        if (part.of_ltc) {
          PostLanesStep<float>(ltc_[part.ltc].lanes, 0).spread(state, 1, memory + part.buffer);
        } else {
          copy(state, part.count, memory + part.buffer);
        }
        state += part.count;
      }
    }
  }

 private:
  static constexpr int64_t kCellCycles = 70;     // of a cell's functions, one after another
  static constexpr int64_t kSigmoidCycles = 12;  // of a register of sigmoids, side by side
  static constexpr int64_t kFirstCache = 16384;  // bytes that surely stay in it

  PostLtc* ltc_ = nullptr;
  int64_t memory_size_ = 0;  // floats of a stream

  static int64_t registers_of(int64_t count) { return (count + L - 1) / L; }

  // Whole cache lines, with room for a register that starts at the last value.
  int64_t reserve(int64_t count) {
    const int64_t at = memory_size_;
    memory_size_ += (count + L + 15) / 16 * 16;
    return at;
  }

  // Packs what a stage needs of the parameters. `buffers`: sizes, which may grow.
  void prepare(PostStage& stage, int64_t* buffers) {
    const int64_t registers = registers_of(stage.size);
    stage.blocks = registers;
    cycles += stage.kind == Kind::memory ? 2 * kCellCycles : kCellCycles;
    if (stage.kind == Kind::ltc) {
      prepare_ltc(stage, buffers);
    } else if (stage.kind == Kind::dense) {
      stage.registers = registers % 4 == 0 || registers > 8 ? 4 : registers % 2 == 0 ? 2 : 1;
      stage.blocks = (registers + stage.registers - 1) / stage.registers;
      buffers[stage.to.buffer] = stage.blocks * stage.registers * L;
    } else {
      stage.registers = stage.gates;
    }
    if (stage.gates > 0) pack(stage);
    stage.pure.take(pool_, stage, stage.blocks * L);
  }

  void pack(PostStage& stage) {
    const int64_t G = stage.registers;
    stage.weight = pool_.take<float>(stage.blocks * stage.columns * G * L);
    stage.bias = pool_.take<float>(stage.blocks * G * L);
    float* const row = pool_.take<float>(stage.columns);
    for (int64_t j = 0; j < stage.size; ++j) {
      for (int gate = 0; gate < stage.gates; ++gate) {
        const bool dense = stage.kind == Kind::dense;
        const int64_t block = dense ? j / L / G : j / L, g = dense ? j / L % G : gate;
        stage.bias[(block * G + g) * L + j % L] = stage.read_row(gate, j, row);
        for (int64_t k = 0; k < stage.columns; ++k) {
          stage.weight[((block * stage.columns + k) * G + g) * L + j % L] = row[k];
        }
      }
    }
    const int64_t registers = stage.blocks * G * stage.columns;
    // Of a large product each step reads all weights anew, from the second cache.
    cycles += registers * L * static_cast<int64_t>(sizeof(float)) > kFirstCache ? 2 * registers
                                                                                : registers;
  }

  void step_one(float* memory, const float* x, float dt, float* y) const {
    copy(x, inputs, memory + input_);
    for (int64_t s = 0; s < stage_count_; ++s) {
      const PostStage& stage = stages_[s];
      switch (stage.kind) {
        case Kind::ltc:
          run_ltc(ltc_[stage.ltc], stage, memory, dt);
          break;
        case Kind::cell:
          run_cell(stage, memory, dt);
          break;
        case Kind::memory:
          run_memory(stage, memory);
          break;
        case Kind::dense:
          stage.registers == 4   ? run_dense<4>(stage, memory)
          : stage.registers == 2 ? run_dense<2>(stage, memory)
                                 : run_dense<1>(stage, memory);
          break;
        case Kind::function:
          run_function(stage, memory);
          break;
        case Kind::copy:
          for (int64_t k = 0; k < stage.size; k += L) {
            S::store(memory + stage.to.at + k, S::load(memory + stage.from.at + k));
          }
          break;
      }
    }
    copy(memory + result_, outputs, y);
  }

  template <int G>
  void run_dense(const PostStage& stage, float* memory) const {
    for (int64_t block = 0; block < stage.blocks; ++block) {
      vec sum[G];
      product<G>(stage, block, memory, sum);
      for (int g = 0; g < G; ++g) {
        const vec value = stage.activated ? apply(stage.function, sum[g]) : sum[g];
        S::store(memory + stage.to.at + (block * G + g) * L, value);
      }
    }
  }

  // --- functions of all values ---

  void run_function(const PostStage& stage, float* memory) const {
    const float* const from = memory + stage.from.at;
    float* const to = memory + stage.to.at;
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

  void run_memory(const PostStage& stage, float* memory) const {
    for (int64_t block = 0; block < stage.blocks; ++block) {
      vec gate[kMostGates];
      product<kMostGates>(stage, block, memory, gate);
      vec c = S::load(memory + stage.kept.at + block * L);
      const vec h = memory_state(gate, c);
      S::store(memory + stage.kept.at + block * L, c);
      S::store(memory + stage.to.at + block * L, h);
    }
  }

  // --- CfC ---

  void run_cell(const PostStage& stage, float* memory, float dt) const {
    const vec time = S::set(dt);
    for (int64_t block = 0; block < stage.blocks; ++block) {
      float* const to = memory + stage.to.at + block * L;
      if (stage.mode == CfcMode::pure) {
        vec f[1];
        product<1>(stage, block, memory, f);
        S::store(to, pure_state(f[0], S::load(stage.pure.abs_w_tau + block * L),
                                S::load(stage.pure.A + block * L), time));
      } else {
        vec gate[kMostGates];
        product<kMostGates>(stage, block, memory, gate);
        S::store(to, gated_state(stage.mode, gate, time));
      }
    }
  }

  // --- LTC ---

  void prepare_ltc(const PostStage& stage, int64_t* buffers) {
    const LtcInputs<float>& in = stage.layer->ltc;
    PostLtc& ltc = ltc_[stage.ltc];
    ltc = PostLtc();
    ltc.unfolds = in.size.U;
    fill_lanes(ltc.lanes, in);
    const LtcParameters<float>& p = in.parameters;
    const int64_t padded = registers_of(stage.inputs) * L;
    ltc.input_w = map(p.input_w, stage.inputs, padded, 1.0f);
    ltc.input_b = map(p.input_b, stage.inputs, padded, 0.0f);
    ltc.output_w = map(p.output_w, stage.size, stage.size, 1.0f);
    ltc.output_b = map(p.output_b, stage.size, stage.size, 0.0f);
    PostLanesStep<float> step(ltc.lanes, stage.inputs);
    const size_t scratch = bytes_of([&](Arena& arena) { step.take(arena); });
    ltc.scratch = reserve(static_cast<int64_t>(scratch / sizeof(float)));
    const int64_t width = PostLanesStep<float>::state_width(ltc.lanes);
    ltc.other = reserve(width);
    if (stage.own.buffer == stage.kept.buffer) {
      buffers[stage.kept.buffer] = width;
    } else {
      ltc.state = reserve(width);
    }
    cycles += kSigmoidCycles * ltc.lanes.cost(ltc.unfolds);
  }

  float* map(const float* values, int64_t count, int64_t padded, float neutral) {
    float* const result = pool_.take<float>(padded);
    for (int64_t k = 0; k < count; ++k) result[k] = values == nullptr ? neutral : values[k];
    return result;
  }

  void fill_lanes(PostLanes<float>& lanes, const LtcInputs<float>& in) {
    PackedLtc<float> packed;
    const BlockOf block([&](Arena& arena) { packed.take(arena, in, false); });
    packed.fill(in, false, 0.0f);
    take_from(pool_, [&](Arena& arena) { lanes.take(arena, in); });
    lanes.deal(in);
    take_from(pool_, [&](Arena& arena) { lanes.take_slots(arena); });
    lanes.fill(in, packed);
  }

  void run_ltc(const PostLtc& ltc, const PostStage& stage, float* memory, float dt) const {
    PostLanesStep<float> step(ltc.lanes, stage.inputs);
    Arena arena(reinterpret_cast<char*>(memory + ltc.scratch));
    step.take(arena);
    for (int64_t k = 0; k < stage.inputs; k += L) {
      const vec x = S::load(memory + stage.from.at + k);
      const vec u = x * S::load(ltc.input_w + k) + S::load(ltc.input_b + k);
      S::store(step.u + k, bounded_input<float>(u));
    }
    const bool mixed = ltc.state >= 0;
    float* const state = memory + (mixed ? ltc.state : stage.kept.at);
    if (mixed) step.spread(memory + stage.own.at, 1, state);
    const float* v = state;
    // A time step of 0 holds the potentials, also where cm is 0.
    if (dt > 0.0f) {
      const float within = dt > kMostStep ? kMostStep : dt < kLeastStep ? kLeastStep : dt;
      for (int64_t q = 0; q < ltc.lanes.registers; ++q) S::store(step.dt + q * L, S::set(within));
      step.sensory_sums();
      v = step.solve(state, memory + ltc.other, ltc.unfolds);
    }
    const int32_t* const position = ltc.lanes.position;
    if (mixed) {
      float* const h = memory + stage.kept.at;
      for (int64_t j = 0; j < ltc.lanes.neurons; ++j) h[j] = v[position[j]];
    } else if (v != state) {
      for (int64_t q = 0; q < ltc.lanes.registers; ++q) S::store(state + q * L, S::load(v + q * L));
    }
    float* const y = memory + stage.to.at;
    for (int64_t m = 0; m < stage.size; ++m) {
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
