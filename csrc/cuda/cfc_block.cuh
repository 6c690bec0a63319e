// The recurrent part of CfC, whole sequences of four samples in one block: the plan block_per_tile,
// for all layers of up to 12 stages whose weights a block can read again in each step.
//
// Maths: cfc_layer.h; of the memory cell, memory.cuh.
//
// Layout: states and activations in shared memory are [neuron][4 samples], dz [unit][gate][4].
//
// Plan: the stages of a step run one after another, a barrier between them. A warp has eight units
// at a time, four lanes for each: they share out the stage's columns, each for all four samples and
// gates; then they add up by shuffles in such a way that each lane has the sums of one sample,
// whose gates it goes on to compute. Backward each lane first makes dz of one unit and sample; then
// the lanes of a column share out the units in the same way. Weights are in shared memory where
// they fit, so that the four lanes meet in no bank, else they come from the second cache in every
// step, 128 bytes for each quarter of a warp.
//
// Bound by the reads of the weights (each is used four times) and, while blocks are few, by the
// chain of a step. Every sum has one order, which depends on the sizes alone.
#pragma once

#include "cuda/cfc_layer.h"
#include "cuda/cfc_warp.cuh"
#include "cuda/memory.cuh"

// Loads that are under way at once: float64 takes twice the registers.
#if defined(__CUDACC__)
#define FASTLTC_UNROLL_LOADS _Pragma("unroll (sizeof(T) == 4 ? 4 : 1)")
#else
#define FASTLTC_UNROLL_LOADS
#endif

namespace fastltc::cuda {

inline constexpr int kBlockSamples = 4;
inline constexpr int kBlockMaxThreads = 512;
// Lanes of a warp: eight units, four lanes for each, eight apart.
inline constexpr int kWarpUnits = kWarp / kBlockSamples;

template <typename T>
struct CfcBlockCall {
  CfcLayer<T> layer;
  Results<T> out;
  CfcWanted<T> grad;
  int count = 0;
  int most_units = 0;   // of a stage
  int most_values = 0;  // units times gates of a stage
  Stage<T> stages[kCfcMaxStages];
  Stage<T> memory;  // where layer.remembers
};

// Values of the weights of a step, each stage's rounded up to whole quads.
template <typename T>
FASTLTC_DEVICE int64_t step_weights(const Stage<T>& stage) {
  return (stage.columns() * stage.width() + 3) / 4 * 4;
}
template <typename T>
FASTLTC_DEVICE int64_t step_weights(const CfcBlockCall<T>& call) {
  int64_t count = call.layer.remembers ? step_weights(call.memory) : 0;
  for (int s = 0; s < call.count; ++s) count += step_weights(call.stages[s]);
  return count;
}

// Quads of shared memory besides the weights.
inline int64_t block_forward_quads(int64_t neurons, int64_t most_units) {
  return 4 * neurons + 2 * most_units;
}
inline int64_t block_backward_quads(int64_t neurons, int64_t most_units, int64_t most_values) {
  return 3 * neurons + most_units + most_values;
}

// A thread's place in the block.
struct BlockPlace {
  int part;   // of the columns or units of a sum, then the sample
  int first;  // unit, or column
  int step;   // to the next

