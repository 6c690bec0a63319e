// Random problems of LTC for the CUDA kernels in the emulator, and what comes out of them. Buffers
// have their exact sizes, so that a sanitizer sees a read or write outside of one, and hold NaN
// where nothing may be read.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda/ltc.h"
#include "emulator/schedules.h"
#include "support/check.h"
#include "support/ltc_plain.h"

namespace fastltc::test {

struct Case {
  int64_t B, T, I, N, M, U;  // I, N and M of each layer
  int64_t nets = 1;
  bool memory = false;
  double density = 0.5;
  bool softplus = true;
  bool maps = true;
  bool initial_state = true;
  int timespans = 0;  // 0: none, 1: [B, T], 2: [B, T, N]
  bool lengths = false;
  bool return_sequences = true;
  bool time_major = false;
  bool extreme = false;  // time steps of 0 and up to the largest float, neurons without capacitance
};

inline const char* plan_text(cuda::LtcPlan plan) {
  using cuda::LtcPlan;
  return plan == LtcPlan::warp_per_sample    ? "warp"
         : plan == LtcPlan::block_per_sample ? "block"
         : plan == LtcPlan::cluster_per_tile ? "cluster"
                                             : "tiled";
}
inline std::string text(const Case& c, const cuda::LtcSchedule& schedule) {
  return std::string(plan_text(schedule.plan)) + " slots" + std::to_string(schedule.slots) +
         " threads" + std::to_string(schedule.threads) + " cluster" +
         std::to_string(schedule.cluster) + " samples" + std::to_string(schedule.samples) + " B" +
         std::to_string(c.B) + " T" + std::to_string(c.T) + " I" + std::to_string(c.I) + " N" +
         std::to_string(c.N) + " M" + std::to_string(c.M) + " U" + std::to_string(c.U) +
         " density" + std::to_string(c.density) + (c.softplus ? " softplus" : "") +
         (c.maps ? " maps" : "") + (c.initial_state ? " h0" : "") + " timespans" +
         std::to_string(c.timespans) + (c.lengths ? " lengths" : "") +
         (c.return_sequences ? " sequences" : "") + (c.time_major ? " time_major" : "") +
         (c.extreme ? " extreme" : "") + (c.nets > 1 ? " nets" + std::to_string(c.nets) : "") +
         (c.memory ? " memory" : "");
}

// Float64 values of all tensors; their gradients have the same sizes and order.
enum Tensor {
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
inline const char* const tensor_names[] = {"x",
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

struct Problem {
  Case c;
  std::vector<double> values[TENSORS], grad_output, grad_hn;
  std::vector<int32_t> synapses, sensory;
  std::vector<int64_t> lengths;

  Problem(const Case& which, std::mt19937_64& random) : c(which) {
    const auto fill = [&](std::vector<double>& to, int64_t count, double low, double high) {
      std::uniform_real_distribution<double> uniform(low, high);
      for (int64_t k = 0; k < count; ++k) to.push_back(uniform(random));
    };
    const int64_t steps = c.B * c.T * (c.timespans == 2 ? neurons() : c.timespans);
    fill(values[X], c.B * c.T * inputs(), -2, 2);
    fill(values[H0], c.B * state(), -1, 1);
    fill(values[DT], steps, 0, 2);
    if (steps > 1) values[DT][1] = 0.0;
    fill(values[GLEAK], neurons(), 0.1, 1);
    fill(values[VLEAK], neurons(), -1, 1);
    fill(values[CM], neurons(), 0.4, 0.6);
    if (c.extreme) {
      constexpr double choices[] = {0.0, 1.0, 0x1p64, std::numeric_limits<float>::max()};
      for (size_t k = 0; k < values[DT].size(); ++k) values[DT][k] = choices[random() % 4];
      for (size_t j = 0; j < values[CM].size(); j += 2) values[CM][j] = 0.0;
    }
    for (const auto& [first, rows] : {std::pair{SIGMA, neurons()}, std::pair{S_SIGMA, inputs()}}) {
      fill(values[first], rows * c.N, 3, 8);
      fill(values[first + 1], rows * c.N, 0.3, 0.8);
      fill(values[first + 2], rows * c.N, 0.01, 1);
      fill(values[first + 3], rows * c.N, -1, 1);
    }
    fill(values[IN_W], inputs(), -2, 2);
    fill(values[IN_B], inputs(), -1, 1);
    fill(values[OUT_W], outputs(), -2, 2);
    fill(values[OUT_B], outputs(), -1, 1);
    if (c.memory) {
      fill(values[MEMORY_W], 4 * c.N * c.I, -1, 1);
      fill(values[MEMORY_B], 4 * c.N, -1, 1);
      fill(values[MEMORY_R], 4 * c.N * c.N, -1, 1);
    }
    fill(grad_output, c.B * outputs() * (c.return_sequences ? c.T : 1), -1, 1);
    fill(grad_hn, c.B * state(), -1, 1);
    synapses = wiring(c.N, SIGMA, random);
    sensory = wiring(c.I, S_SIGMA, random);
    for (int64_t b = 0; b < c.B; ++b) {
      lengths.push_back(std::uniform_int_distribution<int64_t>(0, c.T)(random));
    }
    for (int64_t b = 0; b < c.B && c.lengths; ++b) {
      for (int64_t t = lengths[b]; t < c.T; ++t) {
        poison(values[X], b, t, inputs());
        if (c.timespans > 0) poison(values[DT], b, t, c.timespans == 2 ? neurons() : 1);
      }
    }
  }

  // Of all layers.
  int64_t neurons() const { return c.nets * c.N; }
  int64_t inputs() const { return c.nets * c.I; }
  int64_t outputs() const { return c.nets * c.M; }
  int64_t state() const { return c.memory ? 2 * c.N : neurons(); }
  int64_t row(int64_t b, int64_t t) const { return c.time_major ? t * c.B + b : b * c.T + t; }
  void poison(std::vector<double>& sequence, int64_t b, int64_t t, int64_t channels) const {
    std::fill_n(sequence.begin() + row(b, t) * channels, channels,
                std::numeric_limits<double>::quiet_NaN());
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
            for (int n = 0; n < 4; ++n) values[first + n][i * c.N + j] = std::nan("");
          }
        }
        list.push_back(static_cast<int32_t>(row.size()));
      }
    }
    list.insert(list.end(), row.begin(), row.end());
    return list;
  }
  LtcCounts counts() const {
    return {static_cast<int64_t>(synapses.size()) - neurons() - 1,
            static_cast<int64_t>(sensory.size()) - neurons() - 1};
  }
};

