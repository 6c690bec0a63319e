// The LTC kernels on every shape that takes another path through them: forward against plain loops,
// all gradients at once against a directional derivative. Buffers have their exact sizes, so that a
// sanitizer sees a read or write outside of one.
#include "cpu/ltc.h"

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

using fastltc::LtcGradients;
using fastltc::LtcInputs;
using fastltc::LtcOutputs;
using fastltc::SynapseList;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Case {
  int64_t B, T, I, N, M, U;
  double density;
  bool softplus = true;
  bool maps = true;
  bool initial_state = true;
  int timespans = 0;  // 0: none, 1: [B, T], 2: [B, T, N]
  bool lengths = false;
  bool return_sequences = true;
  bool memory = false;
  int threads = 1;

  int64_t state() const { return memory ? 2 * N : N; }
};

std::string text(const Case& c) {
  return "B" + std::to_string(c.B) + " T" + std::to_string(c.T) + " I" + std::to_string(c.I) +
         " N" + std::to_string(c.N) + " M" + std::to_string(c.M) + " U" + std::to_string(c.U) +
         (c.softplus ? " softplus" : "") + (c.maps ? " maps" : "") +
         (c.initial_state ? " h0" : "") + " timespans" + std::to_string(c.timespans) +
         (c.lengths ? " lengths" : "") + (c.return_sequences ? " sequences" : "") +
         (c.memory ? " memory" : "") + " threads" + std::to_string(c.threads);
}

// Everything that a gradient exists for, in one vector, so that a direction is a vector too.
struct Layout {
  int64_t at[21] = {};
  int64_t size = 0;
};
enum Part {
  X,
  H0,
  DT,
  GLEAK,
  VLEAK,
  CM,
  SIGMA,
  MU,
  W,
  EREV,
  S_SIGMA,
  S_MU,
  S_W,
  S_EREV,
  IN_W,
  IN_B,
  OUT_W,
  OUT_B,
  MEMORY_W,
  MEMORY_B,
  MEMORY_R
};

Layout layout_of(const Case& c) {
  const int64_t nn = c.N * c.N, in = c.I * c.N;
  const int64_t steps = c.timespans == 2 ? c.B * c.T * c.N : c.timespans == 1 ? c.B * c.T : 0;
  const int64_t remembered = c.memory ? 4 * c.N : 0;
  const int64_t sizes[21] = {c.B * c.T * c.I,
                             c.B * c.state(),
                             steps,
                             c.N,
                             c.N,
                             c.N,
                             nn,
                             nn,
                             nn,
                             nn,
                             in,
                             in,
                             in,
                             in,
                             c.I,
                             c.I,
                             c.M,
                             c.M,
                             remembered * c.I,
                             remembered,
                             remembered * c.N};
  Layout layout;
  for (int k = 0; k < 21; ++k) {
    layout.at[k] = layout.size;
    layout.size += sizes[k];
  }
  return layout;
}

struct Problem {
  Case c;
  Layout layout;
  std::vector<double> values;
  std::vector<int32_t> synapses, sensory;
  std::vector<int64_t> lengths;
  std::vector<double> grad_output, grad_hn;

  Problem(const Case& which, std::mt19937_64& random) : c(which), layout(layout_of(which)) {
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    std::normal_distribution<double> normal;
    values.resize(layout.size);
    for (double& v : values) v = normal(random);
    const auto range = [&](Part part, Part next, double low, double high) {
      const int64_t end = next == OUT_B ? layout.size : layout.at[next];
      for (int64_t k = layout.at[part]; k < end; ++k) {
        values[k] = low + (high - low) * uniform(random);
      }
    };
    range(DT, GLEAK, 0.0, 2.0);
    range(GLEAK, VLEAK, 0.1, 1.0);
    range(CM, SIGMA, 0.4, 0.6);
    range(SIGMA, MU, 3.0, 8.0);
    range(MU, W, 0.3, 0.8);
    range(W, EREV, 0.01, 1.0);
    range(S_SIGMA, S_MU, 3.0, 8.0);
    range(S_W, S_EREV, 0.01, 1.0);
    if (c.timespans > 0 && c.B * c.T > 1) values[layout.at[DT] + 1] = 0.0;
    synapses = wiring(c.N, random);
    sensory = wiring(c.I, random);
    for (int64_t b = 0; b < c.B; ++b) {
      lengths.push_back(std::uniform_int_distribution<int64_t>(0, c.T)(random));
    }
    grad_output.resize(c.B * c.M * (c.return_sequences ? c.T : 1));
    grad_hn.resize(c.B * c.state());
    for (double& g : grad_output) g = normal(random);
    for (double& g : grad_hn) g = normal(random);
  }