  __device__ BlockPlace() {
    const int thread = static_cast<int>(threadIdx.x);
    part = thread % kWarp / kWarpUnits;
    first = thread / kWarp * kWarpUnits + thread % kWarpUnits;
    step = static_cast<int>(blockDim.x) / kBlockSamples;
  }
  // The same for all lanes of a warp, which shuffle together.
  __device__ bool goes_on(int unit, int units) const {
    return unit - static_cast<int>(threadIdx.x) % kWarpUnits < units;
  }
};

// From the four lanes' parts of four samples' sums to the whole sum of the lane's own sample.
template <typename T>
__device__ __forceinline__ T sum_of_sample(const T (&parts)[kBlockSamples], int part) {
  const bool upper = part >= 2, odd = part % 2 == 1;
  T two[2];
  FASTLTC_UNROLL
  for (int n = 0; n < 2; ++n) {
    const T kept = upper ? parts[2 + n] : parts[n];
    const T given = upper ? parts[n] : parts[2 + n];
    two[n] = kept + __shfl_xor_sync(kFullMask, given, 2 * kWarpUnits);
  }
  const T kept = odd ? two[1] : two[0];
  const T given = odd ? two[0] : two[1];
  return kept + __shfl_xor_sync(kFullMask, given, kWarpUnits);
}

// Asks for a line of memory that is read later.
__device__ __forceinline__ void prefetch([[maybe_unused]] const void* at) {
#if defined(__CUDA_ARCH__)
  asm volatile("prefetch.global.L1 [%0];" ::"l"(at));
#endif
}

template <typename T, int stride>
struct alignas(stride == 4 ? 16 : sizeof(T)) PackedGates {
  T value[stride];
};

// The sums of a unit for the lane's sample: weights [column][units], in each at `place`.
template <typename T, int gates, int stride>
__device__ __forceinline__ void add_columns(const PackedGates<T, stride>* weight, int units,
                                            int place, int part, const Four<T>* from, int columns,
                                            T (&sums)[gates][kBlockSamples]) {
  FASTLTC_UNROLL_LOADS
  for (int k = part; k < columns; k += kBlockSamples) {
    const PackedGates<T, stride> w = weight[static_cast<int64_t>(k) * units + place];
    const Four<T> value = from[k];
    FASTLTC_UNROLL
    for (int g = 0; g < gates; ++g) {
      FASTLTC_UNROLL
      for (int s = 0; s < kBlockSamples; ++s) sums[g][s] += w.value[g] * value.value[s];
    }
  }
}

// Where value k of a row stands in shared memory, if weights are single values: of four rows, which
// a warp reads at once, the same eight values would else be in the same banks.
FASTLTC_DEVICE int swizzled(int k, int row, int width) {
  const int turn = width % 32 == 0 ? row % 4 : width % 32 == 16 ? row / 2 % 2 : 0;
  return k ^ turn * kWarpUnits;
}

// Copies the weights of all stages to the front of shared memory.
template <typename T>
__device__ void take_weights(const CfcBlockCall<T>& call, bool transposed, Four<T>* to) {
  const auto take = [&](const Stage<T>& stage) {
    const T* const from = transposed ? stage.transposed : stage.step_weight();
    T* const values = reinterpret_cast<T*>(to);
    const int count = static_cast<int>(stage.columns() * stage.width());
    const int width = transposed ? stage.columns() : stage.units;
    for (int k = static_cast<int>(threadIdx.x); k < count; k += static_cast<int>(blockDim.x)) {
      const int row = k / width, first = row * width;
      values[stage.stride == 1 ? first + swizzled(k - first, row, width) : k] = from[k];
    }
    to += step_weights(stage) / 4;
  };
  if (call.layer.remembers) take(call.memory);
  for (int s = 0; s < call.count; ++s) take(call.stages[s]);
}

// What a thread knows of its sample.
template <typename T>
struct BlockSample {
  int64_t b = 0;
  int64_t length = 0;  // 0 past the batch
  bool is_there = false;

  __device__ BlockSample(const CfcLayer<T>& layer, int64_t tile, int part) {
    b = tile * kBlockSamples + part;
    is_there = b < layer.rows.B;
    if (is_there) length = layer.rows.length(b);
  }
};
template <typename T>
__device__ int64_t longest(const CfcLayer<T>& layer, int64_t tile) {
  int64_t most = 0;
  for (int s = 0; s < kBlockSamples; ++s) {
    const int64_t length = BlockSample<T>(layer, tile, s).length;
    most = length > most ? length : most;
  }
  return most;
}

template <typename T>
struct BlockForward {
  const CfcBlockCall<T>& call;
  const BlockPlace place;
  Four<T>* h;         // [N] before the step
  Four<T>* next;      // [N] after it
  Four<T>* recalled;  // [N] what the memory cell makes of h
  Four<T>* c;         // [N] the memory
  Four<T>* even;      // [most units] activations of every other backbone layer
  Four<T>* odd;

  __device__ BlockForward(const CfcBlockCall<T>& which, Four<T>* quads) : call(which) {
    const int64_t N = call.layer.size.N;
    h = quads;
    next = h + N;
    recalled = next + N;
    c = recalled + N;
    even = c + N;
    odd = even + call.most_units;
  }

