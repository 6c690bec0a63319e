// What a network computes in a step of a stream, as a list of stages: the same for every layout.
//
// Layout: a buffer is a number of values that stages pass to each other or that stay until the next
// step. Here a buffer has a number only; where it stands, and what a value of it is (a float, or a
// row of lanes), a layout decides (batch_lanes.h, post_lanes.h).
//
// All code is in lowering.cpp, compiled once: what the sources compiled for different instruction
// sets use of this header is plain data, see core/sequence.h.
#pragma once

#include <cstdint>
#include <vector>

#include "core/network.h"

namespace fastltc::cpu {

// The products of a memory cell's gates, a i f o, or of a cell's heads: ff1, ff2, time_a, time_b.
inline constexpr int kMostGates = 4;

// Values of a buffer from the one at `at` on. In a lowered network `at` counts from the start of
// the buffer, in a layout from the start of what a stream has.
struct Place {
  int64_t buffer = 0;
  int64_t at = 0;
};

struct StreamStage {
  enum class Kind : int { ltc, cell, memory, dense, function, copy };

  Kind kind = Kind::copy;
  Place from;  // the values that come in
  int64_t inputs = 0;
  Place own;  // the state that enters the product with them
  int64_t own_count = 0;
  int64_t columns = 0;  // of the product's weights: both together
  Place to;             // the result; no place of what comes in or of `own`
  int64_t size = 0;
  Place kept;     // what it changes: the c of a memory cell, the potentials of an LTC
  int gates = 0;  // rows of the product for each value of the result; 0: no product
  CfcMode mode = CfcMode::gated;
  bool activated = false;  // a dense stage whose product goes through `function`
  Function function = Function::relu;
  int64_t ltc = 0;  // of LTC: how many there are before it

  // The caller's, read while layouts are made.
  const NetworkLayer* layer = nullptr;   // of an LTC or a memory cell
  const float* weight[kMostGates] = {};  // [size, columns], but of memory cells
  const float* bias[kMostGates] = {};    // [size]; null: zeros
  const float* mask = nullptr;           // [size, columns] of ff1 and ff2; null: ones
  const float* w_tau = nullptr;          // [size] of pure cells
  const float* A = nullptr;

  // Writes a row of a gate's weight, [columns], zeros where it is masked; returns its bias.
  float read_row(int gate, int64_t row, float* values) const;

  // Lets the places count from where a layout has put the buffers.
  void place(const int64_t* buffers);
};

// A part of the state, in the order in which callers see it.
struct StatePart {
  int64_t buffer = 0;
  int64_t count = 0;
  bool of_ltc = false;  // the potentials of an LTC without mixed memory, which one
  int64_t ltc = 0;
};

class LoweredNetwork {
 public:
  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t state_size = 0;
  const StreamStage* stages = nullptr;
  int64_t stage_count = 0;
  int64_t ltc_count = 0;             // stages that are an LTC
  const int64_t* buffers = nullptr;  // values of each; the first is that of the inputs
  int64_t buffer_count = 0;
  const StatePart* parts = nullptr;
  int64_t part_count = 0;
  Place result;

  // Throws std::bad_alloc.
  explicit LoweredNetwork(const Network& network);
  ~LoweredNetwork();
  LoweredNetwork(const LoweredNetwork&) = delete;
  LoweredNetwork& operator=(const LoweredNetwork&) = delete;

 private:
  std::vector<StreamStage> stage_list_;
  std::vector<int64_t> buffer_list_;
  std::vector<StatePart> part_list_;

  Place reserve(int64_t count);
  void keep(Place place, int64_t count);  // as a part of the state
  StreamStage& add(StreamStage::Kind kind, Place from, int64_t input_count, int64_t size);
  static void set_own(StreamStage& stage, Place own, int64_t count);
  StreamStage& add_dense(Place from, int64_t input_count, int64_t size, const float* weight,
                         const float* bias);
  Place add_memory(const NetworkLayer& layer, Place from, Place h);
  Place add_ltc(const NetworkLayer& layer, Place from);
  Place add_cfc(const NetworkLayer& layer, Place from);
  Place add_layer(const NetworkLayer& layer, Place from);
};

}  // namespace fastltc::cpu
