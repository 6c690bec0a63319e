// LTC with mixed memory in every plan of the CUDA kernels, run by the emulator: against plain
// loops, and in every order of blocks and threads with the same bits.
#include <algorithm>
#include <random>
#include <vector>

#include "cuda/ltc_case.h"

namespace {

using fastltc::cuda::LtcPlan;
using fastltc::cuda::LtcSchedule;
using namespace fastltc::test;

std::vector<LtcSchedule> possible_schedules(const Problem& problem) {
  const Case& c = problem.c;
  std::vector<LtcSchedule> schedules{{LtcPlan::tiled, 0, 0, 0}};
  const int64_t blocks = std::min<int64_t>(c.B, 2);
  if (c.N <= 32) schedules.push_back({LtcPlan::warp_per_sample, 32, 4, blocks});
  if (problem.counts().synapses <= 4096) {
    schedules.push_back({LtcPlan::block_per_sample, c.N <= 64 ? 64 : 128, 8, blocks});
  }
  return schedules;
}

void check(Case c) {
  c.memory = true;
  if (kChecksRaces && c.B * c.T * c.N * c.N > 2000) return;
  std::mt19937_64 random(fastltc::test::seed());
  const Problem problem(c, random);
  const Expected expected(problem);
  fastltc::emulator::set_schedule({});
  for (const LtcSchedule& schedule : possible_schedules(problem)) {
    check_values<double>(problem, expected, schedule, 1e-11);
  }
  check_values<float>(problem, expected,
                      fastltc::cuda::ltc_schedule(expected.call.in.size, problem.counts(), false),
                      2e-4);
}

}  // namespace

TEST(memory_of_every_size) {
  for (const int64_t N : {1, 7, 19, 31, 32, 33, 64, 100}) {
    check({.B = N > 64 ? 1 : 3, .T = 2, .I = 4, .N = N, .M = (N + 1) / 2, .U = 2, .density = 0.3});
  }
  // More values for the gates of all neurons than synapses, and a neuron for each thread.
  check({.B = 1, .T = 2, .I = 1, .N = 128, .M = 1, .U = 1, .density = 0.02});
  check({.B = 2, .T = 2, .I = 70, .N = 5, .M = 1, .U = 1, .density = 1.0});
}

TEST(memory_of_every_batch_and_sequence) {
  for (const int64_t B : {1, 3, 130}) {
    for (const int64_t T : {1, 2, 17}) {
      if (B * T > 300) continue;
      check({.B = B, .T = T, .I = 2, .N = 5, .M = 2, .U = 2, .timespans = 1});
    }
  }
}

TEST(memory_with_time_steps_and_lengths) {
  for (const int timespans : {0, 1, 2}) {
    for (const bool lengths : {false, true}) {
      check({.B = 4,
             .T = 4,
             .I = 3,
             .N = 7,
             .M = 2,
             .U = 2,
             .timespans = timespans,
             .lengths = lengths,
             .return_sequences = timespans != 1,
             .time_major = lengths});
    }
  }
}

TEST(memory_with_options) {
  check({.B = 3, .T = 2, .I = 2, .N = 6, .M = 3, .U = 3, .softplus = false, .maps = false});
  check({.B = 3, .T = 2, .I = 2, .N = 6, .M = 3, .U = 3, .initial_state = false});
  check({.B = 2, .T = 2, .I = 2, .N = 6, .M = 0, .U = 1, .density = 0.0});
  check({.B = 0, .T = 2, .I = 2, .N = 4, .M = 2, .U = 2});
  check({.B = 2, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2});
}

TEST(memory_in_every_order_gives_the_same_bits) {
  for (const Case& c :
       {Case{.B = 3, .T = 2, .I = 3, .N = 19, .M = 2, .U = 2, .memory = true, .timespans = 1},
        Case{.B = 2, .T = 2, .I = 2, .N = 36, .M = 4, .U = 1, .memory = true, .lengths = true}}) {
    if (kChecksRaces && c.N > 32) continue;
    std::mt19937_64 random(fastltc::test::seed());
    const Problem problem(c, random);
    for (const LtcSchedule& schedule : possible_schedules(problem)) check_orders(problem, schedule);
  }
}

// The loops that the kernels are compared with.
TEST(gradients_of_the_plain_memory_cell_are_slopes) {
  std::mt19937_64 random(fastltc::test::seed());
  Problem problem({.B = 2, .T = 3, .I = 2, .N = 3, .M = 2, .U = 2, .memory = true}, random);
  const auto loss = [&] {
    Call<double> call(problem);
    plain_ltc_forward(call.in, call.prepare_forward(false));
    double total = 0;
    for (size_t k = 0; k < call.output.size(); ++k) total += call.output[k] * call.grad_output[k];
    for (size_t k = 0; k < call.hn.size(); ++k) total += call.hn[k] * call.grad_hn[k];
    return total;
  };
  const Expected expected(problem);
  for (const int tensor : {X, H0, SIGMA, MEMORY_W, MEMORY_B, MEMORY_R}) {
    for (size_t k = 0; k < problem.values[tensor].size(); ++k) {
      double& value = problem.values[tensor][k];
      if (value != value) continue;
      const double before = value;
      value = before + 1e-5;
      const double above = loss();
      value = before - 1e-5;
      const double slope = (above - loss()) / 2e-5;
      value = before;
      if (std::abs(slope - expected.call.gradients[tensor][k]) <= 1e-7) continue;
      fastltc::test::report_failure(__FILE__, __LINE__, tensor_names[tensor]);
    }
  }
}

TEST(memory_takes_no_clusters) {
  const auto plan = [](bool memory) {
    const fastltc::cuda::LtcDevice hopper{8, 227 << 10};
    return fastltc::cuda::ltc_schedule({64, 32, 16, 256, 2, 6}, {65536, 80}, false, hopper, 1,
                                       memory)
        .plan;
  };
  CHECK(plan(false) == LtcPlan::cluster_per_tile);
  CHECK(plan(true) == LtcPlan::tiled);
}
