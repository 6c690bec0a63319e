// CfC over a sequence, one sample per lane.
//
// Maths (docs/equations.md; Hasani et al., Closed-form continuous-time neural networks, 2022),
// for a cell with input z = [x, h]:
//   f1 = W1 z + b1   f2 = W2 z + b2   r = sigmoid((Wa z + ba) dt + Wb z + bb)
//   gated:    h' = tanh f1 (1 - r) + r tanh f2
//   no_gate:  h' = tanh f1 + r tanh f2
//   pure:     h' = A - A exp(-dt (|w_tau| + |f1|)) f1
// A wired layer is a chain of cells whose ff1 and ff2 are masked; a plain one may have a backbone,
// dense layers between z and the heads.
//
// Layout: as in cells/ltc.h, rows of lanes in tiles of W registers. A cell's heads are one
// packed weight, the gates of a neuron in neighbouring rows. Without time steps the two time heads
// are added up beforehand.
//
// Plan: a tile's whole sequence runs on one thread. Bound by the multiply-adds of the heads. The
// backward pass runs the chain back step by step and puts each product's gradients and inputs by;
// every few steps, before they leave the cache, they are multiplied into the gradients of the
// weights. Sums are kept per thread and added up in the order of the threads.
#pragma once

#include "core/cfc_problem.h"
#include "cpu/cells/activations.h"
#include "cpu/cells/dense.h"
#include "cpu/cells/memory.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// One product of the layer: a backbone layer, or the heads of a cell.
template <typename T>
struct CfcStage {
  PackedWeight<T> forward;
  PackedWeight<T> backward;  // the transpose
  int64_t inputs = 0;        // from the stage before, or x
  int64_t own = 0;           // from the cell's own state
  int64_t size = 0;          // neurons, or units of the backbone
  int64_t state_row = 0;     // where the cell's own state starts
  int64_t kept_row = 0;      // where what a step keeps of the stage starts
  bool backbone = false;
};

template <typename T>
struct CfcPlan {
  int64_t count = 0;
  CfcStage<T>* stages = nullptr;
  MemoryPlan<T> memory;
  int64_t gates = 0;       // rows of a neuron in its heads
  int64_t kept_gates = 0;  // rows of a neuron that a step keeps
  int64_t kept_rows = 0;
  int64_t widest = 0;  // rows of the widest stage, in or out, padded
  int64_t multiply_adds = 0;

  void take(Arena& arena, const CfcInputs<T>& in, bool with_backward) {
    const bool unit_time = in.timespans.data == nullptr;
    gates = in.mode == CfcMode::pure ? 1 : unit_time ? 3 : 4;
    kept_gates = gates;
    count = in.backbone_layers + in.cells;
    memory.take(arena, in, with_backward);
    stages = arena.take<CfcStage<T>>(count);
    // Counting runs without memory for the stages, so that their sizes are found twice.
    widest = padded_rows(in.size.I);
    kept_rows = multiply_adds = 0;
    int64_t from = in.size.I, state_row = 0;
    for (int64_t s = 0; s < count; ++s) {
      CfcStage<T> stage;
      stage.backbone = s < in.backbone_layers;
      stage.size = stage.backbone ? in.backbone_units : in.cell_sizes[s - in.backbone_layers];
      stage.inputs = from;
      // The state enters at the backbone's first layer, or at the heads where there is none.
      const bool first_of_cell = s == 0 || (!stage.backbone && in.backbone_layers == 0);
      stage.own = !first_of_cell ? 0 : stage.backbone ? in.size.N : stage.size;
      stage.state_row = state_row;
      if (!stage.backbone) state_row += stage.size;
      const int64_t rows = stage.backbone ? stage.size : stage.size * gates;
      const int64_t columns = stage.inputs + stage.own;
      stage.forward.take(arena, rows, columns);
      if (with_backward) stage.backward.take(arena, columns, rows);
      if (padded_rows(rows) > widest) widest = padded_rows(rows);
      if (padded_rows(columns) > widest) widest = padded_rows(columns);
      stage.kept_row = kept_rows;
      kept_rows += stage.backbone ? stage.size : stage.size * kept_gates;
      multiply_adds += rows * columns;
      from = stage.size;
      if (stages != nullptr) stages[s] = stage;
    }
  }

  int64_t history(int64_t steps, int64_t neurons) const {
    return (steps + 1) * neurons + steps * kept_rows + memory.kept(steps);
  }

