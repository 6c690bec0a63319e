// The masked product's kernels for CUDA, run by the emulator, against plain loops in float64; in
// every order of blocks and threads with the same bits. Buffers have their exact sizes, and hold
// NaN where nothing may be read: off the mask, between samples, in scratch memory.
#include "cuda/masked_linear.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cuda/scratch_memory.h"
#include "emulator/schedules.h"
#include "support/check.h"

namespace {

using fastltc::MaskedLinear;
using fastltc::MaskedLinearGradients;
using fastltc::cuda::masked_linear_schedule;
using fastltc::cuda::MaskedLinearSchedule;

#if defined(FASTLTC_TEST_RACES)
constexpr bool kChecksRaces = true;
#else
constexpr bool kChecksRaces = false;
#endif

struct Case {
  int64_t B, I, O;
  double density = 0.3;
  bool bias = true;
  int64_t gap = 0;  // between samples of x and of the gradient of y
};

struct Problem {
  Case c;
  std::vector<double> x, weight, bias, g;  // of the mask; off it weights are NaN
  std::vector<int32_t> list;               // as mask_entries makes it
  int64_t count = 0;
  // What is to come out.
  std::vector<double> y, grad_x, grad_weight, grad_bias;

  explicit Problem(const Case& which) : c(which) {
    std::mt19937_64 random(fastltc::test::seed());
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(0, 1);
    const double nan = std::nan("");
    const auto rows = [&](int64_t width) {
      std::vector<double> values;
      for (int64_t b = 0; b < c.B; ++b) {
        for (int64_t k = 0; k < width; ++k) values.push_back(normal(random));
        values.insert(values.end(), b + 1 < c.B ? c.gap : 0, nan);
      }
      return values;
    };
    x = rows(c.I);
    g = rows(c.O);
    for (int64_t o = 0; o < c.O; ++o) bias.push_back(normal(random));
    std::vector<int32_t> first{0}, input, first_of_input{0}, output, place;
    for (int64_t o = 0; o < c.O; ++o) {
      for (int64_t i = 0; i < c.I; ++i) {
        const bool one = uniform(random) < c.density;
        weight.push_back(one ? normal(random) : nan);
        if (one) input.push_back(static_cast<int32_t>(i));
      }
      first.push_back(static_cast<int32_t>(input.size()));
    }
    for (int64_t i = 0; i < c.I; ++i) {
      for (int64_t o = 0; o < c.O; ++o) {
        for (int32_t e = first[o]; e < first[o + 1]; ++e) {
          if (input[e] != i) continue;
          output.push_back(static_cast<int32_t>(o));
          place.push_back(e);
        }
      }
      first_of_input.push_back(static_cast<int32_t>(output.size()));
    }
    count = static_cast<int64_t>(input.size());
    for (const auto* part : {&first, &input, &first_of_input, &output, &place}) {
      list.insert(list.end(), part->begin(), part->end());
    }
    multiply();
  }

  void multiply() {
    y.assign(c.B * c.O, 0);
    grad_x.assign(c.B * c.I, 0);
    grad_weight.assign(c.O * c.I, 0);
    grad_bias.assign(c.O, 0);
    for (int64_t b = 0; b < c.B; ++b) {
      for (int64_t o = 0; o < c.O; ++o) {
        const double factor = g[b * (c.O + c.gap) + o];
        y[b * c.O + o] = c.bias ? bias[o] : 0;
        grad_bias[o] += factor;
        for (int64_t i = 0; i < c.I; ++i) {
          const double w = weight[o * c.I + i];
          if (std::isnan(w)) continue;
          y[b * c.O + o] += w * x[b * (c.I + c.gap) + i];
          grad_x[b * c.I + i] += w * factor;
          grad_weight[o * c.I + i] += factor * x[b * (c.I + c.gap) + i];
        }
      }
    }
  }
};

template <typename T>
struct Call {
  const Problem& problem;
  std::vector<T> x, weight, bias, g, y, grad_x, grad_weight, grad_bias;
  MaskedLinear<T> in;
  MaskedLinearGradients<T> grad;

