// Random problems of LTC, and the buffers of a call.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/ltc_problem.h"
#include "support/ltc_plain.h"
#include "support/sequence_case.h"

namespace fastltc::test {

struct LtcCase {
  int64_t B, T, I, N, M, U;  // I, N and M of each layer
  int64_t nets = 1;
  double density = 0.5;
  bool softplus = true;
  bool maps = true;
  bool initial_state = true;
  int timespans = 0;  // 0: none, 1: [B, T], 2: [B, T, N]
  bool lengths = false;
  bool return_sequences = true;
  bool time_major = false;
  bool memory = false;
  bool extreme = false;  // time steps of 0 and up to the largest float, neurons without capacitance
  bool sorted = false;   // the lengths
  bool resets = false;
  bool keeps_unfolds = true;  // the states after all unfolds, or the last of each step
  bool reset_to_zero = false;
  int threads = 1;

  int64_t kept_unfolds() const { return keeps_unfolds ? U : 1; }
  // Of all layers.
  int64_t neurons() const { return nets * N; }
  int64_t inputs() const { return nets * I; }
  int64_t outputs() const { return nets * M; }
  int64_t state() const { return memory ? 2 * N : neurons(); }
};

inline std::string text(const LtcCase& c) {
  return "LTC N" + std::to_string(c.N) + " M" + std::to_string(c.M) + " U" + std::to_string(c.U) +
         " density" + std::to_string(c.density) + (c.softplus ? " softplus" : "") +
         (c.maps ? " maps" : "") + (c.nets > 1 ? " nets" + std::to_string(c.nets) : "") +
         (c.keeps_unfolds ? "" : " last unfolds") + text_of_sequence(c);
}

// The tensors in the order of their values; their gradients have the same sizes and order.
enum LtcTensor {
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
  MEMORY_R,
  TENSORS
};

struct LtcProblem {
  LtcCase c;
  std::vector<std::vector<double>> values;
  std::vector<double> grad_output, grad_hn;
  std::vector<int32_t> synapses, sensory;
  std::vector<int64_t> lengths;
  std::vector<unsigned char> resets;

  LtcProblem(const LtcCase& which, std::mt19937_64& random) : c(which), values(TENSORS) {
    const auto fill = [&](std::vector<double>& to, int64_t count, double low, double high) {
      std::uniform_real_distribution<double> uniform(low, high);
      for (int64_t k = 0; k < count; ++k) to.push_back(uniform(random));
    };
    fill(values[X], c.B * c.T * c.inputs(), -2, 2);
    fill(values[H0], c.B * c.state(), -1, 1);
    fill(values[DT], timespans_size(c), 0, 2);
    if (values[DT].size() > 1) values[DT][1] = 0.0;
    fill(values[GLEAK], c.neurons(), 0.1, 1);
    fill(values[VLEAK], c.neurons(), -1, 1);
    fill(values[CM], c.neurons(), 0.4, 0.6);
    if (c.extreme) {
      make_extreme(values[DT], random);
      for (size_t j = 0; j < values[CM].size(); j += 2) values[CM][j] = 0.0;
    }
    for (const auto& [first, rows] :
         {std::pair{SIGMA, c.neurons()}, std::pair{S_SIGMA, c.inputs()}}) {
      fill(values[first], rows * c.N, 3, 8);
      fill(values[first + 1], rows * c.N, 0.3, 0.8);
      fill(values[first + 2], rows * c.N, 0.01, 1);
      fill(values[first + 3], rows * c.N, -1, 1);
    }
    fill(values[IN_W], c.inputs(), -2, 2);
    fill(values[IN_B], c.inputs(), -1, 1);
    fill(values[OUT_W], c.outputs(), -2, 2);
    fill(values[OUT_B], c.outputs(), -1, 1);
    if (c.memory) {
      fill(values[MEMORY_W], 4 * c.N * c.I, -1, 1);
      fill(values[MEMORY_B], 4 * c.N, -1, 1);
      fill(values[MEMORY_R], 4 * c.N * c.N, -1, 1);
    }
    fill(grad_output, output_size(c), -1, 1);
    fill(grad_hn, c.B * c.state(), -1, 1);
    synapses = wiring(c.N, SIGMA, random);
    sensory = wiring(c.I, S_SIGMA, random);
    lengths = random_lengths(c, random);
    resets = random_resets(c, random);
    behind_the_lengths(c, lengths, [&](int64_t, int64_t, int64_t row) {
      poison_row(values[X], row, c.inputs());
      if (c.timespans > 0) poison_row(values[DT], row, c.timespans == 2 ? c.neurons() : 1);
    });
  }
  // Every third neuron has no synapse where the wiring is sparse. What is absent becomes NaN.
  std::vector<int32_t> wiring(int64_t rows, int first, std::mt19937_64& random) {
    std::vector<int32_t> list{0}, row;
    std::uniform_real_distribution<double> uniform(0, 1);
    for (int64_t net = 0; net < c.nets; ++net) {
      for (int64_t j = 0; j < c.N; ++j) {
        for (int64_t i = net * rows; i < (net + 1) * rows; ++i) {
          if (c.density == 1.0 || (j % 3 != 0 && uniform(random) < c.density)) {
            row.push_back(static_cast<int32_t>(i));
          } else {
            for (int n = 0; n < 4; ++n) values[first + n][i * c.N + j] = kNaN;
          }
        }
        list.push_back(static_cast<int32_t>(row.size()));
      }
    }
    list.insert(list.end(), row.begin(), row.end());
    return list;
  }
  LtcCounts counts() const {
    return {static_cast<int64_t>(synapses.size()) - c.neurons() - 1,
            static_cast<int64_t>(sensory.size()) - c.neurons() - 1};
  }
  bool has_gradient(size_t k) const {
    return (k != H0 || c.initial_state) && (k < IN_W || k > OUT_B || c.maps);
  }
  static std::string name(size_t k) {
    const char* const names[] = {"x",
                                 "h0",
                                 "timespans",
                                 "gleak",
                                 "vleak",
                                 "cm",
                                 "sigma",
                                 "mu",
                                 "w",
                                 "erev",
                                 "s_sigma",
                                 "s_mu",
                                 "s_w",
                                 "s_erev",
                                 "input_w",
                                 "input_b",
                                 "output_w",
                                 "output_b",
                                 "memory weight",
                                 "memory bias",
                                 "memory recurrent weight"};
    return names[k];
  }
};

template <typename T>
struct LtcCall : SequenceCall<LtcProblem, LtcInputs, T> {
  using Base = SequenceCall<LtcProblem, LtcInputs, T>;
  using Base::problem, Base::values, Base::gradients, Base::in;

