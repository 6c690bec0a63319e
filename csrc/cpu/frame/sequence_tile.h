// Sequences of a layer, forward and backward, whatever its cell.
//
// Layout: a tile is W registers of samples, one sample per lane. Everything of a tile is rows of
// lanes, [W][rows][lanes], the distance between the W parts given as a stride. The states that the
// forward pass leaves for the backward one have that layout already (core/*_problem.h), so full
// tiles compute in them in place; partial ones copy.
//
// Plan: a tile's whole sequence runs on one thread; threads take tiles. A step loads the inputs,
// runs the memory cell if there is one, then the cell, and holds the samples that have ended. With
// network lanes (frame/networks.h) a tile is a sample of up to a register of networks. What a cell
// is:
//   template <typename T, int W> struct Forward {
//     Forward(const Inputs&, const Layer&);  // Layer derives from PackedLayer, and says how many
//     void take(Arena&);                     // evaluations(in) a step of a sample takes, in sigmoids
//     void begin(const StepInputs<T, W>&);   // what a step's unfolds share
//     void unfold(const StepInputs<T, W>&, Rows<const T> from, Rows<T> to, Rows<T> kept);
//   };
//   template <typename T, int W> struct Backward {
//     using Sums;                            // Sums derives from SequenceSums
//     Backward(const Inputs&, const Layer&, const Sums&);
//     void take(Arena&);
//     void start();                          // of a tile
//     void step(const BackwardStep<T, W>&);  // from grad_after [N], the gradient of the state after
//     Rows<T> grad_after, grad_before, grad_u;  // the step, to grad_before [N] and grad_u [I]
//   };
#pragma once

#include "core/sequence.h"
#include "cpu/cells/memory.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/gradient_sums.h"
#include "cpu/frame/initial_state.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"
#include "cpu/frame/step.h"

namespace fastltc::cpu::FASTLTC_ISA {

template <typename Cell, typename Inputs, typename Layer, typename T, int W>
struct SequenceForward {
  using S = Simd<T>;
  using vec = typename S::vec;

  const Inputs& in;
  const SequenceOutputs<T>& out;
  const Layer& layer;
  StepInputs<T, W> step;
  MemoryForward<T, W> memory;
  Cell cell;
  InitialState<T, W> initial;
  Rows<T> ping;      // [N] states, unless in those that are kept
  Rows<T> pong;      // [N]
  Rows<T> between;   // [2][N] states between unfolds, unless they are kept
  Rows<T> recalled;  // [N] what the memory cell makes of a state, unless that is kept
  Rows<T> hold;      // [N] the state at the start of a step where samples end
  Rows<T> unkept;    // what a step keeps of the cell, unless it is kept
  Rows<T> y;         // [M]

  SequenceForward(const Inputs& inputs, const SequenceOutputs<T>& outputs, const Layer& p,
                  Arena& arena)
      : in(inputs), out(outputs), layer(p), memory(p.memory), cell(inputs, p) {
    const int64_t N = in.size.N;
    step.take(arena, in, layer);
    if (layer.memory.present) memory.take(arena, in);
    cell.take(arena);
    initial.take(arena, in, 0, N, false);
    ping.take(arena, W, N);
    pong.take(arena, W, N);
    between.take(arena, W, layer.history.unfolds < in.size.U ? 2 * N : 0);
    recalled.take(arena, W, layer.memory.present ? N : 0);
    hold.take(arena, W, N);
    unkept.take(arena, W, layer.history.cell_rows);
    y.take(arena, W, in.size.M);
  }

