// What the random problems of all cells share. `Case` holds the sizes and options of one (B, T,
// timespans, lengths, resets, return_sequences, time_major, initial_state, memory) and knows how many
// inputs, neurons, outputs and values of state there are. Buffers have their exact sizes, so that a
// sanitizer sees a read or write outside of one, and hold NaN where nothing may be read.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/sequence.h"
#include "support/check.h"

namespace fastltc::test {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

template <typename Case>
std::string text_of_sequence(const Case& c) {
  return " B" + std::to_string(c.B) + " T" + std::to_string(c.T) + " I" + std::to_string(c.I) +
         " timespans" + std::to_string(c.timespans) + (c.lengths ? " lengths" : "") +
         (c.resets ? " resets" : "") + (c.reset_to_zero ? " to zero" : "") +
         (c.return_sequences ? " sequences" : "") + (c.time_major ? " time_major" : "") +
         (c.initial_state ? " h0" : "") + (c.memory ? " memory" : "") +
         (c.extreme ? " extreme" : "") + " threads" + std::to_string(c.threads);
}

template <typename V, typename Case>
SequenceView<V> sequence_view(const Case& c, V* data, int64_t channels) {
  if (c.time_major) return {data, channels, c.B * channels, 1};
  return {data, c.T * channels, channels, 1};
}
template <typename V, typename Case>
SequenceView<V> timespans_view(const Case& c, V* data) {
  SequenceView<V> view = sequence_view(c, data, c.timespans == 2 ? c.neurons() : 1);
  if (c.timespans == 1) view.stride_c = 0;
  return view;
}
template <typename V, typename Case>
SequenceView<V> output_view(const Case& c, V* data) {
  if (c.return_sequences) return sequence_view(c, data, c.outputs());
  return {data, c.outputs(), 0, 1};
}
template <typename Case>
int64_t output_size(const Case& c) {
  return c.B * c.outputs() * (c.return_sequences ? c.T : 1);
}
template <typename Case>
int64_t timespans_size(const Case& c) {
  return c.B * c.T * (c.timespans == 2 ? c.neurons() : c.timespans);
}

// Time steps of 0 and up to the largest float.
inline void make_extreme(std::vector<double>& timespans, std::mt19937_64& random) {
  constexpr double choices[] = {0.0, 1.0, 0x1p64, std::numeric_limits<float>::max()};
  for (double& dt : timespans) dt = choices[random() % 4];
}

template <typename Case>
std::vector<int64_t> random_lengths(const Case& c, std::mt19937_64& random) {
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < c.B; ++b) {
    lengths.push_back(std::uniform_int_distribution<int64_t>(0, c.T)(random));
  }
  // Neighbours of like lengths: what one tile runs to is far behind another's end.
  if (c.sorted) std::sort(lengths.begin(), lengths.end());
  return lengths;
}

// Before which steps a sample has its initial state again, as bool, [B, T].
template <typename Case>
std::vector<unsigned char> random_resets(const Case& c, std::mt19937_64& random) {
  std::vector<unsigned char> resets;
  for (int64_t k = 0; k < c.B * c.T && c.resets; ++k) resets.push_back(random() % 3 == 0);
  return resets;
}

// Calls `row(b, t, index)` for the steps behind the lengths; `index` counts rows in memory.
template <typename Case, typename Row>
void behind_the_lengths(const Case& c, const std::vector<int64_t>& lengths, const Row& row) {
  for (int64_t b = 0; b < c.B && c.lengths; ++b) {
    for (int64_t t = lengths[b]; t < c.T; ++t) row(b, t, c.time_major ? t * c.B + b : b * c.T + t);
  }
}
inline void poison_row(std::vector<double>& values, int64_t row, int64_t channels) {
  std::fill_n(values.begin() + row * channels, channels, kNaN);
}

// Calls `check` for a case whose resets are to its initial state, and to zeros.
template <typename Case, typename Check>
void both_resets(Case c, const Check& check) {
  for (const bool to_zero : {false, true}) {
    c.reset_to_zero = to_zero;
    check(c);
  }
}

// Calls `check` for a case with every kind of time steps, with lengths and without, and with outputs
// of all steps or the last.
template <typename Case, typename Check>
void every_way(Case c, const Check& check) {
  for (const int timespans : {0, 1, 2}) {
    for (const bool lengths : {false, true}) {
      for (const bool return_sequences : {false, true}) {
        c.timespans = timespans;
        c.lengths = lengths;
        c.return_sequences = return_sequences;
        check(c);
      }
    }
  }
}

// The values of a problem in type T, and what comes out of a call. `values` and `gradients` begin
// with those of x, h0 and the time steps.
template <typename Problem, template <typename> class Inputs, typename T>
struct SequenceCall {
  const Problem& problem;
  std::vector<std::vector<T>> values, gradients;
  std::vector<T> grad_output, grad_hn, output, hn, states;
  Inputs<T> in;

  explicit SequenceCall(const Problem& p)
      : problem(p),
        grad_output(p.grad_output.begin(), p.grad_output.end()),
        grad_hn(p.grad_hn.begin(), p.grad_hn.end()) {
    const auto& c = p.c;
    for (const auto& v : p.values) values.emplace_back(v.begin(), v.end());
    in.x = sequence_view<const T>(c, values[0].data(), c.inputs());
    if (c.initial_state) in.h0 = {values[1].data(), c.state(), 0, 1};
    if (c.timespans > 0) in.timespans = timespans_view<const T>(c, values[2].data());
    in.timespans_per_neuron = c.timespans == 2;
    if (c.lengths) in.lengths = p.lengths.data();
    in.lengths_stride = 1;
    if (c.resets) in.resets = {reinterpret_cast<const bool*>(p.resets.data()), c.T, 1, 0};
    in.reset_to_zero = c.reset_to_zero;
    const size_t memory = values.size() - 3;
    if (c.memory) {
      in.memory = {values[memory].data(), values[memory + 1].data(), values[memory + 2].data()};
    }
  }

