// The functions of sigmoid.h, compiled once for each instruction set.
#include "cpu/cells/ltc.h"
#include "cpu/frame/dispatch.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

template <typename T>
void sigmoid_exp2(const T* t, T* out, int64_t n) {
  map_values(out, n, [](auto x) { return Simd<T>::sigmoid_exp2(x); }, t);
}

void synapse_sigmoid(const float* t, float* out, int64_t n, bool /*medium*/) {
  map_values(out, n, [](auto x) { return Simd<float>::synapse_sigmoid(x); }, t);
}

int64_t sigmoid_limit(int64_t repeats) {
  using S = Simd<float>;
  constexpr int synapse_count = 64, neurons = 16;
  alignas(64) float v[neurons * kMaxWidth * S::lanes];
  int32_t offset[synapse_count];
  Synapse<float> parameters[synapse_count];
  for (int k = 0; k < neurons * kMaxWidth * S::lanes; ++k)
    v[k] = 0.01f * static_cast<float>(k % 97);
  for (int k = 0; k < synapse_count; ++k) {
    offset[k] = (k % neurons) * S::lanes;
    const float x = 0.05f * static_cast<float>(k % 31);
    parameters[k] = {-7.0f - x, 4.0f + x, k % 3 == 0 ? -0.3f : 0.4f, 0.5f};
  }
  Synapses<float> list;
  list.count = synapse_count;
  list.offset = offset;
  list.parameters = parameters;
  typename S::vec num[kMaxWidth] = {}, den[kMaxWidth] = {};
  for (int64_t repeat = 0; repeat < repeats; ++repeat) {
    add_synapses<false>(list, 0, synapse_count, Rows<const float>{v, neurons * S::lanes}, num, den);
    // Keeps the compiler from seeing through the repetition; costs no instruction.
    asm volatile("" : : "r"(v) : "memory");
  }
  volatile float sink = 0;
  for (int r = 0; r < kMaxWidth; ++r) sink = sink + S::sum(num[r]) + S::sum(den[r]);
  return repeats * synapse_count * kMaxWidth * S::lanes;
}

FASTLTC_INSTANTIATE(sigmoid_exp2)

}  // namespace fastltc::cpu::FASTLTC_ISA
