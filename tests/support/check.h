// A small test frame for the C++ tests:
//
//   TEST(sigmoid_of_zero_is_a_half) { CHECK(sigmoid(0.0f) == 0.5f); }
//
// A failed check is reported and the test goes on; an exception ends the test as failed.
#pragma once

#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>

namespace fastltc::test {

// Registers a test; its result only exists to be a static initialiser.
bool register_test(const char* name, void (*function)());

// FASTLTC_TEST_SEED, or a fresh one; a failure reports the last.
uint64_t seed();

void report_failure(const char* file, int line, const std::string& text);

template <typename A, typename B>
void check_near(const char* file, int line, const char* expression, A actual, B expected,
                double tolerance) {
  // Written so that a NaN fails.
  const double difference = std::abs(static_cast<double>(actual) - static_cast<double>(expected));
  if (difference <= tolerance) return;
  std::ostringstream text;
  text.precision(17);
  text << expression << " is " << actual << ", expected " << expected << " within " << tolerance;
  report_failure(file, line, text.str());
}

}  // namespace fastltc::test

#define TEST(name)                                       \
  static void test_##name();                             \
  [[maybe_unused]] static const bool registered_##name = \
      fastltc::test::register_test(#name, &test_##name); \
  static void test_##name()

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) fastltc::test::report_failure(__FILE__, __LINE__, #condition); \
  } while (false)

#define CHECK_NEAR(actual, expected, tolerance) \
  fastltc::test::check_near(__FILE__, __LINE__, #actual, (actual), (expected), (tolerance))

#define CHECK_THROWS(statement, exception, part_of_text)                                  \
  do {                                                                                    \
    try {                                                                                 \
      statement;                                                                          \
      fastltc::test::report_failure(__FILE__, __LINE__, #statement " did not throw");     \
    } catch (const exception& error) {                                                    \
      if (std::string(error.what()).find(part_of_text) == std::string::npos) {            \
        fastltc::test::report_failure(__FILE__, __LINE__,                                 \
                                      std::string(#statement " threw: ") + error.what()); \
      }                                                                                   \
    }                                                                                     \
  } while (false)
