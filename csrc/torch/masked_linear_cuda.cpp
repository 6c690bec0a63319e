// fastltc::masked_linear and its backward on CUDA devices. Memory is torch's: what a call allocates
// belongs to its stream, and to the graph that is being captured.
#include <torch/csrc/stable/library.h>

#include "cuda/masked_linear.h"
#include "torch/cuda_context.h"
#include "torch/masked_linear_operator.h"

namespace fastltc {
namespace {

struct Cuda {
  static ArgumentCheck check(const char* op, const Tensor& x) {
    return {op, x.scalar_type(), x.get_device_index()};
  }
  template <typename T>
  static void forward(const Tensor& x, const MaskedLinear<T>& in, int64_t entries, T* y) {
    const CudaContext context(x);
    const auto schedule = cuda::masked_linear_schedule(in.B, in.O, sizeof(T) == 8);
    Tensor scratch = new_bytes(x, cuda::masked_linear_forward_scratch(schedule, in));
    cuda::launch_masked_linear(schedule, in, entries, y, scratch.mutable_data_ptr(),
                               context.stream());
  }
  template <typename T>
  static void backward(const Tensor& x, const MaskedLinear<T>& in, int64_t entries,
                       const MaskedLinearGradients<T>& grad) {
    const CudaContext context(x);
    const auto schedule = cuda::masked_linear_schedule(in.B, in.I, sizeof(T) == 8);
    Tensor scratch = new_bytes(x, cuda::masked_linear_backward_scratch(schedule, in));
    cuda::launch_masked_linear_backward(schedule, in, entries, grad, scratch.mutable_data_ptr(),
                                        context.stream());
  }
};

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_IMPL(fastltc, CUDA, m) {
  m.impl("masked_linear", TORCH_BOX(&fastltc::masked_linear<fastltc::Cuda>));
  m.impl("masked_linear_backward", TORCH_BOX(&fastltc::masked_linear_backward<fastltc::Cuda>));
}
