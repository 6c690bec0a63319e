// One step of a network for many streams: one stream per lane.
//
// Maths as in post_lanes.h.
//
// Layout: a tile is W registers of streams, and everything of it is rows of lanes,
// [W][rows][lanes], as in cells/ltc.h: the values that pass from stage to stage, the state,
// scratch. A stage knows the rows it reads and writes. The state stays in that layout between
// steps; only inputs and outputs are transposed.
//
// Plan: tiles one after another. Weights are broadcast and shared by the tile's registers. Bound by
// the sigmoids of LTC and the multiply-adds of the rest.
#pragma once

#include "cpu/cells/dense.h"
#include "cpu/cells/ltc.h"
#include "cpu/cells/ltc_packed.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/pool.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"
#include "cpu/frame/step.h"
#include "cpu/stream/cells.h"
#include "cpu/stream/layout.h"
#include "cpu/stream/lowering.h"

namespace fastltc::cpu::FASTLTC_ISA {

// A stage with its weights. Its places are rows of a tile.
struct BatchStage : StreamStage {
  PackedWeight<float> packed;  // the gates of a neuron in neighbouring rows
  PureParameters pure;
};

// An LTC layer's part of a tile.
struct BatchLtc {
  LtcInputs<float> in;  // sizes, and that there are time steps
  PackedLtc<float> packed;
};

class BatchLanesNetwork : public StreamLayout<BatchStage> {
 public:
  explicit BatchLanesNetwork(const LoweredNetwork& network) {
    ltc_ = pool_.take<BatchLtc>(network.ltc_count);
    ltc_count_ = network.ltc_count;
    lay_out(
        network, [&](BatchStage& stage, int64_t*) { prepare(stage); },
        [&](int64_t rows) { return reserve(rows); });
    product_ = reserve(widest_product_);
    dt_ = reserve(1);
    // An odd number of lines apart, the parts of a tile do not fall onto the same sets of the
    // cache.
    rows_ += 1 - rows_ % 2;
    tile_sizes_[0] = count_tile<1>();
    tile_sizes_[1] = count_tile<2>();
    if constexpr (kMaxWidth >= 4) tile_sizes_[2] = count_tile<4>();
  }

  // Floats that so many streams take. Throws std::bad_alloc where that is no number.
  int64_t memory_of(int64_t streams) const {
    int64_t count = 0;
    for_tiles(nullptr, streams, [&](auto width, float*, LaneGroup) {
      count = added(count, tile_size<decltype(width)::value>());
    });
    return count;
  }
  void step(float* memory, int64_t streams, const float* x, const float* dt, int64_t dt_stride,
            float* y) const {
    for_tiles(memory, streams, [&](auto width, float* tile, LaneGroup group) {
      step_tile<decltype(width)::value>(tile, group, x, dt, dt_stride, y);
    });
  }
  void reset(float* memory, int64_t streams, const bool* which) const {
    for_tiles(memory, streams, [&](auto width, float* tile, LaneGroup all) {
      constexpr int W = decltype(width)::value;
      for (int64_t k = 0; k < all.valid; ++k) {
        if (!which[all.first + k]) continue;
        float* const lane = rows_of<W>(tile).at(static_cast<int>(k / L), 0) + k % L;
        for (int64_t p = 0; p < part_count_; ++p) {
          for (int64_t j = 0; j < parts_[p].count; ++j) lane[(parts_[p].buffer + j) * L] = 0.0f;
        }
      }
    });
  }
  void get_state(float* memory, int64_t streams, float* state) const {
    move_state<false>(memory, streams, state);
  }
  void set_state(float* memory, int64_t streams, const float* state) const {
    move_state<true>(memory, streams, state);
  }

 private:
  static constexpr int64_t kSigmoidCycles = 12;  // of a register
  static constexpr int64_t kCellSigmoids = 5;    // of a neuron, the division of its unfold included

  BatchLtc* ltc_ = nullptr;
  int64_t ltc_count_ = 0;
  int64_t rows_ = 0;
  int64_t product_ = 0;  // rows of the product at hand
  int64_t widest_product_ = 0;
  int64_t dt_ = 0;              // row
  int64_t tile_sizes_[3] = {};  // of one, two and four registers

  // Floats of a tile of W registers, scratch included.
  template <int W>
  int64_t tile_size() const {
    return W == 1 ? tile_sizes_[0] : W == 2 ? tile_sizes_[1] : tile_sizes_[2];
  }
  // Calls run(Width, memory, streams) for all tiles, whose memories follow each other.
  template <typename Run>
  void for_tiles(float* memory, int64_t streams, Run run) const {
    const Partition<float> partition(streams, 0, 1);
    run_tiles(partition, 0, streams, [&](auto width, int64_t first, int valid) {
      run(width, memory, LaneGroup{first, valid});
      if (memory != nullptr) memory += tile_size<decltype(width)::value>();
    });
  }
  // All parts of the state, for all registers.
  template <bool into_rows, typename T>
  void move_state(float* memory, int64_t streams, T* state) const {
    for_tiles(memory, streams, [&](auto width, float* tile, LaneGroup all) {
      constexpr int W = decltype(width)::value;
      SequenceView<T> view{state, state_size, 0, 1};
      for (int64_t p = 0; p < part_count_; ++p) {
        for (int r = 0; r < W; ++r) {
          float* const rows = rows_of<W>(tile).at(r, parts_[p].buffer);
          if constexpr (into_rows) {
            load_rows(view, 0, parts_[p].count, group_of<W>(all, r), rows);
          } else {
            store_rows(view, 0, parts_[p].count, group_of<W>(all, r), rows);
          }
        }
        view.data += parts_[p].count;
      }
    });
  }

