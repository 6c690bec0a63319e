// How the kernels of a cell are checked on the processor. `Layer` is a cell of support/*_case.h with
// `forward` and `backward`, which run kernels.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "support/parallel.h"
#include "support/sequence_case.h"

namespace fastltc::test {

template <typename Layer, typename Call>
void run_forward(Call& call, bool keep_states, int threads) {
  Layer::forward(call.in, call.prepare_forward(keep_states), parallel(threads));
}
template <typename Layer, typename Call>
void run_backward(Call& call, int threads) {
  Layer::backward(call.in, call.prepare_backward(true), parallel(threads));
}

// With and without kept states: batch lanes, and for few samples post lanes.
template <typename Layer, typename T>
void check_forward(const typename Layer::Problem& problem, const Expected<Layer>& expected,
                   double tolerance) {
  typename Layer::template Call<T> call(problem);
  for (const bool keep_states : {true, false}) {
    run_forward<Layer>(call, keep_states, problem.c.threads);
    check_close(text(problem.c) + ": output", call.output, expected.call.output, tolerance);
    check_close(text(problem.c) + ": hn", call.hn, expected.call.hn, tolerance);
  }
}

// Against the slope along a direction.
template <typename Layer>
void check_gradient(const typename Layer::Problem& problem, std::mt19937_64& random) {
  typename Layer::template Call<double> call(problem);
  run_forward<Layer>(call, true, problem.c.threads);
  run_backward<Layer>(call, problem.c.threads);
  check_slope(text(problem.c), problem, call.gradients, random, Layer::kDistance, Layer::kOfSlope,
              [](const typename Layer::Problem& moved) {
                typename Layer::template Call<double> at(moved);
                run_forward<Layer>(at, false, moved.c.threads);
                return at.loss();
              });
}

template <typename Layer>
void check_layer(const typename Layer::Case& c) {
  std::mt19937_64 random(seed());
  const typename Layer::Problem problem(c, random);
  const Expected<Layer> expected(problem);
  check_forward<Layer, double>(problem, expected, Layer::kOfDoubles);
  check_forward<Layer, float>(problem, expected, Layer::kOfFloats);
  check_gradient<Layer>(problem, random);
  typename Layer::template Call<double> call(problem);
  run_forward<Layer>(call, true, c.threads);
  run_backward<Layer>(call, c.threads);
  compare_gradients(text(c) + ": ", call, expected, 1e-11);
}

// The tiles of both passes follow their own number of threads, and a pass may have another one than
// the pass before it.
template <typename Layer, typename T>
void check_pairs_of_threads(const typename Layer::Problem& problem, double tolerance) {
  constexpr int kThreads[] = {1, 2, 3, 4, 8};
  typename Layer::template Call<T> first(problem), call(problem);
  run_forward<Layer>(first, true, 1);
  run_backward<Layer>(first, 1);
  double size = 1.0;
  for (const auto& gradient : first.gradients) size = std::max(size, scale_of(gradient));
  for (const int forward : kThreads) {
    const std::string pair = text(problem.c) + ": " + std::to_string(forward) + " threads, then ";
    run_forward<Layer>(call, true, forward);
    check_close(pair + "none: outputs", call.output, first.output, tolerance);
    check_close(pair + "none: hn", call.hn, first.hn, tolerance);
    check_close(pair + "none: states", call.states, first.states, tolerance);
    for (const int backward : kThreads) {
      run_backward<Layer>(call, backward);
      for (size_t k = 0; k < first.gradients.size(); ++k) {
        if (!problem.has_gradient(k)) continue;
        check_close(pair + std::to_string(backward) + ": gradient of " + problem.name(k),
                    call.gradients[k], first.gradients[k], tolerance, size);
      }
    }
  }
}

}  // namespace fastltc::test
