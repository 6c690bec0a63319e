// The functions of fastltc.h. No exception passes them.
#include "fastltc/fastltc.h"

#include <cmath>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "cpu/frame/isa.h"
#include "cpu/stream.h"
#include "model/model_file.h"

namespace {

using fastltc::cpu::StreamNetwork;
using fastltc::cpu::StreamSession;

thread_local std::string last_error;

fastltc_status refuse(fastltc_status status, const char* text) noexcept {
  try {
    last_error = text;
  } catch (const std::bad_alloc&) {
    last_error.clear();
  }
  return status;
}

constexpr size_t kMostStreams = size_t{1} << 24;

// What `work` throws, as a status.
template <typename Work>
fastltc_status guarded(fastltc_status of_invalid_argument, Work work) noexcept {
  try {
    return work();
  } catch (const std::invalid_argument& error) {
    return refuse(of_invalid_argument, error.what());
  } catch (const std::system_error& error) {
    return refuse(FASTLTC_NO_FILE, error.what());
  } catch (const std::bad_alloc&) {
    return refuse(FASTLTC_NO_MEMORY, "not enough memory");
  } catch (const std::exception& error) {
    return refuse(FASTLTC_BAD_FILE, error.what());
  }
}

}  // namespace

struct fastltc_network {
  std::shared_ptr<const StreamNetwork> prepared;
  double time_unit;
  std::vector<std::string> input_names, output_names;
};

struct fastltc_session {
  std::shared_ptr<const StreamNetwork> prepared;
  std::unique_ptr<StreamSession> session;
  int64_t streams;
};

namespace {

fastltc_status parse(std::string_view content, fastltc_network** network) {
  fastltc::model::ModelFile file = fastltc::model::parse_model_file(content);
  return guarded(FASTLTC_BAD_PROCESSOR, [&] {
    auto made = std::make_unique<fastltc_network>();
    made->prepared = fastltc::cpu::prepare_network(file.builder.network(file.medium_sigmoid));
    made->time_unit = file.time_unit;
    made->input_names = std::move(file.input_names);
    made->output_names = std::move(file.output_names);
    *network = made.release();
    return FASTLTC_OK;
  });
}

fastltc_status step(fastltc_session* session, const float* x, const float* dt, int64_t dt_count,
                    float* y) noexcept {
  const StreamNetwork& network = *session->prepared;
  if (!fastltc::cpu::all_finite(x, session->streams * network.inputs())) {
    return refuse(FASTLTC_BAD_INPUT, "x: expected finite numbers, got others");
  }
  for (int64_t k = 0; k < dt_count; ++k) {
    if (!(dt[k] >= 0.0f && std::isfinite(dt[k]))) {
      return refuse(FASTLTC_BAD_DT, "dt: expected finite time steps of 0 or more, got others");
    }
  }
  session->session->step(x, dt, dt_count > 1 ? 1 : 0, y);
  return FASTLTC_OK;
}

const char* name_of(const std::vector<std::string>& names, size_t index) {
  return index < names.size() ? names[index].c_str() : nullptr;
}

}  // namespace

#define FASTLTC_NEED(pointer)                  \
  if ((pointer) == nullptr)                    \
  return refuse(FASTLTC_BAD_ARGUMENT, #pointer \
                ": expected one, got "         \
                "NULL")

const char* fastltc_last_error() { return last_error.c_str(); }
const char* fastltc_version() { return FASTLTC_VERSION; }

const char* fastltc_instruction_set() {
  const char* name = nullptr;
  guarded(FASTLTC_BAD_PROCESSOR, [&] {
    name = fastltc::cpu::isa_name(fastltc::cpu::active_isa());
    return FASTLTC_OK;
  });
  return name;
}

fastltc_status fastltc_network_load(const char* path, fastltc_network** network) {
  FASTLTC_NEED(path);
  FASTLTC_NEED(network);
  *network = nullptr;
  const fastltc_status status =
      guarded(FASTLTC_BAD_FILE, [&] { return parse(fastltc::model::read_file(path), network); });
  if (status != FASTLTC_BAD_FILE && status != FASTLTC_NO_FILE) return status;
  return guarded(status, [&] {
    last_error = path + (": " + last_error);
    return status;
  });
}

