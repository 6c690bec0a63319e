// LTC over a sequence, one sample per lane.
//
// Maths (docs/equations.md):
//   v'_j = (C_j v_j + dt num_j) / (C_j + dt den_j),   C = pos(cm) U
//   num_j = gl_j vleak_j + sum_k wse_kj ss_kj + sum_i we_ij s_ij
//   den_j = gl_j + eps   + sum_k ws'_kj ss_kj + sum_i w'_ij s_ij
// Backward of one unfold, g the gradient of v':
//   gt = g / (C + dt den)   gn = dt gt   gd = -gn v'   h = (we gn + w' gd)(s - s^2)
//   g_j <- C_j gt_j + sum sigma h    P += s gn   Q += s gd   H += h   HV += h v_i
//   gC_j += gt (v - v')     gdt += gt (num - den v')
//
// Layout: a tile is W registers of samples. Everything of a tile is rows of lanes,
// [W][rows][lanes], the distance between the W parts given as a stride. The states that the forward
// pass leaves for the backward one have that layout already (core/ltc_problem.h), so full tiles
// compute in them in place. With mixed memory the LSTM cell of memory.h makes the first of a
// step's states, before the unfolds.
//
// Plan: a tile's whole sequence runs on one thread; threads take tiles. A synapse's parameters are
// broadcast, its presynaptic row is a plain load. Bound by the sigmoids: one per synapse, unfold
// and register, 12 to 13 cycles on Zen 4. The backward pass knows every v (all unfolds are kept: N
// values against the S sigmoids of an unfold), so it walks the columns once: evaluate a column's
// sigmoids again into L1, get its denominator, then use them for the gradient at once. Sums over
// samples, steps and unfolds are kept per thread and added up in the order of the threads: no
// atomics, so the same input and thread count give the same bits.
#pragma once

#include "core/ltc_problem.h"
#include "cpu/cells/ltc_plan.h"
#include "cpu/cells/memory.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Adds the synapses [begin, end) onto one neuron to its numerator and denominator.
template <typename T, int W>
FASTLTC_INLINE void add_synapses(const Synapses<T>& list, int64_t begin, int64_t end,
                                 Rows<const T> pre, typename Simd<T>::vec (&num)[W],
                                 typename Simd<T>::vec (&den)[W]) {
  using S = Simd<T>;
  for (int64_t k = begin; k < end; ++k) {
    const Synapse<T> p = list.parameters[k];
    const T* const v = pre.data + list.offset[k];
#pragma GCC unroll 4
    for (int r = 0; r < W; ++r) {
      const auto s = S::sigmoid_exp2(S::load(v + r * pre.stride) * p.a + p.b);
      num[r] += s * p.we;
      den[r] += s * p.w;
    }
  }
}

// The same, but keeps the sigmoids, [synapse][W][lanes], and leaves the numerator where it is not
// asked for.
template <typename T, int W, bool with_numerator>
FASTLTC_INLINE void keep_synapses(const Synapses<T>& list, int64_t begin, int64_t end,
                                  Rows<const T> pre, T* kept, typename Simd<T>::vec (&num)[W],
                                  typename Simd<T>::vec (&den)[W]) {
  using S = Simd<T>;
  for (int64_t k = begin; k < end; ++k) {
    const Synapse<T> p = list.parameters[k];
    const T* const v = pre.data + list.offset[k];
#pragma GCC unroll 4
    for (int r = 0; r < W; ++r) {
      const auto s = S::sigmoid_exp2(S::load(v + r * pre.stride) * p.a + p.b);
      S::store(kept + ((k - begin) * W + r) * S::lanes, s);
      if constexpr (with_numerator) num[r] += s * p.we;
      den[r] += s * p.w;
    }
  }
}

// Gradient through the synapses [begin, end) onto one neuron, whose numerator and denominator have
// the gradients gn and gd: into the presynaptic rows and into the four sums of each synapse. With
// the weights scaled as LtcPlan::scale_weights says, H and HV come out times -1 / log2(e), and the
// factor sigma of the presynaptic gradient is the `a` that is at hand. P and H are plain additions,
// which have units of their own beside the multiply-adds.
template <typename T, int W>
FASTLTC_INLINE void backward_synapses(const Synapses<T>& list, int64_t begin, int64_t end,
                                      Rows<const T> pre, const T* kept,
                                      const typename Simd<T>::vec (&gn)[W],
                                      const typename Simd<T>::vec (&gd)[W], Rows<T> grad_pre,
                                      T* sums) {
  using S = Simd<T>;
  using vec = typename S::vec;
  for (int64_t k = begin; k < end; ++k) {
    const Synapse<T> p = list.parameters[k];
    const T* const v = pre.data + list.offset[k];
    T* const g = grad_pre.data + list.offset[k];
    vec P{}, Q{}, H{}, HV{};
#pragma GCC unroll 4
    for (int r = 0; r < W; ++r) {
      const vec s = S::load(kept + ((k - begin) * W + r) * S::lanes);
      const vec sgn = s * gn[r];
      const vec sgd = s * gd[r];
      const vec ks = sgn * p.we + sgd * p.w;
      const vec h = ks - ks * s;
      S::store(g + r * grad_pre.stride, S::load(g + r * grad_pre.stride) + h * p.a);
      P += sgn;
      Q += sgd;
      H += h;
      HV += h * S::load(v + r * pre.stride);
    }
    S::add_four(sums + k * S::sums_per_synapse, P, Q, H, HV);
  }
}

