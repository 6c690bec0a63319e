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
// Layout and frame: frame/sequence_tile.h. With mixed memory what the memory cell makes of a state
// is kept as the first of a step's states.
//
// Plan: a synapse's parameters are broadcast, its presynaptic row is a plain load. Bound by the
// sigmoids: one per synapse, unfold and register, 12 to 13 cycles on Zen 4. The backward pass repeats
// the unfolds of a step, bit for bit, and puts by their sigmoids and denominators. Where those would
// not stay in the second cache, it walks the columns of an unfold once: evaluate a column's sigmoids
// into L1, get its denominator, then use them for the gradient at once; the states between the
// unfolds are then kept, or repeated before.
#pragma once

#include "core/ltc_problem.h"
#include "cpu/cells/ltc_packed.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"
#include "cpu/frame/step.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Adds the synapses [begin, end) onto one neuron to its numerator and denominator. With `keeps` their
// sigmoids go to `kept`, [synapse][W][lanes].
template <bool keeps, typename T, int W, Lanes lanes>
FASTLTC_INLINE void add_synapses(const Synapses<T, lanes>& list, int64_t begin, int64_t end,
                                 Rows<const T> pre, typename Simd<T>::vec (&num)[W],
                                 typename Simd<T>::vec (&den)[W],
                                 [[maybe_unused]] T* kept = nullptr) {
  using S = Simd<T>;
  for (int64_t k = begin; k < end; ++k) {
    const auto p = list.at(k);
    const T* const v = pre.data + list.offset[k];
#pragma GCC unroll 4
    for (int r = 0; r < W; ++r) {
      const auto s = S::synapse_sigmoid(S::load(v + r * pre.stride) * p.a + p.b);
      if constexpr (keeps) S::store(kept + ((k - begin) * W + r) * S::lanes, s);
      num[r] += s * p.we;
      den[r] += s * p.w;
    }
  }
}

// Calls run(first, count) for as many synapses at once as a register has blocks, of [begin, end).
// What is left over in the end comes with zeros behind it, whose conductances are none.
template <typename T, typename Run>
FASTLTC_INLINE void for_blocks(int64_t begin, int64_t end, Run run) {
  constexpr int64_t blocks = Simd<T>::blocks;
  int64_t k = begin;
  for (; k + blocks <= end; k += blocks) run(k, blocks);
  if (k < end) run(k, end - k);
}

// The same of few samples, for whom a register takes a synapse in each block of lanes. Of the rows
// the first block counts. Fused by name: the compiler fuses within a basic block alone, and the
// unfolds that are repeated must have the bits of the first ones.
template <bool keeps, typename T, Lanes lanes>
FASTLTC_INLINE void add_synapses_of_few(const Synapses<T, lanes>& list, int64_t begin, int64_t end,
                                        Rows<const T> pre, typename Simd<T>::vec (&num)[1],
                                        typename Simd<T>::vec (&den)[1],
                                        [[maybe_unused]] T* kept = nullptr) {
  using S = Simd<T>;
  typename S::vec n{}, d{};
  for_blocks<T>(begin, end, [&](int64_t k, int64_t count) FASTLTC_INLINED {
    const auto p = S::load_first_blocks(&list.parameters[k].a, count);
    const auto v = S::load_blocks(pre.data, list.offset + k, count);
    const auto s =
        S::synapse_sigmoid(S::multiply_add(v, S::template spread<0>(p), S::template spread<1>(p)));
    if constexpr (keeps) {
      S::store(kept, s);
      kept += S::lanes;
    }
    n = S::multiply_add(s, S::template spread<2>(p), n);
    d = S::multiply_add(s, S::template spread<3>(p), d);
  });
  num[0] += S::sum_blocks(n);
  den[0] += S::sum_blocks(d);
}

