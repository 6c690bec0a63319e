// What kernels use of the device, and their scalar maths. Compiled by nvcc for the device, and by
// any C++ compiler for the emulator in tests/emulator, whose cuda_runtime.h takes CUDA's place.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#define FASTLTC_DEVICE __host__ __device__ __forceinline__

// Before a loop over registers, before one of which `count` turns should be under way at once, and
// before one whose copies would not fit into the instruction cache.
#if defined(__CUDACC__)
#define FASTLTC_UNROLL _Pragma("unroll")
#define FASTLTC_PRAGMA(text) _Pragma(#text)
#define FASTLTC_UNROLL_BY(count) FASTLTC_PRAGMA(unroll(count))
#define FASTLTC_NO_UNROLL _Pragma("unroll 1")
#else
#define FASTLTC_UNROLL
#define FASTLTC_UNROLL_BY(count)
#define FASTLTC_NO_UNROLL
#endif

// Shared memory of the block: as many bytes as the launch says, or an array of its own.
#if defined(__CUDACC__)
#define FASTLTC_SHARED_ARRAY(type, name, count) __shared__ type name[count]
#else
#define FASTLTC_SHARED_ARRAY(type, name, count) \
  static const char name##_key = 0;             \
  type* const name =                            \
      static_cast<type*>(fastltc::emulator::static_shared(&name##_key, sizeof(type) * (count)))
#endif

// Operations of the special-function units, of which the emulator sees nothing.
#if defined(__CUDACC__)
#define FASTLTC_COUNT_SPECIAL(operations)
#else
#define FASTLTC_COUNT_SPECIAL(operations) fastltc::emulator::count_special(operations)
#endif

namespace fastltc::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kFullMask = 0xffffffffu;
// Of blocks whose size has no other reason.
inline constexpr int kBlockThreads = 256;
inline constexpr int kBlockWarps = kBlockThreads / kWarp;

#if defined(__CUDACC__)
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char fastltc_dynamic_shared[];
  return fastltc_dynamic_shared;
}
#else
inline unsigned char* dynamic_shared() {
  return static_cast<unsigned char*>(fastltc::emulator::dynamic_shared());
}
#endif

// Thread-block clusters, of compute capability 9.0 and later.
#if defined(__CUDACC__)
// What is written where kernels for clusters are compiled, but never run, is left out.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define FASTLTC_CLUSTER_ASM(...) asm volatile(__VA_ARGS__)
#else
#define FASTLTC_CLUSTER_ASM(...)
#endif
__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank = 0;
  FASTLTC_CLUSTER_ASM("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ unsigned cluster_size() {
  unsigned size = 1;
  FASTLTC_CLUSTER_ASM("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}
// Everything that a thread does before is seen by the others of the cluster after it.
__device__ __forceinline__ void cluster_barrier() {
  FASTLTC_CLUSTER_ASM("barrier.cluster.arrive.release.aligned;" :: : "memory");
  FASTLTC_CLUSTER_ASM("barrier.cluster.wait.acquire.aligned;" :: : "memory");
}
__device__ __forceinline__ uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}
// The address of what stands at `at` in this block's shared memory, in that of another block.
__device__ __forceinline__ uint32_t remote_address(const void* at, [[maybe_unused]] unsigned rank) {
  uint32_t address = shared_address(at);
  FASTLTC_CLUSTER_ASM("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(address),
                      "r"(rank));
  return address;
}
__device__ __forceinline__ void begin_transfer([[maybe_unused]] uint64_t* barrier) {
  FASTLTC_CLUSTER_ASM(
      "mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
  FASTLTC_CLUSTER_ASM("fence.mbarrier_init.release.cluster;" :: : "memory");
}
__device__ __forceinline__ void expect_transfer([[maybe_unused]] uint64_t* barrier,
                                                [[maybe_unused]] int bytes) {
  FASTLTC_CLUSTER_ASM(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes) : "memory");
}
__device__ __forceinline__ void transfer([[maybe_unused]] float* at, [[maybe_unused]] unsigned rank,
                                         [[maybe_unused]] float value,
                                         [[maybe_unused]] uint64_t* barrier) {
  FASTLTC_CLUSTER_ASM(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(
          remote_address(at, rank)),
      "f"(value), "r"(remote_address(barrier, rank)) : "memory");
}
__device__ __forceinline__ void transfer([[maybe_unused]] float4* at,
                                         [[maybe_unused]] unsigned rank,
                                         [[maybe_unused]] const float4& value,
                                         [[maybe_unused]] uint64_t* barrier) {
  FASTLTC_CLUSTER_ASM(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(remote_address(at, rank)),
      "f"(value.x), "f"(value.y), "f"(value.z), "f"(value.w),
      "r"(remote_address(barrier, rank)) : "memory");
}
__device__ __forceinline__ void wait_for_transfer([[maybe_unused]] uint64_t* barrier,
                                                  [[maybe_unused]] unsigned parity) {
  uint32_t done = 1;
  do {
    FASTLTC_CLUSTER_ASM(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
        "selp.u32 %0, 1, 0, p; }" : "=r"(done) : "r"(shared_address(barrier)),
        "r"(parity) : "memory");
  } while (done == 0);
}
#undef FASTLTC_CLUSTER_ASM
#else
using fastltc::emulator::begin_transfer;
using fastltc::emulator::cluster_rank;
using fastltc::emulator::cluster_size;
using fastltc::emulator::expect_transfer;
using fastltc::emulator::wait_for_transfer;
__device__ __forceinline__ void cluster_barrier() {
  fastltc::emulator::cluster_arrive();
  fastltc::emulator::cluster_wait();
}
template <typename V>
void transfer(V* at, unsigned rank, const V& value, uint64_t* barrier) {
  *static_cast<V*>(fastltc::emulator::map_shared_rank(at, rank)) = value;
  fastltc::emulator::complete_transfer(barrier, rank, sizeof(V));
}
#endif

// What the blocks of a cluster write into each other's shared memory, turn by turn: each block says
// how many bytes come to it in a turn, and waits for so many. In turns of two places, because a
// block may be a turn ahead: once it has got all of a turn, all others have sent it, and so done
// with what they got in the turn before. Every block has to get something from every one that it
// sends to. No memory but what is sent is ordered by this, which spares the caches.
class ClusterExchange {
 public:
  // `barriers` [2] in shared memory; by all threads, before a barrier of the cluster.
  __device__ explicit ClusterExchange(uint64_t* barriers) : barriers_(barriers) {
    if (threadIdx.x < 2) begin_transfer(barriers + threadIdx.x);
  }
  // 0 or 1: the place of this turn.
  __device__ int place() const { return static_cast<int>(turn_ & 1u); }
  // By one thread, before it waits.
  __device__ void expect(int bytes) const { expect_transfer(barriers_ + place(), bytes); }
  template <typename V>
  __device__ void send(V* at, int rank, const V& value) const {
    transfer(at, static_cast<unsigned>(rank), value, barriers_ + place());
  }
  // Until all has come; then it is the next turn.
  __device__ void wait() {
    wait_for_transfer(barriers_ + place(), turn_ >> 1 & 1u);
    ++turn_;
  }

 private:
  uint64_t* barriers_;
  unsigned turn_ = 0;
};

// Copies a value from global to shared memory while the thread goes on; it is there for the thread
// after wait_for_copies, for others after a barrier besides. Before compute capability 8.0 the
// thread waits at once.
template <typename T>
__device__ __forceinline__ void copy_async(T* to, const T* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(__cvta_generic_to_global(from)), "n"(sizeof(T))
               : "memory");
#else
  *to = *from;
#endif
}
__device__ __forceinline__ void wait_for_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// 1 / (1 + 2^t). float: two special-function operations, error under 3 ULP; 0 where 2^t overflows.
FASTLTC_DEVICE float sigmoid_exp2(float t) {
#if defined(__CUDA_ARCH__)
  float power, result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(t));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(power + 1.0f));
  return result;