// What both passes share of one step: inputs, time steps, and the sensory part of the sums.
template <typename T, int W>
struct StepInputs {
  using S = Simd<T>;
  using vec = typename S::vec;

  Rows<T> x;   // [I] as given
  Rows<T> u;   // [I] mapped
  Rows<T> dt;  // [1] or [N]
  int64_t dt_rows = 0;

  void take(Arena& arena, const LtcInputs<T>& in) {
    x.take(arena, W, in.size.I);
    u.take(arena, W, in.size.I);
    dt_rows = in.timespans.data == nullptr ? 0 : in.timespans_per_neuron ? in.size.N : 1;
    dt.take(arena, W, dt_rows);
  }

  void load(const LtcInputs<T>& in, int64_t t, const LaneGroup (&group)[W],
            const ActiveLanes<T>* active) {
    const LtcParameters<T>& p = in.parameters;
    for (int r = 0; r < W; ++r) {
      load_rows(in.x, t, in.size.I, group[r], x.at(r, 0));
      if (dt_rows > 0) load_timespans(in.timespans, t, dt_rows, group[r], dt.at(r, 0));
      if (active != nullptr && !active[r].all) {
        overwrite_inactive(active[r], T(0), in.size.I, x.at(r, 0));
        overwrite_inactive(active[r], T(1), dt_rows, dt.at(r, 0));
      }
      for (int64_t i = 0; i < in.size.I; ++i) {
        vec mapped = S::load(x.at(r, i));
        if (p.input_w != nullptr) mapped *= p.input_w[i];
        if (p.input_b != nullptr) mapped += p.input_b[i];
        S::store(u.at(r, i), mapped);
      }
    }
  }

  template <Timespans timespans>
  FASTLTC_INLINE vec step(int r, int64_t j) const {
    if constexpr (timespans == Timespans::unit) {
      return S::set(T(1));
    } else {
      return S::load(dt.at(r, dt_rows > 1 ? j : 0));
    }
  }
  // value * dt, without the multiplication where dt is 1.
  template <Timespans timespans>
  FASTLTC_INLINE vec times_step(vec value, int r, int64_t j) const {
    if constexpr (timespans == Timespans::unit) {
      return value;
    } else {
      return value * step<timespans>(r, j);
    }
  }
};

template <typename T, int W>
struct ForwardTile {
  using S = Simd<T>;
  using vec = typename S::vec;

  const LtcInputs<T>& in;
  const LtcOutputs<T>& out;
  const LtcPlan<T>& plan;
  StepInputs<T, W> step;
  Rows<T> num;   // [N]: driven neurons: sums so far; leaky ones: v' = num + den v
  Rows<T> den;   // [N]
  Rows<T> ping;  // [N]
  Rows<T> pong;  // [N]
  Rows<T> hold;  // [N] the state at the start of a step where samples end
  Rows<T> y;     // [M]
  MemoryForward<T, W> memory;

  ForwardTile(const LtcInputs<T>& inputs, const LtcOutputs<T>& outputs, const LtcPlan<T>& p,
              Arena arena)
      : in(inputs), out(outputs), plan(p), memory(p.memory) {
    take(arena);
  }
  void take(Arena& arena) {
    step.take(arena, in);
    if (plan.memory.present) memory.take(arena);
    num.take(arena, W, in.size.N);
    den.take(arena, W, in.size.N);
    ping.take(arena, W, in.size.N);
    pong.take(arena, W, in.size.N);
    hold.take(arena, W, in.size.N);
    y.take(arena, W, in.size.M);
  }

  template <Timespans timespans>
  void sensory_sums() {
    for (int64_t j = 0; j < in.size.N; ++j) {
      vec n[W], d[W];
      for (int r = 0; r < W; ++r) {
        n[r] = S::set(plan.leak_numerator[j]);
        d[r] = S::set(plan.leak_denominator[j]);
      }
      add_synapses<T, W>(plan.sensory, plan.sensory.column[j], plan.sensory.column[j + 1],
                         {step.u.data, step.u.stride}, n, d);
      const bool driven = plan.recurrent.column[j + 1] > plan.recurrent.column[j];
      for (int r = 0; r < W; ++r) {
        if (!driven) {
          const vec rate =
              T(1) / (step.template times_step<timespans>(d[r], r, j) + plan.capacity[j]);
          n[r] = step.template times_step<timespans>(n[r], r, j) * rate;
          d[r] = rate * plan.capacity[j];
        }
        S::store(num.at(r, j), n[r]);
        S::store(den.at(r, j), d[r]);
      }
    }
  }

