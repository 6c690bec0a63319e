// The LSTM cell of mixed memory as its equations stand, for one sample.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace fastltc::test {

// Turns h into what the liquid cell goes on from, and c into the new memory. Each has N values.
inline void plain_memory_cell(const double* x, int64_t I, const double* weight, const double* bias,
                              const double* recurrent_weight, std::vector<double>& h,
                              std::vector<double>& c) {
  const int64_t N = static_cast<int64_t>(h.size());
  std::vector<double> z(bias, bias + 4 * N);
  for (int64_t row = 0; row < 4 * N; ++row) {
    for (int64_t i = 0; i < I; ++i) z[row] += weight[row * I + i] * x[i];
    for (int64_t k = 0; k < N; ++k) z[row] += recurrent_weight[row * N + k] * h[k];
  }
  const auto sigmoid = [](double value) { return 1.0 / (1.0 + std::exp(-value)); };
  for (int64_t j = 0; j < N; ++j) {
    c[j] = c[j] * sigmoid(z[2 * N + j] + 1.0) + std::tanh(z[j]) * sigmoid(z[N + j]);
    h[j] = std::tanh(c[j]) * sigmoid(z[3 * N + j]);
  }
}

}  // namespace fastltc::test
