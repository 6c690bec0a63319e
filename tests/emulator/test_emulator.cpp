// The emulator itself: it runs what is right alike in every order, and finds what is wrong.
#include "emulator/emulator.h"

#include <cmath>
#include <vector>

#include "cuda/frame/device.h"
#include "cuda/frame/launch.h"
#include "emulator/counts.h"
#include "emulator/schedules.h"
#include "support/check.h"

using fastltc::cuda::launch;
using fastltc::cuda::launch_clusters;
using fastltc::emulator::Error;
using fastltc::emulator::every_schedule;

namespace {

using fastltc::emulator::cluster_arrive;
using fastltc::emulator::cluster_wait;

template <typename V>
void store_remote(V* at, unsigned rank, const V& value) {
  *static_cast<V*>(fastltc::emulator::map_shared_rank(at, rank)) = value;
}

// Sums of 64 values by shared memory; leaves out a barrier where it is told to.
void tree_sum_kernel(const float* values, float* sums, bool with_barriers) {
  float* const shared = reinterpret_cast<float*>(fastltc::cuda::dynamic_shared());
  const int k = static_cast<int>(threadIdx.x);
  shared[k] = values[blockIdx.x * blockDim.x + threadIdx.x];
  if (with_barriers) __syncthreads();
  for (int half = 32; half > 0; half /= 2) {
    if (k < half) shared[k] += shared[k + half];
    if (with_barriers) __syncthreads();
  }
  if (k == 0) sums[blockIdx.x] = shared[0];
}

std::vector<float> tree_sums(bool with_barriers) {
  std::vector<float> values(5 * 64), sums(5);
  for (size_t k = 0; k < values.size(); ++k) values[k] = 1.0f / static_cast<float>(k + 1);
  launch("tree_sum", tree_sum_kernel, 5, 64, 64 * sizeof(float), nullptr, values.data(),
         sums.data(), with_barriers);
  return sums;
}

void shuffles_kernel(int* results) {
  FASTLTC_SHARED_ARRAY(int, warps, 3);
  const int k = static_cast<int>(threadIdx.x);
  const int sum = fastltc::cuda::sum_lanes(k % 32);
  const int down = __shfl_down_sync(0xffffffffu, k % 32, 5);
  const int from = __shfl_sync(0xffffffffu, k % 32, 3, 8);
  const int total = fastltc::cuda::sum_block(1, warps, 3);
  results[k] = sum + 1000 * down + 100000 * from + 10000000 * total;
}

// Two sums over groups, and the same of one bit of the lane's number after the other.
void group_sums_kernel(const float* values, float* sums, float* expected, int width) {
  const int k = static_cast<int>(threadIdx.x);
  float both[] = {values[k], values[32 + k]};
  float alone = both[0];
  fastltc::cuda::sum_groups(width, both[0], both[1]);
  fastltc::cuda::sum_groups(width, alone);
  for (int n = 0; n < 2; ++n) {
    float value = values[32 * n + k];
    for (int bit = width / 2; bit > 0; bit /= 2) value += __shfl_xor_sync(0xffffffffu, value, bit);
    sums[32 * n + k] = n == 0 && alone != both[0] ? NAN : both[n];
    expected[32 * n + k] = value;
  }
}

// Lane k writes at k * stride, all read one place, and each writes its own.
void strided_kernel(float* results, int stride) {
  float* const shared = reinterpret_cast<float*>(fastltc::cuda::dynamic_shared());
  const int k = static_cast<int>(threadIdx.x);
  shared[k * stride] = static_cast<float>(k);
  __syncwarp();
  results[k] = __shfl_xor_sync(0xffffffffu, shared[stride], 1) + fastltc::cuda::reciprocal(2.0f);
}

void grid_kernel(int* results) {
  const unsigned at = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  results[at] = static_cast<int>(100 * blockIdx.z + 10 * blockIdx.y + blockIdx.x);
}

void divergent_block_kernel() {
  if (threadIdx.x < 40) __syncthreads();
  if (threadIdx.x >= 40) __syncwarp();
  __syncthreads();
}
void divergent_warp_kernel() {
  if (threadIdx.x < 7) {
    __syncwarp();
  } else {
    fastltc::cuda::sum_lanes(1.0f);
  }
}
void missing_lane_kernel() {
  if (threadIdx.x == 31) return;
  __syncwarp();
}
void no_such_source_kernel(int* result) {
  if (threadIdx.x < 8) result[0] = __shfl_sync(0xffu, 1, 9);
}
// Enough for the others to go on, as on a device.
void early_end_kernel(int* result) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  if (threadIdx.x == 0) result[0] = 1;
}