// Gradient through the synapses [begin, end) onto one neuron, whose numerator and denominator have
// the gradients gn and gd, times kScale: into the presynaptic rows and into the four sums of each
// synapse. P and H are plain additions, which have units of their own beside the multiply-adds.
template <typename T, int W, Lanes lanes>
FASTLTC_INLINE void backward_synapses(const Synapses<T, lanes>& list, int64_t begin, int64_t end,
                                      Rows<const T> pre, const T* kept,
                                      const typename Simd<T>::vec (&gn)[W],
                                      const typename Simd<T>::vec (&gd)[W], Rows<T> grad_pre,
                                      T* sums) {
  using S = Simd<T>;
  using vec = typename S::vec;
  for (int64_t k = begin; k < end; ++k) {
    const auto p = list.at(k);
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
    FourSums<T, lanes>::add(sums + k * FourSums<T, lanes>::size, P, Q, H, HV);
  }
}

// The same of few samples.
template <typename T, Lanes lanes>
FASTLTC_INLINE void backward_synapses_of_few(const Synapses<T, lanes>& list, int64_t begin,
                                             int64_t end, Rows<const T> pre, const T* kept,
                                             const typename Simd<T>::vec (&gn)[1],
                                             const typename Simd<T>::vec (&gd)[1], Rows<T> grad_pre,
                                             T* sums) {
  using S = Simd<T>;
  const auto n = S::first_block(gn[0]), d = S::first_block(gd[0]);
  for_blocks<T>(begin, end, [&](int64_t k, int64_t count) FASTLTC_INLINED {
    const auto p = S::load_first_blocks(&list.parameters[k].a, count);
    const auto s = S::load(kept), v = S::load_blocks(pre.data, list.offset + k, count);
    kept += S::lanes;
    const auto sgn = s * n, sgd = s * d;
    const auto ks = S::multiply_add(sgn, S::template spread<2>(p), sgd * S::template spread<3>(p));
    const auto h = S::multiply_add(-ks, s, ks);
    S::add_to_blocks(grad_pre.data, list.offset + k, count, h * S::template spread<0>(p));
    S::add_four_of_blocks(sums + k * S::sums_per_synapse, count, sgn, sgd, h, h * v);
  });
}

// The unfolds of a step, for the forward pass and for the backward one, which repeats them.
template <typename T, int W, Lanes lanes = Lanes::samples>
struct LtcUnfolds {
  using S = Simd<T>;
  using vec = typename S::vec;
  using P = Parameter<T, lanes>;

  const LtcInputs<T>& in;
  const LtcLayer<T, lanes>& layer;
  Rows<T> num{};    // [N] sums without the recurrent synapses
  Rows<T> den{};    // [N]
  Rows<T> drive{};  // [N] of a leaky neuron: v' = drive + decay v
  Rows<T> decay{};  // [N]

  void take(Arena& arena) {
    num.take(arena, W, in.size.N);
    den.take(arena, W, in.size.N);
    drive.take(arena, W, in.size.N);
    decay.take(arena, W, in.size.N);
  }

  // `kept`: [sensory synapses][W][lanes], for their sigmoids.
  template <Timespans timespans, bool keeps>
  void begin(const StepInputs<T, W>& step, T* kept = nullptr) {
    for (int64_t j = 0; j < in.size.N; ++j) {
      vec n[W], d[W];
      for (int r = 0; r < W; ++r) {
        n[r] = S::set(P::at(layer.leak_numerator, j));
        d[r] = S::set(P::at(layer.leak_denominator, j));
      }
      const int64_t first = layer.sensory.column[j];
      add_synapses<keeps>(layer.sensory, first, layer.sensory.column[j + 1], constant(step.u), n, d,
                          keeps ? kept + first * W * S::lanes : nullptr);
      for (int r = 0; r < W; ++r) {
        S::store(num.at(r, j), n[r]);
        S::store(den.at(r, j), d[r]);
      }
    }
    for (int64_t d = 0; d < layer.leaky_count; ++d) {
      const int64_t j = layer.leaky[d];
      for (int r = 0; r < W; ++r) {
        const vec rate = T(1) / total<timespans>(step, S::load(den.at(r, j)), r, j);
        S::store(drive.at(r, j),
                 step.template times_step<timespans>(S::load(num.at(r, j)), r, j) * rate);
        S::store(decay.at(r, j), rate * P::at(layer.capacity, j));
      }
    }
  }