  explicit Call(const Problem& p)
      : problem(p),
        x(p.x.begin(), p.x.end()),
        weight(p.weight.begin(), p.weight.end()),
        bias(p.bias.begin(), p.bias.end()),
        g(p.g.begin(), p.g.end()) {
    const Case& c = p.c;
    const T nan = std::numeric_limits<T>::quiet_NaN();
    y.assign(c.B * c.O, nan);
    grad_x.assign(c.B * c.I, nan);
    grad_weight.assign(c.O * c.I, nan);
    grad_bias.assign(c.O, nan);
    in.B = c.B;
    in.I = c.I;
    in.O = c.O;
    in.x = x.data();
    in.stride_x = c.I + c.gap;
    in.weight = weight.data();
    if (c.bias) in.bias = bias.data();
    const int32_t* const list = p.list.data();
    in.entries.first = list;
    in.entries.input = list + c.O + 1;
    in.entries.first_of_input = in.entries.input + p.count;
    in.entries.output = in.entries.first_of_input + c.I + 1;
    in.entries.place = in.entries.output + p.count;
    grad.grad = g.data();
    grad.stride = c.O + c.gap;
    grad.x = grad_x.data();
    grad.weight = grad_weight.data();
    if (c.bias) grad.bias = grad_bias.data();
  }

  void run(const MaskedLinearSchedule& schedule) {
    fastltc::cuda::launch_masked_linear(schedule, in, problem.count, y.data(),
                                        fastltc::test::ScratchMemory(), nullptr);
    fastltc::cuda::launch_masked_linear_backward(schedule, in, problem.count, grad,
                                                 fastltc::test::ScratchMemory(), nullptr);
  }
  std::vector<T> everything() const {
    std::vector<T> all(y);
    for (const auto* part : {&grad_x, &grad_weight})
      all.insert(all.end(), part->begin(), part->end());
    if (problem.c.bias) all.insert(all.end(), grad_bias.begin(), grad_bias.end());
    return all;
  }
};

std::string text(const Case& c, const MaskedLinearSchedule& schedule) {
  return std::string("B") + std::to_string(c.B) + " I" + std::to_string(c.I) + " O" +
         std::to_string(c.O) + " density" + std::to_string(c.density) + (c.bias ? " bias" : "") +
         " gap" + std::to_string(c.gap) + " samples" + std::to_string(schedule.samples) + " width" +
         std::to_string(schedule.width);
}

template <typename T>
void compare(const std::string& what, const std::vector<T>& got,
             const std::vector<double>& expected, double tolerance) {
  bool right = got.size() == expected.size();
  // Written so that a NaN fails.
  for (size_t k = 0; k < expected.size() && right; ++k) {
    right = std::abs(static_cast<double>(got[k]) - expected[k]) <= tolerance;
  }
  if (!right) fastltc::test::report_failure(__FILE__, __LINE__, what + " differs");
}

template <typename T>
void check_values(const Problem& problem, const MaskedLinearSchedule& schedule, double tolerance) {
  const std::string name =
      text(problem.c, schedule) + (sizeof(T) == 4 ? " float32: " : " float64: ");
  Call<T> call(problem);
  call.run(schedule);
  compare(name + "y", call.y, problem.y, tolerance);
  compare(name + "gradient of x", call.grad_x, problem.grad_x, tolerance);
  compare(name + "gradient of weight", call.grad_weight, problem.grad_weight, tolerance);
  if (problem.c.bias) {
    compare(name + "gradient of bias", call.grad_bias, problem.grad_bias, tolerance);
  }
  for (size_t k = 0; k < problem.weight.size(); ++k) {
    if (std::isnan(problem.weight[k])) CHECK(call.grad_weight[k] == T(0));
  }
}

MaskedLinearSchedule schedule_of(const Case& c, int samples, int width) {
  const int64_t multiple = static_cast<int64_t>(samples) * width;
  return {samples, width, (c.B + multiple - 1) / multiple * multiple};
}

void check(const Case& c) {
  const Problem problem(c);
  fastltc::emulator::set_schedule({});
  for (const int samples : {1, 4, 8, 32}) {
    for (const int width : {1, 2, 4}) {
      // Blocks full of padding say nothing new.
      if (samples * width > 4 * c.B + 4) continue;
      const MaskedLinearSchedule schedule = schedule_of(c, samples, width);
      check_values<float>(problem, schedule, 1e-3);
      if (width <= 2) check_values<double>(problem, schedule, 1e-11);
    }
  }
  check_values<float>(problem, masked_linear_schedule(c.B, c.O, false), 1e-3);
  check_values<double>(problem, masked_linear_schedule(c.B, c.I, true), 1e-11);
}

}  // namespace

