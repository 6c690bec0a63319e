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
// sigmoids: one per synapse, unfold and register, 12 to 13 cycles on Zen 4. The backward pass knows
// every v (all unfolds are kept: N values against the S sigmoids of an unfold), so it walks the
// columns once: evaluate a column's sigmoids again into L1, get its denominator, then use them for
// the gradient at once.
#pragma once

#include "core/ltc_problem.h"
#include "cpu/cells/ltc_packed.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"
#include "cpu/frame/step.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Adds the synapses [begin, end) onto one neuron to its numerator, where that is asked for, and
// denominator. With `keeps` their sigmoids go to `kept`, [synapse][W][lanes].
template <typename T, int W, bool with_numerator = true, bool keeps = false, Lanes lanes>
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
      const auto s = S::sigmoid_exp2(S::load(v + r * pre.stride) * p.a + p.b);
      if constexpr (keeps) S::store(kept + ((k - begin) * W + r) * S::lanes, s);
      if constexpr (with_numerator) num[r] += s * p.we;
      den[r] += s * p.w;
    }
  }
}

// Gradient through the synapses [begin, end) onto one neuron, whose numerator and denominator have
// the gradients gn and gd: into the presynaptic rows and into the four sums of each synapse. With
// the weights scaled as PackedLtc::scale_weights says, H and HV come out times -1 / log2(e), and the
// factor sigma of the presynaptic gradient is the `a` that is at hand. P and H are plain additions,
// which have units of their own beside the multiply-adds.
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

template <typename T, int W, Lanes lanes = Lanes::samples>
struct LtcForward {
  using S = Simd<T>;
  using vec = typename S::vec;
  using P = Parameter<T, lanes>;

  const LtcInputs<T>& in;
  const LtcLayer<T, lanes>& layer;
  Rows<T> num{};  // [N]: driven neurons: sums so far; leaky ones: v' = num + den v
  Rows<T> den{};  // [N]

  void take(Arena& arena) {
    num.take(arena, W, in.size.N);
    den.take(arena, W, in.size.N);
  }

  void begin(const StepInputs<T, W>& step) {
    static_switch<Timespans::unit, Timespans::given>(step.timespans, [&](auto timespans) {
      this->template sensory_sums<decltype(timespans)::value>(step);
    });
  }
  void unfold(const StepInputs<T, W>& step, Rows<const T> from, Rows<T> to, Rows<T>) {
    static_switch<Timespans::unit, Timespans::given>(step.timespans, [&](auto timespans) {
      this->template unfold<decltype(timespans)::value>(step, from, to);
    });
  }

  template <Timespans timespans>
  void sensory_sums(const StepInputs<T, W>& step) {
    for (int64_t j = 0; j < in.size.N; ++j) {
      vec n[W], d[W];
      for (int r = 0; r < W; ++r) {
        n[r] = S::set(P::at(layer.leak_numerator, j));
        d[r] = S::set(P::at(layer.leak_denominator, j));
      }
      add_synapses<T, W>(layer.sensory, layer.sensory.column[j], layer.sensory.column[j + 1],
                         constant(step.u), n, d);
      const bool driven = layer.recurrent.column[j + 1] > layer.recurrent.column[j];
      for (int r = 0; r < W; ++r) {
        if (!driven) {
          const vec rate =
              T(1) / (step.template times_step<timespans>(d[r], r, j) + P::at(layer.capacity, j));
          n[r] = step.template times_step<timespans>(n[r], r, j) * rate;
          d[r] = rate * P::at(layer.capacity, j);
        }
        S::store(num.at(r, j), n[r]);
        S::store(den.at(r, j), d[r]);
      }
    }
  }