  std::vector<int32_t> wiring(int64_t rows, std::mt19937_64& random) const {
    std::vector<int32_t> pointers{0}, row;
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (int64_t j = 0; j < c.N; ++j) {
      // Every third neuron has no synapse where the wiring is sparse.
      for (int64_t i = 0; i < rows; ++i) {
        if ((c.density == 1.0 || j % 3 != 0) && uniform(random) < c.density) {
          row.push_back(static_cast<int32_t>(i));
        }
      }
      pointers.push_back(static_cast<int32_t>(row.size()));
    }
    pointers.insert(pointers.end(), row.begin(), row.end());
    return pointers;
  }

  int64_t steps_of(int64_t b) const { return c.lengths ? lengths[b] : c.T; }
};

// Values of one type with NaN where nothing may read.
template <typename T>
struct Call {
  const Problem& problem;
  std::vector<T> values;
  LtcInputs<T> in;
  std::vector<T> output, hn, states;

  explicit Call(const Problem& p) : problem(p), values(p.values.begin(), p.values.end()) {
    const Case& c = p.c;
    const auto part = [&](Part k) { return values.data() + p.layout.at[k]; };
    poison(part(X), c.I);
    if (c.timespans > 0) poison(part(DT), c.timespans == 2 ? c.N : 1);
    for (Part k : {SIGMA, MU, W, EREV}) poison_absent(part(k), c.N, p.synapses);
    for (Part k : {S_SIGMA, S_MU, S_W, S_EREV}) poison_absent(part(k), c.I, p.sensory);
    in.size = {c.B, c.T, c.I, c.N, c.M, c.U};
    in.x = {part(X), c.T * c.I, c.I, 1};
    if (c.initial_state) in.h0 = {part(H0), c.state(), 0, 1};
    if (c.memory) in.memory = {part(MEMORY_W), part(MEMORY_B), part(MEMORY_R)};
    if (c.timespans == 1) in.timespans = {part(DT), c.T, 1, 0};
    if (c.timespans == 2) in.timespans = {part(DT), c.T * c.N, c.N, 1};
    in.timespans_per_neuron = c.timespans == 2;
    if (c.lengths) {
      in.lengths = p.lengths.data();
      in.lengths_stride = 1;
    }
    auto& q = in.parameters;
    q = {part(GLEAK), part(VLEAK),   part(CM),   part(SIGMA), part(MU),     part(W),
         part(EREV),  part(S_SIGMA), part(S_MU), part(S_W),   part(S_EREV), nullptr,
         nullptr,     nullptr,       nullptr,    1e-8,        c.softplus};
    if (c.maps) {
      q.input_w = part(IN_W);
      q.input_b = part(IN_B);
      q.output_w = part(OUT_W);
      q.output_b = part(OUT_B);
    }
    in.synapses = {p.synapses.data(), p.synapses.data() + c.N + 1};
    in.sensory_synapses = {p.sensory.data(), p.sensory.data() + c.N + 1};
  }

  void poison(T* sequence, int64_t channels) {
    for (int64_t b = 0; b < problem.c.B; ++b) {
      for (int64_t t = problem.steps_of(b); t < problem.c.T; ++t) {
        std::fill_n(sequence + (b * problem.c.T + t) * channels, channels, static_cast<T>(kNaN));
      }
    }
  }
  void poison_absent(T* matrix, int64_t rows, const std::vector<int32_t>& list) {
    const int64_t N = problem.c.N;
    std::vector<bool> present(rows * N);
    for (int64_t j = 0; j < N; ++j) {
      for (int64_t k = list[j]; k < list[j + 1]; ++k) present[list[N + 1 + k] * N + j] = true;
    }
    for (int64_t k = 0; k < rows * N; ++k) {
      if (!present[k]) matrix[k] = static_cast<T>(kNaN);
    }
  }

  void forward(bool keep_states) { forward(keep_states, problem.c.threads); }

