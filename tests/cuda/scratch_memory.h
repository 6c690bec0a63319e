// Scratch memory of the kernels in the emulator.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>

namespace fastltc::test {

// Memory of exactly the size that is asked for, which is not zero.
struct ScratchMemory {
  std::shared_ptr<unsigned char[]> memory{};

  void* operator()(size_t bytes) {
    memory.reset(new unsigned char[bytes]);
    std::fill_n(memory.get(), bytes, 0xff);
    return memory.get();
  }
};

}  // namespace fastltc::test
