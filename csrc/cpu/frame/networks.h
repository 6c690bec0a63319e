// Several networks of one shape in one call, beside each other (core/sequence.h: nets).
//
// Plan: with few samples a lane is a network: parameters are packed with a register's networks side
// by side, a tile is one sample of all of them, and what would be summed over lanes for a parameter's
// gradient stays apart. With more samples one network after another runs as by itself. Threads share
// out the networks, or, where there are more registers of samples, those.
#pragma once

#include "core/sequence.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// How many times as long a register of networks takes as one of samples of one network, whose
// weights stay in the first cache and serve several registers.
inline constexpr int64_t kRegisterOfNetworks = 2;

// As many networks as one part of the work takes: a register of them, or one. A function of sizes
// alone, so that both passes agree about what is kept.
template <typename T>
int64_t networks_together(const SequenceInputs<T>& in, int64_t cost = kRegisterOfNetworks) {
  constexpr int64_t L = Simd<T>::lanes;
  const auto registers = [](int64_t count) { return (count + L - 1) / L; };
  const int64_t in_lanes = cost * in.size.B * registers(in.nets);
  return in_lanes <= in.nets * registers(in.size.B) ? L : 1;
}

// The networks from `first` on, with the sizes of one.
template <typename Inputs>
Inputs networks_from(const Inputs& in, int64_t first) {
  Inputs part = in;
  part.size.I /= in.nets;
  part.size.N /= in.nets;
  part.size.M /= in.nets;
  part.nets = 1;
  part.net = first;
  part.beside = in.nets;
  part.x.data += first * part.size.I * in.x.stride_c;
  if (in.h0.data != nullptr) part.h0.data += first * part.size.N * in.h0.stride_c;
  if (in.timespans_per_neuron) {
    part.timespans.data += first * part.size.N * in.timespans.stride_c;
  }
  return part;
}
// Their results; `kept` is how many values a sample of one keeps.
template <typename Outputs, typename Inputs>
Outputs outputs_of(const Outputs& out, const Inputs& part, int64_t kept) {
  Outputs own = out;
  own.output.data += part.net * part.size.M * out.output.stride_c;
  own.hn += part.net * part.size.N;
  if (out.states != nullptr) own.states += part.net * part.size.B * kept;
  return own;
}
template <typename Gradients, typename Inputs>
Gradients gradients_of(const Gradients& grad, const Inputs& part, int64_t kept) {
  Gradients own = grad;
  if (grad.grad_output.data != nullptr) {
    own.grad_output.data += part.net * part.size.M * grad.grad_output.stride_c;
  }
  if (grad.grad_hn.data != nullptr) {
    own.grad_hn.data += part.net * part.size.N * grad.grad_hn.stride_c;
  }
  own.states += part.net * part.size.B * kept;
  own.x.data += part.net * part.size.I * grad.x.stride_c;
  if (grad.h0 != nullptr) own.h0 += part.net * part.size.N;
  if (grad.timespans.data != nullptr && part.timespans_per_neuron) {
    own.timespans.data += part.net * part.size.N * grad.timespans.stride_c;
  }
  return own;
}

// Calls run(first, parallel) for every `together` networks.
template <typename T, typename Run>
void run_networks(const SequenceInputs<T>& in, int64_t together, const Parallel& parallel,
                  const Run& run) {
  const int64_t groups = (in.nets + together - 1) / together;
  const int64_t full = in.size.N * (in.size.I + in.size.N) / in.nets;  // synapses, at most
  const int64_t parts = 1 + in.size.B * in.size.T * full / kEvaluationsWorthAThread;
  // As many threads as a group could have work for.
  constexpr int64_t L = Simd<T>::lanes;
  const int64_t own = together > 1 ? in.size.B : (in.size.B + L - 1) / L;
  if (groups < parallel.threads && groups < own) {
    for (int64_t g = 0; g < groups; ++g) run(g * together, parallel);
    return;
  }
  const Parallel alone{1, parallel.run};
  run_ranges(parallel, groups, parts, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) run(g * together, alone);
  });
}

// The same backwards: run(first, gradients, parallel). The gradient of a time step that networks
// share is the sum over them, in their order.
template <typename T, typename Gradients, typename Run>
void run_networks_backward(const SequenceInputs<T>& in, const Gradients& grad, int64_t together,
                           const Parallel& parallel, const Run& run) {
  const bool shared = grad.timespans.data != nullptr && !in.timespans_per_neuron;
  const int64_t steps = in.size.B * in.size.T, groups = (in.nets + together - 1) / together;
  const Block block(shared ? sizeof(T) * static_cast<size_t>(groups * steps) : 0);
  T* const of_groups = reinterpret_cast<T*>(block.data());
  run_networks(in, together, parallel, [&](int64_t first, const Parallel& inner) {
    Gradients own = grad;
    if (shared) own.timespans = {of_groups + first / together * steps, in.size.T, 1, 0};
    run(first, own, inner);
  });
  for (int64_t b = 0; shared && b < in.size.B; ++b) {
    for (int64_t t = 0; t < in.size.T; ++t) {
      T total = 0;
      for (int64_t g = 0; g < groups; ++g) total += of_groups[g * steps + b * in.size.T + t];
      grad.timespans.data[b * grad.timespans.stride_b + t * grad.timespans.stride_t] = total;
    }
  }
}

}  // namespace fastltc::cpu::FASTLTC_ISA
