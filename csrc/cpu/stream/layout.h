// What both layouts of streams have of a network: its stages with the weights that they read, and
// where the values of a stream stand.
#pragma once

#include <new>

#include "cpu/frame/arena.h"
#include "cpu/frame/pool.h"
#include "cpu/frame/simd.h"
#include "cpu/stream/lowering.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Memory of all streams together: of sizes that each are possible it can be more than 64 bits say.
inline int64_t added(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) throw std::bad_alloc();
  return sum;
}
inline int64_t multiplied(int64_t a, int64_t b) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) throw std::bad_alloc();
  return product;
}

// Memory for the arrays that take(arena) takes.
template <typename Take>
void take_from(Pool& pool, Take take) {
  Arena arena(pool.take<char>(static_cast<int64_t>(bytes_of(take))));
  take(arena);
}

// `Stage` is a StreamStage with packed weights.
template <typename Stage>
class StreamLayout {
 public:
  using S = Simd<float>;
  using vec = S::vec;
  static constexpr int L = S::lanes;

  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t state_size = 0;
  int64_t cycles = 0;  // of a step of a stream or a register of streams, about

 protected:
  using Kind = StreamStage::Kind;

  Pool pool_;
  Stage* stages_ = nullptr;
  int64_t stage_count_ = 0;
  StatePart* parts_ = nullptr;  // a buffer is where it stands
  int64_t part_count_ = 0;
  int64_t input_ = 0;   // where the values that come in stand
  int64_t result_ = 0;  // and those that go out

  // Calls prepare(stage, sizes) for each stage, which packs its weights and may make buffers of
  // its own larger, then reserve(size) for each buffer, which says where it stands.
  template <typename Prepare, typename Reserve>
  void lay_out(const LoweredNetwork& network, Prepare prepare, Reserve reserve) {
    inputs = network.inputs;
    outputs = network.outputs;
    state_size = network.state_size;
    int64_t* const buffers = pool_.take<int64_t>(network.buffer_count);
    for (int64_t b = 0; b < network.buffer_count; ++b) buffers[b] = network.buffers[b];
    stage_count_ = network.stage_count;
    stages_ = pool_.take<Stage>(stage_count_);
    for (int64_t s = 0; s < stage_count_; ++s) {
      Stage& stage = stages_[s] = Stage();
      static_cast<StreamStage&>(stage) = network.stages[s];
      prepare(stage, buffers);
    }
    for (int64_t b = 0; b < network.buffer_count; ++b) buffers[b] = reserve(buffers[b]);
    for (int64_t s = 0; s < stage_count_; ++s) stages_[s].place(buffers);
    part_count_ = network.part_count;
    parts_ = pool_.take<StatePart>(part_count_);
    for (int64_t p = 0; p < part_count_; ++p) {
      parts_[p] = network.parts[p];
      parts_[p].buffer = buffers[parts_[p].buffer];
    }
    input_ = buffers[0];
    result_ = buffers[network.result.buffer] + network.result.at;
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
