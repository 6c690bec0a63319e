// Scratch memory of the kernels in the emulator.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace fastltc::test {

// As the memory of a device is aligned.
template <typename T>
struct DeviceAllocator {
  using value_type = T;
  static constexpr std::align_val_t alignment{256};

  T* allocate(size_t count) {
    return static_cast<T*>(::operator new(count * sizeof(T), alignment));
  }
  void deallocate(T* memory, size_t) { ::operator delete(memory, alignment); }
  bool operator==(const DeviceAllocator&) const { return true; }
};

// Memory of exactly the size that is asked for, which is not zero.
struct ScratchMemory {
  std::vector<unsigned char, DeviceAllocator<unsigned char>> memory{};

  void* operator()(size_t bytes) {
    memory.assign(bytes, 0xff);
    return memory.data();
  }
};

}  // namespace fastltc::test
