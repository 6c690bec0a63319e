// y[b, o] = bias[o] + sum over the mask's ones of row o of weight[o, i] x[b, i], and its gradients
//   gx[b, i] = sum_o weight[o, i] g[b, o]     gW[o, i] = sum_b g[b, o] x[b, i]
//   gb[o] = sum_b g[b, o]
//
// Layout: what is read for each entry lies [channel][pitch], samples side by side, padded with
// zeros: x, and backward the gradient of y, are transposed first.
//
// Plan: a warp takes a row of the result (an output, or an input for gx) and some samples, goes
// through the row's entries, and reads one or a few whole lines for each. Weights are read where
// they stand, 32 entries at a time. Results go through shared memory, so that eight rows of a
// sample are written together. A weight's gradient is the product of two such lines, added up over
// the lanes of its samples. Each sum is one warp's, in a fixed order: no atomics, and the same bits
// each time. Bound by the second cache, which all of it fits into, and by launches.
#include "cuda/masked_linear.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/frame/device.h"
#include "cuda/frame/launch.h"
#include "cuda/frame/scratch.h"
#include "cuda/frame/static_switch.h"

namespace fastltc::cuda {

namespace {

constexpr int kTile = 32;
// Entries whose rows a lane reads at once.
constexpr int kEntries = 4;
// About four for each scheduler of a large device.
constexpr int64_t kWantedWarps = 2048;

// What one load fetches.
template <typename T, int V>
struct alignas(V * sizeof(T)) Samples {
  T v[V];
};
template <typename T, int V>
FASTLTC_DEVICE Samples<T, V> load(const T* at) {
  return *reinterpret_cast<const Samples<T, V>*>(at);
}

}  // namespace

// The entries in one of the two orders.
struct MaskedRows {
  const int32_t* first = nullptr;  // [rows + 1]
  const int32_t* index = nullptr;  // [count]
  int64_t count = 0;
  int64_t rows = 0;
  int64_t columns = 0;

