#include "emulator/counts.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <utility>

namespace fastltc::emulator {
namespace {

constexpr int kBanks = 32;
bool counting = false;
std::vector<CountedLaunch> launches;

// Lanes that take a turn of their own with accesses of so many bytes.
int lanes_of_turn(std::size_t bytes) { return bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8; }

struct Instruction {
  Memory memory;
  std::size_t bytes;
  std::vector<std::pair<int, uintptr_t>> addresses{};  // of lanes
};

int64_t wavefronts(const Instruction& instruction) {
  int64_t total = 0;
  const int lanes = lanes_of_turn(instruction.bytes);
  for (int first = 0; first < 32; first += lanes) {
    std::set<uintptr_t> words[kBanks];
    for (const auto& [lane, address] : instruction.addresses) {
      if (lane < first || lane >= first + lanes) continue;
      for (uintptr_t word = address / 4; word <= (address + instruction.bytes - 1) / 4; ++word) {
        words[word % kBanks].insert(word);
      }
    }
    std::size_t most = 0;
    for (const auto& bank : words) most = std::max(most, bank.size());
    total += static_cast<int64_t>(most);
  }
  return total;
}

int64_t sectors(const Instruction& instruction) {
  std::set<uintptr_t> touched;
  for (const auto& [lane, address] : instruction.addresses) {
    for (uintptr_t at = address / 32; at <= (address + instruction.bytes - 1) / 32; ++at) {
      touched.insert(at);
    }
  }
  return static_cast<int64_t>(touched.size());
}

// kernel<float, 4> of void space::kernel<float, 4>(arguments).
std::string name_of(const void* kernel) {
  Dl_info info;
  if (dladdr(kernel, &info) == 0 || info.dli_sname == nullptr) return "unknown";
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status), std::free);
  std::string name = text == nullptr ? info.dli_sname : text.get();
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t k = 0; k < name.size(); ++k) {
    depth += name[k] == '<' ? 1 : name[k] == '>' ? -1 : 0;
    if (depth > 0) continue;
    if (name[k] == ' ' || name[k] == ':') begin = k + 1;
    if (name[k] == '(') return name.substr(begin, k - begin);
  }
  return name.substr(begin);
}

}  // namespace

void Counts::add(const Counts& other, int64_t times) {
  for (int64_t Counts::* field : {&Counts::wavefronts, &Counts::remote, &Counts::sectors,
                                  &Counts::barriers, &Counts::shuffles, &Counts::special}) {
    this->*field += times * (other.*field);
  }
}

void start_counting() {
  launches.clear();
  counting = true;
}
std::vector<CountedLaunch> stop_counting() {
  counting = false;
  return std::move(launches);
}
bool is_counting() { return counting; }
void count_launch(const void* kernel, int64_t warps) {
  if (counting) launches.push_back({name_of(kernel), warps, {}});
}
void count_copy(const char* what) {
  if (counting) launches.push_back({what, 0, {}});
}

void WarpCounter::access(int lane, const void* place, const void* address, std::size_t bytes,
                         Memory memory) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(address);
  // An instruction has at most 16 bytes.
  for (std::size_t done = 0; done < bytes; done += 16) {
    accesses_[lane].push_back({place, at + done, std::min<std::size_t>(bytes - done, 16), memory});
  }
}

void WarpCounter::settle() {
  std::map<std::pair<const void*, int>, Instruction> instructions;
  for (int lane = 0; lane < 32; ++lane) {
    std::map<const void*, int> times;
    for (const Access& access : accesses_[lane]) {
      const std::pair key{access.place, times[access.place]++};
      const auto [at, is_new] =
          instructions.try_emplace(key, Instruction{access.memory, access.bytes});
      at->second.addresses.emplace_back(lane, access.address);
    }
    accesses_[lane].clear();
  }
  Counts& counts = launches.back().counts;
  for (const auto& [key, instruction] : instructions) {
    if (instruction.memory == Memory::global) {
      counts.sectors += sectors(instruction);
    } else {
      (instruction.memory == Memory::shared ? counts.wavefronts : counts.remote) +=
          wavefronts(instruction);
    }
  }
  counts.special += *std::max_element(special_, special_ + 32);
  std::fill_n(special_, 32, 0);
}

void WarpCounter::barrier() {
  settle();
  ++launches.back().counts.barriers;
}
void WarpCounter::shuffle() {
  settle();
  ++launches.back().counts.shuffles;
}

}  // namespace fastltc::emulator