  // The denominator of a neuron's new state.
  template <Timespans timespans>
  FASTLTC_INLINE vec total(const StepInputs<T, W>& step, vec d, int r, int64_t j) const {
    return step.template times_step<timespans>(d, r, j) + P::at(layer.capacity, j);
  }

  // Calls call(Constant<few>()): whether a register takes several synapses of few samples at once.
  // By the whole batch: sums have another order, and a sample's bits must not depend on its place.
  template <typename Call>
  FASTLTC_INLINE void with_few(Call call) const {
    if constexpr (W == 1 && lanes == Lanes::samples && S::blocks > 1) {
      if (in.size.B <= S::few) return call(Constant<true>());
    }
    call(Constant<false>());
  }

  // num and den of a driven neuron.
  template <bool few, bool keeps>
  FASTLTC_INLINE void sum(int64_t j, Rows<const T> from, vec (&n)[W], vec (&d)[W], T* kept) const {
    for (int r = 0; r < W; ++r) {
      n[r] = S::load(num.at(r, j));
      d[r] = S::load(den.at(r, j));
    }
    const int64_t begin = layer.recurrent.column[j], end = layer.recurrent.column[j + 1];
    if constexpr (few) {
      add_synapses_of_few<keeps>(layer.recurrent, begin, end, from, n, d, kept);
    } else {
      add_synapses<keeps>(layer.recurrent, begin, end, from, n, d, kept);
    }
  }

  // With `keeps` the sigmoids go to `kept`, [synapses][W][lanes], and put_by(r, j, num, den, total,
  // state after) is called for each driven neuron.
  template <Timespans timespans, bool few, bool keeps = false, typename PutBy = void (*)(...)>
  FASTLTC_INLINE void unfold(const StepInputs<T, W>& step, Rows<const T> from, Rows<T> to,
                             T* kept = nullptr, PutBy put_by = nullptr) const {
    for (int64_t k = 0; k < layer.driven_count; ++k) {
      const int64_t j = layer.driven[k];
      vec n[W], d[W];
      sum<few, keeps>(j, from, n, d,
                      keeps ? kept + layer.recurrent.column[j] * W * S::lanes : nullptr);
      for (int r = 0; r < W; ++r) {
        const vec numerator = S::load(from.at(r, j)) * P::at(layer.capacity, j) +
                              step.template times_step<timespans>(n[r], r, j);
        const vec denominator = total<timespans>(step, d[r], r, j);
        const vec after = numerator / denominator;
        S::store(to.at(r, j), after);
        if constexpr (keeps) put_by(r, j, n[r], d[r], denominator, after);
      }
    }
    for (int64_t k = 0; k < layer.leaky_count; ++k) {
      const int64_t j = layer.leaky[k];
      for (int r = 0; r < W; ++r) {
        S::store(to.at(r, j),
                 S::load(from.at(r, j)) * S::load(decay.at(r, j)) + S::load(drive.at(r, j)));
      }
    }
  }
};

template <typename T, int W, Lanes lanes = Lanes::samples>
struct LtcForward {
  LtcUnfolds<T, W, lanes> unfolds;

  LtcForward(const LtcInputs<T>& in, const LtcLayer<T, lanes>& layer) : unfolds{in, layer} {}
  void take(Arena& arena) { unfolds.take(arena); }