  template <Timespans timespans>
  void unfold(Rows<T> from, Rows<T> to) {
    for (int64_t d = 0; d < plan.driven_count; ++d) {
      const int64_t j = plan.driven[d];
      vec n[W], e[W];
      for (int r = 0; r < W; ++r) {
        n[r] = S::load(num.at(r, j));
        e[r] = S::load(den.at(r, j));
      }
      add_synapses<T, W>(plan.recurrent, plan.recurrent.column[j], plan.recurrent.column[j + 1],
                         {from.data, from.stride}, n, e);
      for (int r = 0; r < W; ++r) {
        const vec numerator = S::load(from.at(r, j)) * plan.capacity[j] +
                              step.template times_step<timespans>(n[r], r, j);
        const vec denominator = step.template times_step<timespans>(e[r], r, j) + plan.capacity[j];
        S::store(to.at(r, j), numerator / denominator);
      }
    }
    for (int64_t d = 0; d < plan.leaky_count; ++d) {
      const int64_t j = plan.leaky[d];
      for (int r = 0; r < W; ++r) {
        S::store(to.at(r, j),
                 S::load(from.at(r, j)) * S::load(den.at(r, j)) + S::load(num.at(r, j)));
      }
    }
  }

  void write_output(Rows<T> v, int64_t t, const LaneGroup (&group)[W],
                    const ActiveLanes<T>* active) {
    const LtcParameters<T>& p = in.parameters;
    for (int r = 0; r < W; ++r) {
      for (int64_t m = 0; m < in.size.M; ++m) {
        vec value = S::load(v.at(r, plan.motor[m]));
        if (p.output_w != nullptr) value *= p.output_w[m];
        if (p.output_b != nullptr) value += p.output_b[m];
        if (active != nullptr) value = active[r].mask ? value : vec{};
        S::store(y.at(r, m), value);
      }
      store_rows(out.output, t, in.size.M, group[r], y.at(r, 0));
    }
  }

  // Samples [first, first + valid); fewer than W * lanes only where W is 1.
  template <Timespans timespans>
  void run(int64_t first, int valid) {
    constexpr int L = S::lanes;
    const int64_t N = in.size.N, U = in.size.U;
    const bool remembers = plan.memory.present;
    const TileGroups<T, W> tile(in, first, valid);
    const LaneGroup(&group)[W] = tile.group;
    const int64_t steps = tile.steps;
    const bool partial = group[0].valid < L;
    // The states' own rows, or two buffers in turn.
    const int64_t history = plan.history(in.size), states = plan.rows_of_states(in.size);
    const int64_t memory_begin = (in.size.T * states + 1) * N;
    T* const kept = out.states == nullptr ? nullptr : out.states + history * first;
    const auto keep_partial = [&](Rows<T> v, int64_t state) {
      if (kept == nullptr || !partial) return;
      keep_rows(kept + state * N * group[0].valid, v.at(0, 0), N, group[0]);
    };
    const bool in_place = kept != nullptr && !partial;
    const auto rows_of = [&](int64_t state) -> Rows<T> {
      if (in_place) return {kept + state * N * L, history * L};
      return state % 2 == 0 ? ping : pong;
    };

    Rows<T> v = rows_of(0);
    for (int r = 0; r < W; ++r) {
      if (in.h0.data != nullptr) {
        load_rows(in.h0, 0, N, group[r], v.at(r, 0));
      } else {
        for (int64_t j = 0; j < N; ++j) S::store(v.at(r, j), vec{});
      }
    }
    keep_partial(v, 0);
    if (remembers) memory.start(in, group);

    int64_t state = 0;  // the one that v holds
    for (int64_t t = 0; t < steps; ++t) {
      ActiveLanes<T> active[W] = {};
      bool all = true;
      if (in.lengths != nullptr) {
        for (int r = 0; r < W; ++r) {
          active[r] = ActiveLanes<T>(in, group[r], t);
          all = all && active[r].all;
        }
      }
      const ActiveLanes<T>* const some = all ? nullptr : active;
      step.load(in, t, group, some);
      if (!all) copy(v, hold);
      if (remembers) {
        const Rows<T> next = rows_of(++state);
        const int64_t at = memory_begin + t * kMemoryRows * N;
        const Rows<T> keep = in_place ? Rows<T>{kept + at * L, history * L} : memory.kept;
        memory.step(constant(step.x), constant(v), next, keep, some);
        keep_partial(next, state);
        if (kept != nullptr && partial) {
          keep_rows(kept + at * group[0].valid, keep.at(0, 0), kMemoryRows * N, group[0]);
        }
        v = next;
      }
      sensory_sums<timespans>();
      for (int64_t u = 0; u < U; ++u) {
        const Rows<T> next = rows_of(++state);
        unfold<timespans>(v, next);
        if (u == U - 1 && !all) restore_inactive(active, next);
        keep_partial(next, state);
        v = next;
      }
      if (out.return_sequences) write_output(v, t, group, some);
    }
    const SequenceView<T> hn{out.hn, remembers ? 2 * N : N, 0, 1};
    if (remembers) memory.write_last(hn, group);
    if (!out.return_sequences) write_output(v, 0, group, nullptr);
    for (int r = 0; r < W; ++r) {
      store_rows(hn, 0, N, group[r], v.at(r, 0));
      // Nobody reads the rest, but outputs of an operator should not be left to chance: neither to
      // memory's nor to that of the tiles, in which a state is held until the longest group ends.
      if (kept != nullptr) {
        T* const own = kept + r * history * L;
        const int64_t width = group[r].valid, left = in.size.T - tile.last[r];
        clear(own + (tile.last[r] * states + 1) * N * width, left * states * N * width);
        clear(own + (history - plan.memory.kept(left)) * width, plan.memory.kept(left) * width);
      }
      if (out.return_sequences) zero_steps(out.output, steps, in.size.T, in.size.M, group[r]);
    }
  }

