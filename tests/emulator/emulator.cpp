#include "emulator/emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

#include "emulator/counts.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

#if defined(__x86_64__)
// Saves what a call must leave as it was, and goes on where the other stack stopped. ucontext does
// the same with a system call each time.
extern "C" void fastltc_switch_stack(void** from, void* to);
asm(R"(
.text
.globl fastltc_switch_stack
.hidden fastltc_switch_stack
.type fastltc_switch_stack, @function
fastltc_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastltc_switch_stack, . - fastltc_switch_stack
)");
#endif

namespace fastltc::emulator {
namespace {

constexpr int kWarp = 32;
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = 256 << 10;
#else
constexpr std::size_t kStackBytes = 64 << 10;
#endif
constexpr std::size_t kGuardBytes = 4096;
constexpr std::size_t kMaxFibers = 8192;

enum class State { ready, at_sync_threads, at_sync_warp, at_shuffle, at_cluster_wait, ended };

const char* state_text(State state) {
  switch (state) {
    case State::at_sync_threads:
      return "__syncthreads";
    case State::at_sync_warp:
      return "__syncwarp";
    case State::at_shuffle:
      return "a shuffle";
    case State::at_cluster_wait:
      return "the barrier of the cluster";
    case State::ended:
      return "the end";
    default:
      return "nothing";
  }
}

// All stacks in one reserved range, each above a page that faults: an access can be told to be to a
// stack by its address alone.
class Stacks {
 public:
  char* at(std::size_t index) {
    if (range_ == nullptr) {
      void* const range = mmap(nullptr, kMaxFibers * kStackBytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (range == MAP_FAILED) throw std::bad_alloc();
      range_ = static_cast<char*>(range);
    }
    if (index >= kMaxFibers) throw Error("more threads are resident than there are stacks");
    char* const stack = range_ + index * kStackBytes;
    for (; guarded_ <= index; ++guarded_) {
      mprotect(range_ + guarded_ * kStackBytes, kGuardBytes, PROT_NONE);
    }
    return stack + kGuardBytes;
  }
  static constexpr std::size_t size() { return kStackBytes - kGuardBytes; }
  bool holds(const void* address) const {
    const char* const at = static_cast<const char*>(address);
    return range_ != nullptr && at >= range_ && at < range_ + kMaxFibers * kStackBytes;
  }

 private:
  char* range_ = nullptr;
  std::size_t guarded_ = 0;
};

struct Block;
struct Cluster;

struct Thread {
  Block* block = nullptr;
  int index = 0;  // in its block
  uint3 thread_idx;
  State state = State::ready;
  int arrivals = 0;  // at the cluster's barrier
  int waits = 0;     // for it, that are over
  uint32_t mask = 0;
  uint64_t value = 0;  // given to a shuffle, then got from it
  int source = 0;
  char* stack = nullptr;
#if defined(__x86_64__)
  void* top = nullptr;
#else
  ucontext_t context;
#endif
  void* fake_stack = nullptr;
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

bool holds_shared(const Cluster& cluster, const void* address) {
  return std::any_of(cluster.blocks.begin(), cluster.blocks.end(),
                     [&](const auto& block) { return block->holds(address); });
}

// The stack of whoever launches, as far as its frames may reach.
struct LaunchStack {
  const char* end = nullptr;
  bool holds(const void* address) const {
    const char* const at = static_cast<const char*>(address);
    return at >= end && at < end + (64 << 10);
  }
};
LaunchStack launch_arguments;

// Who accessed four bytes, and when, as barriers count it.
struct Access {
  int64_t cluster = -1;
  int64_t block = -1;
  int thread = 0;
  uint32_t block_epoch = 0;
  uint32_t warp_epoch = 0;
  // Of the thread at the cluster's barrier. What comes before an arrival is ordered before what
  // comes after another thread's wait of the same number, and nothing else is.
  int arrivals = 0;
  int waits = 0;

  int warp() const { return thread / kWarp; }
};

// The reads since the last write, no more of them than a write to come can race with: once a
// barrier has passed, those before it are done with. Of the others, the most arrivals that one had
// behind it; -1: there are none.
struct Reads {
  Access last;
  bool other_clusters = false;
  int same_block = -1;     // all of the last one's block, whatever its barriers
  int other_blocks = -1;   // of its cluster
  int other_warps = -1;    // in the same epoch of the block
  int other_threads = -1;  // in the same epoch of the warp

