#include "cpu/frame/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fastltc::cpu {

namespace {

// Read at load, as a copy: getenv is not safe against a later setenv in another thread.
const std::string requested_name = [] {
  const char* value = std::getenv("FASTLTC_CPU");
  return std::string(value ? value : "");
}();

bool processor_has(Isa isa) {
  switch (isa) {
    case Isa::baseline:
      return true;
    case Isa::avx2:
#ifdef FASTLTC_HAVE_AVX2
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
      return false;
#endif
    case Isa::avx512:
#ifdef FASTLTC_HAVE_AVX512
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
      return false;
#endif
  }
  return false;
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
  for (const Isa isa : supported_isas()) {
    if (requested_name == isa_name(isa)) return isa;
  }
  throw std::invalid_argument("FASTLTC_CPU: expected one of " + join_names(supported_isas()) +
                              " (compiled: " + join_names(compiled_isas()) + "), got '" +
                              requested_name + "'");
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::baseline:
      return "baseline";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "unknown";
}

const std::vector<Isa>& compiled_isas() {
  static const std::vector<Isa> isas = {
      Isa::baseline,
#ifdef FASTLTC_HAVE_AVX2
      Isa::avx2,
#endif
#ifdef FASTLTC_HAVE_AVX512
      Isa::avx512,
#endif
  };
  return isas;
}

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> isas = [] {
    std::vector<Isa> result;
    for (const Isa isa : compiled_isas()) {
      if (processor_has(isa)) result.push_back(isa);
    }
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
    case Isa::baseline:
      return 16;
    case Isa::avx2:
      return 32;
    case Isa::avx512:
      return 64;
  }
  return 16;
}

}  // namespace fastltc::cpu
