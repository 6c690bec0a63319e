// That the limit's kernel evaluates what it says, as often as it says.
#include "cuda/special_function_limit.h"

#include <cmath>
#include <limits>
#include <vector>

#include "emulator/schedules.h"
#include "support/check.h"

TEST(sums_are_those_of_the_sigmoids) {
  fastltc::emulator::set_schedule({});
  for (const int64_t threads : {1, 31, 300}) {
    for (const int64_t repeats : {0, 1, 7}) {
      std::vector<float> sums(threads, std::numeric_limits<float>::quiet_NaN());
      fastltc::cuda::launch_special_function_limit(sums.data(), threads, repeats, nullptr);
      for (int64_t thread = 0; thread < threads; ++thread) {
        double sum = 0;
        for (int k = 0; k < fastltc::cuda::kLimitSynapses; ++k) {
          const double x = 0.05 * static_cast<double>((thread + k) % 31);
          double v = 0.01 * static_cast<double>((thread + 8 * k) % 97);
          for (int64_t repeat = 0; repeat < repeats; ++repeat) {
            v = 1 / (1 + std::exp2((-3 - x) * v + 1 + x));
            sum += v * ((k % 3 == 0 ? -0.3 - x : 0.4 + x) + 0.5 + x);
          }
        }
        CHECK_NEAR(sums[thread], sum, 1e-3);
      }
    }
  }
  fastltc::cuda::launch_special_function_limit(nullptr, 0, 5, nullptr);
}