  // Samples [first, first + valid); fewer than W * lanes only where W is 1.
  void run(int64_t first, int valid) {
    constexpr int L = S::lanes;
    const int64_t N = in.size.N, U = in.size.U;
    const History& history = layer.history;
    step.start(in, TileGroups<T, W>(in, first, valid, Layer::lanes));
    const TileGroups<T, W>& tile = step.tile;
    const LaneGroup(&group)[W] = tile.group;
    T* const kept =
        out.states == nullptr ? nullptr : out.states + history.size() * group[0].kept_from();
    const bool in_place = kept != nullptr && group[0].valid == L;
    const auto rows_at = [&](int64_t at, Rows<T> otherwise) -> Rows<T> {
      return in_place ? Rows<T>{kept + at * L, history.size() * L} : otherwise;
    };
    const auto keep_partial = [&](int64_t at, Rows<T> rows, int64_t count) {
      if (kept == nullptr || in_place) return;
      keep_rows(kept + at * group[0].valid, rows.at(0, 0), count, group[0]);
    };
    int64_t state = 0;  // the one that v holds
    const auto state_rows = [&] { return rows_at(state * N, state % 2 == 0 ? ping : pong); };

    Rows<T> v = state_rows();
    load_state(in.h0, 0, N, group, v);
    keep_partial(0, v, N);
    const bool remembers = layer.memory.present;
    initial.start(in, group);
    if (remembers) memory.start(in, group);
    for (int64_t t = 0; t < tile.steps; ++t) {
      step.load(in, layer, t);
      const ActiveLanes<T>* const some = step.some_active();
      if (some != nullptr) copy_tile<T, W>(constant(v), N, hold);
      Rows<const T> from = constant(v);
      if (step.any_reset) {
        from = initial.begin_step(step.reset, from);
        if (remembers) memory.initial.set(step.reset, memory.c);
      }
      if (remembers) {
        const bool recalled_is_kept = history.states > history.unfolds;
        if (recalled_is_kept) ++state;
        const Rows<T> next = recalled_is_kept ? state_rows() : recalled;
        const Rows<T> keep = rows_at(history.memory(t), memory.kept);
        memory.step(constant(step.x), from, next, keep, some);
        if (recalled_is_kept) keep_partial(state * N, next, N);
        keep_partial(history.memory(t), keep, history.memory_rows);
        from = constant(next);
      }
      const Rows<T> keep = rows_at(history.cell(t), unkept);
      cell.begin(step);
      for (int64_t u = 0; u < U; ++u) {
        const bool is_kept = u >= U - history.unfolds;
        if (is_kept) ++state;
        const Rows<T> next = is_kept ? state_rows() : between.from(u % 2 * N);
        cell.unfold(step, from, next, keep);
        if (u == U - 1 && some != nullptr) restore_inactive(some, next);
        if (is_kept) keep_partial(state * N, next, N);
        v = next;
        from = constant(v);
      }
      keep_partial(history.cell(t), keep, history.cell_rows);
      if (out.return_sequences) write_output(v, t, group, some);
    }

    const SequenceView<T> hn{out.hn, in.beside * (remembers ? 2 * N : N), 0, 1};
    if (remembers) memory.write_last(hn, group);
    store_state(hn, 0, N, group, v);
    if (!out.return_sequences) write_output(v, 0, group, nullptr);
    for (int r = 0; r < W; ++r) {
      if (out.return_sequences) zero_steps(out.output, tile.steps, in.size.T, in.size.M, group[r]);
      if (kept != nullptr) clear_after(tile.last[r], group[r]);
    }
  }

 private:
  // Nobody reads what stands behind a group's last step, but outputs of an operator should not be
  // left to chance: neither to memory's nor to that of the tiles, in which a state is held until
  // the longest group ends.
  void clear_after(int64_t last, LaneGroup group) const {
    const History& history = layer.history;
    T* const own = out.states + history.size() * group.kept_from();
    const int64_t N = in.size.N, T_ = in.size.T;
    const int64_t ranges[][2] = {{history.state(last) + N, history.state(T_) + N},
                                 {history.cell(last), history.cell(T_)},
                                 {history.memory(last), history.memory(T_)}};
    for (const auto& range : ranges) {
      clear(own + range[0] * group.valid, (range[1] - range[0]) * group.valid);
    }
  }

  void write_output(Rows<T> v, int64_t t, const LaneGroup (&group)[W],
                    const ActiveLanes<T>* active) {
    const int32_t* const motor = layer.motor;
    for (int r = 0; r < W; ++r) {
      for (int64_t m = 0; m < in.size.M; ++m) {
        vec value = layer.map_output(S::load(v.at(r, motor[m])), m);
        if (active != nullptr) value = active[r].mask ? value : vec{};
        S::store(y.at(r, m), value);
      }
      store_rows(out.output, t, in.size.M, group[r], y.at(r, 0));
    }
  }

  void restore_inactive(const ActiveLanes<T>* active, Rows<T> v) const {
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < in.size.N; ++j) {
        S::store(v.at(r, j), active[r].mask ? S::load(v.at(r, j)) : S::load(hold.at(r, j)));
      }
    }
  }
};

