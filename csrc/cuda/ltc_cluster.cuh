// The recurrent part of LTC, a whole sequence of a tile of samples in one thread-block cluster:
// for dense networks whose parameters fit into the shared memory of up to 8 blocks together.
//
// Maths: ltc_persistent.cuh. An unfold's rate is 1 / (C + dt den).
//
// Layout: states [T U + 1][N][B], behind them the unfolds' rates [T U][N][B], which the backward
// pass needs before it has seen an unfold's sigmoids. num, den and their gradients [N][rows].
//
// Plan: a block owns up to 32 neighbouring postsynaptic neurons and keeps the parameters of all
// synapses onto them in shared memory, the whole matrix: an absent synapse has zeros.
// - Forward lanes are postsynaptic neurons and a warp takes an eighth of the presynaptic ones. A
//   lane loads a synapse's parameters once for all samples of the tile, whose sums it has in
//   registers; a presynaptic neuron's states are one load for all lanes. The warps' sums are added
//   in shared memory in their order, and each new state is sent into every block's shared memory
//   (ClusterExchange): one wait for each unfold.
// - Backward a thread is a presynaptic neuron, has the four sums of its synapses onto the block's
//   neurons in registers over all samples and steps, and adds up its own part of the gradient of
//   its neuron's state for four samples at a time, which it sends to the block that owns the
//   neuron: again one wait for each unfold. The owner adds the parts in their order.
// Nothing is added by two threads; a cluster leaves one part of the synapses' sums, which
// ltc_last_gradients_kernel adds in order.
//
// Bound by the special-function units, two operations for each sigmoid, one evaluation forward and
// one backward. docs/kernels.md counts what else there is.
#pragma once

#include "cuda/ltc_cluster_sizes.h"
#include "cuda/ltc_network.h"

namespace fastltc::cuda {

static_assert(sizeof(Synapse<float>) == kClusterSynapse);

// A block's part of the network.
struct ClusterShare {
  int rank;
  int posts_each;  // of each block but perhaps the last
  int blocks;      // that have neurons; the others end at once
  int first;       // neuron
  int posts;

  __device__ explicit ClusterShare(int neurons)
      : rank(static_cast<int>(cluster_rank())),
        posts_each((neurons + static_cast<int>(cluster_size()) - 1) /
                   static_cast<int>(cluster_size())),
        blocks((neurons + posts_each - 1) / posts_each),
        first(rank * posts_each),
        posts(neurons - first < 0            ? 0
              : neurons - first < posts_each ? neurons - first
                                             : posts_each) {}
};

// A postsynaptic neuron and a sample of the tile: what is left when sums over synapses are known.
template <int samples>
struct ClusterPair {
  static constexpr int each = (kClusterPosts * samples + kClusterThreads - 1) / kClusterThreads;

  int post;        // in the block; the thread has this pair if it is less than the block's posts
  int sample;      // in the tile
  int64_t b;       // in the batch
  int64_t length;  // 0 past the end of the batch

  __device__ ClusterPair(const SequenceRows<float>& rows, int n, int64_t tile) {
    const int at = static_cast<int>(threadIdx.x) + n * kClusterThreads;
    post = at / samples;
    sample = at % samples;
    b = tile * samples + sample;
    length = b < rows.B ? rows.length(b) : 0;
  }
};

// Calls body(n, pair, j) for the thread's pairs of a neuron j of the block and a sample of the batch,
// or with `all` of the tile.
template <int samples, bool all = false, typename Body>
__device__ __forceinline__ void each_pair(const SequenceRows<float>& rows,
                                          const ClusterShare& share, int64_t tile,
                                          const Body& body) {
  FASTLTC_UNROLL
  for (int n = 0; n < ClusterPair<samples>::each; ++n) {
    const ClusterPair<samples> pair(rows, n, tile);
    if (pair.post >= share.posts || (!all && pair.b >= rows.B)) continue;
    body(n, pair, share.first + pair.post);
  }
}

// Steps that any of a tile's samples has.
__device__ __forceinline__ int64_t longest_of_tile(const SequenceRows<float>& rows, int64_t first,
                                                   int samples) {
  int64_t longest = 0;
  for (int64_t b = first; b < first + samples && b < rows.B; ++b) {
    const int64_t length = rows.length(b);
    if (length > longest) longest = length;
  }
  return longest;
}

}  // namespace fastltc::cuda