  // The first parameter of a cell.
  static int64_t first_parameter(const CfcInputs<T>& in, int64_t cell) {
    return 2 * in.backbone_layers + cell * (in.mode == CfcMode::pure ? 4 : 8);
  }

  void fill(const CfcInputs<T>& in, bool with_backward) {
    memory.fill(in, with_backward);
    for (int64_t s = 0; s < count; ++s) {
      CfcStage<T>& stage = stages[s];
      PackedWeight<T>& packed = stage.forward;
      packed.clear();
      if (stage.backbone) {
        const T* const weight = in.parameters[2 * s];
        for (int64_t row = 0; row < packed.rows; ++row) {
          for (int64_t k = 0; k < packed.inputs; ++k) {
            packed.at(row, k) = weight[row * packed.inputs + k];
          }
          packed.bias[row] = in.parameters[2 * s + 1][row];
        }
      } else {
        const int64_t cell = s - in.backbone_layers;
        const T* const* const p = in.parameters + first_parameter(in, cell);
        const T* const mask = in.masks == nullptr ? nullptr : in.masks[cell];
        for (int64_t j = 0; j < stage.size; ++j) {
          for (int64_t gate = 0; gate < gates; ++gate) {
            const int64_t row = j * gates + gate;
            const T* const weight = p[2 * gate] + j * packed.inputs;
            // Without time steps the third row is time_a + time_b.
            const bool both = gates == 3 && gate == 2;
            const T* const second = both ? p[6] + j * packed.inputs : nullptr;
            for (int64_t k = 0; k < packed.inputs; ++k) {
              const bool present =
                  gate > 1 || mask == nullptr || mask[j * packed.inputs + k] != T(0);
              packed.at(row, k) = !present ? T(0) : both ? weight[k] + second[k] : weight[k];
            }
            packed.bias[row] = p[2 * gate + 1][j] + (both ? p[7][j] : T(0));
          }
        }
      }
      if (with_backward) stage.backward.transpose_of(packed);
    }
  }
};

// A step's inputs, and which samples of the tile still run.
template <typename T, int W>
struct CfcStep {
  using S = Simd<T>;
  using vec = typename S::vec;

  Rows<T> x;   // [I]
  Rows<T> dt;  // [1] or [N]
  int64_t dt_rows = 0;
  ActiveLanes<T> active[W] = {};
  bool all = true;

  void take(Arena& arena, const CfcInputs<T>& in) {
    x.take(arena, W, padded_rows(in.size.I));
    dt_rows = in.timespans.data == nullptr ? 0 : in.timespans_per_neuron ? in.size.N : 1;
    dt.take(arena, W, dt_rows);
  }
  void load(const CfcInputs<T>& in, int64_t t, const LaneGroup (&group)[W]) {
    all = true;
    for (int r = 0; r < W; ++r) {
      active[r] = ActiveLanes<T>(in, group[r], t);
      all = all && active[r].all;
      load_rows(in.x, t, in.size.I, group[r], x.at(r, 0));
      if (dt_rows > 0) load_timespans(in.timespans, t, dt_rows, group[r], dt.at(r, 0));
      if (!active[r].all) {
        overwrite_inactive(active[r], T(0), in.size.I, x.at(r, 0));
        overwrite_inactive(active[r], T(1), dt_rows, dt.at(r, 0));
      }
    }
  }
  FASTLTC_INLINE vec time(int r, int64_t neuron) const {
    return dt_rows == 0 ? S::set(T(1)) : S::load(dt.at(r, dt_rows > 1 ? neuron : 0));
  }
};

template <typename T, int W>
struct CfcForwardTile {
  using S = Simd<T>;
  using vec = typename S::vec;

  const CfcInputs<T>& in;
  const CfcOutputs<T>& out;
  const CfcPlan<T>& plan;
  CfcStep<T, W> step;
  Rows<T> h;        // [N] the state before the step
  Rows<T> next;     // [N] after it
  Rows<T> ping;     // [N] where both are, unless in the states that are kept
  Rows<T> pong;     // [N]
  Rows<T> product;  // [widest]
  Rows<T> kept;     // [kept rows] gates, and what goes into the backbone's activations
  Rows<T> unkept;   // [kept rows] where they go, unless into the states that are kept
  Rows<T> layer;    // [backbone units] the backbone's last activations
  Rows<T> factors;  // [backbone units] of dropout
  MemoryForward<T, W> memory;
  Rows<T> recalled;  // [N] what the memory cell makes of h

