// What the kernels that run sequences ask of a device in an unfold (LTC) or a step (CfC), and how
// many launches and copies a call takes, against the committed list csrc/cuda/counts.json.
//
//     test_cuda_counts LIST            fails where a count is larger than in the list, or missing
//     test_cuda_counts LIST --write    writes the list
//
// Counts are those of one block or cluster. They depend on how the compiler of the host orders and
// joins accesses to memory: where it is not the one that the list names, nothing is compared.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <new>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/cfc.h"
#include "cuda/ltc.h"
#include "cuda/scratch_memory.h"
#include "emulator/counts.h"
#include "support/cfc_case.h"
#include "support/ltc_case.h"

// All memory is aligned as a device's, so that sectors are counted as they are there.
void* operator new(std::size_t bytes) {
  constexpr std::size_t alignment = 256;
  void* const memory = std::aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace fastltc::test;
using fastltc::cuda::CfcSchedule;
using fastltc::cuda::LtcDevice;
using fastltc::cuda::LtcSchedule;
using fastltc::emulator::CountedLaunch;
using fastltc::emulator::Counts;

constexpr size_t kShared = 227u << 10;

// The list of the synapses of AutoNCP(19, 2) but for its random numbers: 2 motor neurons, 6 command
// and 11 inter neurons; 3 synapses from each inter neuron, 3 onto each motor neuron, and 6 among the
// command neurons.
std::vector<int32_t> ncp_synapses() {
  std::mt19937 random(7);
  std::vector<std::vector<bool>> matrix(19, std::vector<bool>(19));
  const auto connect = [&](int count, const auto& pre, const auto& post) {
    for (int n = 0; n < count;) {
      const auto i = pre(), j = post();
      if (matrix[j][i]) continue;
      matrix[j][i] = true;
      ++n;
    }
  };
  const auto command = [&] { return 2 + random() % 6; };
  for (unsigned i = 8; i < 19; ++i) connect(3, [&] { return i; }, command);
  for (unsigned m = 0; m < 2; ++m) connect(3, command, [&] { return m; });
  connect(6, command, command);
  std::vector<int32_t> list{0}, row;
  for (const auto& column : matrix) {
    for (int32_t i = 0; i < 19; ++i) {
      if (column[i]) row.push_back(i);
    }
    list.push_back(static_cast<int32_t>(row.size()));
  }
  list.insert(list.end(), row.begin(), row.end());
  return list;
}

struct Pass {
  std::string name;
  std::vector<CountedLaunch> launches;
};

std::vector<Pass> run_ltc(LtcCase c, bool is_ncp) {
  std::mt19937_64 random(3);
  c.density = 1.0;
  c.initial_state = false;
  LtcProblem problem(c, random);
  if (is_ncp) problem.synapses = ncp_synapses();
  const LtcDevice device{8, kShared};
  LtcCall<float> call(problem);
  LtcSchedule schedule = fastltc::cuda::ltc_schedule(call.in.size, problem.counts(), false, device,
                                                     c.nets, c.memory, c.resets);
  // As for a batch that fills the device.
  if (schedule.cluster > 1) {
    schedule.samples = static_cast<int>(c.B);
    schedule.blocks = 1;
  }
  const bool keeps_rates = fastltc::cuda::ltc_keeps_rates(call.in.size, problem.counts(), false);
  const auto out = call.prepare_forward(true, keeps_rates);
  const auto grad = call.prepare_backward(false);
  std::vector<Pass> passes;
  fastltc::emulator::start_counting();
  fastltc::cuda::launch_ltc_forward(schedule, call.in, problem.counts(), out, ScratchMemory(),
                                    nullptr);
  passes.push_back({"forward", fastltc::emulator::stop_counting()});
  fastltc::emulator::start_counting();
  fastltc::cuda::launch_ltc_backward(schedule, call.in, problem.counts(), grad, ScratchMemory(),
                                     nullptr);
  passes.push_back({"backward", fastltc::emulator::stop_counting()});
  return passes;
}

std::vector<Pass> run_cfc(const CfcCase& c) {
  std::mt19937_64 random(3);
  const CfcProblem problem(c, random);
  CfcCall<float> call(problem);
  const CfcSchedule schedule = fastltc::cuda::cfc_schedule(call.in, kShared);
  const auto out = call.prepare_forward(true);
  const auto grad = call.prepare_backward(false);
  std::vector<Pass> passes;
  fastltc::emulator::start_counting();
  fastltc::cuda::launch_cfc_forward(schedule, call.in, out, ScratchMemory(), nullptr);
  passes.push_back({"forward", fastltc::emulator::stop_counting()});
  fastltc::emulator::start_counting();
  fastltc::cuda::launch_cfc_backward(schedule, call.in, grad, ScratchMemory(), nullptr);
  passes.push_back({"backward", fastltc::emulator::stop_counting()});
  return passes;
}

using Row = std::map<std::string, double>;
std::map<std::string, Row> rows;

bool runs_sequences(const std::string& kernel) {
  for (const char* part :
       {"persistent", "cluster_forward", "cluster_backward", "cfc_warp", "cfc_block"}) {
    if (kernel.find(part) != std::string::npos) return true;
  }
  return false;
}

// Of runs that differ in one unfold of each of `steps`, or in one step.
void add_rows(const std::string& name, const std::vector<Pass>& fewer,
              const std::vector<Pass>& more, int steps) {
  for (size_t pass = 0; pass < fewer.size(); ++pass) {
    const std::string which = name + " " + fewer[pass].name;
    rows[which]["nodes"] = static_cast<double>(fewer[pass].launches.size());
    for (size_t k = 0; k < fewer[pass].launches.size(); ++k) {
      const CountedLaunch& launch = fewer[pass].launches[k];
      if (!runs_sequences(launch.kernel)) continue;
      Counts once = more[pass].launches[k].counts;
      once.add(launch.counts, -1);
      const double all = steps, warps = all * static_cast<double>(launch.warps);
      Row& row = rows[which];
      row["warps"] = static_cast<double>(launch.warps);
      row["wavefronts"] = static_cast<double>(once.wavefronts) / all;
      row["remote_wavefronts"] = static_cast<double>(once.remote) / all;
      row["sectors"] = static_cast<double>(once.sectors) / all;
      row["barriers_of_warp"] = static_cast<double>(once.barriers) / warps;
      row["shuffles_of_warp"] = static_cast<double>(once.shuffles) / warps;
      row["special_of_warp"] = static_cast<double>(once.special) / warps;
    }
  }
}

void count_ltc(const std::string& name, LtcCase c, bool is_ncp = false) {
  const auto fewer = run_ltc(c, is_ncp);
  ++c.U;
  add_rows(name, fewer, run_ltc(c, is_ncp), static_cast<int>(c.T));
}
void count_cfc(const std::string& name, CfcCase c) {
  const auto fewer = run_cfc(c);
  ++c.T;
  add_rows(name, fewer, run_cfc(c), 1);
}

void count_all() {
  const auto ltc = [](int64_t B, int64_t I, int64_t N, int64_t M) {
    return LtcCase{.B = B, .T = 1, .I = I, .N = N, .M = M, .U = 2};
  };
  count_ltc("LTC AutoNCP(19, 2)", ltc(1, 16, 19, 2), true);
  LtcCase mixed = ltc(1, 16, 19, 2);
  mixed.memory = true;
  count_ltc("LTC AutoNCP(19, 2) mixed memory", mixed, true);
  count_ltc("LTC FullyConnected(64)", ltc(1, 32, 64, 64), false);
  count_ltc("LTC FullyConnected(90) of 16", ltc(16, 32, 90, 90), false);
  count_ltc("LTC FullyConnected(256) of 16", ltc(16, 4, 256, 256), false);
  CfcCase cfc{.B = 1, .T = 3, .I = 16, .cells = {11, 6, 2}};
  cfc.masked = true;
  count_cfc("CfC AutoNCP(19, 2)", cfc);
  cfc.memory = true;
  cfc.B = 4;
  count_cfc("CfC AutoNCP(19, 2) mixed memory of 4", cfc);
  CfcCase backbone{.B = 4, .T = 3, .I = 32, .cells = {64}};
  backbone.backbone_layers = 1;
  backbone.units = 128;
  count_cfc("CfC(64) of 4", backbone);
}

std::string line_of(const std::string& name, const Row& row) {
  std::ostringstream text;
  text << " \"" << name << "\": {";
  const char* separator = "";
  for (const auto& [what, count] : row) {
    text << separator << '"' << what << "\": " << count;
    separator = ", ";
  }
  text << '}';
  return text.str();
}

const std::string kCompiler = " \"compiler\": \"GCC " + std::to_string(__GNUC__) + "\"";

int write(const char* path) {
  std::ofstream file(path);
  file << "{\n" << kCompiler;
  for (const auto& [name, row] : rows) file << ",\n" << line_of(name, row);
  file << "\n}\n";
  return file.good() ? 0 : 1;
}

// The rows of the list, as they are written: a name, then pairs of a name and a number.
int compare(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::map<std::string, Row> listed;
  bool same_compiler = false;
  while (std::getline(file, line)) {
    if (line.rfind(kCompiler, 0) == 0) same_compiler = true;
    std::vector<std::string> parts;  // between quotes, and behind them
    std::istringstream text(line);
    for (std::string part; std::getline(text, part, '"');) parts.push_back(part);
    for (size_t k = 3; k + 1 < parts.size() && parts[2] == ": {"; k += 2) {
      listed[parts[1]][parts[k]] = std::atof(parts[k + 1].c_str() + 1);
    }
  }
  if (!file.is_open()) {
    std::printf("%s cannot be read\n", path);
    return 1;
  }
  if (!same_compiler) {
    std::printf("%s is by another compiler: nothing compared\n", path);
    return 77;
  }
  int failures = 0;
  const auto fail = [&](const std::string& what) {
    std::printf("%s\n", what.c_str());
    ++failures;
  };
  for (const auto& [name, row] : rows) {
    const auto known = listed.find(name);
    if (known == listed.end()) fail(name + " is not in the list");
    for (const auto& [what, count] : row) {
      if (known == listed.end()) break;
      const auto limit = known->second.find(what);
      // As many digits as the list has.
      if (limit == known->second.end() || count > limit->second * (1 + 1e-5)) {
        fail(name + ": " + what + " is " + std::to_string(count) + ", listed " +
             (limit == known->second.end() ? "nowhere" : std::to_string(limit->second)));
      }
    }
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return 2;
  count_all();
  for (const auto& [name, row] : rows) std::printf("%s\n", line_of(name, row).c_str());
  if (count > 2 && std::strcmp(arguments[2], "--write") == 0) return write(arguments[1]);
  return compare(arguments[1]);
}