  void begin(const StepInputs<T, W>& step) {
    static_switch<Timespans::unit, Timespans::given>(step.timespans, [&](auto timespans) {
      unfolds.template begin<decltype(timespans)::value, false>(step);
    });
  }
  void unfold(const StepInputs<T, W>& step, Rows<const T> from, Rows<T> to, Rows<T>) {
    static_switch<Timespans::unit, Timespans::given>(step.timespans, [&](auto timespans) {
      unfolds.with_few([&](auto few) {
        unfolds.template unfold<decltype(timespans)::value, decltype(few)::value>(step, from, to);
      });
    });
  }
};

template <typename T, int W, Lanes lanes = Lanes::samples>
struct LtcBackward {
  using S = Simd<T>;
  using vec = typename S::vec;
  using P = Parameter<T, lanes>;
  using Sums = LtcSums<T, lanes>;

  const LtcInputs<T>& in;
  const LtcLayer<T, lanes>& layer;
  const Sums sums;
  LtcUnfolds<T, W, lanes> unfolds;
  Rows<T> repeated{};         // [U][N] the states after the unfolds, unless they are kept
  T* sensory_kept = nullptr;  // [sensory synapses][W][lanes] their sigmoids
  // Of all unfolds of a step, or if they are not put by of a column and of the next.
  T* kept = nullptr;  // [U][synapses][W][lanes] or [2][largest in-degree][W][lanes]
  Rows<T> total{};    // [U][N] the denominators of the driven neurons' states; put by
  Rows<T> rate{};     // [U][N] num - den v', where time steps have gradients; put by
  // g[u] is the gradient of the state before unfold u; g[U] of the state after the step. Where a
  // driven neuron's g[u + 1] has been used, its place keeps gt.
  Rows<T> g{};            // [U + 1][N]
  Rows<T> grad_n{};       // [N] gn summed over the unfolds of the step, times kScale
  Rows<T> grad_d{};       // [N]
  Rows<T> grad_u{};       // [I]
  Rows<T> grad_before{};  // g[0]
  Rows<T> grad_after{};   // g[U]

  LtcBackward(const LtcInputs<T>& inputs, const LtcLayer<T, lanes>& p, const Sums& s)
      : in(inputs), layer(p), sums(s), unfolds{inputs, p} {}

  void take(Arena& arena) {
    const int64_t N = in.size.N, U = in.size.U;
    const bool puts_by = layer.puts_sigmoids_by;
    unfolds.take(arena);
    repeated.take(arena, W, repeats() ? U * N : 0);
    sensory_kept = arena.take<T>(layer.sensory.count * W * S::lanes);
    kept = arena.take<T>((puts_by ? U * layer.recurrent.count : 2 * layer.max_in_degree) * W *
                         S::lanes);
    total.take(arena, W, puts_by ? U * N : 0);
    rate.take(arena, W, puts_by && in.timespans.data != nullptr ? U * N : 0);
    g.take(arena, W, (U + 1) * N);
    grad_n.take(arena, W, N);
    grad_d.take(arena, W, N);
    grad_u.take(arena, W, in.size.I);
    grad_before = g;
    grad_after = g.from(U * N);
  }

  void start() {}
  void step(const BackwardStep<T, W>& step) {
    static_switch<Timespans::unit, Timespans::given, Timespans::differentiated>(
        step.timespans,
        [&](auto timespans) { this->template step_back<decltype(timespans)::value>(step); });
  }

 private:
  bool repeats() const { return layer.puts_sigmoids_by || layer.history.unfolds < in.size.U; }

  template <Timespans timespans>
  void step_back(const BackwardStep<T, W>& step) {
    const int64_t N = in.size.N, U = in.size.U;
    unfolds.template begin<timespans, true>(step, sensory_kept);
    unfolds.with_few([&](auto few) {
      for (int64_t u = 0; repeats() && u < U; ++u) {
        this->template repeat_unfold<timespans, decltype(few)::value>(step, u);
      }
    });
    for (int r = 0; r < W; ++r) {
      for (int64_t k = 0; k < U * N; ++k) S::store(g.at(r, k), vec{});
    }
    for (int64_t u = U - 1; u >= 0; --u) {
      static_switch<true, false>(layer.puts_sigmoids_by, [&](auto was_put_by) {
        unfolds.with_few([&](auto few) {
          this->template unfold<timespans, decltype(few)::value, decltype(was_put_by)::value>(step,
                                                                                              u);
        });
      });
    }
    for (int64_t j = 0; j < N; ++j) {
      neuron_sums<timespans>(step, j, layer.recurrent.column[j + 1] > layer.recurrent.column[j]);
    }
    sensory_backward(step);
  }

