// What comes before all else in a call: gathers the network from the dense parameters
// (ltc_network.h), maps the inputs, and for the backward pass clears what is not written in full.
//
// Plan: one launch whose blocks share these out; none needs what another one writes. A warp for
// each column of each list; one for each presynaptic neuron, which goes through the list and finds
// its synapses by ballots; one for 32 neurons of a layer; lanes for rows. Bound by a few reads in
// sequence and the launch: it reads and writes a few hundred kilobytes.
#pragma once

#include "cuda/frame/block_range.h"
#include "cuda/ltc_network.h"
#include "cuda/ltc_rows.cuh"

namespace fastltc::cuda {

inline constexpr int kMaxFills = 9;

// `words` of four bytes to set to `value`.
struct Fill {
  uint32_t* at = nullptr;
  int64_t words = 0;
  uint32_t value = 0;
};

template <typename T>
struct LtcGather {
  Network<T> net;
  LtcParameters<T> given;
  SequenceRows<T> rows;
  InputMap<T> map;
  Fill fills[kMaxFills];
  BlockRange columns[2], outgoing[2], neurons, inputs, filling;  // of the lists; y: inputs, fills
};

// Pointers are held inside the list, so that one that is not well formed breaks nothing.
template <typename T>
FASTLTC_DEVICE int inside_list(const Synapses<T>& list, int32_t k) {
  return k < 0 ? 0 : k > list.count ? static_cast<int>(list.count) : static_cast<int>(k);
}

template <typename T>
__device__ void gather_column(const Synapses<T>& list, int64_t block, bool softplus_weights) {
  const int64_t warp = block * kBlockWarps + threadIdx.x / kWarp;
  if (warp >= list.neurons) return;
  const int j = static_cast<int>(warp), lane = static_cast<int>(threadIdx.x) % kWarp;
  const int begin = inside_list(list, list.given_column[j]);
  const int given_end = inside_list(list, list.given_column[j + 1]);
  const int end = given_end < begin ? begin : given_end;
  const bool wrong = begin != list.given_column[j] || end != list.given_column[j + 1];
  if (lane == 0) {
    list.column[j] = begin;
    if (j == list.neurons - 1) list.column[list.neurons] = end;
  }
  // Of the layer that the neuron belongs to.
  const int64_t first = static_cast<int64_t>(j / list.neurons_each) * list.rows_each;
  for (int k = begin + lane; k < end; k += kWarp) {
    int64_t i = list.given_row[k];
    const bool outside = i < first || i >= first + list.rows_each;
    if (outside) i = first;
    const int64_t at = list.dense(i, j);
    T w = list.given.w[at];
    if (softplus_weights) w = softplus(w);
    const T slope = list.given.sigma[at] * kLog2E<T>;
    Synapse<T> p{-slope, slope * list.given.mu[at], w * list.given.erev[at], w};
    if (outside || wrong) p.a = p.b = p.we = p.w = T(NAN);
    list.parameters[k] = p;
    list.pre[k] = static_cast<int32_t>(i);
    list.post[k] = j;
  }
}

// The synapses from a presynaptic neuron, ascending by their position and so by the postsynaptic
// one.
template <typename T>
__device__ void gather_outgoing(const Synapses<T>& list, int64_t block) {
  const int64_t i = block * kBlockWarps + threadIdx.x / kWarp;
  if (i >= list.rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, each = list.neurons_each;
  const int32_t* const column = list.given_column + i / list.rows_each * each;
  int32_t* const out = list.out + i * each;
  int count = 0;
  const auto find = [&](int begin, int end) {
    constexpr int together = 16;  // loads under way at once
    for (int from = begin + lane; from - lane < end; from += together * kWarp) {
      int32_t row[together];
      FASTLTC_UNROLL
      for (int n = 0; n < together; ++n) {
        const int k = from + n * kWarp;
        row[n] = k < end ? list.given_row[k] : -1;
      }
      FASTLTC_UNROLL
      for (int n = 0; n < together; ++n) {
        const bool found = row[n] == i;
        const unsigned all = __ballot_sync(kFullMask, found);
        const int at = count + __popc(all & ((1u << lane) - 1));
        if (found && at < each) out[at] = from + n * kWarp;
        count += __popc(all);
      }
    }
  };
  bool ascending = true;
  for (int j = lane; j < each; j += kWarp) {
    if (column[j] < 0 || column[j] > column[j + 1] || column[j + 1] > list.count) ascending = false;
  }
  if (__ballot_sync(kFullMask, !ascending) == 0) {
    find(column[0], column[each]);
  } else {
    for (int j = 0; j < each; ++j) {
      find(inside_list(list, column[j]), inside_list(list, column[j + 1]));
    }
  }
  if (lane == 0) list.out_count[i] = count < each ? count : each;
}

// The place of 32 neurons in their layer's order: the driven ones first, each part ascending.
template <typename T>
__device__ void gather_order(const Network<T>& net, int layer, int chunk) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, each = net.recurrent.neurons_each;
  const int32_t* const column = net.recurrent.given_column + layer * each;
  int driven = 0, driven_before = 0;
  bool own = false;
  for (int from = 0; from < each; from += kWarp) {
    const int i = from + lane;
    const bool is_driven = i < each && column[i + 1] > column[i];
    const unsigned all = __ballot_sync(kFullMask, is_driven);
    if (from == chunk * kWarp) {
      own = is_driven;
      driven_before = driven + __popc(all & ((1u << lane) - 1));
    }
    driven += __popc(all);
  }
  const int j = chunk * kWarp + lane;
  if (j >= each) return;
  const int place = own ? driven_before : driven + j - driven_before;
  net.order[layer * each + place] = j;
  net.place[layer * each + j] = place;
  if (j == 0) net.driven_count[layer] = driven;
}

// A warp for 32 neurons of a layer.
template <typename T>
__device__ void gather_neurons(const Network<T>& net, const LtcParameters<T>& given,
                               int64_t block) {
  const int each = net.recurrent.neurons_each, chunks = (each + kWarp - 1) / kWarp;
  const int warp = static_cast<int>(block) * kBlockWarps + static_cast<int>(threadIdx.x) / kWarp;
  const int layer = warp / chunks, chunk = warp % chunks;
  if (layer >= net.nets) return;
  if (net.order != nullptr) gather_order(net, layer, chunk);
  const int own = chunk * kWarp + static_cast<int>(threadIdx.x) % kWarp;
  if (own >= each) return;
  const int64_t j = int64_t{layer} * each + own;
  const T leak = given.softplus ? softplus(given.gleak[j]) : given.gleak[j];
  const T cm = given.softplus ? softplus(given.cm[j]) : given.cm[j];
  net.gleak[j] = leak;
  const T capacity = cm * static_cast<T>(net.size.U);
  const bool least = capacity >= T(0) && capacity < kLeastCapacity<T>;
  net.capacity[j] = least ? kLeastCapacity<T> : capacity;
  net.leak_numerator[j] = leak * given.vleak[j];
  net.leak_denominator[j] = leak + static_cast<T>(given.epsilon);
}

template <typename T>
__device__ void fill(const Fill& fill, int64_t block, int64_t blocks) {
  const int64_t first = block * kBlockThreads + threadIdx.x;
  for (int64_t k = first; k < fill.words; k += blocks * kBlockThreads) fill.at[k] = fill.value;
}

template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    ltc_gather_kernel(const __grid_constant__ LtcGather<T> call) {
  const int64_t block = blockIdx.x;
  const Network<T>& net = call.net;
  // What takes longest first.
  if (call.outgoing[0].has(block)) {
    gather_outgoing(net.recurrent, call.outgoing[0].at(block).x);
  } else if (call.outgoing[1].has(block)) {
    gather_outgoing(net.sensory, call.outgoing[1].at(block).x);
  } else if (call.columns[0].has(block)) {
    gather_column(net.recurrent, call.columns[0].at(block).x, call.given.softplus);
  } else if (call.columns[1].has(block)) {
    gather_column(net.sensory, call.columns[1].at(block).x, call.given.softplus);
  } else if (call.neurons.has(block)) {
    gather_neurons(net, call.given, call.neurons.at(block).x);
  } else if (call.inputs.has(block)) {
    map_inputs(call.rows, call.map, call.inputs.at(block));
  } else if (call.filling.has(block)) {
    const RangePlace place = call.filling.at(block);
    fill<T>(call.fills[place.y], place.x, call.filling.x);
  }
}

}  // namespace fastltc::cuda