  void forward(bool keep_states, int threads) {
    const Case& c = problem.c;
    output.assign(c.B * c.M * (c.return_sequences ? c.T : 1), static_cast<T>(kNaN));
    hn.assign(c.B * c.state(), static_cast<T>(kNaN));
    const int64_t of_step = c.memory ? c.U + 6 : c.U;
    states.assign(keep_states ? (c.T * of_step + 1) * c.N * c.B : 0, static_cast<T>(kNaN));
    LtcOutputs<T> out;
    out.output = {output.data(), (c.return_sequences ? c.T : 1) * c.M, c.M, 1};
    out.return_sequences = c.return_sequences;
    out.hn = hn.data();
    if (keep_states) out.states = states.data();
    fastltc::cpu::ltc_forward(in, out, fastltc::test::parallel(threads));
  }

  double loss() {
    forward(false);
    double total = 0;
    for (size_t k = 0; k < output.size(); ++k) total += problem.grad_output[k] * output[k];
    for (size_t k = 0; k < hn.size(); ++k) total += problem.grad_hn[k] * hn[k];
    return total;
  }

  std::vector<T> backward() {
    forward(true);
    return backward_of_states(problem.c.threads);
  }

  std::vector<T> backward_of_states(int threads) {
    const Case& c = problem.c;
    std::vector<T> grad(problem.layout.size, static_cast<T>(kNaN));
    const auto part = [&](Part k) { return grad.data() + problem.layout.at[k]; };
    std::fill(part(SIGMA), part(IN_W), T(0));
    std::vector<T> gy(problem.grad_output.begin(), problem.grad_output.end());
    std::vector<T> gh(problem.grad_hn.begin(), problem.grad_hn.end());
    LtcGradients<T> g;
    g.grad_output = {gy.data(), (c.return_sequences ? c.T : 1) * c.M, c.M, 1};
    g.return_sequences = c.return_sequences;
    g.grad_hn = {gh.data(), c.state(), 0, 1};
    g.states = states.data();
    g.x = {part(X), c.T * c.I, c.I, 1};
    if (c.initial_state) g.h0 = part(H0);
    if (c.timespans == 1) g.timespans = {part(DT), c.T, 1, 0};
    if (c.timespans == 2) g.timespans = {part(DT), c.T * c.N, c.N, 1};
    T** const dense[] = {&g.gleak,      &g.vleak,     &g.cm,          &g.sigma,
                         &g.mu,         &g.w,         &g.erev,        &g.sensory_sigma,
                         &g.sensory_mu, &g.sensory_w, &g.sensory_erev};
    for (int k = 0; k < 11; ++k) *dense[k] = part(static_cast<Part>(GLEAK + k));
    if (c.maps) {
      g.input_w = part(IN_W);
      g.input_b = part(IN_B);
      g.output_w = part(OUT_W);
      g.output_b = part(OUT_B);
    }
    if (c.memory) g.memory = {part(MEMORY_W), part(MEMORY_B), part(MEMORY_R)};
    fastltc::cpu::ltc_backward(in, g, fastltc::test::parallel(threads));
    return grad;
  }
};

double positive(double x, bool softplus) { return softplus ? std::log1p(std::exp(x)) : x; }

