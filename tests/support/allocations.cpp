// In a file of its own: compilers that see both ends warn of malloc behind new.
#include "support/allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

static std::atomic<int64_t> count{0};

int64_t fastltc::test::allocations() { return count; }

void* operator new(size_t bytes) {
  ++count;
  if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}

void* operator new(size_t bytes, std::align_val_t alignment) {
  ++count;
  const size_t line = static_cast<size_t>(alignment);
  // A whole number of lines, as the function asks for.
  if (void* const memory = std::aligned_alloc(line, (bytes / line + 1) * line)) return memory;
  throw std::bad_alloc();
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