  // Whether row r's entries lie inside of the list.
  FASTLTC_DEVICE bool range(int64_t r, int64_t& begin, int64_t& end) const {
    begin = first[r];
    end = first[r + 1];
    return begin >= 0 && begin <= end && end <= count;
  }
  FASTLTC_DEVICE bool has_column(int32_t column) const { return column >= 0 && column < columns; }
};

template <typename T>
struct MaskedTransposition {
  const T* from[2] = {};  // [batch][channels], stride between samples; blocks in z
  int64_t stride[2] = {};
  int64_t channels[2] = {};
  T* to[2] = {};  // [channels][pitch]
  int64_t batch = 0;
  int64_t pitch = 0;
  unsigned across = 1;  // blocks for all samples
};

template <typename T>
__global__ void masked_linear_transpose_kernel(const MaskedTransposition<T> job) {
  FASTLTC_SHARED_ARRAY(T, tile, kTile * (kTile + 1));
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int which = static_cast<int>(blockIdx.z);
  const T* const from = which == 0 ? job.from[0] : job.from[1];
  T* const to = which == 0 ? job.to[0] : job.to[1];
  const int64_t stride = which == 0 ? job.stride[0] : job.stride[1];
  const int64_t channels = which == 0 ? job.channels[0] : job.channels[1];
  const int64_t sample = static_cast<int64_t>(blockIdx.x % job.across) * kTile;
  const int64_t channel = static_cast<int64_t>(blockIdx.x / job.across) * kTile;
  for (int k = warp; k < kTile; k += kBlockWarps) {
    const bool inside = sample + k < job.batch && channel + lane < channels;
    tile[k * (kTile + 1) + lane] = inside ? from[(sample + k) * stride + channel + lane] : T(0);
  }
  __syncthreads();
  for (int k = warp; k < kTile; k += kBlockWarps) {
    if (channel + k < channels && sample + lane < job.pitch) {
      to[(channel + k) * job.pitch + sample + lane] = tile[lane * (kTile + 1) + k];
    }
  }
}

template <typename T>
struct MaskedProduct {
  MaskedRows list;
  const T* weight = nullptr;  // of row r and column c: weight[r * row_stride + c * column_stride]
  int64_t row_stride = 0;
  int64_t column_stride = 0;
  const T* bias = nullptr;  // [rows]; null: none
  const T* in = nullptr;    // [columns][pitch]
  int64_t batch = 0;
  int64_t pitch = 0;
  int samples = 1;
  unsigned across = 1;  // blocks for all samples
  T* out = nullptr;     // [batch, rows]
};

// A block takes as many rows as it has warps, and samples * V samples.
template <typename T, int V>
__global__ void __launch_bounds__(kBlockThreads, 1)
    masked_linear_product_kernel(const MaskedProduct<T> p) {
  constexpr int width = kWarp * V + 1;
  FASTLTC_SHARED_ARRAY(T, tile, kBlockWarps * width);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int groups = kWarp / p.samples;
  const int group = lane / p.samples;
  const int own = lane % p.samples * V;
  const int64_t sample = static_cast<int64_t>(blockIdx.x % p.across) * p.samples * V;
  const int64_t row = static_cast<int64_t>(blockIdx.x / p.across) * kBlockWarps;
  const T* const in = p.in + sample + own;
  const int64_t r = row + warp;
  if (r < p.list.rows) {
    T sum[V] = {};
    int64_t begin, end;
    if (!p.list.range(r, begin, end)) {
      begin = end = 0;
      FASTLTC_UNROLL
      for (int v = 0; v < V; ++v) sum[v] = T(NAN);
    }
    for (int64_t e = begin; e < end; e += kWarp) {
      const int left = end - e < kWarp ? static_cast<int>(end - e) : kWarp;
      // -1: nothing to read. Where a column is none, the weight is NaN.
      int32_t own_column = -1;
      T own_weight = 0;
      if (lane < left) {
        own_column = p.list.index[e + lane];
        if (p.list.has_column(own_column)) {
          own_weight = p.weight[r * p.row_stride + own_column * p.column_stride];
        } else {
          own_column = -1;
          own_weight = T(NAN);
        }
      }
      // Every lane takes part in the shuffles, and the loads of four entries are under way
      // together.
      for (int k = group; k < left + group; k += kEntries * groups) {
        Samples<T, V> x[kEntries] = {};
        T w[kEntries];
        FASTLTC_UNROLL
        for (int n = 0; n < kEntries; ++n) {
          const int from = k + n * groups;
          const int32_t column = __shfl_sync(kFullMask, own_column, from % kWarp);
          w[n] = __shfl_sync(kFullMask, own_weight, from % kWarp);
          if (from >= left) w[n] = 0;
          if (from < left && column >= 0) x[n] = load<T, V>(in + column * p.pitch);
        }
        FASTLTC_UNROLL
        for (int n = 0; n < kEntries; ++n) {
          FASTLTC_UNROLL
          for (int v = 0; v < V; ++v) sum[v] += w[n] * x[n].v[v];
        }
      }
    }
    FASTLTC_UNROLL
    for (int v = 0; v < V; ++v) {
      for (int bits = p.samples; bits < kWarp; bits *= 2) {
        sum[v] += __shfl_xor_sync(kFullMask, sum[v], bits);
      }
      if (p.bias != nullptr) sum[v] += p.bias[r];
      if (group == 0) tile[warp * width + own + v] = sum[v];
    }
  }
  __syncthreads();
  for (int k = static_cast<int>(threadIdx.x); k < kBlockWarps * p.samples * V; k += kBlockThreads) {
    const int w = k % kBlockWarps, s = k / kBlockWarps;
    if (row + w < p.list.rows && sample + s < p.batch) {
      p.out[(sample + s) * p.list.rows + row + w] = tile[w * width + s];
    }
  }
}

template <typename T>
struct MaskedWeightGradient {
  MaskedRows list;       // by outputs
  const T* x = nullptr;  // [I][pitch]
  const T* g = nullptr;  // [O][pitch]
  int64_t pitch = 0;
  int samples = 1;
  T* weight = nullptr;  // [O, I], zeros
  T* bias = nullptr;    // [O]; null: not wanted
};

// A warp takes an output and, with others in y, shares its entries; each group of its lanes four of
// them at a time.
template <typename T, int V>
__global__ void __launch_bounds__(kBlockThreads, 1)
    masked_linear_weight_gradient_kernel(const MaskedWeightGradient<T> p) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t o = static_cast<int64_t>(blockIdx.x) * kBlockWarps + threadIdx.x / kWarp;
  if (o >= p.list.rows) return;
  const int group = lane / p.samples;
  const int own = lane % p.samples;
  const int at_once = kWarp / p.samples * kEntries;
  const T* const g = p.g + o * p.pitch;
  int64_t begin, end;
  if (!p.list.range(o, begin, end)) begin = end = 0;
  const int64_t step = static_cast<int64_t>(gridDim.y) * at_once;
  for (int64_t e = begin + static_cast<int64_t>(blockIdx.y) * at_once; e < end; e += step) {
    int32_t column[kEntries];
    const T* x[kEntries];
    T sum[kEntries] = {};
    FASTLTC_UNROLL
    for (int n = 0; n < kEntries; ++n) {
      const int64_t entry = e + group * kEntries + n;
      column[n] = entry < end ? p.list.index[entry] : -1;
      if (!p.list.has_column(column[n])) column[n] = -1;
      x[n] = p.x + column[n] * p.pitch;
    }
    for (int64_t b = own * V; b < p.pitch; b += p.samples * V) {
      const Samples<T, V> factor = load<T, V>(g + b);
      Samples<T, V> value[kEntries] = {};
      FASTLTC_UNROLL
      for (int n = 0; n < kEntries; ++n) {
        if (column[n] >= 0) value[n] = load<T, V>(x[n] + b);
      }
      FASTLTC_UNROLL
      for (int n = 0; n < kEntries; ++n) {
        FASTLTC_UNROLL
        for (int v = 0; v < V; ++v) sum[n] += factor.v[v] * value[n].v[v];
      }
    }
    FASTLTC_UNROLL
    for (int n = 0; n < kEntries; ++n) {
      sum_groups(p.samples, sum[n]);
      if (own == 0 && column[n] >= 0) p.weight[o * p.list.columns + column[n]] = sum[n];
    }
  }
  if (p.bias == nullptr || blockIdx.y != 0) return;
  T sum = 0;
  for (int64_t b = lane; b < p.pitch; b += kWarp) sum += g[b];
  sum = sum_lanes(sum);
  if (lane == 0) p.bias[o] = sum;
}