  // `size`: of the states.
  template <typename Outputs>
  Outputs prepare_outputs(bool keep_states, int64_t size) {
    const auto& c = problem.c;
    const T nan = std::numeric_limits<T>::quiet_NaN();
    output.assign(output_size(c), nan);
    hn.assign(c.B * c.state(), nan);
    states.assign(keep_states ? size : 0, nan);
    Outputs out;
    out.output = output_view(c, output.data());
    out.return_sequences = c.return_sequences;
    out.hn = hn.data();
    if (keep_states) out.states = states.data();
    return out;
  }
  template <typename Gradients>
  Gradients prepare_gradients() {
    const auto& c = problem.c;
    gradients.clear();
    for (const auto& v : values) {
      gradients.emplace_back(v.size(), std::numeric_limits<T>::quiet_NaN());
    }
    Gradients g;
    g.grad_output = output_view<const T>(c, grad_output.data());
    g.return_sequences = c.return_sequences;
    g.grad_hn = {grad_hn.data(), c.state(), 0, 1};
    g.states = states.data();
    g.x = sequence_view(c, gradients[0].data(), c.inputs());
    if (c.initial_state) g.h0 = gradients[1].data();
    if (c.timespans > 0) g.timespans = timespans_view(c, gradients[2].data());
    const size_t memory = gradients.size() - 3;
    if (c.memory) {
      g.memory = {gradients[memory].data(), gradients[memory + 1].data(),
                  gradients[memory + 2].data()};
    }
    return g;
  }
  double loss() const {
    double total = 0;
    for (size_t k = 0; k < output.size(); ++k) total += problem.grad_output[k] * output[k];
    for (size_t k = 0; k < hn.size(); ++k) total += problem.grad_hn[k] * hn[k];
    return total;
  }
  std::vector<T> everything() const {
    std::vector<T> all(output);
    all.insert(all.end(), hn.begin(), hn.end());
    all.insert(all.end(), states.begin(), states.end());
    for (size_t k = 0; k < gradients.size(); ++k) {
      if (problem.has_gradient(k)) all.insert(all.end(), gradients[k].begin(), gradients[k].end());
    }
    return all;
  }
};

// A cell: its problems, calls and plain loops.
template <typename P, template <typename> class C, auto kPlainForward, auto kPlainBackward>
struct Cell {
  using Problem = P;
  using Case = decltype(P::c);
  template <typename T>
  using Call = C<T>;

  static void plain_forward(const auto& in, const auto& out) { kPlainForward(in, out); }
  static void plain_backward(const auto& in, const auto& grad) { kPlainBackward(in, grad); }
};

// What plain loops give; `Layer` is Ltc or Cfc.
template <typename Layer>
struct Expected {
  typename Layer::template Call<double> call;

  explicit Expected(const typename Layer::Problem& problem) : call(problem) {
    Layer::plain_forward(call.in, call.prepare_forward(false));
    Layer::plain_backward(call.in, call.prepare_backward(true));
  }
};

template <typename T>
void compare(const std::string& what, const std::vector<T>& got,
             const std::vector<double>& expected, double tolerance) {
  check_close(what, got, expected, tolerance, scale_of(expected));
}

// Compares the gradients of a call by name with those of plain loops.
template <typename Call, typename Expectation>
void compare_gradients(const std::string& what, const Call& call, const Expectation& expected,
                       double tolerance) {
  for (size_t k = 0; k < call.gradients.size(); ++k) {
    if (!call.problem.has_gradient(k)) continue;
    compare(what + "gradient of " + call.problem.name(k), call.gradients[k],
            expected.call.gradients[k], tolerance);
  }
}

// Compares the slope of `loss(problem)` along a random direction with that of `gradients`.
template <typename Problem, typename Loss>
void check_slope(const std::string& what, const Problem& problem,
                 const std::vector<std::vector<double>>& gradients, std::mt19937_64& random,
                 double distance, double tolerance, const Loss& loss) {
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> direction;
  double expected = 0;
  for (size_t k = 0; k < gradients.size(); ++k) {
    direction.emplace_back(gradients[k].size());
    for (size_t n = 0; n < gradients[k].size(); ++n) {
      const double value = problem.values[k][n];
      // Of what is absent there is no gradient; a time step of 0 has no lower neighbour.
      if (!problem.has_gradient(k) || value != value || (k == 2 && value < 1e-3)) continue;
      direction[k][n] = normal(random);
      expected += gradients[k][n] * direction[k][n];
    }
  }
  const auto loss_at = [&](double along) {
    Problem moved = problem;
    for (size_t k = 0; k < direction.size(); ++k) {
      for (size_t n = 0; n < direction[k].size(); ++n) {
        moved.values[k][n] += along * direction[k][n];
      }
    }
    return loss(moved);
  };
  // Richardson's extrapolation of two central differences: error of fourth order.
  const double h = distance;
  const double wide = (loss_at(2 * h) - loss_at(-2 * h)) / (4 * h);
  const double narrow = (loss_at(h) - loss_at(-h)) / (2 * h);
  const double numeric = (4 * narrow - wide) / 3;
  if (std::abs(numeric - expected) <= tolerance * std::max(1.0, std::abs(expected))) return;
  report_failure(__FILE__, __LINE__,
                 what + ": gradient along a direction " + std::to_string(expected) +
                     ", numerically " + std::to_string(numeric));
}

}  // namespace fastltc::test
