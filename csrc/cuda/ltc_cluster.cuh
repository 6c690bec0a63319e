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
//   in shared memory in their order, and each new state is written into every block's shared
//   memory, in turns of two buffers: one barrier of the cluster for each unfold.
// - Backward a thread is a presynaptic neuron, has the four sums of its synapses onto the block's
//   neurons in registers over all samples and steps, and adds up its own part of the gradient of
//   its neuron's state for four samples at a time, which it writes to the block that owns the
//   neuron: again one barrier of the cluster for each unfold. The owner adds the parts in their
//   order.
// Nothing is added by two threads; a cluster leaves one part of the synapses' sums, which
// ltc_synapse_gradients_kernel adds in order.
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
  int blocks;
  int posts_each;  // of each block but perhaps the last
  int first;       // neuron
  int posts;

  __device__ explicit ClusterShare(int neurons)
      : rank(static_cast<int>(cluster_rank())),
        blocks(static_cast<int>(cluster_size())),
        posts_each((neurons + blocks - 1) / blocks),
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

  __device__ ClusterPair(const Rows<float>& rows, int n, int64_t tile) {
    const int at = static_cast<int>(threadIdx.x) + n * kClusterThreads;
    post = at / samples;
    sample = at % samples;
    b = tile * samples + sample;
    length = b < rows.B ? rows.length(b) : 0;
  }
};

// Steps that any of a tile's samples has.
__device__ __forceinline__ int64_t longest_of_tile(const Rows<float>& rows, int64_t first,
                                                   int samples) {
  int64_t longest = 0;
  for (int64_t b = first; b < first + samples && b < rows.B; ++b) {
    const int64_t length = rows.length(b);
    if (length > longest) longest = length;
  }
  return longest;
}

struct ClusterForward : LtcForward<float> {
  float* rates = nullptr;  // where states are kept
  int64_t tiles = 0;
};

struct ClusterForwardShared {
  Synapse<float>* parameters;  // [N][32]
  float* v;                    // [2][N][samples]
  float* sums;                 // [warps][samples][2][33]
  float* broken;               // [32] NaN where the neuron's list is not well formed, else 0
};

__device__ __forceinline__ void load_cluster_columns(const Synapses<float>& list,
                                                     const ClusterShare& share,
                                                     const ClusterForwardShared& shared) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  for (int k = thread; k < list.neurons * kClusterPosts; k += kClusterThreads) {
    shared.parameters[k] = Synapse<float>{0.0f, 0.0f, 0.0f, 0.0f};
  }
  if (thread < kClusterPosts) shared.broken[thread] = 0.0f;
  __syncthreads();
  for (int post = thread / kWarp; post < share.posts; post += kClusterWarps) {
    const int j = share.first + post;
    for (int k = list.column[j] + lane; k < list.column[j + 1]; k += kWarp) {
      const Synapse<float> p = list.parameters[k];
      shared.parameters[list.pre[k] * kClusterPosts + post] = p;
      // Another synapse in its place would hide it.
      if (p.a != p.a) shared.broken[post] = p.a;
    }
  }
}

// The sums of one lane's neuron over the presynaptic neurons of its warp.
template <int samples>
__device__ __forceinline__ void add_cluster_columns(const Synapse<float>* parameters,
                                                    const float* v, int begin, int end,
                                                    float (&num)[samples], float (&den)[samples]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int i = begin; i < end; ++i) {
    const Synapse<float> p = parameters[i * kClusterPosts + lane];
    const float4* const row = reinterpret_cast<const float4*>(v + i * samples);
    FASTLTC_UNROLL
    for (int g = 0; g < samples / 4; ++g) {
      const float4 four = row[g];
      const float each[4] = {four.x, four.y, four.z, four.w};
      FASTLTC_UNROLL
      for (int n = 0; n < 4; ++n) {
        const float s = sigmoid_exp2(p.a * each[n] + p.b);
        num[4 * g + n] += p.we * s;
        den[4 * g + n] += p.w * s;
      }
    }
  }
}

