// The backward pass of the plan with thread-block clusters (ltc_cluster.cuh says how).
#pragma once

#include "cuda/ltc_cluster.cuh"

namespace fastltc::cuda {

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
                                      int64_t tile, ClusterExchange& exchange,
                                      SynapseSums<float> (&sums)[kClusterPosts]) {
  using Pair = ClusterPair<samples>;
  constexpr int group = kClusterSampleGroup;
  const SequenceRows<float>& rows = call.rows;
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
      if (threadIdx.x == 0) {
        exchange.expect(parts * share.posts * groups * static_cast<int>(sizeof(float4)));
      }
      load_own(unfold - 1);
      float* const received = shared.received + exchange.place() * role.buffer;
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
        exchange.send(reinterpret_cast<float4*>(received + role.received + m * group), role.owner,
                      float4{share_of_g[0], share_of_g[1], share_of_g[2], share_of_g[3]});
      }
      // Nobody reads gn and gd any more: what a block waits for says nothing of its own threads.
      __syncthreads();
      exchange.wait();
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
    }
    FASTLTC_UNROLL
    for (int n = 0; n < Pair::each; ++n) {
      const Pair pair(rows, n, tile);
      if (pair.post >= share.posts || pair.b >= B) continue;
      const int64_t row = (share.first + pair.post) * rows.count + t * B + pair.b;
      // Past the end of a sample not 0 times what may be infinite.
      const bool runs = t < pair.length;
      call.grad_num[row] = runs ? dt[n] * sum_g[n] : 0.0f;
      call.grad_den[row] = runs ? -dt[n] * sum_ga[n] : 0.0f;
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
  shared.parameters = reinterpret_cast<Synapse<float>*>(dynamic_shared() + kClusterExchange);
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
  ClusterExchange exchange(reinterpret_cast<uint64_t*>(dynamic_shared()));
  // From here on all blocks run.
  cluster_barrier();
  if (share.posts == 0) return;
  const int64_t clusters = gridDim.x / cluster_size();
  const int64_t cluster = blockIdx.x / cluster_size();
  for (int64_t tile = cluster; tile < call.tiles; tile += clusters) {
    cluster_backward_tile<samples>(call, share, role, shared, tile, exchange, sums);
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
__global__ void ltc_cluster_timespans_kernel(const Network<T> net, const SequenceRows<T> rows,
                                             const T* num, const T* den, const T* states,
                                             const T* gt, T* grad_dt) {
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