// Each block leaves its values with its neighbour in the cluster, round after round, in turns of
// two buffers.
enum class Fault { none, no_first_barrier, one_buffer, no_barrier, no_last_barrier };
void ring_kernel(int* results, int rounds, Fault fault) {
  using namespace fastltc::cuda;
  int* const shared = reinterpret_cast<int*>(dynamic_shared());
  const int k = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const unsigned to = (cluster_rank() + 1) % cluster_size();
  int value = static_cast<int>(blockIdx.x) * threads + k;
  if (fault != Fault::no_first_barrier) cluster_barrier();
  for (int n = 0; n < rounds; ++n) {
    int* const buffer = shared + (fault == Fault::one_buffer ? 0 : n % 2 * threads);
    store_remote(buffer + k, to, value);
    if (fault == Fault::no_barrier) {
      __syncthreads();
    } else if (fault != Fault::no_last_barrier || n < rounds - 1) {
      cluster_arrive();
      cluster_wait();
    } else {
      return;
    }
    value = buffer[(k + 1) % threads];
  }
  results[blockIdx.x * threads + k] = value;
}
std::vector<int> ring(Fault fault, int rounds = 3) {
  std::vector<int> results(16 * 64);
  launch_clusters("ring", ring_kernel, 16, 64, 8, 2 * 64 * sizeof(int), nullptr, results.data(),
                  rounds, fault);
  return results;
}

void half_a_cluster_waits_kernel() {
  if (fastltc::cuda::cluster_rank() % 2 == 0) {
    fastltc::cuda::cluster_barrier();
  } else {
    __syncthreads();
    if (threadIdx.x == 0) return;
    __syncwarp();
    fastltc::cuda::cluster_barrier();
  }
}
void one_warp_waits_kernel() {
  if (threadIdx.x < 32) fastltc::cuda::cluster_barrier();
  __syncthreads();
}
void arrive_twice_kernel() {
  cluster_arrive();
  cluster_arrive();
}
void wait_alone_kernel() { cluster_wait(); }
void ended_early_kernel() {
  using namespace fastltc::cuda;
  int* const shared = reinterpret_cast<int*>(dynamic_shared());
  cluster_barrier();
  if (cluster_rank() == 1) return;
  // The others of the cluster do not wait for threads that have ended.
  cluster_barrier();
  if (cluster_rank() == 0) store_remote(shared, 1, 1);
}
void outside_shared_kernel(int* result) { store_remote(result, 1, 1); }
void no_such_rank_kernel() {
  store_remote(reinterpret_cast<int*>(fastltc::cuda::dynamic_shared()), 8, 1);
}

// Three turns in which each block sends its rank and the turn to the next one.
void exchange_kernel(int* results, int expected) {
  using namespace fastltc::cuda;
  unsigned char* const shared = dynamic_shared();
  int* const places = reinterpret_cast<int*>(shared + 16);
  ClusterExchange exchange(reinterpret_cast<uint64_t*>(shared));
  cluster_barrier();
  const int rank = static_cast<int>(cluster_rank()), size = static_cast<int>(cluster_size());
  for (int turn = 0; turn < 3; ++turn) {
    if (threadIdx.x == 0) exchange.expect(expected);
    int* const place = places + exchange.place();
    if (threadIdx.x == 1) exchange.send(place, (rank + 1) % size, 10 * rank + turn);
    exchange.wait();
    if (threadIdx.x == 2) results[3 * rank + turn] = *place;
  }
}