  // The states before and after an unfold.
  Rows<const T> before(const BackwardStep<T, W>& step, int64_t u) const {
    return u == 0 ? step.before : after(step, u - 1);
  }
  Rows<const T> after(const BackwardStep<T, W>& step, int64_t u) const {
    return repeats() ? constant(repeated, u * in.size.N) : step.after.from(u * in.size.N);
  }

  template <Timespans timespans, bool few>
  FASTLTC_APART void repeat_unfold(const BackwardStep<T, W>& step, int64_t u) {
    const int64_t first = u * in.size.N;
    const Rows<const T> from = before(step, u);
    const Rows<T> to = repeated.from(first);
    if (!layer.puts_sigmoids_by) {
      unfolds.template unfold<timespans, few>(step, from, to);
      return;
    }
    const auto put_by = [&](int r, int64_t j, vec n, vec d, vec denominator, vec state) {
      S::store(total.at(r, first + j), denominator);
      if constexpr (timespans == Timespans::differentiated) {
        S::store(rate.at(r, first + j), n - d * state);
      }
    };
    T* const of_unfold = kept + u * layer.recurrent.count * W * S::lanes;
    unfolds.template unfold<timespans, few, true>(step, from, to, of_unfold, put_by);
  }

  // gt of the driven neurons, the gradient of all that they read, and their synapses' sums.
  //
  // Where nothing was put by, a column's gradient waits for its denominator, the end of a chain of a
  // hundred cycles. So the next column's sigmoids come before it, more than the processor could
  // reorder by itself.
  template <Timespans timespans, bool few, bool was_put_by>
  FASTLTC_APART void unfold(const BackwardStep<T, W>& step, int64_t u) {
    const int64_t N = in.size.N;
    const Rows<const T> v = before(step, u), ends = after(step, u);
    const Rows<T> to = g.from(u * N);
    vec gn[2][W], gd[2][W];
    T* of_column[2];
    for (int64_t d = 0; d <= layer.driven_count; ++d) {
      if (d < layer.driven_count) {
        const int64_t j = layer.driven[d], begin = layer.recurrent.column[j];
        of_column[d % 2] =
            kept + (was_put_by ? u * layer.recurrent.count + begin : d % 2 * layer.max_in_degree) *
                       W * S::lanes;
        vec n[W], e[W];
        if constexpr (!was_put_by) unfolds.template sum<few, true>(j, v, n, e, of_column[d % 2]);
        for (int r = 0; r < W; ++r) {
          const vec state = S::load(ends.at(r, j));
          const vec denominator = was_put_by ? S::load(total.at(r, u * N + j))
                                             : unfolds.template total<timespans>(step, e[r], r, j);
          const vec gt = S::load(g.at(r, (u + 1) * N + j)) / denominator;
          S::store(g.at(r, (u + 1) * N + j), gt);
          S::store(to.at(r, j), S::load(to.at(r, j)) + gt * P::at(layer.capacity, j));
          gn[d % 2][r] = step.template times_step<timespans>(gt * kScale<T>, r, j);
          gd[d % 2][r] = -gn[d % 2][r] * state;
          if constexpr (timespans == Timespans::differentiated) {
            const vec slope = was_put_by ? S::load(rate.at(r, u * N + j)) : n[r] - e[r] * state;
            add_grad_dt(step, r, j, denominator, gt * slope);
          }
        }
      }
      if (d > 0) {
        const int64_t j = layer.driven[d - 1], column = (d - 1) % 2;
        const int64_t begin = layer.recurrent.column[j], end = layer.recurrent.column[j + 1];
        if constexpr (few) {
          backward_synapses_of_few(layer.recurrent, begin, end, v, of_column[column], gn[column],
                                   gd[column], to, sums.recurrent);
        } else {
          backward_synapses<T, W>(layer.recurrent, begin, end, v, of_column[column], gn[column],
                                  gd[column], to, sums.recurrent);
        }
      }
    }
  }

