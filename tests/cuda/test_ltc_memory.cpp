// LTC with mixed memory in every plan of the CUDA kernels, run by the emulator: against plain
// loops, and in every order of blocks and threads with the same bits.
#include <cmath>
#include <random>

#include "cuda/ltc_checks.h"

using namespace fastltc::test;

namespace {

void check_memory(LtcCase c) {
  c.memory = true;
  check(c);
}

}  // namespace

TEST(memory_of_every_size) {
  for (const int64_t N : {1, 7, 19, 31, 32, 33, 64, 100}) {
    check_memory(
        {.B = N > 64 ? 1 : 3, .T = 2, .I = 4, .N = N, .M = (N + 1) / 2, .U = 2, .density = 0.3});
  }
  // More values for the gates of all neurons than synapses, and a neuron for each thread.
  check_memory({.B = 1, .T = 2, .I = 1, .N = 128, .M = 1, .U = 1, .density = 0.02});
  check_memory({.B = 2, .T = 2, .I = 70, .N = 5, .M = 1, .U = 1, .density = 1.0});
}

TEST(memory_of_every_batch_and_sequence) {
  for (const int64_t B : {1, 3, 130}) {
    for (const int64_t T : {1, 2, 17}) {
      if (B * T > 300) continue;
      check_memory({.B = B, .T = T, .I = 2, .N = 5, .M = 2, .U = 2, .timespans = 1});
    }
  }
}

TEST(memory_with_time_steps_and_lengths) {
  every_way(LtcCase{.B = 4, .T = 4, .I = 3, .N = 7, .M = 2, .U = 2}, [](LtcCase c) {
    c.time_major = c.lengths;
    check_memory(c);
  });
}

TEST(memory_with_resets) {
  LtcCase c{.B = 4, .T = 5, .I = 3, .N = 7, .M = 2, .U = 2, .timespans = 1, .resets = true};
  both_resets(c, check_memory);
  c.lengths = true;
  both_resets(c, check_memory);
  c.return_sequences = c.initial_state = false;
  both_resets(c, check_memory);
  c = {.B = 2, .T = 3, .I = 2, .N = 36, .M = 2, .U = 1, .resets = true};
  both_resets(c, check_memory);
}

TEST(memory_with_options) {
  check_memory({.B = 3, .T = 2, .I = 2, .N = 6, .M = 3, .U = 3, .softplus = false, .maps = false});
  check_memory({.B = 3, .T = 2, .I = 2, .N = 6, .M = 3, .U = 3, .initial_state = false});
  check_memory({.B = 2, .T = 2, .I = 2, .N = 6, .M = 0, .U = 1, .density = 0.0});
  check_memory({.B = 0, .T = 2, .I = 2, .N = 4, .M = 2, .U = 2});
  check_memory({.B = 2, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2});
}

TEST(memory_in_every_order_gives_the_same_bits) {
  check_every_order(
      {.B = 3, .T = 2, .I = 3, .N = 19, .M = 2, .U = 2, .timespans = 1, .memory = true});
  check_every_order(
      {.B = 2, .T = 2, .I = 2, .N = 36, .M = 4, .U = 1, .lengths = true, .memory = true});
}

// The loops that the kernels are compared with.
TEST(gradients_of_the_plain_memory_cell_are_slopes) {
  std::mt19937_64 random(seed());
  LtcProblem problem({.B = 2, .T = 3, .I = 2, .N = 3, .M = 2, .U = 2, .memory = true}, random);
  const auto loss = [&] {
    LtcCall<double> call(problem);
    plain_ltc_forward(call.in, call.prepare_forward(false));
    return call.loss();
  };
  const Expected<CudaLtc> expected(problem);
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
      report_failure(__FILE__, __LINE__, problem.name(tensor));
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