void uninitialised_kernel(float* result) {
  result[blockIdx.x] = reinterpret_cast<float*>(fastltc::cuda::dynamic_shared())[0];
}

}  // namespace

TEST(a_correct_kernel_gives_the_same_bits_in_every_order) {
  std::vector<float> first;
  for (const auto& schedule : every_schedule()) {
    fastltc::emulator::set_schedule(schedule);
    const std::vector<float> sums = tree_sums(true);
    if (first.empty()) first = sums;
    CHECK(sums == first);
  }
  CHECK_NEAR(first[0], 4.743891, 1e-5);
}

TEST(shuffles_and_block_sums) {
  for (const auto& schedule : every_schedule()) {
    fastltc::emulator::set_schedule(schedule);
    std::vector<int> results(96);
    launch("shuffles", shuffles_kernel, 1, 96, 0, nullptr, results.data());
    for (int k = 0; k < 96; ++k) {
      const int lane = k % 32, down = lane + 5 < 32 ? lane + 5 : lane, from = lane / 8 * 8 + 3;
      CHECK(results[k] == 496 + 1000 * down + 100000 * from + 10000000 * 96);
    }
  }
}

TEST(sums_over_groups_have_the_bits_of_one_shuffle_after_the_other) {
  std::vector<float> values(64), sums(64), expected(64);
  for (int k = 0; k < 64; ++k) values[k] = 1.0f / static_cast<float>(3 * k * k % 101 + 1);
  for (int width = 1; width <= 32; width *= 2) {
    launch("group_sums", group_sums_kernel, 1, 32, 0, nullptr, values.data(), sums.data(),
           expected.data(), width);
    CHECK(sums == expected);
    CHECK((sums == values) == (width == 1));
  }
}

TEST(grids_have_three_dimensions) {
  std::vector<int> results(24);
  launch("grid", grid_kernel, dim3(4, 3, 2), 1, 0, nullptr, results.data());
  for (int k = 0; k < 24; ++k) CHECK(results[k] == k / 12 * 100 + k / 4 % 3 * 10 + k % 4);
}

TEST(barriers_that_not_everybody_reaches_are_found) {
  for (const auto& schedule : every_schedule()) {
    fastltc::emulator::set_schedule(schedule);
    CHECK_THROWS(launch("", divergent_block_kernel, 1, 64, 0, nullptr), Error,
                 "wait at __syncthreads");
    CHECK_THROWS(launch("", divergent_warp_kernel, 1, 32, 0, nullptr), Error,
                 "at different places");
    CHECK_THROWS(launch("", missing_lane_kernel, 1, 32, 0, nullptr), Error,
                 "31 threads (first: 0) wait at __syncwarp; 1 threads (first: 31) have reached");
  }
  int result = 0;
  CHECK_THROWS(launch("", no_such_source_kernel, 1, 32, 0, nullptr, &result), Error,
               "lane 9, which does not take part");
  // The emulator is as before.
  launch("", early_end_kernel, 1, 64, 0, nullptr, &result);
  CHECK(result == 1);
}

TEST(a_correct_cluster_gives_the_same_bits_in_every_order) {
  for (const auto& schedule : every_schedule()) {
    fastltc::emulator::set_schedule(schedule);
    const std::vector<int> results = ring(Fault::none);
    for (int k = 0; k < 16 * 64; ++k) {
      const int block = k / 64, from = block / 8 * 8 + (block % 8 + 5) % 8;
      CHECK(results[k] == from * 64 + (k % 64 + 3) % 64);
    }
  }
}

TEST(blocks_of_a_cluster_get_what_they_expect) {
  for (const auto& schedule : every_schedule()) {
    fastltc::emulator::set_schedule(schedule);
    std::vector<int> results(12);
    launch_clusters("", exchange_kernel, 4, 32, 4, 24, nullptr, results.data(), 4);
    for (int k = 0; k < 12; ++k) CHECK(results[k] == 10 * ((k / 3 + 3) % 4) + k % 3);
    CHECK_THROWS(launch_clusters("", exchange_kernel, 4, 32, 4, 24, nullptr, results.data(), 8),
                 Error, "bytes longer than was expected");
  }
}

