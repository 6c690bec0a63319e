// The frame of sequences with a cell of its own, which is also the shortest example of one: a leaky
// integrator, h'_j = h_j + dt (a_j sum_i u_i - h_j). Its parts need no more than its equations.
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "cpu/frame/sequence_tile.h"
#include "support/check.h"
#include "support/parallel.h"

namespace fastltc::cpu::FASTLTC_ISA {

template <typename T>
struct LeakyInputs : SequenceInputs<T> {
  const T* a = nullptr;  // [N]
};

template <typename T>
struct PackedLeaky : PackedLayer<T> {
  void take(Arena& arena, const LeakyInputs<T>& in, bool) {
    this->history = {in.size.T, in.size.N, 1, 1, 0, 0};
    this->motor = arena.take<int32_t>(in.size.M);
  }
  void fill(const LeakyInputs<T>& in, bool) {
    for (int64_t m = 0; m < in.size.M; ++m) this->motor[m] = static_cast<int32_t>(m);
  }
  int64_t evaluations(const LeakyInputs<T>& in) const { return 1000 * in.size.N; }
};

template <typename T>
struct LeakySums : SequenceSums<T> {
  T* a = nullptr;
  void take(Arena& arena, const LeakyInputs<T>& in, const PackedLeaky<T>& layer) {
    a = arena.take<T>(in.size.N * Simd<T>::lanes);
    SequenceSums<T>::take(arena, in, layer);
  }
};

template <typename T, int W>
typename Simd<T>::vec input_sum(const StepInputs<T, W>& step, int64_t inputs, int r) {
  typename Simd<T>::vec sum{};
  for (int64_t i = 0; i < inputs; ++i) sum += Simd<T>::load(step.u.at(r, i));
  return sum;
}

template <typename T, int W>
struct LeakyForward {
  using S = Simd<T>;
  const LeakyInputs<T>& in;

  LeakyForward(const LeakyInputs<T>& inputs, const PackedLeaky<T>&) : in(inputs) {}
  void take(Arena&) {}
  void begin(const StepInputs<T, W>&) {}
  void unfold(const StepInputs<T, W>& step, Rows<const T> from, Rows<T> to, Rows<T>) {
    for (int r = 0; r < W; ++r) {
      const auto sum = input_sum(step, in.size.I, r);
      for (int64_t j = 0; j < in.size.N; ++j) {
        const auto h = S::load(from.at(r, j));
        S::store(to.at(r, j), h + step.time(r, j) * (sum * in.a[j] - h));
      }
    }
  }
};

template <typename T, int W>
struct LeakyBackward {
  using S = Simd<T>;
  using Sums = LeakySums<T>;
  const LeakyInputs<T>& in;
  const Sums sums;
  Rows<T> grad_after, grad_before, grad_u;

  LeakyBackward(const LeakyInputs<T>& inputs, const PackedLeaky<T>&, const Sums& s)
      : in(inputs), sums(s) {}
  void take(Arena& arena) {
    grad_after.take(arena, W, in.size.N);
    grad_before.take(arena, W, in.size.N);
    grad_u.take(arena, W, in.size.I);
  }
  void start() {}
  void step(const BackwardStep<T, W>& step) {
    for (int r = 0; r < W; ++r) {
      const auto sum = input_sum(step, in.size.I, r);
      clear_rows(grad_u.at(r, 0), in.size.I);
      for (int64_t j = 0; j < in.size.N; ++j) {
        const auto h = S::load(step.before.at(r, j)), g = S::load(grad_after.at(r, j));
        const auto g_dt = g * step.time(r, j);
        S::store(grad_before.at(r, j), g - g_dt);
        add_to_row(sums.a, j, g_dt * sum);
        step.add_grad_dt(r, j, g * (sum * in.a[j] - h));
        for (int64_t i = 0; i < in.size.I; ++i) add_to_row(grad_u.at(r, 0), i, g_dt * in.a[j]);
      }
    }
  }
};

namespace {

constexpr int64_t B = 11, T = 6, I = 3, N = 5, M = 2;

struct Problem {
  std::vector<double> x, h0, timespans, a, states, output, hn;
  std::vector<int64_t> lengths;
  LeakyInputs<double> in;

