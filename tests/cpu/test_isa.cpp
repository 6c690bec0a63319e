#include "cpu/frame/isa.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>

#include "support/check.h"

using namespace fastltc::cpu;

TEST(baseline_is_always_possible) {
  CHECK(compiled_isas().front() == Isa::baseline);
  CHECK(supported_isas().front() == Isa::baseline);
}

TEST(only_compiled_sets_are_supported) {
  for (const Isa isa : supported_isas()) {
    CHECK(std::count(compiled_isas().begin(), compiled_isas().end(), isa) == 1);
  }
}

TEST(the_environment_chooses) {
  const char* requested = std::getenv("FASTLTC_CPU");
  if (requested != nullptr && *requested != '\0') {
    CHECK(isa_name(active_isa()) == std::string(requested));
  } else {
    CHECK(active_isa() == supported_isas().back());
  }
}

TEST(names_differ_and_registers_grow) {
  std::set<std::string> names;
  std::size_t previous = 0;
  for (const Isa isa : compiled_isas()) {
    CHECK(names.insert(isa_name(isa)).second);
    // NEON's are those of the portable set.
    CHECK(isa == Isa::neon ? vector_bytes(isa) == previous : vector_bytes(isa) > previous);
    previous = vector_bytes(isa);
  }
}
