// The LTC kernels for CUDA, run by the emulator: every plan on every shape that takes another path
// through it against plain loops, in every order of blocks and threads with the same bits. Buffers
// have their exact sizes, so that a sanitizer sees a read or write outside of one, and hold NaN
// where nothing may be read.
#include "cuda/ltc.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "emulator/schedules.h"
#include "support/check.h"
#include "support/ltc_plain.h"

namespace {

using fastltc::LayerSizes;
using fastltc::LtcCounts;
using fastltc::LtcGradients;
using fastltc::LtcInputs;
using fastltc::LtcOutputs;
using fastltc::SequenceView;
using fastltc::cuda::LtcPlan;
using fastltc::cuda::LtcSchedule;

struct Case {
  int64_t B, T, I, N, M, U;
  double density = 0.5;
  bool softplus = true;
  bool maps = true;
  bool initial_state = true;
  int timespans = 0;  // 0: none, 1: [B, T], 2: [B, T, N]
  bool lengths = false;
  bool return_sequences = true;
  bool time_major = false;
};

const char* plan_text(LtcPlan plan) {
  return plan == LtcPlan::warp_per_sample    ? "warp"
         : plan == LtcPlan::block_per_sample ? "block"
         : plan == LtcPlan::cluster_per_tile ? "cluster"
                                             : "tiled";
}
std::string text(const Case& c, const LtcSchedule& schedule) {
  return std::string(plan_text(schedule.plan)) + " slots" + std::to_string(schedule.slots) +
         " threads" + std::to_string(schedule.threads) + " cluster" +
         std::to_string(schedule.cluster) + " samples" + std::to_string(schedule.samples) + " B" +
         std::to_string(c.B) + " T" + std::to_string(c.T) + " I" + std::to_string(c.I) + " N" +
         std::to_string(c.N) + " M" + std::to_string(c.M) + " U" + std::to_string(c.U) +
         " density" + std::to_string(c.density) + (c.softplus ? " softplus" : "") +
         (c.maps ? " maps" : "") + (c.initial_state ? " h0" : "") + " timespans" +
         std::to_string(c.timespans) + (c.lengths ? " lengths" : "") +
         (c.return_sequences ? " sequences" : "") + (c.time_major ? " time_major" : "");
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
  TENSORS
};
const char* const tensor_names[] = {"x",       "h0",       "timespans", "gleak",  "vleak",
                                    "cm",      "sigma",    "mu",        "w",      "erev",
                                    "s_sigma", "s_mu",     "s_w",       "s_erev", "input_w",
                                    "input_b", "output_w", "output_b"};

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
    const int64_t steps = c.timespans == 2 ? c.B * c.T * c.N : c.timespans == 1 ? c.B * c.T : 0;
    fill(values[X], c.B * c.T * c.I, -2, 2);
    fill(values[H0], c.B * c.N, -1, 1);
    fill(values[DT], steps, 0, 2);
    if (steps > 1) values[DT][1] = 0.0;
    fill(values[GLEAK], c.N, 0.1, 1);
    fill(values[VLEAK], c.N, -1, 1);
    fill(values[CM], c.N, 0.4, 0.6);
    for (const auto& [first, rows] : {std::pair{SIGMA, c.N}, std::pair{S_SIGMA, c.I}}) {
      fill(values[first], rows * c.N, 3, 8);
      fill(values[first + 1], rows * c.N, 0.3, 0.8);
      fill(values[first + 2], rows * c.N, 0.01, 1);
      fill(values[first + 3], rows * c.N, -1, 1);
    }
    fill(values[IN_W], c.I, -2, 2);
    fill(values[IN_B], c.I, -1, 1);
    fill(values[OUT_W], c.M, -2, 2);
    fill(values[OUT_B], c.M, -1, 1);
    fill(grad_output, c.B * c.M * (c.return_sequences ? c.T : 1), -1, 1);
    fill(grad_hn, c.B * c.N, -1, 1);
    synapses = wiring(c.N, SIGMA, random);
    sensory = wiring(c.I, S_SIGMA, random);
    for (int64_t b = 0; b < c.B; ++b) {
      lengths.push_back(std::uniform_int_distribution<int64_t>(0, c.T)(random));
    }
    for (int64_t b = 0; b < c.B && c.lengths; ++b) {
      for (int64_t t = lengths[b]; t < c.T; ++t) {
        poison(values[X], b, t, c.I);
        if (c.timespans > 0) poison(values[DT], b, t, c.timespans == 2 ? c.N : 1);
      }
    }
  }

  int64_t row(int64_t b, int64_t t) const { return c.time_major ? t * c.B + b : b * c.T + t; }
  void poison(std::vector<double>& sequence, int64_t b, int64_t t, int64_t channels) const {
    std::fill_n(sequence.begin() + row(b, t) * channels, channels,
                std::numeric_limits<double>::quiet_NaN());
  }
  // Every third neuron has no synapse where the wiring is sparse. What is absent becomes NaN.
  std::vector<int32_t> wiring(int64_t rows, int first, std::mt19937_64& random) {
    std::vector<int32_t> list{0}, row;
    std::uniform_real_distribution<double> uniform(0, 1);
    for (int64_t j = 0; j < c.N; ++j) {
      for (int64_t i = 0; i < rows; ++i) {
        if (c.density == 1.0 || (j % 3 != 0 && uniform(random) < c.density)) {
          row.push_back(static_cast<int32_t>(i));
        } else {
          for (int n = 0; n < 4; ++n) values[first + n][i * c.N + j] = std::nan("");
        }
      }
      list.push_back(static_cast<int32_t>(row.size()));
    }
    list.insert(list.end(), row.begin(), row.end());
    return list;
  }
  LtcCounts counts() const {
    return {static_cast<int64_t>(synapses.size()) - c.N - 1,
            static_cast<int64_t>(sensory.size()) - c.N - 1};
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
    in.size = {c.B, c.T, c.I, c.N, c.M, c.U};
    in.x = sequence<const T>(values[X].data(), c.I);
    if (c.initial_state) in.h0 = {values[H0].data(), c.N, 0, 1};
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
    in.synapses = {p.synapses.data(), p.synapses.data() + c.N + 1};
    in.sensory_synapses = {p.sensory.data(), p.sensory.data() + c.N + 1};
  }

  template <typename V>
  SequenceView<V> sequence(V* data, int64_t channels) const {
    const Case& c = problem.c;
    if (c.time_major) return {data, channels, c.B * channels, 1};
    return {data, c.T * channels, channels, 1};
  }
  template <typename V>
  SequenceView<V> timespans(V* data) const {
    SequenceView<V> view = sequence(data, problem.c.timespans == 2 ? problem.c.N : 1);
    if (problem.c.timespans == 1) view.stride_c = 0;
    return view;
  }
  template <typename V>
  SequenceView<V> outputs(V* data) const {
    if (problem.c.return_sequences) return sequence(data, problem.c.M);
    return {data, problem.c.M, 0, 1};
  }

  LtcOutputs<T> prepare_forward(bool keep_states, bool keep_rates = false) {
    const Case& c = problem.c;
    const T nan = std::numeric_limits<T>::quiet_NaN();
    output.assign(c.B * c.M * (c.return_sequences ? c.T : 1), nan);
    hn.assign(c.B * c.N, nan);
    const int64_t each = keep_rates ? 2 * c.T * c.U + 1 : c.T * c.U + 1;
    states.assign(keep_states ? each * c.N * c.B : 0, nan);
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
    g.grad_hn = {grad_hn.data(), c.N, 0, 1};
    g.states = states.data();
    g.x = sequence(gradients[X].data(), c.I);
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
    return g;
  }
  bool has_gradient(int tensor) const {
    return (tensor != H0 || problem.c.initial_state) && (tensor < IN_W || problem.c.maps);
  }

  static std::unique_ptr<unsigned char[]> scratch(size_t bytes) {
    std::unique_ptr<unsigned char[]> memory(new unsigned char[bytes]);
    std::fill_n(memory.get(), bytes, 0xff);
    return memory;
  }
  void forward(const LtcSchedule& schedule, bool keep_states) {
    const LtcCounts counts = problem.counts();
    const LtcOutputs<T> out =
        prepare_forward(keep_states, schedule.plan == LtcPlan::cluster_per_tile);
    const auto memory = scratch(fastltc::cuda::ltc_forward_scratch(schedule, in, counts));
    fastltc::cuda::launch_ltc_forward(schedule, in, counts, out, memory.get(), nullptr);
  }
  void backward(const LtcSchedule& schedule) {
    const LtcCounts counts = problem.counts();
    const LtcGradients<T> grad = prepare_backward(false);
    const auto memory = scratch(fastltc::cuda::ltc_backward_scratch(schedule, in, counts));
    fastltc::cuda::launch_ltc_backward(schedule, in, counts, grad, memory.get(), nullptr);
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
  double scale = 1, worst = 0;
  for (const double value : expected) scale = std::max(scale, std::abs(value));
  bool wrong = got.size() != expected.size();
  for (size_t k = 0; k < expected.size() && !wrong; ++k) {
    const double difference = std::abs(static_cast<double>(got[k]) - expected[k]);
    if (!(difference <= worst)) worst = difference;
    // Written so that a NaN fails.
    wrong = !(difference <= tolerance * scale);
  }
  if (wrong) {
    fastltc::test::report_failure(
        __FILE__, __LINE__,
        what + ": off by " + std::to_string(worst) + " of " + std::to_string(scale));
  }
}