template <typename Cell, typename Inputs, typename Layer, typename T, int W>
struct SequenceBackward {
  using S = Simd<T>;
  using vec = typename S::vec;
  using Sums = typename Cell::Sums;

  const Inputs& in;
  const SequenceGradients<T>& grad;
  const Layer& layer;
  const Sums sums;
  BackwardStep<T, W> step;
  MemoryBackward<T, W> memory;
  Cell cell;
  InitialState<T, W> initial;
  Rows<T> carried;   // [N] the gradients of samples that do not run at this step
  Rows<T> grad_y;    // [M]
  Rows<T> states;    // [states of a step + 1][N], of a partial tile
  Rows<T> kept;      // what a step kept of the cell, of a partial tile
  Rows<T> recalled;  // [N] what the memory cell made of a state, unless that is kept

  SequenceBackward(const Inputs& inputs, const SequenceGradients<T>& gradients, const Layer& p,
                   const Sums& s, Arena& arena)
      : in(inputs), grad(gradients), layer(p), sums(s), memory(p.memory), cell(inputs, p, s) {
    const int64_t N = in.size.N;
    step.take(arena, in, layer);
    if (grad.timespans.data != nullptr) step.timespans = Timespans::differentiated;
    step.grad_dt.take(arena, W, step.dt_rows);
    memory.take(arena, in, sums.memory);
    cell.take(arena);
    initial.take(arena, in, 0, N, true);
    carried.take(arena, W, N);
    grad_y.take(arena, W, in.size.M);
    states.take(arena, W, (layer.history.states + 1) * N);
    kept.take(arena, W, layer.history.cell_rows);
    recalled.take(arena, W, layer.memory.present ? N : 0);
  }

  // As in the forward pass.
  void run(int64_t first, int valid) {
    constexpr int L = S::lanes;
    const int64_t N = in.size.N;
    const History& history = layer.history;
    step.start(in, TileGroups<T, W>(in, first, valid, Layer::lanes));
    const TileGroups<T, W>& tile = step.tile;
    const LaneGroup(&group)[W] = tile.group;
    const T* const all_kept = grad.states + history.size() * group[0].kept_from();
    const auto rows_at = [&](int64_t at, Rows<T> copy, int64_t count) -> Rows<const T> {
      if (group[0].valid == L) return {all_kept + at * L, history.size() * L};
      kept_rows(all_kept + at * group[0].valid, copy.at(0, 0), count, group[0]);
      return constant(copy);
    };
    const bool remembers = layer.memory.present;
    const bool recalled_is_kept = history.states > history.unfolds;

    cell.start();
    initial.start(in, group);
    load_state_gradient(grad.grad_hn, 0, N, group, cell.grad_after);
    for (int r = 0; r < W; ++r) {
      zero_steps(grad.x, tile.steps, in.size.T, in.size.I, group[r]);
      if (grad.timespans.data != nullptr) {
        zero_steps(grad.timespans, tile.steps, in.size.T, step.dt_rows, group[r]);
      }
    }
    const bool has_output = grad.grad_output.data != nullptr;
    if (has_output && !grad.return_sequences) {
      // `carried` is free until the first step: it takes each group's own last state.
      for (int r = 0; layer.output_w != nullptr && r < W; ++r) {
        const T* const own = grad.states + history.size() * group[r].kept_from();
        kept_rows(own + history.state(tile.last[r]) * group[r].valid, carried.at(r, 0), N,
                  group[r]);
      }
      output_backward(0, group, nullptr, constant(carried));
    }
    if (remembers) memory.start(in, grad.grad_hn, group);

    for (int64_t t = tile.steps - 1; t >= 0; --t) {
      step.load(in, layer, t);
      const ActiveLanes<T>* const some = step.some_active();
      if (some != nullptr) set_inactive_aside(some);
      const Rows<const T> all = rows_at(history.state(t), states, (history.states + 1) * N);
      const Rows<const T> before = step.any_reset ? initial.begin_step(step.reset, all) : all;
      step.kept = rows_at(history.cell(t), kept, history.cell_rows);
      step.before = recalled_is_kept ? all.from(N) : before;
      step.after = all.from((history.states - history.unfolds + 1) * N);
      if (has_output && grad.return_sequences) {
        output_backward(t, group, some, step.after.from((history.unfolds - 1) * N));
      }
      Rows<const T> remembered;
      if (remembers) remembered = rows_at(history.memory(t), memory.kept, history.memory_rows);
      if (remembers && !recalled_is_kept) {
        memory.output(remembered, recalled);
        step.before = constant(recalled);
      }
      for (int r = 0; r < W; ++r) clear_rows(step.grad_dt.at(r, 0), step.dt_rows);
      cell.step(step);
      if (remembers) {
        auto memory_before =
            t > 0 ? memory.memory_after(
                        rows_at(history.memory(t - 1), memory.kept_before, history.memory_rows))
                  : memory.initial_memory(in, group);
        if (step.any_reset) memory_before = memory.with_resets(step.reset, memory_before);
        memory.step(remembered, memory_before, constant(cell.grad_before), constant(step.x), before,
                    some, t == 0);
      }
      input_backward(t, group);
      if (grad.timespans.data != nullptr) {
        for (int r = 0; r < W; ++r) write_timespans_gradient(t, group[r], step.grad_dt.at(r, 0));
      }
      const Rows<const T> grad_before =
          remembers ? constant(memory.grad_in, in.size.I) : constant(cell.grad_before);
      for (int r = 0; r < W; ++r) {
        for (int64_t j = 0; j < N; ++j) {
          vec value = S::load(grad_before.at(r, j));
          if (some != nullptr) value = some[r].mask ? value : S::load(carried.at(r, j));
          S::store(cell.grad_after.at(r, j), value);
        }
      }
      if (step.any_reset) {
        initial.begin_step_backward(step.reset, cell.grad_after);
        if (remembers) memory.initial.begin_step_backward(step.reset, memory.grad_c);
      }
    }
    if (grad.h0 == nullptr) return;
    initial.add_gradient(cell.grad_after);
    const SequenceView<T> grad_h0{grad.h0, in.beside * (remembers ? 2 * N : N), 0, 1};
    store_state(grad_h0, 0, N, group, cell.grad_after);
    if (remembers) memory.write_first(grad_h0, group);
  }