fastltc_status fastltc_network_parse(const void* content, size_t size, fastltc_network** network) {
  FASTLTC_NEED(content);
  FASTLTC_NEED(network);
  *network = nullptr;
  return guarded(FASTLTC_BAD_FILE,
                 [&] { return parse({static_cast<const char*>(content), size}, network); });
}

void fastltc_network_free(fastltc_network* network) { delete network; }

size_t fastltc_input_size(const fastltc_network* network) {
  return static_cast<size_t>(network->prepared->inputs());
}
size_t fastltc_output_size(const fastltc_network* network) {
  return static_cast<size_t>(network->prepared->outputs());
}
size_t fastltc_state_size(const fastltc_network* network) {
  return static_cast<size_t>(network->prepared->state_size());
}
double fastltc_time_unit(const fastltc_network* network) { return network->time_unit; }
const char* fastltc_input_name(const fastltc_network* network, size_t index) {
  return name_of(network->input_names, index);
}
const char* fastltc_output_name(const fastltc_network* network, size_t index) {
  return name_of(network->output_names, index);
}

fastltc_status fastltc_session_new(const fastltc_network* network, size_t streams,
                                   fastltc_session** session) {
  FASTLTC_NEED(network);
  FASTLTC_NEED(session);
  *session = nullptr;
  if (streams < 1 || streams > kMostStreams) {
    return refuse(FASTLTC_BAD_ARGUMENT, "streams: expected 1 to 2^24, got another number");
  }
  return guarded(FASTLTC_BAD_PROCESSOR, [&] {
    auto made = std::make_unique<fastltc_session>();
    made->prepared = network->prepared;
    made->streams = static_cast<int64_t>(streams);
    made->session.reset(network->prepared->make_session(made->streams));
    *session = made.release();
    return FASTLTC_OK;
  });
}

void fastltc_session_free(fastltc_session* session) { delete session; }

fastltc_status fastltc_step(fastltc_session* session, const float* x, float dt, float* y) {
  FASTLTC_NEED(session);
  FASTLTC_NEED(x);
  FASTLTC_NEED(y);
  return step(session, x, &dt, 1, y);
}

fastltc_status fastltc_step_each(fastltc_session* session, const float* x, const float* dt,
                                 float* y) {
  FASTLTC_NEED(session);
  FASTLTC_NEED(x);
  FASTLTC_NEED(dt);
  FASTLTC_NEED(y);
  return step(session, x, dt, session->streams, y);
}

fastltc_status fastltc_reset(fastltc_session* session) {
  FASTLTC_NEED(session);
  session->session->reset();
  return FASTLTC_OK;
}

fastltc_status fastltc_reset_streams(fastltc_session* session, const unsigned char* which) {
  FASTLTC_NEED(session);
  FASTLTC_NEED(which);
  return guarded(FASTLTC_BAD_ARGUMENT, [&] {
    const auto chosen = std::make_unique<bool[]>(static_cast<size_t>(session->streams));
    for (int64_t s = 0; s < session->streams; ++s) chosen[static_cast<size_t>(s)] = which[s] != 0;
    session->session->reset(chosen.get());
    return FASTLTC_OK;
  });
}

fastltc_status fastltc_get_state(const fastltc_session* session, float* state) {
  FASTLTC_NEED(session);
  FASTLTC_NEED(state);
  session->session->get_state(state);
  return FASTLTC_OK;
}

fastltc_status fastltc_set_state(fastltc_session* session, const float* state) {
  FASTLTC_NEED(session);
  FASTLTC_NEED(state);
  if (!fastltc::cpu::all_finite(state, session->streams * session->prepared->state_size())) {
    return refuse(FASTLTC_BAD_INPUT, "state: expected finite numbers, got others");
  }
  session->session->set_state(state);
  return FASTLTC_OK;
}
