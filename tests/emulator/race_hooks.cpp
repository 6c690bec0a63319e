// What a compiler calls for each access to memory under -fsanitize=thread, in the place of that
// sanitizer's library: the accesses go to the emulator, which knows the barriers of CUDA.
#include <cstddef>

#include "emulator/emulator.h"

using fastltc::emulator::record_access;

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* at, std::size_t bytes) {
  record_access(__builtin_return_address(0), at, bytes, false);
}
void __tsan_write_range(void* at, std::size_t bytes) {
  record_access(__builtin_return_address(0), at, bytes, true);
}

#define FASTLTC_HOOKS(bytes)                                      \
  void __tsan_read##bytes(void* at) {                             \
    record_access(__builtin_return_address(0), at, bytes, false); \
  }                                                               \
  void __tsan_write##bytes(void* at) {                            \
    record_access(__builtin_return_address(0), at, bytes, true);  \
  }                                                               \
  void __tsan_unaligned_read##bytes(void* at) {                   \
    record_access(__builtin_return_address(0), at, bytes, false); \
  }                                                               \
  void __tsan_unaligned_write##bytes(void* at) {                  \
    record_access(__builtin_return_address(0), at, bytes, true);  \
  }
FASTLTC_HOOKS(1)
FASTLTC_HOOKS(2)
FASTLTC_HOOKS(4)
FASTLTC_HOOKS(8)
FASTLTC_HOOKS(16)
}
