// Launches of what mixed memory (memory.cuh) needs besides the recurrence of its layer, and where
// it lies in the scratch memory of a call.
#pragma once

#include "cuda/frame/resets.cuh"
#include "cuda/frame/state_copy.cuh"
#include "cuda/memory.cuh"
#include "cuda/stage_pass.h"

namespace fastltc::cuda {

// The memory's half of a state [B, 2N].
template <typename V>
SequenceView<V> memory_half(SequenceView<V> state, int64_t neurons) {
  if (state.data != nullptr) state.data += neurons * state.stride_c;
  return state;
}

// The cell's recurrence in steps of all samples at once.
template <typename T, bool by_neuron>
struct MemorySteps {
  MemoryStep<T> call{};
  cudaStream_t stream = nullptr;

  // Begins with this memory; backward, with this gradient of it.
  void begin(const SequenceView<const T>& state) const {
    copy_state(state, memory(), call.rows.B, call.stage.units, stream);
  }
  SequenceView<T> memory() const { return {call.c, call.stage.units, 0, 1}; }
  Resets<T> resets() const {
    return {call.rows, call.rows.reset_to_zero ? SequenceView<const T>() : call.c0,
            call.stage.units, stream};
  }
  // From h to v. Where there are resets, of the memory too.
  void step(int64_t t, const T* h, T* v) const {
    if (call.rows.may_begin_anew(t)) {
      const SequenceView<T> c = memory();
      resets().begin_step(t, {c.data, c.stride_b, c.stride_t, c.stride_c}, c);
    }
    launch_tiles("memory_step", memory_step_kernel<T, by_neuron>, call.rows.B, call.stage.width(),
                 stream, call, t, h, v);
  }
  // From the gradient of v to that of h, both in g.
  // `grad_c0` is that of the initial memory, to which resets add.
  void step_backward(int64_t t, T* g, const SequenceView<T>& grad_c0) const {
    launch_threads("memory_step_gradient", memory_step_gradient_kernel<T, by_neuron>,
                   call.rows.B * call.stage.units, stream, call, t, g);
    launch_tiles("memory_state_gradient", memory_state_gradient_kernel<T, by_neuron>, call.rows.B,
                 call.stage.units, stream, call, t, g);
    if (resets().present()) resets().begin_step_gradient(t, memory(), grad_c0);
  }
  // The memory, or its gradient, into its half of the state.
  void end(const SequenceView<T>& state) const {
    const SequenceView<const T> from{call.c, call.stage.units, 0, 1};
    copy_state(from, state, call.rows.B, call.stage.units, stream);
  }
};

// Of a layer that has no other stages.
template <typename T>
struct MemoryPass {
  int threads = 0;  // of a block that runs a sample; 0: a step of all samples is run at once
  bool backward = false;
  int64_t N = 0;
  StagePass<T> products{};
  MemorySteps<T, true> steps{};
  T* gates = nullptr;  // [rows][N][4]: W x + b forward, gz backward
  Gates<T>* packed = nullptr;
  const T* recurrent_weight = nullptr;

  bool present() const { return recurrent_weight != nullptr; }
  int lanes() const { return lanes_each(threads, static_cast<int>(N)); }

  // Does nothing without mixed memory.
  void take(Scratch& scratch, const SequenceInputs<T>& in, const SequenceRows<T>& rows,
            int block_threads, bool with_backward) {
    recurrent_weight = in.memory.recurrent_weight;
    if (!present()) return;
    N = in.size.N;
    threads = block_threads;
    backward = with_backward;
    gates = scratch.take<T>(4 * N * rows.count);
    Stage<T> stage;
    stage.role = StageRole::memory;
    stage.units = stage.own = static_cast<int>(N);
    stage.gates = stage.stride = 4;
    stage.inputs = static_cast<int>(in.size.I);
    stage.reads_x = true;
    stage.kept_pitch = static_cast<int>(kKeptRows * N);
    stage.dz = gates;
    products = {};
    products.x = {in.x, rows};
    products.stream = steps.stream;
    products.add(scratch, stage, memory_tensors<const T>(in.memory, in.size.I, N), nullptr, false);
    if (threads > 0) packed = scratch.take<Gates<T>>(packed_weights(N, lanes(), threads));
    steps.call = {products.stages[0], rows, gates, memory_half(in.h0, N),
                  threads > 0 ? nullptr : scratch.take<T>(N * rows.B)};
    if (backward) products.take_parts(scratch);
  }

  // What the recurrence needs, before it.
  void prepare(const SequenceView<const T>& grad_hn) const {
    if (!present()) return;
    products.pack();
    if (threads > 0) {
      launch_threads("memory_pack", memory_pack_kernel<T>, packed_weights(N, lanes(), threads),
                     steps.stream, recurrent_weight, N, lanes(), threads, backward, packed);
    } else {
      steps.begin(backward ? memory_half(grad_hn, N) : steps.call.c0);
    }
    if (!backward) return products.products_with_x(products.stages[0], gates);
    // Past the end of a sample nobody writes them.
    const size_t bytes = sizeof(T) * static_cast<size_t>(4 * N * products.x.rows.count);
    if (products.x.rows.lengths == nullptr || bytes == 0) return;
    check(cudaMemsetAsync(gates, 0, bytes, steps.stream), "memset");
  }

  // Steps of all samples at once, which keep to `kept` [row][N][5] or read it.
  MemorySteps<T, true> keeping(T* kept) const {
    MemorySteps<T, true> found = steps;
    found.call.stage.kept = kept;
    return found;
  }
  // For a block that runs a sample.
  SampleMemory<T> of_sample(const SequenceView<const T>& grad_hn) const {
    Gates<T>* const of_rows = reinterpret_cast<Gates<T>*>(gates);
    return {
        of_rows, packed, steps.call.c0, present() ? lanes() : 1, of_rows, memory_half(grad_hn, N)};
  }

  // After the recurrence: the gradients of the parameters, and what is added to that of x, which
  // has been written. h [B, T, N] is the state with which each step begins.
  void gradients(const SequenceView<const T>& h, const MemoryGradients<T>& grad,
                 const SequenceView<T>& grad_x) const {
    if (!present()) return;
    products.weight_gradients(
        [&](int64_t, StageSums<T>& sums) { sums.own_view = h; },
        [&](int64_t) { return memory_tensors<T>(grad, products.stages[0].inputs, N); });
    products.input_gradient(true, grad_x);
  }
};

}  // namespace fastltc::cuda
