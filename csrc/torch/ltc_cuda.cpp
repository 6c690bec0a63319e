// fastltc::ltc_forward and fastltc::ltc_backward on CUDA devices. Memory is torch's: what a call
// allocates belongs to its stream, and to the graph that is being captured.
#include <torch/csrc/stable/library.h>

#include "cuda/ltc.h"
#include "torch/cuda_context.h"
#include "torch/ltc_operator.h"

namespace fastltc {
namespace {

struct Cuda {
  // They clear what is no synapse.
  static constexpr bool wants_zeros = false;
  static ArgumentCheck check(const char* op, const Tensor& x) {
    return {op, x.scalar_type(), x.get_device_index()};
  }
  static bool keeps_rates(const LayerSizes& size, const LtcCounts& counts, bool is_float64) {
    return cuda::ltc_keeps_rates(size, counts, is_float64);
  }
  template <typename T>
  static cuda::LtcSchedule schedule(const Tensor& x, const LtcInputs<T>& in,
                                    const LtcCounts& counts) {
    return cuda::ltc_schedule(in.size, counts, sizeof(T) == 8,
                              cuda::ltc_device(x.get_device_index()), in.nets,
                              in.memory.weight != nullptr);
  }
  template <typename T>
  static void forward(const Tensor& x, const LtcInputs<T>& in, const LtcCounts& counts,
                      const LtcOutputs<T>& out) {
    const CudaContext context(x);
    const cuda::LtcSchedule schedule = Cuda::schedule(x, in, counts);
    Tensor scratch = new_bytes(x, cuda::ltc_forward_scratch(schedule, in, counts));
    cuda::launch_ltc_forward(schedule, in, counts, out, scratch.mutable_data_ptr(),
                             context.stream());
  }
  template <typename T>
  static void backward(const Tensor& x, const LtcInputs<T>& in, const LtcCounts& counts,
                       const LtcGradients<T>& grad) {
    const CudaContext context(x);
    const cuda::LtcSchedule schedule = Cuda::schedule(x, in, counts);
    Tensor scratch = new_bytes(x, cuda::ltc_backward_scratch(schedule, in, counts));
    cuda::launch_ltc_backward(schedule, in, counts, grad, scratch.mutable_data_ptr(),
                              context.stream());
  }
};

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_IMPL(fastltc, CUDA, m) {
  m.impl("ltc_forward", TORCH_BOX(&fastltc::ltc_forward<fastltc::Cuda>));
  m.impl("ltc_backward", TORCH_BOX(&fastltc::ltc_backward<fastltc::Cuda>));
}