  template <int gates, int stride, StageRole role>
  __device__ void stage(const Stage<T>& stage, const T* weight, bool in_shared,
                        const BlockSample<T>& sample, int64_t t, const Four<T>* from,
                        const Four<T>* own, Four<T>* to) const {
    const CfcLayer<T>& layer = call.layer;
    const int units = stage.units, part = place.part;
    const bool active = t < sample.length;
    const int64_t r = layer.row(sample.b, t);
    const T* const given = role == StageRole::memory ? layer.given_memory : layer.given;
    const auto* const packed = reinterpret_cast<const PackedGates<T, stride>*>(weight);
    for (int first = place.first; place.goes_on(first, units); first += place.step) {
      const int u = first < units ? first : units - 1;
      // Read before the sums, which take longer.
      T z[gates], dt = T(1), factor = T(1);
      FASTLTC_UNROLL
      for (int g = 0; g < gates; ++g) {
        z[g] = !stage.reads_x ? stage.bias[u * stride + g]
               : active       ? given[r * stage.width() + u * stride + g]
                              : T(0);
      }
      if (active && role == StageRole::cell && gates != 3) {
        dt = layer.rows.step(sample.b, t, stage.first + u);
      }
      if (active && role == StageRole::backbone) factor = dropout_factor(stage, sample.b, t, u);
      T sums[gates][kBlockSamples] = {};
      const int inputs = stage.reads_x ? 0 : stage.inputs;
      const auto place_from = [&](int row) {
        return stride == 1 && in_shared ? swizzled(u, row + part, units) : u;
      };
      add_columns<T, gates, stride>(packed, units, place_from(0), part, from, inputs, sums);
      add_columns<T, gates, stride>(packed + static_cast<int64_t>(inputs) * units, units,
                                    place_from(inputs), part, own, stage.own, sums);
      FASTLTC_UNROLL
      for (int g = 0; g < gates; ++g) z[g] += sum_of_sample(sums[g], part);
      if (first >= units) continue;
      if constexpr (role == StageRole::backbone) {
        to[u].value[part] = activate(layer.activation, z[0]).value * factor;
        if (stage.kept != nullptr && sample.is_there) {
          stage.kept[r * stage.kept_pitch + u] = active ? z[0] : T(0);
        }
      } else if constexpr (role == StageRole::memory) {
        Gates<T> gate{z[0], z[1], z[2], z[3]};
        T memory = c[u].value[part];
        const T value = memory_forward(gate, memory);
        to[u].value[part] = value;
        if (active) c[u].value[part] = memory;
        if (stage.kept != nullptr && sample.is_there) {
          keep_memory(stage.kept + r * stage.kept_pitch + u * kKeptRows, gate, memory, active);
        }
      } else {
        const int j = stage.first + u;
        const T state = finish_cell<T, gates>(layer, call.out, stage, sample.b, t, u, z, dt,
                                              h[j].value[part], active, sample.is_there);
        to[j].value[part] = state;
        if (sample.is_there && call.out.states != nullptr) {
          call.out.states[(r + layer.rows.B) * layer.size.N + j] = state;
        }
      }
    }
  }

  // Weights: those in shared memory, or null where they stay where they are.
  template <int gates>
  __device__ void step(const T* shared_weights, const BlockSample<T>& sample, int64_t t) {
    const T* at = shared_weights;
    const bool in_shared = shared_weights != nullptr;
    const auto weights = [&](const Stage<T>& stage) -> const T* {
      if (!in_shared) return stage.step_weight();
      const T* const mine = at;
      at += step_weights(stage);
      return mine;
    };
    constexpr int stride = gates == 1 ? 1 : 4;
    const Four<T>* own = h;
    if (call.layer.remembers) {
      stage<4, 4, StageRole::memory>(call.memory, weights(call.memory), in_shared, sample, t,
                                     nullptr, h, recalled);
      own = recalled;
      __syncthreads();
    }
    const Four<T>* from = nullptr;
    for (int s = 0; s < call.count; ++s) {
      const Stage<T>& which = call.stages[s];
      const T* const weight = weights(which);
      if (which.role == StageRole::backbone) {
        Four<T>* const to = s % 2 == 0 ? even : odd;
        stage<1, 1, StageRole::backbone>(which, weight, in_shared, sample, t, from, own, to);
        from = to;
      } else {
        stage<gates, stride, StageRole::cell>(which, weight, in_shared, sample, t, from,
                                              own + which.first, next);
        from = next + which.first;
      }
      __syncthreads();
    }
    swap_buffers(h, next);
  }

