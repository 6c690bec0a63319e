// A CfC layer as its kernels read it, and the maths of its cells.
//
// A layer is a chain of stages (stage.h), each a product of a packed weight with what the stage
// before it gives and, for a cell or the first of a backbone, with the cell's own state; before the
// chain there may be the memory cell of mixed memory, whose output then takes the place of that
// state.
//   z = [from, own] W + b        cell: z are the gates of its neurons, and
//   gated:    h' = tanh z1 (1 - r) + r tanh z2       r = sigmoid(z3 dt + z4)
//   no_gate:  h' = tanh z1 + r tanh z2
//   pure:     h' = A - A exp(-dt (|w_tau| + |z1|)) z1
// (docs/equations.md; Hasani et al., Closed-form continuous-time neural networks, 2022.) Without
// time steps the two time heads are added up beforehand, and z3 + z4 is one gate.
//
// Layout: what belongs to rows (rows.h) is [row][...]. `states` of the caller holds the states
// [T + 1][B][N], then the cells' gates [rows][N][gates], then for each backbone layer what goes
// into its activation [rows][units], then what the memory cell keeps [rows][N][5].
#pragma once

#include "core/cfc_problem.h"
#include "cuda/frame/device.h"
#include "cuda/stage.h"

namespace fastltc::cuda {

// What the recurrent kernels of all plans share.
template <typename T>
struct CfcLayer {
  LayerSizes size;
  SequenceRows<T> rows;
  CfcMode mode = CfcMode::gated;
  Activation activation = Activation::lecun_tanh;
  const T* given = nullptr;         // [rows][units][stride]: bias and x's share of the first stage
  bool remembers = false;           // has a memory cell
  const T* given_memory = nullptr;  // the same of that
  SequenceView<const T> h0;

  FASTLTC_DEVICE int64_t row(int64_t b, int64_t t) const { return t * rows.B + b; }
  FASTLTC_DEVICE int64_t state_width() const { return remembers ? 2 * size.N : size.N; }
  // In full: state_or_zero of it takes up to five registers more.
  FASTLTC_DEVICE T initial(int64_t b, int64_t j) const {
    return h0.data == nullptr ? T(0) : h0.data[b * h0.stride_b + j * h0.stride_c];
  }
  // The output of neuron j, negative where it is none.
  FASTLTC_DEVICE int64_t output_of(int64_t j) const { return j - (size.N - size.M); }
};

// What the backward pass is given and writes, but for the stages' dz.
template <typename T>
struct CfcWanted : Wanted<T> {
  T* grad_dt = nullptr;    // [rows][N]; null: not wanted
  T* grad_pure = nullptr;  // [rows][2][N], the terms of w_tau and A; null: not pure

