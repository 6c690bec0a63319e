#include "support/cfc_plain.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/plain_sequence.h"

namespace fastltc::test {
namespace {

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::tanh:
      return std::tanh(x);
    case Activation::gelu:
      return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    default:
      return 1.7159 * std::tanh(0.666 * x);
  }
}
double activation_slope(Activation activation, double x) {
  switch (activation) {
    case Activation::silu:
      return sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)));
    case Activation::relu:
      return x > 0.0 ? 1.0 : 0.0;
    case Activation::tanh:
      return 1.0 - std::tanh(x) * std::tanh(x);
    case Activation::gelu:
      return 0.5 * (1.0 + std::erf(x / std::sqrt(2.0))) +
             x * std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::acos(-1.0));
    default:
      return 1.7159 * 0.666 * (1.0 - std::tanh(0.666 * x) * std::tanh(0.666 * x));
  }
}

Values initial_state(const SequenceInputs<double>& in, int64_t b) {
  Values state(in.memory.weight == nullptr ? in.size.N : 2 * in.size.N);
  for (size_t j = 0; j < state.size() && in.h0.data != nullptr; ++j) {
    state[j] = read(in.h0, b, 0, static_cast<int64_t>(j));
  }
  return state;
}

// A dense layer; entries under a mask of 0 are not read.
struct Dense {
  const double* weight;
  const double* bias;
  const double* mask;
  int64_t rows;

  bool present(size_t k) const { return mask == nullptr || mask[k] != 0.0; }
  Values operator()(const Values& z) const {
    Values y(bias, bias + rows);
    for (size_t row = 0; row < y.size(); ++row) {
      for (size_t k = 0; k < z.size(); ++k) {
        if (present(row * z.size() + k)) y[row] += weight[row * z.size() + k] * z[k];
      }
    }
    return y;
  }
  // Adds to the gradients of its inputs and parameters.
  void backward(const Values& z, const Values& dy, Values& dz, double* grad_weight,
                double* grad_bias) const {
    for (size_t row = 0; row < dy.size(); ++row) {
      grad_bias[row] += dy[row];
      for (size_t k = 0; k < z.size(); ++k) {
        const size_t entry = row * z.size() + k;
        if (!present(entry)) continue;
        grad_weight[entry] += dy[row] * z[k];
        dz[k] += weight[entry] * dy[row];
      }
    }
  }
};

// What one cell was given and made of it in a step.
struct CellRun {
  std::vector<Values> given;  // of each backbone layer, then of the heads
  std::vector<Values> sums;   // of each backbone layer
  Values f1, f2, a, b;
  Values state;
};
struct StepRun {
  Values x, h, c;             // before the step
  Values i_a, i_i, i_f, i_o;  // sums of the memory cell
  Values c_after, v;          // the state that the cells are given
  std::vector<CellRun> cells;
};

Dense layer(const CfcInputs<double>& in, int64_t parameter, int64_t rows, const double* mask) {
  return {in.parameters[parameter], in.parameters[parameter + 1], mask, rows};
}
int64_t first_parameter(const CfcInputs<double>& in, int64_t cell) {
  return 2 * in.backbone_layers + cell * (in.mode == CfcMode::pure ? 4 : 8);
}
const double* mask_of(const CfcInputs<double>& in, int64_t cell) {
  return in.masks == nullptr ? nullptr : in.masks[cell];
}
double dropout_of(const CfcInputs<double>& in, int64_t index, int64_t b, int64_t t, int64_t u) {
  if (in.dropout == nullptr || index == 0) return 1.0;
  return read(in.dropout[index - 1], b, t, u);
}
Values slice(const Values& from, int64_t first, int64_t count) {
  return {from.begin() + first, from.begin() + first + count};
}
// The sums of the memory cell's gate.
Values memory_sums(const CfcInputs<double>& in, int64_t gate, const Values& x, const Values& h) {
  const int64_t N = in.size.N, I = in.size.I;
  Values z(N);
  for (int64_t j = 0; j < N; ++j) {
    const int64_t row = gate * N + j;
    z[j] = in.memory.bias[row] + (gate == 2 ? 1.0 : 0.0);
    for (int64_t i = 0; i < I; ++i) z[j] += in.memory.weight[row * I + i] * x[i];
    for (int64_t k = 0; k < N; ++k) z[j] += in.memory.recurrent_weight[row * N + k] * h[k];
  }
  return z;
}

