// Vectors of one register and the functions of the kernels on them, for the instruction set that
// this translation unit is compiled for.
//
// The width is the register's, because GCC splits wider generic vectors badly. Everything is in the
// namespace of the instruction set, and nothing from the standard library's templates is used: an
// inline function shared by two sets could be merged by the linker into the one that the processor
// lacks. Arithmetic is the compiler's own vector extension, contracted to fused multiply-add where
// there is one; intrinsics stand only where it has no equivalent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(FASTLTC_NEON)
#include <arm_neon.h>
#endif

#ifndef FASTLTC_ISA
#error "FASTLTC_ISA names the instruction set's namespace; see cmake/cpu.cmake"
#endif

#define FASTLTC_INLINE inline __attribute__((always_inline))
// The same of a lambda, behind its parameters.
#define FASTLTC_INLINED __attribute__((always_inline))
// A loop that needs all registers: inlined, it would share them with what is around it.
#define FASTLTC_APART __attribute__((noinline))

namespace fastltc::cpu::FASTLTC_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
// How many registers of samples a synapse is evaluated for at once, at most: they share the loads
// of its parameters and the traffic of its gradient sums, and must leave registers for those.
inline constexpr int kMaxWidth = 4;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kMaxWidth = 2;
#elif defined(FASTLTC_NEON)
inline constexpr int kVectorBytes = 16;
inline constexpr int kMaxWidth = 4;  // 32 registers
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kMaxWidth = 2;
#endif

template <typename T>
inline constexpr T kLog2E = T(1.4426950408889634073599);

// Polynomials for 2^f, f in [-1/2, 1/2], of least relative error (found with Remez exchange):
// 7.5e-8 in float, 3.1e-18 in double. And what the powers' bits are made of.
template <typename T>
struct Exp2Constants;
template <>
struct Exp2Constants<float> {
  using Integer = int32_t;
  using Unsigned = uint32_t;
  static constexpr float coefficient[] = {1.0000000716546848e+0f, 6.9314696706476011e-1f,
                                          2.4022119723840391e-1f, 5.5507132734988059e-2f,
                                          9.6755413344448374e-3f, 1.3276471992255869e-3f};
  // The same for f in [0, 1].
  static constexpr float from_0[] = {9.9999992506352707e-1f, 6.9315307320016620e-1f,
                                     2.4015361704437824e-1f, 5.5826318053295670e-2f,
                                     8.9893400904946660e-3f, 1.8775766751914797e-3f};
  // Past these the power is so small or so large that the sigmoid is 1 to rounding or below 2^-125.
  static constexpr float bound = 126.0f;
  // Polynomials of degree 3 for f in [-1/2, 1/2] and in [0, 1], of 7.5e-5.
  static constexpr float medium[] = {0.9999280735394012f, 0.6932609854606548f, 0.24261112219321546f,
                                     0.05517166905792729f};
  static constexpr float medium_from_0[] = {0.9999252185627154f, 0.6958335404947534f,
                                            0.22606715542748246f, 0.07802452264047957f};
  // 1.5 * 2^23 + 128: adding it rounds to an integer n, ties to even, and leaves n + 128 in the low
  // bits, which is what the exponent's bits of 2^(n + 1) are.
  static constexpr float round_magic = 12583040.0f;
  static constexpr int mantissa_bits = 23;
};
template <>
struct Exp2Constants<double> {
  using Integer = int64_t;
  using Unsigned = uint64_t;
  static constexpr double coefficient[] = {
      0.9999999999999999971,     0.69314718055994533046,    0.24022650695910156205,
      0.055504108664819921475,   0.0096181291075883350392,  0.0013333558146789952573,
      0.00015403530462514668492, 1.5252733489957518546e-05, 1.3215433089567187614e-06,
      1.0178198034320938919e-07, 7.0741056308633289771e-09, 4.435280790456428021e-10};
  static constexpr double bound = 1022.0;
  static constexpr double round_magic = 6755399441056768.0;  // 1.5 * 2^52 + 1024
  static constexpr int mantissa_bits = 52;
};

