// Activations of lanes, by the sigmoid of frame/simd.h.
#pragma once

#include "core/cfc_problem.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

template <typename T>
FASTLTC_INLINE typename Simd<T>::vec sigmoid(typename Simd<T>::vec x) {
  return Simd<T>::sigmoid_exp2(x * -kLog2E<T>);
}

template <typename T>
FASTLTC_INLINE typename Simd<T>::vec tanh(typename Simd<T>::vec x) {
  return Simd<T>::sigmoid_exp2(x * (T(-2) * kLog2E<T>)) * T(2) - T(1);
}

FASTLTC_INLINE float erf(float x) { return __builtin_erff(x); }
FASTLTC_INLINE double erf(double x) { return __builtin_erf(x); }

// The value of a backbone's activation and its slope.
template <typename T>
struct Activated {
  typename Simd<T>::vec value;
  typename Simd<T>::vec slope;
};

template <typename T>
Activated<T> activate(Activation activation, typename Simd<T>::vec x) {
  using S = Simd<T>;
  using vec = typename S::vec;
  switch (activation) {
    case Activation::silu: {
      const vec s = sigmoid<T>(x);
      return {x * s, s * (T(1) + x * (T(1) - s))};
    }
    case Activation::relu:
      return {x <= T(0) ? vec{} : x, x <= T(0) ? vec{} : S::set(T(1))};
    case Activation::tanh: {
      const vec y = tanh<T>(x);
      return {y, T(1) - y * y};
    }
    case Activation::gelu: {
      vec phi;
      for (int l = 0; l < S::lanes; ++l) {
        phi[l] = T(0.5) * (T(1) + erf(x[l] * T(0.70710678118654752440)));
      }
      // e^(-x^2 / 2) / sqrt(2 pi)
      const vec density =
          S::exp2(S::at_least(x * x * (T(-0.5) * kLog2E<T>), -Exp2Constants<T>::bound)) *
          T(0.39894228040143267794);
      return {x * phi, phi + x * density};
    }
    default: {
      const vec y = tanh<T>(x * T(0.666));
      return {y * T(1.7159), (T(1) - y * y) * T(1.7159 * 0.666)};
    }
  }
}

}  // namespace fastltc::cpu::FASTLTC_ISA