  void copy(Rows<T> from, Rows<T> to) {
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < in.size.N; ++j) S::store(to.at(r, j), S::load(from.at(r, j)));
    }
  }
  void restore_inactive(const ActiveLanes<T>* active, Rows<T> v) {
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < in.size.N; ++j) {
        S::store(v.at(r, j), active[r].mask ? S::load(v.at(r, j)) : S::load(hold.at(r, j)));
      }
    }
  }
};

// Sums over samples, steps and unfolds of one thread. Rows of lanes, but the synapses' four sums,
// which are Simd::add_four's.
template <typename T>
struct LtcSums {
  T* recurrent = nullptr;    // [synapses][sums_per_synapse]: P, Q, H, HV
  T* sensory = nullptr;      // the same of the sensory synapses
  T* numerator = nullptr;    // [N] gn
  T* denominator = nullptr;  // [N] gd
  T* capacity = nullptr;     // [N] gC
  T* input_w = nullptr;      // [I]
  T* input_b = nullptr;      // [I]
  T* output_w = nullptr;     // [M]
  T* output_b = nullptr;     // [M]
  T* memory = nullptr;       // OuterProducts::sums of the memory cell
  T* begin = nullptr;
  int64_t count = 0;

  void take(Arena& arena, const LtcInputs<T>& in, const LtcPlan<T>& plan) {
    constexpr int64_t L = Simd<T>::lanes;
    // One block, so that it is cleared and counted as one.
    const int64_t per_synapse = Simd<T>::sums_per_synapse;
    const int64_t sizes[] = {plan.recurrent.count * per_synapse,
                             plan.sensory.count * per_synapse,
                             in.size.N * L,
                             in.size.N * L,
                             in.size.N * L,
                             in.size.I * L,
                             in.size.I * L,
                             in.size.M * L,
                             in.size.M * L,
                             MemoryBackward<T, 1>::sums_count(plan.memory)};
    T** const parts[] = {&recurrent, &sensory, &numerator, &denominator, &capacity,
                         &input_w,   &input_b, &output_w,  &output_b,    &memory};
    count = 0;
    for (const int64_t size : sizes) count += size;
    begin = arena.take<T>(count);
    if (begin == nullptr) return;
    T* at = begin;
    for (int k = 0; k < 10; ++k) {
      *parts[k] = at;
      at += sizes[k];
    }
  }
  void clear() {
    for (int64_t k = 0; k < count; ++k) begin[k] = T(0);
  }
};

template <typename T, int W>
struct BackwardTile {
  using S = Simd<T>;
  using vec = typename S::vec;

  const LtcInputs<T>& in;
  const LtcGradients<T>& grad;
  const LtcPlan<T>& plan;
  LtcSums<T> sums;
  StepInputs<T, W> step;
  Rows<T> num;                // [N] sums without the recurrent synapses
  Rows<T> den;                // [N]
  T* sensory_kept = nullptr;  // [sensory synapses][W][lanes]
  T* column_kept[2] = {};     // [largest in-degree][W][lanes], of this column and of the next
  // g[u] is the gradient of the state before unfold u; g[U] of the state after the step. Where a
  // driven neuron's g[u + 1] has been used, its place keeps gt.
  Rows<T> g;        // [U + 1][N]
  Rows<T> grad_n;   // [N] gn summed over the unfolds of the step
  Rows<T> grad_d;   // [N]
  Rows<T> grad_u;   // [I]
  Rows<T> grad_dt;  // [1] or [N]
  Rows<T> carried;  // [N] the gradients of samples that do not run at this step
  Rows<T> grad_y;   // [M]
  Rows<T> copied;   // [states of a step + 1][N], of a partial tile
  MemoryBackward<T, W> memory;

