// What kernels ask of a device, counted while the emulator runs them: accesses to shared memory by
// the wavefronts that they take, accesses to global memory by sectors, barriers, shuffles, special
// functions and launches. The same for every device and order of threads.
//
// Accesses are seen in sources compiled with -fsanitize=thread and linked to race_hooks.cpp. What
// the lanes of a warp access at the same place of the code, the same number of times after a
// barrier or shuffle of their warp, is taken for one instruction. The compiler for the device may
// make two of one, or one of two, so that counts are to be compared with each other. What a device
// has in registers or as arguments of the launch is no memory; sectors follow the addresses, so
// arrays have to be aligned as a device's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace fastltc::emulator {

// Of a launch, all warps together.
struct Counts {
  // 32 banks of four bytes; a wavefront fetches one word of each. Accesses of 8 and 16 bytes take
  // the lanes of a half or a quarter of a warp at a time.
  int64_t wavefronts = 0;
  int64_t remote = 0;    // the same, of other blocks of a cluster
  int64_t sectors = 0;   // of 32 bytes in global memory
  int64_t barriers = 0;  // of a warp or block, and waits for a cluster
  int64_t shuffles = 0;
  int64_t special = 0;  // operations of the special-function units

  void add(const Counts& other, int64_t times = 1);
};

struct CountedLaunch {
  std::string kernel;  // without namespace and arguments; memset and memcpy are none
  int64_t warps = 0;   // 0: no kernel
  Counts counts;
};

// Counts what follows, and nothing that ran before. Races are not looked for meanwhile.
void start_counting();
// All launches since then, in their order.
std::vector<CountedLaunch> stop_counting();

// For the emulator.
bool is_counting();
void count_launch(const void* kernel, int64_t warps);
void count_copy(const char* what);

enum class Memory { shared, remote, global };

// Of one warp, since its last barrier or shuffle.
class WarpCounter {
 public:
  void access(int lane, const void* place, const void* address, std::size_t bytes, Memory memory);
  void special(int lane, int operations) { special_[lane] += operations; }
  // When all lanes have arrived.
  void barrier();
  void shuffle();
  void end() { settle(); }

 private:
  struct Access {
    const void* place;
    uintptr_t address;
    std::size_t bytes;
    Memory memory;
  };
  void settle();

  std::vector<Access> accesses_[32];
  int special_[32] = {};
};

}  // namespace fastltc::emulator
