// fastltc.h for C++17: networks and sessions with destructors, and exceptions for errors.
#pragma once

#include <fastltc/fastltc.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastltc {
// So that these are never taken for what the library calls the same inside.
inline namespace library {

// What a call of the library refuses; `status` says what kind of thing that was.
class Error : public std::runtime_error {
 public:
  explicit Error(fastltc_status kind) : std::runtime_error(fastltc_last_error()), status(kind) {}
  fastltc_status status;
};

inline void check(fastltc_status status) {
  if (status != FASTLTC_OK) throw Error(status);
}

// A model's parameters, prepared for inference. Does not change; any threads may use it at once.
class Network {
 public:
  explicit Network(const std::string& path) {
    fastltc_network* made = nullptr;
    check(fastltc_network_load(path.c_str(), &made));
    network_.reset(made, &fastltc_network_free);
  }
  Network(const void* content, size_t size) {
    fastltc_network* made = nullptr;
    check(fastltc_network_parse(content, size, &made));
    network_.reset(made, &fastltc_network_free);
  }

  size_t inputs() const { return fastltc_input_size(get()); }
  size_t outputs() const { return fastltc_output_size(get()); }
  size_t state_size() const { return fastltc_state_size(get()); }
  double time_unit() const { return fastltc_time_unit(get()); }  // seconds
  const fastltc_network* get() const { return network_.get(); }

 private:
  std::shared_ptr<fastltc_network> network_;
};

// The state of independent streams, and their steps through time. Belongs to one thread at a time.
class Session {
 public:
  explicit Session(const Network& network, size_t streams = 1)
      : network_(network), streams_(streams) {
    fastltc_session* made = nullptr;
    check(fastltc_session_new(network.get(), streams, &made));
    session_.reset(made);
  }

  // One observation of every stream; see fastltc_step.
  void step(const float* x, float dt, float* y) { check(fastltc_step(session_.get(), x, dt, y)); }
  void step(const float* x, const float* dt, float* y) {
    check(fastltc_step_each(session_.get(), x, dt, y));
  }
  void reset() { check(fastltc_reset(session_.get())); }

  std::vector<float> state() const {
    std::vector<float> found(streams_ * network_.state_size());
    check(fastltc_get_state(session_.get(), found.data()));
    return found;
  }
  void set_state(const std::vector<float>& state) {
    if (state.size() != streams_ * network_.state_size()) {
      throw std::invalid_argument("state: expected streams times state_size numbers");
    }
    check(fastltc_set_state(session_.get(), state.data()));
  }

  const Network& network() const { return network_; }
  size_t streams() const { return streams_; }

 private:
  struct Free {
    void operator()(fastltc_session* session) const { fastltc_session_free(session); }
  };

  Network network_;
  size_t streams_;
  std::unique_ptr<fastltc_session, Free> session_;
};

}  // namespace library
}  // namespace fastltc