template <typename T>
struct Call {
  const Problem& problem;
  std::vector<T> values[TENSORS], gradients[TENSORS], grad_output, grad_hn, output, hn, states;
  LtcInputs<T> in;

  explicit Call(const Problem& p)
      : problem(p),
        grad_output(p.grad_output.begin(), p.grad_output.end()),
        grad_hn(p.grad_hn.begin(), p.grad_hn.end()) {
    const Case& c = p.c;
    for (int k = 0; k < TENSORS; ++k) values[k].assign(p.values[k].begin(), p.values[k].end());
    in.size = {c.B, c.T, p.inputs(), p.neurons(), p.outputs(), c.U};
    in.nets = c.nets;
    in.x = sequence<const T>(values[X].data(), p.inputs());
    if (c.initial_state) in.h0 = {values[H0].data(), p.state(), 0, 1};
    if (c.memory) {
      in.memory = {values[MEMORY_W].data(), values[MEMORY_B].data(), values[MEMORY_R].data()};
    }
    if (c.timespans > 0) in.timespans = timespans<const T>(values[DT].data());
    in.timespans_per_neuron = c.timespans == 2;
    if (c.lengths) in.lengths = p.lengths.data();
    in.lengths_stride = 1;
    auto& q = in.parameters;
    const T** const dense[] = {&q.gleak,      &q.vleak,     &q.cm,          &q.sigma,
                               &q.mu,         &q.w,         &q.erev,        &q.sensory_sigma,
                               &q.sensory_mu, &q.sensory_w, &q.sensory_erev};
    for (int k = 0; k < 11; ++k) *dense[k] = values[GLEAK + k].data();
    if (c.maps) {
      q.input_w = values[IN_W].data();
      q.input_b = values[IN_B].data();
      q.output_w = values[OUT_W].data();
      q.output_b = values[OUT_B].data();
    }
    q.epsilon = 1e-8;
    q.softplus = c.softplus;
    in.synapses = {p.synapses.data(), p.synapses.data() + p.neurons() + 1};
    in.sensory_synapses = {p.sensory.data(), p.sensory.data() + p.neurons() + 1};
  }