// What plain loops give.
struct Expected {
  Call<double> call;

  explicit Expected(const Problem& problem) : call(problem) {
    fastltc::test::plain_ltc_forward(call.in, call.prepare_forward(false));
    fastltc::test::plain_ltc_backward(call.in, call.prepare_backward(true));
  }
};

template <typename T>
void check_values(const Problem& problem, const Expected& expected, const LtcSchedule& schedule,
                  double tolerance) {
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

// Clusters run float32 alone: the smallest that take the neurons, and the largest.
std::vector<LtcSchedule> cluster_schedules(const Case& c) {
  std::vector<LtcSchedule> schedules;
  int cluster = 2;
  while (cluster < 8 && c.N > 32 * cluster) cluster *= 2;
  schedules.push_back(
      {LtcPlan::cluster_per_tile, 256, 0, std::min<int64_t>((c.B + 3) / 4, 3), cluster, 4});
  schedules.push_back(
      {LtcPlan::cluster_per_tile, 256, 0, std::min<int64_t>((c.B + 15) / 16, 3), 8, 16});
  if (c.N % 2 == 1) {
    schedules.push_back({LtcPlan::cluster_per_tile, 256, 0, std::min<int64_t>((c.B + 7) / 8, 3),
                         std::max(cluster, 4), 8});
  }
  return schedules;
}

// The plans that can run a problem, the one that would be chosen or not.
std::vector<LtcSchedule> possible_schedules(const Problem& problem) {
  const Case& c = problem.c;
  std::vector<LtcSchedule> schedules{{LtcPlan::tiled, 0, 0, 0}};
  const int64_t blocks = std::min<int64_t>(c.B, 3);
  if (c.N <= 32) {
    for (const int slots : {4, 8, 12}) {
      schedules.push_back({LtcPlan::warp_per_sample, 32, slots, blocks});
    }
  }
  if (problem.counts().synapses <= 4096) {
    schedules.push_back({LtcPlan::block_per_sample, c.N <= 64 ? 64 : 128, 8, blocks});
  }
  return schedules;
}

#if defined(FASTLTC_TEST_RACES)
constexpr bool kChecksRaces = true;
#else
constexpr bool kChecksRaces = false;
#endif

void check(const Case& c) {
  // Each access is looked up: what differs in nothing but in numbers is left to the other program.
  if (kChecksRaces && c.B * c.T * c.U * c.N * c.N > 6000) return;
  std::mt19937_64 random(fastltc::test::seed());
  const Problem problem(c, random);
  const Expected expected(problem);
  const LayerSizes& size = expected.call.in.size;
  fastltc::emulator::set_schedule({});
  for (const LtcSchedule& schedule : possible_schedules(problem)) {
    check_values<double>(problem, expected, schedule, 1e-11);
  }
  check_values<float>(problem, expected, fastltc::cuda::ltc_schedule(size, problem.counts(), false),
                      2e-4);
  for (const LtcSchedule& schedule : cluster_schedules(c)) {
    check_values<float>(problem, expected, schedule, 2e-4);
  }
}

}  // namespace

