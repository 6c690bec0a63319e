// Prepared networks and their sessions against plain loops in double precision, on every kind of
// layer and every number of streams that takes another path. Buffers have their exact sizes and the
// parameters are freed before the first step, so that a sanitizer sees a read or write that should
// not be.
#include "cpu/stream.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/allocations.h"
#include "support/check.h"
#include "support/stream_model.h"

namespace {

using namespace fastltc::test;
using fastltc::Activation;
using fastltc::CfcMode;
using fastltc::Function;
using fastltc::cpu::StreamNetwork;
using fastltc::cpu::StreamSession;

void check_model(const std::string& name, Model& model) {
  constexpr double tolerance = 5e-6;
  constexpr int steps = 5;
  const std::unique_ptr<const StreamNetwork> network =
      fastltc::cpu::prepare_network(model.network());
  // What the sessions should give, before the parameters go.
  constexpr int64_t most = 70;
  const int64_t I = network->inputs(), M = network->outputs(), state_size = network->state_size();
  std::mt19937_64 random(fastltc::test::seed());
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform(0, 2);
  Floats start(most * state_size), x(steps * most * I), dt(steps * most);
  for (float& value : start) value = 0.5f * normal(random);
  for (float& value : x) value = normal(random);
  for (float& value : dt) value = uniform(random);
  dt[0] = 0.0f;
  std::vector<std::vector<Doubles>> y(steps, std::vector<Doubles>(most));
  std::vector<Doubles> end;
  for (int64_t s = 0; s < most; ++s) {
    Doubles state(start.begin() + s * state_size, start.begin() + (s + 1) * state_size);
    for (int t = 0; t < steps; ++t) {
      const auto row = x.begin() + (t * most + s) * I;
      y[t][s] = model.step(Doubles(row, row + I), dt[t * most + s], state);
    }
    end.push_back(state);
  }
  model.forget_parameters();

  for (const int64_t streams : {1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 33, 64, 70}) {
    const std::unique_ptr<StreamSession> session(network->make_session(streams));
    CHECK(network->cycles(streams) > 0);
    Floats state(streams * state_size, 1.0f);
    session->get_state(state.data());
    for (const float value : state) CHECK(value == 0.0f);
    state.assign(start.begin(), start.begin() + streams * state_size);
    session->set_state(state.data());
    Floats back(streams * state_size);
    session->get_state(back.data());
    CHECK(back == state);
    double worst = 0;
    for (int t = 0; t < steps; ++t) {
      const Floats x_t(x.begin() + t * most * I, x.begin() + (t * most + streams) * I);
      const Floats dt_t(dt.begin() + t * most, dt.begin() + t * most + streams);
      Floats y_t(streams * M, std::numeric_limits<float>::quiet_NaN());
      session->step(x_t.data(), dt_t.data(), 1, y_t.data());
      for (int64_t s = 0; s < streams; ++s) {
        for (int64_t m = 0; m < M; ++m) {
          const double difference = std::abs(y_t[s * M + m] - y[t][s][m]);
          fastltc::test::keep_worst(worst, difference);
        }
      }
    }
    session->get_state(back.data());
    for (int64_t s = 0; s < streams; ++s) {
      for (int64_t j = 0; j < state_size; ++j) {
        const double difference = std::abs(back[s * state_size + j] - end[s][j]);
        fastltc::test::keep_worst(worst, difference);
      }
    }
    if (!(worst <= tolerance)) {
      fastltc::test::report_failure(
          __FILE__, __LINE__,
          name + ", " + std::to_string(streams) + " streams: differs by " + std::to_string(worst));
    }
    // One time step for all.
    const Floats same(streams, 0.5f), x_0(x.begin(), x.begin() + streams * I);
    Floats one(streams * M), each(streams * M);
    session->reset();
    session->step(x_0.data(), same.data(), 0, one.data());
    session->reset();
    session->step(x_0.data(), same.data(), 1, each.data());
    CHECK(one == each);
  }
}

}  // namespace

TEST(ltc_is_that_of_plain_loops) {
  for (const int64_t N : {1, 2, 8, 17, 19, 32, 33, 64, 65, 100}) {
    for (const int64_t I : {1, 16, 33}) {
      for (const double density : {0.0, 0.2, 1.0}) {
        if (N > 33 && I != 16) continue;
        Model model(fastltc::test::seed());
        const int64_t U = 1 + (N + I) % 6;
        model.add_ltc(I, N, 1 + N / 3, U, density, N % 2 == 0, I % 2 == 1, false);
        check_model("LTC N" + std::to_string(N) + " I" + std::to_string(I), model);
      }
    }
  }
}