  // The initial state, with which a sample begins, or zeros: in shared memory only.
  __device__ void begin(const BlockSample<T>& sample, bool with_zeros) const {
    const CfcLayer<T>& layer = call.layer;
    const int64_t N = layer.size.N;
    for (int64_t j = place.first; j < N; j += place.step) {
      h[j].value[place.part] = with_zeros ? T(0) : layer.initial(sample.b, j);
      if (!layer.remembers) continue;
      c[j].value[place.part] = with_zeros ? T(0) : layer.initial(sample.b, N + j);
    }
  }

  template <int gates>
  __device__ void run(const T* shared_weights, int64_t tile) {
    const CfcLayer<T>& layer = call.layer;
    const Results<T>& out = call.out;
    const int64_t N = layer.size.N;
    const BlockSample<T> sample(layer, tile, place.part);
    const int64_t steps = longest(layer, tile), b = sample.b;
    const bool remembers = layer.remembers;
    begin(sample, !sample.is_there);
    for (int64_t j = place.first; j < N; j += place.step) {
      if (sample.is_there && out.states != nullptr) out.states[b * N + j] = h[j].value[place.part];
    }
    __syncthreads();
    for (int64_t t = 0; t < steps; ++t) {
      if (layer.rows.resets.data != nullptr) {
        if (sample.is_there && layer.rows.begins_anew(b, t)) {
          begin(sample, layer.rows.reset_to_zero);
        }
        __syncthreads();
      }
      step<gates>(shared_weights, sample, t);
    }
    if (!sample.is_there) return;
    for (int64_t j = place.first; j < N; j += place.step) {
      const T state = h[j].value[place.part];
      const int64_t m = layer.output_of(j);
      out.hn[b * layer.state_width() + j] = state;
      if (remembers) out.hn[b * 2 * N + N + j] = c[j].value[place.part];
      if (m >= 0 && !out.return_sequences) element(out.output, b, 0, m) = state;
      for (int64_t t = steps; t < layer.size.T; ++t) {
        if (m >= 0 && out.return_sequences) element(out.output, b, t, m) = T(0);
        if (out.states != nullptr) out.states[(layer.row(b, t) + layer.rows.B) * N + j] = state;
      }
    }
    if (out.states == nullptr) return;
    const auto clear = [&](const Stage<T>& stage, int values) {
      for (int64_t t = steps; t < layer.size.T; ++t) {
        for (int k = place.first; k < values; k += place.step) {
          stage.kept[layer.row(b, t) * stage.kept_pitch + k] = T(0);
        }
      }
    };
    if (remembers) clear(call.memory, call.memory.units * kKeptRows);
    for (int s = 0; s < call.count; ++s) {
      clear(call.stages[s], call.stages[s].units * call.stages[s].gates);
    }
  }
};

template <typename T>
struct BlockBackward {
  const CfcBlockCall<T>& call;
  const BlockPlace place;
  Four<T>* g;         // [N] gradient of the state after the step
  Four<T>* before;    // [N] and before it
  Four<T>* gc;        // [N] of the memory
  Four<T>* of_layer;  // [most units] of a backbone layer's activations
  Four<T>* dz;        // [most values]

  __device__ BlockBackward(const CfcBlockCall<T>& which, Four<T>* quads) : call(which) {
    const int64_t N = call.layer.size.N;
    g = quads;
    before = g + N;
    gc = before + N;
    of_layer = gc + N;
    dz = of_layer + call.most_units;
  }