  BackwardTile(const LtcInputs<T>& inputs, const LtcGradients<T>& gradients, const LtcPlan<T>& p,
               const LtcSums<T>& s, Arena arena)
      : in(inputs), grad(gradients), plan(p), sums(s), memory(p.memory, s.memory) {
    take(arena);
  }
  void take(Arena& arena) {
    const int64_t N = in.size.N, U = in.size.U;
    step.take(arena, in);
    memory.take(arena, in.size.T);
    num.take(arena, W, N);
    den.take(arena, W, N);
    sensory_kept = arena.take<T>(plan.sensory.count * W * S::lanes);
    for (T*& kept : column_kept) kept = arena.take<T>(plan.max_in_degree * W * S::lanes);
    g.take(arena, W, (U + 1) * N);
    grad_n.take(arena, W, N);
    grad_d.take(arena, W, N);
    grad_u.take(arena, W, in.size.I);
    grad_dt.take(arena, W, step.dt_rows);
    carried.take(arena, W, N);
    grad_y.take(arena, W, in.size.M);
    copied.take(arena, W, (plan.rows_of_states(in.size) + 1) * N);
  }

  template <Timespans timespans>
  void sensory_sums() {
    for (int64_t j = 0; j < in.size.N; ++j) {
      vec n[W] = {}, d[W] = {};
      const int64_t begin = plan.sensory.column[j];
      keep_synapses<T, W, timespans == Timespans::differentiated>(
          plan.sensory, begin, plan.sensory.column[j + 1], {step.u.data, step.u.stride},
          sensory_kept + begin * W * S::lanes, n, d);
      for (int r = 0; r < W; ++r) {
        if constexpr (timespans == Timespans::differentiated) {
          S::store(num.at(r, j), n[r] * plan.unscale + plan.leak_numerator[j]);
        }
        S::store(den.at(r, j), d[r] * plan.unscale + plan.leak_denominator[j]);
      }
    }
  }

  // gt of the driven neurons, the gradient of all that they read, and their synapses' sums. v is
  // the state before unfold u, [U + 1][N] after it.
  //
  // A column's gradient waits for its denominator, the end of a chain of a hundred cycles. So the
  // next column's sigmoids come before it, more than the processor could reorder by itself.
  template <Timespans timespans>
  void unfold(Rows<const T> states, int64_t u) {
    constexpr bool differentiated = timespans == Timespans::differentiated;
    const int64_t N = in.size.N;
    const Rows<const T> v{states.data + u * N * S::lanes, states.stride};
    const Rows<T> to{g.data + u * N * S::lanes, g.stride};
    vec gn[2][W], gd[2][W];
    for (int64_t d = 0; d <= plan.driven_count; ++d) {
      if (d < plan.driven_count) {
        const int64_t j = plan.driven[d];
        vec n[W] = {}, e[W] = {};
        keep_synapses<T, W, differentiated>(plan.recurrent, plan.recurrent.column[j],
                                            plan.recurrent.column[j + 1], v, column_kept[d % 2], n,
                                            e);
        for (int r = 0; r < W; ++r) {
          if constexpr (differentiated) n[r] = n[r] * plan.unscale + S::load(num.at(r, j));
          e[r] = e[r] * plan.unscale + S::load(den.at(r, j));
          const vec total = step.template times_step<timespans>(e[r], r, j) + plan.capacity[j];
          const vec gt = S::load(g.at(r, (u + 1) * N + j)) / total;
          const vec after = S::load(states.at(r, (u + 1) * N + j));
          S::store(g.at(r, (u + 1) * N + j), gt);
          S::store(to.at(r, j), S::load(to.at(r, j)) + gt * plan.capacity[j]);
          gn[d % 2][r] = step.template times_step<timespans>(gt, r, j);
          gd[d % 2][r] = -gn[d % 2][r] * after;
          if constexpr (differentiated) add_grad_dt(r, j, total, gt * (n[r] - e[r] * after));
        }
      }
      if (d > 0) {
        const int64_t j = plan.driven[d - 1];
        const int before = (d - 1) % 2;
        backward_synapses<T, W>(plan.recurrent, plan.recurrent.column[j],
                                plan.recurrent.column[j + 1], v, column_kept[before], gn[before],
                                gd[before], to, sums.recurrent);
      }
    }
  }

  // `total` is the denominator. Where a step of 0 holds a neuron without capacitance, any longer
  // one jumps to its end, and there is no derivative: taken for 0, as the reference has it.
  FASTLTC_INLINE void add_grad_dt(int r, int64_t j, vec total, vec value) {
    T* const at = grad_dt.at(r, step.dt_rows > 1 ? j : 0);
    S::store(at, S::load(at) + (total == kLeastCapacity<T> ? vec{} : value));
  }

