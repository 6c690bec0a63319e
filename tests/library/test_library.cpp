// The functions of libfastltc, linked as users link it.
#include <fastltc/fastltc.hpp>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>

#include "support/check.h"

namespace fastltc::test {

namespace {

const std::string kPath = FASTLTC_GOLDEN_MODELS "/ltc.safetensors";
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <typename Call>
void check_refused(fastltc_status status, const std::string& text, Call call) {
  try {
    call();
    report_failure(__FILE__, __LINE__, "taken although: " + text);
  } catch (const Error& error) {
    CHECK(error.status == status);
    if (std::string(error.what()).find(text) == std::string::npos) {
      report_failure(__FILE__, __LINE__, "expected '" + text + "', got: " + error.what());
    }
  }
}

std::vector<float> draw(std::mt19937_64& random, size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace

TEST(streams_are_independent) {
  std::mt19937_64 random(seed());
  const Network network(kPath);
  constexpr size_t streams = 20;
  const size_t I = network.inputs(), M = network.outputs();
  Session many(network, streams);
  std::vector<Session> single;
  for (size_t s = 0; s < streams; ++s) single.emplace_back(network);
  for (int t = 0; t < 30; ++t) {
    const std::vector<float> x = draw(random, streams * I);
    std::vector<float> dt = draw(random, streams), together(streams * M), alone(streams * M);
    for (float& step : dt) step = std::abs(step);
    many.step(x.data(), dt.data(), together.data());
    for (size_t s = 0; s < streams; ++s) single[s].step(&x[s * I], dt[s], &alone[s * M]);
    check_close("output", together, alone, 2e-6);
  }
}

TEST(a_state_goes_on_where_it_was_taken) {
  std::mt19937_64 random(seed());
  const Network network(kPath);
  Session first(network), second(network);
  std::vector<float> x = draw(random, network.inputs()), a(network.outputs()), b(a);
  first.step(x.data(), 0.5f, a.data());
  second.set_state(first.state());
  first.step(x.data(), 0.5f, a.data());
  second.step(x.data(), 0.5f, b.data());
  CHECK(a == b);
  second.reset();
  for (const float value : second.state()) CHECK(value == 0.0f);
}

TEST(a_session_outlives_its_network) {
  auto network = std::make_unique<Network>(kPath);
  fastltc_session* session = nullptr;
  CHECK(fastltc_session_new(network->get(), 1, &session) == FASTLTC_OK);
  std::vector<float> x(network->inputs()), y(network->outputs());
  network.reset();
  CHECK(fastltc_step(session, x.data(), 1.0f, y.data()) == FASTLTC_OK);
  fastltc_session_free(session);
}

TEST(a_refused_step_changes_nothing) {
  std::mt19937_64 random(seed());
  const Network network(kPath);
  Session session(network);
  std::vector<float> x = draw(random, network.inputs()), y(network.outputs());
  session.step(x.data(), 1.0f, y.data());
  const std::vector<float> state = session.state(), output = y;
  for (const float dt : {-1.0f, kNan, std::numeric_limits<float>::infinity()}) {
    check_refused(FASTLTC_BAD_DT, "dt", [&] { session.step(x.data(), dt, y.data()); });
  }
  x.back() = kNan;
  check_refused(FASTLTC_BAD_INPUT, "x", [&] { session.step(x.data(), 1.0f, y.data()); });
  CHECK(session.state() == state);
  CHECK(y == output);
}

TEST(some_streams_are_reset) {
  const Network network(kPath);
  Session session(network, 2);
  std::vector<float> ones(2 * network.state_size(), 1.0f);
  session.set_state(ones);
  fastltc_session* plain = nullptr;
  CHECK(fastltc_session_new(network.get(), 2, &plain) == FASTLTC_OK);
  CHECK(fastltc_set_state(plain, ones.data()) == FASTLTC_OK);
  const unsigned char which[] = {0, 1};
  CHECK(fastltc_reset_streams(plain, which) == FASTLTC_OK);
  CHECK(fastltc_get_state(plain, ones.data()) == FASTLTC_OK);
  for (size_t k = 0; k < ones.size(); ++k)
    CHECK(ones[k] == (k < network.state_size() ? 1.0f : 0.0f));
  ones[0] = kNan;
  CHECK(fastltc_set_state(plain, ones.data()) == FASTLTC_BAD_INPUT);
  fastltc_session_free(plain);
}

TEST(what_is_refused) {
  check_refused(FASTLTC_NO_FILE, "/no/such", [] { Network("/no/such"); });
  check_refused(FASTLTC_BAD_FILE, "folder", [] { Network("/"); });
  check_refused(FASTLTC_BAD_FILE, "truncated", [] { Network("abc", 3); });
  const Network network(kPath);
  check_refused(FASTLTC_BAD_ARGUMENT, "streams", [&] { Session(network, 0); });
  check_refused(FASTLTC_BAD_ARGUMENT, "streams", [&] { Session(network, size_t{1} << 40); });
  check_refused(FASTLTC_BAD_ARGUMENT, "path",
                [] { check(fastltc_network_load(nullptr, nullptr)); });
  fastltc_network_free(nullptr);
  fastltc_session_free(nullptr);
}

TEST(facts) {
  const Network network(FASTLTC_GOLDEN_MODELS "/policy.safetensors");
  CHECK(network.time_unit() == 60);
  CHECK(fastltc_input_name(network.get(), 0) == nullptr);
  CHECK(std::strlen(fastltc_version()) > 0);
  CHECK(fastltc_instruction_set() != nullptr);
}

}  // namespace fastltc::test