TEST(batches_of_every_size) {
  for (const int64_t B : {1, 3, 4, 17, 32, 33, 64, 130}) {
    if (kChecksRaces && B > 40) continue;
    check({.B = B, .I = 7, .O = 9});
    check({.B = B, .I = 18, .O = 5, .density = 1.0, .bias = false, .gap = 3});
  }
}

TEST(odd_matrices) {
  for (const auto& [I, O] : {std::pair<int64_t, int64_t>{1, 1}, {1, 33}, {33, 1}, {19, 31}}) {
    check({.B = 5, .I = I, .O = O, .density = 0.6});
  }
  if (kChecksRaces) return;
  // More entries in a row than a warp reads at once, more rows and columns than a tile has.
  check({.B = 6, .I = 100, .O = 64, .density = 0.9});
  check({.B = 3, .I = 31, .O = 300, .density = 0.2, .gap = 1});
  check({.B = 2, .I = 300, .O = 3, .density = 0.9});
}

TEST(nothing_to_do) {
  for (const double density : {0.0, 1.0}) {
    check({.B = 0, .I = 5, .O = 4, .density = density});
    check({.B = 3, .I = 0, .O = 4, .density = density});
    check({.B = 3, .I = 4, .O = 0, .density = density});
    check({.B = 3, .I = 5, .O = 4, .density = density});
  }
}

TEST(every_order_gives_the_same_bits) {
  for (const Case& c : {Case{.B = 37, .I = 20, .O = 11, .density = 0.5},
                        Case{.B = 3, .I = 70, .O = 9, .density = 0.8}}) {
    const Problem problem(c);
    for (const auto& schedule :
         {schedule_of(c, 32, 1), schedule_of(c, 8, 2), schedule_of(c, 2, 1)}) {
      std::vector<float> first;
      for (const auto& order : fastltc::emulator::every_schedule()) {
        fastltc::emulator::set_schedule(order);
        Call<float> call(problem);
        call.run(schedule);
        if (first.empty()) first = call.everything();
        if (call.everything() != first) {
          fastltc::test::report_failure(__FILE__, __LINE__,
                                        text(c, schedule) + ": bits depend on the order");
        }
      }
    }
  }
}

TEST(infinities_stay_with_their_own_outputs) {
  Problem problem({.B = 3, .I = 40, .O = 10, .density = 0.4});
  // The first input, which idle lanes would read, of one sample.
  problem.x[0] = std::numeric_limits<double>::infinity();
  problem.multiply();
  fastltc::emulator::set_schedule({});
  for (const int samples : {1, 4, 32}) {
    Call<double> call(problem);
    call.run(schedule_of(problem.c, samples, 1));
    for (size_t k = 0; k < problem.y.size(); ++k) {
      CHECK(std::isinf(call.y[k]) == std::isinf(problem.y[k]));
      CHECK(!std::isnan(call.y[k]));
    }
    for (int64_t o = 0; o < problem.c.O; ++o) {
      for (int64_t i = 1; i < problem.c.I; ++i) {
        CHECK(std::isfinite(call.grad_weight[o * problem.c.I + i]));
      }
    }
  }
}