// The equations as they stand, one sample after another.
void plain_forward(const Problem& p, std::vector<double>& output, std::vector<double>& hn) {
  const Case& c = p.c;
  const auto at = [&](Part k, int64_t index) { return p.values[p.layout.at[k] + index]; };
  const auto add = [&](const std::vector<int32_t>& list, int64_t j, Part sigma,
                       const std::vector<double>& pre, double& num, double& den) {
    for (int64_t k = list[j]; k < list[j + 1]; ++k) {
      const int64_t i = list[c.N + 1 + k], e = i * c.N + j;
      const double s =
          1.0 / (1.0 + std::exp(-at(sigma, e) * (pre[i] - at(static_cast<Part>(sigma + 1), e))));
      const double w = positive(at(static_cast<Part>(sigma + 2), e), c.softplus);
      num += w * at(static_cast<Part>(sigma + 3), e) * s;
      den += w * s;
    }
  };
  const int64_t outputs = c.return_sequences ? c.T : 1;
  output.assign(c.B * outputs * c.M, 0.0);
  hn.assign(c.B * c.state(), 0.0);
  for (int64_t b = 0; b < c.B; ++b) {
    std::vector<double> v(c.N), next(c.N), u(c.I), memory(c.N);
    if (c.initial_state) {
      for (int64_t j = 0; j < c.N; ++j) v[j] = at(H0, b * c.state() + j);
      for (int64_t j = c.N; j < c.state(); ++j) memory[j - c.N] = at(H0, b * c.state() + j);
    }
    const auto write = [&](int64_t t) {
      for (int64_t m = 0; m < c.M; ++m) {
        output[(b * outputs + t) * c.M + m] = c.maps ? v[m] * at(OUT_W, m) + at(OUT_B, m) : v[m];
      }
    };
    for (int64_t t = 0; t < p.steps_of(b); ++t) {
      for (int64_t i = 0; i < c.I; ++i) {
        const double x = at(X, (b * c.T + t) * c.I + i);
        u[i] = c.maps ? x * at(IN_W, i) + at(IN_B, i) : x;
      }
      if (c.memory) {
        const double* const values = p.values.data();
        fastltc::test::plain_memory_cell(
            values + p.layout.at[X] + (b * c.T + t) * c.I, c.I, values + p.layout.at[MEMORY_W],
            values + p.layout.at[MEMORY_B], values + p.layout.at[MEMORY_R], v, memory);
      }
      for (int64_t unfold = 0; unfold < c.U; ++unfold) {
        for (int64_t j = 0; j < c.N; ++j) {
          const double dt = c.timespans == 2   ? at(DT, (b * c.T + t) * c.N + j)
                            : c.timespans == 1 ? at(DT, b * c.T + t)
                                               : 1.0;
          const double leak = positive(at(GLEAK, j), c.softplus);
          double num = leak * at(VLEAK, j), den = leak + 1e-8;
          add(p.sensory, j, S_SIGMA, u, num, den);
          add(p.synapses, j, SIGMA, v, num, den);
          const double capacity = positive(at(CM, j), c.softplus) * static_cast<double>(c.U);
          next[j] = (capacity * v[j] + dt * num) / (capacity + dt * den);
        }
        v.swap(next);
      }
      if (c.return_sequences) write(t);
    }
    if (!c.return_sequences) write(0);
    for (int64_t j = 0; j < c.N; ++j) hn[b * c.state() + j] = v[j];
    for (int64_t j = c.N; j < c.state(); ++j) hn[b * c.state() + j] = memory[j - c.N];
  }
}

template <typename T>
void check_forward(const Problem& p, double tolerance) {
  std::vector<double> output, hn;
  plain_forward(p, output, hn);
  Call<T> call(p);
  // With and without kept states: batch lanes, and for few samples post lanes.
  for (const bool keep_states : {true, false}) {
    call.forward(keep_states);
    fastltc::test::check_close(text(p.c) + ": output", call.output, output, tolerance);
    fastltc::test::check_close(text(p.c) + ": hn", call.hn, hn, tolerance);
  }
}

void check_gradient(const Problem& p, std::mt19937_64& random) {
  Call<double> call(p);
  const std::vector<double> grad = call.backward();
  std::normal_distribution<double> normal;
  // Of what is absent there is no gradient; dt = 0 has no lower neighbour.
  std::vector<double> direction(p.layout.size);
  for (int64_t k = 0; k < p.layout.size; ++k) {
    const bool time = k >= p.layout.at[DT] && k < p.layout.at[GLEAK];
    const bool skipped = (k >= p.layout.at[H0] && k < p.layout.at[DT] && !p.c.initial_state) ||
                         (k >= p.layout.at[IN_W] && k < p.layout.at[MEMORY_W] && !p.c.maps) ||
                         (time && p.values[k] < 1e-3);
    direction[k] = skipped ? 0.0 : normal(random);
  }
  double expected = 0;
  for (int64_t k = 0; k < p.layout.size; ++k) {
    if (direction[k] != 0.0) expected += grad[k] * direction[k];
  }
  const auto loss_at = [&](double distance) {
    Problem moved = p;
    for (int64_t k = 0; k < p.layout.size; ++k) moved.values[k] += distance * direction[k];
    return Call<double>(moved).loss();
  };
  // Richardson's extrapolation of two central differences: error of fourth order.
  const double h = 1e-4;
  const double wide = (loss_at(2 * h) - loss_at(-2 * h)) / (4 * h);
  const double narrow = (loss_at(h) - loss_at(-h)) / (2 * h);
  const double numeric = (4 * narrow - wide) / 3;
  const double scale = std::max(1.0, std::abs(expected));
  if (!(std::abs(numeric - expected) <= 1e-6 * scale)) {
    fastltc::test::report_failure(__FILE__, __LINE__,
                                  text(p.c) + ": gradient along a direction " +
                                      std::to_string(expected) + ", numerically " +
                                      std::to_string(numeric));
  }
}

