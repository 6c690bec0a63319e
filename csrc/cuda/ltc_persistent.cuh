// The recurrent part of LTC, a whole sequence of one sample in one block: the plans warp_per_sample
// (a block is one warp) and block_per_sample.
//
// Maths (csrc/cpu/cells/ltc.h says where it is from), num and den being the sensory sums:
//   v'_j = (C_j v_j + dt (num_j + sum_i we_ij s_ij)) / (C_j + dt (den_j + sum_i w'_ij s_ij))
// Backward of one unfold, g the gradient of v':
//   gt = g / (C + dt den)   gn = dt gt   gd = -gn v'   h = (we gn + w' gd)(s - s^2)
//   g_j <- C_j gt_j + sum sigma h    P += s gn   Q += s gd   H += h   HV += h v_i
//
// Layout: num, den and their gradients [N][rows] (ltc_network.h); states [B][T U + 1][N]. With
// mixed memory a step has one more state, that before the memory cell, and a sample's states [T (U
// + 1) + 1][N] are followed by what the memory cell keeps, [T][5][N].
//
// Plan: the driven neurons, those with recurrent synapses, share the threads of a block: each gets
// G neighbouring lanes, a power of two, and each lane every G-th of its synapses. A lane keeps the
// parameters of the first `slots` in registers, and in the backward pass their four sums too, over
// all its samples and steps; further ones it reads from memory. States are exchanged through shared
// memory: forward one barrier for each unfold, backward two. Neurons without synapses (11 of the 19
// of AutoNCP(19, 2)) are another role of the threads: one multiply-add for each unfold.
// Backward, each synapse's share of the gradient of its presynaptic neuron goes through shared
// memory to the lanes that add up that neuron's, in the order of its list. No atomics; each block
// leaves its own sums, which ltc_last_gradients_kernel adds in order.
// Layers beside each other have blocks of their own: x of the grid is the layer, y shares out the
// samples. With mixed memory (memory.cuh) a step begins with its product and gates, which take
// one barrier more forward and two backward.
//
// Bound by the chain of an unfold (shared memory, 2^t, reciprocal, log2(G) shuffles, reciprocal,
// shared memory, barrier) while a warp or block does not fill its processor, else by the
// special-function units.
#pragma once

#include "cuda/ltc_network.h"
#include "cuda/memory.cuh"

namespace fastltc::cuda {

template <bool one_warp>
__device__ __forceinline__ void barrier() {
  if constexpr (one_warp) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

// The same value, of which the compiler knows nothing: else it computes what depends on it once,
// before the loops, into registers that are not there.
template <typename Integer>
__device__ __forceinline__ Integer opaque(Integer value) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(Integer) == 8) {
    asm volatile("" : "+l"(value));
  } else {
    asm volatile("" : "+r"(value));
  }
#endif
  return value;
}

// What a call is about. Each has kernels of its own: the first of them is short of registers as it
// is. The last is one layer with resets, where a block runs it.
enum LtcKind : int { kOneLayer, kLayers, kMixedMemory, kWithResets };

// Whether a kernel looks for resets: only large blocks have no registers for it.
template <bool one_warp, int kind>
inline constexpr bool takes_resets = one_warp || kind == kWithResets;

// The layer that a block runs, where several stand beside each other.
template <typename T, int kind>
struct Layer {
  const Network<T>& net;

  // Read again rather than kept in registers.
  __device__ int index() const {
    return kind == kLayers ? static_cast<int>(opaque(blockIdx.x)) : 0;
  }
  __device__ int neurons() const { return net.recurrent.neurons_each; }
  __device__ int64_t first_neuron() const { return int64_t{index()} * neurons(); }
  __device__ int first_synapse() const {
    return kind == kLayers ? net.recurrent.column[first_neuron()] : 0;
  }
  // Of the synapse at a position of the whole list. A list that is not well formed may lead to
  // another layer's: then the zero behind the states.
  __device__ int pre(int position) const {
    const int64_t own = net.recurrent.pre[position] - first_neuron();
    if (kind == kLayers && (own < 0 || own >= neurons())) return neurons();
    return static_cast<int>(own);
  }
};

// What a thread does. Neurons and synapses are counted from the first of the block's layer.
template <typename T, int slots>
struct Role {
  int lanes;      // G
  int driven;     // the neuron whose synapses it shares, or -1
  bool leads;     // the first of the neuron's lanes
  int leaky;      // the neuron without synapses that it runs, or -1
  int first;      // position of its first synapse
  int end;        // position after the neuron's last synapse
  T capacity[2];  // of the driven and of the leaky neuron
  // Empty slots read a zero behind the states and have no weight.
  Synapse<T> p[slots];
  // Their presynaptic neurons in the lower half; the upper half is for CollectRole.
  uint32_t indices[slots];

  // `most`: synapses of any layer.
  template <int kind>
  __device__ Role(const Layer<T, kind>& layer, int most) {
    const Network<T>& net = layer.net;
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    const int neurons = layer.neurons();
    const int64_t base = layer.first_neuron();
    const int first_synapse = layer.first_synapse();
    const int32_t* const order = net.order + base;
    const int32_t* const column = net.recurrent.column + base;
    const int count = net.driven_count[layer.index()];
    lanes = lanes_each(threads, count);
    const int group = thread / lanes;
    driven = group < count ? order[group] : -1;
    leads = driven >= 0 && thread % lanes == 0;
    leaky = count + thread < neurons ? order[count + thread] : -1;
    // A list that is not well formed may lead anywhere.
    const auto inside = [&](int k) { return k < 0 ? 0 : k > most ? most : k; };
    first = driven >= 0 ? inside(column[driven] - first_synapse) + thread % lanes : 0;
    end = driven >= 0 ? inside(column[driven + 1] - first_synapse) : 0;
    capacity[0] = driven >= 0 ? net.capacity[base + driven] : T(1);
    capacity[1] = leaky >= 0 ? net.capacity[base + leaky] : T(1);
    FASTLTC_UNROLL
    for (int n = 0; n < slots; ++n) {
      const int k = first + n * lanes;
      p[n] = k < end ? net.recurrent.parameters[first_synapse + k]
                     : Synapse<T>{T(0), T(0), T(0), T(0)};
      indices[n] = static_cast<uint32_t>(k < end ? layer.pre(first_synapse + k) : neurons);
    }
  }
  __device__ int pre(int n) const { return static_cast<int>(opaque(indices[n]) & 0xffffu); }
  __device__ int position(int n) const { return static_cast<int>(opaque(indices[n]) >> 16); }
  // The first synapse that has no slot.
  __device__ int spilled() const { return first + slots * lanes; }
};

// What a neuron gets from outside in a step.
template <typename T>
struct StepSums {
  T num = 0;
  T den = 0;
  T dt = 1;

  __device__ void load(const SequenceRows<T>& rows, const T* nums, const T* dens, int64_t b,
                       int64_t t, int64_t j) {
    const int64_t at = j * rows.count + t * rows.B + b;
    num = nums[at];
    den = dens[at];
    dt = rows.step(b, t, static_cast<int>(j));
  }
};

}  // namespace fastltc::cuda