// One step: h and c become those after it.
StepRun run_step(const CfcInputs<double>& in, int64_t b, int64_t t, Values& h, Values& c) {
  const int64_t N = in.size.N;
  StepRun run;
  run.h = h;
  run.c = c;
  for (int64_t i = 0; i < in.size.I; ++i) run.x.push_back(read(in.x, b, t, i));
  run.v = h;
  if (in.memory.weight != nullptr) {
    run.i_a = memory_sums(in, 0, run.x, h);
    run.i_i = memory_sums(in, 1, run.x, h);
    run.i_f = memory_sums(in, 2, run.x, h);
    run.i_o = memory_sums(in, 3, run.x, h);
    for (int64_t j = 0; j < N; ++j) {
      c[j] = c[j] * sigmoid(run.i_f[j]) + std::tanh(run.i_a[j]) * sigmoid(run.i_i[j]);
      run.v[j] = std::tanh(c[j]) * sigmoid(run.i_o[j]);
    }
  }
  run.c_after = c;
  Values input = run.x;
  int64_t first = 0;
  for (int64_t n = 0; n < in.cells; ++n) {
    const int64_t size = in.cell_sizes[n];
    CellRun cell;
    Values z = input;
    const Values own = slice(run.v, first, size);
    z.insert(z.end(), own.begin(), own.end());
    for (int64_t l = 0; l < in.backbone_layers; ++l) {
      cell.given.push_back(z);
      cell.sums.push_back(layer(in, 2 * l, in.backbone_units, nullptr)(z));
      z.assign(in.backbone_units, 0.0);
      for (int64_t u = 0; u < in.backbone_units; ++u) {
        z[u] = activate(in.activation, cell.sums[l][u]) * dropout_of(in, l, b, t, u);
      }
    }
    cell.given.push_back(z);
    const int64_t p = first_parameter(in, n);
    cell.f1 = layer(in, p, size, mask_of(in, n))(z);
    if (in.mode != CfcMode::pure) {
      cell.f2 = layer(in, p + 2, size, mask_of(in, n))(z);
      cell.a = layer(in, p + 4, size, nullptr)(z);
      cell.b = layer(in, p + 6, size, nullptr)(z);
    }
    for (int64_t j = 0; j < size; ++j) {
      const double dt = time_step(in, b, t, first + j);
      if (in.mode == CfcMode::pure) {
        const double w_tau = in.parameters[p + 2][j], A = in.parameters[p + 3][j];
        const double f = cell.f1[j];
        cell.state.push_back(A - A * std::exp(-dt * (std::abs(w_tau) + std::abs(f))) * f);
      } else {
        const double r = sigmoid(cell.a[j] * dt + cell.b[j]);
        const double keep = in.mode == CfcMode::gated ? 1.0 - r : 1.0;
        cell.state.push_back(std::tanh(cell.f1[j]) * keep + r * std::tanh(cell.f2[j]));
      }
    }
    std::copy(cell.state.begin(), cell.state.end(), h.begin() + first);
    input = cell.state;
    first += size;
    run.cells.push_back(std::move(cell));
  }
  return run;
}

void write_output(const CfcInputs<double>& in, const SequenceView<double>& y, int64_t b, int64_t t,
                  const Values& h) {
  for (int64_t m = 0; m < in.size.M; ++m) at(y, b, t, m) = h[in.size.N - in.size.M + m];
}

// Gradients of a cell in a step: g is that of its state. Adds to those of what it was given.
void cell_backward(const CfcInputs<double>& in, const CfcGradients<double>& grad, int64_t n,
                   int64_t first, int64_t b, int64_t t, const CellRun& cell, const Values& g,
                   Values& d_given) {
  const int64_t size = in.cell_sizes[n], p = first_parameter(in, n);
  Values d_f1(size), d_f2(size), d_a(size), d_b(size);
  for (int64_t j = 0; j < size; ++j) {
    const double dt = time_step(in, b, t, first + j);
    double d_dt = 0;
    if (in.mode == CfcMode::pure) {
      const double w_tau = in.parameters[p + 2][j], A = in.parameters[p + 3][j];
      const double f = cell.f1[j], rate = std::abs(w_tau) + std::abs(f);
      const double decay = std::exp(-dt * rate);
      const double sign_f = f > 0 ? 1.0 : f < 0 ? -1.0 : 0.0;
      const double sign_w = w_tau > 0 ? 1.0 : w_tau < 0 ? -1.0 : 0.0;
      d_f1[j] = g[j] * (-A * decay + A * decay * f * dt * sign_f);
      d_dt = g[j] * A * decay * f * rate;
      grad.parameters[p + 2][j] += g[j] * A * decay * f * dt * sign_w;
      grad.parameters[p + 3][j] += g[j] * (1.0 - decay * f);
    } else {
      const double t1 = std::tanh(cell.f1[j]), t2 = std::tanh(cell.f2[j]);
      const double r = sigmoid(cell.a[j] * dt + cell.b[j]);
      const bool gated = in.mode == CfcMode::gated;
      d_f1[j] = g[j] * (gated ? 1.0 - r : 1.0) * (1.0 - t1 * t1);
      d_f2[j] = g[j] * r * (1.0 - t2 * t2);
      const double d_time = g[j] * (gated ? t2 - t1 : t2) * r * (1.0 - r);
      d_a[j] = d_time * dt;
      d_b[j] = d_time;
      d_dt = d_time * cell.a[j];
    }
    if (grad.timespans.data != nullptr) {
      at(grad.timespans, b, t, in.timespans_per_neuron ? first + j : 0) += d_dt;
    }
  }
  Values dz(cell.given.back().size());
  const auto through = [&](int64_t head, const Values& d, const double* mask) {
    layer(in, p + head, size, mask)
        .backward(cell.given.back(), d, dz, grad.parameters[p + head],
                  grad.parameters[p + head + 1]);
  };
  through(0, d_f1, mask_of(in, n));
  if (in.mode != CfcMode::pure) {
    through(2, d_f2, mask_of(in, n));
    through(4, d_a, nullptr);
    through(6, d_b, nullptr);
  }
  for (int64_t l = in.backbone_layers - 1; l >= 0; --l) {
    Values d(in.backbone_units);
    for (int64_t u = 0; u < in.backbone_units; ++u) {
      d[u] = dz[u] * dropout_of(in, l, b, t, u) * activation_slope(in.activation, cell.sums[l][u]);
    }
    dz.assign(cell.given[l].size(), 0.0);
    layer(in, 2 * l, in.backbone_units, nullptr)
        .backward(cell.given[l], d, dz, grad.parameters[2 * l], grad.parameters[2 * l + 1]);
  }
  d_given = dz;
}

