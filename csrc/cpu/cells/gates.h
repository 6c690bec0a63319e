// The arithmetic of gates, in registers: of CfC's heads and of the memory cell, the same in
// sequences and in streams.
#pragma once

#include "core/cfc_problem.h"
#include "cpu/cells/activations.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// h' of a CfC cell that is not pure, of tanh(ff1), tanh(ff2) and the interpolation.
template <typename T>
FASTLTC_INLINE typename Simd<T>::vec interpolated(CfcMode mode, typename Simd<T>::vec t1,
                                                  typename Simd<T>::vec t2,
                                                  typename Simd<T>::vec gate) {
  return mode == CfcMode::gated ? t1 * (T(1) - gate) + gate * t2 : t1 + gate * t2;
}

// e^(-dt (|w_tau| + |f|)), of a pure cell. `abs_w_tau`: a number or a register.
template <typename T, typename Value>
FASTLTC_INLINE typename Simd<T>::vec pure_decay(typename Simd<T>::vec f, Value abs_w_tau,
                                                typename Simd<T>::vec dt) {
  using S = Simd<T>;
  const auto rate = abs_w_tau - S::abs_negative(f);
  return S::exp2(S::at_least(dt * rate * -kLog2E<T>, -Exp2Constants<T>::bound));
}

// The gates of a memory cell as activated. The forget gate's constant 1 is in the bias.
template <typename T>
struct MemoryGates {
  using vec = typename Simd<T>::vec;
  vec a, i, f, o;

  FASTLTC_INLINE MemoryGates(vec za, vec zi, vec zf, vec zo)
      : a(tanh<T>(za)), i(sigmoid<T>(zi)), f(sigmoid<T>(zf)), o(sigmoid<T>(zo)) {}
  FASTLTC_INLINE vec next(vec c) const { return c * f + a * i; }
  FASTLTC_INLINE vec output(vec c) const { return tanh<T>(c) * o; }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