  // dz of all units of a stage, into shared memory and into the stage's own.
  template <int gates, int stride, StageRole role>
  __device__ void gradients(const Stage<T>& stage, const BlockSample<T>& sample, int64_t t) const {
    const CfcLayer<T>& layer = call.layer;
    const int part = place.part;
    const bool active = t < sample.length;
    const int64_t b = sample.b, r = layer.row(b, t), N = layer.size.N;
    for (int u = place.first; u < stage.units; u += place.step) {
      PackedGates<T, stride> of{};
      if constexpr (role == StageRole::backbone) {
        const T value = of_layer[u].value[part];
        if (active) of.value[0] = backbone_gradient(layer, stage, b, t, u, value);
      } else if constexpr (role == StageRole::memory) {
        if (active) {
          const T* const keep = stage.kept + r * stage.kept_pitch + u * kKeptRows;
          const bool anew = layer.rows.begins_anew(b, t);
          const T c_before = anew && layer.rows.reset_to_zero ? T(0)
                             : t == 0 || anew ? layer.initial(b, N + u)
                                              : keep[4 - layer.rows.B * stage.kept_pitch];
          T memory = gc[u].value[part];
          const Gates<T> sums = memory_backward(keep, c_before, before[u].value[part], memory);
          gc[u].value[part] = memory;
          of = {sums.a, sums.i, sums.f, sums.o};
        }
      } else if (sample.is_there) {
        const CellGradient<T, gates> sums = finish_cell_backward<T, gates>(
            layer, call.grad, stage, b, t, u, g[stage.first + u].value[part], active);
        FASTLTC_UNROLL
        for (int n = 0; n < gates; ++n) of.value[n] = sums.dz[n];
      }
      FASTLTC_UNROLL
      for (int n = 0; n < gates; ++n) dz[u * gates + n].value[part] = of.value[n];
      if (sample.is_there) {
        *reinterpret_cast<PackedGates<T, stride>*>(stage.dz + r * stage.width() + u * stride) = of;
      }
    }
  }

  // What a stage kept of a step, which gradients() reads first.
  __device__ void ahead(const Stage<T>& stage, const BlockSample<T>& sample, int64_t t) const {
    if (t < 0 || t >= sample.length || place.first >= stage.units) return;
    const int values = stage.role == StageRole::memory ? kKeptRows : stage.gates;
    prefetch(stage.kept + call.layer.row(sample.b, t) * stage.kept_pitch + place.first * values);
  }

  // From dz to the gradients of what the stage was given: `from` of the stage before (added to
  // where that is a cell), `own` of its own state, where samples that do not run keep `held`.
  template <int gates, int stride>
  __device__ void through(const Stage<T>& stage, const T* weight, bool in_shared, bool active,
                          Four<T>* from, bool add, Four<T>* own, const Four<T>* held) const {
    const int columns = stage.columns(), part = place.part;
    const int inputs = stage.reads_x ? 0 : stage.inputs;
    const auto* const packed = reinterpret_cast<const PackedGates<T, stride>*>(weight);
    for (int first = place.first; place.goes_on(first, columns); first += place.step) {
      const int k = first < columns ? first : columns - 1;
      const int at = stride == 1 && in_shared ? swizzled(k, part, columns) : k;
      T sums[kBlockSamples] = {};
      FASTLTC_UNROLL_LOADS
      for (int u = part; u < stage.units; u += kBlockSamples) {
        const PackedGates<T, stride> w = packed[static_cast<int64_t>(u) * columns + at];
        FASTLTC_UNROLL
        for (int n = 0; n < gates; ++n) {
          const Four<T> value = dz[u * gates + n];
          FASTLTC_UNROLL
          for (int s = 0; s < kBlockSamples; ++s) sums[s] += w.value[n] * value.value[s];
        }
      }
      const T total = sum_of_sample(sums, part);
      if (first >= columns) continue;
      if (k < inputs) {
        T& to = from[k].value[part];
        to = add ? to + total : total;
      } else {
        own[k - inputs].value[part] = active ? total : held[k - inputs].value[part];
      }
    }
  }

  template <int gates>
  __device__ void step(const T* shared_weights, const BlockSample<T>& sample, int64_t t) {
    constexpr int stride = gates == 1 ? 1 : 4;
    const bool active = t < sample.length, remembers = call.layer.remembers;
    const T* at = shared_weights;
    const bool in_shared = shared_weights != nullptr;
    if (in_shared) at += step_weights(call);
    const auto weights = [&](const Stage<T>& stage) -> const T* {
      if (!in_shared) return stage.transposed;
      at -= step_weights(stage);
      return at;
    };
    for (int s = call.count - 1; s >= 0; --s) {
      const Stage<T>& which = call.stages[s];
      const T* const weight = weights(which);
      const bool last = s == 0 && !remembers;
      const Stage<T>& next = s > 0       ? call.stages[s - 1]
                             : remembers ? call.memory
                                         : call.stages[call.count - 1];
      const bool after_cell = s > 0 && call.stages[s - 1].role == StageRole::cell;
      Four<T>* const from = after_cell ? g + call.stages[s - 1].first : of_layer;
      Four<T>* const own = before + which.first;
      const Four<T>* const held = g + which.first;
      if (which.role == StageRole::backbone) {
        gradients<1, 1, StageRole::backbone>(which, sample, t);
        ahead(next, sample, last ? t - 1 : t);
        __syncthreads();
        through<1, 1>(which, weight, in_shared, active, from, after_cell, own, held);
      } else {
        gradients<gates, stride, StageRole::cell>(which, sample, t);
        ahead(next, sample, last ? t - 1 : t);
        __syncthreads();
        through<gates, stride>(which, weight, in_shared, active, from, after_cell, own, held);
      }
      __syncthreads();
    }
    if (remembers) {
      gradients<4, 4, StageRole::memory>(call.memory, sample, t);
      ahead(call.stages[call.count - 1], sample, t - 1);
      __syncthreads();
      through<4, 4>(call.memory, weights(call.memory), in_shared, active, nullptr, false, g,
                    before);
      __syncthreads();
      return;
    }
    swap_buffers(g, before);
  }