void check(const Case& c) {
  std::mt19937_64 random(fastltc::test::seed());
  const Problem problem(c, random);
  check_forward<double>(problem, 1e-12);
  check_forward<float>(problem, 2e-4);
  check_gradient(problem, random);
}

}  // namespace

TEST(batches_of_every_width) {
  for (const int64_t B : {1, 3, 4, 8, 15, 16, 17, 31, 33, 64, 65, 100}) {
    check({.B = B, .T = 2, .I = 3, .N = 5, .M = 2, .U = 3, .density = 0.6});
  }
}

TEST(networks_of_every_size) {
  for (const int64_t N : {1, 2, 7, 16, 17, 31, 33, 64}) {
    for (const double density : {0.3, 1.0}) {
      check({.B = 2, .T = 2, .I = 4, .N = N, .M = (N + 1) / 2, .U = 2, .density = density});
      check({.B = 18, .T = 1, .I = 33, .N = N, .M = N, .U = 1, .density = density});
    }
  }
}

TEST(time_steps_and_lengths) {
  for (const int64_t B : {1, 5, 33}) {
    for (const int timespans : {0, 1, 2}) {
      for (const bool lengths : {false, true}) {
        for (const bool return_sequences : {false, true}) {
          check({.B = B,
                 .T = 4,
                 .I = 3,
                 .N = 6,
                 .M = 2,
                 .U = 2,
                 .density = 0.7,
                 .timespans = timespans,
                 .lengths = lengths,
                 .return_sequences = return_sequences});
        }
      }
    }
  }
}

TEST(options) {
  check({.B = 9, .T = 3, .I = 2, .N = 6, .M = 3, .U = 6, .density = 0.5, .softplus = false});
  check({.B = 9, .T = 3, .I = 2, .N = 6, .M = 3, .U = 6, .density = 0.5, .maps = false});
  check({.B = 9, .T = 3, .I = 2, .N = 6, .M = 3, .U = 6, .density = 0.5, .initial_state = false});
  check({.B = 1, .T = 3, .I = 2, .N = 6, .M = 0, .U = 1, .density = 0.5});
  check({.B = 3, .T = 3, .I = 2, .N = 6, .M = 3, .U = 2, .density = 0.0});
}

TEST(mixed_memory) {
  for (const int64_t B : {1, 5, 16, 33, 65}) {
    for (const int timespans : {0, 1, 2}) {
      for (const bool lengths : {false, true}) {
        check({.B = B,
               .T = 5,
               .I = 3,
               .N = 7,
               .M = 2,
               .U = 2,
               .density = 0.6,
               .initial_state = timespans != 1,
               .timespans = timespans,
               .lengths = lengths,
               .return_sequences = B != 5,
               .memory = true});
      }
    }
  }
  check({.B = 17, .T = 40, .I = 1, .N = 1, .M = 1, .U = 1, .density = 1.0, .memory = true});
  check({.B = 3, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2, .density = 0.5, .memory = true});
  check({.B = 70,
         .T = 9,
         .I = 6,
         .N = 33,
         .M = 4,
         .U = 6,
         .density = 0.5,
         .maps = false,
         .memory = true,
         .threads = 3});
}

