#include "support/ltc_plain.h"

#include <cmath>
#include <list>
#include <vector>

#include "support/memory_cell.h"
#include "support/plain_sequence.h"

namespace fastltc::test {
namespace {

// Of several layers beside each other the dense matrices are stacked.
int64_t dense(const LtcInputs<double>& in, int64_t i, int64_t j) {
  const int64_t each = in.size.N / in.nets;
  return i * each + j % each;
}
int64_t motor(const LtcInputs<double>& in, int64_t m) {
  const int64_t outputs = in.size.M / in.nets;
  return m / outputs * (in.size.N / in.nets) + m % outputs;
}

struct List {
  const SynapseList& list;
  const double *sigma, *mu, *w, *erev;
};
List recurrent_of(const LtcInputs<double>& in) {
  const auto& p = in.parameters;
  return {in.synapses, p.sigma, p.mu, p.w, p.erev};
}
List sensory_of(const LtcInputs<double>& in) {
  const auto& p = in.parameters;
  return {in.sensory_synapses, p.sensory_sigma, p.sensory_mu, p.sensory_w, p.sensory_erev};
}

void add(const LtcInputs<double>& in, const List& l, int64_t j, const Values& pre, double& num,
         double& den) {
  for (int64_t k = l.list.column[j]; k < l.list.column[j + 1]; ++k) {
    const int64_t i = l.list.row[k], e = dense(in, i, j);
    const double s = sigmoid(l.sigma[e] * (pre[i] - l.mu[e]));
    num += l.w[e] * l.erev[e] * s;
    den += l.w[e] * s;
  }
}

Values mapped_inputs(const LtcInputs<double>& in, int64_t b, int64_t t) {
  Values u(in.size.I);
  for (int64_t k = 0; k < in.size.I; ++k) {
    u[k] = read(in.x, b, t, k);
    if (in.parameters.input_w != nullptr) u[k] *= in.parameters.input_w[k];
    if (in.parameters.input_b != nullptr) u[k] += in.parameters.input_b[k];
  }
  return u;
}

struct Unfold {
  Values num, den, next;
};
Unfold run_unfold(const LtcInputs<double>& in, int64_t b, int64_t t, const Values& u,
                  const Values& v) {
  const auto& p = in.parameters;
  const int64_t N = in.size.N;
  Unfold result{Values(N), Values(N), Values(N)};
  for (int64_t j = 0; j < N; ++j) {
    const double dt = time_step(in, b, t, j);
    double &num = result.num[j], &den = result.den[j];
    num = p.gleak[j] * p.vleak[j];
    den = p.gleak[j] + p.epsilon;
    add(in, sensory_of(in), j, u, num, den);
    add(in, recurrent_of(in), j, v, num, den);
    const double capacity = p.cm[j] * static_cast<double>(in.size.U);
    // Where nothing drives it and nothing resists, the state is held.
    const double total = capacity + dt * den;
    result.next[j] = total == 0.0 ? v[j] : (capacity * v[j] + dt * num) / total;
  }
  return result;
}

// From channel `first` of a state, which may be absent.
Values state_at(const SequenceView<const double>& state, int64_t b, int64_t first, int64_t count) {
  Values v(count);
  for (int64_t j = 0; j < count && state.data != nullptr; ++j) {
    v[j] = state.data[b * state.stride_b + (first + j) * state.stride_c];
  }
  return v;
}
Values initial_state(const LtcInputs<double>& in, int64_t b) {
  return state_at(in.h0, b, 0, in.size.N);
}

bool has_memory(const LtcInputs<double>& in) { return in.memory.weight != nullptr; }
Values initial_memory(const LtcInputs<double>& in, int64_t b) {
  return state_at(in.h0, b, in.size.N, has_memory(in) ? in.size.N : 0);
}
int64_t state_width(const LtcInputs<double>& in) { return (has_memory(in) ? 2 : 1) * in.size.N; }
Values inputs(const LtcInputs<double>& in, int64_t b, int64_t t) {
  Values x(in.size.I);
  for (int64_t k = 0; k < in.size.I; ++k) x[k] = read(in.x, b, t, k);
  return x;
}
void run_memory(const LtcInputs<double>& in, int64_t b, int64_t t, Values& v, Values& c) {
  if (!has_memory(in)) return;
  const auto& p = in.memory;
  plain_memory_cell(inputs(in, b, t).data(), in.size.I, p.weight, p.bias, p.recurrent_weight, v, c);
}

// Into the dense gradients of one list, and into the gradient of the presynaptic values.
struct ListGradient {
  double *sigma, *mu, *w, *erev;
};
void list_backward(const LtcInputs<double>& in, const List& l, const ListGradient& g, int64_t j,
                   const Values& pre, double gn, double gd, Values& grad_pre) {
  for (int64_t k = l.list.column[j]; k < l.list.column[j + 1]; ++k) {
    const int64_t i = l.list.row[k], e = dense(in, i, j);
    const double s = sigmoid(l.sigma[e] * (pre[i] - l.mu[e]));
    const double w = l.w[e];
    const double h = (w * l.erev[e] * gn + w * gd) * (s - s * s);
    g.w[e] += l.erev[e] * s * gn + s * gd;
    g.erev[e] += w * s * gn;
    g.mu[e] -= l.sigma[e] * h;
    g.sigma[e] += h * (pre[i] - l.mu[e]);
    grad_pre[i] += l.sigma[e] * h;
  }
}

// Through the memory cell, which was given h and c and left `after`: g from the gradient of its
// state to that of h, grad_c from that of `after` to that of c.
void memory_backward(const LtcInputs<double>& in, const LtcGradients<double>& grad, int64_t b,
                     int64_t t, const Values& h, const Values& c, const Values& after, Values& g,
                     Values& grad_c) {
  const int64_t N = in.size.N, I = in.size.I;
  const auto& p = in.memory;
  const Values x = inputs(in, b, t);
  Values z(p.bias, p.bias + 4 * N), gz(4 * N), gh(N);
  for (int64_t row = 0; row < 4 * N; ++row) {
    for (int64_t k = 0; k < I; ++k) z[row] += p.weight[row * I + k] * x[k];
    for (int64_t k = 0; k < N; ++k) z[row] += p.recurrent_weight[row * N + k] * h[k];
  }
  for (int64_t j = 0; j < N; ++j) {
    const double a = std::tanh(z[j]), i = sigmoid(z[N + j]);
    const double f = sigmoid(z[2 * N + j] + 1.0), o = sigmoid(z[3 * N + j]);
    const double size = std::tanh(after[j]), gc = grad_c[j] + g[j] * o * (1.0 - size * size);
    gz[j] = gc * i * (1.0 - a * a);
    gz[N + j] = gc * a * (i - i * i);
    gz[2 * N + j] = gc * c[j] * (f - f * f);
    gz[3 * N + j] = g[j] * size * (o - o * o);
    grad_c[j] = gc * f;
  }
  for (int64_t row = 0; row < 4 * N; ++row) {
    grad.memory.bias[row] += gz[row];
    for (int64_t k = 0; k < I; ++k) {
      grad.memory.weight[row * I + k] += gz[row] * x[k];
      at(grad.x, b, t, k) += gz[row] * p.weight[row * I + k];
    }
    for (int64_t k = 0; k < N; ++k) {
      grad.memory.recurrent_weight[row * N + k] += gz[row] * h[k];
      gh[k] += gz[row] * p.recurrent_weight[row * N + k];
    }
  }
  g = gh;
}

// The same layer with softplus taken of its parameters, once.
struct Positive {
  explicit Positive(const LtcInputs<double>& given) : in(given) {
    auto& p = in.parameters;
    if (!p.softplus) return;
    const int64_t N = in.size.N;
    p.softplus = false;
    take(p.gleak, N);
    take(p.cm, N);
    take(p.w, N * N / in.nets);
    take(p.sensory_w, in.size.I * N / in.nets);
  }