  CfcForwardTile(const CfcInputs<T>& inputs, const CfcOutputs<T>& outputs, const CfcPlan<T>& p,
                 Arena arena)
      : in(inputs), out(outputs), plan(p), memory(p.memory) {
    take(arena);
  }
  void take(Arena& arena) {
    step.take(arena, in);
    ping.take(arena, W, in.size.N);
    pong.take(arena, W, in.size.N);
    product.take(arena, W, plan.widest);
    unkept.take(arena, W, plan.kept_rows);
    layer.take(arena, W, in.backbone_units);
    factors.take(arena, W, in.dropout == nullptr ? 0 : in.backbone_units);
    if (plan.memory.present) {
      memory.take(arena);
      recalled.take(arena, W, in.size.N);
    }
  }

  void backbone(const CfcStage<T>& stage, int64_t index, int64_t t, const LaneGroup (&group)[W]) {
    const bool dropped = in.dropout != nullptr && index > 0;
    for (int r = 0; r < W; ++r) {
      if (dropped) load_rows(in.dropout[index - 1], t, stage.size, group[r], factors.at(r, 0));
      for (int64_t j = 0; j < stage.size; ++j) {
        const vec z = S::load(product.at(r, j));
        S::store(kept.at(r, stage.kept_row + j), z);
        vec value = activate<T>(in.activation, z).value;
        if (dropped) value *= S::load(factors.at(r, j));
        S::store(layer.at(r, j), value);
      }
    }
  }

  void cell(const CfcStage<T>& stage, const T* const* parameters) {
    for (int64_t j = 0; j < stage.size; ++j) {
      for (int r = 0; r < W; ++r) {
        const int64_t neuron = stage.state_row + j;
        const T* const z = product.at(r, j * plan.gates);
        T* const keep = kept.at(r, stage.kept_row + j * plan.kept_gates);
        const vec f1 = S::load(z);
        if (in.mode == CfcMode::pure) {
          const T w_tau = parameters[2][j], A = parameters[3][j];
          const vec decay = decay_of(f1, w_tau, step.time(r, neuron));
          S::store(keep, f1);
          S::store(next.at(r, neuron), A - decay * f1 * A);
          continue;
        }
        const vec t1 = tanh<T>(f1), t2 = tanh<T>(S::load(z + S::lanes));
        vec time = S::load(z + 2 * S::lanes);
        if (plan.gates == 4) {
          S::store(keep + 3 * S::lanes, time);
          time = time * step.time(r, neuron) + S::load(z + 3 * S::lanes);
        }
        const vec gate = sigmoid<T>(time);
        S::store(keep, t1);
        S::store(keep + S::lanes, t2);
        S::store(keep + 2 * S::lanes, gate);
        const vec state =
            in.mode == CfcMode::gated ? t1 * (T(1) - gate) + gate * t2 : t1 + gate * t2;
        S::store(next.at(r, neuron), state);
      }
    }
  }

  // e^(-dt (|w_tau| + |f|))
  static FASTLTC_INLINE vec decay_of(vec f, T w_tau, vec dt) {
    const vec rate = (w_tau < T(0) ? -w_tau : w_tau) - S::abs_negative(f);
    return S::exp2(S::at_least(dt * rate * -kLog2E<T>, -Exp2Constants<T>::bound));
  }

