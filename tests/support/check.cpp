#include "support/check.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <random>
#include <stdexcept>
#include <vector>

#include "cpu/frame/isa.h"

namespace fastltc::test {

namespace {

struct Test {
  const char* name;
  void (*function)();
};

std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

int failures = 0;
uint64_t last_seed = 0;

constexpr int exit_skipped = 77;

// Whether the command line names a test, or none at all.
bool is_asked_for(const char* name, int count, char** names) {
  for (int k = 1; k < count; ++k) {
    if (std::strcmp(names[k], name) == 0) return true;
  }
  return count <= 1;
}

}  // namespace

bool register_test(const char* name, void (*function)()) {
  tests().push_back({name, function});
  return true;
}

void report_failure(const char* file, int line, const std::string& text) {
  ++failures;
  std::fprintf(stderr, "%s:%d: %s (seed %llu)\n", file, line, text.c_str(),
               static_cast<unsigned long long>(last_seed));
}

uint64_t seed() {
  const char* given = std::getenv("FASTLTC_TEST_SEED");
  last_seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  return last_seed;
}

}  // namespace fastltc::test

int main(int count, char** names) {
  using namespace fastltc::test;
  try {
    std::printf("instruction set: %s\n", fastltc::cpu::isa_name(fastltc::cpu::active_isa()));
  } catch (const std::invalid_argument& error) {
    std::printf("skipped: %s\n", error.what());
    return exit_skipped;
  }
  int run = 0;
  for (const Test& test : tests()) {
    if (!is_asked_for(test.name, count, names)) continue;
    ++run;
    const int before = failures;
    try {
      test.function();
    } catch (const std::exception& error) {
      report_failure(test.name, 0, std::string("threw: ") + error.what());
    }
    std::printf("%-8s%s\n", failures == before ? "passed" : "FAILED", test.name);
  }
  std::printf("%d tests, %d failed checks\n", run, failures);
  // A program without tests checks nothing, nor does one of which a name is not found.
  return failures == 0 && run > 0 && (count <= 1 || run == count - 1) ? 0 : 1;
}