MaskedLinearSchedule masked_linear_schedule(int64_t batch, int64_t rows, bool is_float64) {
  MaskedLinearSchedule schedule;
  const auto warps = [&](int samples, int width) {
    return rows * ceil_div(batch, static_cast<int64_t>(samples) * width);
  };
  while (schedule.samples < kWarp && schedule.samples < batch) schedule.samples *= 2;
  const int widest = is_float64 ? 2 : 4;
  while (schedule.width < widest && schedule.samples * schedule.width < batch &&
         warps(schedule.samples, 2 * schedule.width) >= kWantedWarps) {
    schedule.width *= 2;
  }
  // Eight floats are what the second cache hands out at least.
  while (schedule.samples > 8 && warps(schedule.samples, schedule.width) < kWantedWarps) {
    schedule.samples /= 2;
  }
  const int64_t multiple = static_cast<int64_t>(schedule.samples) * schedule.width;
  schedule.pitch = ceil_div(batch, multiple) * multiple;
  return schedule;
}

namespace {

// Calls run(width), a compile-time constant.
template <typename T, typename Run>
void with_width(int width, const Run& run) {
  if constexpr (sizeof(T) == 4) {
    static_switch<4, 2, 1>(width, run);
  } else {
    static_switch<2, 1>(width, run);
  }
}

// What both passes need, and where it lies in the scratch memory.
template <typename T>
struct Pass {
  const MaskedLinearSchedule& schedule;
  const MaskedLinear<T>& in;
  cudaStream_t stream;
  T* x;  // [I][pitch]
  T* g;  // [O][pitch], of the gradient of y; null: forward

  static Pass in_memory(const MaskedLinearSchedule& schedule, const MaskedLinear<T>& in,
                        bool backward, const Allocate& allocate, void* stream) {
    return in_scratch(allocate, [&](Scratch& scratch) -> Pass {
      return {schedule, in, static_cast<cudaStream_t>(stream),
              scratch.take<T>(in.I * schedule.pitch),
              backward ? scratch.take<T>(in.O * schedule.pitch) : nullptr};
    });
  }

