// The CfC kernels for CUDA, run by the emulator: every plan on every shape that takes another path
// through it against plain loops, in every order of blocks and threads with the same bits. Buffers
// have their exact sizes, so that a sanitizer sees a read or write outside of one, and hold NaN
// where nothing may be read.
#include "cuda/cfc.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "emulator/schedules.h"
#include "support/cfc_plain.h"
#include "support/check.h"

namespace {

using fastltc::Activation;
using fastltc::CfcGradients;
using fastltc::CfcInputs;
using fastltc::CfcMode;
using fastltc::CfcOutputs;
using fastltc::SequenceView;
using fastltc::cuda::CfcPlan;
using fastltc::cuda::CfcSchedule;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr CfcMode kModes[] = {CfcMode::gated, CfcMode::no_gate, CfcMode::pure};

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
  bool time_major = false;
  bool initial_state = true;
  bool memory = false;
  bool extreme = false;  // time steps of 0 and up to the largest float

  int64_t N() const {
    int64_t total = 0;
    for (const int64_t size : cells) total += size;
    return total;
  }
  int64_t M() const { return cells.back(); }
  int64_t state() const { return memory ? 2 * N() : N(); }
  int64_t gates() const { return mode == CfcMode::pure ? 1 : timespans == 0 ? 3 : 4; }
  int64_t states() const {
    const int64_t of_step = (gates() + (memory ? 5 : 0)) * N() + backbone_layers * units;
    return B * ((T + 1) * N() + T * of_step);
  }
};

std::string text(const Case& c, const CfcSchedule& schedule) {
  const char* const plan = schedule.plan == CfcPlan::warp_per_sample  ? "warp"
                           : schedule.plan == CfcPlan::block_per_tile ? "block"
                                                                      : "tiled";
  std::string cells;
  for (const int64_t size : c.cells) cells.append(" ").append(std::to_string(size));
  return std::string(plan) + " threads" + std::to_string(schedule.threads) + " slots" +
         std::to_string(schedule.slots) + (schedule.weights_in_shared ? " shared" : "") + " B" +
         std::to_string(c.B) + " T" + std::to_string(c.T) + " I" + std::to_string(c.I) + " cells" +
         cells + " mode" + std::to_string(static_cast<int>(c.mode)) + (c.masked ? " masked" : "") +
         " backbone" + std::to_string(c.backbone_layers) + "x" + std::to_string(c.units) +
         " activation" + std::to_string(static_cast<int>(c.activation)) +
         (c.dropout ? " dropout" : "") + " timespans" + std::to_string(c.timespans) +
         (c.lengths ? " lengths" : "") + (c.return_sequences ? " sequences" : "") +
         (c.time_major ? " time_major" : "") + (c.initial_state ? " h0" : "") +
         (c.memory ? " memory" : "");
}

