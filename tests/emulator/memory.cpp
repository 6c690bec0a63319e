// Shared memory, transfers between blocks, and what kernels access.
#include <algorithm>

#include "emulator/grid.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace fastltc::emulator {
namespace {

bool holds_shared(const Cluster& cluster, const void* address) {
  return std::any_of(cluster.blocks.begin(), cluster.blocks.end(),
                     [&](const auto& block) { return block->holds(address); });
}

// Where the kernel's arguments are, which a device has in its constant memory: on the stack of
// whoever launches, as far as its frames may reach.
const char* launch_stack = nullptr;
bool is_argument(const void* address) {
  const char* const at = static_cast<const char*>(address);
  return at >= launch_stack && at < launch_stack + (64 << 10);
}

// Of the thread that runs: registers of a device.
bool is_builtin(const void* address) {
  const void* const all[] = {&threadIdx, &blockIdx, &blockDim, &gridDim};
  return std::any_of(std::begin(all), std::end(all), [&](const void* first) {
    return address >= first && address < static_cast<const char*>(first) + sizeof(uint3);
  });
}

int64_t accesses = 0;

void count_access(const void* place, const void* address, std::size_t bytes) {
  if (is_argument(address)) return;
  Block& block = *current->block;
  const Memory memory = block.holds(address)                    ? Memory::shared
                        : holds_shared(*block.cluster, address) ? Memory::remote
                                                                : Memory::global;
  block.warps[current->index / kWarp].counter.access(lane(), place, address, bytes, memory);
}

void check_access(const void* address, std::size_t bytes, bool is_write) {
  const Block& block = *current->block;
  const Access access{block.cluster->index,
                      block.index,
                      current->index,
                      block.epoch,
                      block.warps[current->index / kWarp].epoch,
                      current->arrivals,
                      current->waits};
  const auto who = [&] {
    return "thread " + std::to_string(access.thread) + " of block " + std::to_string(access.block) +
           (is_write ? " writes" : " reads");
  };
  // An exception cannot pass through code that the compiler takes for a plain access. The fiber is
  // left where it is, and the scheduler throws.
  const auto abandon = [](const std::string& text) {
    failure = std::make_exception_ptr(Error(text));
    suspend();
  };
  if (cluster_blocks > 1 && !block.holds(address)) {
    for (const auto& other : block.cluster->blocks) {
      if (!other->holds(address)) continue;
      const std::string where = " the shared memory of block " + std::to_string(other->index);
      if (other->live == 0) abandon(who() + where + ", which has ended");
      if (current->waits == 0) abandon(who() + where + " before a barrier has shown that it runs");
    }
  }
  const auto check = [&](const Reads& earlier, bool was_write) {
    if (!race(earlier, access)) return;
    abandon("race: " + who() + " what thread " + std::to_string(earlier.last.thread) +
            " of block " + std::to_string(earlier.last.block) +
            (was_write ? " wrote" : " or another one read") + ", with no barrier between them");
  };
  const uintptr_t first = reinterpret_cast<uintptr_t>(address) / 4;
  const uintptr_t last = (reinterpret_cast<uintptr_t>(address) + bytes - 1) / 4;
  for (uintptr_t word = first; word <= last; ++word) {
    Shadow& shadow = shadows.of(word);
    check(shadow.write, true);
    if (is_write) {
      check(shadow.reads, false);
      shadow.reads = Reads();
      shadow.write = Reads{access};
    } else {
      shadow.reads.add(access);
    }
  }
}

}  // namespace

void* add_shared_memory(Block& block, const void* key, std::size_t bytes) {
  SharedMemory shared{key, bytes, std::unique_ptr<char[]>(new char[bytes])};
  std::fill_n(shared.memory.get(), bytes, static_cast<char>(0xff));
  block.shared.push_back(std::move(shared));
  return block.shared.back().memory.get();
}

