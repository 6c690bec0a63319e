// What mixed memory computes for all rows at once, in both layouts, against plain loops. The
// recurrence is tested with the layers that have it.
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "cuda/memory_pass.h"
#include "emulator/schedules.h"
#include "support/check.h"

namespace {

using fastltc::SequenceView;
using fastltc::cuda::MemoryPass;
using fastltc::cuda::Scratch;
using fastltc::cuda::SequenceRows;

using Values = std::vector<double>;

struct Case {
  int64_t B, T, I, N;
  int threads;  // 0: lanes are samples
  bool lengths = false;
  bool time_major = false;
};

Values random_values(int64_t count, std::mt19937_64& random) {
  std::uniform_real_distribution<double> uniform(-1, 1);
  Values values(count);
  for (double& value : values) value = uniform(random);
  return values;
}

template <typename V>
SequenceView<V> sequence(const Case& c, V* data, int64_t channels) {
  if (c.time_major) return {data, channels, c.B * channels, 1};
  return {data, c.T * channels, channels, 1};
}

void near(const char* what, const Values& got, const Values& expected) {
  CHECK(got.size() == expected.size());
  for (size_t k = 0; k < expected.size(); ++k) {
    // Written so that a NaN fails.
    if (std::abs(got[k] - expected[k]) <= 1e-11 * static_cast<double>(expected.size() + 100))
      continue;
    fastltc::test::report_failure(__FILE__, __LINE__, std::string(what) + " " + std::to_string(k));
    return;
  }
}

void check(const Case& c) {
  std::mt19937_64 random(fastltc::test::seed());
  const int64_t rows = c.B * c.T, M = 4 * c.N;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Values x = random_values(rows * c.I, random), h = random_values(rows * c.N, random);
  const Values w = random_values(M * c.I, random), b = random_values(M, random);
  const Values r = random_values(M * c.N, random), gz = random_values(rows * M, random);
  const Values base = random_values(rows * c.I, random);
  std::vector<int64_t> lengths;
  for (int64_t n = 0; n < c.B; ++n) {
    lengths.push_back(c.lengths ? std::uniform_int_distribution<int64_t>(0, c.T)(random) : c.T);
  }
  const SequenceView<double> xs = sequence(c, x.data(), c.I), hs = sequence(c, h.data(), c.N);
  for (int64_t n = 0; n < c.B; ++n) {
    for (int64_t t = lengths[n]; t < c.T; ++t) {
      for (int64_t k = 0; k < c.I; ++k) xs.data[n * xs.stride_b + t * xs.stride_t + k] = nan;
      for (int64_t k = 0; k < c.N; ++k) hs.data[n * hs.stride_b + t * hs.stride_t + k] = nan;
    }
  }
  fastltc::SequenceInputs<double> in;
  in.size = {c.B, c.T, c.I, c.N, 1, 1};
  in.x = {x.data(), xs.stride_b, xs.stride_t, 1};
  in.memory = {w.data(), b.data(), r.data()};
  SequenceRows<double> of;
  of.B = c.B;
  of.steps = c.T;
  of.count = rows;
  of.lengths = lengths.data();
  of.lengths_stride = 1;
  // Rows of gates in the order of the weights.
  const auto weight_row = [&](int64_t m) { return m % 4 * c.N + m / 4; };

  for (const auto& order : fastltc::emulator::every_schedule()) {
    fastltc::emulator::set_schedule(order);
    for (const bool backward : {false, true}) {
      MemoryPass<double> pass;
      Scratch count;
      pass.take(count, in, of, c.threads, backward);
      Values memory(count.used() / sizeof(double) + 32, nan);
      void* base_address = memory.data();
      size_t space = memory.size() * sizeof(double);
      Scratch scratch(std::align(256, count.used(), base_address, space));
      pass.take(scratch, in, of, c.threads, backward);
      pass.prepare({});
      if (!backward) {
        Values got, expected;
        for (int64_t n = 0; n < c.B; ++n) {
          for (int64_t t = 0; t < lengths[n]; ++t) {
            for (int64_t m = 0; m < M; ++m) {
              const int64_t row = weight_row(m);
              double z = b[row] + (m % 4 == 2 ? 1.0 : 0.0);
              for (int64_t k = 0; k < c.I; ++k) {
                z += w[row * c.I + k] * xs.data[n * xs.stride_b + t * xs.stride_t + k];
              }
              expected.push_back(z);
              got.push_back(pass.gates[(t * c.B + n) * M + m]);
            }
          }
        }
        near("input", got, expected);
        continue;
      }
      Values gw(M * c.I, nan), gb(M, nan), gr(M * c.N, nan), gx = base;
      Values wanted_w(M * c.I), wanted_b(M), wanted_r(M * c.N), wanted_x = base;
      const SequenceView<double> gxs = sequence(c, gx.data(), c.I);
      for (int64_t n = 0; n < c.B; ++n) {
        for (int64_t t = 0; t < lengths[n]; ++t) {
          for (int64_t m = 0; m < M; ++m) {
            const int64_t row = weight_row(m), at = n * xs.stride_b + t * xs.stride_t;
            const double g = gz[(n * c.T + t) * M + m];
            pass.gates[(t * c.B + n) * M + m] = g;
            wanted_b[row] += g;
            for (int64_t k = 0; k < c.I; ++k) {
              wanted_w[row * c.I + k] += g * x[at + k];
              wanted_x[at + k] += g * w[row * c.I + k];
            }
            for (int64_t k = 0; k < c.N; ++k) {
              wanted_r[row * c.N + k] += g * h[n * hs.stride_b + t * hs.stride_t + k];
            }
          }
        }
      }
      pass.gradients({h.data(), hs.stride_b, hs.stride_t, 1}, {gw.data(), gb.data(), gr.data()},
                     gxs);
      near("gradient of the weight", gw, wanted_w);
      near("gradient of the bias", gb, wanted_b);
      near("gradient of the recurrent weight", gr, wanted_r);
      near("gradient of x", gx, wanted_x);
    }
  }
}

}  // namespace

TEST(products_over_all_rows) {
  for (const int threads : {0, 32, 128}) {
    check({.B = 1, .T = 1, .I = 1, .N = 1, .threads = threads});
    check({.B = 3, .T = 2, .I = 5, .N = 19, .threads = threads, .lengths = true});
    check({.B = 7, .T = 5, .I = 33, .N = 32, .threads = threads, .time_major = true});
    check({.B = 2, .T = 0, .I = 3, .N = 4, .threads = threads});
  }
  check({.B = 130, .T = 4, .I = 2, .N = 3, .threads = 64, .lengths = true});
  check({.B = 3, .T = 3, .I = 70, .N = 40, .threads = 0, .lengths = true});
}
