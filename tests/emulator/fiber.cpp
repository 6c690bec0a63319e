#include "emulator/fiber.h"

#include <sys/mman.h>

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include "emulator/emulator.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

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

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = 256 << 10;
#else
constexpr std::size_t kStackBytes = 64 << 10;
#endif
constexpr std::size_t kGuardBytes = 4096;
constexpr std::size_t kMaxFibers = 8192;

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
  // Below where the last fiber on a stack was suspended; null: there was none.
  char*& left(const char* stack) { return left_[(stack - range_) / kStackBytes]; }
  static constexpr std::size_t size() { return kStackBytes - kGuardBytes; }
  bool holds(const void* address) const {
    const char* const at = static_cast<const char*>(address);
    return range_ != nullptr && at >= range_ && at < range_ + kMaxFibers * kStackBytes;
  }

 private:
  char* range_ = nullptr;
  std::size_t guarded_ = 0;
  char* left_[kMaxFibers] = {};
};

Stacks stacks;
Fiber* current = nullptr;
void (*body)() = nullptr;

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

void begin() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
  body();
  std::terminate();
}

}  // namespace

void prepare(Fiber& fiber, std::size_t stack, void (*run)()) {
  body = run;
  fiber.stack = stacks.at(stack);
#if defined(__SANITIZE_ADDRESS__)
  // What was abandoned there has left its red zones.
  if (char* const left = std::exchange(stacks.left(fiber.stack), nullptr)) {
    __asan_unpoison_memory_region(left, fiber.stack + Stacks::size() - left);
  }
#endif
#if defined(__x86_64__)
  // The stack as fastltc_switch_stack leaves it: six registers and where to return to; above them a
  // return address that is not used, which gives the alignment that a function expects.
  void** top = reinterpret_cast<void**>(fiber.stack + Stacks::size());
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&begin);
  for (int k = 0; k < 6; ++k) *--top = nullptr;
  fiber.top = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = Stacks::size();
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, &begin, 0);
#endif
}

void resume(Fiber& fiber) {
  current = &fiber;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack, Stacks::size());
#endif
#if defined(__x86_64__)
  fastltc_switch_stack(&scheduler_top, fiber.top);
#else
  swapcontext(&scheduler_context, &fiber.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void suspend([[maybe_unused]] bool has_ended) {
  Fiber& fiber = *current;
#if defined(__SANITIZE_ADDRESS__)
  stacks.left(fiber.stack) =
      std::max(fiber.stack, static_cast<char*>(__builtin_frame_address(0)) - kGuardBytes);
  void** const keep = has_ended ? nullptr : &fiber.fake_stack;
  __sanitizer_start_switch_fiber(keep, scheduler_stack, scheduler_stack_size);
#endif
#if defined(__x86_64__)
  fastltc_switch_stack(&fiber.top, scheduler_top);
#else
  swapcontext(&fiber.context, &scheduler_context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_stack, &scheduler_stack_size);
#endif
}

bool is_on_stack(const void* address) { return stacks.holds(address); }

}  // namespace fastltc::emulator
