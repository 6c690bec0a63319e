// fastltc::cfc_forward and fastltc::cfc_backward on CUDA devices. Memory is torch's: what a call
// allocates belongs to its stream, and to the graph that is being captured.
#include <torch/csrc/stable/library.h>

#include "cuda/cfc.h"
#include "torch/cfc_operator.h"
#include "torch/cuda_context.h"

namespace fastltc {
namespace {

struct Cuda {
  template <typename T>
  static cuda::CfcSchedule schedule_of(const Tensor& x, const CfcInputs<T>& in) {
    return cuda::cfc_schedule(in, cuda::shared_limit(x.get_device_index()));
  }
  static ArgumentCheck check(const char* op, const Tensor& x) {
    return {op, x.scalar_type(), x.get_device_index()};
  }
  template <typename T>
  static void forward(const Tensor& x, const CfcInputs<T>& in, const CfcOutputs<T>& out) {
    const CudaContext context(x);
    const cuda::CfcSchedule schedule = schedule_of(x, in);
    Tensor scratch = new_bytes(x, cuda::cfc_forward_scratch(schedule, in));
    cuda::launch_cfc_forward(schedule, in, out, scratch.mutable_data_ptr(), context.stream());
  }
  template <typename T>
  static void backward(const Tensor& x, const CfcInputs<T>& in, const CfcGradients<T>& grad) {
    const CudaContext context(x);
    const cuda::CfcSchedule schedule = schedule_of(x, in);
    Tensor scratch = new_bytes(x, cuda::cfc_backward_scratch(schedule, in));
    cuda::launch_cfc_backward(schedule, in, grad, scratch.mutable_data_ptr(), context.stream());
  }
};

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_IMPL(fastltc, CUDA, m) {
  m.impl("cfc_forward", TORCH_BOX(&fastltc::cfc_forward<fastltc::Cuda>));
  m.impl("cfc_backward", TORCH_BOX(&fastltc::cfc_backward<fastltc::Cuda>));
}
