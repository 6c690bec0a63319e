// What the runtime calls, each in the instruction set in use. Apart from operator_exports.cpp, so that
// it is linked without the kernels of the operators.
#include "cpu/frame/dispatch.h"
#include "cpu/frame/isa.h"
#include "cpu/sigmoid.h"
#include "cpu/stream.h"

namespace fastltc::cpu {

FASTLTC_EXPORT_TYPED(sigmoid_exp2, (const T* t, T* out, int64_t n), (t, out, n))
FASTLTC_EXPORT_EITHER(medium, void, synapse_sigmoid,
                      (const float* t, float* out, int64_t n, bool medium), (t, out, n, medium))
FASTLTC_EXPORT(int64_t, sigmoid_limit, (int64_t repeats), (repeats))
FASTLTC_EXPORT(bool, all_finite, (const float* values, int64_t count), (values, count))

// The copies give a plain pointer: none may instantiate a template of the standard library.
FASTLTC_EXPORT_EITHER(network.medium_sigmoid, const StreamNetwork*, lay_out_network,
                      (const Network& network), (network))

std::unique_ptr<const StreamNetwork> prepare_network(const Network& network) {
  return std::unique_ptr<const StreamNetwork>(lay_out_network(network));
}

// Here and not in the header: the kernels include that, and a copy of theirs could be kept for all.
StreamSession::~StreamSession() = default;
StreamNetwork::~StreamNetwork() = default;

}  // namespace fastltc::cpu
