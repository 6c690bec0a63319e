// Random problems of CfC, and the buffers of a call.
#pragma once

#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "core/cfc_problem.h"
#include "support/cfc_plain.h"
#include "support/sequence_case.h"

namespace fastltc::test {

inline constexpr CfcMode kModes[] = {CfcMode::gated, CfcMode::no_gate, CfcMode::pure};

struct CfcCase {
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
  bool time_major = false;
  bool initial_state = true;
  bool memory = false;
  bool all_outputs = false;
  bool extreme = false;         // time steps of 0 and up to the largest float
  bool sorted = false;          // the lengths
  bool finite_factors = false;  // of dropout, behind the lengths too
  bool resets = false;
  bool reset_to_zero = false;
  int threads = 1;

  int64_t inputs() const { return I; }
  int64_t neurons() const { return std::accumulate(cells.begin(), cells.end(), int64_t{0}); }
  int64_t outputs() const { return all_outputs ? neurons() : cells.back(); }
  int64_t state() const { return memory ? 2 * neurons() : neurons(); }
  int64_t gates() const { return mode == CfcMode::pure ? 1 : timespans == 0 ? 3 : 4; }
  int64_t states() const {
    const int64_t of_step = (gates() + (memory ? 5 : 0)) * neurons() + backbone_layers * units;
    return B * ((T + 1) * neurons() + T * of_step);
  }
};

inline std::string text(const CfcCase& c) {
  std::string cells;
  for (const int64_t size : c.cells) cells.append(" ").append(std::to_string(size));
  return "CfC" + cells + " mode" + std::to_string(static_cast<int>(c.mode)) +
         (c.masked ? " masked" : "") + " backbone" + std::to_string(c.backbone_layers) + "x" +
         std::to_string(c.units) + " activation" + std::to_string(static_cast<int>(c.activation)) +
         (c.dropout ? " dropout" : "") + (c.all_outputs ? " all outputs" : "") +
         text_of_sequence(c);
}

// Float64 values of all that has a gradient: x, h0, time steps, the parameters, then the three
// tensors of the memory cell.
struct CfcProblem {
  CfcCase c;
  std::vector<std::vector<double>> values, masks;
  std::vector<double> factors, grad_output, grad_hn;
  std::vector<int64_t> lengths;
  std::vector<unsigned char> resets;