template <typename T>
struct Simd {
  using C = Exp2Constants<T>;
  using I = typename C::Integer;
  static constexpr int lanes = kVectorBytes / static_cast<int>(sizeof(T));

  typedef T vec __attribute__((vector_size(kVectorBytes), may_alias));
  typedef I ivec __attribute__((vector_size(kVectorBytes), may_alias));
  // Bits that may overflow, as those of a NaN do.
  using U = typename C::Unsigned;
  typedef U bits_vec __attribute__((vector_size(kVectorBytes), may_alias));
  typedef T unaligned_vec __attribute__((vector_size(kVectorBytes), may_alias, aligned(sizeof(T))));

  static FASTLTC_INLINE vec load(const T* p) { return *reinterpret_cast<const unaligned_vec*>(p); }
  static FASTLTC_INLINE void store(T* p, vec v) { *reinterpret_cast<unaligned_vec*>(p) = v; }
  // Of a number, or of what are lanes already.
  template <typename Value>
  static FASTLTC_INLINE vec set(Value x) {
    return vec{} + x;
  }

  // The first n of a register, 1 to `lanes`; zeros behind them.
  static FASTLTC_INLINE vec load_first(const T* p, int n) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return (vec)_mm512_maskz_loadu_ps(first_lanes(n), p);
    if constexpr (sizeof(T) == 8) return (vec)_mm512_maskz_loadu_pd(first_lanes(n), p);
#else
    alignas(kVectorBytes) T buffer[lanes] = {};
    for (int l = 0; l < n; ++l) buffer[l] = p[l];
    return load(buffer);
#endif
  }
  // The same with the last of them in all lanes behind.
  static FASTLTC_INLINE vec load_repeated(const T* p, int n) {
#if defined(__AVX512F__)
    ivec lane;
    for (int l = 0; l < lanes; ++l) lane[l] = l;
    lane = lane < n ? lane : ivec{} + (n - 1);
    const vec first = load_first(p, n);
    if constexpr (sizeof(T) == 4) {
      return (vec)_mm512_permutexvar_ps((__m512i)lane, (__m512)first);
    } else {
      return (vec)_mm512_permutexvar_pd((__m512i)lane, (__m512d)first);
    }
#else
    alignas(kVectorBytes) T buffer[lanes];
    for (int l = 0; l < lanes; ++l) buffer[l] = p[l < n ? l : n - 1];
    return load(buffer);
#endif
  }
  static FASTLTC_INLINE void store_first(T* p, vec v, int n) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(p, first_lanes(n), (__m512)v);
    if constexpr (sizeof(T) == 8) _mm512_mask_storeu_pd(p, first_lanes(n), (__m512d)v);
#else
    for (int l = 0; l < n; ++l) p[l] = v[l];
#endif
  }
#if defined(__AVX512F__)
  static FASTLTC_INLINE unsigned first_lanes(int n) { return (1u << n) - 1; }
#endif

  // In the order of the lanes, so that the sum does not depend on the compiler.
  static FASTLTC_INLINE T sum(vec v) {
    T total = v[0];
    for (int l = 1; l < lanes; ++l) total += v[l];
    return total;
  }

