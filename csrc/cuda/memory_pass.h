// Launches of what mixed memory (memory_cell.cuh) needs besides the recurrence, and where it lies
// in the scratch memory of a call; for every layer that may have it.
#pragma once

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/memory_cell.cuh"
#include "cuda/scratch.h"

namespace fastltc::cuda {

// How the recurrent kernel runs: a block of so many threads for a sample, or lanes that are
// samples.
struct MemoryPlan {
  int threads = 0;  // 0: lanes are samples

  bool by_sample() const { return threads > 0; }
  // As lanes_each in a kernel: the largest power of two up to threads / neurons, at most a warp.
  int lanes(int64_t neurons) const {
    int lanes = 1;
    while (lanes < kWarp && 2 * lanes * neurons <= threads) lanes *= 2;
    return lanes;
  }
};

template <typename T>
struct MemoryPass {
  MemoryPlan plan;
  MemoryCell<T> cell;
  Rows<T> rows;
  SequenceView<const T> c0;  // [B, N]; null: zeros
  cudaStream_t stream = nullptr;
  bool backward = false;
  // W x + b forward, gz backward; of all rows.
  GateView<T> gates;
  Gates<T>* packed = nullptr;  // plans by sample
  // Where lanes are samples, [N][B].
  T* c = nullptr;        // the memory; backward its gradient
  T* first_c = nullptr;  // backward: the memory before the first step
  int64_t part_count = 0;
  T* parts = nullptr;

  bool present() const { return cell.given.weight != nullptr; }

  // Does nothing without mixed memory.
  void take(Scratch& scratch, const SequenceInputs<T>& in, const Rows<T>& of, MemoryPlan which,
            bool with_backward) {
    cell.given = in.memory;
    if (!present()) return;
    const int64_t N = in.size.N;
    plan = which;
    backward = with_backward;
    rows = of;
    cell.inputs = in.size.I;
    cell.neurons = N;
    cell.x = in.x;
    c0 = behind(in.h0);
    T* const data = reinterpret_cast<T*>(scratch.take<Gates<T>>(rows.count * N));
    gates = plan.by_sample() ? gates_by_row(data, N) : gates_by_channel(data, rows.count);
    if (plan.by_sample()) {
      packed = scratch.take<Gates<T>>(packed_weights(N, plan.lanes(N), plan.threads));
    } else {
      c = scratch.take<T>(N * rows.B);
      if (backward) first_c = scratch.take<T>(N * rows.B);
    }
    if (!backward) return;
    const int64_t columns = cell.inputs + N + 1;
    const int64_t tiles = ceil_div(4 * N, kTileSide) * ceil_div(columns, kTileSide);
    // Enough blocks to fill a device, of at least 256 rows each.
    part_count = std::max<int64_t>(1, std::min(ceil_div(512, tiles), ceil_div(rows.count, 256)));
    parts = scratch.take<T>(part_count * 4 * N * columns);
  }

  // The memory's half of a state [B, 2N].
  template <typename V>
  SequenceView<V> behind(SequenceView<V> state) const {
    if (state.data != nullptr) state.data += cell.neurons * state.stride_c;
    return state;
  }
  GateView<const T> read_gates() const { return {gates.data, gates.row, gates.neuron, gates.gate}; }

  // What the recurrence needs, before it.
  void prepare(const SequenceView<const T>& grad_hn) const {
    if (!present()) return;
    const int64_t N = cell.neurons;
    if (plan.by_sample()) {
      const int lanes = plan.lanes(N);
      launch("memory_pack", memory_pack_kernel<T>,
             grid(ceil_div(packed_weights(N, lanes, plan.threads), kProductThreads)),
             kProductThreads, 0, stream, cell, lanes, plan.threads, backward, packed);
    } else {
      take_state(backward ? behind(grad_hn) : c0, c);
      if (backward) take_state(c0, first_c);
    }
    if (backward || rows.count == 0) return;
    launch("memory_input", memory_input_kernel<T>,
           grid(ceil_div(rows.count, kTileSide), ceil_div(4 * N, kTileSide)), kProductThreads, 0,
           stream, cell, rows, gates);
  }