  template <int W>
  static LaneGroup group_of(LaneGroup all, int r) {
    return {all.first + r * L, all.valid < W * L ? all.valid : L};
  }
  template <int W>
  Rows<float> rows_of(float* memory) const {
    return {memory, rows_ * L};
  }

  template <int W>
  int64_t count_tile() const {
    size_t scratch = 0;
    for (int64_t n = 0; n < ltc_count_; ++n) {
      const size_t bytes = bytes_of([&](Arena& arena) { LtcTile<W>(ltc_[n], arena); });
      if (bytes > scratch) scratch = bytes;
    }
    return W * rows_ * L + static_cast<int64_t>(scratch / sizeof(float));
  }

  int64_t reserve(int64_t rows) {
    const int64_t row = rows_;
    rows_ += rows;
    return row;
  }

  // Packs what a stage needs of the parameters.
  void prepare(BatchStage& stage) {
    if (stage.gates > 0) pack(stage);
    stage.pure.take(pool_, stage, stage.size);
    if (stage.kind == Kind::ltc) {
      prepare_ltc(stage);
    } else if (stage.kind == Kind::memory || stage.kind == Kind::cell) {
      cycles += kCellSigmoids * kSigmoidCycles * stage.size;
    } else if (stage.kind == Kind::function || stage.activated) {
      cycles += kSigmoidCycles * stage.size;
    }
  }

  void pack(BatchStage& stage) {
    PackedWeight<float>& weight = stage.packed;
    take_from(pool_,
              [&](Arena& arena) { weight.take(arena, stage.size * stage.gates, stage.columns); });
    float* const values = pool_.take<float>(stage.columns);
    for (int64_t row = 0; row < weight.rows; ++row) {
      const int gate = static_cast<int>(row % stage.gates);
      weight.bias[row] = stage.read_row(gate, row / stage.gates, values);
      for (int64_t k = 0; k < stage.columns; ++k) weight.at(row, k) = values[k];
    }
    const int64_t padded = padded_rows(weight.rows);
    if (padded > widest_product_) widest_product_ = padded;
    cycles += weight.rows * stage.columns;
  }