// Three layers beside each other against the same layers alone, with and without kept states.
TEST(layers_beside_each_other) {
  constexpr int64_t K = 3, T = 4, I = 3, N = 7, M = 2, U = 3;
  std::mt19937_64 random(fastltc::test::seed());
  for (const int64_t B : {1, 3, 18}) {
    std::vector<Problem> alone;
    for (int64_t k = 0; k < K; ++k) {
      alone.emplace_back(
          Case{.B = B, .T = T, .I = I, .N = N, .M = M, .U = U, .density = 0.5, .timespans = 1},
          random);
      alone[k].values.assign(alone[0].values.begin(), alone[0].values.end());
      std::normal_distribution<double> normal;
      for (Part part : {X, H0, SIGMA, MU, EREV, S_MU, OUT_W}) {
        for (int64_t n = alone[k].layout.at[part]; n < alone[k].layout.at[part + 1]; ++n) {
          alone[k].values[n] += 0.3 * normal(random);
        }
      }
    }
    // The values of a part one layer after another: all of a layer, or row by row of a sequence.
    const auto stacked = [&](Part part) {
      std::vector<double> all;
      const int64_t size = alone[0].layout.at[part + 1] - alone[0].layout.at[part];
      const int64_t rows = part == X ? B * T : part == H0 ? B : 1;
      for (int64_t row = 0; row < rows; ++row) {
        for (const Problem& p : alone) {
          const auto at = p.values.begin() + p.layout.at[part] + row * (size / rows);
          all.insert(all.end(), at, at + size / rows);
        }
      }
      return all;
    };
    std::vector<std::vector<double>> parts;
    for (int part = X; part <= OUT_B; ++part) parts.push_back(stacked(static_cast<Part>(part)));
    const auto lists = [&](const std::vector<int32_t> Problem::* list, int64_t rows) {
      std::vector<int32_t> pointers{0}, row;
      for (int64_t k = 0; k < K; ++k) {
        const std::vector<int32_t>& one = alone[k].*list;
        for (int64_t j = 0; j < N; ++j) {
          for (int32_t s = one[j]; s < one[j + 1]; ++s) {
            row.push_back(static_cast<int32_t>(one[N + 1 + s] + k * rows));
          }
          pointers.push_back(static_cast<int32_t>(row.size()));
        }
      }
      pointers.insert(pointers.end(), row.begin(), row.end());
      return pointers;
    };
    const std::vector<int32_t> synapses = lists(&Problem::synapses, N);
    const std::vector<int32_t> sensory = lists(&Problem::sensory, I);

    LtcInputs<double> in;
    in.size = {B, T, K * I, K * N, K * M, U};
    in.nets = K;
    in.x = {parts[X].data(), T * K * I, K * I, 1};
    in.h0 = {parts[H0].data(), K * N, 0, 1};
    in.timespans = {parts[DT].data(), T, 1, 0};
    const auto of = [&](Part part) { return parts[part].data(); };
    in.parameters = {of(GLEAK), of(VLEAK),   of(CM),    of(SIGMA), of(MU),     of(W),
                     of(EREV),  of(S_SIGMA), of(S_MU),  of(S_W),   of(S_EREV), of(IN_W),
                     of(IN_B),  of(OUT_W),   of(OUT_B), 1e-8,      true};
    in.synapses = {synapses.data(), synapses.data() + K * N + 1};
    in.sensory_synapses = {sensory.data(), sensory.data() + K * N + 1};
    for (const bool keep_states : {true, false}) {
      std::vector<double> output(B * T * K * M, kNaN), hn(B * K * N, kNaN);
      std::vector<double> states(keep_states ? (T * U + 1) * K * N * B : 0, kNaN);
      LtcOutputs<double> out;
      out.output = {output.data(), T * K * M, K * M, 1};
      out.hn = hn.data();
      if (keep_states) out.states = states.data();
      fastltc::cpu::ltc_forward(in, out, fastltc::test::parallel(2));
      std::vector<std::vector<double>> grads;
      for (const auto& part : parts) grads.emplace_back(part.size(), 0.0);
      if (keep_states) {
        // The gradient of the sum of all outputs and states.
        const std::vector<double> ones(std::max(output.size(), hn.size()), 1.0);
        LtcGradients<double> g;
        g.grad_output = {ones.data(), T * K * M, K * M, 1};
        g.grad_hn = {ones.data(), K * N, 0, 1};
        g.states = states.data();
        g.x = {grads[X].data(), T * K * I, K * I, 1};
        g.h0 = grads[H0].data();
        double** const dense[] = {&g.gleak,      &g.vleak,     &g.cm,           &g.sigma,
                                  &g.mu,         &g.w,         &g.erev,         &g.sensory_sigma,
                                  &g.sensory_mu, &g.sensory_w, &g.sensory_erev, &g.input_w,
                                  &g.input_b,    &g.output_w,  &g.output_b};
        for (int k = 0; k < 15; ++k) *dense[k] = grads[GLEAK + k].data();
        fastltc::cpu::ltc_backward(in, g, fastltc::test::parallel(2));
      }
      for (int64_t k = 0; k < K; ++k) {
        Problem& p = alone[k];
        p.grad_output.assign(p.grad_output.size(), 1.0);
        p.grad_hn.assign(p.grad_hn.size(), 1.0);
        Call<double> call(p);
        call.forward(keep_states);
        double worst = 0;
        const auto compare = [&](double got, double expected) {
          fastltc::test::keep_worst(worst, std::abs(got - expected));
        };
        for (int64_t row = 0; row < B * T; ++row) {
          for (int64_t m = 0; m < M; ++m) {
            compare(output[(row * K + k) * M + m], call.output[row * M + m]);
          }
        }
        for (int64_t b = 0; b < B; ++b) {
          for (int64_t j = 0; j < N; ++j) compare(hn[(b * K + k) * N + j], call.hn[b * N + j]);
        }
        if (keep_states) {
          const std::vector<double> expected = call.backward();
          for (Part part : {GLEAK, CM, SIGMA, W, EREV, S_MU, S_W, IN_W, OUT_W, OUT_B}) {
            const int64_t size = p.layout.at[part + 1] - p.layout.at[part];
            for (int64_t n = 0; n < size; ++n) {
              compare(grads[part][k * size + n], expected[p.layout.at[part] + n]);
            }
          }
        }
        CHECK_NEAR(worst, 0.0, 1e-12);
      }
    }
  }
}

