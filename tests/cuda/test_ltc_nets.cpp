// Several LTC layers of one shape in one call of the CUDA kernels, run by the emulator: against
// plain loops, against the layers one by one, and in every order with the same bits.
#include <random>
#include <vector>

#include "cuda/ltc_checks.h"

using namespace fastltc::test;

TEST(layers_of_every_size) {
  for (const int64_t N : {1, 7, 19, 31, 32, 33, 64, 100}) {
    check({.B = 2, .T = 2, .I = 3, .N = N, .M = (N + 1) / 2, .U = 2, .nets = 3, .density = 0.3});
  }
  check({.B = 1, .T = 2, .I = 2, .N = 12, .M = 3, .U = 2, .nets = 2, .density = 1.0});
  check({.B = 3, .T = 2, .I = 1, .N = 2, .M = 1, .U = 2, .nets = 40, .density = 1.0});
}

TEST(batches_and_sequences_of_every_size) {
  for (const int64_t B : {1, 3, 130}) {
    for (const int64_t T : {1, 2, 17}) {
      if (B * T > 300) continue;
      check({.B = B, .T = T, .I = 2, .N = 5, .M = 2, .U = 2, .nets = 3, .timespans = 1});
    }
  }
}

TEST(time_steps_and_lengths) {
  every_way(LtcCase{.B = 4, .T = 3, .I = 3, .N = 7, .M = 2, .U = 2, .nets = 2}, [](LtcCase c) {
    c.time_major = c.lengths;
    check(c);
  });
}

TEST(resets) {
  LtcCase c{.B = 4, .T = 4, .I = 3, .N = 7, .M = 2, .U = 2, .nets = 2, .timespans = 1};
  c.resets = true;
  both_resets(c, check);
  c.lengths = true;
  c.return_sequences = c.initial_state = false;
  both_resets(c, check);
  c.N = 40;
  both_resets(c, check);
}

TEST(options) {
  check({.B = 3, .T = 2, .I = 2, .N = 6, .M = 3, .U = 3, .nets = 2, .softplus = false});
  check({.B = 3, .T = 2, .I = 2, .N = 6, .M = 3, .U = 3, .nets = 2, .maps = false});
  check({.B = 3, .T = 2, .I = 2, .N = 6, .M = 3, .U = 3, .nets = 2, .initial_state = false});
  check({.B = 2, .T = 2, .I = 2, .N = 6, .M = 0, .U = 1, .nets = 2});
  check({.B = 2, .T = 2, .I = 9, .N = 6, .M = 3, .U = 2, .nets = 2, .density = 0.0});
  check({.B = 0, .T = 2, .I = 2, .N = 4, .M = 2, .U = 2, .nets = 3});
  check({.B = 2, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2, .nets = 3, .timespans = 1});
}

TEST(layers_give_what_they_give_by_themselves) {
  std::mt19937_64 random(seed());
  const LtcCase c{.B = 3, .T = 4, .I = 3, .N = 9, .M = 2, .U = 3, .nets = 3};
  const LtcProblem all(c, random);
  fastltc::emulator::set_schedule({});
  const LtcSchedule schedule{LtcPlan::warp_per_sample, 32, 4, 3};
  LtcCall<float> together(all);
  CudaLtc::forward(together, schedule, true);
  for (int64_t net = 0; net < c.nets; ++net) {
    LtcCase one = c;
    one.nets = 1;
    LtcProblem alone(one, random);
    for (int k = GLEAK; k < MEMORY_W; ++k) {
      const size_t each = all.values[k].size() / 3;
      alone.values[k].assign(all.values[k].begin() + net * each,
                             all.values[k].begin() + (net + 1) * each);
    }
    const auto columns = [&](int tensor, int64_t count) {
      for (int64_t row = 0; row < static_cast<int64_t>(alone.values[tensor].size()) / count;
           ++row) {
        for (int64_t k = 0; k < count; ++k) {
          alone.values[tensor][row * count + k] =
              all.values[tensor][(row * c.nets + net) * count + k];
        }
      }
    };
    columns(X, c.I);
    columns(H0, c.N);
    const auto list = [&](const std::vector<int32_t>& from, int64_t rows) {
      const int64_t neurons = c.nets * c.N, first = from[net * c.N];
      std::vector<int32_t> to;
      for (int64_t j = 0; j <= c.N; ++j) to.push_back(from[net * c.N + j] - first);
      for (int64_t k = 0; k < to[c.N]; ++k) {
        to.push_back(from[neurons + 1 + first + k] - static_cast<int32_t>(net * rows));
      }
      return to;
    };
    alone.synapses = list(all.synapses, c.N);
    alone.sensory = list(all.sensory, c.I);
    LtcCall<float> single(alone);
    CudaLtc::forward(single, schedule, true);
    for (int64_t row = 0; row < c.B * c.T; ++row) {
      for (int64_t m = 0; m < c.M; ++m) {
        CHECK(together.output[(row * c.nets + net) * c.M + m] == single.output[row * c.M + m]);
      }
    }
    for (int64_t b = 0; b < c.B; ++b) {
      for (int64_t j = 0; j < c.N; ++j) {
        CHECK(together.hn[(b * c.nets + net) * c.N + j] == single.hn[b * c.N + j]);
      }
    }
  }
}

