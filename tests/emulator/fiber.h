// Fibers: the threads of a kernel take turns on the one thread that launches it, each on a stack of
// its own.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace fastltc::emulator {

struct Fiber {
  char* stack = nullptr;
#if defined(__x86_64__)
  void* top = nullptr;
#else
  ucontext_t context;
#endif
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// Has a fiber call `run` on the stack of this number, once it is resumed. `run` must not return.
void prepare(Fiber& fiber, std::size_t stack, void (*run)());
// From whoever schedules, until the fiber is suspended.
void resume(Fiber& fiber);
// The fiber that runs; returns when that is resumed, which one that has ended is not.
void suspend(bool has_ended);
// Whether an address is on the stack of a fiber.
bool is_on_stack(const void* address);

}  // namespace fastltc::emulator
