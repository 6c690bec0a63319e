// fastltc::special_function_limit, which benchmarks time; on CUDA devices only.
#include <torch/csrc/stable/library.h>

#include <cstdint>
#include <limits>
#include <string>

#include "cuda/special_function_limit.h"
#include "torch/checks.h"
#include "torch/cuda_context.h"
#include "torch/tensors.h"

namespace fastltc {
namespace {

// The sums of cuda/special_function_limit.h, [threads], where `like` is.
Tensor special_function_limit(const Tensor& like, int64_t threads, int64_t repeats) {
  const ArgumentCheck check("fastltc::special_function_limit", like);
  check.that(like.scalar_type() == ScalarType::Float, "like",
             [&] { return "expected torch.float32, got " + dtype_text(like.scalar_type()); });
  check.that(threads >= 0 && threads <= std::numeric_limits<int32_t>::max(), "threads",
             [&] { return "expected 0 to 2^31 - 1, got " + std::to_string(threads); });
  check.that(repeats >= 0, "repeats",
             [&] { return "expected 0 or more, got " + std::to_string(repeats); });
  Tensor sums = new_tensor(like, {threads});
  const CudaContext context(like);
  cuda::launch_special_function_limit(sums.mutable_data_ptr<float>(), threads, repeats,
                                      context.stream());
  return sums;
}

}  // namespace
}  // namespace fastltc

STABLE_TORCH_LIBRARY_FRAGMENT(fastltc, m) {
  m.def("special_function_limit(Tensor like, int threads, int repeats) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(fastltc, CUDA, m) {
  m.impl("special_function_limit", TORCH_BOX(&fastltc::special_function_limit));
}