TEST(networks_of_every_size) {
  for (const int64_t N : {1, 7, 19, 31, 32, 33, 64, 100}) {
    check({.B = 3, .T = 2, .I = 4, .N = N, .M = (N + 1) / 2, .U = 3, .density = 0.3});
    check({.B = 1, .T = 2, .I = 3, .N = N, .M = N, .U = 2, .density = 1.0});
  }
}

TEST(batches_and_sequences_of_every_size) {
  for (const int64_t B : {1, 3, 130}) {
    for (const int64_t T : {1, 2, 17}) {
      if (B * T > 500) continue;
      check({.B = B, .T = T, .I = 3, .N = 7, .M = 2, .U = 2, .timespans = 1});
    }
  }
  check({.B = 130, .T = 17, .I = 2, .N = 3, .M = 1, .U = 1, .density = 1.0, .lengths = true});
}

TEST(time_steps_and_lengths) {
  for (const int timespans : {0, 1, 2}) {
    for (const bool lengths : {false, true}) {
      for (const bool return_sequences : {false, true}) {
        check({.B = 5,
               .T = 4,
               .I = 3,
               .N = 9,
               .M = 2,
               .U = 2,
               .timespans = timespans,
               .lengths = lengths,
               .return_sequences = return_sequences,
               .time_major = lengths});
      }
    }
  }
}