  template <Timespans timespans>
  void unfold(const StepInputs<T, W>& step, Rows<const T> from, Rows<T> to) {
    for (int64_t d = 0; d < layer.driven_count; ++d) {
      const int64_t j = layer.driven[d];
      vec n[W], e[W];
      for (int r = 0; r < W; ++r) {
        n[r] = S::load(num.at(r, j));
        e[r] = S::load(den.at(r, j));
      }
      add_synapses<T, W>(layer.recurrent, layer.recurrent.column[j], layer.recurrent.column[j + 1],
                         from, n, e);
      for (int r = 0; r < W; ++r) {
        const vec numerator = S::load(from.at(r, j)) * P::at(layer.capacity, j) +
                              step.template times_step<timespans>(n[r], r, j);
        const vec denominator = step.template times_step<timespans>(e[r], r, j) + P::at(layer.capacity, j);
        S::store(to.at(r, j), numerator / denominator);
      }
    }
    for (int64_t d = 0; d < layer.leaky_count; ++d) {
      const int64_t j = layer.leaky[d];
      for (int r = 0; r < W; ++r) {
        S::store(to.at(r, j),
                 S::load(from.at(r, j)) * S::load(den.at(r, j)) + S::load(num.at(r, j)));
      }
    }
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
  Rows<T> num{};              // [N] sums without the recurrent synapses
  Rows<T> den{};              // [N]
  T* sensory_kept = nullptr;  // [sensory synapses][W][lanes]
  T* column_kept[2] = {};     // [largest in-degree][W][lanes], of this column and of the next
  // g[u] is the gradient of the state before unfold u; g[U] of the state after the step. Where a
  // driven neuron's g[u + 1] has been used, its place keeps gt.
  Rows<T> g{};            // [U + 1][N]
  Rows<T> grad_n{};       // [N] gn summed over the unfolds of the step
  Rows<T> grad_d{};       // [N]
  Rows<T> grad_u{};       // [I]
  Rows<T> grad_before{};  // g[0]
  Rows<T> grad_after{};   // g[U]

  void take(Arena& arena) {
    const int64_t N = in.size.N, U = in.size.U;
    num.take(arena, W, N);
    den.take(arena, W, N);
    sensory_kept = arena.take<T>(layer.sensory.count * W * S::lanes);
    for (T*& kept : column_kept) kept = arena.take<T>(layer.max_in_degree * W * S::lanes);
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
  template <Timespans timespans>
  void step_back(const BackwardStep<T, W>& step) {
    const int64_t N = in.size.N, U = in.size.U;
    sensory_sums<timespans>(step);
    for (int r = 0; r < W; ++r) {
      for (int64_t k = 0; k < U * N; ++k) S::store(g.at(r, k), vec{});
    }
    for (int64_t u = U - 1; u >= 0; --u) unfold<timespans>(step, u);
    for (int64_t j = 0; j < N; ++j) {
      neuron_sums<timespans>(step, j, layer.recurrent.column[j + 1] > layer.recurrent.column[j]);
    }
    sensory_backward(step);
  }

  template <Timespans timespans>
  void sensory_sums(const BackwardStep<T, W>& step) {
    for (int64_t j = 0; j < in.size.N; ++j) {
      vec n[W] = {}, d[W] = {};
      const int64_t begin = layer.sensory.column[j];
      add_synapses<T, W, timespans == Timespans::differentiated, true>(
          layer.sensory, begin, layer.sensory.column[j + 1], constant(step.u), n, d,
          sensory_kept + begin * W * S::lanes);
      for (int r = 0; r < W; ++r) {
        if constexpr (timespans == Timespans::differentiated) {
          S::store(num.at(r, j), n[r] * layer.unscale + P::at(layer.leak_numerator, j));
        }
        S::store(den.at(r, j), d[r] * layer.unscale + P::at(layer.leak_denominator, j));
      }
    }
  }

  // gt of the driven neurons, the gradient of all that they read, and their synapses' sums.
  //
  // A column's gradient waits for its denominator, the end of a chain of a hundred cycles. So the
  // next column's sigmoids come before it, more than the processor could reorder by itself.
  template <Timespans timespans>
  FASTLTC_APART void unfold(const BackwardStep<T, W>& step, int64_t u) {
    constexpr bool differentiated = timespans == Timespans::differentiated;
    const int64_t N = in.size.N;
    const Rows<const T> v = u == 0 ? step.before : step.after.from((u - 1) * N);
    const Rows<const T> ends = step.after.from(u * N);
    const Rows<T> to = g.from(u * N);
    vec gn[2][W], gd[2][W];
    for (int64_t d = 0; d <= layer.driven_count; ++d) {
      if (d < layer.driven_count) {
        const int64_t j = layer.driven[d];
        vec n[W] = {}, e[W] = {};
        add_synapses<T, W, differentiated, true>(layer.recurrent, layer.recurrent.column[j],
                                                 layer.recurrent.column[j + 1], v, n, e,
                                                 column_kept[d % 2]);
        for (int r = 0; r < W; ++r) {
          if constexpr (differentiated) n[r] = n[r] * layer.unscale + S::load(num.at(r, j));
          e[r] = e[r] * layer.unscale + S::load(den.at(r, j));
          const vec total = step.template times_step<timespans>(e[r], r, j) + P::at(layer.capacity, j);
          const vec gt = S::load(g.at(r, (u + 1) * N + j)) / total;
          const vec after = S::load(ends.at(r, j));
          S::store(g.at(r, (u + 1) * N + j), gt);
          S::store(to.at(r, j), S::load(to.at(r, j)) + gt * P::at(layer.capacity, j));
          gn[d % 2][r] = step.template times_step<timespans>(gt, r, j);
          gd[d % 2][r] = -gn[d % 2][r] * after;
          if constexpr (differentiated) add_grad_dt(step, r, j, total, gt * (n[r] - e[r] * after));
        }
      }
      if (d > 0) {
        const int64_t j = layer.driven[d - 1];
        const int before = (d - 1) % 2;
        backward_synapses<T, W>(layer.recurrent, layer.recurrent.column[j],
                                layer.recurrent.column[j + 1], v, column_kept[before], gn[before],
                                gd[before], to, sums.recurrent);
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
      vec total{}, rate{};
      if (!driven) {
        const vec d = S::load(den.at(r, j));
        total = step.template times_step<timespans>(d, r, j) + P::at(layer.capacity, j);
        rate = T(1) / total;
      }
      vec after = S::load(step.after.at(r, (U - 1) * N + j));
      const auto add_unfold = [&](int64_t u, vec before) {
        vec gt;
        if (driven) {
          gt = S::load(g.at(r, (u + 1) * N + j));
        } else {
          gt = carry * rate;
          carry = gt * P::at(layer.capacity, j) + S::load(g.at(r, u * N + j));
          if constexpr (timespans == Timespans::differentiated) {
            add_grad_dt(step, r, j, total,
                        gt * (S::load(num.at(r, j)) - S::load(den.at(r, j)) * after));
          }
        }
        gn += gt;
        gd -= gt * after;
        sum_c += gt * (before - after);
        after = before;
      };
      for (int64_t u = U - 1; u > 0; --u) {
        add_unfold(u, S::load(step.after.at(r, (u - 1) * N + j)));
      }
      add_unfold(0, S::load(step.before.at(r, j)));
      if (!driven) S::store(g.at(r, j), carry);
      gn = step.template times_step<timespans>(gn, r, j);
      gd = step.template times_step<timespans>(gd, r, j);
      S::store(grad_n.at(r, j), gn);
      S::store(grad_d.at(r, j), gd);
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
