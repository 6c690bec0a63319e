// The CfC kernels on every shape that takes another path through them: forward against plain loops,
// all gradients at once against a directional derivative. Buffers have their exact sizes.
#include "cpu/cfc.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "support/check.h"
#include "support/memory_cell.h"
#include "support/parallel.h"

namespace {

using fastltc::Activation;
using fastltc::CfcGradients;
using fastltc::CfcInputs;
using fastltc::CfcMode;
using fastltc::CfcOutputs;
using fastltc::SequenceView;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Case {
  int64_t B, T, I;
  std::vector<int64_t> cells;
  CfcMode mode = CfcMode::gated;
  bool masked = false;
  int64_t backbone_layers = 0;
  int64_t units = 0;
  Activation activation = Activation::lecun_tanh;
  bool dropout = false;
  int timespans = 0;  // 0: none, 1: [B, T], 2: [B, T, N]
  bool lengths = false;
  bool return_sequences = true;
  bool memory = false;
  int threads = 1;

  int64_t state() const { return memory ? 2 * N() : N(); }
  int64_t N() const {
    int64_t total = 0;
    for (const int64_t size : cells) total += size;
    return total;
  }
  int64_t M() const { return cells.back(); }
};

// All that has a gradient, as vectors of one list: x, h0, time steps, then the parameters, then the
// three of the memory cell.
struct Problem {
  Case c;
  std::vector<std::vector<double>> values;
  std::vector<int64_t> rows;  // of the heads and backbone layers, in the order of the stages
  std::vector<int64_t> columns;
  std::vector<std::vector<double>> masks;
  std::vector<double> factors;
  std::vector<int64_t> lengths;
  std::vector<double> grad_output, grad_hn;

  Problem(const Case& which, std::mt19937_64& random) : c(which) {
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    const auto add = [&](int64_t count, double scale) {
      std::vector<double> v(count);
      for (double& value : v) value = scale * normal(random);
      values.push_back(v);
    };
    const int64_t N = c.N();
    add(c.B * c.T * c.I, 1.0);
    add(c.B * c.state(), 1.0);
    add(c.timespans == 2 ? c.B * c.T * N : c.timespans == 1 ? c.B * c.T : 0, 1.0);
    for (double& dt : values[2]) dt = 0.1 + uniform(random);
    int64_t from = c.I;
    for (int64_t layer = 0; layer < c.backbone_layers; ++layer) {
      const int64_t in = layer == 0 ? c.I + N : c.units;
      add(c.units * in, 0.5);
      add(c.units, 0.5);
      from = c.units;
    }
    for (const int64_t size : c.cells) {
      const int64_t in = c.backbone_layers > 0 ? c.units : from + size;
      for (int head = 0; head < (c.mode == CfcMode::pure ? 1 : 4); ++head) {
        add(size * in, 0.5);
        add(size, 0.5);
      }
      if (c.mode == CfcMode::pure) {
        add(size, 1.0);
        add(size, 1.0);
      }
      if (c.masked) {
        std::vector<double> mask(size * in);
        for (double& m : mask) m = uniform(random) < 0.6 ? 1.0 : 0.0;
        masks.push_back(mask);
      }
      from = size;
    }
    if (c.memory) {
      add(4 * N * c.I, 0.5);
      add(4 * N, 0.5);
      add(4 * N * N, 0.5);
    }
    if (c.dropout) {
      factors.resize((c.backbone_layers - 1) * c.B * c.T * c.units);
      for (double& f : factors) f = uniform(random) < 0.5 ? 0.0 : 2.0;
    }
    for (int64_t b = 0; b < c.B; ++b) {
      lengths.push_back(std::uniform_int_distribution<int64_t>(0, c.T)(random));
    }
    grad_output.resize(c.B * c.M() * (c.return_sequences ? c.T : 1));
    grad_hn.resize(c.B * c.state());
    for (double& g : grad_output) g = normal(random);
    for (double& g : grad_hn) g = normal(random);
  }

