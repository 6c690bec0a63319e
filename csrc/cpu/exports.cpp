// The functions of this folder's headers, each in the instruction set in use; *_kernels.cpp define
// them for each set.
#include "cpu/cfc.h"
#include "cpu/frame/dispatch.h"
#include "cpu/frame/isa.h"
#include "cpu/ltc.h"
#include "cpu/masked_linear.h"
#include "cpu/sigmoid.h"
#include "cpu/stream.h"

namespace fastltc::cpu {

FASTLTC_EXPORT_TYPED(ltc_forward,
                     (const LtcInputs<T>& in, const LtcOutputs<T>& out, const Parallel& parallel),
                     (in, out, parallel))
FASTLTC_EXPORT_TYPED(ltc_backward,
                     (const LtcInputs<T>& in, const LtcGradients<T>& grad,
                      const Parallel& parallel),
                     (in, grad, parallel))
FASTLTC_EXPORT_TYPED(cfc_forward,
                     (const CfcInputs<T>& in, const CfcOutputs<T>& out, const Parallel& parallel),
                     (in, out, parallel))
FASTLTC_EXPORT_TYPED(cfc_backward,
                     (const CfcInputs<T>& in, const CfcGradients<T>& grad,
                      const Parallel& parallel),
                     (in, grad, parallel))
FASTLTC_EXPORT_TYPED(masked_linear, (const MaskedLinear<T>& in, T* y, const Parallel& parallel),
                     (in, y, parallel))
FASTLTC_EXPORT_TYPED(masked_linear_backward,
                     (const MaskedLinear<T>& in, const MaskedLinearGradients<T>& grad,
                      const Parallel& parallel),
                     (in, grad, parallel))
FASTLTC_EXPORT_TYPED(sigmoid_exp2, (const T* t, T* out, int64_t n), (t, out, n))
FASTLTC_EXPORT(int64_t, sigmoid_limit, (int64_t repeats), (repeats))
FASTLTC_EXPORT(bool, all_finite, (const float* values, int64_t count), (values, count))

// The copies give a plain pointer: none may instantiate a template of the standard library.
FASTLTC_DECLARE(const StreamNetwork* prepare_network(const Network& network))
static const StreamNetwork* prepare(const Network& network){FASTLTC_CALL(prepare_network(
    network))} std::unique_ptr<const StreamNetwork> prepare_network(const Network& network) {
  return std::unique_ptr<const StreamNetwork>(prepare(network));
}

// Here and not in the header: the kernels include that, and a copy of theirs could be kept for all.
StreamSession::~StreamSession() = default;
StreamNetwork::~StreamNetwork() = default;

}  // namespace fastltc::cpu