  void run(int64_t first, int valid) {
    constexpr int L = S::lanes;
    const int64_t N = in.size.N, M = in.size.M;
    const TileGroups<T, W> tile(in, first, valid);
    const LaneGroup(&group)[W] = tile.group;
    const int64_t history = plan.history(in.size.T, N);
    // Full tiles compute where the states are kept, partial ones copy.
    const bool in_place = out.states != nullptr && group[0].valid == L;
    const auto rows_at = [&](int64_t at, Rows<T> else_there) -> Rows<T> {
      if (!in_place) return else_there;
      return {out.states + history * first + at * L, history * L};
    };
    const auto keep_partial = [&](int64_t at, Rows<T> rows, int64_t count) {
      if (out.states == nullptr || in_place) return;
      keep_rows(out.states + history * first + at * group[0].valid, rows.at(0, 0), count, group[0]);
    };
    h = rows_at(0, ping);
    for (int r = 0; r < W; ++r) {
      if (in.h0.data != nullptr) {
        load_rows(in.h0, 0, N, group[r], h.at(r, 0));
      } else {
        clear_rows(h.at(r, 0), N);
      }
    }
    keep_partial(0, h, N);
    const bool remembers = plan.memory.present;
    const int64_t memory_begin = plan.history(in.size.T, N) - plan.memory.kept(in.size.T);
    if (remembers) memory.start(in, group);
    for (int64_t t = 0; t < tile.steps; ++t) {
      step.load(in, t, group);
      const int64_t kept_at = (in.size.T + 1) * N + t * plan.kept_rows;
      next = rows_at((t + 1) * N, t % 2 == 0 ? pong : ping);
      kept = rows_at(kept_at, unkept);
      if (remembers) {
        const int64_t at = memory_begin + t * kMemoryRows * N;
        const Rows<T> to = rows_at(at, memory.kept);
        memory.step(constant(step.x), constant(h), recalled, to, step.all ? nullptr : step.active);
        keep_partial(at, to, kMemoryRows * N);
      }
      const Rows<const T> own = constant(remembers ? recalled : h);
      Rows<const T> from = constant(step.x);
      for (int64_t s = 0; s < plan.count; ++s) {
        const CfcStage<T>& stage = plan.stages[s];
        dense_rows<T, W>(stage.forward, from, stage.inputs,
                         {own.data + stage.state_row * L, own.stride}, stage.own, product);
        if (stage.backbone) {
          backbone(stage, s, t, group);
          from = constant(layer);
        } else {
          cell(stage, in.parameters + plan.first_parameter(in, s - in.backbone_layers));
          from = constant(next, stage.state_row);
        }
      }
      for (int r = 0; r < W; ++r) {
        if (!step.active[r].all) {
          for (int64_t j = 0; j < N; ++j) {
            const vec value = step.active[r].mask ? S::load(next.at(r, j)) : S::load(h.at(r, j));
            S::store(next.at(r, j), value);
          }
        }
      }
      keep_partial((t + 1) * N, next, N);
      keep_partial(kept_at, kept, plan.kept_rows);
      h = next;
      if (!out.return_sequences) continue;
      for (int r = 0; r < W; ++r) {
        // `product` is free: it takes the output, with zeros for samples that have ended.
        for (int64_t m = 0; m < M; ++m) {
          const vec value = S::load(h.at(r, N - M + m));
          S::store(product.at(r, m), step.active[r].mask ? value : vec{});
        }
        store_rows(out.output, t, M, group[r], product.at(r, 0));
      }
    }
    const SequenceView<T> hn{out.hn, remembers ? 2 * N : N, 0, 1};
    if (remembers) memory.write_last(hn, group);
    for (int r = 0; r < W; ++r) {
      store_rows(hn, 0, N, group[r], h.at(r, 0));
      if (out.return_sequences) {
        zero_steps(out.output, tile.steps, in.size.T, M, group[r]);
      } else {
        store_rows(out.output, 0, M, group[r], h.at(r, N - M));
      }
      // Nobody reads the rest, but outputs of an operator should not be left to chance: neither to
      // memory's nor to that of the tiles, in which a state is held until the longest group ends.
      if (out.states != nullptr) {
        T* const group_states = out.states + history * (first + r * L);
        const int64_t last = tile.last[r], left = in.size.T - last;
        clear(group_states + (last + 1) * N * group[r].valid, left * N * group[r].valid);
        clear(group_states + ((in.size.T + 1) * N + last * plan.kept_rows) * group[r].valid,
              left * plan.kept_rows * group[r].valid);
        clear(group_states + (history - plan.memory.kept(left)) * group[r].valid,
              plan.memory.kept(left) * group[r].valid);
      }
    }
  }
};

// The sums of one thread: those of each stage's weight and bias, then of w_tau and A, then of the
// memory cell.
template <typename T>
struct CfcSums {
  T* stages = nullptr;  // OuterProducts::sums of each stage, one after another
  T* w_tau = nullptr;   // [N] rows of lanes
  T* A = nullptr;       // [N]
  T* memory = nullptr;
  T* begin = nullptr;
  int64_t count = 0;

  void take(Arena& arena, const CfcInputs<T>& in, const CfcPlan<T>& plan, const CfcStage<T>* list) {
    int64_t of_stages = 0;
    for (int64_t s = 0; s < plan.count; ++s) {
      of_stages += OuterProducts<T>::sums_count(list[s].forward.rows, list[s].forward.inputs);
    }
    const int64_t own = in.mode == CfcMode::pure ? in.size.N * Simd<T>::lanes : 0;
    count = of_stages + 2 * own + MemoryBackward<T, 1>::sums_count(plan.memory);
    begin = arena.take<T>(count);
    if (begin == nullptr) return;
    stages = begin;
    w_tau = begin + of_stages;
    A = w_tau + own;
    memory = A + own;
  }
  void clear() {
    for (int64_t k = 0; k < count; ++k) begin[k] = T(0);
  }
};

