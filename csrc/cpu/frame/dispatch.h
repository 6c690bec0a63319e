// One line exports a kernel: it declares the copies compiled for each instruction set, and defines
// the function that calls the one for the set in use.
//
// Macros alone, so that kernels may include this too. cmake/cpu.cmake defines FASTLTC_HAVE_AVX2 and
// FASTLTC_HAVE_AVX512 together, on x86-64, and FASTLTC_HAVE_NEON on 64-bit Arm.
#pragma once

// Instantiates a function template over the type of values. Copies with less precise sigmoids have no
// doubles.
#ifdef FASTLTC_MEDIUM
#define FASTLTC_INSTANTIATE(name) template decltype(name<float>) name<float>;
#else
#define FASTLTC_INSTANTIATE(name)             \
  template decltype(name<float>) name<float>; \
  template decltype(name<double>) name<double>;
#endif

#define FASTLTC_DECLARE_IN(isa, ...) \
  namespace isa {                    \
  __VA_ARGS__;                       \
  }

// Of copies in namespaces with a suffix. baseline has none besides its own.
#ifdef FASTLTC_HAVE_AVX2
#define FASTLTC_DECLARE_OF(suffix, ...)         \
  FASTLTC_DECLARE_IN(baseline, __VA_ARGS__)     \
  FASTLTC_DECLARE_IN(avx2##suffix, __VA_ARGS__) \
  FASTLTC_DECLARE_IN(avx512##suffix, __VA_ARGS__)
#define FASTLTC_CALL_OF(suffix, ...)      \
  switch (::fastltc::cpu::active_isa()) { \
    case ::fastltc::cpu::Isa::avx512:     \
      return avx512##suffix::__VA_ARGS__; \
    case ::fastltc::cpu::Isa::avx2:       \
      return avx2##suffix::__VA_ARGS__;   \
    default:                              \
      return baseline::__VA_ARGS__;       \
  }
#elif defined(FASTLTC_HAVE_NEON)
#define FASTLTC_DECLARE_OF(suffix, ...)     \
  FASTLTC_DECLARE_IN(baseline, __VA_ARGS__) \
  FASTLTC_DECLARE_IN(neon##suffix, __VA_ARGS__)
#define FASTLTC_CALL_OF(suffix, ...)                                                           \
  return ::fastltc::cpu::active_isa() == ::fastltc::cpu::Isa::neon ? neon##suffix::__VA_ARGS__ \
                                                                   : baseline::__VA_ARGS__;
#else
#define FASTLTC_DECLARE_OF(suffix, ...) FASTLTC_DECLARE_IN(baseline, __VA_ARGS__)
#define FASTLTC_CALL_OF(suffix, ...)                            \
  ::fastltc::cpu::active_isa(); /* an impossible wish throws */ \
  return baseline::__VA_ARGS__;
#endif

#define FASTLTC_DECLARE(...) FASTLTC_DECLARE_OF(, __VA_ARGS__)
#define FASTLTC_CALL(...) FASTLTC_CALL_OF(, __VA_ARGS__)
// Those with less precise sigmoids of synapses.
#define FASTLTC_DECLARE_MEDIUM(...) FASTLTC_DECLARE_OF(_medium, __VA_ARGS__)
#define FASTLTC_CALL_MEDIUM(...) FASTLTC_CALL_OF(_medium, __VA_ARGS__)

// `parameters` and `arguments` in parentheses.
#define FASTLTC_EXPORT(result, name, parameters, arguments) \
  FASTLTC_DECLARE(result name parameters)                   \
  result name parameters { FASTLTC_CALL(name arguments) }

// One whose copies with less precise sigmoids are called where `medium` is true.
#define FASTLTC_EXPORT_EITHER(medium, result, name, parameters, arguments) \
  FASTLTC_DECLARE(result name parameters)                                  \
  FASTLTC_DECLARE_MEDIUM(result name parameters)                           \
  result name parameters {                                                 \
    if (medium) {                                                          \
      FASTLTC_CALL_MEDIUM(name arguments)                                  \
    }                                                                      \
    FASTLTC_CALL(name arguments)                                           \
  }

// A template over the type T of values, for float and double.
#define FASTLTC_EXPORT_TYPED(name, parameters, arguments)     \
  FASTLTC_DECLARE(template <typename T> void name parameters) \
  template <typename T>                                       \
  void name parameters{FASTLTC_CALL(name<T> arguments)} FASTLTC_INSTANTIATE(name)
