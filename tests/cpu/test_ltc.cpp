// The LTC kernels on every shape that takes another path through them: against plain loops, and
// all gradients at once against a slope.

#include <cstdint>
#include <random>
#include <vector>

#include "cpu/frame/isa.h"
#include "cpu/operators.h"
#include "cpu/sequence_checks.h"
#include "support/ltc_case.h"

namespace {

using namespace fastltc::test;

struct Layer : Ltc {
  static constexpr double kOfDoubles = 1e-12, kOfFloats = 2e-4;
  static constexpr double kDistance = 1e-4, kOfSlope = 1e-6;

  static void forward(const auto& in, const auto& out, const fastltc::Parallel& parallel) {
    fastltc::cpu::ltc_forward(in, out, parallel);
  }
  static void backward(const auto& in, const auto& grad, const fastltc::Parallel& parallel) {
    fastltc::cpu::ltc_backward(in, grad, parallel);
  }
};

void check(Layer::Case c) {
  for (const bool keeps_unfolds : {true, false}) {
    c.keeps_unfolds = keeps_unfolds;
    check_layer<Layer>(c);
  }
}

}  // namespace

TEST(batches_of_every_width) {
  for (const int64_t B : {1, 3, 4, 8, 15, 16, 17, 31, 33, 64, 65, 100}) {
    check({.B = B, .T = 2, .I = 3, .N = 5, .M = 2, .U = 3, .density = 0.6});
  }
}

TEST(networks_of_every_size) {
  for (const int64_t N : {1, 2, 7, 16, 17, 31, 33, 64}) {
    for (const double density : {0.3, 1.0}) {
      check({.B = 2, .T = 2, .I = 4, .N = N, .M = (N + 1) / 2, .U = 2, .density = density});
      check({.B = 18, .T = 1, .I = 33, .N = N, .M = N, .U = 1, .density = density});
    }
  }
}

TEST(time_steps_and_lengths) {
  for (const int64_t B : {1, 3, 5, 33}) {
    every_way(LtcCase{.B = B, .T = 4, .I = 3, .N = 6, .M = 2, .U = 2, .density = 0.7}, check);
  }
}

TEST(resets) {
  for (const int64_t B : {3, 5, 33}) {
    for (const bool memory : {false, true}) {
      LtcCase all{.B = B, .T = 5, .I = 3, .N = 6, .M = 2, .U = 2, .density = 0.7};
      all.resets = true;
      all.memory = memory;
      every_way(all, [](LtcCase c) {
        c.initial_state = c.timespans != 1;
        both_resets(c, check);
      });
    }
  }
}

TEST(options) {
  check({.B = 9, .T = 3, .I = 2, .N = 6, .M = 3, .U = 6, .density = 0.5, .softplus = false});
  check({.B = 9, .T = 3, .I = 2, .N = 6, .M = 3, .U = 6, .density = 0.5, .maps = false});
  check({.B = 9, .T = 3, .I = 2, .N = 6, .M = 3, .U = 6, .density = 0.5, .initial_state = false});
  check({.B = 1, .T = 3, .I = 2, .N = 6, .M = 0, .U = 1, .density = 0.5});
  check({.B = 3, .T = 3, .I = 2, .N = 6, .M = 3, .U = 2, .density = 0.0});
}

TEST(mixed_memory) {
  for (const int64_t B : {1, 5, 16, 33, 65}) {
    LtcCase all{.B = B, .T = 5, .I = 3, .N = 7, .M = 2, .U = 2, .density = 0.6, .memory = true};
    every_way(all, [](LtcCase c) {
      c.initial_state = c.timespans != 1;
      check(c);
    });
  }
  check({.B = 17, .T = 40, .I = 1, .N = 1, .M = 1, .U = 1, .density = 1.0, .memory = true});
  check({.B = 3, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2, .density = 0.5, .memory = true});
  LtcCase large{.B = 70, .T = 9, .I = 6, .N = 33, .M = 4, .U = 6, .maps = false, .memory = true};
  large.threads = 3;
  check(large);
}

TEST(layers_beside_each_other) {
  for (const int64_t B : {1, 3, 18}) {
    check({.B = B, .T = 4, .I = 3, .N = 7, .M = 2, .U = 3, .nets = 3, .timespans = 1});
  }
}

TEST(nothing_to_do) {
  check({.B = 0, .T = 3, .I = 2, .N = 4, .M = 2, .U = 2, .density = 0.5});
  check({.B = 3, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2, .density = 0.5});
  check(
      {.B = 17, .T = 0, .I = 2, .N = 4, .M = 2, .U = 2, .density = 0.5, .return_sequences = false});
}

