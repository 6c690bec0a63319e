// Prepared networks and their sessions, compiled once for each instruction set.
#include "core/network.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"
#include "cpu/stream.h"
#include "cpu/stream/batch_lanes.h"
#include "cpu/stream/lowering.h"
#include "cpu/stream/post_lanes.h"

namespace fastltc::cpu::FASTLTC_ISA {
namespace {

using S = Simd<float>;
constexpr int L = S::lanes;

// The memory of some streams, in one of the layouts.
template <typename Layout>
class Session final : public StreamSession {
 public:
  Session(const Layout& layout, int64_t streams)
      : layout_(layout),
        streams_(streams),
        floats_(layout.memory_of(streams)),
        block_(static_cast<size_t>(multiplied(floats_, sizeof(float)))) {
    reset();
  }
  void step(const float* x, const float* dt, int64_t dt_stride, float* y) override {
    layout_.step(memory(), streams_, x, dt, dt_stride, y);
  }
  void reset() override { clear(memory(), floats_); }
  void reset(const bool* which) override { layout_.reset(memory(), streams_, which); }
  void get_state(float* state) const override { layout_.get_state(memory(), streams_, state); }
  void set_state(const float* state) override { layout_.set_state(memory(), streams_, state); }

 private:
  const Layout& layout_;
  int64_t streams_;
  int64_t floats_;
  Block block_;

  float* memory() const { return reinterpret_cast<float*>(block_.data()); }
};

class LaidOutNetwork final : public StreamNetwork {
 public:
  explicit LaidOutNetwork(const LoweredNetwork& network)
      : post_lanes_(network), batch_lanes_(network) {}

  int64_t inputs() const override { return post_lanes_.inputs; }
  int64_t outputs() const override { return post_lanes_.outputs; }
  int64_t state_size() const override { return post_lanes_.state_size; }
  int64_t cycles(int64_t streams) const override {
    return takes_post_lanes(streams) ? by_post_lanes(streams) : by_batch_lanes(streams);
  }
  StreamSession* make_session(int64_t streams) const override {
    if (takes_post_lanes(streams)) return new Session<PostLanesNetwork>(post_lanes_, streams);
    return new Session<BatchLanesNetwork>(batch_lanes_, streams);
  }

 private:
  PostLanesNetwork post_lanes_;
  BatchLanesNetwork batch_lanes_;

  bool takes_post_lanes(int64_t streams) const {
    return streams == 1 || by_post_lanes(streams) < by_batch_lanes(streams);
  }
  int64_t by_post_lanes(int64_t streams) const { return streams * bounded(post_lanes_.cycles); }
  int64_t by_batch_lanes(int64_t streams) const {
    return (streams + L - 1) / L * bounded(batch_lanes_.cycles);
  }
  // A minute or more; of up to 2^24 streams it still fits.
  static int64_t bounded(int64_t cycles) {
    constexpr int64_t most = int64_t{1} << 38;
    return cycles < most ? cycles : most;
  }
};

}  // namespace

const StreamNetwork* lay_out_network(const Network& network) {
  return new LaidOutNetwork(LoweredNetwork(network));
}

bool all_finite(const float* values, int64_t count) {
  using ivec = typename S::ivec;
  // The exponent of what is not finite is all ones: doubled, such bits are 0xFF000000 or more.
  ivec strange{};
  int64_t k = 0;
  for (; k + L <= count; k += L) {
    const auto bits = (S::bits_vec)S::load(values + k);
    strange |= (ivec)(bits + bits >= 0xFF000000u);
  }
  bool finite = true;
  for (; k < count; ++k) finite = finite && values[k] - values[k] == 0.0f;
  for (int l = 0; l < L; ++l) finite = finite && strange[l] == 0;
  return finite;
}

}  // namespace fastltc::cpu::FASTLTC_ISA
