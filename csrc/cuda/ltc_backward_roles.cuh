// What a thread is in the backward pass of the plans that run a sample's whole sequence in a warp or
// a block (ltc_persistent.cuh says how), and where its values stand in shared memory.
#pragma once

#include "cuda/ltc_persistent.cuh"

namespace fastltc::cuda {

// A thread of a large block has not enough registers for its slots' four parameters and four sums:
// two of the parameters are in shared memory, and a sigmoid waits for its gradient where the share
// will stand.
template <int slots, int max_threads>
inline constexpr bool short_of_registers = max_threads != kWarp;

// Where values of threads stand in shared memory: those of one side by side, so that addresses
// differ by constants, and pitches between threads by which no two lanes meet in a bank.
template <typename T, int slots, int max_threads>
struct Pitch {
  static constexpr int fours = 16 / static_cast<int>(sizeof(T));  // values of 16 bytes
  static constexpr int share = slots + 1;                         // odd
  // Of float an odd number of 16 bytes: they are read as such. Double has no room for more.
  static constexpr int parked = short_of_registers<slots, max_threads> ? 2 * slots + 4 : 0;
};

// Shares, those of a thread's slots at [thread][slot]; with mixed memory the gradients of the gates
// take turns with them. Then a zero, then the shares of the list's other synapses, by position. A
// large block leaves the last in global memory: it has no room for as many as there may be, and few
// if any.
FASTLTC_DEVICE int zero_share(int pitch, int threads, int64_t neurons, int kind) {
  const int shares = pitch * threads;
  const int gates = kind == kMixedMemory ? 4 * static_cast<int>(neurons) : 0;
  return gates > shares ? gates : shares;
}

template <typename T, int slots, int max_threads>
struct BackwardShared {
  using At = Pitch<T, slots, max_threads>;

  // [threads][b of slots, we of slots; of the neuron of the thread's number g and C gt; of the leaky
  // neuron that it runs the capacity, and what its driven neuron gets in a step]
  T* parked;
  T* shares;  // sigma h times -log2(e)
  T* v;       // [2][N + 1] before the unfold and before the one to come
  T* own;     // [2][N] g and C gt, where nothing is parked

  // The gradient of neuron j's state after the unfold, and C gt.
  __device__ T& g(int j) const {
    return At::parked > 0 ? parked[j * At::parked + 2 * slots] : own[j];
  }
  __device__ T& direct(int j, [[maybe_unused]] int neurons) const {
    return At::parked > 0 ? parked[j * At::parked + 2 * slots + 1] : own[neurons + j];
  }
};

template <typename T, int slots, int max_threads, int kind>
size_t persistent_backward_shared(int64_t neurons, int64_t most, int threads) {
  using At = Pitch<T, slots, max_threads>;
  const int64_t of_warp = max_threads == kWarp ? most + 2 * neurons : 0;
  const int64_t shares = zero_share(At::share, threads, neurons, kind) + 1;
  return static_cast<size_t>(At::parked * threads + shares + 2 * (neurons + 1) + of_warp) *
         sizeof(T);
}

// A thread's role; `packed` where registers are short: in words that are taken apart at each use.
template <typename T, int slots, bool packed>
struct BackwardRole {
  uint32_t who;
  uint32_t where;
  T capacity[2];
  Synapse<T> p[slots];
  // Of presynaptic neurons in the lower half, of shares to collect in the upper one.
  uint32_t indices[slots];

  __device__ explicit BackwardRole(const Role<T, slots>& role)
      : who(static_cast<uint32_t>(role.driven + 1) | static_cast<uint32_t>(role.leaky + 1) << 10 |
            static_cast<uint32_t>(role.lanes) << 20 | static_cast<uint32_t>(role.leads) << 26),
        where(static_cast<uint32_t>(role.first) | static_cast<uint32_t>(role.end) << 16),
        capacity{role.capacity[0], role.capacity[1]} {
    FASTLTC_UNROLL
    for (int n = 0; n < slots; ++n) {
      p[n] = role.p[n];
      indices[n] = role.indices[n];
    }
  }
  static __device__ uint32_t word(uint32_t value) { return packed ? opaque(value) : value; }
  __device__ int driven() const { return static_cast<int>(word(who) & 0x3ffu) - 1; }
  __device__ int leaky() const { return static_cast<int>(word(who) >> 10 & 0x3ffu) - 1; }
  __device__ int lanes() const { return static_cast<int>(word(who) >> 20 & 0x3fu); }
  __device__ bool leads() const { return (word(who) >> 26) != 0; }
  __device__ int first() const { return static_cast<int>(word(where) & 0xffffu); }
  __device__ int end() const { return static_cast<int>(word(where) >> 16); }
  __device__ int spilled() const { return first() + slots * lanes(); }
  __device__ int pre(int n) const { return static_cast<int>(opaque(indices[n]) & 0xffffu); }
  __device__ int position(int n) const { return static_cast<int>(opaque(indices[n]) >> 16); }
};

// A thread's part in the gradients of the states: G' lanes for each neuron, and of its outgoing
// synapses `slots` positions for each lane in registers, beside the role's indices: the block plan
// has no register to spare.
FASTLTC_DEVICE int log2_lanes(int lanes) {
  int result = 0;
  FASTLTC_UNROLL
  for (int bit = 1; bit < 6; ++bit) result += lanes >> bit != 0;
  return result;
}
struct CollectRole {
  uint32_t who;