TEST(barriers_of_a_cluster_that_not_everybody_reaches_are_found) {
  for (const auto& schedule : every_schedule()) {
    fastltc::emulator::set_schedule(schedule);
    CHECK_THROWS(launch_clusters("", half_a_cluster_waits_kernel, 8, 32, 8, 0, nullptr), Error,
                 "wait at");
    CHECK_THROWS(launch_clusters("", one_warp_waits_kernel, 2, 64, 2, 0, nullptr), Error,
                 "32 threads (first: 0) wait at the barrier of the cluster");
    CHECK_THROWS(launch_clusters("", arrive_twice_kernel, 2, 1, 2, 0, nullptr), Error,
                 "arrives twice");
    CHECK_THROWS(launch_clusters("", wait_alone_kernel, 2, 1, 2, 0, nullptr), Error,
                 "without arriving");
  }
}

TEST(wrong_uses_of_another_blocks_memory_are_found) {
  for (const auto& schedule : every_schedule()) {
    fastltc::emulator::set_schedule(schedule);
    CHECK_THROWS(launch_clusters("", ended_early_kernel, 4, 32, 4, 4, nullptr), Error, "ended");
    int result = 0;
    CHECK_THROWS(launch_clusters("", outside_shared_kernel, 2, 1, 2, 4, nullptr, &result), Error,
                 "not in the block's shared memory");
    CHECK_THROWS(launch_clusters("", no_such_rank_kernel, 8, 1, 8, 4, nullptr), Error, "no rank 8");
  }
}

TEST(clusters_have_the_shared_memory_of_their_devices) {
  float results[2] = {};
  launch_clusters("", uninitialised_kernel, 2, 1, 2, 227 << 10, nullptr, results);
  CHECK(std::isnan(results[0]) && std::isnan(results[1]));
}

TEST(impossible_launches_are_refused) {
  CHECK_THROWS(launch("", divergent_block_kernel, 1, 1025, 0, nullptr), Error, "1024");
  CHECK_THROWS(launch("", divergent_block_kernel, 1, 32, 230 << 10, nullptr), std::runtime_error,
               "CUDA: ");
  CHECK_THROWS(launch_clusters("", divergent_block_kernel, 12, 32, 8, 0, nullptr), Error,
               "no whole number of clusters");
  CHECK_THROWS(launch_clusters("", divergent_block_kernel, 16, 32, 16, 0, nullptr), Error,
               "1 to 8 blocks");
  cudaLaunchConfig_t unasked;
  unasked.dynamicSmemBytes = 50000;
  CHECK_THROWS(cudaLaunchKernelEx(&unasked, divergent_block_kernel), Error, "48 KiB");
  CHECK_THROWS(launch("", divergent_block_kernel, 1, 32, 70000, nullptr), Error,
               "more shared memory than every device has");
  CHECK_THROWS(launch("", divergent_block_kernel, dim3(1, 70000), 32, 0, nullptr), Error, "grid");
}

TEST(shared_memory_is_not_zero_at_first) {
  float result = 0;
  launch("", uninitialised_kernel, 1, 1, sizeof(float), nullptr, &result);
  CHECK(std::isnan(result));
}

// Without instrumentation a race shows as bits that depend on the order.
TEST(a_racy_kernel_depends_on_the_order) {
  if (fastltc::emulator::recorded_accesses() > 0) return;
  std::vector<std::vector<float>> results;
  for (const auto& schedule : every_schedule()) {
    fastltc::emulator::set_schedule(schedule);
    results.push_back(tree_sums(false));
  }
  bool same = true;
  for (const auto& sums : results) same = same && sums == results[0];
  CHECK(!same);
}