  // For a block that runs a sample.
  SampleMemory<T> of_sample(const SequenceView<const T>& grad_hn) const {
    SampleMemory<T> memory;
    memory.input = backward ? nullptr : reinterpret_cast<const Gates<T>*>(gates.data);
    memory.packed = packed;
    memory.c0 = c0;
    memory.lanes = present() ? plan.lanes(cell.neurons) : 1;
    memory.gz = backward ? reinterpret_cast<Gates<T>*>(gates.data) : nullptr;
    memory.grad_c_last = behind(grad_hn);
    return memory;
  }

  // A step where lanes are samples; states are [N][B], `kept` [5][N][B].
  void step(int64_t t, const T* h, T* v, T* kept) const {
    launch("memory_step", memory_step_kernel<T>, tiles(4 * cell.neurons), kProductThreads, 0,
           stream, MemoryStep<T>{cell, rows, c}, t, read_gates(), h, v, kept);
  }
  // Back: from the gradient of v to that of h, both in g. `kept` and `kept_before` are those of
  // this step and of the one before, where there is one.
  void step_backward(int64_t t, const T* kept, const T* kept_before, T* g) const {
    const MemoryStep<T> call{cell, rows, c};
    const int64_t count = cell.neurons * rows.B;
    const T* const c_before = t == 0 ? first_c : kept_before + 4 * count;
    launch("memory_step_gradient", memory_step_gradient_kernel<T>,
           grid(ceil_div(count, kProductThreads)), kProductThreads, 0, stream, call, t, kept,
           c_before, g, gates);
    launch("memory_state_gradient", memory_state_gradient_kernel<T>, tiles(cell.neurons),
           kProductThreads, 0, stream, call, t, read_gates(), g);
  }
  // The memory, or its gradient, into the state [B, 2N].
  void write_state(const SequenceView<T>& state) const {
    const int64_t count = cell.neurons * rows.B;
    launch("memory_give", memory_give_kernel<T>, grid(ceil_div(count, kProductThreads)),
           kProductThreads, 0, stream, c, rows.B, count, behind(state));
  }

  // After the recurrence: the gradients of the parameters, and what is added to that of x, which
  // has been written. h [B, T, N] is the state before each step.
  void gradients(const SequenceView<const T>& h, const MemoryGradients<T>& grad,
                 const SequenceView<T>& grad_x) const {
    if (!present()) return;
    const int64_t N = cell.neurons, columns = cell.inputs + N + 1;
    if (rows.count > 0) {
      launch("memory_weight_sums", memory_weight_sums_kernel<T>,
             grid(ceil_div(columns, kTileSide), ceil_div(4 * N, kTileSide), part_count),
             kProductThreads, 0, stream, cell, rows, read_gates(), h, parts);
      if (cell.inputs > 0) {
        launch("memory_input_gradient", memory_input_gradient_kernel<T>,
               grid(ceil_div(rows.count, kTileSide), ceil_div(cell.inputs, kTileSide)),
               kProductThreads, 0, stream, cell, rows, read_gates(), grad_x);
      }
    }
    launch("memory_weight_gradients", memory_weight_gradients_kernel<T>,
           grid(ceil_div(4 * N * columns, kProductThreads)), kProductThreads, 0, stream, cell,
           rows.count == 0 ? 0 : part_count, parts, grad);
  }

 private:
  dim3 tiles(int64_t m) const { return grid(ceil_div(rows.B, kTileSide), ceil_div(m, kTileSide)); }
  void take_state(const SequenceView<const T>& from, T* to) const {
    const int64_t count = cell.neurons * rows.B;
    launch("memory_take", memory_take_kernel<T>, grid(ceil_div(count, kProductThreads)),
           kProductThreads, 0, stream, from, rows.B, count, to);
  }
};

}  // namespace fastltc::cuda
