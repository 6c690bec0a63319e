// The LTC kernels for CUDA, run by the emulator: every plan on every shape that takes another path
// through it against plain loops, in every order of blocks and threads with the same bits.
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>

#include "cuda/frame/launch.h"
#include "cuda/ltc_checks.h"

using namespace fastltc::test;

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
  every_way(LtcCase{.B = 5, .T = 4, .I = 3, .N = 9, .M = 2, .U = 2}, [](LtcCase c) {
    c.time_major = c.lengths;
    check(c);
  });
}

TEST(resets) {
  every_way(LtcCase{.B = 5, .T = 6, .I = 3, .N = 9, .M = 2, .U = 2, .resets = true},
            [](const auto& c) { both_resets(c, check); });
  both_resets(
      LtcCase{
          .B = 5, .T = 4, .I = 3, .N = 40, .M = 3, .U = 3, .initial_state = false, .resets = true},
      check);
  both_resets(LtcCase{.B = 3, .T = 1, .I = 3, .N = 7, .M = 3, .U = 1, .resets = true}, check);
  both_resets(LtcCase{.B = 3, .T = 0, .I = 3, .N = 7, .M = 3, .U = 1, .resets = true}, check);
}

TEST(extreme_time_steps_and_neurons_without_capacitance) {
  for (const int timespans : {1, 2}) {
    for (const double density : {0.0, 0.5}) {
      LtcCase c{.B = 5, .T = 4, .I = 3, .N = 9, .M = 2, .U = 2, .density = density};
      c.softplus = false;
      c.timespans = timespans;
      c.lengths = timespans == 2;
      c.extreme = true;
      check(c);
    }
  }
}

// As on the CPU: mapped inputs that overflow do what large ones do, and all gradients are finite.
template <typename T>
void check_overflowing_inputs(LtcProblem problem, const std::vector<LtcSchedule>& schedules) {
  LtcProblem large = problem;
  for (size_t k = 0; k < problem.values[X].size(); ++k) {
    const double sign = problem.values[X][k] < 0 ? -1 : 1;
    large.values[X][k] = sign * 1e6;
    problem.values[X][k] = sign * std::numeric_limits<T>::max();
  }
  fastltc::emulator::set_schedule({});
  for (const LtcSchedule& schedule : schedules) {
    LtcCall<T> call(problem), expected(large);
    CudaLtc::forward(call, schedule, true);
    CudaLtc::forward(expected, schedule, true);
    CudaLtc::backward(call, schedule);
    if (call.output != expected.output || call.hn != expected.hn) {
      report_failure(__FILE__, __LINE__, text<CudaLtc>(problem.c, schedule) + ": other outputs");
    }
    for (size_t k = 0; k < call.gradients.size(); ++k) {
      if (!problem.has_gradient(k) || !any_nan(call.gradients[k])) continue;
      report_failure(__FILE__, __LINE__,
                     text<CudaLtc>(problem.c, schedule) + ": NaN for " + problem.name(k));
    }
  }
}

TEST(overflowing_inputs_count_as_the_largest) {
  std::mt19937_64 random(seed());
  for (const double density : {0.4, 1.0}) {
    LtcProblem problem(
        {.B = 3, .T = 2, .I = 3, .N = 9, .M = 2, .U = 2, .density = density, .timespans = 1},
        random);
    problem.values[IN_W] = {4, -4, 4};
    check_overflowing_inputs<float>(problem, float32_schedules(problem));
    check_overflowing_inputs<double>(problem, possible_schedules(problem));
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
  check_every_order({.B = 5, .T = 3, .I = 4, .N = 19, .M = 2, .U = 6, .density = 0.4});
  check_every_order({.B = 3, .T = 2, .I = 2, .N = 40, .M = 4, .U = 2, .timespans = 1});
  check_every_order({.B = 67, .T = 2, .I = 3, .N = 5, .M = 4, .U = 2, .lengths = true});
  check_every_order({.B = 5, .T = 4, .I = 3, .N = 19, .M = 2, .U = 2, .resets = true});
}

TEST(lists_that_are_not_well_formed_touch_nothing_outside) {
  // One synapse twice in a list: whose gradient remains is open.
  if (kChecksRaces) return;
  std::mt19937_64 random(seed());
  const LtcProblem problem({.B = 2, .T = 2, .I = 3, .N = 6, .M = 6, .U = 2, .density = 1.0},
                           random);
  check_broken_list(problem, 7, 6);
  check_broken_list(problem, 9, -1);
  check_broken_list(problem, 3, 1000);
  check_broken_list(problem, 3, -5);
  check_broken_list(problem, 6, 1 << 30);
  check_broken_list(problem, 0, 5, false);
  check_broken_list(problem, 4, 2, false);
}

TEST(grids_of_more_blocks_than_a_launch_can_have) {
  using fastltc::cuda::grid;
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  CHECK(grid(most, 70000, 3).x == most);
  CHECK(grid(most, 70000, 3).y == 65535);
  CHECK_THROWS(grid(most + 1), std::runtime_error, "at most 2147483647 blocks of a launch");
  CHECK_THROWS(grid(int64_t{1} << 32), std::runtime_error, "got 4294967296");
  CHECK_THROWS(grid(1, 1, 65536), std::runtime_error, "at most 65535 blocks of a launch");
}

TEST(negative_time_steps_give_nan) {
  std::mt19937_64 random(seed());
  const LtcProblem problem({.B = 2, .T = 2, .I = 3, .N = 6, .M = 6, .U = 2, .timespans = 1},
                           random);
  check_negative_time_step<CudaLtc>(problem, float32_schedules(problem));
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
  CHECK(schedule(5000, 256, 65536, hopper).blocks == 16);
  // Fewer clusters at once, as cards with fewer multiprocessors have: larger tiles, fewer blocks.
  fastltc::cuda::LtcDevice card = hopper;
  card.clusters[3] = 14;
  CHECK(schedule(64, 256, 65536, card).samples == 8);
  CHECK(schedule(5000, 256, 65536, card).blocks == 14);
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

TEST(schedules_with_resets) {
  const fastltc::cuda::LtcDevice hopper{8, 227 << 10};
  const auto plan = [&](int64_t N, int64_t synapses, int64_t nets, bool memory) {
    const fastltc::LayerSizes size{64, 32, 16, N * nets, 2 * nets, 6};
    return fastltc::cuda::ltc_schedule(size, {synapses * nets, 80}, false, hopper, nets, memory,
                                       true)
        .plan;
  };
  CHECK(plan(19, 46, 1, false) == LtcPlan::warp_per_sample);
  CHECK(plan(19, 46, 1, true) == LtcPlan::warp_per_sample);
  CHECK(plan(19, 46, 3, false) == LtcPlan::warp_per_sample);
  CHECK(plan(64, 4096, 1, false) == LtcPlan::block_per_sample);
  CHECK(plan(64, 4096, 1, true) == LtcPlan::tiled);
  CHECK(plan(64, 4096, 3, false) == LtcPlan::tiled);
  CHECK(plan(256, 65536, 1, false) == LtcPlan::tiled);
}