  // From gradients of the values that were taken to those of what they were taken of.
  void backward(const LtcInputs<double>& given, const LtcGradients<double>& grad) const {
    const auto& p = given.parameters;
    if (!p.softplus) return;
    for (int64_t j = 0; j < in.size.N; ++j) {
      grad.gleak[j] *= sigmoid(p.gleak[j]);
      grad.cm[j] *= sigmoid(p.cm[j]);
      const auto of_list = [&](const SynapseList& list, const double* w, double* grad_w) {
        for (int64_t k = list.column[j]; k < list.column[j + 1]; ++k) {
          const int64_t e = dense(in, list.row[k], j);
          grad_w[e] *= sigmoid(w[e]);
        }
      };
      of_list(in.synapses, p.w, grad.w);
      of_list(in.sensory_synapses, p.sensory_w, grad.sensory_w);
    }
  }

  LtcInputs<double> in;

 private:
  void take(const double*& parameter, int64_t count) {
    Values& taken = values_.emplace_back(parameter, parameter + count);
    for (double& value : taken) value = std::log1p(std::exp(value));
    parameter = taken.data();
  }
  std::list<Values> values_;
};

void backward(const LtcInputs<double>& in, const LtcGradients<double>& grad) {
  const auto& p = in.parameters;
  const int64_t N = in.size.N, I = in.size.I, M = in.size.M, U = in.size.U;
  const ListGradient recurrent{grad.sigma, grad.mu, grad.w, grad.erev};
  const ListGradient sensory{grad.sensory_sigma, grad.sensory_mu, grad.sensory_w,
                             grad.sensory_erev};
  const auto clear = [](double* values, int64_t count) {
    for (int64_t k = 0; values != nullptr && k < count; ++k) values[k] = 0.0;
  };
  clear(grad.memory.weight, 4 * N * I);
  clear(grad.memory.bias, 4 * N);
  clear(grad.memory.recurrent_weight, 4 * N * N);
  for (double* const dense : {grad.gleak, grad.vleak, grad.cm}) {
    for (int64_t j = 0; j < N; ++j) dense[j] = 0.0;
  }
  for (double* const map : {grad.input_w, grad.input_b}) {
    for (int64_t k = 0; map != nullptr && k < I; ++k) map[k] = 0.0;
  }
  for (double* const map : {grad.output_w, grad.output_b}) {
    for (int64_t m = 0; map != nullptr && m < M; ++m) map[m] = 0.0;
  }
  for (int64_t b = 0; b < in.size.B; ++b) {
    const int64_t length = length_of(in, b);
    Values v = initial_state(in, b), c = initial_memory(in, b);
    // Of each step: before the memory cell, before each unfold, after the last one; the memory
    // before and after.
    std::vector<Values> given, states, ends, memories, next_memories;
    for (int64_t t = 0; t < length; ++t) {
      const Values u = mapped_inputs(in, b, t);
      if (begins_anew(in, b, t)) {
        v = initial_state(in, b);
        c = initial_memory(in, b);
        if (in.reset_to_zero) {
          v.assign(v.size(), 0.0);
          c.assign(c.size(), 0.0);
        }
      }
      given.push_back(v);
      memories.push_back(c);
      run_memory(in, b, t, v, c);
      next_memories.push_back(c);
      for (int64_t n = 0; n < U; ++n) {
        states.push_back(v);
        v = run_unfold(in, b, t, u, v).next;
      }
      ends.push_back(v);
    }
    Values g = state_at(grad.grad_hn, b, 0, N);
    Values grad_c = state_at(grad.grad_hn, b, N, has_memory(in) ? N : 0);
    double* const grad_h0 = grad.h0 == nullptr ? nullptr : grad.h0 + b * state_width(in);
    clear(grad_h0, state_width(in));
    // To the initial state.
    const auto begin_backward = [&](bool was_initial) {
      for (int64_t j = 0; grad_h0 != nullptr && was_initial && j < N; ++j) {
        grad_h0[j] += g[j];
        if (has_memory(in)) grad_h0[N + j] += grad_c[j];
      }
      g.assign(N, 0.0);
      grad_c.assign(grad_c.size(), 0.0);
    };
    const auto output_backward = [&](int64_t t, const Values& v) {
      if (grad.grad_output.data == nullptr) return;
      for (int64_t m = 0; m < M; ++m) {
        const double gy = read(grad.grad_output, b, t, m);
        if (grad.output_w != nullptr) grad.output_w[m] += gy * v[motor(in, m)];
        if (grad.output_b != nullptr) grad.output_b[m] += gy;
        g[motor(in, m)] += p.output_w == nullptr ? gy : gy * p.output_w[m];
      }
    };
    if (!grad.return_sequences) output_backward(0, v);
    for (int64_t t = in.size.T - 1; t >= 0; --t) {
      const bool each = in.timespans_per_neuron;
      for (int64_t c = 0; grad.timespans.data != nullptr && c < (each ? N : 1); ++c) {
        at(grad.timespans, b, t, c) = 0.0;
      }
      for (int64_t k = 0; k < I; ++k) at(grad.x, b, t, k) = 0.0;
      if (t >= length) continue;
      if (grad.return_sequences) output_backward(t, ends[t]);
      const Values u = mapped_inputs(in, b, t);
      Values grad_u(I);
      for (int64_t n = U - 1; n >= 0; --n) {
        const Values& v = states[t * U + n];
        const Unfold unfold = run_unfold(in, b, t, u, v);
        Values before(N);
        for (int64_t j = 0; j < N; ++j) {
          const double dt = time_step(in, b, t, j);
          const double capacity = p.cm[j] * static_cast<double>(U);
          const double total = capacity + dt * unfold.den[j];
          if (total == 0.0) before[j] += g[j];
          const double gt = total == 0.0 ? 0.0 : g[j] / total;
          const double gn = dt * gt, gd = -gn * unfold.next[j];
          list_backward(in, recurrent_of(in), recurrent, j, v, gn, gd, before);
          list_backward(in, sensory_of(in), sensory, j, u, gn, gd, grad_u);
          before[j] += capacity * gt;
          grad.gleak[j] += p.vleak[j] * gn + gd;
          grad.vleak[j] += p.gleak[j] * gn;
          grad.cm[j] += gt * (v[j] - unfold.next[j]) * static_cast<double>(U);
          if (grad.timespans.data != nullptr) {
            at(grad.timespans, b, t, each ? j : 0) +=
                gt * (unfold.num[j] - unfold.den[j] * unfold.next[j]);
          }
        }
        g = before;
      }
      for (int64_t k = 0; k < I; ++k) {
        if (grad.input_w != nullptr) grad.input_w[k] += grad_u[k] * read(in.x, b, t, k);
        if (grad.input_b != nullptr) grad.input_b[k] += grad_u[k];
        at(grad.x, b, t, k) = p.input_w == nullptr ? grad_u[k] : grad_u[k] * p.input_w[k];
      }
      if (has_memory(in))
        memory_backward(in, grad, b, t, given[t], memories[t], next_memories[t], g, grad_c);
      if (begins_anew(in, b, t)) begin_backward(!in.reset_to_zero);
    }
    begin_backward(true);
  }
}

}  // namespace

void plain_ltc_forward(const LtcInputs<double>& given, const LtcOutputs<double>& out) {
  const Positive positive(given);
  const LtcInputs<double>& in = positive.in;
  const auto& p = in.parameters;
  for (int64_t b = 0; b < in.size.B; ++b) {
    Values v = initial_state(in, b), c = initial_memory(in, b);
    const auto write = [&](int64_t t, bool active) {
      for (int64_t m = 0; m < in.size.M; ++m) {
        double y = active ? v[motor(in, m)] : 0.0;
        if (active && p.output_w != nullptr) y *= p.output_w[m];
        if (active && p.output_b != nullptr) y += p.output_b[m];
        at(out.output, b, t, m) = y;
      }
    };
    for (int64_t t = 0; t < in.size.T; ++t) {
      const bool active = t < length_of(in, b);
      if (active && begins_anew(in, b, t)) {
        v = initial_state(in, b);
        c = initial_memory(in, b);
        if (in.reset_to_zero) {
          v.assign(v.size(), 0.0);
          c.assign(c.size(), 0.0);
        }
      }
      if (active) run_memory(in, b, t, v, c);
      for (int64_t n = 0; active && n < in.size.U; ++n) {
        v = run_unfold(in, b, t, mapped_inputs(in, b, t), v).next;
      }
      if (out.return_sequences) write(t, active);
    }
    if (!out.return_sequences) write(0, true);
    double* const hn = out.hn + b * state_width(in);
    for (int64_t j = 0; j < in.size.N; ++j) {
      hn[j] = v[j];
      if (has_memory(in)) hn[in.size.N + j] = c[j];
    }
  }
}

void plain_ltc_backward(const LtcInputs<double>& in, const LtcGradients<double>& grad) {
  const Positive positive(in);
  backward(positive.in, grad);
  positive.backward(in, grad);
}

}  // namespace fastltc::test