  template <typename V>
  SequenceView<V> sequence(V* data, int64_t channels) const {
    const Case& c = problem.c;
    if (c.time_major) return {data, channels, c.B * channels, 1};
    return {data, c.T * channels, channels, 1};
  }
  template <typename V>
  SequenceView<V> timespans(V* data) const {
    SequenceView<V> view = sequence(data, problem.c.timespans == 2 ? problem.neurons() : 1);
    if (problem.c.timespans == 1) view.stride_c = 0;
    return view;
  }
  template <typename V>
  SequenceView<V> outputs(V* data) const {
    if (problem.c.return_sequences) return sequence(data, problem.outputs());
    return {data, problem.outputs(), 0, 1};
  }

  LtcOutputs<T> prepare_forward(bool keep_states, bool keep_rates = false) {
    const Case& c = problem.c;
    const T nan = std::numeric_limits<T>::quiet_NaN();
    output.assign(c.B * problem.outputs() * (c.return_sequences ? c.T : 1), nan);
    hn.assign(c.B * problem.state(), nan);
    const int64_t of_step = c.memory ? c.U + 6 : keep_rates ? 2 * c.U : c.U;
    states.assign(keep_states ? (c.T * of_step + 1) * problem.neurons() * c.B : 0, nan);
    LtcOutputs<T> out;
    out.output = outputs(output.data());
    out.return_sequences = c.return_sequences;
    out.hn = hn.data();
    if (keep_states) out.states = states.data();
    return out;
  }
  // `zeroed`: as plain_ltc_backward expects the dense gradients.
  LtcGradients<T> prepare_backward(bool zeroed) {
    const Case& c = problem.c;
    LtcGradients<T> g;
    for (int k = 0; k < TENSORS; ++k) {
      const bool cleared = zeroed && k >= SIGMA && k <= S_EREV;
      gradients[k].assign(values[k].size(), cleared ? T(0) : std::numeric_limits<T>::quiet_NaN());
    }
    g.grad_output = outputs<const T>(grad_output.data());
    g.return_sequences = c.return_sequences;
    g.grad_hn = {grad_hn.data(), problem.state(), 0, 1};
    g.states = states.data();
    g.x = sequence(gradients[X].data(), problem.inputs());
    if (c.initial_state) g.h0 = gradients[H0].data();
    if (c.timespans > 0) g.timespans = timespans(gradients[DT].data());
    T** const dense[] = {&g.gleak,      &g.vleak,     &g.cm,          &g.sigma,
                         &g.mu,         &g.w,         &g.erev,        &g.sensory_sigma,
                         &g.sensory_mu, &g.sensory_w, &g.sensory_erev};
    for (int k = 0; k < 11; ++k) *dense[k] = gradients[GLEAK + k].data();
    if (c.maps) {
      g.input_w = gradients[IN_W].data();
      g.input_b = gradients[IN_B].data();
      g.output_w = gradients[OUT_W].data();
      g.output_b = gradients[OUT_B].data();
    }
    if (c.memory) {
      g.memory = {gradients[MEMORY_W].data(), gradients[MEMORY_B].data(),
                  gradients[MEMORY_R].data()};
    }
    return g;
  }
  bool has_gradient(int tensor) const {
    const bool of_map = tensor >= IN_W && tensor <= OUT_B;
    return (tensor != H0 || problem.c.initial_state) && (!of_map || problem.c.maps);
  }