  CfcProblem(const CfcCase& which, std::mt19937_64& random) : c(which) {
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    const auto add = [&](int64_t count, double scale) {
      std::vector<double> v(count);
      for (double& value : v) value = scale * normal(random);
      values.push_back(v);
    };
    const int64_t N = c.neurons();
    add(c.B * c.T * c.I, 1.0);
    add(c.B * c.state(), 1.0);
    add(timespans_size(c), 1.0);
    for (double& dt : values[2]) dt = 0.1 + uniform(random);
    if (values[2].size() > 1) values[2][1] = 0.0;
    if (c.extreme) make_extreme(values[2], random);
    // Sums of some size whatever the number of inputs.
    const auto dense = [&](int64_t rows, int64_t columns) {
      add(rows * columns, 1.5 / std::sqrt(static_cast<double>(columns)));
      add(rows, 0.3);
    };
    int64_t from = c.I;
    for (int64_t layer = 0; layer < c.backbone_layers; ++layer) {
      dense(c.units, layer == 0 ? c.I + N : c.units);
    }
    for (const int64_t size : c.cells) {
      const int64_t columns = c.backbone_layers > 0 ? c.units : from + size;
      const size_t first = values.size();
      for (int head = 0; head < (c.mode == CfcMode::pure ? 1 : 4); ++head) dense(size, columns);
      if (c.mode == CfcMode::pure) {
        add(size, 1.0);
        add(size, 1.0);
      }
      from = size;
      if (!c.masked) continue;
      std::vector<double> mask(size * columns);
      for (double& m : mask) m = uniform(random) < 0.6 ? 1.0 : 0.0;
      for (const size_t head : {first, first + 2}) {
        if (head > first && c.mode == CfcMode::pure) continue;
        for (size_t k = 0; k < mask.size(); ++k) {
          if (mask[k] == 0.0) values[head][k] = kNaN;
        }
      }
      masks.push_back(mask);
    }
    if (c.memory) {
      add(4 * N * c.I, 0.5);
      add(4 * N, 0.3);
      add(4 * N * N, 1.5 / std::sqrt(static_cast<double>(N)));
    }
    if (c.dropout) {
      factors.resize((c.backbone_layers - 1) * c.B * c.T * c.units);
      for (double& f : factors) f = uniform(random) < 0.5 ? 0.0 : 2.0;
    }
    lengths = random_lengths(c, random);
    resets = random_resets(c, random);
    grad_output.resize(output_size(c));
    grad_hn.resize(c.B * c.state());
    for (double& g : grad_output) g = normal(random);
    for (double& g : grad_hn) g = normal(random);
    const bool poisoned = c.dropout && !c.finite_factors;
    behind_the_lengths(c, lengths, [&](int64_t b, int64_t t, int64_t row) {
      poison_row(values[0], row, c.I);
      if (c.timespans > 0) poison_row(values[2], row, c.timespans == 2 ? c.neurons() : 1);
      for (int64_t layer = 0; layer + 1 < c.backbone_layers && poisoned; ++layer) {
        poison_row(factors, (layer * c.B + b) * c.T + t, c.units);
      }
    });
  }
  bool has_gradient(size_t k) const { return k != 1 || c.initial_state; }
  std::string name(size_t k) const {
    if (c.memory && k + 3 >= values.size())
      return "memory " + std::to_string(k + 3 - values.size());
    const char* const data[] = {"x", "h0", "timespans"};
    return k < 3 ? data[k] : "parameter " + std::to_string(k - 3);
  }
};

template <typename T>
struct CfcCall : SequenceCall<CfcProblem, CfcInputs, T> {
  using Base = SequenceCall<CfcProblem, CfcInputs, T>;
  using Base::problem, Base::values, Base::gradients, Base::in;
  std::vector<std::vector<T>> masks;
  std::vector<T> factors;
  std::vector<const T*> parameters, mask_pointers;
  std::vector<T*> grad_parameters;
  std::vector<SequenceView<const T>> dropout;

  explicit CfcCall(const CfcProblem& p) : Base(p), factors(p.factors.begin(), p.factors.end()) {
    const CfcCase& c = p.c;
    for (const auto& v : p.masks) masks.emplace_back(v.begin(), v.end());
    in.size = {c.B, c.T, c.I, c.neurons(), c.outputs(), 1};
    in.cells = static_cast<int64_t>(c.cells.size());
    in.cell_sizes = c.cells.data();
    in.backbone_layers = c.backbone_layers;
    in.backbone_units = c.units;
    in.mode = c.mode;
    in.activation = c.activation;
    for (size_t k = 3; k < values.size(); ++k) parameters.push_back(values[k].data());
    in.parameters = parameters.data();
    for (const auto& mask : masks) mask_pointers.push_back(mask.data());
    if (c.masked) in.masks = mask_pointers.data();
    for (int64_t layer = 0; layer + 1 < c.backbone_layers && c.dropout; ++layer) {
      dropout.push_back({factors.data() + layer * c.B * c.T * c.units, c.T * c.units, c.units, 1});
    }
    if (c.dropout) in.dropout = dropout.data();
  }

  CfcOutputs<T> prepare_forward(bool keep_states) {
    return this->template prepare_outputs<CfcOutputs<T>>(keep_states, problem.c.states());
  }
  // All gradients are written.
  CfcGradients<T> prepare_backward(bool /*zeroed*/) {
    auto g = this->template prepare_gradients<CfcGradients<T>>();
    grad_parameters.clear();
    for (size_t k = 3; k < gradients.size(); ++k) grad_parameters.push_back(gradients[k].data());
    g.parameters = grad_parameters.data();
    return g;
  }
};

struct Cfc : Cell<CfcProblem, CfcCall, plain_cfc_forward, plain_cfc_backward> {
  static constexpr bool kWritesAllStates = true;
};

}  // namespace fastltc::test
