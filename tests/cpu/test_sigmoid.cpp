// Every float: 2^32 values, on two threads. Under a sanitizer or an emulator every 4099th.
#include "cpu/sigmoid.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "support/check.h"

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(FASTLTC_TEST_SAMPLE)
constexpr uint64_t kStride = 4099;
#else
constexpr uint64_t kStride = 1;
#endif

// 1 / (1 + 2^t) in double. Far from zero the exponential is not needed: below -60 it vanishes
// beside 1, and around zero the first two terms of the series are exact to 2^-60.
double exact(float t) {
  const double x = t;
  if (x < -60.0) return 1.0;
  if (std::abs(x) < 0x1p-30) return 0.5 - x * (0.25 * 0.6931471805599453);
  return 1.0 / (1.0 + std::exp2(x));
}

double float_spacing(double value) {
  int exponent;
  std::frexp(value, &exponent);
  return std::ldexp(1.0, std::max(exponent, -125) - 24);
}

struct Worst {
  double ulp = 0;
  float at = 0;
  bool saturation_ok = true;
  bool nan_ok = true;
};

Worst scan(uint64_t begin, uint64_t end) {
  constexpr uint64_t chunk = 1 << 16;
  std::vector<float> t(chunk), s(chunk);
  Worst worst;
  for (uint64_t bits = begin; bits < end;) {
    size_t n = 0;
    for (; n < chunk && bits < end; ++n, bits += kStride) {
      t[n] = std::bit_cast<float>(static_cast<uint32_t>(bits));
    }
    fastltc::cpu::sigmoid_exp2(t.data(), s.data(), static_cast<int64_t>(n));
    for (size_t k = 0; k < n; ++k) {
      if (std::isnan(t[k])) {
        worst.nan_ok = worst.nan_ok && std::isnan(s[k]);
      } else if (t[k] >= 126.0f) {
        worst.saturation_ok = worst.saturation_ok && s[k] > 0.0f && s[k] <= 1.2e-38f;
      } else {
        const double value = exact(t[k]);
        const double ulp = std::abs(s[k] - value) / float_spacing(value);
        // A NaN is the worst there is, and stays it.
        if (std::isnan(ulp) || ulp > worst.ulp) {
          worst.ulp = std::isnan(ulp) ? std::numeric_limits<double>::infinity() : ulp;
          worst.at = t[k];
        }
      }
    }
  }
  return worst;
}

}  // namespace

TEST(error_over_every_float) {
  constexpr uint64_t all = uint64_t{1} << 32;
  Worst half[2];
  std::thread other([&] { half[1] = scan(all / 2, all); });
  half[0] = scan(0, all / 2);
  other.join();
  const Worst& worst = half[0].ulp > half[1].ulp ? half[0] : half[1];
  std::printf("largest error %.3f ULP, at t = %.9g\n", worst.ulp, worst.at);
  CHECK(worst.ulp <= fastltc::cpu::kSigmoidMaxUlp);
  // A bound that is far from what is measured would state nothing.
  if (kStride == 1) CHECK(worst.ulp > 0.5 * fastltc::cpu::kSigmoidMaxUlp);
  CHECK(half[0].saturation_ok && half[1].saturation_ok);
  CHECK(half[0].nan_ok && half[1].nan_ok);
}

// Of the estimates every 7th float is enough: their errors are those of many.
TEST(medium_error) {
  constexpr uint64_t stride = kStride == 1 ? 7 : kStride;
  std::vector<float> t(1 << 16), s(t.size());
  double worst = 0;
  bool saturation_ok = true, nan_ok = true;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32;) {
    for (float& value : t) {
      value = std::bit_cast<float>(static_cast<uint32_t>(bits));
      bits += stride;
    }
    fastltc::cpu::synapse_sigmoid(t.data(), s.data(), static_cast<int64_t>(t.size()), true);
    for (size_t k = 0; k < t.size(); ++k) {
      if (std::isnan(t[k])) {
        nan_ok = nan_ok && std::isnan(s[k]);
      } else if (t[k] >= 125.0f) {
        saturation_ok = saturation_ok && s[k] >= 0.0f && s[k] <= 0x1.01p-125f;
      } else {
        const double value = exact(t[k]), error = std::abs(s[k] - value) / value;
        if (!(error <= worst)) worst = std::isnan(error) ? 1.0 : error;
      }
    }
  }
  std::printf("largest relative error %.3g\n", worst);
  CHECK(worst <= fastltc::cpu::kMediumSigmoidError);
  CHECK(saturation_ok && nan_ok);
}

TEST(medium_special_values) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float t[] = {0.0f, -0.0f, -infinity, infinity, -1e30f, 1e30f};
  float s[6];
  fastltc::cpu::synapse_sigmoid(t, s, 6, true);
  for (int k = 0; k < 6; ++k) {
    const double value = k < 2 ? 0.5 : t[k] < 0 ? 1.0 : 0.0;
    CHECK(std::abs(s[k] - value) <= fastltc::cpu::kMediumSigmoidError * (value + 1e-30));
  }
}

TEST(special_values) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float t[] = {0.0f, -0.0f, -infinity, infinity, -1e30f, 1e30f};
  float s[6];
  fastltc::cpu::sigmoid_exp2(t, s, 6);
  CHECK_NEAR(s[0], 0.5, 1e-7);
  CHECK_NEAR(s[1], 0.5, 1e-7);
  CHECK(s[2] == 1.0f);
  CHECK(s[3] >= 0.0f && s[3] <= 1.2e-38f);
  CHECK(s[4] == 1.0f);
  CHECK(s[5] >= 0.0f && s[5] <= 1.2e-38f);
}

TEST(double_precision) {
  std::mt19937_64 random(fastltc::test::seed());
  std::uniform_real_distribution<double> uniform(-1100.0, 1000.0);
  std::uniform_real_distribution<double> near_zero(-40.0, 40.0);
  std::vector<double> t(200000), s(t.size());
  for (size_t k = 0; k < t.size(); ++k) t[k] = k % 2 == 0 ? uniform(random) : near_zero(random);
  fastltc::cpu::sigmoid_exp2(t.data(), s.data(), static_cast<int64_t>(t.size()));
  double worst = 0;
  for (size_t k = 0; k < t.size(); ++k) {
    const double value = 1.0 / (1.0 + std::exp2(t[k]));
    const double error = std::abs(s[k] - value) / value;
    if (!(error <= worst)) worst = std::isnan(error) ? 1.0 : error;
  }
  std::printf("largest relative error in double %.3g\n", worst);
  CHECK(worst < 1e-15);
}

TEST(the_limit_counts_what_it_did) {
  CHECK(fastltc::cpu::sigmoid_limit(10) >= 10 * 64);
  CHECK(fastltc::cpu::sigmoid_limit(10) % (10 * 64) == 0);
}