 private:
  void set_inactive_aside(const ActiveLanes<T>* active) {
    copy_tile<T, W>(constant(cell.grad_after), in.size.N, carried);
    for (int r = 0; r < W; ++r) {
      overwrite_inactive(active[r], T(0), in.size.N, cell.grad_after.at(r, 0));
    }
  }

  // Adds the gradient of the outputs of one step to that of the state `after` it, which is read
  // where the outputs are scaled.
  void output_backward(int64_t t, const LaneGroup (&group)[W], const ActiveLanes<T>* active,
                       Rows<const T> after) {
    for (int r = 0; r < W; ++r) {
      load_rows(grad.grad_output, t, in.size.M, group[r], grad_y.at(r, 0));
      clear_lanes_past(group[r], in.size.M, grad_y.at(r, 0));
      if (active != nullptr) overwrite_inactive(active[r], T(0), in.size.M, grad_y.at(r, 0));
    }
    for (int64_t m = 0; m < in.size.M; ++m) {
      const int64_t neuron = layer.motor[m];
      vec w{}, b{};
      for (int r = 0; r < W; ++r) {
        vec gy = S::load(grad_y.at(r, m));
        b += gy;
        if (layer.output_w != nullptr) {
          w += gy * S::load(after.at(r, neuron));
          gy *= Layer::P::at(layer.output_w, m);
        }
        add_to_row(cell.grad_after.at(r, 0), neuron, gy);
      }
      if (!layer.maps_outputs()) continue;
      add_to_row(sums.output_w, m, w);
      add_to_row(sums.output_b, m, b);
    }
  }

  // Of a time step that networks share it is the sum over them.
  void write_timespans_gradient(int64_t t, LaneGroup group, T* rows) {
    if (group.kind == Lanes::networks && step.dt_rows == 1) {
      clear_lanes_past(group, 1, rows);
      T& to =
          grad.timespans.data[group.first * grad.timespans.stride_b + t * grad.timespans.stride_t];
      to = S::sum(S::load(rows));
    } else {
      store_rows(grad.timespans, t, step.dt_rows, group, rows);
    }
  }