  int64_t steps_of(int64_t b) const { return c.lengths ? lengths[b] : c.T; }
  int64_t first_parameter(size_t cell) const {
    return 3 + 2 * c.backbone_layers +
           static_cast<int64_t>(cell) * (c.mode == CfcMode::pure ? 4 : 8);
  }
};

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::silu:
      return x / (1.0 + std::exp(-x));
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

// The equations as they stand, one sample after another.
void plain_forward(const Problem& p, std::vector<double>& output, std::vector<double>& hn) {
  const Case& c = p.c;
  const int64_t N = c.N(), M = c.M(), outputs = c.return_sequences ? c.T : 1;
  output.assign(c.B * outputs * M, 0.0);
  hn.assign(c.B * c.state(), 0.0);
  const auto dense = [&](int64_t parameter, const std::vector<double>& z, const double* mask) {
    const std::vector<double>& weight = p.values[parameter];
    std::vector<double> y = p.values[parameter + 1];
    for (size_t row = 0; row < y.size(); ++row) {
      for (size_t k = 0; k < z.size(); ++k) {
        const size_t at = row * z.size() + k;
        if (mask == nullptr || mask[at] != 0.0) y[row] += weight[at] * z[k];
      }
    }
    return y;
  };
  for (int64_t b = 0; b < c.B; ++b) {
    const auto state0 = p.values[1].begin() + b * c.state();
    std::vector<double> h(state0, state0 + N), memory(state0 + N, state0 + c.state());
    for (int64_t t = 0; t < p.steps_of(b); ++t) {
      const auto x = p.values[0].begin() + (b * c.T + t) * c.I;
      std::vector<double> input(x, x + c.I), next;
      if (c.memory) {
        const auto* const last = p.values.data() + p.values.size();
        fastltc::test::plain_memory_cell(input.data(), c.I, last[-3].data(), last[-2].data(),
                                         last[-1].data(), h, memory);
      }
      int64_t row = 0;
      for (size_t cell = 0; cell < c.cells.size(); ++cell) {
        const int64_t size = c.cells[cell];
        std::vector<double> z = input;
        z.insert(z.end(), h.begin() + row, h.begin() + row + size);
        for (int64_t layer = 0; layer < c.backbone_layers; ++layer) {
          z = dense(3 + 2 * layer, z, nullptr);
          for (int64_t u = 0; u < c.units; ++u) {
            z[u] = activate(c.activation, z[u]);
            if (c.dropout && layer > 0) {
              z[u] *= p.factors[(((layer - 1) * c.B + b) * c.T + t) * c.units + u];
            }
          }
        }
        const double* const mask = c.masked ? p.masks[cell].data() : nullptr;
        const int64_t first = p.first_parameter(cell);
        const std::vector<double> f1 = dense(first, z, mask);
        std::vector<double> state(size);
        for (int64_t j = 0; j < size; ++j) {
          const double dt = c.timespans == 2   ? p.values[2][(b * c.T + t) * N + row + j]
                            : c.timespans == 1 ? p.values[2][b * c.T + t]
                                               : 1.0;
          if (c.mode == CfcMode::pure) {
            const double w_tau = p.values[first + 2][j], A = p.values[first + 3][j];
            state[j] = A - A * std::exp(-dt * (std::abs(w_tau) + std::abs(f1[j]))) * f1[j];
          } else {
            const double t1 = std::tanh(f1[j]), t2 = std::tanh(dense(first + 2, z, mask)[j]);
            const double time =
                dense(first + 4, z, nullptr)[j] * dt + dense(first + 6, z, nullptr)[j];
            const double r = 1.0 / (1.0 + std::exp(-time));
            state[j] = c.mode == CfcMode::gated ? t1 * (1.0 - r) + r * t2 : t1 + r * t2;
          }
        }
        next.insert(next.end(), state.begin(), state.end());
        input = state;
        row += size;
      }
      h = next;
      if (c.return_sequences) {
        std::copy(h.end() - M, h.end(), output.begin() + (b * c.T + t) * M);
      }
    }
    if (!c.return_sequences) std::copy(h.end() - M, h.end(), output.begin() + b * M);
    std::copy(h.begin(), h.end(), hn.begin() + b * c.state());
    std::copy(memory.begin(), memory.end(), hn.begin() + b * c.state() + N);
  }
}

// Values of one type, with NaN where nothing may read.
template <typename T>
struct Call {
  const Problem& problem;
  std::vector<std::vector<T>> values, masks;
  std::vector<T> factors, output, hn, states;
  std::vector<const T*> parameters, mask_pointers;
  std::vector<SequenceView<const T>> dropout;
  CfcInputs<T> in;