  // `total` is the denominator. Where a step of 0 holds a neuron without capacitance, any longer
  // one jumps to its end, and there is no derivative: taken for 0, as the reference has it.
  static FASTLTC_INLINE void add_grad_dt(const BackwardStep<T, W>& step, int r, int64_t j,
                                         vec total, vec value) {
    step.add_grad_dt(r, j, total == kLeastCapacity<T> ? vec{} : value);
  }

  // What a neuron's own parameters get from a step, and gn and gd for its sensory synapses. For a
  // leaky neuron this is also where its gradient runs back through the unfolds.
  template <Timespans timespans>
  void neuron_sums(const BackwardStep<T, W>& step, int64_t j, bool driven) {
    const int64_t N = in.size.N, U = in.size.U;
    vec sum_n{}, sum_d{}, sum_c{};
    for (int r = 0; r < W; ++r) {
      vec gn{}, gd{};
      vec carry = S::load(g.at(r, U * N + j));
      vec denominator{}, inverse{};
      if (!driven) {
        denominator = unfolds.template total<timespans>(step, S::load(unfolds.den.at(r, j)), r, j);
        inverse = T(1) / denominator;
      }
      vec state = S::load(after(step, U - 1).at(r, j));
      const auto add_unfold = [&](int64_t u, vec earlier) {
        vec gt;
        if (driven) {
          gt = S::load(g.at(r, (u + 1) * N + j));
        } else {
          gt = carry * inverse;
          carry = gt * P::at(layer.capacity, j) + S::load(g.at(r, u * N + j));
          if constexpr (timespans == Timespans::differentiated) {
            add_grad_dt(
                step, r, j, denominator,
                gt * (S::load(unfolds.num.at(r, j)) - S::load(unfolds.den.at(r, j)) * state));
          }
        }
        gn += gt;
        gd -= gt * state;
        sum_c += gt * (earlier - state);
        state = earlier;
      };
      for (int64_t u = U - 1; u >= 0; --u) add_unfold(u, S::load(before(step, u).at(r, j)));
      if (!driven) S::store(g.at(r, j), carry);
      gn = step.template times_step<timespans>(gn, r, j);
      gd = step.template times_step<timespans>(gd, r, j);
      S::store(grad_n.at(r, j), gn * kScale<T>);
      S::store(grad_d.at(r, j), gd * kScale<T>);
      sum_n += gn;
      sum_d += gd;
    }
    add_to_row(sums.numerator, j, sum_n);
    add_to_row(sums.denominator, j, sum_d);
    add_to_row(sums.capacity, j, sum_c);
  }

  void sensory_backward(const BackwardStep<T, W>& step) {
    for (int r = 0; r < W; ++r) clear_rows(grad_u.at(r, 0), in.size.I);
    for (int64_t j = 0; j < in.size.N; ++j) {
      const int64_t begin = layer.sensory.column[j], end = layer.sensory.column[j + 1];
      vec gn[W], gd[W];
      for (int r = 0; r < W; ++r) {
        gn[r] = S::load(grad_n.at(r, j));
        gd[r] = S::load(grad_d.at(r, j));
      }
      backward_synapses<T, W>(layer.sensory, begin, end, constant(step.u),
                              sensory_kept + begin * W * S::lanes, gn, gd, grad_u, sums.sensory);
    }
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