  // What a neuron's own parameters get from a step, and gn and gd for its sensory synapses. For a
  // leaky neuron this is also where its gradient runs back through the unfolds.
  template <Timespans timespans>
  void neuron_sums(Rows<const T> states, int64_t j, bool driven) {
    const int64_t N = in.size.N, U = in.size.U;
    vec sum_n{}, sum_d{}, sum_c{};
    for (int r = 0; r < W; ++r) {
      vec gn{}, gd{};
      vec carry = S::load(g.at(r, U * N + j));
      vec total{}, rate{};
      if (!driven) {
        const vec d = S::load(den.at(r, j));
        total = step.template times_step<timespans>(d, r, j) + plan.capacity[j];
        rate = T(1) / total;
      }
      vec after = S::load(states.at(r, U * N + j));
      for (int64_t u = U - 1; u >= 0; --u) {
        const vec before = S::load(states.at(r, u * N + j));
        vec gt;
        if (driven) {
          gt = S::load(g.at(r, (u + 1) * N + j));
        } else {
          gt = carry * rate;
          carry = gt * plan.capacity[j] + S::load(g.at(r, u * N + j));
          if constexpr (timespans == Timespans::differentiated) {
            add_grad_dt(r, j, total, gt * (S::load(num.at(r, j)) - S::load(den.at(r, j)) * after));
          }
        }
        gn += gt;
        gd -= gt * after;
        sum_c += gt * (before - after);
        after = before;
      }
      if (!driven) S::store(g.at(r, j), carry);
      gn = step.template times_step<timespans>(gn, r, j);
      gd = step.template times_step<timespans>(gd, r, j);
      S::store(grad_n.at(r, j), gn);
      S::store(grad_d.at(r, j), gd);
      sum_n += gn;
      sum_d += gd;
    }
    add(sums.numerator, j, sum_n);
    add(sums.denominator, j, sum_d);
    add(sums.capacity, j, sum_c);
  }

  static FASTLTC_INLINE void add(T* rows, int64_t row, vec value) {
    S::store(rows + row * S::lanes, S::load(rows + row * S::lanes) + value);
  }

  void sensory_backward() {
    for (int r = 0; r < W; ++r) {
      for (int64_t i = 0; i < in.size.I; ++i) S::store(grad_u.at(r, i), vec{});
    }
    for (int64_t j = 0; j < in.size.N; ++j) {
      const int64_t begin = plan.sensory.column[j], end = plan.sensory.column[j + 1];
      vec gn[W], gd[W];
      for (int r = 0; r < W; ++r) {
        gn[r] = S::load(grad_n.at(r, j));
        gd[r] = S::load(grad_d.at(r, j));
      }
      backward_synapses<T, W>(plan.sensory, begin, end, {step.u.data, step.u.stride},
                              sensory_kept + begin * W * S::lanes, gn, gd, grad_u, sums.sensory);
    }
  }

  void input_backward(int64_t t, const LaneGroup (&group)[W]) {
    const LtcParameters<T>& p = in.parameters;
    for (int64_t i = 0; i < in.size.I; ++i) {
      vec w{}, b{};
      for (int r = 0; r < W; ++r) {
        const vec gu = S::load(grad_u.at(r, i));
        w += gu * S::load(step.x.at(r, i));
        b += gu;
        if (p.input_w != nullptr) S::store(grad_u.at(r, i), gu * p.input_w[i]);
      }
      add(sums.input_w, i, w);
      add(sums.input_b, i, b);
    }
    if (plan.memory.present) {
      for (int r = 0; r < W; ++r) {
        for (int64_t i = 0; i < in.size.I; ++i) {
          const vec more = S::load(memory.grad_in.at(r, i));
          S::store(grad_u.at(r, i), S::load(grad_u.at(r, i)) + more);
        }
      }
    }
    for (int r = 0; r < W; ++r) store_rows(grad.x, t, in.size.I, group[r], grad_u.at(r, 0));
  }

  // Adds the gradient of the output map at one step to that of the state `after` it.
  void output_backward(int64_t t, const LaneGroup (&group)[W], const ActiveLanes<T>* active,
                       Rows<const T> after, Rows<T> grad_after) {
    const LtcParameters<T>& p = in.parameters;
    for (int r = 0; r < W; ++r) {
      load_rows(grad.grad_output, t, in.size.M, group[r], grad_y.at(r, 0));
      clear_lanes_past(group[r], in.size.M, grad_y.at(r, 0));
      if (active != nullptr) overwrite_inactive(active[r], T(0), in.size.M, grad_y.at(r, 0));
    }
    for (int64_t m = 0; m < in.size.M; ++m) {
      vec w{}, b{};
      for (int r = 0; r < W; ++r) {
        vec gy = S::load(grad_y.at(r, m));
        w += gy * S::load(after.at(r, plan.motor[m]));
        b += gy;
        if (p.output_w != nullptr) gy *= p.output_w[m];
        T* const to = grad_after.at(r, plan.motor[m]);
        S::store(to, S::load(to) + gy);
      }
      add(sums.output_w, m, w);
      add(sums.output_b, m, b);
    }
  }