  explicit Call(const Problem& p) : problem(p) {
    const Case& c = p.c;
    for (const auto& v : p.values) values.emplace_back(v.begin(), v.end());
    for (const auto& v : p.masks) masks.emplace_back(v.begin(), v.end());
    factors.assign(p.factors.begin(), p.factors.end());
    for (size_t cell = 0; cell < masks.size(); ++cell) {
      for (const int64_t head : {0, 2}) {
        if (head == 2 && c.mode == CfcMode::pure) continue;
        std::vector<T>& weight = values[p.first_parameter(cell) + head];
        for (size_t k = 0; k < weight.size(); ++k) {
          if (masks[cell][k] == T(0)) weight[k] = static_cast<T>(kNaN);
        }
      }
    }
    const int64_t N = c.N();
    poison(values[0], c.I);
    if (c.timespans > 0) poison(values[2], c.timespans == 2 ? N : 1);
    in.size = {c.B, c.T, c.I, N, c.M(), 1};
    in.x = {values[0].data(), c.T * c.I, c.I, 1};
    in.h0 = {values[1].data(), c.state(), 0, 1};
    if (c.timespans == 1) in.timespans = {values[2].data(), c.T, 1, 0};
    if (c.timespans == 2) in.timespans = {values[2].data(), c.T * N, N, 1};
    in.timespans_per_neuron = c.timespans == 2;
    if (c.lengths) {
      in.lengths = p.lengths.data();
      in.lengths_stride = 1;
    }
    in.cells = static_cast<int64_t>(c.cells.size());
    in.cell_sizes = c.cells.data();
    in.backbone_layers = c.backbone_layers;
    in.backbone_units = c.units;
    in.mode = c.mode;
    in.activation = c.activation;
    for (size_t k = 3; k < values.size(); ++k) parameters.push_back(values[k].data());
    in.parameters = parameters.data();
    if (c.memory) {
      const size_t first = values.size() - 3;
      in.memory = {values[first].data(), values[first + 1].data(), values[first + 2].data()};
    }
    for (const auto& mask : masks) mask_pointers.push_back(mask.data());
    if (c.masked) in.masks = mask_pointers.data();
    if (c.dropout) {
      for (int64_t layer = 0; layer + 1 < c.backbone_layers; ++layer) {
        dropout.push_back(
            {factors.data() + layer * c.B * c.T * c.units, c.T * c.units, c.units, 1});
      }
      in.dropout = dropout.data();
    }
  }

  void poison(std::vector<T>& sequence, int64_t channels) {
    for (int64_t b = 0; b < problem.c.B; ++b) {
      for (int64_t t = problem.steps_of(b); t < problem.c.T; ++t) {
        std::fill_n(sequence.begin() + (b * problem.c.T + t) * channels, channels,
                    static_cast<T>(kNaN));
      }
    }
  }

  void forward(bool keep_states) { forward(keep_states, problem.c.threads); }

  void forward(bool keep_states, int threads) {
    const Case& c = problem.c;
    const int64_t N = c.N(), M = c.M();
    const int64_t gates = c.mode == CfcMode::pure ? 1 : c.timespans == 0 ? 3 : 4;
    output.assign(problem.grad_output.size(), static_cast<T>(kNaN));
    hn.assign(c.B * c.state(), static_cast<T>(kNaN));
    const int64_t of_memory = c.memory ? 5 * N : 0;
    const int64_t kept =
        (c.T + 1) * N + c.T * (gates * N + c.backbone_layers * c.units + of_memory);
    states.assign(keep_states ? c.B * kept : 0, static_cast<T>(kNaN));
    CfcOutputs<T> out;
    out.output = {output.data(), (c.return_sequences ? c.T : 1) * M, c.return_sequences ? M : 0, 1};
    out.return_sequences = c.return_sequences;
    out.hn = hn.data();
    if (keep_states) out.states = states.data();
    fastltc::cpu::cfc_forward(in, out, fastltc::test::parallel(threads));
  }