#else
  FASTLTC_COUNT_SPECIAL(2);
  return 1.0f / (1.0f + std::exp2(t));
#endif
}
// Of two at once, by one reciprocal of both denominators; error under 5 ULP, or 2^-62 where that is
// more: powers are held where their product overflows.
FASTLTC_DEVICE void sigmoids_exp2(float t, float u, float& of_t, float& of_u) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float left, right, both;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(left) : "f"(t), "f"(62.0f));
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(right) : "f"(u), "f"(62.0f));
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(left) : "f"(left));
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(right) : "f"(right));
  left += 1.0f;
  right += 1.0f;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(both) : "f"(left * right));
  of_t = both * right;
  of_u = both * left;
#else
  of_t = sigmoid_exp2(t);
  of_u = sigmoid_exp2(u);
  FASTLTC_COUNT_SPECIAL(-1);
#endif
}
FASTLTC_DEVICE double sigmoid_exp2(double t) { return 1.0 / (1.0 + ::exp2(t)); }

// 1 / x, of a neuron's denominator. float: error of 1 ULP.
FASTLTC_DEVICE float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  FASTLTC_COUNT_SPECIAL(1);
  return 1.0f / x;
#endif
}
FASTLTC_DEVICE double reciprocal(double x) { return 1.0 / x; }

// Once per parameter and call: plain and accurate.
FASTLTC_DEVICE float softplus(float x) { return x > 20.0f ? x : ::log1pf(::expf(x)); }
FASTLTC_DEVICE double softplus(double x) { return x > 20.0 ? x : ::log1p(::exp(x)); }
FASTLTC_DEVICE float softplus_slope(float x) { return 1.0f / (1.0f + ::expf(-x)); }
FASTLTC_DEVICE double softplus_slope(double x) { return 1.0 / (1.0 + ::exp(-x)); }