  Reads() = default;
  explicit Reads(const Access& access) : last(access), same_block(access.arrivals) {}

  void add(const Access& read) {
    if (last.block < 0) {
      *this = Reads(read);
      return;
    }
    if (last.cluster != read.cluster) other_clusters = true;
    if (last.block != read.block) {
      other_blocks = std::max(other_blocks, same_block);
      same_block = other_warps = other_threads = -1;
    } else if (last.block_epoch != read.block_epoch) {
      other_warps = other_threads = -1;
    } else if (last.warp() != read.warp()) {
      other_warps = std::max({other_warps, other_threads, last.arrivals});
      other_threads = -1;
    } else if (last.warp_epoch != read.warp_epoch) {
      other_threads = -1;
    } else if (last.thread != read.thread) {
      other_threads = std::max(other_threads, last.arrivals);
    }
    same_block = std::max(same_block, read.arrivals);
    last = read;
  }
};

// Whether no barrier lies between an access (and others like it) and a later one.
bool race(const Reads& earlier, const Access& later) {
  const Access& last = earlier.last;
  if (last.block < 0) return false;
  if (earlier.other_clusters || last.cluster != later.cluster) return true;
  if (earlier.other_blocks >= later.waits) return true;
  if (last.block != later.block) return earlier.same_block >= later.waits;
  if (last.block_epoch != later.block_epoch) return false;
  if (earlier.other_warps >= later.waits) return true;
  if (last.warp() != later.warp()) {
    return std::max(earlier.other_threads, last.arrivals) >= later.waits;
  }
  if (last.warp_epoch != later.warp_epoch) return false;
  if (earlier.other_threads >= later.waits) return true;
  return last.thread != later.thread && last.arrivals >= later.waits;
}

struct Shadow {
  Reads write;  // the last one alone
  Reads reads;
};

// The shadows of all words, by pages.
class Shadows {
 public:
  Shadow& of(uintptr_t word) {
    const uintptr_t page = word / kWords;
    if (last_ == nullptr || page != last_page_) {
      auto& entry = pages_[page];
      if (entry == nullptr) entry = std::make_unique<Shadow[]>(kWords);
      last_ = entry.get();
      last_page_ = page;
    }
    return last_[word % kWords];
  }
  bool empty() const { return pages_.empty(); }
  void clear() {
    pages_.clear();
    last_ = nullptr;
  }

