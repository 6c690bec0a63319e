// The CfC kernels for CUDA, run by the emulator: every plan on every shape that takes another path
// through it against plain loops, in every order of blocks and threads with the same bits.
#include "cuda/cfc.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "cuda/sequence_checks.h"
#include "support/cfc_case.h"

namespace {

using namespace fastltc::test;
using fastltc::Activation;
using fastltc::CfcInputs;
using fastltc::CfcMode;
using fastltc::cuda::CfcPlan;
using fastltc::cuda::CfcSchedule;

struct Layer : Cfc {
  static std::string plan_text(const CfcSchedule& schedule) {
    const char* const plan = schedule.plan == CfcPlan::warp_per_sample  ? "warp"
                             : schedule.plan == CfcPlan::block_per_tile ? "block"
                                                                        : "tiled";
    return std::string(plan) + " threads" + std::to_string(schedule.threads) + " slots" +
           std::to_string(schedule.slots) + (schedule.weights_in_shared ? " shared" : "");
  }
  template <typename T>
  static void forward(CfcCall<T>& call, const CfcSchedule& schedule, bool keep_states) {
    const auto out = call.prepare_forward(keep_states);
    fastltc::cuda::launch_cfc_forward(schedule, call.in, out, ScratchMemory(), nullptr);
  }
  template <typename T>
  static void backward(CfcCall<T>& call, const CfcSchedule& schedule) {
    const auto grad = call.prepare_backward(false);
    fastltc::cuda::launch_cfc_backward(schedule, call.in, grad, ScratchMemory(), nullptr);
  }
};

// The plans that can run a problem, the one that would be chosen or not.
template <typename T>
std::vector<CfcSchedule> possible_schedules(const CfcProblem& problem) {
  const CfcCase& c = problem.c;
  std::vector<CfcSchedule> schedules{{CfcPlan::tiled, 0, 0, false, 0}};
  // So few that some run several samples.
  const int64_t blocks = std::min<int64_t>(c.B, 3), tile_blocks = std::min<int64_t>(c.B, 2);
  if (c.neurons() <= 32 && c.cells.size() <= 12 && c.backbone_layers == 0 && !c.memory &&
      !c.resets) {
    int64_t most = c.cells[0];
    for (size_t n = 1; n < c.cells.size(); ++n) most = std::max(most, c.cells[n - 1] + c.cells[n]);
    for (const int slots : {8, 20, 32}) {
      if (most <= slots && (sizeof(T) == 4 || slots == 20)) {
        schedules.push_back({CfcPlan::warp_per_sample, 32, slots, false, blocks});
      }
    }
  }
  const CfcCall<T> call(problem);
  const CfcSchedule chosen = fastltc::cuda::cfc_schedule(call.in, 64 << 10);
  if (chosen.plan != CfcPlan::tiled) {
    schedules.push_back({CfcPlan::block_per_tile, 64, 0, false, tile_blocks});
    // All that fits: the weights of the small.
    if (c.neurons() * (c.neurons() + 1) * 4 < 4000 && c.units <= 16 && c.backbone_layers <= 3) {
      schedules.push_back({CfcPlan::block_per_tile, c.neurons() <= 10 ? 32 : 128, 0, true, 1});
    }
    if (chosen.plan == CfcPlan::block_per_tile) schedules.push_back(chosen);
  }
  return schedules;
}

void check(const CfcCase& c) {
  // Each access is looked up: what differs in nothing but in numbers is left to the other program.
  if (kChecksRaces && c.B * c.T * (c.neurons() + c.units) * (c.neurons() + c.units) > 4000) return;
  std::mt19937_64 random(seed());
  const CfcProblem problem(c, random);
  const Expected<Layer> expected(problem);
  fastltc::emulator::set_schedule({});
  for (const CfcSchedule& schedule : possible_schedules<double>(problem)) {
    check_values<Layer, double>(problem, expected, schedule, 1e-11);
  }
  for (const CfcSchedule& schedule : possible_schedules<float>(problem)) {
    const bool is_warp = schedule.plan == CfcPlan::warp_per_sample;
    if (is_warp || !kChecksRaces) check_values<Layer, float>(problem, expected, schedule, 3e-4);
  }
}

}  // namespace

