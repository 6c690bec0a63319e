// Chooses the instruction set.
#include "cpu/sigmoid.h"

#include "cpu/frame/dispatch.h"

namespace fastltc::cpu {

// Defined by sigmoid_kernels.cpp, once for each instruction set.
#define FASTLTC_DECLARE(isa)                \
  namespace isa {                           \
  template <typename T>                     \
  void sigmoid_exp2(const T*, T*, int64_t); \
  int64_t sigmoid_limit(int64_t);           \
  }
FASTLTC_FOR_EACH_ISA(FASTLTC_DECLARE)
#undef FASTLTC_DECLARE

void sigmoid_exp2(const float* t, float* out, int64_t n) {
  FASTLTC_DISPATCH(sigmoid_exp2<float>(t, out, n));
}

void sigmoid_exp2(const double* t, double* out, int64_t n) {
  FASTLTC_DISPATCH(sigmoid_exp2<double>(t, out, n));
}

int64_t sigmoid_limit(int64_t repeats) { FASTLTC_DISPATCH(sigmoid_limit(repeats)); }

}  // namespace fastltc::cpu