  template <Timespans timespans>
  void run(int64_t first, int valid) {
    constexpr int L = S::lanes;
    const int64_t N = in.size.N, U = in.size.U;
    const TileGroups<T, W> tile(in, first, valid);
    const LaneGroup(&group)[W] = tile.group;
    const int64_t steps = tile.steps;
    const bool partial = group[0].valid < L;
    const bool remembers = plan.memory.present;
    const int64_t history = plan.history(in.size), states_of_step = plan.rows_of_states(in.size);
    const int64_t memory_begin = (in.size.T * states_of_step + 1) * N;
    const T* const kept = grad.states + history * first;
    // The state before step t and those that the step adds.
    const auto states_of = [&](int64_t t) -> Rows<const T> {
      const int64_t at = t * states_of_step * N;
      if (!partial) return {kept + at * L, history * L};
      kept_rows(kept + at * group[0].valid, copied.at(0, 0), (states_of_step + 1) * N, group[0]);
      return constant(copied);
    };
    // What the memory cell kept of step t.
    const auto load_memory = [&](int64_t t) {
      const int64_t at = memory_begin + t * kMemoryRows * N;
      if (!partial) {
        memory.kept_before = {kept + at * L, history * L};
        return;
      }
      const Rows<T> copy = memory.spare();
      kept_rows(kept + at * group[0].valid, copy.at(0, 0), kMemoryRows * N, group[0]);
      memory.kept_before = constant(copy);
    };

    const Rows<T> last{g.data + U * N * L, g.stride};  // g[U]
    for (int r = 0; r < W; ++r) {
      if (grad.grad_hn.data != nullptr) {
        load_rows(grad.grad_hn, 0, N, group[r], last.at(r, 0));
        clear_lanes_past(group[r], N, last.at(r, 0));
      } else {
        for (int64_t j = 0; j < N; ++j) S::store(last.at(r, j), vec{});
      }
      zero_steps(grad.x, steps, in.size.T, in.size.I, group[r]);
      if (grad.timespans.data != nullptr) {
        zero_steps(grad.timespans, steps, in.size.T, step.dt_rows, group[r]);
      }
    }
    if (grad.grad_output.data != nullptr && !grad.return_sequences) {
      // `carried` is free until the first step: it takes each group's own last state.
      for (int r = 0; r < W; ++r) {
        kept_rows(kept + r * history * L + tile.last[r] * states_of_step * N * group[r].valid,
                  carried.at(r, 0), N, group[r]);
      }
      output_backward(0, group, nullptr, constant(carried), last);
    }
    if (remembers) {
      memory.start(grad.grad_hn, group);
      if (steps > 0) load_memory(steps - 1);
    }

    for (int64_t t = steps - 1; t >= 0; --t) {
      ActiveLanes<T> active[W] = {};
      bool all = true;
      if (in.lengths != nullptr) {
        for (int r = 0; r < W; ++r) {
          active[r] = ActiveLanes<T>(in, group[r], t);
          all = all && active[r].all;
        }
      }
      const ActiveLanes<T>* const some = all ? nullptr : active;
      if (!all) set_inactive_aside(active, last);
      const Rows<const T> before = states_of(t);
      const Rows<const T> states{before.data + (states_of_step - U) * N * L, before.stride};
      if (grad.grad_output.data != nullptr && grad.return_sequences) {
        output_backward(t, group, some, {states.data + U * N * L, states.stride}, last);
      }
      step.load(in, t, group, some);
      sensory_sums<timespans>();
      for (int r = 0; r < W; ++r) {
        for (int64_t k = 0; k < U * N; ++k) S::store(g.at(r, k), vec{});
        for (int64_t k = 0; k < step.dt_rows; ++k) S::store(grad_dt.at(r, k), vec{});
      }
      for (int64_t u = U - 1; u >= 0; --u) unfold<timespans>(states, u);
      for (int64_t j = 0; j < N; ++j) {
        neuron_sums<timespans>(states, j, plan.recurrent.column[j + 1] > plan.recurrent.column[j]);
      }
      sensory_backward();
      if (remembers) {
        memory.next_step();
        if (t > 0) {
          load_memory(t - 1);
        } else {
          memory.load_first(in, group);
        }
        memory.step(constant(g), constant(step.x), before, some, t == 0);
      }
      input_backward(t, group);
      if constexpr (timespans == Timespans::differentiated) {
        for (int r = 0; r < W; ++r) {
          store_rows(grad.timespans, t, step.dt_rows, group[r], grad_dt.at(r, 0));
        }
      }
      for (int r = 0; r < W; ++r) {
        for (int64_t j = 0; j < N; ++j) {
          vec of_before = S::load(remembers ? memory.grad_in.at(r, in.size.I + j) : g.at(r, j));
          if (some != nullptr) of_before = some[r].mask ? of_before : S::load(carried.at(r, j));
          S::store(last.at(r, j), of_before);
        }
      }
    }
    if (grad.h0 != nullptr) {
      const SequenceView<T> grad_h0{grad.h0, remembers ? 2 * N : N, 0, 1};
      for (int r = 0; r < W; ++r) store_rows(grad_h0, 0, N, group[r], last.at(r, 0));
      if (remembers) memory.write_first(grad_h0, group);
    }
  }

  void set_inactive_aside(const ActiveLanes<T>* active, Rows<T> last) {
    for (int r = 0; r < W; ++r) {
      for (int64_t j = 0; j < in.size.N; ++j) {
        const vec value = S::load(last.at(r, j));
        S::store(carried.at(r, j), value);
        S::store(last.at(r, j), active[r].mask ? value : vec{});
      }
    }
  }
};

