// The operators on CUDA devices. Memory is torch's: what a call allocates belongs to its stream, and
// to the graph that is being captured.
#include <optional>

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
  static int64_t kept_unfolds(const LtcArguments& layer) {
    const bool rates = !layer.has_memory() && layer.nets == 1 &&
                       cuda::ltc_keeps_rates(layer.size, layer.counts(),
                                             layer.x.scalar_type() == ScalarType::Double);
    return rates ? 2 * layer.size.U : layer.size.U;
  }

  // Calls launch(allocate, stream) on the device of a tensor.
  template <typename Launch>
  static void run(const Tensor& like, Launch launch) {
    const CudaContext context(like);
    std::optional<Tensor> scratch;
    const auto allocate = [&](size_t bytes) {
      scratch = new_bytes(like, bytes);
      return scratch->mutable_data_ptr();
    };
    launch(allocate, context.stream());
  }

  template <typename T>
  static cuda::LtcSchedule schedule(const LtcArguments& layer, const LtcInputs<T>& in) {
    return cuda::ltc_schedule(in.size, layer.counts(), sizeof(T) == 8,
                              cuda::ltc_device(layer.x.get_device_index()), in.nets,
                              in.memory.weight != nullptr, in.resets.data != nullptr);
  }
  template <typename T>
  static void forward(const LtcArguments& layer, const LtcInputs<T>& in, const LtcOutputs<T>& out) {
    run(layer.x, [&](const auto&... memory) {
      cuda::launch_ltc_forward(schedule(layer, in), in, layer.counts(), out, memory...);
    });
  }
  template <typename T>
  static void backward(const LtcArguments& layer, const LtcInputs<T>& in,
                       const LtcGradients<T>& grad) {
    run(layer.x, [&](const auto&... memory) {
      cuda::launch_ltc_backward(schedule(layer, in), in, layer.counts(), grad, memory...);
    });
  }

  template <typename T>
  static cuda::CfcSchedule schedule(const CfcArguments& layer, const CfcInputs<T>& in) {
    return cuda::cfc_schedule(in, cuda::shared_limit(layer.x.get_device_index()));
  }
  template <typename T>
  static void forward(const CfcArguments& layer, const CfcInputs<T>& in, const CfcOutputs<T>& out) {
    run(layer.x, [&](const auto&... memory) {
      cuda::launch_cfc_forward(schedule(layer, in), in, out, memory...);
    });
  }
  template <typename T>
  static void backward(const CfcArguments& layer, const CfcInputs<T>& in,
                       const CfcGradients<T>& grad) {
    run(layer.x, [&](const auto&... memory) {
      cuda::launch_cfc_backward(schedule(layer, in), in, grad, memory...);
    });
  }

  template <typename T>
  static void forward(const MaskedLinearArguments& product, const MaskedLinear<T>& in, T* y) {
    const auto schedule = cuda::masked_linear_schedule(in.B, in.O, sizeof(T) == 8);
    run(product.x, [&](const auto&... memory) {
      cuda::launch_masked_linear(schedule, in, product.count, y, memory...);
    });
  }
  template <typename T>
  static void backward(const MaskedLinearArguments& product, const MaskedLinear<T>& in,
                       const MaskedLinearGradients<T>& grad) {
    const auto schedule = cuda::masked_linear_schedule(in.B, in.I, sizeof(T) == 8);
    run(product.x, [&](const auto&... memory) {
      cuda::launch_masked_linear_backward(schedule, in, product.count, grad, memory...);
    });
  }
};

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_IMPL(fastltc, CUDA, m) { fastltc::implement_operators<fastltc::Cuda>(m); }