#if defined(__AVX512F__)
  // 2^t. The scaling instruction rounds the exponent down by itself; so does the reduction in front
  // of it, which spares a rounding.
  static FASTLTC_INLINE vec exp2_by_scaling(vec t) {
    if constexpr (sizeof(T) == 4) {
      const vec f = (vec)_mm512_reduce_ps((__m512)t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
      return (vec)_mm512_scalef_ps((__m512)polynomial(C::from_0, f), (__m512)t);
    } else {
      const vec n =
          (vec)_mm512_roundscale_pd((__m512d)t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      return (vec)_mm512_scalef_pd((__m512d)polynomial(C::coefficient, t - n), (__m512d)n);
    }
  }
#endif

  // Times a power of two, which costs nothing and changes no bit but the exponent's.
  template <int count>
  static FASTLTC_INLINE vec polynomial(const T (&coefficient)[count], vec f, T factor = T(1)) {
#if defined(FASTLTC_NEON)
    // By pairs: one operation more, and a chain of four in place of five, whose links take three to
    // seven cycles where at most two start in one.
    if constexpr (sizeof(T) == 4 && count == 6) {
      const auto pair = [&](int k) FASTLTC_INLINED {
        return f * (coefficient[k + 1] * factor) + coefficient[k] * factor;
      };
      const vec square = f * f;
      const vec upper = (square * (coefficient[5] * factor) + pair(3)) * square + pair(1);
      return upper * f + coefficient[0] * factor;
    }
#endif
    vec p = set(coefficient[count - 1] * factor);
#pragma GCC unroll 12
    for (int k = count - 2; k >= 0; --k) p = p * f + coefficient[k] * factor;
    return p;
  }

  // The lesser of t and a bound; NaN stays NaN. The instruction returns its second operand where
  // one is NaN; compilers make a comparison and a blend of the same in C++.
  static FASTLTC_INLINE vec at_most(vec t, T bound) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return (vec)_mm512_min_ps((__m512)set(bound), (__m512)t);
    if constexpr (sizeof(T) == 8) return (vec)_mm512_min_pd((__m512d)set(bound), (__m512d)t);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return (vec)_mm256_min_ps((__m256)set(bound), (__m256)t);
    if constexpr (sizeof(T) == 8) return (vec)_mm256_min_pd((__m256d)set(bound), (__m256d)t);
#elif defined(FASTLTC_NEON)
    if constexpr (sizeof(T) == 4) return (vec)vminq_f32((float32x4_t)t, (float32x4_t)set(bound));
    if constexpr (sizeof(T) == 8) return (vec)vminq_f64((float64x2_t)t, (float64x2_t)set(bound));
#else
    return bound < t ? set(bound) : t;
#endif
  }
  static FASTLTC_INLINE vec at_least(vec t, T bound) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return (vec)_mm256_max_ps((__m256)set(bound), (__m256)t);
    if constexpr (sizeof(T) == 8) return (vec)_mm256_max_pd((__m256d)set(bound), (__m256d)t);
#elif defined(FASTLTC_NEON)
    if constexpr (sizeof(T) == 4) return (vec)vmaxq_f32((float32x4_t)t, (float32x4_t)set(bound));
    if constexpr (sizeof(T) == 8) return (vec)vmaxq_f64((float64x2_t)t, (float64x2_t)set(bound));
#else
    return t < bound ? set(bound) : t;
#endif
  }

  // 1 + 2^t, finite for every t that is not NaN, which stays NaN. Without a scaling instruction the
  // product of its two parts and the sum are one fused multiply-add.
  static FASTLTC_INLINE vec one_plus_exp2(vec t) {
    t = at_most(t, C::bound);
#if defined(__AVX512F__)
    return exp2_by_scaling(t) + T(1);
#else
    t = at_least(t, -C::bound);
    const vec shifted = t + C::round_magic;
    return half_power(t, shifted) * twice_power(shifted) + T(1);
#endif
  }

  // 2^t for t in [-bound, bound].
  static FASTLTC_INLINE vec exp2(vec t) {
    const vec shifted = t + C::round_magic;
    return half_power(t, shifted) * twice_power(shifted);
  }

  // 2^t is 2^(t - n - 1) * 2^(n + 1) with n the integer nearest to t, and `shifted` n + round_magic.
  static FASTLTC_INLINE vec half_power(vec t, vec shifted) {
    return polynomial(C::coefficient, t - (shifted - C::round_magic), T(0.5));
  }
  static FASTLTC_INLINE vec twice_power(vec shifted) {
    return (vec)((bits_vec)shifted << C::mantissa_bits);
  }

  // 1 / d for finite d in [1, 2^127); correctly rounded but for the floats of AVX-512 and NEON.
  static FASTLTC_INLINE vec reciprocal(vec d) {
#if defined(__AVX512F__)
    // Division takes 16 cycles a register on Intel; an estimate and one Newton step take 4.
    if constexpr (sizeof(T) == 4) {
      const vec r = (vec)_mm512_rcp14_ps((__m512)d);
      const vec error = T(1) - d * r;
      return r + error * r;
    }
#elif defined(FASTLTC_NEON)
    // Division keeps its unit busy for up to 28 cycles a register. The estimate has 8 bits, and two
    // terms of the series of its error leave 24.
    if constexpr (sizeof(T) == 4) {
      const vec r = (vec)vrecpeq_f32((float32x4_t)d);
      const vec error = T(1) - d * r;
      return r + (error + error * error) * r;
    }
#endif
    return T(1) / d;
  }

  // 1 / (1 + 2^t): the logistic sigmoid of -t / log2(e). Maximum error over every float t below
  // 126: 4.5 ULP (kSigmoidMaxUlp in sigmoid.h, measured by tests/cpu/test_sigmoid.cpp). From
  // `bound` on it stays at 2^-bound instead of falling further; NaN gives NaN.
  static FASTLTC_INLINE vec sigmoid_exp2(vec t) { return reciprocal(one_plus_exp2(t)); }

  // The same of a synapse. In copies of the kernels with the precision "medium", of floats alone, its
  // relative error is up to kMediumSigmoidError (sigmoid.h): a shorter polynomial, and an estimate in
  // the place of the reciprocal.
  static FASTLTC_INLINE vec synapse_sigmoid(vec t) {
#if !defined(FASTLTC_MEDIUM)
    return sigmoid_exp2(t);
#elif defined(__AVX512F__)
    // Of infinity the estimate is 0, so that nothing has to be bounded.
    const vec f = (vec)_mm512_reduce_ps((__m512)t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    const vec power = (vec)_mm512_scalef_ps((__m512)polynomial(C::medium_from_0, f), (__m512)t);
    return (vec)_mm512_rcp14_ps((__m512)(power + T(1)));
#else
    t = at_least(at_most(t, C::bound), -C::bound);
    const vec shifted = t + C::round_magic;
    const vec half = polynomial(C::medium, t - (shifted - C::round_magic), T(0.5));
    const vec d = half * twice_power(shifted) + T(1);
#if defined(__AVX2__)
    return (vec)_mm256_rcp_ps((__m256)d);
#else
    // An estimate of 8 bits, and one step of Newton's.
    const vec r = (vec)vrecpeq_f32((float32x4_t)d);
    return r + (T(1) - d * r) * r;
#endif
#endif
  }

  // log(1 + z) for z in [0, 1], by 2 atanh(z / (2 + z)); y^2 <= 1/9, so the series is short.
  static FASTLTC_INLINE vec log1p(vec z) {
    constexpr int terms = sizeof(T) == 4 ? 9 : 18;
    const vec y = z / (z + T(2));
    const vec y2 = y * y;
    vec s = set(T(1) / T(2 * terms + 1));
    for (int k = terms - 1; k >= 0; --k) s = s * y2 + T(1) / T(2 * k + 1);
    return y * s * T(2);
  }

  static FASTLTC_INLINE vec abs_negative(vec x) { return x < T(0) ? x : -x; }

  // log(1 + e^x), and x itself past 20: torch.nn.functional.softplus with its defaults.
  static FASTLTC_INLINE vec softplus(vec x) {
    vec t = abs_negative(x) * kLog2E<T>;
    t = at_least(t, -C::bound);
    const vec soft = (x < T(0) ? vec{} : x) + log1p(exp2(t));
    return x > T(20) ? x : soft;
  }

  // The derivative of softplus.
  static FASTLTC_INLINE vec softplus_slope(vec x) {
    return x > T(20) ? set(T(1)) : sigmoid_exp2(x * -kLog2E<T>);
  }

  // Four sums at once: adds up the registers' 16-byte blocks and gives one block for each of a, b,
  // c and d, laid out one after another at `sums`, to which they are added. The lanes inside a
  // block stay apart until the very end. A quarter of the memory traffic of four plain
  // accumulators. Each pair is halved by a blend and a shuffle: blends run beside the
  // multiply-adds, most shuffles do not.
  static constexpr int block = 16 / static_cast<int>(sizeof(T));
  static constexpr int sums_per_synapse = 4 * block;

  static FASTLTC_INLINE void add_four(T* sums, vec a, vec b, vec c, vec d) {
#if defined(__AVX512F__)
    const vec ac = add_halves(a, c);  // blocks [a a' c c']
    const vec bd = add_halves(b, d);
    const __m512i crossed =
        _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
    const vec kept = (vec)_mm512_mask_blend_ps(0xF0F0, (__m512)ac, (__m512)bd);      // [a b' c d']
    const vec moved = (vec)_mm512_permutex2var_ps((__m512)ac, crossed, (__m512)bd);  // [a' b c' d]
    store(sums, load(sums) + (kept + moved));
#elif defined(__AVX2__)
    store(sums, load(sums) + add_halves(a, b));
    store(sums + lanes, load(sums + lanes) + add_halves(c, d));
#else
    store(sums, load(sums) + a);
    store(sums + lanes, load(sums + lanes) + b);
    store(sums + 2 * lanes, load(sums + 2 * lanes) + c);
    store(sums + 3 * lanes, load(sums + 3 * lanes) + d);
#endif
  }

  // The upper and lower half of a added up, then those of b.
#if defined(__AVX512F__)
  static FASTLTC_INLINE vec add_halves(vec a, vec b) {
    return (vec)_mm512_mask_blend_ps(0xFF00, (__m512)a, (__m512)b) +
           (vec)_mm512_shuffle_f32x4((__m512)a, (__m512)b, 0x4E);
  }
#elif defined(__AVX2__)
  static FASTLTC_INLINE vec add_halves(vec a, vec b) {
    return (vec)_mm256_blend_ps((__m256)a, (__m256)b, 0xF0) +
           (vec)_mm256_permute2f128_ps((__m256)a, (__m256)b, 0x21);
  }
#endif

  // A register of floats as blocks of four lanes, so that few samples fill it with a synapse in each
  // block: the first `count` blocks, and zeros behind them. One block: nothing to gain.
  static constexpr int few = 4;
  static constexpr int blocks = sizeof(T) == 4 ? lanes / few : 1;

#if defined(__AVX2__)
  static FASTLTC_INLINE void add(T* to, vec v) { store(to, load(to) + v); }
  static FASTLTC_INLINE void add_block(T* to, __m128 v) {
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), v));
  }
