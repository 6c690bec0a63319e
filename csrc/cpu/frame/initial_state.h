// What resets set the states of a tile's samples to, their initial ones or zeros, forward and
// backward.
#pragma once

#include "core/sequence.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Before which steps the samples of a tile begin anew: a bit of each lane.
template <typename T, int W>
struct ResetLanes {
  using S = Simd<T>;
  using ivec = typename S::ivec;

  uint16_t* bits = nullptr;  // [W][steps]
  int64_t steps = 0;

  void take(Arena& arena, const SequenceInputs<T>& in) {
    if (in.resets.data == nullptr) return;
    steps = in.size.T;
    bits = arena.take<uint16_t>(W * steps);
  }
  // Steps innermost where they lie side by side: a byte of each lane would be another line.
  void start(const SequenceInputs<T>& in, const LaneGroup (&group)[W]) const {
    for (int r = 0; bits != nullptr && r < W; ++r) {
      uint16_t* const own = bits + r * steps;
      for (int64_t t = 0; t < steps; ++t) own[t] = 0;
      for (int l = 0; l < S::lanes; ++l) {
        const int64_t b = group[r].sample(l < group[r].valid ? l : group[r].valid - 1);
        const bool* const given = in.resets.data + b * in.resets.stride_b;
        if (in.resets.stride_t == 1) {
          for (int64_t t = 0; t < steps; ++t) own[t] |= static_cast<uint16_t>(given[t] << l);
        } else {
          const int64_t stride = in.resets.stride_t;
          for (int64_t t = 0; t < steps; ++t)
            own[t] |= static_cast<uint16_t>(given[t * stride] << l);
        }
      }
      // Before its first step a sample has its initial state in any case.
      if (steps > 0 && !in.reset_to_zero) own[0] = 0;
    }
  }
  // Whether any sample that runs does before step t, and which.
  FASTLTC_INLINE bool at(int64_t t, const ActiveLanes<T> (&active)[W], ivec (&reset)[W]) const {
    static_assert(S::lanes <= 16);
    alignas(kVectorBytes) static constexpr typename S::I bit[16] = {
        1,      1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
        1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
    const ivec lane = *reinterpret_cast<const ivec*>(bit);
    typename S::I any = 0;
    for (int r = 0; r < W; ++r) {
      const typename S::I of_step = bits[r * steps + t];
      any |= of_step;
      reset[r] = ((lane & of_step) != 0) & active[r].mask;
    }
    return any != 0;
  }
};

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
  Rows<T> grad{};   // what went through resets so far, unless they are to zeros

  void take(Arena& arena, const SequenceInputs<T>& in, int64_t first, int64_t channels,
            bool with_gradient) {
    if (in.resets.data == nullptr) return;
    begin = first;
    count = channels;
    initial.take(arena, W, count);
    begun.take(arena, W, count);
    if (with_gradient && !in.reset_to_zero) grad.take(arena, W, count);
  }
  void start(const SequenceInputs<T>& in, const LaneGroup (&group)[W]) const {
    if (count == 0) return;
    load_state(in.reset_state(), begin, count, group, initial);
    for (int r = 0; grad.data != nullptr && r < W; ++r) clear_rows(grad.at(r, 0), count);
  }
  // The state with which a step begins, from the one before it, of which every `distance`-th row is
  // read.
  Rows<const T> begin_step(const ivec (&reset)[W], Rows<const T> state,
                           int64_t distance = 1) const {
    for (int r = 0; r < W; ++r) {
      select(reset[r], initial.at(r, 0), state.at(r, 0), distance * S::lanes, begun.at(r, 0));
    }
    return constant(begun);
  }
  // The same in its place.
  void set(const ivec (&reset)[W], Rows<T> state) const {
    for (int r = 0; r < W; ++r) {
      select(reset[r], initial.at(r, 0), state.at(r, 0), S::lanes, state.at(r, 0));
    }
  }
  // From the gradient of the state with which a step began to that of the one before it.
  void begin_step_backward(const ivec (&reset)[W], Rows<T> gradient) const {
    const int64_t rows = count;
    for (int r = 0; r < W; ++r) {
      const ivec anew = reset[r];
      T *const from = gradient.at(r, 0), *const to = grad.at(r, 0);
      for (int64_t k = 0; k < rows * S::lanes; k += S::lanes) {
        const vec value = S::load(from + k);
        if (grad.data != nullptr) S::store(to + k, S::load(to + k) + (anew ? value : vec{}));
        S::store(from + k, anew ? vec{} : value);
      }
    }
  }
  void add_gradient(Rows<T> gradient) const {
    for (int r = 0; grad.data != nullptr && r < W; ++r) {
      for (int64_t j = 0; j < count; ++j) {
        add_to_row(gradient.at(r, 0), j, S::load(grad.at(r, j)));
      }
    }
  }

 private:
  void select(ivec anew, const T* first, const T* before, int64_t distance, T* to) const {
    const int64_t rows = count;
    for (int64_t j = 0; j < rows; ++j) {
      const vec kept = S::load(before + j * distance);
      S::store(to + j * S::lanes, anew ? S::load(first + j * S::lanes) : kept);
    }
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
