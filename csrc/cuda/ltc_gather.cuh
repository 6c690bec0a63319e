// Gathers the network from the dense parameters (ltc_network.h), once per call.
//
// Plan: a warp for each column of each list. `position`, and for the backward pass `pre` and
// `post`, have been set to -1 by a memset. Bound by launches: it reads and writes a few hundred
// kilobytes.
#pragma once

#include "cuda/ltc_network.h"

namespace fastltc::cuda {

template <typename T>
__device__ void gather_column(const Synapses<T>& list, int j, int lane, bool softplus_weights) {
  // Pointers are held inside the list, so that one that is not well formed breaks nothing.
  const auto inside = [&](int32_t k) {
    return k < 0 ? 0 : k > list.count ? static_cast<int>(list.count) : static_cast<int>(k);
  };
  const int begin = inside(list.given_column[j]);
  const int given_end = inside(list.given_column[j + 1]);
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
    if (list.position != nullptr) {
      list.position[static_cast<int64_t>(j) * list.rows_each + i - first] = k;
    }
  }
}

// A neuron's place in its layer's order: the driven ones first, each part ascending.
template <typename T>
__device__ void gather_order(const Network<T>& net, int neuron) {
  const int each = net.recurrent.neurons_each, layer = neuron / each, j = neuron % each;
  const int32_t* const column = net.recurrent.given_column + layer * each;
  int driven = 0, driven_before = 0;
  for (int i = 0; i < each; ++i) {
    if (i == j) driven_before = driven;
    if (column[i + 1] > column[i]) ++driven;
  }
  const bool own = column[j + 1] > column[j];
  net.order[layer * each + (own ? driven_before : driven + j - driven_before)] = j;
  if (j == 0) net.driven_count[layer] = driven;
}

// Blocks in y: 0 and 1 the lists, 2 the neurons.
template <typename T>
__global__ void ltc_gather_kernel(const Network<T> net, const LtcParameters<T> given) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (blockIdx.y < 2) {
    const Synapses<T>& list = blockIdx.y == 0 ? net.recurrent : net.sensory;
    const int64_t j = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / kWarp;
    if (j < list.neurons) gather_column(list, static_cast<int>(j), lane, given.softplus);
    return;
  }
  const int64_t neurons = net.recurrent.neurons;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; k < neurons;
       k += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int j = static_cast<int>(k);
    const T leak = given.softplus ? softplus(given.gleak[j]) : given.gleak[j];
    const T cm = given.softplus ? softplus(given.cm[j]) : given.cm[j];
    net.gleak[j] = leak;
    const T capacity = cm * static_cast<T>(net.size.U);
    const bool least = capacity >= T(0) && capacity < kLeastCapacity<T>;
    net.capacity[j] = least ? kLeastCapacity<T> : capacity;
    net.leak_numerator[j] = leak * given.vleak[j];
    net.leak_denominator[j] = leak + static_cast<T>(given.epsilon);
    if (net.order != nullptr) gather_order(net, j);
  }
}

// The synapses from each presynaptic neuron, ascending by the postsynaptic one. Blocks in y: lists.
template <typename T>
__global__ void ltc_gather_out_kernel(const Network<T> net) {
  const Synapses<T>& list = blockIdx.y == 0 ? net.recurrent : net.sensory;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= list.rows) return;
  int32_t* const out = list.out + i * list.neurons_each;
  const int64_t first = i / list.rows_each * list.neurons_each, own = i % list.rows_each;
  int count = 0;
  for (int64_t j = first; j < first + list.neurons_each; ++j) {
    const int32_t k = list.position[j * list.rows_each + own];
    if (k >= 0) out[count++] = k;
  }
  list.out_count[i] = count;
}

}  // namespace fastltc::cuda
