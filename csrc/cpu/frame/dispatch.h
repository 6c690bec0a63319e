// Calls the copy of a function that was compiled for the active instruction set.
//
// cmake/cpu.cmake defines FASTLTC_HAVE_AVX2 and FASTLTC_HAVE_AVX512 together, on x86-64.
#pragma once

#include "cpu/frame/isa.h"

#ifdef FASTLTC_HAVE_AVX2
#define FASTLTC_FOR_EACH_ISA(apply) apply(baseline) apply(avx2) apply(avx512)
#define FASTLTC_DISPATCH(call)            \
  switch (::fastltc::cpu::active_isa()) { \
    case ::fastltc::cpu::Isa::avx512:     \
      return avx512::call;                \
    case ::fastltc::cpu::Isa::avx2:       \
      return avx2::call;                  \
    default:                              \
      return baseline::call;              \
  }
#else
#define FASTLTC_FOR_EACH_ISA(apply) apply(baseline)
#define FASTLTC_DISPATCH(call)                                  \
  ::fastltc::cpu::active_isa(); /* an impossible wish throws */ \
  return baseline::call
#endif
