// The CfC kernels on every shape that takes another path through them: against plain loops, and
// all gradients at once against a slope.

#include <cstdint>
#include <iterator>
#include <random>
#include <vector>

#include "cpu/operators.h"
#include "cpu/sequence_checks.h"
#include "support/cfc_case.h"

namespace {

using namespace fastltc::test;
using fastltc::Activation;
using fastltc::CfcMode;

struct Layer : Cfc {
  static constexpr double kOfDoubles = 1e-11, kOfFloats = 1e-3;
  // ReLU and |.| have corners, which a short way rarely meets.
  static constexpr double kDistance = 1e-6, kOfSlope = 1e-5;

  static void forward(const auto& in, const auto& out, const fastltc::Parallel& parallel) {
    fastltc::cpu::cfc_forward(in, out, parallel);
  }
  static void backward(const auto& in, const auto& grad, const fastltc::Parallel& parallel) {
    fastltc::cpu::cfc_backward(in, grad, parallel);
  }
};

void check(Layer::Case c) {
  // The backward pass multiplies zeros by those behind the lengths.
  c.finite_factors = true;
  check_layer<Layer>(c);
}

void scale_parameters(CfcProblem& problem, double factor) {
  for (size_t k = 3; k < problem.values.size(); ++k) {
    for (double& value : problem.values[k]) value *= factor;
  }
}

}  // namespace

TEST(batches_of_every_width) {
  for (const int64_t B : {1, 3, 4, 8, 15, 16, 17, 33, 64, 65, 100}) {
    check({.B = B, .T = 3, .I = 5, .cells = {4, 3, 2}, .masked = true});
  }
}

TEST(resets) {
  for (const int64_t B : {5, 33}) {
    for (const bool memory : {false, true}) {
      CfcCase all{.B = B, .T = 5, .I = 3, .cells = {4, 3, 2}};
      all.resets = true;
      all.memory = memory;
      every_way(all, [](CfcCase c) {
        c.initial_state = c.timespans != 1;
        both_resets(c, check);
      });
    }
  }
}

TEST(mixed_memory) {
  for (const CfcMode mode : kModes) {
    CfcCase wired{.B = 18, .T = 5, .I = 3, .cells = {5, 3, 2}, .mode = mode, .masked = true};
    wired.memory = true;
    every_way(wired, check);
    CfcCase backbone{.B = 65, .T = 3, .I = 2, .cells = {6}, .mode = mode, .backbone_layers = 2};
    backbone.units = 5;
    backbone.dropout = backbone.memory = true;
    backbone.threads = 2;
    every_way(backbone, check);
  }
  check({.B = 1, .T = 40, .I = 1, .cells = {1}, .memory = true});
  check({.B = 0, .T = 3, .I = 2, .cells = {4}, .memory = true});
  check({.B = 3, .T = 0, .I = 2, .cells = {4}, .memory = true});
}

TEST(wired_cells) {
  for (const CfcMode mode : kModes) {
    every_way(CfcCase{.B = 5, .T = 4, .I = 3, .cells = {5, 3, 2}, .mode = mode, .masked = true},
              check);
    every_way(CfcCase{.B = 35, .T = 2, .I = 1, .cells = {1, 7}, .mode = mode}, check);
  }
}

TEST(outputs_of_all_neurons) {
  for (const bool memory : {false, true}) {
    every_way(CfcCase{.B = 9,
                      .T = 4,
                      .I = 3,
                      .cells = {5, 3, 2},
                      .masked = true,
                      .memory = memory,
                      .all_outputs = true},
              check);
  }
}

TEST(backbones) {
  for (const Activation activation : {Activation::lecun_tanh, Activation::silu, Activation::relu,
                                      Activation::tanh, Activation::gelu}) {
    for (const int64_t layers : {1, 2, 3}) {
      check({.B = 7,
             .T = 3,
             .I = 3,
             .cells = {5},
             .mode = kModes[layers - 1],
             .backbone_layers = layers,
             .units = 6,
             .activation = activation,
             .dropout = layers > 1,
             .timespans = static_cast<int>(layers) - 1,
             .lengths = layers == 3});
    }
  }
}

TEST(a_history_longer_than_what_is_put_by) {
  check({.B = 3, .T = 70, .I = 2, .cells = {3, 2}, .masked = true, .lengths = true});
}

// A narrow tile behind a wide one: three registers of samples, whatever the instruction set. With
// this many rows to put by, a narrow tile puts by more in all, and must have the memory for it.
TEST(narrow_tiles_of_deep_backbones) {
  for (const int64_t B : {6, 12, 24}) {
    for (const int64_t units : {64, 72, 80}) {
      for (const int threads : {1, 2}) {
        std::mt19937_64 random(seed());
        Layer::Problem problem({.B = B,
                                .T = 24,
                                .I = 1,
                                .cells = {1},
                                .backbone_layers = 6,
                                .units = units,
                                .activation = Activation::tanh,
                                .threads = threads},
                               random);
        // Larger weights make a network of this depth chaotic.
        scale_parameters(problem, 0.55);
        check_gradient<Layer>(problem, random);
      }
    }
  }
}

TEST(one_cell_with_lengths_and_only_the_last_output) {
  for (const CfcMode mode : kModes) {
    check({.B = 17,
           .T = 40,
           .I = 8,
           .cells = {8},
           .mode = mode,
           .lengths = true,
           .return_sequences = false});
  }
}

TEST(nothing_to_do) {
  check({.B = 0, .T = 3, .I = 2, .cells = {3}});
  check({.B = 3, .T = 0, .I = 2, .cells = {3}});
  check({.B = 3, .T = 0, .I = 2, .cells = {3}, .mode = CfcMode::pure, .return_sequences = false});
}

TEST(threads_share_the_batch) {
  for (const int threads : {2, 3}) {
    check({.B = 70,
           .T = 40,
           .I = 6,
           .cells = {12, 8, 4},
           .masked = true,
           .timespans = 1,
           .lengths = true,
           .threads = threads});
  }
}

TEST(gradients_do_not_depend_on_the_threads_of_either_pass) {
  size_t turn = 0;
  for (const int64_t B : {7, 64, 131}) {
    for (const bool memory : {false, true}) {
      // Each mode in turn: what threads share out does not look at it.
      const CfcMode mode = kModes[turn++ % std::size(kModes)];
      // As much work as gives each of eight threads a share.
      CfcCase all{.B = B, .T = 8, .I = 3, .cells = {24}, .mode = mode};
      all.masked = mode == CfcMode::gated;
      if (all.masked) {
        all.cells = {24, 12, 4};
      } else {
        all.backbone_layers = 1;
        all.units = 24;
      }
      all.memory = memory;
      all.sorted = true;
      every_way(all, [](const CfcCase& c) {
        std::mt19937_64 random(seed());
        CfcProblem problem(c, random);
        // Larger weights make a network of this many steps chaotic.
        scale_parameters(problem, 0.6);
        check_pairs_of_threads<Layer, double>(problem, 1e-12);
        if (c.timespans == 1) check_pairs_of_threads<Layer, float>(problem, 2e-5);
      });
    }
  }
}
