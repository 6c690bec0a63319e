// Scratch memory of the kernels in the emulator.
#pragma once

#include <cstddef>
#include <vector>

namespace fastltc::test {

// Memory of exactly the size that is asked for, which is not zero.
struct ScratchMemory {
  std::vector<unsigned char> memory{};

  void* operator()(size_t bytes) {
    memory.assign(bytes, 0xff);
    return memory.data();
  }
};

}  // namespace fastltc::test
