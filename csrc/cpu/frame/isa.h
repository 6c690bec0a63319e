// Instruction sets: which ones this build has, which ones this processor runs, which one is used.
#pragma once

#include <cstddef>
#include <vector>

namespace fastltc::cpu {

enum class Isa { baseline, avx2, avx512, neon };

// The name of a set, as FASTLTC_CPU spells it.
const char* isa_name(Isa isa);

// The sets compiled into this library, weakest first. Never empty: baseline is always there.
const std::vector<Isa>& compiled_isas();

// The compiled sets that this processor and operating system can run, weakest first.
const std::vector<Isa>& supported_isas();

// The set in use: the strongest supported one, or the one that the environment variable FASTLTC_CPU
// named when this library was loaded. Throws std::invalid_argument, naming the variable, its value
// and what is possible, if that value is unknown or not supported here.
Isa active_isa();

// Width of a vector register in bytes; lanes of a type are this over its size.
std::size_t vector_bytes(Isa isa);

// Who made this processor: "intel", "amd" or "other".
const char* processor_maker();

}  // namespace fastltc::cpu