void end_shared_memory(Block& block) {
  for (const SharedMemory& shared : block.shared) {
    if (!shadows.empty()) {
      Access end{block.cluster->index, block.index, 0, block.epoch, 0, 0, 0};
      for (const Thread& thread : block.threads) end.waits = std::max(end.waits, thread.waits);
      const auto check = [&](const Reads& earlier) {
        const Access& last = earlier.last;
        const bool elsewhere = last.block >= 0 && last.block != block.index;
        if (earlier.other_blocks < end.waits && !(elsewhere && earlier.same_block >= end.waits)) {
          return;
        }
        throw Error("block " + std::to_string(block.index) +
                    " ends with no barrier of the cluster after thread " +
                    std::to_string(last.thread) + " of block " + std::to_string(last.block) +
                    " or another one accessed its shared memory");
      };
      const uintptr_t first = reinterpret_cast<uintptr_t>(shared.memory.get()) / 4;
      for (uintptr_t word = first; word < first + shared.bytes / 4; ++word) {
        check(shadows.of(word).write);
        check(shadows.of(word).reads);
      }
    }
    std::fill_n(shared.memory.get(), shared.bytes, static_cast<char>(0xff));
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(shared.memory.get(), shared.bytes);
#endif
  }
}

void forget_shared_memory(const Cluster& cluster) {
  for (const auto& block : cluster.blocks) {
    for (const SharedMemory& shared : block->shared) {
      const uintptr_t first = reinterpret_cast<uintptr_t>(shared.memory.get()) / 4;
      for (uintptr_t word = first; !shadows.empty() && word <= first + shared.bytes / 4; ++word) {
        shadows.of(word) = Shadow();
      }
#if defined(__SANITIZE_ADDRESS__)
      __asan_unpoison_memory_region(shared.memory.get(), shared.bytes);
#endif
    }
  }
}

void set_launch_stack(const void* end) { launch_stack = static_cast<const char*>(end); }

void* map_shared_rank(const void* address, unsigned rank) {
  const OutOfKernel out;
  const Block& block = *current->block;
  if (rank >= cluster_blocks) fail(block, "a cluster has no rank " + std::to_string(rank));
  const Block& other = *block.cluster->blocks[rank];
  if (other.live == 0) {
    fail(block, "the shared memory of block " + std::to_string(other.index) +
                    ", which has ended, is mapped");
  }
  const char* const at = static_cast<const char*>(address);
  for (const SharedMemory& shared : block.shared) {
    if (at < shared.memory.get() || at >= shared.memory.get() + shared.bytes) continue;
    for (const SharedMemory& same : other.shared) {
      if (same.key == shared.key) return same.memory.get() + (at - shared.memory.get());
    }
    fail(block, "an array is mapped that the other block does not have yet");
  }
  fail(block, "an address is mapped that is not in the block's shared memory");
}

void begin_transfer(uint64_t* barrier) { *barrier = 0; }
void expect_transfer(uint64_t* barrier, int bytes) { *barrier -= static_cast<uint64_t>(bytes); }
void complete_transfer(uint64_t* barrier, unsigned rank, std::size_t bytes) {
  *static_cast<uint64_t*>(map_shared_rank(barrier, rank)) += bytes;
}
void wait_for_transfer(uint64_t* barrier, unsigned) {
  cluster_arrive();
  cluster_wait();
  if (*barrier == 0) return;
  fail(*current->block, "a transfer is " + std::to_string(static_cast<int64_t>(*barrier)) +
                            " bytes longer than was expected");
}

void* dynamic_shared() { return current->block->shared[0].memory.get(); }

void* static_shared(const void* key, std::size_t bytes) {
  const OutOfKernel out;
  Block& block = *current->block;
  for (const SharedMemory& shared : block.shared) {
    if (shared.key == key) return shared.memory.get();
  }
  return add_shared_memory(block, key, bytes);
}

int64_t recorded_accesses() { return accesses; }

void record_access(const void* place, const void* address, std::size_t bytes, bool is_write) {
  if (!in_kernel || is_on_stack(address) || is_builtin(address)) return;
  const OutOfKernel out;
  ++accesses;
  if (is_counting()) {
    count_access(place, address, bytes);
  } else {
    check_access(address, bytes, is_write);
  }
}

}  // namespace fastltc::emulator