  explicit LtcCall(const LtcProblem& p) : Base(p) {
    const LtcCase& c = p.c;
    in.size = {c.B, c.T, c.inputs(), c.neurons(), c.outputs(), c.U};
    in.nets = c.nets;
    in.kept_unfolds = c.kept_unfolds();
    point(in.parameters, values);
    in.parameters.epsilon = 1e-8;
    in.parameters.softplus = c.softplus;
    in.synapses = {p.synapses.data(), p.synapses.data() + c.neurons() + 1};
    in.sensory_synapses = {p.sensory.data(), p.sensory.data() + c.neurons() + 1};
  }
  // Has parameters, or their gradients, point to their values.
  template <typename Pointers>
  void point(Pointers& q, std::vector<std::vector<T>>& from) const {
    auto next = from.begin() + GLEAK;
    for (auto* pointer : {&q.gleak, &q.vleak, &q.cm, &q.sigma, &q.mu, &q.w, &q.erev,
                          &q.sensory_sigma, &q.sensory_mu, &q.sensory_w, &q.sensory_erev}) {
      *pointer = (next++)->data();
    }
    if (!problem.c.maps) return;
    for (auto* pointer : {&q.input_w, &q.input_b, &q.output_w, &q.output_b}) {
      *pointer = (next++)->data();
    }
  }

  LtcOutputs<T> prepare_forward(bool keep_states, bool keep_rates = false) {
    const LtcCase& c = problem.c;
    const int64_t of_step = c.kept_unfolds() + (c.memory ? 6 : keep_rates ? c.U : 0);
    return this->template prepare_outputs<LtcOutputs<T>>(keep_states,
                                                         (c.T * of_step + 1) * c.neurons() * c.B);
  }
  // `zeroed`: where the dense gradients are added to.
  LtcGradients<T> prepare_backward(bool zeroed) {
    auto g = this->template prepare_gradients<LtcGradients<T>>();
    for (int k = SIGMA; k <= S_EREV && zeroed; ++k) gradients[k].assign(values[k].size(), T(0));
    point(g, gradients);
    return g;
  }
};

struct Ltc : Cell<LtcProblem, LtcCall, plain_ltc_forward, plain_ltc_backward> {
  // Behind the longest of a tile of samples no states are written.
  static constexpr bool kWritesAllStates = false;
};

}  // namespace fastltc::test