template <typename T>
inline constexpr T kLog2E = T(1.4426950408889634074);

// float: errors of 2e-7, not relative.
template <typename T>
FASTLTC_DEVICE T sigmoid(T x) {
  return sigmoid_exp2(x * -kLog2E<T>);
}
template <typename T>
FASTLTC_DEVICE T tanh_exp2(T x) {
  return sigmoid_exp2(x * (T(-2) * kLog2E<T>)) * T(2) - T(1);
}

// Of this thread among all of the grid.
__device__ __forceinline__ int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Calls body(row, channel) with lanes for rows (lane_row), in x, and warps for channels, in y, of
// which a block takes further ones where there are no more.
__device__ __forceinline__ int64_t lane_row() {
  return static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x % kWarp;
}
template <typename Body>
__device__ __forceinline__ void each_row(int64_t x, int64_t y, int64_t count_y, int64_t rows,
                                         int channels, const Body& body) {
  const int64_t r = x * kWarp + threadIdx.x % kWarp;
  if (r >= rows) return;
  for (int j = static_cast<int>(y) * kBlockWarps + threadIdx.x / kWarp; j < channels;
       j += static_cast<int>(count_y) * kBlockWarps) {
    body(r, j);
  }
}
template <typename Body>
__device__ __forceinline__ void each_row(int64_t rows, int channels, const Body& body) {
  each_row(blockIdx.x, blockIdx.y, gridDim.y, rows, channels, body);
}

// The largest power of two up to threads / parts, and no more than a warp.
FASTLTC_DEVICE int lanes_each(int threads, int parts) {
  int lanes = 1;
  while (lanes < kWarp && 2 * lanes * parts <= threads) lanes *= 2;
  return lanes;
}

template <typename T>
FASTLTC_DEVICE void swap_buffers(T*& from, T*& to) {
  T* const other = from;
  from = to;
  to = other;
}

// The sum over the lanes of a warp, in every lane.
template <typename T>
__device__ __forceinline__ T sum_lanes(T value) {
  FASTLTC_UNROLL
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    value += __shfl_xor_sync(kFullMask, value, bits);
  }
  return value;
}

// The sums of several values over groups of a width that is known at run time only, of a bit of the
// thread's number after the other from the highest. Unrolled, with the shuffles of all values under
// way together: a loop takes longer to turn than a shuffle does. Two bits take one wait: what three
// others have is added in the order in which one bit after the other would add it.
template <typename T, typename... Others>
__device__ __forceinline__ void sum_groups(int width, T& value, Others&... others) {
  const auto add_half = [&](int bit) {
    const T got[] = {__shfl_xor_sync(kFullMask, value, bit),
                     __shfl_xor_sync(kFullMask, others, bit)...};
    const T* next = got;
    value += *next;
    ((others += *++next), ...);
  };
  // `all`: of the lower bit alone where not.
  const auto add_quarters = [&](int high, int low, bool all) {
    const T far[] = {__shfl_xor_sync(kFullMask, value, high),
                     __shfl_xor_sync(kFullMask, others, high)...};
    const T near[] = {__shfl_xor_sync(kFullMask, value, low),
                      __shfl_xor_sync(kFullMask, others, low)...};
    const T both[] = {__shfl_xor_sync(kFullMask, value, high | low),
                      __shfl_xor_sync(kFullMask, others, high | low)...};
    int n = 0;
    const auto add = [&](T& sum) {
      sum = (all ? sum + far[n] : sum) + (all ? near[n] + both[n] : near[n]);
      ++n;
    };
    add(value);
    (add(others), ...);
  };
  if (width > 8) [[unlikely]] {
    if (width > 16) add_half(16);
    add_quarters(8, 4, true);
  } else if (width > 4) {
    add_half(4);
  }
  if (width > 1) add_quarters(2, 1, width > 2);
}

// The sum over a block of `warps` whole warps, in every thread. `shared` has a place for each warp,
// and may be used again after the next barrier.
template <typename T>
__device__ __forceinline__ T sum_block(T value, T* shared, int warps) {
  value = sum_lanes(value);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  T total = 0;
  for (int w = 0; w < warps; ++w) total += shared[w];
  return total;
}

// Of each value, over a block of kBlockWarps warps.
template <typename T, int count>
__device__ __forceinline__ void sum_block(T (&values)[count]) {
  FASTLTC_SHARED_ARRAY(T, shared, count * kBlockWarps);
  FASTLTC_UNROLL
  for (int n = 0; n < count; ++n) {
    values[n] = sum_block(values[n], shared + n * kBlockWarps, kBlockWarps);
  }
}

}  // namespace fastltc::cuda