TEST(every_order_gives_the_same_bits) {
  check_every_order({.B = 3, .T = 2, .I = 3, .N = 13, .M = 2, .U = 3, .nets = 3, .timespans = 1});
  check_every_order({.B = 2, .T = 2, .I = 2, .N = 36, .M = 4, .U = 2, .nets = 2, .lengths = true});
}

TEST(lists_that_are_not_well_formed_touch_nothing_outside) {
  // Synapses that two layers claim: whose gradient remains is open.
  if (kChecksRaces) return;
  std::mt19937_64 random(seed());
  const LtcProblem problem(
      {.B = 2, .T = 2, .I = 3, .N = 4, .M = 4, .U = 2, .nets = 3, .density = 1.0}, random);
  // From a neuron of another layer, and of none.
  check_broken_list(problem, 13, 5);
  check_broken_list(problem, 13 + 20, 0);
  check_broken_list(problem, 14, -1);
  check_broken_list(problem, 13 + 40, 1 << 30);
  // Columns that go outside of the list, or of their layer.
  check_broken_list(problem, 3, 1000);
  check_broken_list(problem, 5, -5);
  check_broken_list(problem, 0, 30, false);
  check_broken_list(problem, 4, 48, false);
  check_broken_list(problem, 8, 0, false);
  check_broken_list(problem, 12, 1, false);
}

TEST(schedules_of_the_sizes_that_matter) {
  const auto schedule = [](int64_t B, int64_t N, int64_t synapses, int64_t nets) {
    return fastltc::cuda::ltc_schedule({B, 32, 16 * nets, N * nets, 2 * nets, 6},
                                       {synapses * nets, 80 * nets}, false, {8, 227 << 10}, nets);
  };
  // AutoNCP(19, 2): the plan of one layer, and no more sums than one layer has.
  CHECK(schedule(128, 19, 46, 10).plan == LtcPlan::warp_per_sample);
  CHECK(schedule(128, 19, 46, 10).slots == 4);
  CHECK(schedule(128, 19, 46, 10).blocks == 102);
  CHECK(schedule(1, 19, 46, 10).blocks == 1);
  CHECK(schedule(128, 19, 46, 5000).blocks == 1);
  // FullyConnected(64), AutoNCP(64, 8), and layers of which one could have too many.
  CHECK(schedule(64, 64, 4096, 4).plan == LtcPlan::block_per_sample);
  CHECK(schedule(64, 64, 4096, 4).threads == 512);
  CHECK(schedule(64, 64, 4096, 4).blocks == 64);
  CHECK(schedule(64, 64, 483, 4).threads == 128);
  CHECK(schedule(64, 100, 1000, 4).plan == LtcPlan::block_per_sample);
  CHECK(schedule(64, 100, 1100, 4).plan == LtcPlan::tiled);
  CHECK(schedule(64, 70, 4900, 2).plan == LtcPlan::tiled);
}