TEST(options) {
  check({.B = 4, .T = 3, .I = 2, .N = 6, .M = 3, .U = 6, .softplus = false});
  check({.B = 4, .T = 3, .I = 2, .N = 6, .M = 3, .U = 6, .maps = false});
  check({.B = 4, .T = 3, .I = 2, .N = 6, .M = 3, .U = 6, .initial_state = false});
  check({.B = 1, .T = 3, .I = 2, .N = 6, .M = 0, .U = 1});
  check({.B = 3, .T = 3, .I = 40, .N = 6, .M = 3, .U = 2, .density = 0.0});
}

TEST(nothing_to_do) {
  check({.B = 0, .T = 3, .I = 2, .N = 4, .M = 2, .U = 2});
  check({.B = 3, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2});
  check({.B = 3, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2, .return_sequences = false});
}

TEST(every_order_gives_the_same_bits) {
  for (const Case& c : {Case{.B = 5, .T = 3, .I = 4, .N = 19, .M = 2, .U = 6, .density = 0.4},
                        Case{.B = 3, .T = 2, .I = 2, .N = 40, .M = 4, .U = 2, .timespans = 1},
                        Case{.B = 67, .T = 2, .I = 3, .N = 5, .M = 4, .U = 2, .lengths = true}}) {
    if (kChecksRaces && c.N > 32) continue;
    std::mt19937_64 random(fastltc::test::seed());
    const Problem problem(c, random);
    std::vector<LtcSchedule> schedules = possible_schedules(problem);
    for (const LtcSchedule& schedule : cluster_schedules(c)) schedules.push_back(schedule);
    for (const LtcSchedule& schedule : schedules) {
      std::vector<float> first;
      for (const auto& order : fastltc::emulator::every_schedule()) {
        fastltc::emulator::set_schedule(order);
        Call<float> call(problem);
        call.forward(schedule, true);
        call.backward(schedule);
        if (first.empty()) first = call.everything();
        if (call.everything() != first) {
          fastltc::test::report_failure(__FILE__, __LINE__,
                                        text(c, schedule) + ": bits depend on the order");
        }
      }
    }
  }
}

TEST(lists_that_are_not_well_formed_touch_nothing_outside) {
  // One synapse twice in a list: whose gradient remains is open.
  if (kChecksRaces) return;
  std::mt19937_64 random(fastltc::test::seed());
  Problem problem({.B = 2, .T = 2, .I = 3, .N = 6, .M = 6, .U = 2, .density = 1.0}, random);
  const std::vector<int32_t> good = problem.synapses;
  fastltc::emulator::set_schedule({});
  const auto run = [&](size_t at, int32_t value) {
    problem.synapses = good;
    problem.synapses[at] = value;
    std::vector<LtcSchedule> schedules = possible_schedules(problem);
    for (const LtcSchedule& schedule : cluster_schedules(problem.c)) schedules.push_back(schedule);
    for (const LtcSchedule& schedule : schedules) {
      Call<float> call(problem);
      call.forward(schedule, true);
      const bool any = std::any_of(call.hn.begin(), call.hn.end(), [](float v) { return v != v; });
      if (!any) {
        fastltc::test::report_failure(__FILE__, __LINE__, text(problem.c, schedule) + ": no NaN");
      }
      call.backward(schedule);
    }
  };
  run(7, 6);
  run(9, -1);
  run(3, 1000);
  run(3, -5);
  run(6, 1 << 30);
}

TEST(negative_time_steps_give_nan) {
  std::mt19937_64 random(fastltc::test::seed());
  Problem problem({.B = 2, .T = 2, .I = 3, .N = 6, .M = 6, .U = 2, .timespans = 1}, random);
  problem.values[DT] = {0.5, 0.5, 0.5, -0.5};
  fastltc::emulator::set_schedule({});
  std::vector<LtcSchedule> schedules = possible_schedules(problem);
  for (const LtcSchedule& schedule : cluster_schedules(problem.c)) schedules.push_back(schedule);
  for (const LtcSchedule& schedule : schedules) {
    Call<float> call(problem);
    call.forward(schedule, true);
    for (int k = 0; k < 12; ++k) CHECK(std::isnan(call.hn[k]) == (k >= 6));
  }
}