TEST(nothing_to_do) {
  check({.B = 0, .T = 3, .I = 2, .N = 4, .M = 2, .U = 2, .density = 0.5});
  check({.B = 3, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2, .density = 0.5});
  check(
      {.B = 17, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2, .density = 0.5, .return_sequences = false});
}

TEST(threads_share_the_batch) {
  for (const int threads : {2, 3, 5}) {
    check({.B = 70,
           .T = 20,
           .I = 6,
           .N = 24,
           .M = 4,
           .U = 6,
           .density = 0.5,
           .timespans = 1,
           .lengths = true,
           .threads = threads});
  }
}

// The tiles of both passes follow their own number of threads, and a pass may have another one than
// the pass before it.
template <typename T>
void check_pairs_of_threads(const Problem& problem, double tolerance) {
  constexpr int kThreads[] = {1, 2, 3, 4, 8};
  Call<T> call(problem);
  call.forward(true, 1);
  const std::vector<T> output = call.output, hn = call.hn, states = call.states;
  const std::vector<T> grad = call.backward_of_states(1);
  const double size = fastltc::test::scale_of(grad);
  for (const int forward : kThreads) {
    const std::string pair = text(problem.c) + ": " + std::to_string(forward) + " threads, then ";
    call.forward(true, forward);
    fastltc::test::check_close(pair + "none: outputs", call.output, output, tolerance);
    fastltc::test::check_close(pair + "none: hn", call.hn, hn, tolerance);
    fastltc::test::check_close(pair + "none: states", call.states, states, tolerance);
    for (const int backward : kThreads) {
      fastltc::test::check_close(pair + std::to_string(backward) + ": gradients",
                                 call.backward_of_states(backward), grad, tolerance, size);
    }
  }
}

TEST(gradients_do_not_depend_on_the_threads_of_either_pass) {
  for (const int64_t B : {1, 7, 33, 64, 131}) {
    for (const bool memory : {false, true}) {
      for (const bool lengths : {false, true}) {
        for (const bool return_sequences : {false, true}) {
          for (const int timespans : {0, 1, 2}) {
            std::mt19937_64 random(fastltc::test::seed());
            // As many synapses as give each of eight threads a share.
            Problem problem({.B = B,
                             .T = 6,
                             .I = 3,
                             .N = 14,
                             .M = 2,
                             .U = 4,
                             .density = 0.8,
                             .timespans = timespans,
                             .lengths = lengths,
                             .return_sequences = return_sequences,
                             .memory = memory},
                            random);
            // Neighbours of like lengths: what one tile runs to is far behind another's end.
            std::sort(problem.lengths.begin(), problem.lengths.end());
            check_pairs_of_threads<double>(problem, 1e-12);
            if (timespans == 1) check_pairs_of_threads<float>(problem, 2e-5);
          }
        }
      }
    }
  }
}

TEST(the_same_call_gives_the_same_bits) {
  std::mt19937_64 random(fastltc::test::seed());
  const Problem problem(
      {.B = 70, .T = 10, .I = 6, .N = 24, .M = 4, .U = 6, .density = 0.5, .threads = 3}, random);
  Call<float> call(problem);
  const std::vector<float> first = call.backward();
  CHECK(call.backward() == first);
}