template <int samples>
__device__ void cluster_forward_tile(const ClusterForward& call, const ClusterShare& share,
                                     const ClusterForwardShared& shared, int64_t tile) {
  using Pair = ClusterPair<samples>;
  const Rows<float>& rows = call.rows;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp, warp = thread / kWarp;
  const int neurons = call.net.recurrent.neurons, unfolds = static_cast<int>(call.net.size.U);
  const int outputs = static_cast<int>(call.net.size.M);
  const int64_t B = rows.B, count = neurons * B;
  const int64_t longest = longest_of_tile(rows, tile * samples, samples);
  const int share_of_warp = (neurons + kClusterWarps - 1) / kClusterWarps;
  const int begin = warp * share_of_warp < neurons ? warp * share_of_warp : neurons;
  const int end = begin + share_of_warp < neurons ? begin + share_of_warp : neurons;

  const auto initial = [&](int64_t b, int j) {
    return b < B ? state_or_zero(call.h0, b, j) : 0.0f;
  };
  for (int k = thread; k < neurons * samples; k += kClusterThreads) {
    shared.v[k] = initial(tile * samples + k % samples, k / samples);
  }
  float v[Pair::each], capacity[Pair::each];
  FASTLTC_UNROLL
  for (int n = 0; n < Pair::each; ++n) {
    const Pair pair(rows, n, tile);
    v[n] = capacity[n] = 0.0f;
    if (pair.post >= share.posts) continue;
    const int j = share.first + pair.post;
    v[n] = initial(pair.b, j);
    capacity[n] = call.net.capacity[j];
    if (call.out.states != nullptr && pair.b < B) call.out.states[j * B + pair.b] = v[n];
  }
  __syncthreads();
  float* from = shared.v;
  float* to = shared.v + neurons * samples;
  for (int64_t t = 0; t < longest; ++t) {
    float own_num[Pair::each], own_den[Pair::each], dt[Pair::each];
    FASTLTC_UNROLL
    for (int n = 0; n < Pair::each; ++n) {
      const Pair pair(rows, n, tile);
      own_num[n] = own_den[n] = dt[n] = 0.0f;
      if (pair.post >= share.posts || t >= pair.length) continue;
      const int j = share.first + pair.post;
      const int64_t row = j * rows.count + t * B + pair.b;
      own_num[n] = call.num[row];
      own_den[n] = call.den[row] + shared.broken[pair.post];
      dt[n] = rows.step(pair.b, t, j);
    }
    for (int u = 0; u < unfolds; ++u) {
      float num[samples] = {}, den[samples] = {};
      add_cluster_columns<samples>(shared.parameters, from, begin, end, num, den);
      FASTLTC_UNROLL
      for (int s = 0; s < samples; ++s) {
        float* const at = shared.sums + (warp * samples + s) * 2 * kClusterPitch + lane;
        at[0] = num[s];
        at[kClusterPitch] = den[s];
      }
      __syncthreads();
      float rate[Pair::each];
      FASTLTC_UNROLL
      for (int n = 0; n < Pair::each; ++n) {
        const Pair pair(rows, n, tile);
        rate[n] = 0.0f;
        if (pair.post >= share.posts) continue;
        if (t < pair.length) {
          float all_num = own_num[n], all_den = own_den[n];
          FASTLTC_UNROLL
          for (int w = 0; w < kClusterWarps; ++w) {
            const float* const at =
                shared.sums + (w * samples + pair.sample) * 2 * kClusterPitch + pair.post;
            all_num += at[0];
            all_den += at[kClusterPitch];
          }
          rate[n] = reciprocal(capacity[n] + dt[n] * all_den);
          v[n] = (capacity[n] * v[n] + dt[n] * all_num) * rate[n];
        }
        float* const at = to + (share.first + pair.post) * samples + pair.sample;
        // Each block begins with another one.
        for (int k = 0; k < share.blocks; ++k) {
          const int rank = share.rank + k;
          store_remote(at, static_cast<unsigned>(rank < share.blocks ? rank : rank - share.blocks),
                       v[n]);
        }
      }
      cluster_arrive();
      FASTLTC_UNROLL
      for (int n = 0; n < Pair::each; ++n) {
        const Pair pair(rows, n, tile);
        if (pair.post >= share.posts || pair.b >= B) continue;
        const int j = share.first + pair.post;
        if (call.out.states != nullptr) {
          const int64_t at = (t * unfolds + u) * count + j * B + pair.b;
          call.out.states[at + count] = v[n];
          call.rates[at] = rate[n];
        }
        if (u == unfolds - 1 && call.out.return_sequences && j < outputs) {
          call.write_output(pair.b, t, j, v[n], t < pair.length);
        }
      }
      cluster_wait();
      float* const other = from;
      from = to;
      to = other;
    }
  }
  FASTLTC_UNROLL
  for (int n = 0; n < Pair::each; ++n) {
    const Pair pair(rows, n, tile);
    if (pair.post >= share.posts || pair.b >= B) continue;
    const int j = share.first + pair.post;
    call.out.hn[pair.b * neurons + j] = v[n];
    if (!call.out.return_sequences && j < outputs) call.write_output(pair.b, 0, j, v[n]);
    for (int64_t t = longest; t < rows.steps; ++t) {
      if (call.out.return_sequences && j < outputs) element(call.out.output, pair.b, t, j) = 0.0f;
      for (int u = 0; u < unfolds && call.out.states != nullptr; ++u) {
        const int64_t at = (t * unfolds + u) * count + j * B + pair.b;
        call.out.states[at + count] = v[n];
        call.rates[at] = 0.0f;
      }
    }
  }
}

