// Shared memory of the plan with thread-block clusters (ltc_cluster.cuh), for the kernels, their
// launches and the choice of the plan. Plain arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastltc::cuda {

inline constexpr int kClusterThreads = 256;
inline constexpr int kClusterWarps = kClusterThreads / 32;
inline constexpr int kClusterPosts = 32;         // neurons of a block at most: the lanes of a warp
inline constexpr int kClusterPitch = 33;         // of sums over warps, against bank conflicts
inline constexpr int64_t kClusterNeurons = 256;  // at most: a thread of the backward pass for each
inline constexpr size_t kClusterSynapse = 16;    // bytes of a synapse's parameters
inline constexpr int kClusterSampleGroup = 4;    // samples that a thread takes at a time, backward

// Threads for presynaptic neurons in the backward pass: 32, 64, 128 or 256. Where there are fewer
// than 256, several such sets of threads share the block's postsynaptic neurons.
constexpr int cluster_pitch(int64_t neurons) {
  int pitch = 32;
  while (pitch < neurons) pitch *= 2;
  return pitch;
}
constexpr int cluster_sets(int64_t neurons) { return kClusterThreads / cluster_pitch(neurons); }

constexpr int cluster_posts(int64_t neurons, int blocks) {
  return static_cast<int>((neurons + blocks - 1) / blocks);
}
// Postsynaptic neurons of one set of threads, a multiple of 4; those that are not there have no
// weight.
constexpr int cluster_set_posts(int64_t neurons, int blocks) {
  const int fours = 4 * cluster_sets(neurons);
  return (cluster_posts(neurons, blocks) + fours - 1) / fours * 4;
}
constexpr int cluster_rows(int64_t neurons, int blocks) {
  return cluster_set_posts(neurons, blocks) * cluster_sets(neurons);
}

inline constexpr size_t kClusterExchange = 16;  // bytes of the barriers, before all else

// The parameters [N][32], the states twice [N][samples], the sums [warps][samples][2][33] and a
// word for each neuron.
constexpr size_t cluster_forward_shared(int64_t neurons, int samples) {
  const size_t floats = static_cast<size_t>(2 * neurons * samples) +
                        size_t{2} * kClusterWarps * samples * kClusterPitch + kClusterPosts;
  return static_cast<size_t>(neurons) * kClusterPosts * kClusterSynapse + floats * sizeof(float) +
         kClusterExchange;
}
// The parameters [rows][N], gn and gd [rows][samples] each, and twice what the blocks and sets of
// threads have of the gradient [blocks][sets][posts][samples].
constexpr size_t cluster_backward_shared(int64_t neurons, int blocks, int samples) {
  const size_t rows = static_cast<size_t>(cluster_rows(neurons, blocks));
  const size_t received =
      size_t{2} * blocks * cluster_sets(neurons) * cluster_posts(neurons, blocks) * samples;
  return rows * static_cast<size_t>(neurons) * kClusterSynapse +
         (2 * rows * samples + received) * sizeof(float) + kClusterExchange;
}

}  // namespace fastltc::cuda
