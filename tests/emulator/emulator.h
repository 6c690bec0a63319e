// Runs CUDA kernels on the processor, one fiber per CUDA thread, to test them where there is no
// GPU.
//
// A fiber runs until it has to wait for others (__syncthreads, __syncwarp, shuffles) or ends; the
// schedule says which one is next, and which blocks are resident at once. What a correct kernel
// computes does not depend on it. Shared memory has its exact size and starts out as NaN. Blocks of
// a cluster are resident together.
//
// Found: barriers that not everybody reaches (emulator::Error, with who waits where), reads and
// writes past the end of shared memory (with AddressSanitizer), and, in sources compiled with
// -fsanitize=thread against race_hooks.cpp, two accesses to one address that no barrier orders, and
// accesses to another block's shared memory before it runs or that it may not outlive. A barrier of
// a cluster orders what a thread does before it arrives and what another one does after its wait;
// what lies between those two is ordered with nobody.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};

// Of the fiber that runs.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

namespace fastltc::emulator {

// A kernel did what it must not: diverged at a barrier, raced, or was launched wrongly.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Order { forward, reverse, random };

// Blocks one after another, forwards or backwards, or `resident` at once, taking turns at random.
// Among the warps of a block that can run, the lowest or highest number goes as far as it can
// before another gets its turn, or it is random; lanes within a warp likewise.
struct Schedule {
  Order blocks = Order::forward;
  Order threads = Order::forward;
  int resident = 4;
  uint64_t seed = 1;
};
void set_schedule(const Schedule& schedule);

// Runs body(), which calls `function`, once for every thread of the grid; `cluster` blocks of
// neighbouring x are a cluster. Throws Error.
void launch(const void* function, dim3 grid, dim3 block, unsigned cluster, std::size_t shared_bytes,
            const std::function<void()>& body);

// Of the current block.
void* dynamic_shared();
void* static_shared(const void* key, std::size_t bytes);

void sync_threads();
void sync_warp(uint32_t mask);
// Gives `value` to the others and returns that of lane `source`.
uint64_t exchange(uint32_t mask, uint64_t value, int source);
int lane();

// Of the current block in its cluster.
unsigned cluster_rank();
unsigned cluster_size();
void cluster_arrive();
void cluster_wait();
// Transfers between the blocks of a cluster, for which a barrier in shared memory of the one that
// gets them counts bytes. The wait is a barrier of the cluster, which a device has not: what it
// orders besides the transfers is left to the reader. Throws Error where other bytes have come than
// were expected.
void begin_transfer(uint64_t* barrier);
void expect_transfer(uint64_t* barrier, int bytes);
void complete_transfer(uint64_t* barrier, unsigned rank, std::size_t bytes);
void wait_for_transfer(uint64_t* barrier, unsigned parity);
// Where `address`, in shared memory of the current block, is in that of another of its cluster.
void* map_shared_rank(const void* address, unsigned rank);

// An access, made at `place` in sources compiled with -fsanitize=thread. Throws Error where it races
// with another.
void record_access(const void* place, const void* address, std::size_t bytes, bool is_write);
// Accesses recorded by kernels so far: 0 where the sources were not compiled for it.
int64_t recorded_accesses();

// Operations of the special-function units, for counts.h.
void count_special(int operations);

template <typename T>
T exchange_value(uint32_t mask, T value, int source) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(mask, bits, source);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace fastltc::emulator