template <int samples>
__global__ void __launch_bounds__(kClusterThreads, 1)
    ltc_cluster_forward_kernel(const ClusterForward call) {
  const int neurons = call.net.recurrent.neurons;
  const ClusterShare share(neurons);
  ClusterForwardShared shared;
  shared.parameters = reinterpret_cast<Synapse<float>*>(dynamic_shared());
  shared.v = reinterpret_cast<float*>(shared.parameters + neurons * kClusterPosts);
  shared.sums = shared.v + 2 * neurons * samples;
  shared.broken = shared.sums + 2 * kClusterWarps * samples * kClusterPitch;
  load_cluster_columns(call.net.recurrent, share, shared);
  // From here on all blocks run. After a tile's last barrier nobody reads its states.
  cluster_barrier();
  const int64_t clusters = gridDim.x / static_cast<unsigned>(share.blocks);
  for (int64_t tile = blockIdx.x / static_cast<unsigned>(share.blocks); tile < call.tiles;
       tile += clusters) {
    cluster_forward_tile<samples>(call, share, shared, tile);
  }
}

struct ClusterBackward : LtcBackward<float> {
  const float* rates = nullptr;
  int64_t tiles = 0;
  int pitch = 0;      // cluster_pitch
  int set_posts = 0;  // cluster_set_posts
  // Written.
  float* gt = nullptr;                         // [T U][N][B]; null: not wanted
  SynapseSums<float>* synapse_sums = nullptr;  // [clusters][synapses]
};

// What a thread does between two barriers of the cluster.
struct ClusterRole {
  int pre;  // its presynaptic neuron, or -1
  int set;  // of threads
  int sets;
  int posts;     // of its set, a multiple of 4
  int first;     // row
  int owner;     // rank of the block that has the presynaptic neuron
  int received;  // where its part of the gradient goes there, in one of two buffers
  int buffer;    // floats of one of them

  __device__ ClusterRole(const ClusterBackward& call, const ClusterShare& share, int samples) {
    const int thread = static_cast<int>(threadIdx.x), pitch = call.pitch;
    const int neurons = call.net.recurrent.neurons;
    pre = thread % pitch < neurons ? thread % pitch : -1;
    set = thread / pitch;
    sets = kClusterThreads / pitch;
    posts = call.set_posts;
    first = set * posts;
    owner = pre < 0 ? 0 : pre / share.posts_each;
    const int part = share.rank * sets + set;
    received = pre < 0 ? 0 : (part * share.posts_each + pre % share.posts_each) * samples;
    buffer = share.blocks * sets * share.posts_each * samples;
  }
};