// The plain loops themselves: all gradients at once along a direction.
TEST(plain_gradients_are_those_of_the_plain_loss) {
  if (kChecksRaces) return;
  for (const CfcMode mode : kModes) {
    for (const bool backbone : {false, true}) {
      std::mt19937_64 random(seed());
      CfcCase c{
          .B = 2, .T = 3, .I = 2, .cells = {3, 2}, .mode = mode, .timespans = 2, .memory = true};
      if (backbone) {
        c.cells = {4};
        c.backbone_layers = 2;
        c.units = 3;
        c.activation = Activation::gelu;
      }
      const CfcProblem problem(c, random);
      const Expected<Layer> expected(problem);
      check_slope(text(c), problem, expected.call.gradients, random, 1e-6, 1e-6,
                  [](const CfcProblem& moved) {
                    CfcCall<double> call(moved);
                    plain_cfc_forward(call.in, call.prepare_forward(false));
                    return call.loss();
                  });
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
    every_way(CfcCase{.B = 6, .T = 4, .I = 3, .cells = {4, 3, 2}, .mode = mode, .masked = true},
              [](CfcCase c) {
                c.time_major = c.lengths;
                check(c);
              });
  }
}

TEST(resets) {
  every_way(CfcCase{.B = 6, .T = 4, .I = 3, .cells = {4, 3, 2}, .resets = true},
            [](const auto& c) { both_resets(c, check); });
  both_resets(CfcCase{.B = 6, .T = 4, .I = 3, .cells = {7}, .mode = CfcMode::pure, .resets = true},
              check);
  CfcCase backbone{.B = 5, .T = 4, .I = 3, .cells = {9}, .backbone_layers = 2, .units = 11};
  backbone.initial_state = false;
  for (const bool memory : {false, true}) {
    backbone.resets = true;
    backbone.memory = memory;
    both_resets(backbone, check);
  }
  CfcCase memory{.B = 5, .T = 4, .I = 2, .cells = {5, 2}, .lengths = true, .memory = true};
  memory.resets = true;
  both_resets(memory, check);
}

TEST(outputs_of_all_neurons) {
  for (const bool memory : {false, true}) {
    for (const int64_t size : {4, 36}) {
      CfcCase c{.B = 5, .T = 3, .I = 2, .cells = {size, 3, 2}, .masked = true, .memory = memory};
      c.all_outputs = c.lengths = true;
      check(c);
      c.return_sequences = false;
      check(c);
    }
  }
}

TEST(extreme_time_steps) {
  for (const CfcMode mode : kModes) {
    for (const int timespans : {1, 2}) {
      CfcCase wired{.B = 6, .T = 4, .I = 3, .cells = {4, 3, 2}, .mode = mode};
      wired.lengths = timespans == 2;
      CfcCase backbone{.B = 5, .T = 3, .I = 3, .cells = {9}, .mode = mode, .backbone_layers = 1};
      backbone.units = 11;
      for (CfcCase* const c : {&wired, &backbone}) {
        c->timespans = timespans;
        c->extreme = true;
        check(*c);
      }
    }
  }
}

TEST(backbones) {
  for (const CfcMode mode : kModes) {
    for (const int64_t layers : {1, 2, 3}) {
      CfcCase c{.B = 5, .T = 3, .I = 3, .cells = {9}, .mode = mode, .backbone_layers = layers};
      c.units = 11;
      c.dropout = layers > 1;
      c.timespans = layers == 1 ? 0 : 1;
      c.lengths = layers == 3;
      check(c);
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

// Single weights whose rows lie in banks of their own in shared memory: by all four of them, by
// two, from a row that is no multiple of four on, and not at all.
TEST(rows_of_every_width_in_shared_memory) {
  for (const int64_t units : {16, 32, 40, 48}) {
    check({.B = 5, .T = 2, .I = 3, .cells = {units}, .backbone_layers = 1, .units = units});
    check({.B = 5, .T = 2, .I = 3, .cells = {5, units}, .mode = CfcMode::pure});
  }
}

TEST(mixed_memory) {
  check({.B = 3, .T = 4, .I = 3, .cells = {7}, .timespans = 1, .memory = true});
  CfcCase wired{.B = 5, .T = 3, .I = 2, .cells = {5, 4, 2}, .lengths = true, .memory = true};
  wired.masked = true;
  check(wired);
  CfcCase last{.B = 5, .T = 3, .I = 2, .cells = {5, 4, 2}, .memory = true};
  last.return_sequences = last.initial_state = false;
  check(last);
  CfcCase backbone{.B = 2, .T = 3, .I = 2, .cells = {6}, .mode = CfcMode::pure, .memory = true};
  backbone.backbone_layers = 2;
  backbone.units = 9;
  backbone.timespans = 2;
  backbone.lengths = true;
  check(backbone);
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
  for (const CfcCase& c :
       {CfcCase{.B = 5, .T = 3, .I = 4, .cells = {11, 6, 2}, .masked = true},
        CfcCase{
            .B = 9, .T = 2, .I = 2, .cells = {5}, .backbone_layers = 2, .units = 6, .timespans = 1},
        CfcCase{.B = 6, .T = 3, .I = 3, .cells = {4, 3}, .lengths = true, .memory = true},
        CfcCase{
            .B = 70, .T = 2, .I = 3, .cells = {3, 2}, .mode = CfcMode::pure, .lengths = true}}) {
    std::mt19937_64 random(seed());
    const CfcProblem problem(c, random);
    for (const CfcSchedule& schedule : possible_schedules<float>(problem)) {
      check_orders<Layer>(problem, schedule);
    }
  }
}

TEST(negative_time_steps_give_nan) {
  std::mt19937_64 random(seed());
  const CfcProblem problem({.B = 2, .T = 2, .I = 3, .cells = {6}, .timespans = 1}, random);
  check_negative_time_step<Layer>(problem, possible_schedules<float>(problem));
}

TEST(lengths_outside_count_as_the_nearest_inside) {
  std::mt19937_64 random(seed());
  const CfcProblem inside({.B = 2, .T = 2, .I = 3, .cells = {4, 2}}, random);
  CfcProblem outside = inside;
  outside.c.lengths = true;
  outside.lengths = {7, int64_t{1} << 40};
  fastltc::emulator::set_schedule({});
  for (const CfcSchedule& schedule : possible_schedules<float>(inside)) {
    CfcCall<float> expected(inside), call(outside);
    Layer::forward(expected, schedule, true);
    Layer::forward(call, schedule, true);
    CHECK(call.everything() == expected.everything());
    outside.lengths = {-3, -1};
    CfcCall<float> none(outside);
    Layer::forward(none, schedule, false);
    CHECK(none.hn == none.values[1]);
    outside.lengths = {7, int64_t{1} << 40};
  }
}

TEST(schedules_of_the_sizes_that_matter) {
  const auto schedule = [](std::vector<int64_t> cells, int64_t units = 0, bool float64 = false,
                           int64_t shared = 227 << 10, bool memory = false, bool resets = false) {
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
      static const bool reset = false;
      if (resets) in.resets.data = &reset;
      return fastltc::cuda::cfc_schedule(in, shared);
    };
    return float64 ? of(double{}) : of(float{});
  };
  // AutoNCP(19, 2), AutoNCP(32, 4), AutoNCP(8, 2)
  CHECK(schedule({11, 6, 2}).plan == CfcPlan::warp_per_sample);
  CHECK(schedule({11, 6, 2}, 0, false, 227 << 10, false, true).plan == CfcPlan::block_per_tile);
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
