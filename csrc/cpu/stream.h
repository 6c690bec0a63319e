// Inference on streams: a network prepared once, and sessions that step its state through time.
//
// A prepared network is immutable, and any number of sessions on any threads may use it at once. A
// session belongs to one thread at a time. Nothing is allocated after a session is made.
#pragma once

#include <cstdint>
#include <memory>

#include "core/network.h"

namespace fastltc::cpu {

// The state of a number of independent streams.
class StreamSession {
 public:
  virtual ~StreamSession();

  // One step of every stream: x [streams, inputs], y [streams, outputs], contiguous; dt in the unit
  // of time that the network was trained in, one number or, with dt_stride 1, one for each stream.
  // The caller has checked that all are finite and no dt is negative. x and y may be the same
  // memory, but not overlap otherwise.
  virtual void step(const float* x, const float* dt, int64_t dt_stride, float* y) = 0;

  // Zeros; with `which` [streams] in those alone for which it says so.
  virtual void reset() = 0;
  virtual void reset(const bool* which) = 0;

  // state [streams, state_size]: for each recurrent layer h [N] and, with mixed memory, c [N].
  virtual void get_state(float* state) const = 0;
  virtual void set_state(const float* state) = 0;
};

class StreamNetwork {
 public:
  virtual ~StreamNetwork();

  virtual int64_t inputs() const = 0;
  virtual int64_t outputs() const = 0;
  virtual int64_t state_size() const = 0;
  // About how long a step of so many streams takes, in cycles.
  virtual int64_t cycles(int64_t streams) const = 0;
  // Throws std::bad_alloc. The network must outlive the session.
  virtual StreamSession* make_session(int64_t streams) const = 0;
};

// Copies what it needs of the parameters. The caller has checked all sizes and synapse lists.
// Throws std::bad_alloc, and std::invalid_argument where FASTLTC_CPU asks for what is not there.
std::unique_ptr<const StreamNetwork> prepare_network(const Network& network);

// Whether no value is infinite or NaN.
bool all_finite(const float* values, int64_t count);

}  // namespace fastltc::cpu
