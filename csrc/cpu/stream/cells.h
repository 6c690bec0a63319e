// The elementwise ends of a network's stages, in registers; both layouts of streams share them.
#pragma once

#include "core/network.h"
#include "cpu/cells/activations.h"
#include "cpu/cells/gates.h"
#include "cpu/frame/pool.h"
#include "cpu/frame/simd.h"
#include "cpu/stream/lowering.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Time steps of an LTC are kept within these. Past them its potentials are at their limits (v, or
// the ratio of the sums) to rounding, and products with dt would leave the range of a float.
inline constexpr float kLeastStep = 0x1p-96f;
inline constexpr float kMostStep = 0x1p80f;

// h' of a CfC cell that is not pure.
FASTLTC_INLINE Simd<float>::vec gated_state(CfcMode mode,
                                            const Simd<float>::vec (&gate)[kMostGates],
                                            Simd<float>::vec dt) {
  const auto t1 = tanh<float>(gate[0]), t2 = tanh<float>(gate[1]);
  // A long time step may make its argument infinite, of which the sigmoid is 0 or 1.
  const auto r = sigmoid<float>(gate[2] * dt + gate[3]);
  return interpolated<float>(mode, t1, t2, r);
}

// What a pure cell has besides its product, [padded].
struct PureParameters {
  float* abs_w_tau = nullptr;
  float* A = nullptr;

  void take(Pool& pool, const StreamStage& stage, int64_t padded) {
    if (stage.w_tau == nullptr) return;
    abs_w_tau = pool.take<float>(padded);
    A = pool.take<float>(padded);
    for (int64_t j = 0; j < stage.size; ++j) {
      abs_w_tau[j] = stage.w_tau[j] < 0.0f ? -stage.w_tau[j] : stage.w_tau[j];
      A[j] = stage.A[j];
    }
  }
};

// h' of a pure one: A - A exp(-dt (|w_tau| + |f|)) f.
FASTLTC_INLINE Simd<float>::vec pure_state(Simd<float>::vec f, Simd<float>::vec abs_w_tau,
                                           Simd<float>::vec A, Simd<float>::vec dt) {
  return A - pure_decay<float>(f, abs_w_tau, dt) * f * A;
}

// The LSTM cell of mixed memory. Returns h', updates c.
FASTLTC_INLINE Simd<float>::vec memory_state(const Simd<float>::vec (&gate)[kMostGates],
                                             Simd<float>::vec& c) {
  const MemoryGates<float> gates(gate[0], gate[1], gate[2], gate[3]);
  c = gates.next(c);
  return gates.output(c);
}

// Not for softmax.
inline Simd<float>::vec apply(Function function, Simd<float>::vec x) {
  if (function == Function::sigmoid) return sigmoid<float>(x);
  if (function == Function::softplus) return Simd<float>::softplus(x);
  return activate<float>(static_cast<Activation>(function), x).value;
}

}  // namespace fastltc::cpu::FASTLTC_ISA