TEST(threads_share_the_batch) {
  for (const int threads : {2, 3, 5}) {
    LtcCase c{.B = 70, .T = 20, .I = 6, .N = 24, .M = 4, .U = 6, .timespans = 1, .lengths = true};
    c.threads = threads;
    check(c);
  }
}

// What the backward pass puts by, has kept or repeats and evaluates twice: 4096 sigmoids a step, and
// more.
TEST(unfolds_repeated_or_kept) {
#if defined(FASTLTC_TEST_SAMPLE)
  const std::vector<int64_t> batches = {3, 16};
#else
  const std::vector<int64_t> batches = {3, 16, 70};
#endif
  for (const int64_t N : {32, 33}) {
    for (const int64_t B : batches) {
      for (const bool memory : {false, true}) {
        LtcCase all{.B = B, .T = 3, .I = 5, .N = N, .M = 3, .U = 4, .density = 1.0};
        all.memory = memory;
        all.threads = 2;
        every_way(all, [](LtcCase c) {
          check(c);
          std::mt19937_64 random(seed());
          Layer::Problem problem(c, random);
          std::vector<std::vector<float>> found[2];
          for (const bool keeps_unfolds : {true, false}) {
            problem.c.keeps_unfolds = keeps_unfolds;
            LtcCall<float> call(problem);
            run_forward<Layer>(call, true, c.threads);
            run_backward<Layer>(call, c.threads);
            for (size_t k = 0; k < call.gradients.size(); ++k) {
              if (problem.has_gradient(k)) found[keeps_unfolds].push_back(call.gradients[k]);
            }
          }
          CHECK(found[0] == found[1]);
        });
      }
    }
  }
}

// Outputs and gradients of floats, each beside the largest of its kind; doubles as ever.
TEST(medium_sigmoids) {
  for (const int64_t B : {1, 5, 40}) {
    LtcCase all{.B = B, .T = 4, .I = 5, .N = 33, .M = 3, .U = 4, .density = 0.6, .timespans = 1};
    for (const bool keeps_unfolds : {true, false}) {
      all.keeps_unfolds = keeps_unfolds;
      std::mt19937_64 random(seed());
      const Layer::Problem problem(all, random);
      const Expected<Layer> expected(problem);
      const auto run = [&](auto& call, bool medium) {
        call.in.medium_sigmoid = medium;
        run_forward<Layer>(call, false, 1);
        check_close(text(all) + ": output without states", call.output, expected.call.output, 3e-3);
        run_forward<Layer>(call, true, 1);
        check_close(text(all) + ": output", call.output, expected.call.output, 3e-3);
        run_backward<Layer>(call, 1);
        compare_gradients(text(all) + ": ", call, expected, 1e-2);
        return call.everything();
      };
      LtcCall<double> doubles(problem), same_doubles(problem);
      CHECK(run(doubles, true) == run(same_doubles, false));
      LtcCall<float> medium(problem), highest(problem);
      const bool has_medium = fastltc::cpu::active_isa() != fastltc::cpu::Isa::baseline;
      CHECK((run(medium, true) != run(highest, false)) == has_medium);
    }
  }
}

TEST(gradients_do_not_depend_on_the_threads_of_either_pass) {
  for (const int64_t B : {1, 7, 33, 64, 131}) {
    for (const bool memory : {false, true}) {
      // As many synapses as give each of eight threads a share.
      LtcCase all{.B = B, .T = 6, .I = 3, .N = 14, .M = 2, .U = 4, .density = 0.8};
      all.memory = memory;
      all.sorted = true;
      every_way(all, [](const LtcCase& c) {
        std::mt19937_64 random(seed());
        const LtcProblem problem(c, random);
        check_pairs_of_threads<Layer, double>(problem, 1e-12);
        if (c.timespans == 1) check_pairs_of_threads<Layer, float>(problem, 2e-5);
      });
    }
  }
}

TEST(the_same_call_gives_the_same_bits) {
  std::mt19937_64 random(seed());
  const Layer::Problem problem(
      {.B = 70, .T = 10, .I = 6, .N = 24, .M = 4, .U = 6, .density = 0.5, .threads = 3}, random);
  const auto run = [&] {
    LtcCall<float> call(problem);
    run_forward<Layer>(call, true, problem.c.threads);
    run_backward<Layer>(call, problem.c.threads);
    return call.everything();
  };
  CHECK(run() == run());
}