TEST(schedules_of_the_sizes_that_matter) {
  const auto schedule = [](int64_t B, int64_t N, int64_t synapses, bool is_float64 = false) {
    return fastltc::cuda::ltc_schedule({B, 32, 16, N, 2, 6}, {synapses, 80}, is_float64);
  };
  // AutoNCP(19, 2)
  CHECK(schedule(128, 19, 46).plan == LtcPlan::warp_per_sample);
  CHECK(schedule(128, 19, 46).slots == 4);
  CHECK(schedule(128, 19, 46).blocks == 128);
  CHECK(schedule(5000, 19, 46).blocks == 1024);
  CHECK(schedule(0, 19, 46).blocks == 0);
  // AutoNCP(32, 4), FullyConnected(19), AutoNCP(64, 8), FullyConnected(64)
  CHECK(schedule(128, 32, 116).slots == 8);
  CHECK(schedule(128, 19, 361).slots == 12);
  CHECK(schedule(128, 19, 361, true).slots == 4);
  CHECK(schedule(128, 20, 400).threads == 64);
  CHECK(schedule(128, 64, 483).plan == LtcPlan::block_per_sample);
  CHECK(schedule(128, 64, 483).threads == 128);
  CHECK(schedule(64, 64, 4096).threads == 512);
  CHECK(schedule(64, 64, 4096).slots == 8);
  CHECK(schedule(64, 64, 4096, true).slots == 2);
  CHECK(schedule(64, 32, 1024).threads == 128);
  CHECK(schedule(64, 500, 600).threads == 512);
  // FullyConnected(65), FullyConnected(256), and more neurons than a block has threads, without
  // clusters
  CHECK(schedule(256, 65, 4225).plan == LtcPlan::tiled);
  CHECK(schedule(256, 256, 65536).plan == LtcPlan::tiled);
  CHECK(schedule(1, 513, 513).plan == LtcPlan::tiled);
}

TEST(schedules_with_clusters) {
  const fastltc::cuda::LtcDevice hopper{8, 227 << 10}, small{8, 99 << 10}, part{4, 227 << 10};
  const auto schedule = [](int64_t B, int64_t N, int64_t synapses,
                           const fastltc::cuda::LtcDevice& device, bool is_float64 = false) {
    return fastltc::cuda::ltc_schedule({B, 32, 16, N, 2, 6}, {synapses, 80}, is_float64, device);
  };
  const LtcSchedule full = schedule(256, 256, 65536, hopper);
  CHECK(full.plan == LtcPlan::cluster_per_tile);
  CHECK(full.cluster == 8 && full.samples == 16 && full.blocks == 16 && full.threads == 256);
  CHECK(schedule(64, 256, 65536, hopper).samples == 4);
  CHECK(schedule(65, 256, 65536, hopper).samples == 8);
  CHECK(schedule(5000, 256, 65536, hopper).blocks == 32);
  CHECK(schedule(0, 256, 65536, hopper).blocks == 0);
  CHECK(schedule(64, 65, 4225, hopper).cluster == 4);
  CHECK(schedule(64, 128, 128 * 128, part).cluster == 4);
  // Too wide for the device, in neurons and in shared memory
  CHECK(schedule(64, 129, 129 * 129, part).plan == LtcPlan::tiled);
  CHECK(schedule(64, 256, 65536, small).plan == LtcPlan::tiled);
  CHECK(schedule(64, 256, 65536, {1, 227 << 10}).plan == LtcPlan::tiled);
  CHECK(schedule(64, 100, 10000, small).plan == LtcPlan::cluster_per_tile);
  // Sparse, float64, larger, smaller
  CHECK(schedule(64, 256, 16384, hopper).plan == LtcPlan::cluster_per_tile);
  CHECK(schedule(64, 256, 16383, hopper).plan == LtcPlan::tiled);
  CHECK(schedule(64, 256, 65536, hopper, true).plan == LtcPlan::tiled);
  CHECK(schedule(64, 257, 65536, hopper).plan == LtcPlan::tiled);
  CHECK(schedule(64, 64, 4096, hopper).plan == LtcPlan::block_per_sample);
}
