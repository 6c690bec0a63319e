// Mixed memory: an LSTM cell that runs before the liquid cell in every step, on rows of lanes.
//
// Maths (Lechner and Hasani, Learning Long-Term Dependencies in Irregularly-Sampled Time Series,
// 2020), from the state h that the liquid cell left and the input x as given:
//   a, i, f, o = W x + b + R h
//   c' = c sigmoid(f + 1) + tanh(a) sigmoid(i)     v = tanh(c') sigmoid(o)
// v is the state from which the liquid cell goes on.
//
// Layout: the gates of a neuron are neighbouring rows of one packed weight, whose inputs are x and
// then h. A step keeps kMemoryRows rows of each neuron for the backward pass: tanh(a),
// sigmoid(i), sigmoid(f + 1), sigmoid(o) and c'.
#pragma once

#include "core/sequence.h"
#include "cpu/cells/activations.h"
#include "cpu/cells/dense.h"
#include "cpu/cells/gates.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/gradient_sums.h"
#include "cpu/frame/initial_state.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

inline constexpr int64_t kMemoryGates = 4;

template <typename T>
struct PackedMemory {
  bool present = false;
  int64_t inputs = 0;
  int64_t neurons = 0;
  PackedWeight<T> forward;
  PackedWeight<T> backward;  // the transpose

  void take(Arena& arena, const SequenceInputs<T>& in, bool with_backward) {
    present = in.memory.weight != nullptr;
    if (!present) return;
    inputs = in.size.I;
    neurons = in.size.N;
    forward.take(arena, kMemoryGates * neurons, inputs + neurons);
    if (with_backward) backward.take(arena, inputs + neurons, kMemoryGates * neurons);
  }

  void fill(const SequenceInputs<T>& in, bool with_backward) {
    if (!present) return;
    forward.clear();
    for (int64_t gate = 0; gate < kMemoryGates; ++gate) {
      for (int64_t j = 0; j < neurons; ++j) {
        const int64_t from = gate * neurons + j, row = j * kMemoryGates + gate;
        for (int64_t k = 0; k < inputs; ++k) {
          forward.at(row, k) = in.memory.weight[from * inputs + k];
        }
        for (int64_t k = 0; k < neurons; ++k) {
          forward.at(row, inputs + k) = in.memory.recurrent_weight[from * neurons + k];
        }
        forward.bias[row] = in.memory.bias[from] + (gate == 2 ? T(1) : T(0));
      }
    }
    if (with_backward) backward.transpose_of(forward);
  }

  // Values of one sample and step that the backward pass needs.
  int64_t kept() const { return present ? kMemoryRows * neurons : 0; }
  int64_t sums_count() const {
    return present ? OuterProducts<T>(forward, nullptr).sums_count() : 0;
  }
  // In sigmoids, a dozen multiply-adds counted as one.
  int64_t evaluations() const {
    return present ? kMemoryGates * neurons * (inputs + neurons) / 12 + 5 * neurons : 0;
  }
};

template <typename T, int W>
struct MemoryForward {
  using S = Simd<T>;
  using vec = typename S::vec;

  const PackedMemory<T>& layer;
  Rows<T> c{};        // [N]
  Rows<T> product{};  // [4N]
  Rows<T> kept{};     // [5N], where the step does not write to the caller's
  InitialState<T, W> initial{};

  void take(Arena& arena, const SequenceInputs<T>& in) {
    const int64_t N = layer.neurons;
    initial.take(arena, in, N, N, false);
    c.take(arena, W, N);
    product.take(arena, W, padded_rows(kMemoryGates * N));
    kept.take(arena, W, kMemoryRows * N);
  }

  // The memory stands behind the state in h0 and hn.
  void start(const SequenceInputs<T>& in, const LaneGroup (&group)[W]) {
    load_state(in.h0, layer.neurons, layer.neurons, group, c);
    initial.start(in, group);
  }
  void write_last(const SequenceView<T>& hn, const LaneGroup (&group)[W]) const {
    store_state(hn, layer.neurons, layer.neurons, group, c);
  }

  // One step: x [I] and h [N] in, `next` [N] and the memory out. What the backward pass needs goes
  // to `keep` [5N]. Samples that do not run (`active` may be null) hold their memory.
  void step(Rows<const T> x, Rows<const T> h, Rows<T> next, Rows<T> keep,
            const ActiveLanes<T>* active) {
    const int64_t N = layer.neurons;
    dense_rows<T, W>(layer.forward, x, layer.inputs, h, N, product);
    for (int64_t j = 0; j < N; ++j) {
      for (int r = 0; r < W; ++r) {
        const T* const z = product.at(r, j * kMemoryGates);
        const MemoryGates<T> gates(S::load(z), S::load(z + S::lanes), S::load(z + 2 * S::lanes),
                                   S::load(z + 3 * S::lanes));
        const vec before = S::load(c.at(r, j)), after = gates.next(before);
        T* const to = keep.at(r, j * kMemoryRows);
        S::store(to, gates.a);
        S::store(to + S::lanes, gates.i);
        S::store(to + 2 * S::lanes, gates.f);
        S::store(to + 3 * S::lanes, gates.o);
        S::store(to + 4 * S::lanes, after);
        S::store(next.at(r, j), gates.output(after));
        S::store(c.at(r, j), active == nullptr ? after : active[r].mask ? after : before);
      }
    }
  }
};

template <typename T, int W>
struct MemoryBackward {
  using S = Simd<T>;
  using vec = typename S::vec;