template <typename T, int W>
struct CfcBackwardTile {
  using S = Simd<T>;
  using vec = typename S::vec;
  using Forward = CfcForwardTile<T, W>;

  const CfcInputs<T>& in;
  const CfcGradients<T>& grad;
  const CfcPlan<T>& plan;
  CfcSums<T> sums;
  CfcStep<T, W> step;
  Rows<const T> h;      // [N] the state before the step
  Rows<const T> after;  // [N] after it
  Rows<const T> kept;   // [kept rows]
  Rows<T> copied[3];    // the same of a partial tile
  Rows<T> grad_h;       // [N] the gradient of the state after the step, then of the one before it
  Rows<T> grad_next;    // [N] parts of the gradient of the state before the step
  Rows<T> carried;      // [N] gradients of samples that do not run at this step
  Rows<T> grad_in;      // [widest] what a stage gives back to its inputs
  Rows<T> grad_out;     // what a stage is given, where it is put by
  Rows<T> grad_dt;      // [1] or [N]
  Rows<T> grad_y;       // [M]
  Rows<T> factors;      // [backbone units]
  OuterProducts<T>* products = nullptr;  // of each stage
  int64_t places = 0;                    // steps times W that are put by
  MemoryBackward<T, W> memory;
  Rows<T> recalled;   // [N] what the memory cell made of h
  Rows<const T> own;  // h or recalled: the state that the cells were given

  CfcBackwardTile(const CfcInputs<T>& inputs, const CfcGradients<T>& gradients, const CfcPlan<T>& p,
                  const CfcSums<T>& s, Arena arena)
      : in(inputs), grad(gradients), plan(p), sums(s), memory(p.memory, s.memory) {
    take(arena);
  }
  void take(Arena& arena) {
    const int64_t N = in.size.N;
    step.take(arena, in);
    copied[0].take(arena, W, N);
    copied[1].take(arena, W, N);
    copied[2].take(arena, W, plan.kept_rows);
    grad_h.take(arena, W, N);
    grad_next.take(arena, W, N);
    carried.take(arena, W, N);
    grad_in.take(arena, W, plan.widest);
    grad_dt.take(arena, W, step.dt_rows);
    grad_y.take(arena, W, padded_rows(in.size.M));
    factors.take(arena, W, in.dropout == nullptr ? 0 : in.backbone_units);
    memory.take(arena, in.size.T);
    recalled.take(arena, W, plan.memory.present ? N : 0);
    products = arena.take<OuterProducts<T>>(plan.count);
    int64_t rows = 0;
    for (int64_t s = 0; s < plan.count; ++s) {
      const PackedWeight<T>& weight = plan.stages[s].forward;
      rows += padded_rows(weight.rows) + padded_rows(weight.inputs);
    }
    places = W * steps_put_by(rows, W, in.size.T);
    T* at = sums.stages;
    for (int64_t s = 0; s < plan.count; ++s) {
      const PackedWeight<T>& weight = plan.stages[s].forward;
      OuterProducts<T> product;
      product.take(arena, weight.rows, weight.inputs, places);
      product.sums = at;
      if (at != nullptr) at += product.sums_count(weight.rows, weight.inputs);
      if (products != nullptr) products[s] = product;
    }
  }

  // The gradient of a stage's product is in `grad_out`: puts it by with the stage's inputs, and
  // leaves the gradient of those in `grad_in`.
  void stage_backward(int64_t s, int64_t place, Rows<const T> from) {
    const CfcStage<T>& stage = plan.stages[s];
    for (int r = 0; r < W; ++r) {
      T* const to = products[s].right_at(place + r);
      copy_rows<T>(from.at(r, 0), stage.inputs, to, stage.inputs);
      copy_rows<T>(own.at(r, stage.state_row), stage.own, to + stage.inputs * S::lanes,
                   products[s].columns - stage.inputs);
    }
    dense_rows<T, W>(stage.backward, constant(grad_out), stage.forward.rows, {}, 0, grad_in);
    for (int r = 0; r < W; ++r) {
      for (int64_t k = 0; k < stage.own; ++k) {
        T* const at = grad_next.at(r, stage.state_row + k);
        S::store(at, S::load(at) + S::load(grad_in.at(r, stage.inputs + k)));
      }
    }
  }