// The step backwards: g and gc are the gradients of state and memory after it, then before it.
void step_backward(const CfcInputs<double>& in, const CfcGradients<double>& grad, int64_t b,
                   int64_t t, const StepRun& run, Values& g, Values& gc) {
  const int64_t N = in.size.N, I = in.size.I;
  Values d_v(N), d_x(I);
  int64_t first = N;
  for (int64_t n = in.cells - 1; n >= 0; --n) {
    const int64_t size = in.cell_sizes[n];
    first -= size;
    Values d_given;
    cell_backward(in, grad, n, first, b, t, run.cells[n], slice(g, first, size), d_given);
    const int64_t inputs = n == 0 ? I : in.cell_sizes[n - 1];
    for (int64_t k = 0; k < inputs; ++k) {
      (n == 0 ? d_x[k] : g[first - inputs + k]) += d_given[k];
    }
    for (int64_t k = 0; k < size; ++k) d_v[first + k] += d_given[inputs + k];
  }
  g = d_v;
  if (in.memory.weight != nullptr) {
    Values d_h(N);
    for (int64_t j = 0; j < N; ++j) {
      const double size = std::tanh(run.c_after[j]), a = std::tanh(run.i_a[j]);
      const double i = sigmoid(run.i_i[j]), f = sigmoid(run.i_f[j]), o = sigmoid(run.i_o[j]);
      const double d_c = gc[j] + d_v[j] * o * (1.0 - size * size);
      const double d_z[4] = {d_c * i * (1.0 - a * a), d_c * a * i * (1.0 - i),
                             d_c * run.c[j] * f * (1.0 - f), d_v[j] * size * o * (1.0 - o)};
      gc[j] = d_c * f;
      for (int64_t gate = 0; gate < 4; ++gate) {
        const int64_t row = gate * N + j;
        grad.memory.bias[row] += d_z[gate];
        for (int64_t k = 0; k < I; ++k) {
          grad.memory.weight[row * I + k] += d_z[gate] * run.x[k];
          d_x[k] += d_z[gate] * in.memory.weight[row * I + k];
        }
        for (int64_t k = 0; k < N; ++k) {
          grad.memory.recurrent_weight[row * N + k] += d_z[gate] * run.h[k];
          d_h[k] += d_z[gate] * in.memory.recurrent_weight[row * N + k];
        }
      }
    }
    g = d_h;
  }
  for (int64_t k = 0; k < I; ++k) at(grad.x, b, t, k) = d_x[k];
}

void add_output_gradient(const CfcInputs<double>& in, const CfcGradients<double>& grad, int64_t b,
                         int64_t t, Values& g) {
  if (grad.grad_output.data == nullptr) return;
  for (int64_t m = 0; m < in.size.M; ++m) {
    g[in.size.N - in.size.M + m] += read(grad.grad_output, b, t, m);
  }
}