 private:
  static constexpr uintptr_t kWords = 256;
  std::unordered_map<uintptr_t, std::unique_ptr<Shadow[]>> pages_;
  Shadow* last_ = nullptr;
  uintptr_t last_page_ = 0;
};

Schedule schedule;
unsigned cluster_blocks = 1;
Stacks stacks;
std::mt19937_64 generator;
Thread* current = nullptr;
const std::function<void()>* kernel = nullptr;
std::exception_ptr failure;
Shadows shadows;
int64_t accesses = 0;

// Whether a kernel's own code runs. Templates that the emulator uses too may have been compiled
// with the instrumentation.
bool in_kernel = false;
struct OutOfKernel {
  OutOfKernel() { in_kernel = false; }
  ~OutOfKernel() { in_kernel = true; }
};

#if defined(__x86_64__)
void* scheduler_top = nullptr;
#else
ucontext_t scheduler_context;
#endif
#if defined(__SANITIZE_ADDRESS__)
void* scheduler_fake_stack = nullptr;
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_size = 0;
#endif

void resume(Thread& thread) {
  current = &thread;
  threadIdx = thread.thread_idx;
  blockIdx = thread.block->block_idx;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, thread.stack, Stacks::size());
#endif
#if defined(__x86_64__)
  fastltc_switch_stack(&scheduler_top, thread.top);
#else
  swapcontext(&scheduler_context, &thread.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
  current = nullptr;
}

// Back to the scheduler, from the current fiber; returns when that is resumed.
void suspend() {
  Thread& thread = *current;
#if defined(__SANITIZE_ADDRESS__)
  void** const keep = thread.state == State::ended ? nullptr : &thread.fake_stack;
  __sanitizer_start_switch_fiber(keep, scheduler_stack, scheduler_stack_size);
#endif
#if defined(__x86_64__)
  fastltc_switch_stack(&thread.top, scheduler_top);
#else
  swapcontext(&thread.context, &scheduler_context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(thread.fake_stack, &scheduler_stack, &scheduler_stack_size);
#endif
}

std::string waiting_text(const Block& block) {
  std::string text;
  const State states[] = {State::at_sync_threads, State::at_sync_warp, State::at_shuffle,
                          State::at_cluster_wait, State::ended};
  for (const State state : states) {
    int count = 0, first = -1;
    for (const Thread& thread : block.threads) {
      if (thread.state != state) continue;
      ++count;
      if (first < 0) first = thread.index;
    }
    if (count == 0) continue;
    text += "; " + std::to_string(count) + " threads (first: " + std::to_string(first) +
            (state == State::ended ? ") have reached " : ") wait at ") + state_text(state);
  }
  return text;
}

[[noreturn]] void fail(const Block& block, const std::string& what) {
  throw Error(what + " in block " + std::to_string(block.index) + waiting_text(block));
}

void order_lanes(std::vector<Thread*>& lanes) {
  if (schedule.threads == Order::reverse) {
    std::sort(lanes.begin(), lanes.end(), [](auto* a, auto* b) { return a->index < b->index; });
  } else if (schedule.threads == Order::forward) {
    std::sort(lanes.begin(), lanes.end(), [](auto* a, auto* b) { return a->index > b->index; });
  } else {
    std::shuffle(lanes.begin(), lanes.end(), generator);
  }
}

void count_barrier(Block& block) {
  if (!is_counting()) return;
  for (Warp& warp : block.warps) warp.counter.barrier();
}

void release_block(Block& block) {
  block.arrived = 0;
  ++block.epoch;
  count_barrier(block);
  for (Thread& thread : block.threads) {
    if (thread.state != State::at_sync_threads) continue;
    thread.state = State::ready;
    block.warps[thread.index / kWarp].ready.push_back(&thread);
  }
  for (Warp& warp : block.warps) order_lanes(warp.ready);
}

// Once all threads of a cluster have arrived.
void release_cluster(Cluster& cluster) {
  cluster.arrived = 0;
  ++cluster.completed;
  for (const auto& block : cluster.blocks) {
    bool any = false;
    for (Thread& thread : block->threads) {
      if (thread.state != State::at_cluster_wait) continue;
      thread.state = State::ready;
      block->warps[thread.index / kWarp].ready.push_back(&thread);
      any = true;
    }
    if (any) count_barrier(*block);
    for (Warp& warp : block->warps) {
      if (any) order_lanes(warp.ready);
    }
  }
}

void end_thread() {
  Thread& thread = *current;
  Block& block = *thread.block;
  Cluster& cluster = *block.cluster;
  thread.state = State::ended;
  --block.live;
  --cluster.live;
  // A barrier waits for the threads that have not ended.
  if (block.live > 0 && block.arrived == block.live) release_block(block);
  if (thread.arrivals > cluster.completed) --cluster.arrived;
  if (cluster.live > 0 && cluster.arrived == cluster.live) release_cluster(cluster);
}

void run_current() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
  try {
    in_kernel = true;
    (*kernel)();
    in_kernel = false;
  } catch (...) {
    in_kernel = false;
    if (!failure) failure = std::current_exception();
  }
  end_thread();
  suspend();
  std::terminate();
}

void prepare(Thread& thread, std::size_t stack_index) {
  thread.stack = stacks.at(stack_index);
#if defined(__SANITIZE_ADDRESS__)
  // What was abandoned there has left its red zones.
  __asan_unpoison_memory_region(thread.stack, Stacks::size());
#endif
#if defined(__x86_64__)
  // The stack as fastltc_switch_stack leaves it: six registers and where to return to; above them a
  // return address that is not used, which gives the alignment that a function expects.
  void** top = reinterpret_cast<void**>(thread.stack + Stacks::size());
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&run_current);
  for (int k = 0; k < 6; ++k) *--top = nullptr;
  thread.top = top;
#else
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = thread.stack;
  thread.context.uc_stack.ss_size = Stacks::size();
  thread.context.uc_link = nullptr;
  makecontext(&thread.context, &run_current, 0);
#endif
}

void* add_shared_memory(Block& block, const void* key, std::size_t bytes) {
  SharedMemory shared{key, bytes, std::unique_ptr<char[]>(new char[bytes])};
  std::fill_n(shared.memory.get(), bytes, static_cast<char>(0xff));
  block.shared.push_back(std::move(shared));
  return block.shared.back().memory.get();
}

// The next block may get the same memory, which it does not share with this one.
void forget_accesses(const Block& block) {
  if (shadows.empty()) return;
  for (const SharedMemory& shared : block.shared) {
    const uintptr_t first = reinterpret_cast<uintptr_t>(shared.memory.get()) / 4;
    for (uintptr_t word = first; word <= first + shared.bytes / 4; ++word) {
      shadows.of(word) = Shadow();
    }
  }
}

std::unique_ptr<Block> make_block(Cluster& cluster, unsigned rank, std::size_t shared_bytes,
                                  std::size_t stack) {
  auto block = std::make_unique<Block>();
  const int64_t index = cluster.index * cluster_blocks + rank;
  block->cluster = &cluster;
  block->rank = rank;
  block->index = index;
  block->block_idx = {static_cast<unsigned>(index % gridDim.x),
                      static_cast<unsigned>(index / gridDim.x % gridDim.y),
                      static_cast<unsigned>(index / gridDim.x / gridDim.y)};
  add_shared_memory(*block, nullptr, shared_bytes);
  const int count = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  block->threads.resize(count);
  block->warps.resize((count + kWarp - 1) / kWarp);
  block->live = count;
  for (int k = 0; k < count; ++k) {
    Thread& thread = block->threads[k];
    thread.block = block.get();
    thread.index = k;
    thread.thread_idx = {k % blockDim.x, k / blockDim.x % blockDim.y, k / blockDim.x / blockDim.y};
    prepare(thread, stack + k);
    block->warps[k / kWarp].ready.push_back(&thread);
  }
  for (Warp& warp : block->warps) order_lanes(warp.ready);
  return block;
}

std::unique_ptr<Cluster> make_cluster(int64_t index, std::size_t shared_bytes, std::size_t stack) {
  auto cluster = std::make_unique<Cluster>();
  cluster->index = index;
  for (unsigned rank = 0; rank < cluster_blocks; ++rank) {
    auto block = make_block(*cluster, rank, shared_bytes, stack);
    stack += block->threads.size();
    cluster->live += block->live;
    cluster->blocks.push_back(std::move(block));
  }
  return cluster;
}

Thread* next_ready(Block& block) {
  const int count = static_cast<int>(block.warps.size());
  const int first = schedule.threads == Order::random ? static_cast<int>(generator() % count) : 0;
  for (int k = 0; k < count; ++k) {
    const int w = schedule.threads == Order::reverse ? count - 1 - k : (first + k) % count;
    std::vector<Thread*>& ready = block.warps[w].ready;
    if (ready.empty()) continue;
    Thread* const thread = ready.back();
    ready.pop_back();
    return thread;
  }
  return nullptr;
}

// A block's shared memory goes with it: what others of its cluster do there must come before, by a
// barrier that they have passed. It stays in the emulator, to tell who comes too late.
void end_block(Block& block) {
  Cluster& cluster = *block.cluster;
  for (Warp& warp : block.warps) {
    if (is_counting()) warp.counter.end();
  }
  if (cluster.blocks.size() == 1) return;
  for (const SharedMemory& shared : block.shared) {
    if (!shadows.empty()) {
      Access end{cluster.index, block.index, 0, block.epoch, 0, 0, 0};
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

void end_cluster(Cluster& cluster) {
  for (const auto& block : cluster.blocks) {
    forget_accesses(*block);
#if defined(__SANITIZE_ADDRESS__)
    for (const SharedMemory& shared : block->shared) {
      __asan_unpoison_memory_region(shared.memory.get(), shared.bytes);
    }
#endif
  }
}

// Of the resident blocks the one that has its turn, and its thread; null: none can run.
Thread* next_ready(const std::vector<std::unique_ptr<Cluster>>& clusters) {
  const std::size_t count = clusters.size() * cluster_blocks;
  const bool reverse = schedule.blocks == Order::reverse;
  const std::size_t first = schedule.blocks == Order::random && count > 1 ? generator() % count : 0;
  for (std::size_t k = 0; k < count; ++k) {
    const std::size_t at = reverse ? count - 1 - k : (first + k) % count;
    Block& block = *clusters[at / cluster_blocks]->blocks[at % cluster_blocks];
    if (Thread* const thread = next_ready(block)) return thread;
  }
  return nullptr;
}

void run_clusters(std::vector<std::unique_ptr<Cluster>>& clusters) {
  while (!clusters.empty()) {
    Thread* const thread = next_ready(clusters);
    if (thread == nullptr) {
      for (const auto& block : clusters[0]->blocks) {
        if (block->live > 0) fail(*block, "deadlock");
      }
    }
    Block& block = *thread->block;
    Cluster& cluster = *block.cluster;
    resume(*thread);
    if (failure) std::rethrow_exception(failure);
    if (block.live > 0) continue;
    end_block(block);
    if (cluster.live > 0) continue;
    end_cluster(cluster);
    std::erase_if(clusters, [&](const auto& other) { return other.get() == &cluster; });
  }
}

void arrive_at_warp(uint32_t mask, State state) {
  Thread& thread = *current;
  Block& block = *thread.block;
  const int first = thread.index / kWarp * kWarp;
  const int own = thread.index - first;
  Warp& warp = block.warps[thread.index / kWarp];
  const int size = std::min<int>(kWarp, static_cast<int>(block.threads.size()) - first);
  if ((mask >> own & 1) == 0) fail(block, "a lane is not in the mask that it gives");
  thread.mask = mask;
  thread.state = state;
  warp.arrived |= 1u << own;
  const uint32_t existing = size == kWarp ? ~0u : (1u << size) - 1;
  const uint32_t wanted = mask & existing;
  if ((warp.arrived & wanted) == wanted) {
    for (int k = 0; k < size; ++k) {
      if ((wanted >> k & 1) == 0) continue;
      const Thread& other = block.threads[first + k];
      if (other.state != state || other.mask != mask) {
        fail(block, "lanes of warp " + std::to_string(first / kWarp) +
                        " wait for each other at different places or with different masks");
      }
    }
    uint64_t got[kWarp] = {};
    for (int k = 0; k < size && state == State::at_shuffle; ++k) {
      if ((wanted >> k & 1) == 0) continue;
      const int source = block.threads[first + k].source;
      if (source < 0 || source >= size || (wanted >> source & 1) == 0) {
        fail(block, "a shuffle asks for the value of lane " + std::to_string(source) +
                        ", which does not take part");
      }
      got[k] = block.threads[first + source].value;
    }
    for (int k = 0; k < size; ++k) {
      if ((wanted >> k & 1) == 0) continue;
      Thread& other = block.threads[first + k];
      other.value = got[k];
      other.state = State::ready;
      warp.ready.push_back(&other);
    }
    order_lanes(warp.ready);
    warp.arrived &= ~wanted;
    if (is_counting()) {
      if (state == State::at_shuffle) {
        warp.counter.shuffle();
      } else {
        warp.counter.barrier();
      }
    }
    // Only __syncwarp orders accesses to memory; a shuffle does not.
    if (state == State::at_sync_warp) ++warp.epoch;
  }
  suspend();
}

// Threads of the grid as they are now: nothing of the launch may outlive it.
struct Launched {
  ~Launched() {
    kernel = nullptr;
    failure = nullptr;
    current = nullptr;
    in_kernel = false;
    shadows.clear();
  }
};

}  // namespace

void set_schedule(const Schedule& wanted) {
  schedule = wanted;
  generator.seed(wanted.seed);
}

void launch(const void* function, dim3 grid, dim3 block, unsigned cluster, std::size_t shared_bytes,
            const std::function<void()>& body) {
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y * grid.z;
  const int64_t threads = static_cast<int64_t>(block.x) * block.y * block.z;
  if (current != nullptr) throw Error("a kernel is launched from a kernel");
  if (blocks == 0 || threads == 0) throw Error("a launch of no blocks or no threads");
  if (grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu) {
    throw Error("a grid larger than a device takes");
  }
  if (threads > 1024) throw Error("more than 1024 threads in a block");
  if (cluster == 0 || cluster > 8) throw Error("clusters have 1 to 8 blocks");
  if (grid.x % cluster != 0) throw Error("a grid of no whole number of clusters");
  const Launched launched;
  launch_arguments.end = static_cast<const char*>(__builtin_frame_address(0));
  count_launch(function, blocks * ((threads + kWarp - 1) / kWarp));
  gridDim = grid;
  blockDim = block;
  cluster_blocks = cluster;
  kernel = &body;
  const int64_t clusters = blocks / cluster;
  std::vector<std::unique_ptr<Cluster>> resident;
  if (schedule.blocks == Order::random) {
    std::vector<int64_t> order(clusters);
    for (int64_t k = 0; k < clusters; ++k) order[k] = k;
    std::shuffle(order.begin(), order.end(), generator);
    const int64_t at_once = cluster == 1 ? schedule.resident : 2;
    for (int64_t k = 0; k < clusters; k += at_once) {
      const int64_t count = std::min<int64_t>(at_once, clusters - k);
      for (int64_t n = 0; n < count; ++n) {
        resident.push_back(make_cluster(order[k + n], shared_bytes, n * cluster * threads));
      }
      run_clusters(resident);
    }
    return;
  }
  for (int64_t k = 0; k < clusters; ++k) {
    const int64_t index = schedule.blocks == Order::reverse ? clusters - 1 - k : k;
    resident.push_back(make_cluster(index, shared_bytes, 0));
    run_clusters(resident);
  }
}

unsigned cluster_rank() { return current->block->rank; }
unsigned cluster_size() { return cluster_blocks; }

void cluster_arrive() {
  const OutOfKernel out;
  Thread& thread = *current;
  Cluster& cluster = *thread.block->cluster;
  if (thread.arrivals > thread.waits) {
    fail(*thread.block, "a thread arrives twice at the barrier of its cluster without waiting");
  }
  ++thread.arrivals;
  if (++cluster.arrived == cluster.live) release_cluster(cluster);
}

void cluster_wait() {
  const OutOfKernel out;
  Thread& thread = *current;
  if (thread.arrivals == thread.waits) {
    fail(*thread.block, "a thread waits for the barrier of its cluster without arriving");
  }
  if (thread.block->cluster->completed < thread.arrivals) {
    thread.state = State::at_cluster_wait;
    suspend();
  }
  ++thread.waits;
}

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

void sync_threads() {
  const OutOfKernel out;
  Block& block = *current->block;
  current->state = State::at_sync_threads;
  if (++block.arrived == block.live) release_block(block);
  suspend();
}

void sync_warp(uint32_t mask) {
  const OutOfKernel out;
  arrive_at_warp(mask, State::at_sync_warp);
}

uint64_t exchange(uint32_t mask, uint64_t value, int source) {
  const OutOfKernel out;
  Thread& thread = *current;
  thread.value = value;
  thread.source = source;
  arrive_at_warp(mask, State::at_shuffle);
  return thread.value;
}

int lane() { return current->index % kWarp; }

int64_t recorded_accesses() { return accesses; }

void count_special(int operations) {
  if (!is_counting() || current == nullptr) return;
  const OutOfKernel out;
  current->block->warps[current->index / kWarp].counter.special(lane(), operations);
}

void record_access(const void* place, const void* address, std::size_t bytes, bool is_write) {
  if (!in_kernel || stacks.holds(address)) return;
  const OutOfKernel out;
  ++accesses;
  Block& block = *current->block;
  if (is_counting()) {
    // Arguments of the launch, which a device has in its constant memory.
    if (launch_arguments.holds(address)) return;
    const Memory memory = block.holds(address)                    ? Memory::shared
                          : holds_shared(*block.cluster, address) ? Memory::remote
                                                                  : Memory::global;
    block.warps[current->index / kWarp].counter.access(lane(), place, address, bytes, memory);
    return;
  }
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

}  // namespace fastltc::emulator