TEST(cfc_is_that_of_plain_loops) {
  for (const CfcMode mode : {CfcMode::gated, CfcMode::no_gate, CfcMode::pure}) {
    for (const int64_t size : {1, 3, 16, 17, 33}) {
      Model wired(fastltc::test::seed());
      wired.add_cfc(5, {size, 7, 2}, mode, Activation::tanh, 0, 0, true, false);
      check_model("wired CfC " + std::to_string(size), wired);
      Model plain(fastltc::test::seed());
      plain.add_cfc(3, {size}, mode, Activation::silu, 0, 0, false, false);
      check_model("plain CfC " + std::to_string(size), plain);
      for (const Activation activation : {Activation::lecun_tanh, Activation::silu,
                                          Activation::relu, Activation::tanh, Activation::gelu}) {
        Model deep(fastltc::test::seed());
        deep.add_cfc(4, {size}, mode, activation, 1 + size % 2, 2 * size + 1, false, false);
        check_model("deep CfC " + std::to_string(size), deep);
      }
    }
  }
}

TEST(mixed_memory_is_that_of_plain_loops) {
  for (const int64_t N : {1, 7, 16, 19, 33}) {
    Model ltc(fastltc::test::seed());
    ltc.add_ltc(5, N, 1, 1 + N % 4, 0.4, true, true, true);
    check_model("mixed LTC " + std::to_string(N), ltc);
    Model wired(fastltc::test::seed());
    wired.add_cfc(4, {N, 3, 2}, CfcMode::gated, Activation::tanh, 0, 0, true, true);
    check_model("mixed wired CfC " + std::to_string(N), wired);
    Model plain(fastltc::test::seed());
    plain.add_cfc(4, {N}, CfcMode::pure, Activation::tanh, 2, 18, false, true);
    check_model("mixed plain CfC " + std::to_string(N), plain);
  }
}

TEST(stacks_are_those_of_plain_loops) {
  for (const Function function :
       {Function::lecun_tanh, Function::silu, Function::relu, Function::tanh, Function::gelu,
        Function::sigmoid, Function::softplus, Function::softmax}) {
    for (const int64_t width : {1, 17, 32, 33, 64, 129}) {
      Model model(fastltc::test::seed());
      model.add_function(3, function);
      model.add_linear(3, width, true);
      model.add_function(width, function);
      model.add_linear(width, 6, false);
      model.add_ltc(6, 9, 4, 3, 0.5, true, true, true);
      model.add_cfc(4, {5, 3}, CfcMode::gated, Activation::tanh, 0, 0, true, true);
      model.add_ltc(3, 20, 7, 2, 0.5, true, false, false);
      model.add_function(7, function);
      check_model("stack " + std::to_string(width), model);
    }
  }
}

TEST(softmax_of_large_values_is_finite) {
  Model model(fastltc::test::seed());
  model.add_function(5, Function::softmax);
  const auto network = fastltc::cpu::prepare_network(model.network());
  for (const int64_t streams : {1, 20}) {
    const std::unique_ptr<StreamSession> session(network->make_session(streams));
    Floats x, y(streams * 5);
    for (int64_t s = 0; s < streams; ++s)
      x.insert(x.end(), {1000.0f, -1000.0f, 999.0f, 0.0f, 1e30f});
    const float dt = 1.0f;
    session->step(x.data(), &dt, 0, y.data());
    for (int64_t s = 0; s < streams; ++s) {
      CHECK_NEAR(y[s * 5 + 4], 1.0, 1e-6);
      CHECK_NEAR(y[s * 5], 0.0, 1e-6);
    }
  }
}

TEST(steps_allocate_nothing) {
  Model model(fastltc::test::seed());
  model.add_linear(3, 6, true);
  model.add_ltc(6, 19, 4, 6, 0.5, true, true, true);
  model.add_cfc(4, {9, 5, 3}, CfcMode::gated, Activation::tanh, 0, 0, true, true);
  model.add_cfc(3, {7}, CfcMode::gated, Activation::gelu, 2, 20, false, false);
  model.add_function(7, Function::softmax);
  const auto network = fastltc::cpu::prepare_network(model.network());
  for (const int64_t streams : {1, 3, 17, 70}) {
    const std::unique_ptr<StreamSession> session(network->make_session(streams));
    const Floats x(streams * 3, 0.5f);
    Floats y(streams * 7), state(streams * network->state_size());
    const float dt = 0.1f;
    const int64_t before = fastltc::test::allocations();
    CHECK(before > 0);
    for (int k = 0; k < 3; ++k) session->step(x.data(), &dt, 0, y.data());
    session->get_state(state.data());
    session->set_state(state.data());
    session->reset();
    CHECK(fastltc::test::allocations() == before);
  }
}

TEST(numbers_that_are_not_finite_are_found) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (int64_t count = 0; count < 70; ++count) {
    Floats values(count, std::numeric_limits<float>::max());
    CHECK(fastltc::cpu::all_finite(values.data(), count));
    for (int64_t k = 0; k < count; ++k) {
      for (const float strange : {infinity, -infinity, std::nanf(""), -std::nanf("1")}) {
        values[k] = strange;
        CHECK(!fastltc::cpu::all_finite(values.data(), count));
      }
      values[k] = k % 2 == 0 ? std::numeric_limits<float>::denorm_min()
                             : -std::numeric_limits<float>::max();
    }
    CHECK(fastltc::cpu::all_finite(values.data(), count));
  }
}
