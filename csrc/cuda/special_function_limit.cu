// sums[thread] = sum over repetitions and synapses k of (we_k + w_k) s_k,
//   s_k = 1 / (1 + 2^(a_k s'_k + b_k)), with s'_k of the repetition before
//
// Plan: a thread has all of its eight synapses and values in registers, so that an evaluation is
// the instructions of the kernels' inner loops and nothing else: two special functions (ex2, rcp),
// three multiply-adds and an addition. Each reads the result of the repetition before, because
// ptxas moves out of the loop whatever does not change in it, past an empty asm too. Eight such
// chains and the other warps hide their latency. Bound by the special-function units.
#include "cuda/special_function_limit.h"

#include <cuda_runtime.h>

#include "cuda/frame/device.h"
#include "cuda/frame/launch.h"
#include "cuda/ltc_network.h"

namespace fastltc::cuda {

namespace {

constexpr int kThreads = 256;

}  // namespace

__global__ void __launch_bounds__(kThreads)
    special_function_limit_kernel(float* sums, int64_t threads, int64_t repeats) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= threads) return;
  Synapse<float> p[kLimitSynapses];
  float v[kLimitSynapses];
  FASTLTC_UNROLL
  for (int k = 0; k < kLimitSynapses; ++k) {
    const float x = 0.05f * static_cast<float>((thread + k) % 31);
    p[k] = {-3.0f - x, 1.0f + x, k % 3 == 0 ? -0.3f - x : 0.4f + x, 0.5f + x};
    v[k] = 0.01f * static_cast<float>((thread + 8 * k) % 97);
  }
  float num = 0, den = 0;
  for (int64_t repeat = 0; repeat < repeats; ++repeat) {
    FASTLTC_UNROLL
    for (int k = 0; k < kLimitSynapses; ++k) {
      v[k] = sigmoid_exp2(p[k].a * v[k] + p[k].b);
      num += p[k].we * v[k];
      den += p[k].w * v[k];
    }
  }
  sums[thread] = num + den;
}

void launch_special_function_limit(float* sums, int64_t threads, int64_t repeats, void* stream) {
  launch("special_function_limit_kernel", &special_function_limit_kernel,
         dim3(static_cast<unsigned>(ceil_div(threads, kThreads))), kThreads, 0,
         static_cast<cudaStream_t>(stream), sums, threads, repeats);
}

}  // namespace fastltc::cuda