  // `most`: synapses of any layer.
  template <typename T, int slots, bool packed, int kind>
  __device__ CollectRole(const Layer<T, kind>& layer, int most,
                         BackwardRole<T, slots, packed>& role) {
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    const int zero = zero_share(slots + 1, threads, layer.neurons(), kind);
    const int lanes = lanes_each(threads, layer.neurons());
    const int neuron = thread / lanes < layer.neurons() ? thread / lanes : -1;
    who = static_cast<uint32_t>(neuron + 1) | static_cast<uint32_t>(lanes) << 16;
    const int count = outgoing(layer);
    bool more = false;
    FASTLTC_UNROLL
    for (int n = 0; n < slots; ++n) role.indices[n] |= static_cast<uint32_t>(zero) << 16;
    for (int k = thread % lanes, n = 0; k < count; k += lanes, ++n) {
      const int at = share(layer, most, role, k);
      const bool has = has_position<slots>(k, at, zero);
      if (!has) more = true;
      FASTLTC_UNROLL
      for (int m = 0; m < slots; ++m) {
        if (has && m == n) {
          role.indices[m] = (role.indices[m] & 0xffffu) | static_cast<uint32_t>(at) << 16;
        }
      }
    }
    who |= static_cast<uint32_t>(more) << 24;
  }
  __device__ int neuron() const { return static_cast<int>(opaque(who) & 0xffffu) - 1; }  // or -1
  __device__ int lanes() const { return static_cast<int>(opaque(who) >> 16 & 0xffu); }
  // The first of the neuron's lanes.
  __device__ bool leads() const {
    return neuron() >= 0 && (threadIdx.x & static_cast<unsigned>(lanes() - 1)) == 0;
  }
  // Shares than it has positions for.
  __device__ bool more() const { return (opaque(who) >> 24) != 0; }
  // The neuron's synapses.
  template <typename T, int kind>
  __device__ int outgoing(const Layer<T, kind>& layer) const {
    return neuron() >= 0 ? layer.net.recurrent.out_count[layer.first_neuron() + neuron()] : 0;
  }
  // Not where a large block has the share in global memory, nor beyond its slots.
  template <int slots>
  __device__ bool has_position(int k, int at, int zero) const {
    return k >> log2_lanes(lanes()) < slots &&
           (at <= zero || static_cast<int>(blockDim.x) == kWarp);
  }
  // Where the share of the neuron's k-th outgoing synapse stands.
  template <typename T, int slots, bool packed, int kind>
  __device__ int share(const Layer<T, kind>& layer, int most,
                       const BackwardRole<T, slots, packed>& role, int k) const {
    const Network<T>& net = layer.net;
    const int threads = static_cast<int>(blockDim.x), lanes = role.lanes();
    const int zero = zero_share(slots + 1, threads, layer.neurons(), kind);
    const int64_t base = layer.first_neuron();
    const int position = net.recurrent.outgoing(base + neuron())[k];
    const int64_t post = net.recurrent.post[position];
    // A list that is not well formed may lead anywhere: to the zero.
    if (post < base || post >= base + layer.neurons()) return zero;
    const int own = position - net.recurrent.column[post], slot = own >> log2_lanes(lanes);
    const int thread = net.place[post] * lanes + (own & (lanes - 1));
    if (own < 0 || thread >= threads) return zero;
    if (slot < slots) return thread * (slots + 1) + slot;
    const int of_layer = position - layer.first_synapse();
    return of_layer < 0 || of_layer >= most ? zero : zero + 1 + of_layer;
  }
};

}  // namespace fastltc::cuda
