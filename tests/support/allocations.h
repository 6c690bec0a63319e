// How often a program has allocated, for tests of what must not. Linking allocations.cpp replaces
// operator new.
#pragma once

#include <cstdint>

namespace fastltc::test {

int64_t allocations();

}  // namespace fastltc::test
