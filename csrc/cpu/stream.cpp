// Chooses the instruction set.
#include "cpu/stream.h"

#include "cpu/frame/dispatch.h"

namespace fastltc::cpu {

// Defined by stream_kernels.cpp, once for each instruction set.
#define FASTLTC_DECLARE(isa)                            \
  namespace isa {                                       \
  const StreamNetwork* prepare_network(const Network&); \
  bool all_finite(const float*, int64_t);               \
  }
FASTLTC_FOR_EACH_ISA(FASTLTC_DECLARE)
#undef FASTLTC_DECLARE

// Here and not in the header: the kernels include that, and a copy of theirs could be kept for all.
StreamSession::~StreamSession() = default;
StreamNetwork::~StreamNetwork() = default;

static const StreamNetwork* prepare(const Network& network) {
  FASTLTC_DISPATCH(prepare_network(network));
}

std::unique_ptr<const StreamNetwork> prepare_network(const Network& network) {
  return std::unique_ptr<const StreamNetwork>(prepare(network));
}

bool all_finite(const float* values, int64_t count) { FASTLTC_DISPATCH(all_finite(values, count)); }

}  // namespace fastltc::cpu