  void cell_backward(const CfcStage<T>& stage, const T* const* parameters) {
    for (int64_t j = 0; j < stage.size; ++j) {
      const int64_t neuron = stage.state_row + j;
      vec sum_w{}, sum_A{};
      for (int r = 0; r < W; ++r) {
        const vec g = S::load(grad_h.at(r, neuron));
        const T* const keep = kept.at(r, stage.kept_row + j * plan.kept_gates);
        T* const z = grad_out.at(r, j * plan.gates);
        const vec f1 = S::load(keep);
        if (in.mode == CfcMode::pure) {
          const T w_tau = parameters[2][j], A = parameters[3][j];
          const vec dt = step.time(r, neuron);
          const vec decay = Forward::decay_of(f1, w_tau, dt);
          const vec size = -S::abs_negative(f1);
          const vec through = g * decay * A;
          S::store(z, through * (dt * size - T(1)));
          const T sign = w_tau > T(0) ? T(1) : w_tau < T(0) ? T(-1) : T(0);
          sum_w += through * f1 * dt * sign;
          sum_A += g * (T(1) - decay * f1);
          if (step.dt_rows > 0) {
            add_grad_dt(r, neuron, through * f1 * (size + (w_tau < T(0) ? -w_tau : w_tau)));
          }
          continue;
        }
        const vec f2 = S::load(keep + S::lanes), gate = S::load(keep + 2 * S::lanes);
        const bool gated = in.mode == CfcMode::gated;
        const vec grad_gate = g * (gated ? f2 - f1 : f2) * gate * (T(1) - gate);
        S::store(z, (gated ? g * (T(1) - gate) : g) * (T(1) - f1 * f1));
        S::store(z + S::lanes, g * gate * (T(1) - f2 * f2));
        if (plan.gates == 3) {
          S::store(z + 2 * S::lanes, grad_gate);
        } else {
          S::store(z + 2 * S::lanes, grad_gate * step.time(r, neuron));
          S::store(z + 3 * S::lanes, grad_gate);
          add_grad_dt(r, neuron, grad_gate * S::load(keep + 3 * S::lanes));
        }
      }
      if (in.mode == CfcMode::pure) {
        add(sums.w_tau, neuron, sum_w);
        add(sums.A, neuron, sum_A);
      }
    }
  }

  FASTLTC_INLINE void add_grad_dt(int r, int64_t neuron, vec value) {
    T* const at = grad_dt.at(r, step.dt_rows > 1 ? neuron : 0);
    S::store(at, S::load(at) + value);
  }
  static FASTLTC_INLINE void add(T* rows, int64_t row, vec value) {
    S::store(rows + row * S::lanes, S::load(rows + row * S::lanes) + value);
  }

  // The activations of a backbone layer again, into `to`, and its slopes times `gradient` into
  // `gradient`, where that is not null.
  void backbone_again(int64_t s, int64_t t, const LaneGroup (&group)[W], Rows<T> to,
                      Rows<T> gradient) {
    const CfcStage<T>& stage = plan.stages[s];
    const bool dropped = in.dropout != nullptr && s > 0;
    for (int r = 0; r < W; ++r) {
      if (dropped) load_rows(in.dropout[s - 1], t, stage.size, group[r], factors.at(r, 0));
      for (int64_t j = 0; j < stage.size; ++j) {
        const Activated<T> y = activate<T>(in.activation, S::load(kept.at(r, stage.kept_row + j)));
        const vec factor = dropped ? S::load(factors.at(r, j)) : S::set(T(1));
        if (to.data != nullptr) S::store(to.at(r, j), y.value * factor);
        if (gradient.data != nullptr) {
          S::store(gradient.at(r, j), S::load(gradient.at(r, j)) * y.slope * factor);
        }
      }
    }
  }

  void add_output_gradient(int64_t t, const LaneGroup (&group)[W]) {
    const int64_t N = in.size.N, M = in.size.M;
    for (int r = 0; r < W; ++r) {
      load_rows(grad.grad_output, t, M, group[r], grad_y.at(r, 0));
      clear_lanes_past(group[r], M, grad_y.at(r, 0));
      if (grad.return_sequences && !step.active[r].all) {
        overwrite_inactive(step.active[r], T(0), M, grad_y.at(r, 0));
      }
      for (int64_t m = 0; m < M; ++m) add(grad_h.at(r, 0), N - M + m, S::load(grad_y.at(r, m)));
    }
  }

