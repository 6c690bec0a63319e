// The LTC kernels for CUDA, run by the emulator with every plan that can run a problem.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "cuda/ltc.h"
#include "cuda/sequence_checks.h"
#include "support/ltc_case.h"

namespace fastltc::test {

using cuda::LtcPlan;
using cuda::LtcSchedule;

struct CudaLtc : Ltc {
  static std::string plan_text(const LtcSchedule& schedule) {
    const char* const plan = schedule.plan == LtcPlan::warp_per_sample    ? "warp"
                             : schedule.plan == LtcPlan::block_per_sample ? "block"
                             : schedule.plan == LtcPlan::cluster_per_tile ? "cluster"
                                                                          : "tiled";
    return std::string(plan) + " slots" + std::to_string(schedule.slots) + " threads" +
           std::to_string(schedule.threads) + " cluster" + std::to_string(schedule.cluster) +
           " samples" + std::to_string(schedule.samples);
  }
  template <typename T>
  static void forward(LtcCall<T>& call, const LtcSchedule& schedule, bool keep_states) {
    const LtcCounts counts = call.problem.counts();
    const LtcOutputs<T> out =
        call.prepare_forward(keep_states, schedule.plan == LtcPlan::cluster_per_tile);
    cuda::launch_ltc_forward(schedule, call.in, counts, out, ScratchMemory(), nullptr);
  }
  template <typename T>
  static void backward(LtcCall<T>& call, const LtcSchedule& schedule) {
    const LtcCounts counts = call.problem.counts();
    const LtcGradients<T> grad = call.prepare_backward(false);
    cuda::launch_ltc_backward(schedule, call.in, counts, grad, ScratchMemory(), nullptr);
  }
};

// The one that would be chosen on a device without clusters.
inline LtcSchedule chosen_schedule(const LtcProblem& problem) {
  const LtcCase& c = problem.c;
  return cuda::ltc_schedule({c.B, c.T, c.inputs(), c.neurons(), c.outputs(), c.U}, problem.counts(),
                            false, {}, c.nets, c.memory, c.resets);
}

// The plans that can run a problem, the one that would be chosen or not. So few blocks that some
// run several samples.
inline std::vector<LtcSchedule> possible_schedules(const LtcProblem& problem) {
  const LtcCase& c = problem.c;
  std::vector<LtcSchedule> schedules{{LtcPlan::tiled, 0, 0, 0}};
  const bool plain = c.nets == 1 && !c.memory;
  const int64_t blocks = std::min<int64_t>(c.B, plain ? 3 : 2);
  for (const int slots : {4, 8, 12}) {
    if (c.N > 32 || (slots == 8 && !plain) || (slots == 12 && c.memory)) continue;
    schedules.push_back({LtcPlan::warp_per_sample, 32, slots, blocks});
  }
  bool fits = c.nets == 1 ? problem.counts().synapses <= 4096
                          : c.N <= 32 || chosen_schedule(problem).plan != LtcPlan::tiled;
  if (c.resets && !plain) fits = false;
  if (fits) schedules.push_back({LtcPlan::block_per_sample, c.N <= 64 ? 64 : 128, 8, blocks});
  return schedules;
}

// Clusters run float32 alone, one layer without memory and resets: the smallest that take the
// neurons, and the largest.
inline std::vector<LtcSchedule> cluster_schedules(const LtcCase& c) {
  if (c.nets > 1 || c.memory || c.resets) return {};
  int cluster = 2;
  while (cluster < 8 && c.N > 32 * cluster) cluster *= 2;
  const auto of = [&](int blocks, int64_t samples) {
    const int64_t tiles = std::min<int64_t>((c.B + samples - 1) / samples, 3);
    return LtcSchedule{LtcPlan::cluster_per_tile, 256, 0, tiles, blocks, static_cast<int>(samples)};
  };
  std::vector<LtcSchedule> schedules{of(cluster, 4), of(8, 16)};
  if (c.N % 2 == 1) schedules.push_back(of(std::max(cluster, 4), 8));
  return schedules;
}

inline std::vector<LtcSchedule> float32_schedules(const LtcProblem& problem) {
  std::vector<LtcSchedule> schedules = possible_schedules(problem);
  for (const LtcSchedule& schedule : cluster_schedules(problem.c)) schedules.push_back(schedule);
  return schedules;
}

inline void check(const LtcCase& c) {
  // Each access is looked up: what differs in nothing but in numbers is left to the other program.
  const int64_t most = c.memory ? 2000 * c.U : 6000;
  if (kChecksRaces && c.nets * c.B * c.T * c.U * c.N * c.N > most) return;
  std::mt19937_64 random(seed());
  const LtcProblem problem(c, random);
  const Expected<CudaLtc> expected(problem);
  emulator::set_schedule({});
  for (const LtcSchedule& schedule : possible_schedules(problem)) {
    check_values<CudaLtc, double>(problem, expected, schedule, 1e-11);
  }
  check_values<CudaLtc, float>(problem, expected, chosen_schedule(problem), 2e-4);
  for (const LtcSchedule& schedule : cluster_schedules(c)) {
    check_values<CudaLtc, float>(problem, expected, schedule, 2e-4);
  }
}

inline void check_every_order(const LtcCase& c) {
  if (kChecksRaces && c.N > 32) return;
  std::mt19937_64 random(seed());
  const LtcProblem problem(c, random);
  for (const LtcSchedule& schedule : float32_schedules(problem)) {
    check_orders<CudaLtc>(problem, schedule);
  }
}

// Runs with one entry of the list of synapses changed. `seen`: the states have to become NaN.
inline void check_broken_list(LtcProblem problem, size_t at, int32_t value, bool seen = true) {
  problem.synapses[at] = value;
  emulator::set_schedule({});
  for (const LtcSchedule& schedule : float32_schedules(problem)) {
    LtcCall<float> call(problem);
    CudaLtc::forward(call, schedule, true);
    if (seen && !any_nan(call.hn)) {
      report_failure(__FILE__, __LINE__, text<CudaLtc>(problem.c, schedule) + ": no NaN");
    }
    CudaLtc::backward(call, schedule);
  }
}

}  // namespace fastltc::test
