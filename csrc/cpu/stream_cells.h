// The elementwise ends of a network's cells, in registers; both plans for streams share them.
#pragma once

#include "core/network.h"
#include "cpu/cells/activations.h"
#include "cpu/cells/memory.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// The products of a cell's heads: ff1, ff2, time_a, time_b (pure: ff1 alone).
inline constexpr int kCfcGates = 4;

// Time steps of an LTC are kept within these. Past them its potentials are at their limits (v, or
// the ratio of the sums) to rounding, and products with dt would leave the range of a float.
inline constexpr float kLeastStep = 0x1p-96f;
inline constexpr float kMostStep = 0x1p80f;

// h' of a CfC cell that is not pure.
FASTLTC_INLINE Simd<float>::vec gated_state(CfcMode mode, const Simd<float>::vec (&gate)[kCfcGates],
                                            Simd<float>::vec dt) {
  const auto t1 = tanh<float>(gate[0]), t2 = tanh<float>(gate[1]);
  // A long time step may make its argument infinite, of which the sigmoid is 0 or 1.
  const auto r = sigmoid<float>(gate[2] * dt + gate[3]);
  return mode == CfcMode::gated ? t1 * (1.0f - r) + r * t2 : t1 + r * t2;
}

// h' of a pure one: A - A exp(-dt (|w_tau| + |f|)) f.
FASTLTC_INLINE Simd<float>::vec pure_state(Simd<float>::vec f, Simd<float>::vec abs_w_tau,
                                           Simd<float>::vec A, Simd<float>::vec dt) {
  using S = Simd<float>;
  const auto rate = abs_w_tau - S::abs_negative(f);
  const auto decay = S::exp2(S::at_least(dt * rate * -kLog2E<float>, -Exp2Constants<float>::bound));
  return A - decay * f * A;
}

// The LSTM cell of mixed memory; its forget gate's constant 1 is in the bias. Returns h', updates
// c.
FASTLTC_INLINE Simd<float>::vec memory_state(const Simd<float>::vec (&gate)[kMemoryGates],
                                             Simd<float>::vec& c) {
  c = c * sigmoid<float>(gate[2]) + tanh<float>(gate[0]) * sigmoid<float>(gate[1]);
  return tanh<float>(c) * sigmoid<float>(gate[3]);
}

// Not for softmax.
inline Simd<float>::vec apply(Function function, Simd<float>::vec x) {
  if (function == Function::sigmoid) return sigmoid<float>(x);
  if (function == Function::softplus) return Simd<float>::softplus(x);
  return activate<float>(static_cast<Activation>(function), x).value;
}

}  // namespace fastltc::cpu::FASTLTC_ISA