  void run(int64_t first, int valid) {
    constexpr int L = S::lanes;
    const int64_t N = in.size.N;
    const TileGroups<T, W> tile(in, first, valid);
    const LaneGroup(&group)[W] = tile.group;
    const int64_t history = plan.history(in.size.T, N);
    const auto kept_of = [&](int64_t at, Rows<T> copy, int64_t count) -> Rows<const T> {
      const T* const states = grad.states + history * first;
      if (group[0].valid == L) return {states + at * L, history * L};
      kept_rows(states + at * group[0].valid, copy.at(0, 0), count, group[0]);
      return constant(copy);
    };
    // Of what is put by, the rows past the last of a stage stay zero.
    for (int64_t s = 0; s < plan.count; ++s) {
      const int64_t rows = plan.stages[s].forward.rows;
      for (int64_t p = 0; p < places; ++p) {
        clear_rows(products[s].left_at(p) + rows * L, products[s].rows - rows);
      }
    }
    for (int r = 0; r < W; ++r) {
      if (grad.grad_hn.data != nullptr) {
        load_rows(grad.grad_hn, 0, N, group[r], grad_h.at(r, 0));
        clear_lanes_past(group[r], N, grad_h.at(r, 0));
      } else {
        clear_rows(grad_h.at(r, 0), N);
      }
      zero_steps(grad.x, tile.steps, in.size.T, in.size.I, group[r]);
      if (grad.timespans.data != nullptr) {
        zero_steps(grad.timespans, tile.steps, in.size.T, step.dt_rows, group[r]);
      }
    }
    const bool has_output = grad.grad_output.data != nullptr;
    if (has_output && !grad.return_sequences) add_output_gradient(0, group);
    const bool remembers = plan.memory.present;
    const int64_t memory_begin = history - plan.memory.kept(in.size.T);
    const auto load_memory = [&](int64_t t) {
      memory.kept_before =
          kept_of(memory_begin + t * kMemoryRows * N, memory.spare(), kMemoryRows * N);
    };
    if (remembers) {
      memory.start(grad.grad_hn, group);
      if (tile.steps > 0) load_memory(tile.steps - 1);
    }

    int64_t place = 0;
    for (int64_t t = tile.steps - 1; t >= 0; --t) {
      step.load(in, t, group);
      h = kept_of(t * N, copied[0], N);
      after = kept_of((t + 1) * N, copied[1], N);
      kept = kept_of((in.size.T + 1) * N + t * plan.kept_rows, copied[2], plan.kept_rows);
      for (int r = 0; r < W; ++r) {
        if (!step.active[r].all) {
          for (int64_t j = 0; j < N; ++j) {
            const vec value = S::load(grad_h.at(r, j));
            S::store(carried.at(r, j), value);
            S::store(grad_h.at(r, j), step.active[r].mask ? value : vec{});
          }
        }
        clear_rows(grad_next.at(r, 0), N);
        clear_rows(grad_dt.at(r, 0), step.dt_rows);
      }
      if (has_output && grad.return_sequences) add_output_gradient(t, group);
      own = h;
      if (remembers) {
        memory.next_step();
        memory.output(recalled);
        own = constant(recalled);
      }

      for (int64_t s = plan.count - 1; s >= 0; --s) {
        const CfcStage<T>& stage = plan.stages[s];
        grad_out = {products[s].left_at(place), products[s].rows * L};
        if (stage.backbone) {
          // The stage after it left the gradient of the activations in grad_in.
          for (int r = 0; r < W; ++r)
            copy_rows<T>(grad_in.at(r, 0), stage.size, grad_out.at(r, 0), stage.size);
          backbone_again(s, t, group, {}, grad_out);
        } else {
          cell_backward(stage, in.parameters + plan.first_parameter(in, s - in.backbone_layers));
        }
        Rows<const T> from = constant(step.x);
        if (s > 0 && plan.stages[s - 1].backbone) {
          // Into grad_in, which stage_backward writes after it has read its inputs.
          backbone_again(s - 1, t, group, grad_in, {});
          from = constant(grad_in);
        } else if (s > 0) {
          from = {after.data + plan.stages[s - 1].state_row * L, after.stride};
        }
        stage_backward(s, place, from);
        if (s > 0 && !plan.stages[s - 1].backbone) {
          for (int r = 0; r < W; ++r) {
            for (int64_t k = 0; k < stage.inputs; ++k) {
              add(grad_h.at(r, 0), plan.stages[s - 1].state_row + k, S::load(grad_in.at(r, k)));
            }
          }
        }
      }
      if (remembers) {
        if (t > 0) {
          load_memory(t - 1);
        } else {
          memory.load_first(in, group);
        }
        memory.step(constant(grad_next), constant(step.x), h, step.all ? nullptr : step.active,
                    t == 0);
        for (int r = 0; r < W; ++r) {
          for (int64_t i = 0; i < in.size.I; ++i) {
            add(grad_in.at(r, 0), i, S::load(memory.grad_in.at(r, i)));
          }
          copy_rows<T>(memory.grad_in.at(r, in.size.I), N, grad_next.at(r, 0), N);
        }
      }
      for (int r = 0; r < W; ++r) {
        store_rows(grad.x, t, in.size.I, group[r], grad_in.at(r, 0));
        if (grad.timespans.data != nullptr) {
          store_rows(grad.timespans, t, step.dt_rows, group[r], grad_dt.at(r, 0));
        }
        for (int64_t j = 0; j < N; ++j) {
          vec before = S::load(grad_next.at(r, j));
          if (!step.active[r].all)
            before = step.active[r].mask ? before : S::load(carried.at(r, j));
          S::store(grad_h.at(r, j), before);
        }
      }
      place += W;
      if (place == places || t == 0) {
        for (int64_t s = 0; s < plan.count; ++s) products[s].add(place);
        place = 0;
      }
    }
    if (grad.h0 != nullptr) {
      const SequenceView<T> grad_h0{grad.h0, remembers ? 2 * N : N, 0, 1};
      for (int r = 0; r < W; ++r) store_rows(grad_h0, 0, N, group[r], grad_h.at(r, 0));
      if (remembers) memory.write_first(grad_h0, group);
    }
  }
};

