// Prepared networks and their sessions, compiled once for each instruction set.
#include <new>

#include "core/network.h"
#include "cpu/frame/partition.h"
#include "cpu/frame/simd.h"
#include "cpu/stream.h"
#include "cpu/stream_batch_lanes.h"
#include "cpu/stream_post_lanes.h"

namespace fastltc::cpu::FASTLTC_ISA {
namespace {

using S = Simd<float>;
constexpr int L = S::lanes;

// Memory of all streams together: of sizes that each are possible it can be more than 64 bits say.
int64_t added(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) throw std::bad_alloc();
  return sum;
}
int64_t multiplied(int64_t a, int64_t b) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) throw std::bad_alloc();
  return product;
}
size_t bytes_of(int64_t floats) {
  return static_cast<size_t>(multiplied(floats, static_cast<int64_t>(sizeof(float))));
}

void clear_floats(char* memory, int64_t count) {
  float* const values = reinterpret_cast<float*>(memory);
  for (int64_t k = 0; k < count; ++k) values[k] = 0.0f;
}

class PostLanesSession final : public StreamSession {
 public:
  PostLanesSession(const PostLanesNetwork& network, int64_t streams)
      : network_(network), streams_(streams), block_(bytes_of(floats())) {
    reset();
  }
  void step(const float* x, const float* dt, int64_t dt_stride, float* y) override {
    for (int64_t s = 0; s < streams_; ++s) {
      network_.step(memory(s), x + s * network_.inputs, dt[s * dt_stride],
                    y + s * network_.outputs);
    }
  }
  void reset() override { clear_floats(block_.data(), floats()); }
  void get_state(float* state) const override {
    for (int64_t s = 0; s < streams_; ++s) {
      network_.get_state(memory(s), state + s * network_.state_size);
    }
  }
  void set_state(const float* state) override {
    for (int64_t s = 0; s < streams_; ++s) {
      network_.set_state(memory(s), state + s * network_.state_size);
    }
  }

 private:
  const PostLanesNetwork& network_;
  int64_t streams_;
  Block block_;

  int64_t floats() const { return multiplied(streams_, network_.memory_size); }
  float* memory(int64_t s) const {
    return reinterpret_cast<float*>(block_.data()) + s * network_.memory_size;
  }
};

class BatchLanesSession final : public StreamSession {
 public:
  BatchLanesSession(const BatchLanesNetwork& network, int64_t streams)
      : network_(network), streams_(streams), block_(bytes_of(floats())) {
    reset();
  }
  void step(const float* x, const float* dt, int64_t dt_stride, float* y) override {
    for_tiles([&](auto width, float* memory, LaneGroup group) {
      network_.step<decltype(width)::value>(memory, group, x, dt, dt_stride, y);
    });
  }
  void reset() override { clear_floats(block_.data(), floats()); }
  void get_state(float* state) const override {
    for_tiles([&](auto width, float* memory, LaneGroup group) {
      network_.get_state<decltype(width)::value>(memory, group, state);
    });
  }
  void set_state(const float* state) override {
    for_tiles([&](auto width, float* memory, LaneGroup group) {
      network_.set_state<decltype(width)::value>(memory, group, state);
    });
  }

 private:
  const BatchLanesNetwork& network_;
  int64_t streams_;
  Block block_;

  // Calls run(Width, memory, streams) for all tiles, whose memories follow each other.
  template <typename Run>
  void for_tiles(Run run) const {
    float* memory = reinterpret_cast<float*>(block_.data());
    const Partition<float> partition(streams_, 0, 1);
    run_tiles(partition, 0, streams_, [&](auto width, int64_t first, int valid) {
      run(width, memory, LaneGroup{first, valid});
      memory += network_.tile_size<decltype(width)::value>();
    });
  }
  int64_t floats() const {
    int64_t count = 0;
    const Partition<float> partition(streams_, 0, 1);
    run_tiles(partition, 0, streams_, [&](auto width, int64_t, int) {
      count = added(count, network_.tile_size<decltype(width)::value>());
    });
    return count;
  }
};

class PreparedNetwork final : public StreamNetwork {
 public:
  explicit PreparedNetwork(const Network& network) : post_lanes_(network), batch_lanes_(network) {}

  int64_t inputs() const override { return post_lanes_.inputs; }
  int64_t outputs() const override { return post_lanes_.outputs; }
  int64_t state_size() const override { return post_lanes_.state_size; }
  int64_t cycles(int64_t streams) const override {
    return takes_post_lanes(streams) ? by_post_lanes(streams) : by_batch_lanes(streams);
  }
  StreamSession* make_session(int64_t streams) const override {
    if (takes_post_lanes(streams)) {
      return new PostLanesSession(post_lanes_, streams);
    }
    return new BatchLanesSession(batch_lanes_, streams);
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

const StreamNetwork* prepare_network(const Network& network) {
  return new PreparedNetwork(network);
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