  double loss() {
    forward(false);
    double total = 0;
    for (size_t k = 0; k < output.size(); ++k) total += problem.grad_output[k] * output[k];
    for (size_t k = 0; k < hn.size(); ++k) total += problem.grad_hn[k] * hn[k];
    return total;
  }

  std::vector<std::vector<T>> backward() {
    forward(true);
    return backward_of_states(problem.c.threads);
  }

  std::vector<std::vector<T>> backward_of_states(int threads) {
    const Case& c = problem.c;
    const int64_t N = c.N(), M = c.M();
    std::vector<std::vector<T>> grad;
    for (const auto& v : values) grad.emplace_back(v.size(), static_cast<T>(kNaN));
    std::vector<T> gy(problem.grad_output.begin(), problem.grad_output.end());
    std::vector<T> gh(problem.grad_hn.begin(), problem.grad_hn.end());
    std::vector<T*> pointers;
    for (size_t k = 3; k < grad.size(); ++k) pointers.push_back(grad[k].data());
    CfcGradients<T> g;
    g.grad_output = {gy.data(), (c.return_sequences ? c.T : 1) * M, c.return_sequences ? M : 0, 1};
    g.return_sequences = c.return_sequences;
    g.grad_hn = {gh.data(), c.state(), 0, 1};
    g.states = states.data();
    g.x = {grad[0].data(), c.T * c.I, c.I, 1};
    g.h0 = grad[1].data();
    if (c.timespans == 1) g.timespans = {grad[2].data(), c.T, 1, 0};
    if (c.timespans == 2) g.timespans = {grad[2].data(), c.T * N, N, 1};
    g.parameters = pointers.data();
    if (c.memory) {
      const size_t first = grad.size() - 3;
      g.memory = {grad[first].data(), grad[first + 1].data(), grad[first + 2].data()};
    }
    fastltc::cpu::cfc_backward(in, g, fastltc::test::parallel(threads));
    return grad;
  }
};

std::string text(const Case& c) {
  return "B" + std::to_string(c.B) + " T" + std::to_string(c.T) + " I" + std::to_string(c.I) +
         " N" + std::to_string(c.N()) + " mode" + std::to_string(static_cast<int>(c.mode)) +
         " backbone" + std::to_string(c.backbone_layers) + " activation" +
         std::to_string(static_cast<int>(c.activation)) + " timespans" +
         std::to_string(c.timespans) + (c.lengths ? " lengths" : "") +
         (c.return_sequences ? " sequences" : "") + (c.memory ? " memory" : "");
}

template <typename T>
void check_forward(const Problem& p, double tolerance) {
  std::vector<double> output, hn;
  plain_forward(p, output, hn);
  Call<T> call(p);
  for (const bool keep_states : {true, false}) {
    call.forward(keep_states);
    fastltc::test::check_close(text(p.c) + ": output", call.output, output, tolerance);
    fastltc::test::check_close(text(p.c) + ": hn", call.hn, hn, tolerance);
  }
}

void check_gradient(const Problem& p, std::mt19937_64& random) {
  Call<double> call(p);
  const std::vector<std::vector<double>> grad = call.backward();
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> direction;
  double expected = 0;
  for (size_t k = 0; k < grad.size(); ++k) {
    direction.emplace_back(grad[k].size());
    for (size_t n = 0; n < grad[k].size(); ++n) {
      direction[k][n] = normal(random);
      expected += grad[k][n] * direction[k][n];
    }
  }
  const auto loss_at = [&](double distance) {
    Problem moved = p;
    for (size_t k = 0; k < grad.size(); ++k) {
      for (size_t n = 0; n < grad[k].size(); ++n) moved.values[k][n] += distance * direction[k][n];
    }
    return Call<double>(moved).loss();
  };
  // Richardson's extrapolation of two central differences. ReLU and |.| have corners, which a short
  // way rarely meets.
  const double h = 1e-6;
  const double wide = (loss_at(2 * h) - loss_at(-2 * h)) / (4 * h);
  const double narrow = (loss_at(h) - loss_at(-h)) / (2 * h);
  const double numeric = (4 * narrow - wide) / 3;
  const double scale = std::max(1.0, std::abs(expected));
  if (!(std::abs(numeric - expected) <= 1e-5 * scale)) {
    fastltc::test::report_failure(__FILE__, __LINE__,
                                  text(p.c) + ": gradient along a direction " +
                                      std::to_string(expected) + ", numerically " +
                                      std::to_string(numeric));
  }
}

void check(const Case& c) {
  std::mt19937_64 random(fastltc::test::seed());
  const Problem problem(c, random);
  check_forward<double>(problem, 1e-11);
  check_forward<float>(problem, 1e-3);
  check_gradient(problem, random);
}

constexpr CfcMode kModes[] = {CfcMode::gated, CfcMode::no_gate, CfcMode::pure};

}  // namespace

