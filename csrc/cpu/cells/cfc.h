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
// Frame: frame/sequence_tile.h; the chain of products: cfc_packed.h. Bound by the multiply-adds of the
// heads. The backward pass runs the chain back step by step and puts each product's gradients and
// inputs by; every few steps, before they leave the cache, they are multiplied into the gradients
// of the weights.
#pragma once

#include "core/cfc_problem.h"
#include "cpu/cells/activations.h"
#include "cpu/cells/cfc_packed.h"
#include "cpu/cells/dense.h"
#include "cpu/cells/gates.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"
#include "cpu/frame/step.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Of dropout, on a layer of the backbone behind the first.
template <typename T, int W>
void load_factors(const CfcInputs<T>& in, int64_t layer, const StepInputs<T, W>& step, int r,
                  T* rows) {
  SequenceView<const T> view = in.dropout[layer];
  view.data += in.net * in.backbone_units * view.stride_c;
  load_rows(view, step.t, in.backbone_units, step.tile.group[r], rows);
}

template <typename T, int W, Lanes lanes = Lanes::samples>
struct CfcForward {
  using S = Simd<T>;
  using vec = typename S::vec;
  using P = Parameter<T, lanes>;

  const CfcInputs<T>& in;
  const PackedCfc<T, lanes>& layer;
  Rows<T> product{};      // [widest]
  Rows<T> activations{};  // [backbone units] the backbone's last
  Rows<T> factors{};      // [backbone units] of dropout

  void take(Arena& arena) {
    product.take(arena, W, layer.widest);
    activations.take(arena, W, in.backbone_units);
    factors.take(arena, W, in.dropout == nullptr ? 0 : in.backbone_units);
  }

  void begin(const StepInputs<T, W>&) {}
  void unfold(const StepInputs<T, W>& step, Rows<const T> h, Rows<T> next, Rows<T> kept) {
    Rows<const T> from = constant(step.u);
    for (int64_t s = 0; s < layer.count; ++s) {
      const CfcStage<T, lanes>& stage = layer.stages[s];
      dense_rows<T, W>(stage.forward, from, stage.inputs, h.from(stage.state_row), stage.own,
                       product);
      if (stage.backbone) {
        backbone(step, stage, s, kept);
        from = constant(activations);
      } else {
        cell(step, stage, next, kept);
        from = constant(next, stage.state_row);
      }
    }
  }

 private:
  void backbone(const StepInputs<T, W>& step, const CfcStage<T, lanes>& stage, int64_t index,
                Rows<T> kept) {
    const bool dropped = in.dropout != nullptr && index > 0;
    for (int r = 0; r < W; ++r) {
      if (dropped) load_factors(in, index - 1, step, r, factors.at(r, 0));
      for (int64_t j = 0; j < stage.size; ++j) {
        const vec z = S::load(product.at(r, j));
        S::store(kept.at(r, stage.kept_row + j), z);
        vec value = activate<T>(in.activation, z).value;
        if (dropped) value *= S::load(factors.at(r, j));
        S::store(activations.at(r, j), value);
      }
    }
  }

  void cell(const StepInputs<T, W>& step, const CfcStage<T, lanes>& stage, Rows<T> next,
            Rows<T> kept) {
    for (int64_t j = 0; j < stage.size; ++j) {
      for (int r = 0; r < W; ++r) {
        const int64_t neuron = stage.state_row + j;
        const T* const z = product.at(r, j * layer.gates);
        T* const keep = kept.at(r, stage.kept_row + j * layer.gates);
        const vec f1 = S::load(z);
        if (in.mode == CfcMode::pure) {
          const auto w_tau = P::at(stage.w_tau, j), A = P::at(stage.A, j);
          const vec decay = pure_decay<T>(f1, w_tau < T(0) ? -w_tau : w_tau, step.time(r, neuron));
          S::store(keep, f1);
          S::store(next.at(r, neuron), A - decay * f1 * A);
          continue;
        }
        const vec t1 = tanh<T>(f1), t2 = tanh<T>(S::load(z + S::lanes));
        vec time = S::load(z + 2 * S::lanes);
        if (layer.gates == 4) {
          S::store(keep + 3 * S::lanes, time);
          time = time * step.time(r, neuron) + S::load(z + 3 * S::lanes);
        }
        const vec gate = sigmoid<T>(time);
        S::store(keep, t1);
        S::store(keep + S::lanes, t2);
        S::store(keep + 2 * S::lanes, gate);
        S::store(next.at(r, neuron), interpolated<T>(in.mode, t1, t2, gate));
      }
    }
  }
};

template <typename T, int W, Lanes lanes = Lanes::samples>
struct CfcBackward {
  using S = Simd<T>;
  using vec = typename S::vec;
  using P = Parameter<T, lanes>;
  using Sums = CfcSums<T, lanes>;

  const CfcInputs<T>& in;
  const PackedCfc<T, lanes>& layer;
  const Sums sums;
  Rows<T> grad_after{};   // [N] and what the cells of a chain give back to those before them
  Rows<T> grad_before{};  // [N]
  Rows<T> grad_u{};       // [widest] what a stage gives back to its inputs; in the end that of u
  Rows<T> factors{};      // [backbone units]
  PutByProducts<T, W, lanes> products{};  // of each stage

  void take(Arena& arena) {
    grad_after.take(arena, W, in.size.N);
    grad_before.take(arena, W, in.size.N);
    grad_u.take(arena, W, layer.widest);
    factors.take(arena, W, in.dropout == nullptr ? 0 : in.backbone_units);
    products.take(arena, layer.count, in.size.T, sums.stages,
                  [&](int64_t s) -> const auto& { return layer.stages[s].forward; });
  }