#endif
#if defined(__AVX512F__)
  static FASTLTC_INLINE vec multiply_add(vec a, vec b, vec c) {
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  }
  static FASTLTC_INLINE vec load_first_blocks(const T* p, int64_t count) {
    return load_first(p, static_cast<int>(count * few));
  }
  // Block i from base + offset[i].
  static FASTLTC_INLINE vec load_blocks(const T* base, const int32_t* offset, int64_t count) {
    __m512 v = _mm512_zextps128_ps512(_mm_loadu_ps(base + offset[0]));
    if (count > 1) v = _mm512_insertf32x4(v, _mm_loadu_ps(base + offset[1]), 1);
    if (count > 2) v = _mm512_insertf32x4(v, _mm_loadu_ps(base + offset[2]), 2);
    if (count > 3) v = _mm512_insertf32x4(v, _mm_loadu_ps(base + offset[3]), 3);
    return (vec)v;
  }
  // Adds block i to what stands at base + offset[i]; two may be the same place.
  static FASTLTC_INLINE void add_to_blocks(T* base, const int32_t* offset, int64_t count, vec v) {
    add_block(base + offset[0], _mm512_castps512_ps128((__m512)v));
    if (count > 1) add_block(base + offset[1], _mm512_extractf32x4_ps((__m512)v, 1));
    if (count > 2) add_block(base + offset[2], _mm512_extractf32x4_ps((__m512)v, 2));
    if (count > 3) add_block(base + offset[3], _mm512_extractf32x4_ps((__m512)v, 3));
  }
  // Lane i of each block in all of the block.
  template <int i>
  static FASTLTC_INLINE vec spread(vec v) {
    return (vec)_mm512_permute_ps((__m512)v, i * 0x55);
  }
  // The first block, and the sum of all, in each block.
  static FASTLTC_INLINE vec first_block(vec v) {
    return (vec)_mm512_broadcast_f32x4(_mm512_castps512_ps128((__m512)v));
  }
  static FASTLTC_INLINE vec sum_blocks(vec v) {
    v += quarters<0x4E>(v, v);
    return v + quarters<0xB1>(v, v);
  }
  // As add_four, of a synapse in each block: their sums stand one after another.
  static FASTLTC_INLINE void add_four_of_blocks(T* sums, int64_t count, vec a, vec b, vec c,
                                                vec d) {
    const vec ab01 = quarters<0x44>(a, b), ab23 = quarters<0xEE>(a, b);
    const vec cd01 = quarters<0x44>(c, d), cd23 = quarters<0xEE>(c, d);
    add(sums, quarters<0x88>(ab01, cd01));
    if (count > 1) add(sums + lanes, quarters<0xDD>(ab01, cd01));
    if (count > 2) add(sums + 2 * lanes, quarters<0x88>(ab23, cd23));
    if (count > 3) add(sums + 3 * lanes, quarters<0xDD>(ab23, cd23));
  }
  template <int which>
  static FASTLTC_INLINE vec quarters(vec a, vec b) {
    return (vec)_mm512_shuffle_f32x4((__m512)a, (__m512)b, which);
  }
