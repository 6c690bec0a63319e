// The loop that sums up synapses, for llvm-mca:
//
//     aarch64-linux-gnu-g++ -std=c++20 -O3 -fno-math-errno -fno-trapping-math -ffp-contract=fast \
//       -Icsrc -S -DFASTLTC_ISA=neon -DFASTLTC_NEON tools/arm/sigmoid_loop.cpp -o loop.s
//     llvm-mca -mtriple=aarch64 -mcpu=neoverse-n1 -iterations=200 loop.s
//
// With -DFASTLTC_ISA=baseline alone it is the portable one. Cycles are of kMaxWidth registers.
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

using S = Simd<float>;

void add_synapses(const float* __restrict parameters, const float* __restrict v,
                  S::vec* __restrict sums, long count) {
  S::vec num[kMaxWidth] = {}, den[kMaxWidth] = {};
  for (long k = 0; k < count; ++k) {
    __asm volatile("# LLVM-MCA-BEGIN");
    for (int r = 0; r < kMaxWidth; ++r) {
      const S::vec s = S::sigmoid_exp2(S::load(v + r * S::lanes) * parameters[0] + parameters[1]);
      num[r] += s * parameters[2];
      den[r] += s * parameters[3];
    }
    parameters += 4;
    v += kMaxWidth * S::lanes;
    __asm volatile("# LLVM-MCA-END");
  }
  for (int r = 0; r < kMaxWidth; ++r) {
    sums[2 * r] = num[r];
    sums[2 * r + 1] = den[r];
  }
}

}  // namespace fastltc::cpu::FASTLTC_ISA
