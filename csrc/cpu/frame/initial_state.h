// The initial state of a tile's samples where resets bring it back, forward and backward.
#pragma once

#include "core/sequence.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Of the liquid cell, or of the memory cell, whose part of a state stands behind it: `count`
// channels of h0 from `begin` on. Takes no memory where there are no resets.
//
// What is kept of a step is the state after it, whether or not a reset follows: the backward pass
// puts the same state together again.
template <typename T, int W>
struct InitialState {
  using S = Simd<T>;
  using vec = typename S::vec;
  using ivec = typename S::ivec;

  int64_t begin = 0;
  int64_t count = 0;
  Rows<T> initial{};
  Rows<T> begun{};  // with which a step begins
  Rows<T> grad{};   // what went through resets so far

  void take(Arena& arena, const SequenceInputs<T>& in, int64_t first, int64_t channels,
            bool with_gradient) {
    if (in.resets.data == nullptr) return;
    begin = first;
    count = channels;
    initial.take(arena, W, count);
    begun.take(arena, W, count);
    if (with_gradient) grad.take(arena, W, count);
  }
  void start(const SequenceInputs<T>& in, const LaneGroup (&group)[W]) const {
    if (count == 0) return;
    load_state(in.h0, begin, count, group, initial);
    for (int r = 0; grad.data != nullptr && r < W; ++r) clear_rows(grad.at(r, 0), count);
  }
  // The state with which a step begins, from the one before it, of which every `distance`-th row is
  // read.
  Rows<const T> begin_step(const ivec (&reset)[W], Rows<const T> state,
                           int64_t distance = 1) const {
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < count; ++j) {
        const vec before = S::load(state.at(r, j * distance));
        S::store(begun.at(r, j), reset[r] ? S::load(initial.at(r, j)) : before);
      }
    }
    return constant(begun);
  }
  void begin_step(const ivec (&reset)[W], Rows<T> state) const {
    begin_step(reset, constant(state));
    copy_tile<T, W>(constant(begun), count, state);
  }
  // From the gradient of the state with which a step began to that of the one before it.
  void begin_step_backward(const ivec (&reset)[W], Rows<T> gradient) const {
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < count; ++j) {
        const vec value = S::load(gradient.at(r, j));
        add_to_row(grad.at(r, 0), j, reset[r] ? value : vec{});
        S::store(gradient.at(r, j), reset[r] ? vec{} : value);
      }
    }
  }
  void add_gradient(Rows<T> gradient) const {
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < count; ++j) {
        add_to_row(gradient.at(r, 0), j, S::load(grad.at(r, j)));
      }
    }
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
