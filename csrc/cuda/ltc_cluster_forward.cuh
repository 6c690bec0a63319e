// The forward pass of the plan with thread-block clusters (ltc_cluster.cuh says how).
#pragma once

#include "cuda/ltc_cluster.cuh"

namespace fastltc::cuda {

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
      for (int n = 0; n < 4; n += 2) {
        float s[2];
        sigmoids_exp2(p.a * each[n] + p.b, p.a * each[n + 1] + p.b, s[0], s[1]);
        FASTLTC_UNROLL
        for (int k = 0; k < 2; ++k) {
          num[4 * g + n + k] += p.we * s[k];
          den[4 * g + n + k] += p.w * s[k];
        }
      }
    }
  }
}

template <int samples>
__device__ void cluster_forward_tile(const ClusterForward& call, const ClusterShare& share,
                                     const ClusterForwardShared& shared, int64_t tile,
                                     ClusterExchange& exchange) {
  using Pair = ClusterPair<samples>;
  const SequenceRows<float>& rows = call.rows;
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
  // Where nobody sends to: to the other place in the turn to come, and there only once the blocks
  // that read here have gone on.
  const int count_of_tile = neurons * samples;
  float* const first = shared.v + (1 - exchange.place()) * count_of_tile;
  for (int k = thread; k < count_of_tile; k += kClusterThreads) {
    first[k] = initial(tile * samples + k % samples, k / samples);
  }
  float v[Pair::each] = {}, capacity[Pair::each] = {};
  each_pair<samples, true>(rows, share, tile, [&](int n, const Pair& pair, int j) {
    v[n] = initial(pair.b, j);
    capacity[n] = call.net.capacity[j];
    if (call.out.states != nullptr && pair.b < B) call.out.states[j * B + pair.b] = v[n];
  });
  __syncthreads();
  for (int64_t t = 0; t < longest; ++t) {
    float own_num[Pair::each] = {}, own_den[Pair::each] = {}, dt[Pair::each] = {};
    each_pair<samples, true>(rows, share, tile, [&](int n, const Pair& pair, int j) {
      if (t >= pair.length) return;
      const int64_t row = j * rows.count + t * B + pair.b;
      own_num[n] = call.num[row];
      own_den[n] = call.den[row] + shared.broken[pair.post];
      dt[n] = rows.step(pair.b, t, j);
    });
    for (int u = 0; u < unfolds; ++u) {
      const float* const from = shared.v + (1 - exchange.place()) * count_of_tile;
      float* const to = shared.v + exchange.place() * count_of_tile;
      if (thread == 0) exchange.expect(count_of_tile * static_cast<int>(sizeof(float)));
      float num[samples] = {}, den[samples] = {};
      add_cluster_columns<samples>(shared.parameters, from, begin, end, num, den);
      FASTLTC_UNROLL
      for (int s = 0; s < samples; ++s) {
        float* const at = shared.sums + (warp * samples + s) * 2 * kClusterPitch + lane;
        at[0] = num[s];
        at[kClusterPitch] = den[s];
      }
      __syncthreads();
      float rate[Pair::each] = {};
      each_pair<samples, true>(rows, share, tile, [&](int n, const Pair& pair, int j) {
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
        float* const at = to + j * samples + pair.sample;
        // Each block begins with another one.
        for (int k = 0; k < share.blocks; ++k) {
          const int rank = share.rank + k;
          exchange.send(at, rank < share.blocks ? rank : rank - share.blocks, v[n]);
        }
      });
      // In full: by each_pair it takes two registers more.
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
      exchange.wait();
    }
  }
  each_pair<samples>(rows, share, tile, [&](int n, const Pair& pair, int j) {
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
  });
}

template <int samples>
__global__ void __launch_bounds__(kClusterThreads, 1)
    ltc_cluster_forward_kernel(const ClusterForward call) {
  const int neurons = call.net.recurrent.neurons;
  const ClusterShare share(neurons);
  ClusterForwardShared shared;
  shared.parameters = reinterpret_cast<Synapse<float>*>(dynamic_shared() + kClusterExchange);
  shared.v = reinterpret_cast<float*>(shared.parameters + neurons * kClusterPosts);
  shared.sums = shared.v + 2 * neurons * samples;
  shared.broken = shared.sums + 2 * kClusterWarps * samples * kClusterPitch;
  load_cluster_columns(call.net.recurrent, share, shared);
  ClusterExchange exchange(reinterpret_cast<uint64_t*>(dynamic_shared()));
  // From here on all blocks run.
  cluster_barrier();
  if (share.posts == 0) return;
  const int64_t clusters = gridDim.x / cluster_size();
  for (int64_t tile = blockIdx.x / cluster_size(); tile < call.tiles; tile += clusters) {
    cluster_forward_tile<samples>(call, share, shared, tile, exchange);
  }
}

}  // namespace fastltc::cuda
