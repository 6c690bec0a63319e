// The kernels' sigmoid by itself, for its accuracy test and for the limit that benchmarks compare
// with.
#pragma once

#include <cstdint>

namespace fastltc::cpu {

// Largest error of sigmoid_exp2 over every float t below 126, in units in the last place of the
// exact value; measured by tests/cpu/test_sigmoid.cpp for each instruction set.
inline constexpr double kSigmoidMaxUlp = 4.5;

// out[k] = 1 / (1 + 2^t[k]); n values each, which may be the same memory. From t = 126 on, the
// result stays at 2^-126 instead of falling further. NaN gives NaN.
template <typename T>
void sigmoid_exp2(const T* t, T* out, int64_t n);

// Largest relative error of a medium synapse_sigmoid over every float t below 125; measured as above.
inline constexpr double kMediumSigmoidError = 4.5e-4;

// The same by the kernels of LTC, medium by those whose sigmoids have less precision
// (LtcInputs::medium_sigmoid): from t = 125 on, the result is then 0 to 2^-125 and its error. An
// instruction set without such kernels has its usual one.
void synapse_sigmoid(const float* t, float* out, int64_t n, bool medium);

// Does what a kernel does for each synapse (a multiply-add, the sigmoid, two accumulations) on data
// that stays in registers and the first cache, `repeats` times over 64 synapses. Returns how many
// sigmoids that were. Their rate is what no kernel can exceed on this machine.
int64_t sigmoid_limit(int64_t repeats);

}  // namespace fastltc::cpu