#elif defined(__AVX2__)
  static FASTLTC_INLINE vec multiply_add(vec a, vec b, vec c) {
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  }
  static FASTLTC_INLINE vec load_first_blocks(const T* p, int64_t count) {
    return count > 1 ? load(p) : (vec)_mm256_zextps128_ps256(_mm_loadu_ps(p));
  }
  static FASTLTC_INLINE vec load_blocks(const T* base, const int32_t* offset, int64_t count) {
    __m256 v = _mm256_zextps128_ps256(_mm_loadu_ps(base + offset[0]));
    if (count > 1) v = _mm256_insertf128_ps(v, _mm_loadu_ps(base + offset[1]), 1);
    return (vec)v;
  }
  static FASTLTC_INLINE void add_to_blocks(T* base, const int32_t* offset, int64_t count, vec v) {
    add_block(base + offset[0], _mm256_castps256_ps128((__m256)v));
    if (count > 1) add_block(base + offset[1], _mm256_extractf128_ps((__m256)v, 1));
  }
  template <int i>
  static FASTLTC_INLINE vec spread(vec v) {
    return (vec)_mm256_permute_ps((__m256)v, i * 0x55);
  }
  static FASTLTC_INLINE vec first_block(vec v) { return halves<0x00>(v, v); }
  static FASTLTC_INLINE vec sum_blocks(vec v) { return v + halves<0x01>(v, v); }
  static FASTLTC_INLINE void add_four_of_blocks(T* sums, int64_t count, vec a, vec b, vec c,
                                                vec d) {
    add(sums, halves<0x20>(a, b));
    add(sums + lanes, halves<0x20>(c, d));
    if (count == 1) return;
    add(sums + 2 * lanes, halves<0x31>(a, b));
    add(sums + 3 * lanes, halves<0x31>(c, d));
  }
  template <int which>
  static FASTLTC_INLINE vec halves(vec a, vec b) {
    return (vec)_mm256_permute2f128_ps((__m256)a, (__m256)b, which);
  }
#endif
};

// to[k] = function(values[k]...), in registers; of n values, and nothing past them.
template <typename T, typename Function, typename... Values>
FASTLTC_INLINE void map_values(T* to, int64_t n, Function function, const Values*... values) {
  using S = Simd<T>;
  int64_t k = 0;
  for (; k + S::lanes <= n; k += S::lanes) S::store(to + k, function(S::load(values + k)...));
  if (k == n) return;
  const int rest = static_cast<int>(n - k);
  S::store_first(to + k, function(S::load_first(values + k, rest)...), rest);
}

}  // namespace fastltc::cpu::FASTLTC_ISA
