// What a cell sees of the frame: a step's inputs in a tile, what is kept of a sample, the sums that
// are every layer's. Who adds a cell reads this; tests/cpu/test_frame.cpp has the shortest.
#pragma once

#include "core/sequence.h"
#include "cpu/cells/memory.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/gradient_sums.h"
#include "cpu/frame/initial_state.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// How time steps come in: not at all, as data, or as data whose gradient is wanted.
enum class Timespans { unit, given, differentiated };

// Where the values stand that a sample keeps for the backward pass (core/*_problem.h): the first
// state and those that each step adds; then what each step keeps of the cell, then of the memory
// cell. It depends on the sample's group alone, not on the tile or the part: the pass that reads it
// may have others, which follow the number of threads.
struct History {
  int64_t steps = 0;
  int64_t neurons = 0;
  int64_t states = 0;   // that a step adds
  int64_t unfolds = 0;  // how many of those are of unfolds: the last ones of the step
  int64_t cell_rows = 0;
  int64_t memory_rows = 0;

  int64_t state(int64_t t) const { return t * states * neurons; }  // the one before the step
  int64_t cell(int64_t t) const { return state(steps) + neurons + t * cell_rows; }
  int64_t memory(int64_t t) const { return cell(steps) + t * memory_rows; }
  int64_t size() const { return memory(steps); }
};

template <typename T>
FASTLTC_INLINE typename Simd<T>::vec bounded_input(typename Simd<T>::vec u) {
  return Simd<T>::at_least(Simd<T>::at_most(u, kLargestInput<T>), -kLargestInput<T>);
}

// A layer's parameters, packed once per call, begin with what the frame asks of them.
template <typename T, Lanes kind = Lanes::samples>
struct PackedLayer {
  using vec = typename Simd<T>::vec;
  using P = Parameter<T, kind>;
  static constexpr Lanes lanes = kind;

  int networks = 1;        // of network lanes, up to a register
  PackedMemory<T> memory;  // absent with them
  History history;
  int32_t* motor = nullptr;    // [M] the neuron of each output
  const T* input_w = nullptr;  // [I], then [I], [M], [M]; null: absent
  const T* input_b = nullptr;
  const T* output_w = nullptr;
  const T* output_b = nullptr;

  bool maps_inputs() const { return input_w != nullptr || input_b != nullptr; }
  bool maps_outputs() const { return output_w != nullptr || output_b != nullptr; }
  FASTLTC_INLINE vec map_input(vec value, int64_t i) const {
    if (input_w != nullptr) value *= P::at(input_w, i);
    return bounded_input<T>(input_b != nullptr ? value + P::at(input_b, i) : value);
  }
  FASTLTC_INLINE vec map_output(vec value, int64_t m) const {
    if (output_w != nullptr) value *= P::at(output_w, m);
    return output_b != nullptr ? value + P::at(output_b, m) : value;
  }
};

// A part's sums that are every layer's; they stand behind those of a cell.
template <typename T>
struct SequenceSums {
  T* input_w = nullptr;   // [I] rows of lanes
  T* input_b = nullptr;   // [I]
  T* output_w = nullptr;  // [M]
  T* output_b = nullptr;  // [M]
  T* memory = nullptr;    // the memory cell's outer products

  template <Lanes lanes>
  void take(Arena& arena, const SequenceInputs<T>& in, const PackedLayer<T, lanes>& layer) {
    constexpr int64_t L = Simd<T>::lanes;
    const int64_t inputs = layer.maps_inputs() ? in.size.I * L : 0;
    const int64_t outputs = layer.maps_outputs() ? in.size.M * L : 0;
    input_w = arena.take<T>(inputs);
    input_b = arena.take<T>(inputs);
    output_w = arena.take<T>(outputs);
    output_b = arena.take<T>(outputs);
    memory = arena.take<T>(layer.memory.sums_count());
  }
};

// A step's inputs and time steps, and which samples of the tile still run.
template <typename T, int W>
struct StepInputs {
  using S = Simd<T>;
  using vec = typename S::vec;
  using ivec = typename S::ivec;

  Rows<T> x;   // [I] as given
  Rows<T> u;   // [I] mapped
  Rows<T> dt;  // [1] or [N]
  int64_t dt_rows = 0;
  Timespans timespans = Timespans::unit;
  int64_t t = 0;
  TileGroups<T, W> tile;
  ActiveLanes<T> active[W] = {};
  bool all_active = true;
  ResetLanes<T, W> resets;
  ivec reset[W] = {};  // lanes of samples whose state is set to the initial one: all bits or none
  bool any_reset = false;

  template <Lanes lanes>
  void take(Arena& arena, const SequenceInputs<T>& in, const PackedLayer<T, lanes>& layer) {
    x.take(arena, W, in.size.I);
    u = x;
    if (layer.maps_inputs()) u.take(arena, W, in.size.I);
    dt_rows = in.timespans.data == nullptr ? 0 : in.timespans_per_neuron ? in.size.N : 1;
    dt.take(arena, W, dt_rows);
    if (dt_rows > 0) timespans = Timespans::given;
    resets.take(arena, in);
  }
  // Of a tile.
  void start(const SequenceInputs<T>& in, const TileGroups<T, W>& groups) {
    tile = groups;
    resets.start(in, tile.group);
  }

  template <Lanes lanes>
  void load(const SequenceInputs<T>& in, const PackedLayer<T, lanes>& layer, int64_t at) {
    t = at;
    all_active = true;
    for (int r = 0; r < W; ++r) {
      active[r] = ActiveLanes<T>(in, tile.group[r], t);
      all_active = all_active && active[r].all;
      load_rows(in.x, t, in.size.I, tile.group[r], x.at(r, 0));
      if (dt_rows > 0) load_timespans(in.timespans, t, dt_rows, tile.group[r], dt.at(r, 0));
      if (!active[r].all) {
        overwrite_inactive(active[r], T(0), in.size.I, x.at(r, 0));
        overwrite_inactive(active[r], T(1), dt_rows, dt.at(r, 0));
      }
      if (!layer.maps_inputs()) continue;
      for (int64_t i = 0; i < in.size.I; ++i) {
        S::store(u.at(r, i), layer.map_input(S::load(x.at(r, i)), i));
      }
    }
    if (in.resets.data != nullptr) any_reset = resets.at(t, active, reset);
  }

  // Null where all samples run.
  const ActiveLanes<T>* some_active() const { return all_active ? nullptr : active; }

  // The time step of a neuron.
  FASTLTC_INLINE vec time(int r, int64_t neuron) const {
    return dt_rows == 0 ? S::set(T(1)) : S::load(dt.at(r, dt_rows > 1 ? neuron : 0));
  }
  // value * dt, without the multiplication where dt is 1.
  template <Timespans kind>
  FASTLTC_INLINE vec times_step(vec value, int r, int64_t neuron) const {
    if constexpr (kind == Timespans::unit) {
      return value;
    } else {
      return value * S::load(dt.at(r, dt_rows > 1 ? neuron : 0));
    }
  }
};

// A step of the backward pass.
template <typename T, int W>
struct BackwardStep : StepInputs<T, W> {
  using S = Simd<T>;

  Rows<const T> before;  // [N] the state that the cell was given
  Rows<const T> after;   // [history.unfolds][N] those after the unfolds, as far as they are kept
  Rows<const T> kept;    // what the step kept of the cell
  Rows<T> grad_dt;       // [1] or [N]

  FASTLTC_INLINE void add_grad_dt(int r, int64_t neuron, typename S::vec value) const {
    add_to_row(grad_dt.at(r, 0), this->dt_rows > 1 ? neuron : 0, value);
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