// Writes the parameters' gradients from the threads' sums, added in the order of the threads.
template <typename T>
void write_cfc_gradients(const CfcInputs<T>& in, const CfcGradients<T>& grad,
                         const CfcPlan<T>& plan, const CfcSums<T>* sums, int64_t parts) {
  // The first part takes up the others.
  for (int64_t part = 1; part < parts; ++part) {
    for (int64_t k = 0; k < sums[0].count; ++k) sums[0].begin[k] += sums[part].begin[k];
  }
  OuterProducts<T> product;
  product.sums = parts == 0 ? nullptr : sums[0].stages;
  for (int64_t s = 0; s < plan.count; ++s) {
    const CfcStage<T>& stage = plan.stages[s];
    const int64_t columns = stage.forward.inputs;
    product.rows = padded_rows(stage.forward.rows);
    product.columns = padded_rows(columns);
    const auto weight_sum = [&](int64_t row, int64_t k) {
      return parts == 0 ? T(0) : product.weight_sum(row, k);
    };
    const auto bias_sum = [&](int64_t row) { return parts == 0 ? T(0) : product.bias_sum(row); };
    if (stage.backbone) {
      for (int64_t row = 0; row < stage.size; ++row) {
        for (int64_t k = 0; k < columns; ++k) {
          grad.parameters[2 * s][row * columns + k] = weight_sum(row, k);
        }
        grad.parameters[2 * s + 1][row] = bias_sum(row);
      }
    } else {
      const int64_t cell = s - in.backbone_layers;
      const int64_t first = plan.first_parameter(in, cell);
      const T* const mask = in.masks == nullptr ? nullptr : in.masks[cell];
      const int64_t heads = in.mode == CfcMode::pure ? 1 : 4;
      for (int64_t head = 0; head < heads; ++head) {
        // Without time steps both time heads have the gradient of their sum.
        const int64_t gate = head < plan.gates ? head : plan.gates - 1;
        for (int64_t j = 0; j < stage.size; ++j) {
          for (int64_t k = 0; k < columns; ++k) {
            const bool present = head > 1 || mask == nullptr || mask[j * columns + k] != T(0);
            grad.parameters[first + 2 * head][j * columns + k] =
                present ? weight_sum(j * plan.gates + gate, k) : T(0);
          }
          grad.parameters[first + 2 * head + 1][j] = bias_sum(j * plan.gates + gate);
        }
      }
      if (in.mode == CfcMode::pure) {
        for (int64_t j = 0; j < stage.size; ++j) {
          const int64_t at = (stage.state_row + j) * Simd<T>::lanes;
          grad.parameters[first + 2][j] =
              parts == 0 ? T(0) : Simd<T>::sum(Simd<T>::load(sums[0].w_tau + at));
          grad.parameters[first + 3][j] =
              parts == 0 ? T(0) : Simd<T>::sum(Simd<T>::load(sums[0].A + at));
        }
      }
    }
    if (parts > 0) product.sums += product.sums_count(stage.forward.rows, columns);
  }
  write_memory_gradients(plan.memory, parts == 0 ? nullptr : sums[0].memory, grad.memory);
}

}  // namespace fastltc::cpu::FASTLTC_ISA