TEST(batches_of_every_width) {
  for (const int64_t B : {1, 3, 4, 8, 15, 16, 17, 33, 64, 65, 100}) {
    check({.B = B, .T = 3, .I = 5, .cells = {4, 3, 2}, .masked = true});
  }
}

TEST(mixed_memory) {
  for (const CfcMode mode : kModes) {
    for (const int timespans : {0, 1, 2}) {
      for (const bool lengths : {false, true}) {
        check({.B = 18,
               .T = 5,
               .I = 3,
               .cells = {5, 3, 2},
               .mode = mode,
               .masked = true,
               .timespans = timespans,
               .lengths = lengths,
               .return_sequences = timespans != 1,
               .memory = true});
        check({.B = 65,
               .T = 3,
               .I = 2,
               .cells = {6},
               .mode = mode,
               .backbone_layers = 2,
               .units = 5,
               .dropout = true,
               .timespans = timespans,
               .lengths = lengths,
               .memory = true,
               .threads = 2});
      }
    }
  }
  check({.B = 1, .T = 40, .I = 1, .cells = {1}, .memory = true});
  check({.B = 0, .T = 3, .I = 2, .cells = {4}, .memory = true});
  check({.B = 3, .T = 0, .I = 2, .cells = {4}, .memory = true});
}

TEST(wired_cells) {
  for (const CfcMode mode : kModes) {
    for (const int timespans : {0, 1, 2}) {
      for (const bool lengths : {false, true}) {
        check({.B = 5,
               .T = 4,
               .I = 3,
               .cells = {5, 3, 2},
               .mode = mode,
               .masked = true,
               .timespans = timespans,
               .lengths = lengths,
               .return_sequences = !lengths});
        check({.B = 35,
               .T = 2,
               .I = 1,
               .cells = {1, 7},
               .mode = mode,
               .timespans = timespans,
               .lengths = lengths});
      }
    }
  }
}

TEST(backbones) {
  for (const Activation activation : {Activation::lecun_tanh, Activation::silu, Activation::relu,
                                      Activation::tanh, Activation::gelu}) {
    for (const int64_t layers : {1, 2, 3}) {
      check({.B = 7,
             .T = 3,
             .I = 3,
             .cells = {5},
             .mode = kModes[layers - 1],
             .backbone_layers = layers,
             .units = 6,
             .activation = activation,
             .dropout = layers > 1,
             .timespans = layers - 1,
             .lengths = layers == 3});
    }
  }
}

TEST(a_history_longer_than_what_is_put_by) {
  check({.B = 3, .T = 70, .I = 2, .cells = {3, 2}, .masked = true, .lengths = true});
}

// A narrow tile behind a wide one: three registers of samples, whatever the instruction set. With
// this many rows to put by, a narrow tile puts by more in all, and must have the memory for it.
TEST(narrow_tiles_of_deep_backbones) {
  for (const int64_t B : {6, 12, 24}) {
    for (const int64_t units : {64, 72, 80}) {
      for (const int threads : {1, 2}) {
        std::mt19937_64 random(fastltc::test::seed());
        Problem problem({.B = B,
                         .T = 24,
                         .I = 1,
                         .cells = {1},
                         .backbone_layers = 6,
                         .units = units,
                         .activation = Activation::tanh,
                         .threads = threads},
                        random);
        // Larger weights make a network of this depth chaotic.
        for (size_t k = 3; k < problem.values.size(); ++k) {
          for (double& value : problem.values[k]) value *= 0.2;
        }
        check_gradient(problem, random);
      }
    }
  }
}

