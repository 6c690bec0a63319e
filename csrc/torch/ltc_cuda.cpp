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
  static void refuse(const ArgumentCheck& check, const LtcArguments& arguments) {
    check.that(!arguments.has_memory(), "memory_w", [] {
      return std::string(
          "mixed memory has no CUDA kernel yet: expected None; move the layer to the CPU");
    });
    check.that(arguments.nets == 1, "gleak", [&] {
      return "several layers in one call have no CUDA kernel yet: expected shape [N], got " +
             shape_text(*arguments.parameters[0]) + "; move the layers to the CPU";
    });
  }
  static bool keeps_rates(const LayerSizes& size, const LtcCounts& counts, bool is_float64) {
    return cuda::ltc_keeps_rates(size, counts, is_float64);
  }
  template <typename T>
  static void forward(const Tensor& x, const LtcInputs<T>& in, const LtcCounts& counts,
                      const LtcOutputs<T>& out) {
    const CudaContext context(x);
    const cuda::LtcSchedule schedule =
        cuda::ltc_schedule(in.size, counts, sizeof(T) == 8, cuda::ltc_device(x.get_device_index()));
    Tensor scratch = new_bytes(x, cuda::ltc_forward_scratch(schedule, in, counts));
    cuda::launch_ltc_forward(schedule, in, counts, out, scratch.mutable_data_ptr(),
                             context.stream());
  }
  template <typename T>
  static void backward(const Tensor& x, const LtcInputs<T>& in, const LtcCounts& counts,
                       const LtcGradients<T>& grad) {
    const CudaContext context(x);
    const cuda::LtcSchedule schedule =
        cuda::ltc_schedule(in.size, counts, sizeof(T) == 8, cuda::ltc_device(x.get_device_index()));
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