  void start() { products.start(); }
  void step(const BackwardStep<T, W>& step) {
    const Rows<const T> h = step.before, after = step.after;
    for (int r = 0; r < W; ++r) clear_rows(grad_before.at(r, 0), in.size.N);
    for (int64_t s = layer.count - 1; s >= 0; --s) {
      const CfcStage<T, lanes>& stage = layer.stages[s];
      // The gradient of the stage's product, where it is put by.
      const Rows<T> grad_product = products.gradients(s);
      if (stage.backbone) {
        // The stage after it left the gradient of the activations in grad_u.
        copy_tile<T, W>(constant(grad_u), stage.size, grad_product);
        backbone_again(step, s, {}, grad_product);
      } else {
        cell_backward(step, stage, grad_product);
      }
      const bool chained = s > 0 && !layer.stages[s - 1].backbone;
      Rows<const T> from = constant(step.u);
      if (chained) {
        from = after.from(layer.stages[s - 1].state_row);
      } else if (s > 0) {
        // Into grad_u, which is read before it is written.
        backbone_again(step, s - 1, grad_u, {});
        from = constant(grad_u);
      }
      products.put_inputs(s, from, stage.inputs, h.from(stage.state_row), stage.own);
      dense_rows<T, W>(stage.backward, constant(grad_product), stage.forward.rows, {}, 0, grad_u);
      add_tile(grad_u, stage.inputs, stage.own, grad_before, stage.state_row);
      if (chained) add_tile(grad_u, 0, stage.inputs, grad_after, layer.stages[s - 1].state_row);
    }
    products.end_step(step.t == 0);
  }

 private:
  // to[begin + k] += from[first + k]
  static FASTLTC_INLINE void add_tile(Rows<T> from, int64_t first, int64_t count, Rows<T> to,
                                      int64_t begin) {
    for (int r = 0; r < W; ++r) {
      for (int64_t k = 0; k < count; ++k) {
        add_to_row(to.at(r, 0), begin + k, S::load(from.at(r, first + k)));
      }
    }
  }

  void cell_backward(const BackwardStep<T, W>& step, const CfcStage<T, lanes>& stage,
                     Rows<T> grad_product) {
    for (int64_t j = 0; j < stage.size; ++j) {
      const int64_t neuron = stage.state_row + j;
      vec sum_w{}, sum_A{};
      for (int r = 0; r < W; ++r) {
        const vec g = S::load(grad_after.at(r, neuron));
        const T* const keep = step.kept.at(r, stage.kept_row + j * layer.gates);
        T* const z = grad_product.at(r, j * layer.gates);
        const vec f1 = S::load(keep);
        if (in.mode == CfcMode::pure) {
          const auto w_tau = P::at(stage.w_tau, j), A = P::at(stage.A, j);
          const vec dt = step.time(r, neuron);
          const vec decay = pure_decay<T>(f1, w_tau < T(0) ? -w_tau : w_tau, dt);
          const vec size = -S::abs_negative(f1);
          const vec through = g * decay * A;
          S::store(z, through * (dt * size - T(1)));
          const auto zero = w_tau - w_tau;
          const auto sign = w_tau > T(0) ? zero + T(1) : w_tau < T(0) ? zero - T(1) : zero;
          sum_w += through * f1 * dt * sign;
          sum_A += g * (T(1) - decay * f1);
          if (step.dt_rows > 0) {
            step.add_grad_dt(r, neuron, through * f1 * (size + (w_tau < T(0) ? -w_tau : w_tau)));
          }
          continue;
        }
        const vec f2 = S::load(keep + S::lanes), gate = S::load(keep + 2 * S::lanes);
        const bool gated = in.mode == CfcMode::gated;
        const vec grad_gate = g * (gated ? f2 - f1 : f2) * gate * (T(1) - gate);
        S::store(z, (gated ? g * (T(1) - gate) : g) * (T(1) - f1 * f1));
        S::store(z + S::lanes, g * gate * (T(1) - f2 * f2));
        if (layer.gates == 3) {
          S::store(z + 2 * S::lanes, grad_gate);
        } else {
          S::store(z + 2 * S::lanes, grad_gate * step.time(r, neuron));
          S::store(z + 3 * S::lanes, grad_gate);
          step.add_grad_dt(r, neuron, grad_gate * S::load(keep + 3 * S::lanes));
        }
      }
      if (in.mode == CfcMode::pure) {
        add_to_row(sums.w_tau, neuron, sum_w);
        add_to_row(sums.A, neuron, sum_A);
      }
    }
  }

  // The activations of a backbone layer again, into `to`, and its slopes times `gradient` into
  // `gradient`, where that is not null.
  void backbone_again(const BackwardStep<T, W>& step, int64_t s, Rows<T> to, Rows<T> gradient) {
    const CfcStage<T, lanes>& stage = layer.stages[s];
    const bool dropped = in.dropout != nullptr && s > 0;
    for (int r = 0; r < W; ++r) {
      if (dropped) load_factors(in, s - 1, step, r, factors.at(r, 0));
      for (int64_t j = 0; j < stage.size; ++j) {
        const Activated<T> y =
            activate<T>(in.activation, S::load(step.kept.at(r, stage.kept_row + j)));
        const vec factor = dropped ? S::load(factors.at(r, j)) : S::set(T(1));
        if (to.data != nullptr) S::store(to.at(r, j), y.value * factor);
        if (gradient.data != nullptr) {
          S::store(gradient.at(r, j), S::load(gradient.at(r, j)) * y.slope * factor);
        }
      }
    }
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