TEST(one_cell_with_lengths_and_only_the_last_output) {
  for (const CfcMode mode : kModes) {
    check({.B = 17,
           .T = 40,
           .I = 8,
           .cells = {8},
           .mode = mode,
           .lengths = true,
           .return_sequences = false});
  }
}

TEST(nothing_to_do) {
  check({.B = 0, .T = 3, .I = 2, .cells = {3}});
  check({.B = 3, .T = 0, .I = 2, .cells = {3}});
  check({.B = 3, .T = 0, .I = 2, .cells = {3}, .mode = CfcMode::pure, .return_sequences = false});
}

TEST(threads_share_the_batch) {
  for (const int threads : {2, 3}) {
    check({.B = 70,
           .T = 40,
           .I = 6,
           .cells = {12, 8, 4},
           .masked = true,
           .timespans = 1,
           .lengths = true,
           .threads = threads});
  }
}

// As in test_ltc.cpp: the tiles of both passes follow their own number of threads.
template <typename T>
void check_pairs_of_threads(const Problem& problem, double tolerance) {
  constexpr int kThreads[] = {1, 2, 3, 4, 8};
  Call<T> call(problem);
  call.forward(true, 1);
  const std::vector<T> output = call.output, hn = call.hn, states = call.states;
  const std::vector<std::vector<T>> grad = call.backward_of_states(1);
  double size = 1.0;
  for (const auto& part : grad) size = std::max(size, fastltc::test::scale_of(part));
  for (const int forward : kThreads) {
    const std::string pair = text(problem.c) + ": " + std::to_string(forward) + " threads, then ";
    call.forward(true, forward);
    fastltc::test::check_close(pair + "none: outputs", call.output, output, tolerance);
    fastltc::test::check_close(pair + "none: hn", call.hn, hn, tolerance);
    fastltc::test::check_close(pair + "none: states", call.states, states, tolerance);
    for (const int backward : kThreads) {
      const std::vector<std::vector<T>> again = call.backward_of_states(backward);
      for (size_t k = 0; k < grad.size(); ++k) {
        fastltc::test::check_close(
            pair + std::to_string(backward) + ": gradient " + std::to_string(k), again[k], grad[k],
            tolerance, size);
      }
    }
  }
}

TEST(gradients_do_not_depend_on_the_threads_of_either_pass) {
  for (const int64_t B : {7, 64, 131}) {
    for (const bool memory : {false, true}) {
      for (const bool lengths : {false, true}) {
        for (const bool return_sequences : {false, true}) {
          for (const int timespans : {0, 1, 2}) {
            for (const CfcMode mode : kModes) {
              std::mt19937_64 random(fastltc::test::seed());
              // As much work as gives each of eight threads a share.
              const bool wired = mode == CfcMode::gated;
              Problem problem(
                  {.B = B,
                   .T = 8,
                   .I = 3,
                   .cells = wired ? std::vector<int64_t>{24, 12, 4} : std::vector<int64_t>{24},
                   .mode = mode,
                   .masked = wired,
                   .backbone_layers = wired ? 0 : 1,
                   .units = wired ? 0 : 24,
                   .timespans = timespans,
                   .lengths = lengths,
                   .return_sequences = return_sequences,
                   .memory = memory},
                  random);
              // Larger weights make a network of this many steps chaotic.
              for (size_t k = 3; k < problem.values.size(); ++k) {
                for (double& value : problem.values[k]) value *= 0.4;
              }
              std::sort(problem.lengths.begin(), problem.lengths.end());
              check_pairs_of_threads<double>(problem, 1e-12);
              if (timespans == 1) check_pairs_of_threads<float>(problem, 2e-5);
            }
          }
        }
      }
    }
  }
}
