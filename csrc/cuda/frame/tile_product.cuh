// A dense matrix product by tiles: C(m, n) = sum over k of A(m, k) B(k, n).
//
// Layout: an operand is anything that can be asked for the element at (side, k), side being m or n;
// `along_k` says which of the two has its neighbours next to each other in memory, so that
// neighbouring threads ask for them. What becomes of C is the caller's.
//
// Plan: kBlockThreads threads take a tile of 64 x 64, each of them 4 x 4 in registers, rows and
// columns next to each other; 16 values of k at a time stand in shared memory, each read 64 times.
// One thread adds up an element, k ascending: the same sizes give the same bits. Bound by the
// multiply-adds once k has some hundred values; two barriers for each 16 of them.
#pragma once

#include "cuda/frame/device.h"

namespace fastltc::cuda {

inline constexpr int kTileSide = 64;
inline constexpr int kTileDepth = 16;
// Neighbouring k would meet in the same banks.
inline constexpr int kTilePitch = kTileSide + 4;

// Four values that a thread reads at once.
template <typename T>
struct alignas(16) Four {
  T value[4];
};
inline constexpr int kTileFours = kTileDepth * kTilePitch / 4;

// Of C [m, n]; products over k_begin to k_end.
struct ProductSize {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k_begin = 0;
  int64_t k_end = 0;
};

// This thread's part of C.
template <typename T>
struct TileSums {
  int64_t m = 0;  // of value[0][0]
  int64_t n = 0;
  T value[4][4] = {};
};

template <typename T, typename Operand>
__device__ void load_tile(const Operand& operand, int64_t first, int64_t sides, int64_t k_begin,
                          int64_t k_end, T* tile) {
  FASTLTC_UNROLL
  for (int n = 0; n < kTileSide * kTileDepth / kBlockThreads; ++n) {
    const int at = static_cast<int>(threadIdx.x) + n * kBlockThreads;
    const int side = operand.along_k ? at / kTileDepth : at % kTileSide;
    const int k = operand.along_k ? at % kTileDepth : at / kTileSide;
    const bool inside = first + side < sides && k_begin + k < k_end;
    tile[k * kTilePitch + side] = inside ? operand(first + side, k_begin + k) : T(0);
  }
}

// The tile whose first element is (64 tile_m, 64 tile_n), by all threads of the block. Elements
// past the end of C are zero.
template <typename T, typename A, typename B>
__device__ TileSums<T> tile_product(const A& a, const B& b, int64_t tile_m, int64_t tile_n,
                                    const ProductSize& size) {
  FASTLTC_SHARED_ARRAY(Four<T>, tile_a, kTileFours);
  FASTLTC_SHARED_ARRAY(Four<T>, tile_b, kTileFours);
  const int group_m = static_cast<int>(threadIdx.x) / 16, group_n = threadIdx.x % 16;
  TileSums<T> sums;
  sums.m = tile_m * kTileSide + 4 * group_m;
  sums.n = tile_n * kTileSide + 4 * group_n;
  for (int64_t k = size.k_begin; k < size.k_end; k += kTileDepth) {
    load_tile(a, tile_m * kTileSide, size.m, k, size.k_end, reinterpret_cast<T*>(tile_a));
    load_tile(b, tile_n * kTileSide, size.n, k, size.k_end, reinterpret_cast<T*>(tile_b));
    __syncthreads();
    FASTLTC_UNROLL
    for (int d = 0; d < kTileDepth; ++d) {
      const Four<T> left = tile_a[d * (kTilePitch / 4) + group_m];
      const Four<T> right = tile_b[d * (kTilePitch / 4) + group_n];
      FASTLTC_UNROLL
      for (int p = 0; p < 4; ++p) {
        FASTLTC_UNROLL
        for (int q = 0; q < 4; ++q) sums.value[p][q] += left.value[p] * right.value[q];
      }
    }
    __syncthreads();
  }
  return sums;
}

// Calls body(sums) for each of the block's tiles: those of m are blocks in x, those of n in y, of
// which a block takes further ones where the grid ends.
template <typename T, typename A, typename B, typename Body>
__device__ __forceinline__ void each_tile(const A& a, const B& b, const ProductSize& size,
                                          const Body& body) {
  for (int64_t tile = blockIdx.y; tile * kTileSide < size.n; tile += gridDim.y) {
    body(tile_product<T>(a, b, static_cast<int64_t>(blockIdx.x), tile, size));
  }
}

}  // namespace fastltc::cuda