  // x, and the gradient of y, [B, O], where it is not null.
  void transpose(const T* grad = nullptr, int64_t stride = 0) const {
    const int matrices = grad == nullptr ? 1 : 2;
    const int64_t outputs = grad == nullptr ? 0 : in.O;
    const unsigned across = static_cast<unsigned>(ceil_div(schedule.pitch, kTile));
    const MaskedTransposition<T> job{{in.x, grad}, {in.stride_x, stride}, {in.I, outputs}, {x, g},
                                     in.B,         schedule.pitch,        across};
    const dim3 blocks = grid(across * ceil_div(std::max(in.I, outputs), kTile), 1, matrices);
    launch("masked_linear_transpose_kernel", &masked_linear_transpose_kernel<T>, blocks,
           kBlockThreads, 0, stream, job);
  }

  // The product of the weight's rows in `list` with `from` [columns][pitch].
  void multiply(const MaskedRows& list, int64_t row_stride, int64_t column_stride, const T* bias,
                const T* from, T* out) const {
    const int64_t across = schedule.pitch / (schedule.samples * schedule.width);
    const MaskedProduct<T> product{
        list, in.weight, row_stride,     column_stride,    bias,
        from, in.B,      schedule.pitch, schedule.samples, static_cast<unsigned>(across),
        out};
    const dim3 blocks = grid(across * ceil_div(list.rows, kBlockWarps));
    with_width<T>(schedule.width, [&](auto width) {
      launch("masked_linear_product_kernel", &masked_linear_product_kernel<T, width()>, blocks,
             kBlockThreads, 0, stream, product);
    });
  }
};

}  // namespace

template <typename T>
void launch_masked_linear(const MaskedLinearSchedule& schedule, const MaskedLinear<T>& in,
                          int64_t entries, T* y, const Allocate& allocate, void* stream) {
  const auto pass = Pass<T>::in_memory(schedule, in, false, allocate, stream);
  pass.transpose();
  pass.multiply({in.entries.first, in.entries.input, entries, in.O, in.I}, in.I, 1, in.bias, pass.x,
                y);
}

template <typename T>
void launch_masked_linear_backward(const MaskedLinearSchedule& schedule, const MaskedLinear<T>& in,
                                   int64_t entries, const MaskedLinearGradients<T>& grad,
                                   const Allocate& allocate, void* stream) {
  const auto pass = Pass<T>::in_memory(schedule, in, true, allocate, stream);
  pass.transpose(grad.grad, grad.stride);
  pass.multiply({in.entries.first_of_input, in.entries.output, entries, in.I, in.O}, 1, in.I,
                nullptr, pass.g, grad.x);
  const size_t bytes = sizeof(T) * static_cast<size_t>(in.O * in.I);
  if (bytes > 0) check(cudaMemsetAsync(grad.weight, 0, bytes, pass.stream), "cudaMemsetAsync");
  const MaskedWeightGradient<T> weights{{in.entries.first, in.entries.input, entries, in.O, in.I},
                                        pass.x,
                                        pass.g,
                                        schedule.pitch,
                                        schedule.samples,
                                        grad.weight,
                                        grad.bias};
  // Rows differ in their number of entries; none has more than there are inputs.
  const int64_t most = ceil_div(in.I, kWarp / schedule.samples * kEntries);
  const int64_t parts = ceil_div(kWantedWarps, std::max<int64_t>(in.O, 1));
  const dim3 blocks =
      grid(ceil_div(in.O, kBlockWarps), std::clamp<int64_t>(parts, 1, std::max<int64_t>(most, 1)));
  with_width<T>(schedule.width, [&](auto width) {
    launch("masked_linear_weight_gradient_kernel",
           &masked_linear_weight_gradient_kernel<T, width()>, blocks, kBlockThreads, 0, pass.stream,
           weights);
  });
}

#define FASTLTC_INSTANTIATE(T)                                                                     \
  template void launch_masked_linear(const MaskedLinearSchedule&, const MaskedLinear<T>&, int64_t, \
                                     T*, const Allocate&, void*);                                  \
  template void launch_masked_linear_backward(const MaskedLinearSchedule&, const MaskedLinear<T>&, \
                                              int64_t, const MaskedLinearGradients<T>&,            \
                                              const Allocate&, void*);
FASTLTC_INSTANTIATE(float)
FASTLTC_INSTANTIATE(double)

}  // namespace fastltc::cuda