  // From the gradient of the mapped inputs to that of the inputs.
  void input_backward(int64_t t, const LaneGroup (&group)[W]) {
    const int64_t I = in.size.I;
    for (int64_t i = 0; layer.maps_inputs() && i < I; ++i) {
      vec w{}, b{};
      for (int r = 0; r < W; ++r) {
        const vec gu = S::load(cell.grad_u.at(r, i));
        w += gu * S::load(step.x.at(r, i));
        b += gu;
        if (layer.input_w != nullptr) {
          S::store(cell.grad_u.at(r, i), gu * Layer::P::at(layer.input_w, i));
        }
      }
      add_to_row(sums.input_w, i, w);
      add_to_row(sums.input_b, i, b);
    }
    for (int r = 0; r < W; ++r) {
      for (int64_t i = 0; layer.memory.present && i < I; ++i) {
        add_to_row(cell.grad_u.at(r, 0), i, S::load(memory.grad_in.at(r, i)));
      }
      store_rows(grad.x, t, I, group[r], cell.grad_u.at(r, 0));
    }
  }
};

// Bytes that any tile of a part takes, and run_tiles, for either kind of lanes.
template <typename Layer, typename T, typename Take>
size_t bytes_of_tiles(const Partition<T>& partition, const Take& take) {
  if constexpr (Layer::lanes == Lanes::networks) {
    return bytes_of([&](Arena& arena) { take(Constant<1>(), arena); });
  } else {
    return most_bytes(partition.width(), take);
  }
}
template <typename Layer, typename T, typename Run>
void run_tiles_of(const Layer& layer, const Partition<T>& partition, int64_t part, int64_t batch,
                  const Run& run) {
  if constexpr (Layer::lanes == Lanes::networks) {
    for (int64_t b = partition.begin(part); b < partition.begin(part + 1); ++b) {
      run(Constant<1>(), b, layer.networks);
    }
  } else {
    run_tiles(partition, part, batch, run);
  }
}

template <template <typename, int> class Cell, typename T, typename Inputs, typename Layer>
void run_forward(const Inputs& in, const SequenceOutputs<T>& out, const Layer& layer,
                 const Parallel& parallel) {
  const Partition<T> partition(in.size.B, in.size.T * layer.evaluations(in), parallel.threads,
                               Layer::lanes);
  const auto pass = [&](auto width, Arena& arena) {
    constexpr int W = decltype(width)::value;
    return SequenceForward<Cell<T, W>, Inputs, Layer, T, W>(in, out, layer, arena);
  };
  const size_t bytes = bytes_of_tiles<Layer>(partition, pass);
  const Block block(bytes * partition.parts);
  run_parts(parallel, partition.parts, [&](int64_t part) {
    run_tiles_of(layer, partition, part, in.size.B, [&](auto width, int64_t first, int valid) {
      Arena arena(block.data() + bytes * part);
      pass(width, arena).run(first, valid);
    });
  });
}

// Then calls write(sums), which makes the parameters' gradients of them, and has the first part take
// up the memory cell's.
template <template <typename, int> class Cell, typename T, typename Inputs, typename Layer,
          typename Write>
void run_backward(const Inputs& in, const SequenceGradients<T>& grad, const Layer& layer,
                  const Parallel& parallel, Write write) {
  using Sums = typename Cell<T, 1>::Sums;
  const Partition<T> partition(in.size.B, in.size.T * layer.evaluations(in), parallel.threads,
                               Layer::lanes);
  const GradientSums<T, Sums> sums(in, layer, partition.parts);
  const auto pass = [&](auto width, const Sums& own, Arena& arena) {
    constexpr int W = decltype(width)::value;
    return SequenceBackward<Cell<T, W>, Inputs, Layer, T, W>(in, grad, layer, own, arena);
  };
  const size_t bytes = bytes_of_tiles<Layer>(
      partition, [&](auto width, Arena& arena) { pass(width, Sums(), arena); });
  const Block block(bytes * partition.parts);
  run_parts(parallel, partition.parts, [&](int64_t part) {
    sums.clear(part);
    const Sums own = sums.of(part, in, layer);
    run_tiles_of(layer, partition, part, in.size.B, [&](auto width, int64_t first, int valid) {
      Arena arena(block.data() + bytes * part);
      pass(width, own, arena).run(first, valid);
    });
  });
  write(sums);
  write_memory_gradients(layer.memory, sums.first.memory, grad.memory);
}

}  // namespace fastltc::cpu::FASTLTC_ISA