  // Of the state after the last step.
  FASTLTC_DEVICE T last_gradient(const CfcLayer<T>& layer, int64_t b, int64_t j) const {
    T g = state_or_zero(this->grad_hn, b, j);
    const int64_t m = layer.output_of(j);
    if (this->of_last() && m >= 0 && j < layer.size.N) g += element(this->grad_output, b, 0, m);
    return g;
  }
  // Added where the chain arrives at neuron j in step t.
  FASTLTC_DEVICE T step_gradient(const CfcLayer<T>& layer, int64_t b, int64_t t, int64_t j) const {
    const int64_t m = layer.output_of(j);
    return this->of_steps() && m >= 0 ? element(this->grad_output, b, t, m) : T(0);
  }
};

FASTLTC_DEVICE float exp_of(float x) { return ::exp2f(x * kLog2E<float>); }
FASTLTC_DEVICE double exp_of(double x) { return ::exp2(x * kLog2E<double>); }
FASTLTC_DEVICE float erf_of(float x) { return ::erff(x); }
FASTLTC_DEVICE double erf_of(double x) { return ::erf(x); }
template <typename T>
FASTLTC_DEVICE T absolute(T x) {
  return x < T(0) ? -x : x;
}

// The value of a backbone's activation and its slope.
template <typename T>
struct Activated {
  T value;
  T slope;
};

template <typename T>
FASTLTC_DEVICE Activated<T> activate(Activation activation, T x) {
  switch (activation) {
    case Activation::silu: {
      const T s = sigmoid(x);
      return {x * s, s * (T(1) + x * (T(1) - s))};
    }
    case Activation::relu:
      return {x <= T(0) ? T(0) : x, x <= T(0) ? T(0) : T(1)};
    case Activation::tanh: {
      const T y = tanh_exp2(x);
      return {y, T(1) - y * y};
    }
    case Activation::gelu: {
      const T phi = T(0.5) * (T(1) + erf_of(x * T(0.70710678118654752440)));
      // e^(-x^2 / 2) / sqrt(2 pi)
      return {x * phi, phi + x * exp_of(T(-0.5) * x * x) * T(0.39894228040143267794)};
    }
    default: {
      const T y = tanh_exp2(x * T(0.666));
      return {y * T(1.7159), (T(1) - y * y) * T(1.7159 * 0.666)};
    }
  }
}

// A neuron's new state from its gates' sums z; what the backward pass needs goes to `keep`.
template <typename T, int gates>
FASTLTC_DEVICE T cell_forward(CfcMode mode, const T (&z)[gates], T dt, T w_tau, T A,
                              T (&keep)[gates]) {
  if constexpr (gates == 1) {
    keep[0] = z[0];
    return A - A * exp_of(-dt * (absolute(w_tau) + absolute(z[0]))) * z[0];
  } else {
    T time = z[2];
    if constexpr (gates == 4) {
      keep[3] = time;
      time = time * dt + z[3];
    }
    keep[0] = tanh_exp2(z[0]);
    keep[1] = tanh_exp2(z[1]);
    keep[2] = sigmoid(time);
    const T second = keep[2] * keep[1];
    return mode == CfcMode::gated ? keep[0] * (T(1) - keep[2]) + second : keep[0] + second;
  }
}

// Gradients of a neuron's sums, time step, w_tau and A.
template <typename T, int gates>
struct CellGradient {
  T dz[gates] = {};
  T dt = 0;
  T w_tau = 0;
  T A = 0;
};

template <typename T, int gates>
FASTLTC_DEVICE CellGradient<T, gates> cell_backward(CfcMode mode, const T (&keep)[gates], T dt,
                                                    T w_tau, T A, T g) {
  CellGradient<T, gates> grad;
  const T f = keep[0];
  if constexpr (gates == 1) {
    const T decay = exp_of(-dt * (absolute(w_tau) + absolute(f)));
    const T through = g * decay * A;
    grad.dz[0] = through * (dt * absolute(f) - T(1));
    grad.w_tau = through * f * dt * (w_tau > T(0) ? T(1) : w_tau < T(0) ? T(-1) : T(0));
    grad.A = g * (T(1) - decay * f);
    grad.dt = through * f * (absolute(w_tau) + absolute(f));
  } else {
    const T second = keep[1], gate = keep[2];
    const bool gated = mode == CfcMode::gated;
    const T grad_gate = g * (gated ? second - f : second) * gate * (T(1) - gate);
    grad.dz[0] = (gated ? g * (T(1) - gate) : g) * (T(1) - f * f);
    grad.dz[1] = g * gate * (T(1) - second * second);
    if constexpr (gates == 4) {
      grad.dz[2] = grad_gate * dt;
      grad.dz[3] = grad_gate;
      grad.dt = grad_gate * keep[3];
    } else {
      grad.dz[2] = grad_gate;
    }
  }
  return grad;
}

// The factor on unit u of a backbone's layer.
template <typename T>
FASTLTC_DEVICE T dropout_factor(const Stage<T>& stage, int64_t b, int64_t t, int64_t u) {
  return stage.dropout.data == nullptr ? T(1) : element(stage.dropout, b, t, u);
}

// What neuron u of a cell makes of its sums z in a step: its state, `held` where the sample does
// not run. Writes what is kept and the output.
template <typename T, int gates>
FASTLTC_DEVICE T finish_cell(const CfcLayer<T>& layer, const Results<T>& out, const Stage<T>& stage,
                             int64_t b, int64_t t, int u, const T (&z)[gates], T dt, T held,
                             bool active, bool is_there = true) {
  const int j = stage.first + u;
  const int64_t m = layer.output_of(j);
  const T w_tau = gates == 1 ? stage.w_tau[u] : T(0), A = gates == 1 ? stage.A[u] : T(0);
  T keep[gates];
  const T after = cell_forward<T, gates>(layer.mode, z, dt, w_tau, A, keep);
  const T state = active ? after : held;
  if (!is_there) return state;
  if (stage.kept != nullptr) {
    T* const kept = stage.kept + layer.row(b, t) * stage.kept_pitch + u * gates;
    FASTLTC_UNROLL
    for (int g = 0; g < gates; ++g) kept[g] = active ? keep[g] : T(0);
  }
  if (out.return_sequences && m >= 0) element(out.output, b, t, m) = active ? state : T(0);
  return state;
}

// The gradient of those sums from that of the state. Writes the gradients of the neuron's time
// step, w_tau and A.
template <typename T, int gates>
FASTLTC_DEVICE CellGradient<T, gates> finish_cell_backward(const CfcLayer<T>& layer,
                                                           const CfcWanted<T>& grad,
                                                           const Stage<T>& stage, int64_t b,
                                                           int64_t t, int u, T g, bool active) {
  const int j = stage.first + u;
  const int64_t r = layer.row(b, t), N = layer.size.N;
  CellGradient<T, gates> sums;
  if (active) {
    const T* const kept = stage.kept + r * stage.kept_pitch + u * gates;
    const T w_tau = gates == 1 ? stage.w_tau[u] : T(0), A = gates == 1 ? stage.A[u] : T(0);
    const T dt = gates == 3 ? T(1) : layer.rows.step(b, t, j);
    T keep[gates];
    FASTLTC_UNROLL
    for (int n = 0; n < gates; ++n) keep[n] = kept[n];
    sums = cell_backward<T, gates>(layer.mode, keep, dt, w_tau, A,
                                   g + grad.step_gradient(layer, b, t, j));
  }
  if (grad.grad_dt != nullptr) grad.grad_dt[r * N + j] = sums.dt;
  if (grad.grad_pure != nullptr) {
    grad.grad_pure[2 * r * N + j] = sums.w_tau;
    grad.grad_pure[(2 * r + 1) * N + j] = sums.A;
  }
  return sums;
}

// The gradient of what goes into the activation of unit u of a backbone's layer, from that of what
// comes out of it.
template <typename T>
FASTLTC_DEVICE T backbone_gradient(const CfcLayer<T>& layer, const Stage<T>& stage, int64_t b,
                                   int64_t t, int64_t u, T g) {
  const T kept = stage.kept[layer.row(b, t) * stage.kept_pitch + u];
  return g * activate(layer.activation, kept).slope * dropout_factor(stage, b, t, u);
}

}  // namespace fastltc::cuda
