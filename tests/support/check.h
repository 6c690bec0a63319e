// A small test frame for the C++ tests:
//
//   TEST(sigmoid_of_zero_is_a_half) { CHECK(sigmoid(0.0f) == 0.5f); }
//
// A failed check is reported and the test goes on; an exception ends the test as failed. Names on
// the command line are the tests to run, in place of all.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

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

// Keeps the largest difference, and a NaN: whatever came after one would take its place where only
// `!(difference <= worst)` is asked.
inline void keep_worst(double& worst, double difference) {
  if (difference > worst || std::isnan(difference)) worst = difference;
}

// The largest magnitude, but at least 1: what errors are measured by.
template <typename T>
double scale_of(const std::vector<T>& values) {
  double scale = 1;
  for (const T value : values) scale = std::max(scale, std::abs(static_cast<double>(value)));
  return scale;
}

// Reports where two buffers differ by more than tolerance * scale, or in size.
template <typename A, typename E>
void check_close(const std::string& what, const std::vector<A>& actual,
                 const std::vector<E>& expected, double tolerance, double scale = 1) {
  double worst = 0;
  const std::size_t size = std::min(actual.size(), expected.size());
  for (std::size_t k = 0; k < size; ++k) {
    keep_worst(worst, std::abs(static_cast<double>(actual[k]) - static_cast<double>(expected[k])));
  }
  if (actual.size() == expected.size() && worst <= tolerance * scale) return;
  report_failure(__FILE__, __LINE__,
                 what + ": off by " + std::to_string(worst) + " of " + std::to_string(scale));
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
