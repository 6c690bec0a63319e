// The operators on CUDA devices. Memory is torch's: what a call allocates belongs to its stream, and
// to the graph that is being captured.
#include "cuda/cfc.h"
#include "cuda/ltc.h"
#include "cuda/masked_linear.h"
#include "torch/cuda_context.h"
#include "torch/implement.h"

namespace fastltc {
namespace {

struct Cuda {
  // They clear what is no synapse.
  static constexpr bool wants_zeros = false;
  static bool keeps_rates(const LayerSizes& size, const LtcCounts& counts, bool is_float64) {
    return cuda::ltc_keeps_rates(size, counts, is_float64);
  }

  template <typename T>
  static cuda::LtcSchedule schedule(const LtcArguments& layer, const LtcInputs<T>& in) {
    return cuda::ltc_schedule(in.size, layer.counts(), sizeof(T) == 8,
                              cuda::ltc_device(layer.x.get_device_index()), in.nets,
                              in.memory.weight != nullptr);
  }
  template <typename T>
  static void forward(const LtcArguments& layer, const LtcInputs<T>& in, const LtcOutputs<T>& out) {
    const CudaContext context(layer.x);
    const cuda::LtcSchedule schedule = Cuda::schedule(layer, in);
    const LtcCounts counts = layer.counts();
    Tensor scratch = new_bytes(layer.x, cuda::ltc_forward_scratch(schedule, in, counts));
    cuda::launch_ltc_forward(schedule, in, counts, out, scratch.mutable_data_ptr(),
                             context.stream());
  }
  template <typename T>
  static void backward(const LtcArguments& layer, const LtcInputs<T>& in,
                       const LtcGradients<T>& grad) {
    const CudaContext context(layer.x);
    const cuda::LtcSchedule schedule = Cuda::schedule(layer, in);
    const LtcCounts counts = layer.counts();
    Tensor scratch = new_bytes(layer.x, cuda::ltc_backward_scratch(schedule, in, counts));
    cuda::launch_ltc_backward(schedule, in, counts, grad, scratch.mutable_data_ptr(),
                              context.stream());
  }

  template <typename T>
  static cuda::CfcSchedule schedule(const CfcArguments& layer, const CfcInputs<T>& in) {
    return cuda::cfc_schedule(in, cuda::shared_limit(layer.x.get_device_index()));
  }
  template <typename T>
  static void forward(const CfcArguments& layer, const CfcInputs<T>& in, const CfcOutputs<T>& out) {
    const CudaContext context(layer.x);
    const cuda::CfcSchedule schedule = Cuda::schedule(layer, in);
    Tensor scratch = new_bytes(layer.x, cuda::cfc_forward_scratch(schedule, in));
    cuda::launch_cfc_forward(schedule, in, out, scratch.mutable_data_ptr(), context.stream());
  }
  template <typename T>
  static void backward(const CfcArguments& layer, const CfcInputs<T>& in,
                       const CfcGradients<T>& grad) {
    const CudaContext context(layer.x);
    const cuda::CfcSchedule schedule = Cuda::schedule(layer, in);
    Tensor scratch = new_bytes(layer.x, cuda::cfc_backward_scratch(schedule, in));
    cuda::launch_cfc_backward(schedule, in, grad, scratch.mutable_data_ptr(), context.stream());
  }

  template <typename T>
  static void forward(const MaskedLinearArguments& product, const MaskedLinear<T>& in, T* y) {
    const CudaContext context(product.x);
    const auto schedule = cuda::masked_linear_schedule(in.B, in.O, sizeof(T) == 8);
    Tensor scratch = new_bytes(product.x, cuda::masked_linear_forward_scratch(schedule, in));
    cuda::launch_masked_linear(schedule, in, product.count, y, scratch.mutable_data_ptr(),
                               context.stream());
  }
  template <typename T>
  static void backward(const MaskedLinearArguments& product, const MaskedLinear<T>& in,
                       const MaskedLinearGradients<T>& grad) {
    const CudaContext context(product.x);
    const auto schedule = cuda::masked_linear_schedule(in.B, in.I, sizeof(T) == 8);
    Tensor scratch = new_bytes(product.x, cuda::masked_linear_backward_scratch(schedule, in));
    cuda::launch_masked_linear_backward(schedule, in, product.count, grad,
                                        scratch.mutable_data_ptr(), context.stream());
  }
};

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_IMPL(fastltc, CUDA, m) { fastltc::implement_operators<fastltc::Cuda>(m); }