TEST(lists_that_are_not_well_formed_touch_nothing_outside) {
  // One entry twice in a list: which of its writes remains is open.
  if (kChecksRaces) return;
  Problem problem({.B = 5, .I = 6, .O = 4, .density = 1.0});
  const std::vector<int32_t> good = problem.list;
  fastltc::emulator::set_schedule({});
  const int64_t inputs_at = problem.c.O + 1, by_input_at = inputs_at + problem.count,
                outputs_at = by_input_at + problem.c.I + 1;
  const auto run = [&](int64_t at, int32_t value) {
    problem.list = good;
    problem.list[at] = value;
    for (const int samples : {1, 8}) {
      Call<float> call(problem);
      call.run(schedule_of(problem.c, samples, 1));
      const auto& concerned = at < by_input_at ? call.y : call.grad_x;
      CHECK(std::any_of(concerned.begin(), concerned.end(), [](float v) { return v != v; }));
      const auto& others = at < by_input_at ? call.grad_x : call.y;
      CHECK(std::none_of(others.begin(), others.end(), [](float v) { return v != v; }));
    }
  };
  for (const int32_t value : {-1, 25, 1 << 30, -(1 << 30)}) {
    run(2, value);
    run(by_input_at + 3, value);
    run(inputs_at + 7, value);
    run(outputs_at + 7, value);
  }
  run(0, -3);
  run(2, 3);
  // An entry of a matrix that has none.
  for (const Case& c : {Case{.B = 5, .I = 0, .O = 1}, Case{.B = 5, .I = 1, .O = 0}}) {
    Problem empty(c);
    empty.list = {0, 0, 0, 0, 0, 0};
    for (int64_t k = 1; k <= c.O; ++k) empty.list[k] = 1;
    if (c.O == 0) empty.list[3] = 1;
    empty.count = 1;
    Call<float> call(empty);
    call.run(schedule_of(c, 8, 1));
    const auto& concerned = c.O == 1 ? call.y : call.grad_x;
    CHECK(std::all_of(concerned.begin(), concerned.end(), [](float v) { return v != v; }));
  }
}

TEST(schedules_of_the_sizes_that_matter) {
  const auto is = [](const MaskedLinearSchedule& s, int samples, int width, int64_t pitch) {
    return s.samples == samples && s.width == width && s.pitch == pitch;
  };
  CHECK(is(masked_linear_schedule(128, 1024, false), 32, 2, 128));
  CHECK(is(masked_linear_schedule(512, 1024, false), 32, 4, 512));
  CHECK(is(masked_linear_schedule(512, 1024, true), 32, 2, 512));
  CHECK(is(masked_linear_schedule(130, 4096, false), 32, 4, 256));
  CHECK(is(masked_linear_schedule(128, 64, false), 8, 1, 128));
  CHECK(is(masked_linear_schedule(16, 512, false), 8, 1, 16));
  CHECK(is(masked_linear_schedule(3, 4096, false), 4, 1, 4));
  CHECK(is(masked_linear_schedule(1, 1024, false), 1, 1, 1));
  CHECK(is(masked_linear_schedule(0, 1024, false), 1, 1, 0));
  for (int64_t B = 0; B < 300; B += 7) {
    for (int64_t rows = 0; rows < 5000; rows += 611) {
      const MaskedLinearSchedule s = masked_linear_schedule(B, rows, false);
      CHECK(s.pitch >= B && s.pitch % (s.samples * s.width) == 0 && 32 % s.samples == 0);
      CHECK(s.samples * s.width <= std::max<int64_t>(1, 2 * B));
    }
  }
}