  static std::unique_ptr<unsigned char[]> scratch(size_t bytes) {
    std::unique_ptr<unsigned char[]> memory(new unsigned char[bytes]);
    std::fill_n(memory.get(), bytes, 0xff);
    return memory;
  }
  void forward(const cuda::LtcSchedule& schedule, bool keep_states) {
    const LtcCounts counts = problem.counts();
    const LtcOutputs<T> out =
        prepare_forward(keep_states, schedule.plan == cuda::LtcPlan::cluster_per_tile);
    const auto memory = scratch(cuda::ltc_forward_scratch(schedule, in, counts));
    cuda::launch_ltc_forward(schedule, in, counts, out, memory.get(), nullptr);
  }
  void backward(const cuda::LtcSchedule& schedule) {
    const LtcCounts counts = problem.counts();
    const LtcGradients<T> grad = prepare_backward(false);
    const auto memory = scratch(cuda::ltc_backward_scratch(schedule, in, counts));
    cuda::launch_ltc_backward(schedule, in, counts, grad, memory.get(), nullptr);
  }
  std::vector<T> everything() const {
    std::vector<T> all(output);
    all.insert(all.end(), hn.begin(), hn.end());
    all.insert(all.end(), states.begin(), states.end());
    for (int k = 0; k < TENSORS; ++k) {
      if (has_gradient(k)) all.insert(all.end(), gradients[k].begin(), gradients[k].end());
    }
    return all;
  }
};

template <typename T>
void compare(const std::string& what, const std::vector<T>& got,
             const std::vector<double>& expected, double tolerance) {
  fastltc::test::check_close(what, got, expected, tolerance, fastltc::test::scale_of(expected));
}

// What plain loops give.
struct Expected {
  Call<double> call;

  explicit Expected(const Problem& problem) : call(problem) {
    plain_ltc_forward(call.in, call.prepare_forward(false));
    plain_ltc_backward(call.in, call.prepare_backward(true));
  }
};

template <typename T>
void check_values(const Problem& problem, const Expected& expected,
                  const cuda::LtcSchedule& schedule, double tolerance) {
  const std::string name = text(problem.c, schedule) + (sizeof(T) == 4 ? " float32 " : " float64 ");
  Call<T> call(problem);
  call.forward(schedule, false);
  compare(name + "output", call.output, expected.call.output, tolerance);
  call.forward(schedule, true);
  compare(name + "output with states", call.output, expected.call.output, tolerance);
  compare(name + "hn", call.hn, expected.call.hn, tolerance);
  call.backward(schedule);
  for (int k = 0; k < TENSORS; ++k) {
    if (!call.has_gradient(k)) continue;
    compare(name + "gradient of " + tensor_names[k], call.gradients[k], expected.call.gradients[k],
            tolerance);
  }
}

#if defined(FASTLTC_TEST_RACES)
inline constexpr bool kChecksRaces = true;
#else
inline constexpr bool kChecksRaces = false;
#endif

// Runs a problem in every order of blocks and threads: the bits have to be the same.
inline void check_orders(const Problem& problem, const cuda::LtcSchedule& schedule) {
  std::vector<float> first;
  for (const auto& order : emulator::every_schedule()) {
    emulator::set_schedule(order);
    Call<float> call(problem);
    call.forward(schedule, true);
    call.backward(schedule);
    if (first.empty()) first = call.everything();
    if (call.everything() != first) {
      report_failure(__FILE__, __LINE__, text(problem.c, schedule) + ": bits depend on the order");
    }
  }
}

}  // namespace fastltc::test
