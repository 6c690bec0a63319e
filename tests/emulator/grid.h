// The threads, warps, blocks and clusters that run, and what is known of them all.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "emulator/accesses.h"
#include "emulator/counts.h"
#include "emulator/emulator.h"
#include "emulator/fiber.h"

namespace fastltc::emulator {

enum class State { ready, at_sync_threads, at_sync_warp, at_shuffle, at_cluster_wait, ended };

struct Block;
struct Cluster;

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  int index = 0;  // in its block
  uint3 thread_idx;
  State state = State::ready;
  int arrivals = 0;  // at the cluster's barrier
  int waits = 0;     // for it, that are over
  uint32_t mask = 0;
  uint64_t value = 0;  // given to a shuffle, then got from it
  int source = 0;
};

struct Warp {
  std::vector<Thread*> ready;
  uint32_t arrived = 0;  // lanes waiting for their warp
  uint32_t epoch = 0;    // barriers passed
  WarpCounter counter{};
};

struct SharedMemory {
  const void* key = nullptr;
  std::size_t bytes = 0;
  std::unique_ptr<char[]> memory;
};

struct Block {
  Cluster* cluster = nullptr;
  unsigned rank = 0;  // in its cluster
  uint3 block_idx;
  int64_t index = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  uint32_t ready = 0;  // warps that have a thread that can run, a bit each
  int live = 0;
  int arrived = 0;
  uint32_t epoch = 0;
  std::vector<SharedMemory> shared;  // the dynamic one first

  bool holds(const void* address) const {
    const char* const at = static_cast<const char*>(address);
    return std::any_of(shared.begin(), shared.end(), [&](const SharedMemory& part) {
      return at >= part.memory.get() && at < part.memory.get() + part.bytes;
    });
  }
};

// Blocks that run at once and see each other's shared memory; a block of its own is one, too.
struct Cluster {
  int64_t index = 0;
  std::vector<std::unique_ptr<Block>> blocks;
  int live = 0;       // threads
  int arrived = 0;    // live threads, at the barrier of now
  int completed = 0;  // barriers
};

// The grid that runs.
extern unsigned cluster_blocks;
extern Thread* current;
// What a thread threw, for whoever schedules.
extern std::exception_ptr failure;
extern Shadows shadows;

// Whether a kernel's own code runs. Templates that the emulator uses too may have been compiled
// with the instrumentation.
extern bool in_kernel;
struct OutOfKernel {
  OutOfKernel() { in_kernel = false; }
  ~OutOfKernel() { in_kernel = true; }
};

// Suspends the current thread.
void suspend();
// Throws Error: what is wrong in a block, and who waits where.
[[noreturn]] void fail(const Block& block, const std::string& what);

// It can run, once the lanes of its warp are in order.
void make_ready(Thread& thread);
// In the order of the schedule.
void order_lanes(std::vector<Thread*>& lanes);
// The current thread has ended: barriers no longer wait for it.
void end_thread();

void* add_shared_memory(Block& block, const void* key, std::size_t bytes);
// Of a block that ends: what others of its cluster do there must come before, by a barrier that
// they have passed. It stays in the emulator, to tell who comes too late.
void end_shared_memory(Block& block);
// The next cluster may get the same memory, which it does not share with this one.
void forget_shared_memory(const Cluster& cluster);
// The kernel's arguments lie above this address.
void set_launch_stack(const void* end);

}  // namespace fastltc::emulator