  explicit Problem(std::mt19937_64& random)
      : states((T + 1) * N * B), output(B * T * M), hn(B * N) {
    std::uniform_real_distribution<double> uniform(0.1, 0.9);
    for (auto [values, count] :
         {std::pair{&x, B * T * I}, {&h0, B * N}, {&timespans, B * T}, {&a, N}}) {
      for (int64_t k = 0; k < count; ++k) values->push_back(uniform(random));
    }
    for (int64_t b = 0; b < B; ++b) lengths.push_back(b % (T + 1));
    in.size = {B, T, I, N, M, 1};
    in.x = {x.data(), T * I, I, 1};
    in.h0 = {h0.data(), N, 0, 1};
    in.timespans = {timespans.data(), T, 1, 0};
    in.lengths = lengths.data();
    in.lengths_stride = 1;
    in.a = a.data();
  }
  // Also what the next backward pass needs. The loss is the sum of what comes out.
  double loss() {
    const InBlock<PackedLeaky<double>> packed(in, false);
    const SequenceOutputs<double> out{{output.data(), T * M, M, 1}, true, hn.data(), states.data()};
    run_forward<LeakyForward>(in, out, packed.layer, test::parallel(3));
    double sum = 0;
    for (const double value : output) sum += value;
    for (const double value : hn) sum += value;
    return sum;
  }
};

TEST(a_cell_is_run_as_plain_loops_would) {
  std::mt19937_64 random(test::seed());
  Problem p(random);
  p.loss();
  for (int64_t b = 0; b < B; ++b) {
    std::vector<double> h(p.h0.begin() + b * N, p.h0.begin() + (b + 1) * N);
    for (int64_t t = 0; t < T; ++t) {
      const bool runs = t < p.lengths[b];
      double sum = 0;
      for (int64_t i = 0; i < I; ++i) sum += p.x[(b * T + t) * I + i];
      for (int64_t j = 0; runs && j < N; ++j)
        h[j] += p.timespans[b * T + t] * (p.a[j] * sum - h[j]);
      for (int64_t m = 0; m < M; ++m) {
        CHECK_NEAR(p.output[(b * T + t) * M + m], runs ? h[m] : 0.0, 1e-13);
      }
    }
    for (int64_t j = 0; j < N; ++j) CHECK_NEAR(p.hn[b * N + j], h[j], 1e-13);
  }
}

TEST(its_gradients_are_those_of_differences) {
  std::mt19937_64 random(test::seed());
  Problem p(random);
  p.loss();
  const std::vector<double> ones(B * T * M, 1.0);
  std::vector<double> x(B * T * I), h0(B * N), timespans(B * T), a(N);
  SequenceGradients<double> grad;
  grad.grad_output = {ones.data(), T * M, M, 1};
  grad.grad_hn = {ones.data(), N, 0, 1};
  grad.states = p.states.data();
  grad.x = {x.data(), T * I, I, 1};
  grad.h0 = h0.data();
  grad.timespans = {timespans.data(), T, 1, 0};
  const InBlock<PackedLeaky<double>> packed(p.in, true);
  run_backward<LeakyBackward, double>(
      p.in, grad, packed.layer, test::parallel(3),
      [&](const auto& sums) { sums.write_rows(sums.first.a, N, a.data()); });
  const auto check = [&](const char* what, std::vector<double>& values,
                         const std::vector<double>& gradient) {
    std::vector<double> expected;
    for (double& value : values) {
      const double given = value;
      value = given + 1e-5;
      const double above = p.loss();
      value = given - 1e-5;
      expected.push_back((above - p.loss()) / 2e-5);
      value = given;
    }
    test::check_close(what, gradient, expected, 1e-7, test::scale_of(expected));
  };
  check("x", p.x, x);
  check("h0", p.h0, h0);
  check("timespans", p.timespans, timespans);
  check("a", p.a, a);
}

}  // namespace
}  // namespace fastltc::cpu::FASTLTC_ISA