  template <int gates>
  __device__ void run(const T* shared_weights, int64_t tile) {
    const CfcLayer<T>& layer = call.layer;
    const CfcWanted<T>& grad = call.grad;
    const int64_t N = layer.size.N, width = layer.state_width();
    const int part = place.part;
    const BlockSample<T> sample(layer, tile, part);
    const int64_t b = sample.b;
    const bool remembers = layer.remembers;
    for (int64_t j = place.first; j < N; j += place.step) {
      g[j].value[part] = sample.is_there ? grad.last_gradient(layer, b, j) : T(0);
      if (remembers) {
        gc[j].value[part] = sample.is_there ? grad.last_gradient(layer, b, N + j) : T(0);
      }
    }
    __syncthreads();
    // From the gradient of the state with which a step begins to that of the initial one, if it was
    // that, and to that of the state before, which has none.
    const auto begin_step_gradient = [&](bool was_initial) {
      const bool adds = layer.rows.resets.data != nullptr;
      const auto move = [&](T& value, int64_t channel) {
        if (grad.grad_h0 != nullptr && was_initial) {
          T& to = grad.grad_h0[b * width + channel];
          to = adds ? to + value : value;
        }
        value = T(0);
      };
      for (int64_t j = place.first; j < N; j += place.step) {
        move(g[j].value[part], j);
        if (remembers) move(gc[j].value[part], N + j);
      }
    };
    // All steps, so that dz is written in all rows.
    for (int64_t t = layer.size.T - 1; t >= 0; --t) {
      step<gates>(shared_weights, sample, t);
      if (layer.rows.resets.data == nullptr) continue;
      if (sample.is_there && layer.rows.begins_anew(b, t)) {
        begin_step_gradient(!layer.rows.reset_to_zero);
      }
      __syncthreads();
    }
    if (sample.is_there) begin_step_gradient(true);
  }
};

// The loop over tiles stands in both kernels: in a function that is given the call by reference it
// takes up to 20 registers more.
template <typename T, int gates, bool in_shared>
__global__ void __launch_bounds__(kBlockMaxThreads, 1)
    cfc_block_forward_kernel(const __grid_constant__ CfcBlockCall<T> call) {
  Four<T>* const shared = reinterpret_cast<Four<T>*>(dynamic_shared());
  const int64_t weights = in_shared ? step_weights(call) / 4 : 0;
  if constexpr (in_shared) take_weights(call, false, shared);
  BlockForward<T> pass(call, shared + weights);
  const int64_t tiles = (call.layer.rows.B + kBlockSamples - 1) / kBlockSamples;
  // A thread begins a tile with what was its own at the end of the one before.
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    pass.template run<gates>(in_shared ? reinterpret_cast<const T*>(shared) : nullptr, tile);
  }
}

template <typename T, int gates, bool in_shared>
__global__ void __launch_bounds__(kBlockMaxThreads, 1)
    cfc_block_backward_kernel(const __grid_constant__ CfcBlockCall<T> call) {
  Four<T>* const shared = reinterpret_cast<Four<T>*>(dynamic_shared());
  const int64_t weights = in_shared ? step_weights(call) / 4 : 0;
  if constexpr (in_shared) take_weights(call, true, shared);
  BlockBackward<T> pass(call, shared + weights);
  const int64_t tiles = (call.layer.rows.B + kBlockSamples - 1) / kBlockSamples;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    pass.template run<gates>(in_shared ? reinterpret_cast<const T*>(shared) : nullptr, tile);
  }
}

}  // namespace fastltc::cuda