  const PackedMemory<T>& layer;
  PutByProducts<T, W> products{};
  Rows<T> kept{};         // [5N] what a step of a partial tile kept
  Rows<T> kept_before{};  // [5N] and the step before it
  Rows<T> grad_c{};       // [N] the gradient of the memory after the step, then before it
  Rows<T> grad_in{};      // [I + N] of x and of h
  Rows<T> first_c{};      // [N] the initial memory
  InitialState<T, W> initial{};

  // `sums`: PackedMemory::sums_count() values.
  void take(Arena& arena, const SequenceInputs<T>& in, T* sums) {
    if (!layer.present) return;
    const int64_t N = layer.neurons;
    initial.take(arena, in, N, N, true);
    kept.take(arena, W, kMemoryRows * N);
    kept_before.take(arena, W, kMemoryRows * N);
    grad_c.take(arena, W, N);
    first_c.take(arena, W, N);
    grad_in.take(arena, W, padded_rows(layer.forward.inputs));
    products.take(arena, 1, in.size.T, sums,
                  [&](int64_t) -> const PackedWeight<T>& { return layer.forward; });
  }

  void start(const SequenceInputs<T>& in, const SequenceView<const T>& grad_hn,
             const LaneGroup (&group)[W]) {
    products.start();
    initial.start(in, group);
    load_state_gradient(grad_hn, layer.neurons, layer.neurons, group, grad_c);
  }

  // The memory of all neurons: every so many rows one.
  struct Memory {
    Rows<const T> rows;
    int64_t distance;
  };
  static Memory memory_after(Rows<const T> kept_of_step) {
    return {kept_of_step.from(kMemoryRows - 1), kMemoryRows};
  }
  Memory initial_memory(const SequenceInputs<T>& in, const LaneGroup (&group)[W]) {
    load_state(in.h0, layer.neurons, layer.neurons, group, first_c);
    return {constant(first_c), 1};
  }
  Memory with_resets(const typename S::ivec (&reset)[W], Memory before) const {
    return {initial.begin_step(reset, before.rows, before.distance), 1};
  }

  // A step's v again, of what it kept.
  void output(Rows<const T> kept_of_step, Rows<T> v) const {
    for (int64_t j = 0; j < layer.neurons; ++j) {
      for (int r = 0; r < W; ++r) {
        const T* const from = kept_of_step.at(r, j * kMemoryRows);
        S::store(v.at(r, j), tanh<T>(S::load(from + 4 * S::lanes)) * S::load(from + 3 * S::lanes));
      }
    }
  }

  // One step back: the gradient of v [N] and that of the memory in, those of x and h out, in
  // `grad_in`, and of the memory before the step. `x`, `h` and `memory_before` are what the step
  // was given. The lanes of samples that do not run come in with a gradient of zero for v; what is
  // wanted of their memory passes by.
  void step(Rows<const T> kept_of_step, Memory memory_before, Rows<const T> grad_v, Rows<const T> x,
            Rows<const T> h, const ActiveLanes<T>* active, bool last) {
    const int64_t N = layer.neurons;
    const Rows<T> grad_z = products.gradients(0);
    for (int64_t j = 0; j < N; ++j) {
      for (int r = 0; r < W; ++r) {
        const T* const from = kept_of_step.at(r, j * kMemoryRows);
        const vec a = S::load(from), i = S::load(from + S::lanes);
        const vec f = S::load(from + 2 * S::lanes), o = S::load(from + 3 * S::lanes);
        const vec size = tanh<T>(S::load(from + 4 * S::lanes));
        const vec g = S::load(grad_v.at(r, j));
        const vec given = S::load(grad_c.at(r, j));
        const vec carried = active == nullptr ? given : active[r].mask ? given : vec{};
        const vec gc = carried + g * o * (T(1) - size * size);
        T* const z = grad_z.at(r, j * kMemoryGates);
        S::store(z, gc * i * (T(1) - a * a));
        S::store(z + S::lanes, gc * a * i * (T(1) - i));
        const vec c = S::load(memory_before.rows.at(r, j * memory_before.distance));
        S::store(z + 2 * S::lanes, gc * c * f * (T(1) - f));
        S::store(z + 3 * S::lanes, g * size * o * (T(1) - o));
        const vec before = gc * f;
        S::store(grad_c.at(r, j), active == nullptr ? before : active[r].mask ? before : given);
      }
    }
    products.put_inputs(0, x, layer.inputs, h, N);
    dense_rows<T, W>(layer.backward, constant(grad_z), layer.forward.rows, {}, 0, grad_in);
    products.end_step(last);
  }

  void write_first(const SequenceView<T>& grad_h0, const LaneGroup (&group)[W]) const {
    initial.add_gradient(grad_c);
    store_state(grad_h0, layer.neurons, layer.neurons, group, grad_c);
  }
};

// Writes the gradients of the memory cell's parameters from the sums of one thread, into which
// those of the others have been added.
template <typename T>
void write_memory_gradients(const PackedMemory<T>& layer, T* sums, const MemoryGradients<T>& grad) {
  if (!layer.present) return;
  const int64_t N = layer.neurons, I = layer.inputs;
  const OuterProducts<T> product(layer.forward, sums);
  for (int64_t gate = 0; gate < kMemoryGates; ++gate) {
    for (int64_t j = 0; j < N; ++j) {
      const int64_t to = gate * N + j, row = j * kMemoryGates + gate;
      for (int64_t k = 0; k < I; ++k) {
        grad.weight[to * I + k] = product.weight_sum(row, k);
      }
      for (int64_t k = 0; k < N; ++k) {
        grad.recurrent_weight[to * N + k] = product.weight_sum(row, I + k);
      }
      grad.bias[to] = product.bias_sum(row);
    }
  }
}

}  // namespace fastltc::cpu::FASTLTC_ISA