struct ClusterBackwardShared {
  Synapse<float>* parameters;  // [rows][N]
  float* gn;                   // [rows][samples]
  float* gd;                   // [rows][samples]
  float* received;             // [2][blocks][sets][posts_each][samples]
};

// One synapse and one sample. As synapse_backward, with one operation less where the sums are
// multiply-adds.
FASTLTC_DEVICE void cluster_synapse(const Synapse<float>& p, float v, float gn, float gd,
                                    SynapseSums<float>& sums, float& g) {
  const float s = sigmoid_exp2(p.a * v + p.b);
  const float h = (p.we * gn + p.w * gd) * (s - s * s);
  sums.P += s * gn;
  sums.Q += s * gd;
  sums.H += h;
  sums.HV += h * v;
  g += p.a * h;
}

template <int samples>
__device__ void cluster_backward_tile(const ClusterBackward& call, const ClusterShare& share,
                                      const ClusterRole& role, const ClusterBackwardShared& shared,
                                      int64_t tile, int& turn,
                                      SynapseSums<float> (&sums)[kClusterPosts]) {
  using Pair = ClusterPair<samples>;
  constexpr int group = kClusterSampleGroup;
  const Rows<float>& rows = call.rows;
  const int neurons = call.net.recurrent.neurons, unfolds = static_cast<int>(call.net.size.U);
  const int outputs = static_cast<int>(call.net.size.M);
  const int64_t B = rows.B, count = neurons * B, first_sample = tile * samples;
  const int64_t longest = longest_of_tile(rows, first_sample, samples);
  const int groups = static_cast<int>(
      B - first_sample < samples ? (B - first_sample + group - 1) / group : samples / group);
  const int parts = share.blocks * role.sets;
  // The thread's presynaptic states of a group, before an unfold.
  const auto load_states = [&](int64_t unfold, int g, float (&to)[group]) {
    const float* const at = call.grad.states + unfold * count + role.pre * B;
    FASTLTC_UNROLL
    for (int n = 0; n < group; ++n) {
      const int64_t b = first_sample + g * group + n;
      to[n] = role.pre >= 0 && unfold >= 0 && b < B ? at[b] : 0.0f;
    }
  };
  float g[Pair::each], after[Pair::each], before[Pair::each], rate[Pair::each];
  const auto load_own = [&](int64_t unfold) {
    FASTLTC_UNROLL
    for (int n = 0; n < Pair::each; ++n) {
      const Pair pair(rows, n, tile);
      before[n] = rate[n] = 0.0f;
      if (unfold < 0 || pair.post >= share.posts || pair.b >= B) continue;
      const int64_t at = unfold * count + (share.first + pair.post) * B + pair.b;
      before[n] = call.grad.states[at];
      rate[n] = call.rates[at];
    }
  };
  FASTLTC_UNROLL
  for (int n = 0; n < Pair::each; ++n) {
    const Pair pair(rows, n, tile);
    g[n] = after[n] = 0.0f;
    if (pair.post >= share.posts || pair.b >= B) continue;
    const int j = share.first + pair.post;
    g[n] = state_or_zero(call.grad.grad_hn, pair.b, j);
    if (call.grad.of_last() && j < outputs) g[n] += call.output_gradient(pair.b, 0, j);
    after[n] = call.grad.states[longest * unfolds * count + j * B + pair.b];
    for (int64_t t = longest; t < rows.steps; ++t) {
      const int64_t row = j * rows.count + t * B + pair.b;
      call.grad_num[row] = call.grad_den[row] = call.grad_capacity[row] = 0.0f;
    }
  }
  int64_t unfold = longest * unfolds - 1;
  float v[group];
  load_states(unfold, 0, v);
  load_own(unfold);
  for (int64_t t = longest - 1; t >= 0; --t) {
    float sum_g[Pair::each] = {}, sum_ga[Pair::each] = {}, sum_c[Pair::each] = {};
    float dt[Pair::each], capacity[Pair::each];
    FASTLTC_UNROLL
    for (int n = 0; n < Pair::each; ++n) {
      const Pair pair(rows, n, tile);
      dt[n] = capacity[n] = 0.0f;
      if (pair.post >= share.posts || t >= pair.length) continue;
      const int j = share.first + pair.post;
      dt[n] = rows.step(pair.b, t, j);
      capacity[n] = call.net.capacity[j];
      if (call.grad.of_steps() && j < outputs) g[n] += call.output_gradient(pair.b, t, j);
    }
    for (int u = unfolds - 1; u >= 0; --u, --unfold) {
      FASTLTC_UNROLL
      for (int n = 0; n < Pair::each; ++n) {
        const Pair pair(rows, n, tile);
        if (pair.post >= share.posts) continue;
        const float gt = g[n] * rate[n];
        const float gn = dt[n] * gt;
        shared.gn[pair.post * samples + pair.sample] = gn;
        shared.gd[pair.post * samples + pair.sample] = -gn * after[n];
        if (call.gt != nullptr && pair.b < B) {
          call.gt[unfold * count + (share.first + pair.post) * B + pair.b] = gt;
        }
        sum_g[n] += gt;
        sum_ga[n] += gt * after[n];
        sum_c[n] += gt * (before[n] - after[n]);
        after[n] = before[n];
        // What does not go through synapses.
        if (t < pair.length) g[n] = capacity[n] * gt;
      }
      __syncthreads();
      load_own(unfold - 1);
      float* const received = shared.received + turn * role.buffer;
      FASTLTC_NO_UNROLL
      for (int m = 0; m < groups; ++m) {
        const float now[group] = {v[0], v[1], v[2], v[3]};
        if (m + 1 < groups) {
          load_states(unfold, m + 1, v);
        } else {
          load_states(unfold - 1, 0, v);
        }
        if (role.pre < 0) continue;
        float share_of_g[group] = {};
        FASTLTC_UNROLL
        for (int k = 0; k < kClusterPosts; k += 4) {
          if (k >= role.posts) break;
          FASTLTC_UNROLL
          for (int n = k; n < k + 4; ++n) {
            const int row = role.first + n;
            const Synapse<float> p = shared.parameters[row * neurons + role.pre];
            const int at = row * samples + m * group;
            const float4 gn = *reinterpret_cast<const float4*>(shared.gn + at);
            const float4 gd = *reinterpret_cast<const float4*>(shared.gd + at);
            cluster_synapse(p, now[0], gn.x, gd.x, sums[n], share_of_g[0]);
            cluster_synapse(p, now[1], gn.y, gd.y, sums[n], share_of_g[1]);
            cluster_synapse(p, now[2], gn.z, gd.z, sums[n], share_of_g[2]);
            cluster_synapse(p, now[3], gn.w, gd.w, sums[n], share_of_g[3]);
          }
        }
        store_remote(reinterpret_cast<float4*>(received + role.received + m * group),
                     static_cast<unsigned>(role.owner),
                     float4{share_of_g[0], share_of_g[1], share_of_g[2], share_of_g[3]});
      }
      cluster_barrier();
      FASTLTC_UNROLL
      for (int n = 0; n < Pair::each; ++n) {
        const Pair pair(rows, n, tile);
        if (pair.post >= share.posts || pair.b >= B) continue;
        float total = 0.0f;
        for (int part = 0; part < parts; ++part) {
          total += received[(part * share.posts_each + pair.post) * samples + pair.sample];
        }
        g[n] += total * (-1.0f / kLog2E<float>);
      }
      turn = 1 - turn;
    }
    FASTLTC_UNROLL
    for (int n = 0; n < Pair::each; ++n) {
      const Pair pair(rows, n, tile);
      if (pair.post >= share.posts || pair.b >= B) continue;
      const int64_t row = (share.first + pair.post) * rows.count + t * B + pair.b;
      call.grad_num[row] = dt[n] * sum_g[n];
      call.grad_den[row] = -dt[n] * sum_ga[n];
      call.grad_capacity[row] = sum_c[n];
    }
  }
  if (call.grad.grad_h0 == nullptr) return;
  FASTLTC_UNROLL
  for (int n = 0; n < Pair::each; ++n) {
    const Pair pair(rows, n, tile);
    if (pair.post >= share.posts || pair.b >= B) continue;
    call.grad.grad_h0[pair.b * neurons + share.first + pair.post] = g[n];
  }
}

