// How the CUDA kernels of a cell are checked in the emulator. `Layer` is a cell of support/*_case.h
// with `forward(call, schedule, keep_states)`, `backward(call, schedule)` and
// `plan_text(schedule)`.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "cuda/scratch_memory.h"
#include "emulator/schedules.h"
#include "support/sequence_case.h"

namespace fastltc::test {

#if defined(FASTLTC_TEST_RACES)
inline constexpr bool kChecksRaces = true;
#else
inline constexpr bool kChecksRaces = false;
#endif

template <typename Values>
bool any_nan(const Values& values) {
  return std::any_of(values.begin(), values.end(), [](auto v) { return v != v; });
}

template <typename Layer, typename Schedule>
std::string text(const typename Layer::Case& c, const Schedule& schedule) {
  return Layer::plan_text(schedule) + " " + text(c);
}

// Compares outputs and all gradients with those of plain loops.
template <typename Layer, typename T, typename Schedule>
void check_values(const typename Layer::Problem& problem, const Expected<Layer>& expected,
                  const Schedule& schedule, double tolerance) {
  const std::string name =
      text<Layer>(problem.c, schedule) + (sizeof(T) == 4 ? " float32 " : " float64 ");
  typename Layer::template Call<T> call(problem);
  for (const bool keep_states : {false, true}) {
    const std::string which = name + (keep_states ? "with states " : "");
    Layer::forward(call, schedule, keep_states);
    compare(which + "output", call.output, expected.call.output, tolerance);
    compare(which + "hn", call.hn, expected.call.hn, tolerance);
  }
  if (Layer::kWritesAllStates && any_nan(call.states)) {
    report_failure(__FILE__, __LINE__, name + "not all states are written");
  }
  Layer::backward(call, schedule);
  compare_gradients(name, call, expected, tolerance);
}

// Runs a problem in every order of blocks and threads: the bits have to be the same.
template <typename Layer, typename Schedule>
void check_orders(const typename Layer::Problem& problem, const Schedule& schedule) {
  std::vector<float> first;
  for (const auto& order : emulator::every_schedule()) {
    emulator::set_schedule(order);
    typename Layer::template Call<float> call(problem);
    Layer::forward(call, schedule, true);
    Layer::backward(call, schedule);
    if (first.empty()) first = call.everything();
    if (call.everything() == first) continue;
    report_failure(__FILE__, __LINE__,
                   text<Layer>(problem.c, schedule) + ": bits depend on the order");
  }
}

// A time step of the second sample is negative: its 6 neurons, and no others, become NaN.
template <typename Layer, typename Schedules>
void check_negative_time_step(typename Layer::Problem problem, const Schedules& schedules) {
  problem.values[2] = {0.5, 0.5, 0.5, -0.5};
  emulator::set_schedule({});
  for (const auto& schedule : schedules) {
    typename Layer::template Call<float> call(problem);
    Layer::forward(call, schedule, true);
    for (int k = 0; k < 12; ++k) CHECK(std::isnan(call.hn[k]) == (k >= 6));
  }
}

}  // namespace fastltc::test