// Writes the parameters' gradients from the threads' sums, added in the order of the threads.
template <typename T>
class LtcGradientSums {
 public:
  LtcGradientSums(const LtcInputs<T>& inputs, const LtcGradients<T>& gradients, const LtcPlan<T>& p,
                  const LtcSums<T>* sums, int parts)
      : in(inputs), grad(gradients), plan(p), sums_(sums), parts_(parts) {}

  void write() {
    const LtcParameters<T>& p = in.parameters;
    write_synapses(plan.recurrent, in.synapses.row, &LtcSums<T>::recurrent, p.sigma, p.mu, p.w,
                   p.erev, grad.sigma, grad.mu, grad.w, grad.erev);
    write_synapses(plan.sensory, in.sensory_synapses.row, &LtcSums<T>::sensory, p.sensory_sigma,
                   p.sensory_mu, p.sensory_w, p.sensory_erev, grad.sensory_sigma, grad.sensory_mu,
                   grad.sensory_w, grad.sensory_erev);
    const int64_t N = in.size.N;
    for (int64_t j = 0; j < N; ++j) {
      const T gn = row(&LtcSums<T>::numerator, j), gd = row(&LtcSums<T>::denominator, j);
      grad.gleak[j] = p.vleak[j] * gn + gd;
      grad.vleak[j] = plan.gleak[j] * gn;
      grad.cm[j] = row(&LtcSums<T>::capacity, j) * static_cast<T>(in.size.U);
    }
    if (p.softplus) {
      multiply_by_positive_slope(grad.gleak, p.gleak, N);
      multiply_by_positive_slope(grad.cm, p.cm, N);
    }
    write_rows(&LtcSums<T>::input_w, in.size.I, grad.input_w);
    write_rows(&LtcSums<T>::input_b, in.size.I, grad.input_b);
    write_rows(&LtcSums<T>::output_w, in.size.M, grad.output_w);
    write_rows(&LtcSums<T>::output_b, in.size.M, grad.output_b);
    for (int part = 1; part < parts_; ++part) {
      const int64_t count = MemoryBackward<T, 1>::sums_count(plan.memory);
      for (int64_t k = 0; k < count; ++k) sums_[0].memory[k] += sums_[part].memory[k];
    }
    write_memory_gradients(plan.memory, parts_ == 0 ? nullptr : sums_[0].memory, grad.memory);
  }

 private:
  using S = Simd<T>;
  using Part = T* LtcSums<T>::*;

  T row(Part part, int64_t at) const {
    T total = 0;
    for (int k = 0; k < parts_; ++k) total += S::sum(S::load(sums_[k].*part + at * S::lanes));
    return total;
  }
  void write_rows(Part part, int64_t count, T* to) const {
    if (to == nullptr) return;
    for (int64_t c = 0; c < count; ++c) to[c] = row(part, c);
  }
  void write_synapses(const Synapses<T>& list, const int32_t* rows, Part part, const T* sigma,
                      const T* mu, const T* w, const T* erev, T* grad_sigma, T* grad_mu, T* grad_w,
                      T* grad_erev) {
    const int64_t N = in.size.N, columns = N / in.nets;
    T* const slope = plan.scratch;
    for (int64_t k = 0; k < list.count; ++k) slope[k] = T(1);
    if (in.parameters.softplus) {
      T* const raw = plan.scratch + list.count;
      for (int64_t j = 0; j < N; ++j) {
        for (int64_t k = list.column[j]; k < list.column[j + 1]; ++k) {
          raw[k] = w[rows[k] * columns + j % columns];
        }
      }
      multiply_by_positive_slope(slope, raw, list.count);
    }
    for (int64_t j = 0; j < N; ++j) {
      for (int64_t k = list.column[j]; k < list.column[j + 1]; ++k) {
        T total[4] = {};
        for (int part_index = 0; part_index < parts_; ++part_index) {
          const T* const four = sums_[part_index].*part + k * S::sums_per_synapse;
          for (int q = 0; q < 4; ++q) {
            for (int l = 0; l < S::block; ++l) total[q] += four[q * S::block + l];
          }
        }
        const int64_t at = rows[k] * columns + j % columns;
        // See LtcPlan::scale_weights.
        const T P = total[0], Q = total[1], H = plan.unscale * total[2],
                HV = plan.unscale * total[3];
        grad_w[at] = (erev[at] * P + Q) * slope[k];
        grad_erev[at] = plan.unscale * list.parameters[k].w * P;
        grad_mu[at] = -sigma[at] * H;
        grad_sigma[at] = HV - mu[at] * H;
      }
    }
  }

  const LtcInputs<T>& in;
  const LtcGradients<T>& grad;
  const LtcPlan<T>& plan;
  const LtcSums<T>* sums_;
  int parts_;
};

}  // namespace fastltc::cpu::FASTLTC_ISA