  // A stage's product, then its result by finish(r, j, the gates of neuron j).
  template <int W, int G, typename Finish>
  void run_product(const BatchStage& stage, Rows<float> rows, Finish finish) const {
    dense_rows<float, W>(stage.packed, constant(rows, stage.from.at), stage.inputs,
                         constant(rows, stage.own.at), stage.own_count, rows.from(product_));
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < stage.size; ++j) {
        vec gate[G];
        for (int g = 0; g < G; ++g) gate[g] = S::load(rows.at(r, product_ + j * G + g));
        S::store(rows.at(r, stage.to.at + j), finish(r, j, gate));
      }
    }
  }

  // Streams [first, first + valid); fewer than W * L only where W is 1.
  template <int W>
  void step_tile(float* memory, LaneGroup all, const float* x, const float* dt, int64_t dt_stride,
                 float* y) const {
    const Rows<float> rows = rows_of<W>(memory);
    float* const scratch = memory + W * rows_ * L;
    for (int r = 0; r < W; ++r) {
      const LaneGroup group = group_of<W>(all, r);
      load_rows(SequenceView<const float>{x, inputs, 0, 1}, 0, inputs, group, rows.at(r, input_));
      load_rows(SequenceView<const float>{dt, dt_stride, 0, 0}, 0, 1, group, rows.at(r, dt_));
    }
    for (int64_t s = 0; s < stage_count_; ++s) {
      const BatchStage& stage = stages_[s];
      switch (stage.kind) {
        case Kind::ltc:
          run_ltc<W>(ltc_[stage.ltc], stage, rows, scratch);
          break;
        case Kind::cell:
          run_cell<W>(stage, rows);
          break;
        case Kind::memory:
          run_memory<W>(stage, rows);
          break;
        case Kind::dense:
          run_dense<W>(stage, rows);
          break;
        case Kind::function:
          run_function<W>(stage, rows);
          break;
        case Kind::copy:
          copy_tile<float, W>(constant(rows, stage.from.at), stage.size, rows.from(stage.to.at));
          break;
      }
    }
    for (int r = 0; r < W; ++r) {
      store_rows(SequenceView<float>{y, outputs, 0, 1}, 0, outputs, group_of<W>(all, r),
                 rows.at(r, result_));
    }
  }

  // --- dense layers ---

  template <int W>
  void run_dense(const BatchStage& stage, Rows<float> rows) const {
    run_product<W, 1>(stage, rows, [&](int, int64_t, const vec(&z)[1]) {
      return stage.activated ? apply(stage.function, z[0]) : z[0];
    });
  }

  // --- functions of all values ---

  template <int W>
  void run_function(const BatchStage& stage, Rows<float> rows) const {
    for (int r = 0; r < W; ++r) {
      const float* const from = rows.at(r, stage.from.at);
      float* const to = rows.at(r, stage.to.at);
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

  template <int W>
  void run_memory(const BatchStage& stage, Rows<float> rows) const {
    run_product<W, kMostGates>(stage, rows, [&](int r, int64_t j, const vec(&gate)[kMostGates]) {
      float* const c = rows.at(r, stage.kept.at + j);
      vec next = S::load(c);
      const vec h = memory_state(gate, next);
      S::store(c, next);
      return h;
    });
  }

  // --- CfC ---

  template <int W>
  void run_cell(const BatchStage& stage, Rows<float> rows) const {
    const auto dt = [&](int r) { return S::load(rows.at(r, dt_)); };
    if (stage.mode == CfcMode::pure) {
      run_product<W, 1>(stage, rows, [&](int r, int64_t j, const vec(&f)[1]) {
        return pure_state(f[0], S::set(stage.pure.abs_w_tau[j]), S::set(stage.pure.A[j]), dt(r));
      });
    } else {
      run_product<W, kMostGates>(stage, rows, [&](int r, int64_t, const vec(&gate)[kMostGates]) {
        return gated_state(stage.mode, gate, dt(r));
      });
    }
  }

  // --- LTC ---

  void prepare_ltc(const BatchStage& stage) {
    // What is read while the network runs is copied: the maps, and the columns of the lists.
    LtcInputs<float> in = stage.layer->ltc;
    LtcParameters<float>& p = in.parameters;
    const int64_t N = in.size.N;
    p.input_w = copy_of(p.input_w, stage.inputs);
    p.input_b = copy_of(p.input_b, stage.inputs);
    p.output_w = copy_of(p.output_w, stage.size);
    p.output_b = copy_of(p.output_b, stage.size);
    in.synapses.column = copy_of(in.synapses.column, N + 1);
    in.sensory_synapses.column = copy_of(in.sensory_synapses.column, N + 1);
    BatchLtc& ltc = ltc_[stage.ltc];
    ltc = BatchLtc();
    take_from(pool_, [&](Arena& arena) { ltc.packed.take(arena, in, false); });
    ltc.packed.fill(in, false, 0.0f);
    ltc.in.size = in.size;
    // [B, 1]; they are taken from the tile's own row.
    static const float some = 1.0f;
    ltc.in.timespans.data = &some;
    cycles += kSigmoidCycles *
              (in.size.U * (ltc.packed.recurrent.count + N) + ltc.packed.sensory.count + N);
  }
  template <typename V>
  const V* copy_of(const V* values, int64_t count) {
    if (values == nullptr) return nullptr;
    V* const result = pool_.take<V>(count);
    for (int64_t k = 0; k < count; ++k) result[k] = values[k];
    return result;
  }

  // The cell of a sequence, fed with the rows of this one.
  template <int W>
  struct LtcTile {
    StepInputs<float, W> step;
    LtcUnfolds<float, W> cell;
    Rows<float> ping;
    Rows<float> pong;
    LtcTile(const BatchLtc& ltc, Arena& arena) : cell{ltc.in, ltc.packed} {
      step.take(arena, ltc.in, ltc.packed);
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
    for (int r = 0; r < W; ++r) {
      const vec dt = S::at_least(S::load(rows.at(r, dt_)), kLeastStep);
      S::store(tile.step.dt.at(r, 0), S::at_most(dt, kMostStep));
      for (int64_t k = 0; k < stage.inputs; ++k) {
        const vec x = S::load(rows.at(r, stage.from.at + k));
        S::store(tile.step.u.at(r, k), ltc.packed.map_input(x, k));
      }
    }
    tile.cell.template begin<Timespans::given, false>(tile.step);
    Rows<float> v = rows.from(stage.own.at);
    for (int64_t u = 0; u < ltc.in.size.U; ++u) {
      const Rows<float> next = u % 2 == 0 ? tile.ping : tile.pong;
      tile.cell.template unfold<Timespans::given, false>(tile.step, constant(v), next);
      v = next;
    }
    for (int r = 0; r < W; ++r) {
      // A time step of 0 holds the potentials, also where cm is 0.
      const auto moves = S::load(rows.at(r, dt_)) > 0.0f;
      for (int64_t j = 0; j < ltc.in.size.N; ++j) {
        const vec held = S::load(rows.at(r, stage.own.at + j));
        S::store(rows.at(r, stage.kept.at + j), moves ? S::load(v.at(r, j)) : held);
      }
      for (int64_t m = 0; m < stage.size; ++m) {
        const vec potential = S::load(rows.at(r, stage.kept.at + m));
        S::store(rows.at(r, stage.to.at + m), ltc.packed.map_output(potential, m));
      }
    }
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