#if defined(FASTLTC_TEST_RACES)
namespace {

void warp_only_kernel(int* results, bool across_warps) {
  int* const shared = reinterpret_cast<int*>(fastltc::cuda::dynamic_shared());
  const int k = static_cast<int>(threadIdx.x);
  shared[k] = k;
  __syncwarp();
  results[k] = shared[across_warps ? (k + 32) % 64 : k ^ 1];
}
void shuffle_for_barrier_kernel(int* results) {
  int* const shared = reinterpret_cast<int*>(fastltc::cuda::dynamic_shared());
  const int k = static_cast<int>(threadIdx.x);
  shared[k] = k;
  __shfl_xor_sync(0xffffffffu, k, 1);
  results[k] = shared[k ^ 1];
}
void blocks_share_kernel(int* results) {
  if (threadIdx.x == 0) results[blockIdx.x / 2] = 1;
}

}  // namespace

TEST(races_are_found_in_every_order) {
  for (const auto& schedule : every_schedule()) {
    fastltc::emulator::set_schedule(schedule);
    CHECK_THROWS(tree_sums(false), Error, "race");
    std::vector<int> results(64);
    const size_t shared = 64 * sizeof(int);
    launch("", warp_only_kernel, 1, 64, shared, nullptr, results.data(), false);
    CHECK(results[1] == 0);
    CHECK_THROWS(launch("", warp_only_kernel, 1, 64, shared, nullptr, results.data(), true), Error,
                 "race");
    CHECK_THROWS(launch("", shuffle_for_barrier_kernel, 1, 32, shared, nullptr, results.data()),
                 Error, "race");
    CHECK_THROWS(launch("", blocks_share_kernel, 4, 32, 0, nullptr, results.data()), Error,
                 "race: thread 0 of block");
  }
}

TEST(races_across_the_blocks_of_a_cluster_are_found_in_every_order) {
  for (const auto& schedule : every_schedule()) {
    fastltc::emulator::set_schedule(schedule);
    CHECK(ring(Fault::none)[0] == 5 * 64 + 3);
    CHECK_THROWS(ring(Fault::no_first_barrier), Error, "before a barrier has shown that it runs");
    CHECK_THROWS(ring(Fault::one_buffer), Error, "race");
    // A race, or a block that is through before another one writes to it.
    CHECK_THROWS(ring(Fault::no_barrier), Error, "of block");
    CHECK_THROWS(ring(Fault::no_last_barrier), Error, "end");
    CHECK_THROWS(ring(Fault::no_last_barrier, 1), Error, "end");
  }
}

TEST(accesses_are_recorded) {
  const int64_t before = fastltc::emulator::recorded_accesses();
  tree_sums(true);
  CHECK(fastltc::emulator::recorded_accesses() > before + 5 * 64 * 2);
}
#endif

TEST(counts_what_a_kernel_asks_of_a_device) {
  alignas(32) static float results[32];
  const int strides[] = {1, 2, 32, 33};
  const int64_t conflicts[] = {1, 2, 32, 1};
  fastltc::emulator::set_schedule({});
  fastltc::emulator::start_counting();
  for (const int stride : strides) {
    launch("strided", strided_kernel, 1, 32, 33 * 32 * sizeof(float), nullptr, &results[0], stride);
  }
  cudaMemsetAsync(results, 0, sizeof(results), nullptr);
  const auto launches = fastltc::emulator::stop_counting();
  CHECK(launches.size() == 5);
  CHECK(launches[4].kernel == "memset");
  for (int n = 0; n < 4; ++n) {
    const auto& counts = launches[n].counts;
    CHECK(launches[n].warps == 1);
    CHECK(counts.barriers == 1);
    CHECK(counts.shuffles == 1);
    CHECK(counts.special == 1);
    CHECK(counts.remote == 0);
    // Accesses are seen where the sources are compiled for it.
    if (fastltc::emulator::recorded_accesses() == 0) continue;
    CHECK(counts.wavefronts == conflicts[n] + 1);
    // Of the results alone.
    CHECK(counts.sectors == 4);
  }
  CHECK(fastltc::emulator::stop_counting().empty());
}