// The shapes of the parameters, as many values each.
std::vector<int64_t> parameter_sizes(const CfcInputs<double>& in) {
  std::vector<int64_t> sizes;
  int64_t from = in.size.I;
  for (int64_t l = 0; l < in.backbone_layers; ++l) {
    sizes.push_back(in.backbone_units * (l == 0 ? in.size.I + in.size.N : in.backbone_units));
    sizes.push_back(in.backbone_units);
  }
  for (int64_t n = 0; n < in.cells; ++n) {
    const int64_t size = in.cell_sizes[n];
    const int64_t columns = in.backbone_layers > 0 ? in.backbone_units : from + size;
    const int64_t heads = in.mode == CfcMode::pure ? 1 : 4;
    for (int64_t head = 0; head < heads; ++head) {
      sizes.push_back(size * columns);
      sizes.push_back(size);
    }
    if (in.mode == CfcMode::pure) sizes.insert(sizes.end(), {size, size});
    from = size;
  }
  return sizes;
}

// The initial state, with the memory behind it, taken up again, or zeros.
void begin(const CfcInputs<double>& in, Values state, Values& h, Values& c) {
  if (in.reset_to_zero) state.assign(state.size(), 0.0);
  h = slice(state, 0, static_cast<int64_t>(h.size()));
  c = Values(state.begin() + static_cast<int64_t>(h.size()), state.end());
}

}  // namespace

void plain_cfc_forward(const CfcInputs<double>& in, const CfcOutputs<double>& out) {
  const LayerSizes& size = in.size;
  for (int64_t b = 0; b < size.B; ++b) {
    Values state = initial_state(in, b);
    Values h = slice(state, 0, size.N), c(state.begin() + size.N, state.end());
    for (int64_t t = 0; t < size.T; ++t) {
      const bool active = t < length_of(in, b);
      if (active && begins_anew(in, b, t)) begin(in, state, h, c);
      if (active) run_step(in, b, t, h, c);
      if (out.return_sequences) write_output(in, out.output, b, t, active ? h : Values(size.N));
    }
    if (!out.return_sequences) write_output(in, out.output, b, 0, h);
    std::copy(c.begin(), c.end(), std::copy(h.begin(), h.end(), out.hn + b * state.size()));
  }
}

void plain_cfc_backward(const CfcInputs<double>& in, const CfcGradients<double>& grad) {
  const LayerSizes& size = in.size;
  const int64_t N = size.N, I = size.I;
  const std::vector<int64_t> sizes = parameter_sizes(in);
  for (size_t k = 0; k < sizes.size(); ++k) std::fill_n(grad.parameters[k], sizes[k], 0.0);
  if (in.memory.weight != nullptr) {
    std::fill_n(grad.memory.weight, 4 * N * I, 0.0);
    std::fill_n(grad.memory.bias, 4 * N, 0.0);
    std::fill_n(grad.memory.recurrent_weight, 4 * N * N, 0.0);
  }
  for (int64_t b = 0; b < size.B; ++b) {
    const int64_t length = length_of(in, b);
    for (int64_t t = 0; t < size.T; ++t) {
      for (int64_t k = 0; k < I; ++k) at(grad.x, b, t, k) = 0.0;
      for (int64_t j = 0; j < (in.timespans_per_neuron ? N : 1); ++j) {
        if (grad.timespans.data != nullptr) at(grad.timespans, b, t, j) = 0.0;
      }
    }
    Values state = initial_state(in, b);
    Values h = slice(state, 0, N), c(state.begin() + N, state.end());
    std::vector<StepRun> runs;
    for (int64_t t = 0; t < length; ++t) {
      if (begins_anew(in, b, t)) begin(in, state, h, c);
      runs.push_back(run_step(in, b, t, h, c));
    }
    Values g(N), gc(c.size()), of_initial(state.size());
    const auto begin_backward = [&](bool was_initial) {
      for (size_t k = 0; k < state.size(); ++k) {
        double& value = k < g.size() ? g[k] : gc[k - g.size()];
        if (was_initial) of_initial[k] += value;
        value = 0.0;
      }
    };
    for (int64_t j = 0; j < N && grad.grad_hn.data != nullptr; ++j) {
      g[j] = read(grad.grad_hn, b, 0, j);
      if (!gc.empty()) gc[j] = read(grad.grad_hn, b, 0, N + j);
    }
    if (!grad.return_sequences) add_output_gradient(in, grad, b, 0, g);
    for (int64_t t = length - 1; t >= 0; --t) {
      if (grad.return_sequences) add_output_gradient(in, grad, b, t, g);
      step_backward(in, grad, b, t, runs[t], g, gc);
      if (begins_anew(in, b, t)) begin_backward(!in.reset_to_zero);
    }
    begin_backward(true);
    if (grad.h0 == nullptr) continue;
    std::copy(of_initial.begin(), of_initial.end(),
              grad.h0 + b * static_cast<int64_t>(state.size()));
  }
}

}  // namespace fastltc::test