// Float64 values of all that has a gradient: x, h0, time steps, the parameters, then the three
// tensors of the memory cell.
struct Problem {
  Case c;
  std::vector<std::vector<double>> values, masks;
  std::vector<double> factors, grad_output, grad_hn;
  std::vector<int64_t> lengths;

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
    if (values[2].size() > 1) values[2][1] = 0.0;
    constexpr double choices[] = {0.0, 1.0, 0x1p64, std::numeric_limits<float>::max()};
    for (size_t k = 0; k < values[2].size() && c.extreme; ++k) values[2][k] = choices[random() % 4];
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
    for (int64_t b = 0; b < c.B; ++b) {
      lengths.push_back(std::uniform_int_distribution<int64_t>(0, c.T)(random));
    }
    grad_output.resize(c.B * c.M() * (c.return_sequences ? c.T : 1));
    grad_hn.resize(c.B * c.state());
    for (double& g : grad_output) g = normal(random);
    for (double& g : grad_hn) g = normal(random);
    for (int64_t b = 0; b < c.B && c.lengths; ++b) {
      for (int64_t t = lengths[b]; t < c.T; ++t) {
        poison(values[0], row(b, t), c.I);
        if (c.timespans > 0) poison(values[2], row(b, t), c.timespans == 2 ? N : 1);
        for (int64_t layer = 0; layer + 1 < c.backbone_layers && c.dropout; ++layer) {
          poison(factors, (layer * c.B + b) * c.T + t, c.units);
        }
      }
    }
  }

  int64_t row(int64_t b, int64_t t) const { return c.time_major ? t * c.B + b : b * c.T + t; }
  static void poison(std::vector<double>& values, int64_t row, int64_t channels) {
    std::fill_n(values.begin() + row * channels, channels, kNaN);
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
struct Call {
  const Problem& problem;
  std::vector<std::vector<T>> values, masks, gradients;
  std::vector<T> factors, grad_output, grad_hn, output, hn, states;
  std::vector<const T*> parameters, mask_pointers;
  std::vector<T*> grad_parameters;
  std::vector<SequenceView<const T>> dropout;
  CfcInputs<T> in;

  explicit Call(const Problem& p)
      : problem(p),
        factors(p.factors.begin(), p.factors.end()),
        grad_output(p.grad_output.begin(), p.grad_output.end()),
        grad_hn(p.grad_hn.begin(), p.grad_hn.end()) {
    const Case& c = p.c;
    for (const auto& v : p.values) values.emplace_back(v.begin(), v.end());
    for (const auto& v : p.masks) masks.emplace_back(v.begin(), v.end());
    in.size = {c.B, c.T, c.I, c.N(), c.M(), 1};
    in.x = sequence<const T>(values[0].data(), c.I);
    if (c.initial_state) in.h0 = {values[1].data(), c.state(), 0, 1};
    if (c.timespans > 0) in.timespans = timespans<const T>(values[2].data());
    in.timespans_per_neuron = c.timespans == 2;
    if (c.lengths) in.lengths = p.lengths.data();
    in.lengths_stride = 1;
    in.cells = static_cast<int64_t>(c.cells.size());
    in.cell_sizes = c.cells.data();
    in.backbone_layers = c.backbone_layers;
    in.backbone_units = c.units;
    in.mode = c.mode;
    in.activation = c.activation;
    for (size_t k = 3; k < values.size(); ++k) parameters.push_back(values[k].data());
    in.parameters = parameters.data();
    const size_t memory = values.size() - 3;
    if (c.memory) {
      in.memory = {values[memory].data(), values[memory + 1].data(), values[memory + 2].data()};
    }
    for (const auto& mask : masks) mask_pointers.push_back(mask.data());
    if (c.masked) in.masks = mask_pointers.data();
    for (int64_t layer = 0; layer + 1 < c.backbone_layers && c.dropout; ++layer) {
      dropout.push_back({factors.data() + layer * c.B * c.T * c.units, c.T * c.units, c.units, 1});
    }
    if (c.dropout) in.dropout = dropout.data();
  }

  template <typename V>
  SequenceView<V> sequence(V* data, int64_t channels) const {
    const Case& c = problem.c;
    if (c.time_major) return {data, channels, c.B * channels, 1};
    return {data, c.T * channels, channels, 1};
  }
  template <typename V>
  SequenceView<V> timespans(V* data) const {
    SequenceView<V> view = sequence(data, problem.c.timespans == 2 ? problem.c.N() : 1);
    if (problem.c.timespans == 1) view.stride_c = 0;
    return view;
  }
  template <typename V>
  SequenceView<V> outputs(V* data) const {
    if (problem.c.return_sequences) return sequence(data, problem.c.M());
    return {data, problem.c.M(), 0, 1};
  }

  CfcOutputs<T> prepare_forward(bool keep_states) {
    const Case& c = problem.c;
    const T nan = static_cast<T>(kNaN);
    output.assign(problem.grad_output.size(), nan);
    hn.assign(c.B * c.state(), nan);
    states.assign(keep_states ? c.states() : 0, nan);
    CfcOutputs<T> out;
    out.output = outputs(output.data());
    out.return_sequences = c.return_sequences;
    out.hn = hn.data();
    if (keep_states) out.states = states.data();
    return out;
  }
  CfcGradients<T> prepare_backward() {
    const Case& c = problem.c;
    gradients.clear();
    for (const auto& v : values) gradients.emplace_back(v.size(), static_cast<T>(kNaN));
    grad_parameters.clear();
    for (size_t k = 3; k < values.size(); ++k) grad_parameters.push_back(gradients[k].data());
    CfcGradients<T> g;
    g.grad_output = outputs<const T>(grad_output.data());
    g.return_sequences = c.return_sequences;
    g.grad_hn = {grad_hn.data(), c.state(), 0, 1};
    g.states = states.data();
    g.x = sequence(gradients[0].data(), c.I);
    if (c.initial_state) g.h0 = gradients[1].data();
    if (c.timespans > 0) g.timespans = timespans(gradients[2].data());
    g.parameters = grad_parameters.data();
    const size_t memory = gradients.size() - 3;
    if (c.memory) {
      g.memory = {gradients[memory].data(), gradients[memory + 1].data(),
                  gradients[memory + 2].data()};
    }
    return g;
  }

  static std::unique_ptr<unsigned char[]> scratch(size_t bytes) {
    std::unique_ptr<unsigned char[]> memory(new unsigned char[bytes]);
    std::fill_n(memory.get(), bytes, 0xff);
    return memory;
  }
  void forward(const CfcSchedule& schedule, bool keep_states) {
    const CfcOutputs<T> out = prepare_forward(keep_states);
    const auto memory = scratch(fastltc::cuda::cfc_forward_scratch(schedule, in));
    fastltc::cuda::launch_cfc_forward(schedule, in, out, memory.get(), nullptr);
  }
  void backward(const CfcSchedule& schedule) {
    const CfcGradients<T> grad = prepare_backward();
    const auto memory = scratch(fastltc::cuda::cfc_backward_scratch(schedule, in));
    fastltc::cuda::launch_cfc_backward(schedule, in, grad, memory.get(), nullptr);
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

template <typename T>
void compare(const std::string& what, const std::vector<T>& got,
             const std::vector<double>& expected, double tolerance) {
  fastltc::test::check_close(what, got, expected, tolerance, fastltc::test::scale_of(expected));
}

// What plain loops give.
struct Expected {
  Call<double> call;

  explicit Expected(const Problem& problem) : call(problem) {
    fastltc::test::plain_cfc_forward(call.in, call.prepare_forward(false));
    fastltc::test::plain_cfc_backward(call.in, call.prepare_backward());
  }
};

template <typename T>
void check_values(const Problem& problem, const Expected& expected, const CfcSchedule& schedule,
                  double tolerance) {
  const std::string name = text(problem.c, schedule) + (sizeof(T) == 4 ? " float32 " : " float64 ");
  Call<T> call(problem);
  call.forward(schedule, false);
  compare(name + "output", call.output, expected.call.output, tolerance);
  compare(name + "hn", call.hn, expected.call.hn, tolerance);
  call.forward(schedule, true);
  compare(name + "output with states", call.output, expected.call.output, tolerance);
  compare(name + "hn with states", call.hn, expected.call.hn, tolerance);
  if (std::any_of(call.states.begin(), call.states.end(), [](T v) { return v != v; })) {
    fastltc::test::report_failure(__FILE__, __LINE__, name + "not all states are written");
  }
  call.backward(schedule);
  for (size_t k = 0; k < call.gradients.size(); ++k) {
    if (!problem.has_gradient(k)) continue;
    compare(name + "gradient of " + problem.name(k), call.gradients[k], expected.call.gradients[k],
            tolerance);
  }
}

#if defined(FASTLTC_TEST_RACES)
constexpr bool kChecksRaces = true;
#else
constexpr bool kChecksRaces = false;
#endif

// The plans that can run a problem, the one that would be chosen or not.
template <typename T>
std::vector<CfcSchedule> possible_schedules(const Problem& problem) {
  const Case& c = problem.c;
  std::vector<CfcSchedule> schedules{{CfcPlan::tiled, 0, 0, false, 0}};
  // So few that some run several samples.
  const int64_t blocks = std::min<int64_t>(c.B, 3), tile_blocks = std::min<int64_t>(c.B, 2);
  if (c.N() <= 32 && c.cells.size() <= 12 && c.backbone_layers == 0 && !c.memory) {
    int64_t most = c.cells[0];
    for (size_t n = 1; n < c.cells.size(); ++n) most = std::max(most, c.cells[n - 1] + c.cells[n]);
    for (const int slots : {8, 20, 32}) {
      if (most <= slots && (sizeof(T) == 4 || slots == 20)) {
        schedules.push_back({CfcPlan::warp_per_sample, 32, slots, false, blocks});
      }
    }
  }
  const Call<T> call(problem);
  const CfcSchedule chosen = fastltc::cuda::cfc_schedule(call.in, 64 << 10);
  if (chosen.plan != CfcPlan::tiled) {
    schedules.push_back({CfcPlan::block_per_tile, 64, 0, false, tile_blocks});
    // All that fits: the weights of the small.
    if (c.N() * (c.N() + 1) * 4 < 4000 && c.units <= 16 && c.backbone_layers <= 3) {
      schedules.push_back({CfcPlan::block_per_tile, c.N() <= 10 ? 32 : 128, 0, true, 1});
    }
    if (chosen.plan == CfcPlan::block_per_tile) schedules.push_back(chosen);
  }
  return schedules;
}

void check(const Case& c) {
  // Each access is looked up: what differs in nothing but in numbers is left to the other program.
  if (kChecksRaces && c.B * c.T * (c.N() + c.units) * (c.N() + c.units) > 4000) return;
  std::mt19937_64 random(fastltc::test::seed());
  const Problem problem(c, random);
  const Expected expected(problem);
  fastltc::emulator::set_schedule({});
  for (const CfcSchedule& schedule : possible_schedules<double>(problem)) {
    check_values<double>(problem, expected, schedule, 1e-11);
  }
  for (const CfcSchedule& schedule : possible_schedules<float>(problem)) {
    const bool is_warp = schedule.plan == CfcPlan::warp_per_sample;
    if (is_warp || !kChecksRaces) check_values<float>(problem, expected, schedule, 3e-4);
  }
}

}  // namespace

// The plain loops themselves: all gradients at once along a direction.
TEST(plain_gradients_are_those_of_the_plain_loss) {
  if (kChecksRaces) return;
  for (const CfcMode mode : kModes) {
    for (const bool backbone : {false, true}) {
      std::mt19937_64 random(fastltc::test::seed());
      Case c{.B = 2, .T = 3, .I = 2, .cells = {3, 2}, .mode = mode, .timespans = 2, .memory = true};
      if (backbone) {
        c.cells = {4};
        c.backbone_layers = 2;
        c.units = 3;
        c.activation = Activation::gelu;
      }
      const Problem problem(c, random);
      const Expected expected(problem);
      std::normal_distribution<double> normal;
      std::vector<std::vector<double>> direction;
      double slope = 0;
      for (const auto& gradient : expected.call.gradients) {
        direction.emplace_back();
        for (const double g : gradient) {
          direction.back().push_back(normal(random));
          slope += g * direction.back().back();
        }
      }
      const auto loss = [&](double distance) {
        Problem moved = problem;
        for (size_t k = 0; k < direction.size(); ++k) {
          for (size_t n = 0; n < direction[k].size(); ++n) {
            moved.values[k][n] += distance * direction[k][n];
          }
        }
        Call<double> call(moved);
        fastltc::test::plain_cfc_forward(call.in, call.prepare_forward(false));
        double total = 0;
        for (size_t k = 0; k < call.output.size(); ++k) {
          total += problem.grad_output[k] * call.output[k];
        }
        for (size_t k = 0; k < call.hn.size(); ++k) total += problem.grad_hn[k] * call.hn[k];
        return total;
      };
      const double h = 1e-6, numeric = (loss(h) - loss(-h)) / (2 * h);
      CHECK_NEAR(numeric, slope, 1e-6 * std::max(1.0, std::abs(slope)));
    }
  }
}

TEST(layers_of_every_size) {
  for (const int64_t N : {1, 7, 19, 31, 32, 33, 64, 100}) {
    check({.B = 3, .T = 2, .I = 4, .cells = {N}, .timespans = 1});
    if (N < 7) continue;
    const int64_t motor = N / 7, command = N / 3;
    check({.B = 5, .T = 3, .I = 3, .cells = {N - motor - command, command, motor}, .masked = true});
  }
}

TEST(batches_and_sequences_of_every_size) {
  for (const int64_t B : {1, 3, 130}) {
    for (const int64_t T : {1, 2, 17}) {
      if (B * T > 500) continue;
      check({.B = B, .T = T, .I = 2, .cells = {3, 2, 1}, .masked = true, .timespans = 1});
    }
  }
  check({.B = 130, .T = 17, .I = 2, .cells = {2, 1}, .lengths = true});
}

TEST(time_steps_and_lengths) {
  for (const CfcMode mode : kModes) {
    for (const int timespans : {0, 1, 2}) {
      for (const bool lengths : {false, true}) {
        check({.B = 6,
               .T = 4,
               .I = 3,
               .cells = {4, 3, 2},
               .mode = mode,
               .masked = true,
               .timespans = timespans,
               .lengths = lengths,
               .return_sequences = timespans != 1,
               .time_major = lengths});
      }
    }
  }
}

TEST(extreme_time_steps) {
  for (const CfcMode mode : kModes) {
    for (const int timespans : {1, 2}) {
      check({.B = 6,
             .T = 4,
             .I = 3,
             .cells = {4, 3, 2},
             .mode = mode,
             .timespans = timespans,
             .lengths = timespans == 2,
             .extreme = true});
      check({.B = 5,
             .T = 3,
             .I = 3,
             .cells = {9},
             .mode = mode,
             .backbone_layers = 1,
             .units = 11,
             .timespans = timespans,
             .extreme = true});
    }
  }
}

TEST(backbones) {
  for (const CfcMode mode : kModes) {
    for (const int64_t layers : {1, 2, 3}) {
      check({.B = 5,
             .T = 3,
             .I = 3,
             .cells = {9},
             .mode = mode,
             .backbone_layers = layers,
             .units = 11,
             .dropout = layers > 1,
             .timespans = layers == 1 ? 0 : 1,
             .lengths = layers == 3});
    }
  }
  for (int activation = 0; activation < 5; ++activation) {
    check({.B = 2,
           .T = 2,
           .I = 2,
           .cells = {3},
           .backbone_layers = 2,
           .units = 5,
           .activation = static_cast<Activation>(activation)});
  }
  check({.B = 3, .T = 2, .I = 5, .cells = {33}, .backbone_layers = 1, .units = 70});
}

TEST(mixed_memory) {
  check({.B = 3, .T = 4, .I = 3, .cells = {7}, .timespans = 1, .memory = true});
  check({.B = 5,
         .T = 3,
         .I = 2,
         .cells = {5, 4, 2},
         .masked = true,
         .lengths = true,
         .memory = true});
  check({.B = 5,
         .T = 3,
         .I = 2,
         .cells = {5, 4, 2},
         .return_sequences = false,
         .initial_state = false,
         .memory = true});
  check({.B = 2,
         .T = 3,
         .I = 2,
         .cells = {6},
         .mode = CfcMode::pure,
         .backbone_layers = 2,
         .units = 9,
         .timespans = 2,
         .lengths = true,
         .memory = true});
  check({.B = 2, .T = 2, .I = 3, .cells = {19, 10, 4}, .masked = true, .memory = true});
}

TEST(options) {
  check({.B = 4, .T = 3, .I = 2, .cells = {6, 3}, .initial_state = false});
  check({.B = 4, .T = 3, .I = 2, .cells = {6}, .return_sequences = false});
  check({.B = 2, .T = 3, .I = 70, .cells = {5, 2}});
  check({.B = 2, .T = 3, .I = 0, .cells = {5, 2}});
  // More stages than a launch packs, and than a block takes.
  check({.B = 2, .T = 2, .I = 2, .cells = {3, 1, 1, 2, 1, 1, 1, 1, 2}, .masked = true});
  check({.B = 2, .T = 2, .I = 2, .cells = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2}});
  check({.B = 2, .T = 2, .I = 2, .cells = {4}, .backbone_layers = 14, .units = 3});
}

TEST(nothing_to_do) {
  for (const bool memory : {false, true}) {
    check({.B = 0, .T = 3, .I = 2, .cells = {4, 2}, .memory = memory});
    check({.B = 3, .T = 0, .I = 2, .cells = {4, 2}, .memory = memory});
    check({.B = 3,
           .T = 0,
           .I = 2,
           .cells = {4},
           .mode = CfcMode::pure,
           .return_sequences = false,
           .memory = memory});
  }
}

TEST(every_order_gives_the_same_bits) {
  for (const Case& c :
       {Case{.B = 5, .T = 3, .I = 4, .cells = {11, 6, 2}, .masked = true},
        Case{
            .B = 9, .T = 2, .I = 2, .cells = {5}, .backbone_layers = 2, .units = 6, .timespans = 1},
        Case{.B = 6, .T = 3, .I = 3, .cells = {4, 3}, .lengths = true, .memory = true},
        Case{.B = 70, .T = 2, .I = 3, .cells = {3, 2}, .mode = CfcMode::pure, .lengths = true}}) {
    std::mt19937_64 random(fastltc::test::seed());
    const Problem problem(c, random);
    for (const CfcSchedule& schedule : possible_schedules<float>(problem)) {
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

TEST(negative_time_steps_give_nan) {
  std::mt19937_64 random(fastltc::test::seed());
  Problem problem({.B = 2, .T = 2, .I = 3, .cells = {6}, .timespans = 1}, random);
  problem.values[2] = {0.5, 0.5, 0.5, -0.5};
  fastltc::emulator::set_schedule({});
  for (const CfcSchedule& schedule : possible_schedules<float>(problem)) {
    Call<float> call(problem);
    call.forward(schedule, true);
    for (int k = 0; k < 12; ++k) CHECK(std::isnan(call.hn[k]) == (k >= 6));
  }
}

TEST(lengths_outside_count_as_the_nearest_inside) {
  std::mt19937_64 random(fastltc::test::seed());
  const Problem inside({.B = 2, .T = 2, .I = 3, .cells = {4, 2}}, random);
  Problem outside = inside;
  outside.c.lengths = true;
  outside.lengths = {7, int64_t{1} << 40};
  fastltc::emulator::set_schedule({});
  for (const CfcSchedule& schedule : possible_schedules<float>(inside)) {
    Call<float> expected(inside), call(outside);
    expected.forward(schedule, true);
    call.forward(schedule, true);
    CHECK(call.everything() == expected.everything());
    outside.lengths = {-3, -1};
    Call<float> none(outside);
    none.forward(schedule, false);
    CHECK(none.hn == none.values[1]);
    outside.lengths = {7, int64_t{1} << 40};
  }
}

TEST(schedules_of_the_sizes_that_matter) {
  const auto schedule = [](std::vector<int64_t> cells, int64_t units = 0, bool float64 = false,
                           int64_t shared = 227 << 10, bool memory = false) {
    const auto of = [&](auto zero) {
      using T = decltype(zero);
      CfcInputs<T> in;
      in.size = {128, 32, 16, 0, cells.back(), 1};
      for (const int64_t size : cells) in.size.N += size;
      in.cells = static_cast<int64_t>(cells.size());
      in.cell_sizes = cells.data();
      in.backbone_layers = units > 0 ? 1 : 0;
      in.backbone_units = units;
      static const T weight = 0;
      if (memory) in.memory.weight = &weight;
      return fastltc::cuda::cfc_schedule(in, shared);
    };
    return float64 ? of(double{}) : of(float{});
  };
  // AutoNCP(19, 2), AutoNCP(32, 4), AutoNCP(8, 2)
  CHECK(schedule({11, 6, 2}).plan == CfcPlan::warp_per_sample);
  CHECK(schedule({11, 6, 2}).slots == 20);
  CHECK(schedule({11, 6, 2}).blocks == 128);
  CHECK(schedule({17, 11, 4}).slots == 32);
  CHECK(schedule({4, 2, 2}).slots == 8);
  CHECK(schedule({4, 2, 2}, 0, true).slots == 20);
  CHECK(schedule({17, 11, 4}, 0, true).plan == CfcPlan::block_per_tile);
  // A memory cell or a backbone
  CHECK(schedule({11, 6, 2}, 0, false, 64 << 10, true).plan == CfcPlan::block_per_tile);
  CHECK(schedule({11, 6, 2}, 0, false, 64 << 10, true).weights_in_shared);
  CHECK(schedule({11, 6, 2}, 0, false, 64 << 10, true).threads == 96);
  CHECK(schedule({16}, 32).plan == CfcPlan::block_per_tile);
  // AutoNCP(64, 8), CfC(64), CfC(64) with 128 backbone units, and where shared memory is small
  CHECK(schedule({36, 20, 8}).threads == 224);
  CHECK(schedule({36, 20, 8}, 0, false, 64 << 10).weights_in_shared);
  CHECK(schedule({64}).weights_in_shared);
  CHECK(!schedule({64}, 0, false, 64 << 10).weights_in_shared);
  CHECK(schedule({64}, 128).threads == 512);
  CHECK(schedule({64}, 128).blocks == 32);
  CHECK(schedule({64}, 128).weights_in_shared);
  CHECK(!schedule({64}, 128, false, 163 << 10).weights_in_shared);
  CHECK(schedule({64}, 128, false, 99 << 10).plan == CfcPlan::block_per_tile);
  // CfC(128): as many weights as a block takes; CfC(129)
  CHECK(schedule({128}).plan == CfcPlan::block_per_tile);
  CHECK(schedule({129}).plan == CfcPlan::tiled);
  CHECK(schedule(std::vector<int64_t>(13, 1)).plan == CfcPlan::tiled);
}
