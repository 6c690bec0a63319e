#include "cpu/frame/isa.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

namespace fastltc::cpu {

namespace {

// Read at load, as a copy: getenv is not safe against a later setenv in another thread.
const std::string requested_name = [] {
  const char* value = std::getenv("FASTLTC_CPU");
  return std::string(value ? value : "");
}();

// In the order of Isa.
constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "neon"};

bool processor_has(Isa isa) {
#ifdef FASTLTC_HAVE_AVX2
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::avx2) return avx2;
  if (isa == Isa::avx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  }
#endif
#ifdef FASTLTC_HAVE_NEON
  if (isa == Isa::neon) return true;  // every 64-bit Arm has it
#endif
  return isa == Isa::baseline;
}

std::string join_names(const std::vector<Isa>& isas) {
  std::string names;
  for (const Isa isa : isas) {
    if (!names.empty()) names += ", ";
    names += isa_name(isa);
  }
  return names;
}

Isa choose_isa() {
  if (requested_name.empty()) return supported_isas().back();
  const auto found = std::ranges::find(supported_isas(), requested_name, isa_name);
  if (found != supported_isas().end()) return *found;
  throw std::invalid_argument("FASTLTC_CPU: expected one of " + join_names(supported_isas()) +
                              " (compiled: " + join_names(compiled_isas()) + "), got '" +
                              requested_name + "'");
}

}  // namespace

const char* isa_name(Isa isa) { return kNames[static_cast<size_t>(isa)]; }

const std::vector<Isa>& compiled_isas() {
  static const std::vector<Isa> isas = {
      Isa::baseline,
#ifdef FASTLTC_HAVE_AVX2
      Isa::avx2,
      Isa::avx512,
#endif
#ifdef FASTLTC_HAVE_NEON
      Isa::neon,
#endif
  };
  return isas;
}

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> isas = [] {
    std::vector<Isa> result;
    std::ranges::copy_if(compiled_isas(), std::back_inserter(result), processor_has);
    return result;
  }();
  return isas;
}

Isa active_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

std::size_t vector_bytes(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return 64;
    case Isa::avx2:
      return 32;
    default:
      return 16;
  }
}

const char* processor_maker() {
#if defined(__x86_64__)
  if (__builtin_cpu_is("intel")) return "intel";
  if (__builtin_cpu_is("amd")) return "amd";
#endif
  return "other";
}

}  // namespace fastltc::cpu
