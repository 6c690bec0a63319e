#include "emulator/emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

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

enum class State { ready, at_sync_threads, at_sync_warp, at_shuffle, ended };

const char* state_text(State state) {
  switch (state) {
    case State::at_sync_threads:
      return "__syncthreads";
    case State::at_sync_warp:
      return "__syncwarp";
    case State::at_shuffle:
      return "a shuffle";
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

struct Thread {
  Block* block = nullptr;
  int index = 0;  // in its block
  uint3 thread_idx;
  State state = State::ready;
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
};

struct SharedMemory {
  const void* key = nullptr;
  std::size_t bytes = 0;
  std::unique_ptr<char[]> memory;
};

struct Block {
  uint3 block_idx;
  int64_t index = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  int live = 0;
  int arrived = 0;
  uint32_t epoch = 0;
  std::vector<SharedMemory> shared;  // the dynamic one first
};

// Who accessed four bytes, and when, as barriers count it.
struct Access {
  int64_t block = -1;
  int thread = 0;
  uint32_t block_epoch = 0;
  uint32_t warp_epoch = 0;

  int warp() const { return thread / kWarp; }
};

// The reads since the last write, no more of them than a write to come can race with: once a
// barrier has passed, those before it are done with.
struct Reads {
  Access last;
  bool other_blocks = false;
  bool other_warps = false;    // in the same epoch of the block
  bool other_threads = false;  // in the same epoch of the warp

  void add(const Access& read) {
    if (last.block >= 0 && last.block != read.block) other_blocks = true;
    const bool same_epoch = last.block >= 0 && last.block_epoch == read.block_epoch;
    other_warps = same_epoch && (other_warps || last.warp() != read.warp());
    const bool same_warp_epoch = same_epoch && last.warp_epoch == read.warp_epoch;
    other_threads = same_warp_epoch && (other_threads || last.thread != read.thread);
    last = read;
  }
};

// Whether no barrier lies between an access (and others like it) and a later one.
bool race(const Reads& earlier, const Access& later) {
  const Access& last = earlier.last;
  if (last.block < 0) return false;
  if (earlier.other_blocks || last.block != later.block) return true;
  if (last.block_epoch != later.block_epoch) return false;
  if (earlier.other_warps || last.warp() != later.warp()) return true;
  if (last.warp_epoch != later.warp_epoch) return false;
  return earlier.other_threads || last.thread != later.thread;
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
                          State::ended};
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

void release_block(Block& block) {
  block.arrived = 0;
  ++block.epoch;
  for (Thread& thread : block.threads) {
    if (thread.state != State::at_sync_threads) continue;
    thread.state = State::ready;
    block.warps[thread.index / kWarp].ready.push_back(&thread);
  }
  for (Warp& warp : block.warps) order_lanes(warp.ready);
}

void end_thread() {
  Thread& thread = *current;
  Block& block = *thread.block;
  thread.state = State::ended;
  --block.live;
  if (block.live > 0 && block.arrived == block.live) release_block(block);
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

std::unique_ptr<Block> make_block(int64_t index, std::size_t shared_bytes, std::size_t stack) {
  auto block = std::make_unique<Block>();
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

void run_blocks(std::vector<std::unique_ptr<Block>>& blocks) {
  while (!blocks.empty()) {
    const std::size_t k = blocks.size() == 1 ? 0 : generator() % blocks.size();
    Block& block = *blocks[k];
    Thread* const thread = next_ready(block);
    if (thread == nullptr) fail(block, "deadlock");
    resume(*thread);
    if (failure) std::rethrow_exception(failure);
    if (block.live > 0) continue;
    forget_accesses(block);
    blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(k));
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

void launch(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body) {
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y * grid.z;
  const int64_t threads = static_cast<int64_t>(block.x) * block.y * block.z;
  if (current != nullptr) throw Error("a kernel is launched from a kernel");
  if (blocks == 0 || threads == 0) throw Error("a launch of no blocks or no threads");
  if (grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu) {
    throw Error("a grid larger than a device takes");
  }
  if (threads > 1024) throw Error("more than 1024 threads in a block");
  const Launched launched;
  gridDim = grid;
  blockDim = block;
  kernel = &body;
  std::vector<std::unique_ptr<Block>> resident;
  if (schedule.blocks == Order::random) {
    std::vector<int64_t> order(blocks);
    for (int64_t k = 0; k < blocks; ++k) order[k] = k;
    std::shuffle(order.begin(), order.end(), generator);
    for (int64_t k = 0; k < blocks; k += schedule.resident) {
      const int64_t count = std::min<int64_t>(schedule.resident, blocks - k);
      for (int64_t n = 0; n < count; ++n) {
        resident.push_back(make_block(order[k + n], shared_bytes, n * threads));
      }
      run_blocks(resident);
    }
    return;
  }
  for (int64_t k = 0; k < blocks; ++k) {
    const int64_t index = schedule.blocks == Order::reverse ? blocks - 1 - k : k;
    resident.push_back(make_block(index, shared_bytes, 0));
    run_blocks(resident);
  }
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

void record_access(const void* address, std::size_t bytes, bool is_write) {
  if (!in_kernel || stacks.holds(address)) return;
  const OutOfKernel out;
  ++accesses;
  const Block& block = *current->block;
  const Access access{block.index, current->index, block.epoch,
                      block.warps[current->index / kWarp].epoch};
  // An exception cannot pass through code that the compiler takes for a plain access. The fiber is
  // left where it is, and the scheduler throws.
  const auto check = [&](const Reads& earlier, bool was_write) {
    if (!race(earlier, access)) return;
    failure = std::make_exception_ptr(Error(
        "race: thread " + std::to_string(access.thread) + " of block " +
        std::to_string(access.block) + (is_write ? " writes" : " reads") + " what thread " +
        std::to_string(earlier.last.thread) + " of block " + std::to_string(earlier.last.block) +
        (was_write ? " wrote" : " or another one read") + ", with no barrier between them"));
    suspend();
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