template <int samples>
__global__ void __launch_bounds__(kClusterThreads, 1)
    ltc_cluster_backward_kernel(const ClusterBackward call) {
  const Synapses<float>& list = call.net.recurrent;
  const int neurons = list.neurons, thread = static_cast<int>(threadIdx.x);
  const ClusterShare share(neurons);
  const ClusterRole role(call, share, samples);
  const int all_rows = role.posts * role.sets;
  ClusterBackwardShared shared;
  shared.parameters = reinterpret_cast<Synapse<float>*>(dynamic_shared());
  shared.gn = reinterpret_cast<float*>(shared.parameters + all_rows * neurons);
  shared.gd = shared.gn + all_rows * samples;
  shared.received = shared.gd + all_rows * samples;
  // Where synapse (i, row) stands in the list; -1: there is none.
  const auto position = [&](int i, int row) {
    return row < share.posts ? list.position[int64_t{share.first + row} * neurons + i] : -1;
  };
  for (int k = thread; k < all_rows * neurons; k += kClusterThreads) {
    const int32_t at = position(k % neurons, k / neurons);
    shared.parameters[k] = at < 0 ? Synapse<float>{0.0f, 0.0f, 0.0f, 0.0f} : list.parameters[at];
  }
  // Rows of no neuron keep these zeros.
  for (int k = thread; k < 2 * all_rows * samples; k += kClusterThreads) shared.gn[k] = 0.0f;
  SynapseSums<float> sums[kClusterPosts];
  int turn = 0;
  // From here on all blocks run.
  cluster_barrier();
  const int64_t clusters = gridDim.x / static_cast<unsigned>(share.blocks);
  const int64_t cluster = blockIdx.x / static_cast<unsigned>(share.blocks);
  for (int64_t tile = cluster; tile < call.tiles; tile += clusters) {
    cluster_backward_tile<samples>(call, share, role, shared, tile, turn, sums);
  }
  if (role.pre < 0) return;
  FASTLTC_UNROLL
  for (int n = 0; n < kClusterPosts; ++n) {
    if (n >= role.posts) break;
    const int32_t at = position(role.pre, role.first + n);
    if (at >= 0) call.synapse_sums[cluster * list.count + at] = sums[n];
  }
}

// The gradient of the time steps, [N][rows], from what the backward pass left in gt; the sums over
// synapses once more, for the few that want it.
template <typename T>
__global__ void ltc_cluster_timespans_kernel(const Network<T> net, const Rows<T> rows, const T* num,
                                             const T* den, const T* states, const T* gt,
                                             T* grad_dt) {
  const int64_t unfolds = net.size.U, count = net.size.N * rows.B;
  each_row(rows.count, net.recurrent.neurons, [&](int64_t r, int j) {
    const int64_t t = r / rows.B, b = r % rows.B;
    T total = 0;
    for (int64_t u = 0; u < unfolds && t < rows.length(b); ++u) {
      const int64_t unfold = (t * unfolds + u) * count;
      T all_num = num[j * rows.count + r], all_den = den[j * rows.count + r];
      add_column(net.recurrent, j, states + unfold + b, rows.B, all_num, all_den);
      const T after = states[unfold + count + j * rows.B + b];
      total += gt[unfold + j * rows.B + b] * (all_num - all_den * after);
    }
    if (is_held(rows.step(b, t, j), net.capacity[j])) total = 0;
    grad_dt[j * rows.count + r] = total;
  });
}

}  // namespace fastltc::cuda
