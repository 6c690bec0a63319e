// The masked product and its gradients against plain loops; buffers have their exact sizes, and
// what is off the mask is NaN.

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "cpu/operators.h"
#include "support/check.h"
#include "support/parallel.h"

namespace {

template <typename T>
void check(int64_t B, int64_t I, int64_t O, double density, int threads, double tolerance) {
  std::mt19937_64 random(fastltc::test::seed());
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  const auto draw = [&](int64_t count) {
    std::vector<T> values(count);
    for (T& value : values) value = static_cast<T>(normal(random));
    return values;
  };
  const std::vector<T> x = draw(B * I), bias = draw(O), g = draw(B * O);
  std::vector<T> weight = draw(O * I);
  std::vector<double> masked(O * I);
  std::vector<int32_t> first{0}, index;
  for (int64_t o = 0; o < O; ++o) {
    for (int64_t i = 0; i < I; ++i) {
      if (uniform(random) < density) {
        index.push_back(static_cast<int32_t>(i));
        masked[o * I + i] = static_cast<double>(weight[o * I + i]);
      } else {
        weight[o * I + i] = std::numeric_limits<T>::quiet_NaN();
      }
    }
    first.push_back(static_cast<int32_t>(index.size()));
  }
  fastltc::MaskedLinear<T> in;
  in.B = B;
  in.I = I;
  in.O = O;
  in.x = x.data();
  in.stride_x = I;
  in.weight = weight.data();
  in.bias = bias.data();
  std::vector<int32_t> first_of_input{0}, output, place;
  for (int64_t i = 0; i < I; ++i) {
    for (int64_t o = 0; o < O; ++o) {
      for (int32_t e = first[o]; e < first[o + 1]; ++e) {
        if (index[e] != i) continue;
        output.push_back(static_cast<int32_t>(o));
        place.push_back(e);
      }
    }
    first_of_input.push_back(static_cast<int32_t>(output.size()));
  }
  in.entries = {first.data(), index.data(), first_of_input.data(), output.data(), place.data()};
  const T nan = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> y(B * O, nan), grad_x(B * I, nan), grad_weight(O * I, nan), grad_bias(O, nan);
  fastltc::MaskedLinearGradients<T> grad;
  grad.grad = g.data();
  grad.stride = O;
  grad.x = grad_x.data();
  grad.weight = grad_weight.data();
  grad.bias = grad_bias.data();
  const fastltc::Parallel parallel = fastltc::test::parallel(threads);
  fastltc::cpu::masked_linear(in, y.data(), parallel);
  fastltc::cpu::masked_linear_backward(in, grad, parallel);

  std::vector<double> expected_x(B * I), expected_bias(O);
  for (int64_t o = 0; o < O; ++o) {
    for (int64_t b = 0; b < B; ++b) {
      double sum = static_cast<double>(bias[o]);
      for (int64_t i = 0; i < I; ++i) {
        sum += masked[o * I + i] * static_cast<double>(x[b * I + i]);
        expected_x[b * I + i] += masked[o * I + i] * static_cast<double>(g[b * O + o]);
      }
      expected_bias[o] += static_cast<double>(g[b * O + o]);
      CHECK_NEAR(y[b * O + o], sum, tolerance);
    }
    CHECK_NEAR(grad_bias[o], expected_bias[o], tolerance);
    for (int64_t i = 0; i < I; ++i) {
      double sum = 0;
      for (int64_t b = 0; b < B && !std::isnan(weight[o * I + i]); ++b) {
        sum += static_cast<double>(g[b * O + o]) * static_cast<double>(x[b * I + i]);
      }
      CHECK_NEAR(grad_weight[o * I + i], sum, tolerance);
    }
  }
  for (int64_t k = 0; k < B * I; ++k) CHECK_NEAR(grad_x[k], expected_x[k], tolerance);
}

}  // namespace

TEST(every_width_and_density) {
  for (const int64_t B : {0, 1, 3, 4, 8, 15, 16, 17, 33, 64, 65, 130}) {
    for (const double density : {0.0, 0.2, 1.0}) {
      check<double>(B, 7, 5, density, 1, 1e-12);
      check<float>(B, 18, 9, density, 2, 1e-3);
    }
  }
}

TEST(odd_matrices) {
  check<float>(20, 1, 1, 1.0, 2, 1e-3);
  check<double>(20, 1, 33, 0.5, 3, 1e-12);
  check<float>(20, 33, 1, 0.5, 3, 1e-3);
  check<double>(3, 0, 4, 0.5, 1, 1e-12);
  check<double>(3, 4, 0, 0.5, 1, 1e-12);
}

TEST(wide_matrices) {
  check<double>(33, 150, 40, 0.9, 2, 1e-11);
  check<float>(70, 200, 30, 1.0, 1, 1e-3);
  check<float>(130, 129, 257, 0.5, 3, 1e-3);
}

TEST(threads_share_the_rows) { check<double>(150, 90, 110, 0.4, 3, 1e-11); }
