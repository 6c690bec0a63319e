#include "cuda/set_device.h"

#include <cuda_runtime.h>

#include <string>

#include "cuda/frame/check.h"

namespace fastltc::cuda {

namespace {

// Of one major version, older drivers run what newer toolkits compile to machine code.
void check_driver() {
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  if (driver / 1000 >= runtime / 1000) return;
  const auto text = [](int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
  };
  throw std::runtime_error("CUDA: fastltc was built with CUDA " + text(runtime) +
                           ", and the driver of this machine knows CUDA up to " + text(driver) +
                           ": update the driver, or install a build with an older CUDA");
}

}  // namespace

void set_device(int index) {
  static const bool checked = (check_driver(), true);
  static_cast<void>(checked);
  int current = -1;
  check(cudaGetDevice(&current), "cudaGetDevice");
  if (current != index) check(cudaSetDevice(index), "cudaSetDevice");
}

int64_t shared_limit(int index) {
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index),
        "cudaDeviceGetAttribute");
  return bytes;
}

RelaxedCapture::RelaxedCapture() {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  check(cudaThreadExchangeStreamCaptureMode(&mode), "cudaThreadExchangeStreamCaptureMode");
  before_ = static_cast<int>(mode);
}
RelaxedCapture::~RelaxedCapture() {
  auto mode = static_cast<cudaStreamCaptureMode>(before_);
  // It cannot fail where the constructor has not.
  static_cast<void>(cudaThreadExchangeStreamCaptureMode(&mode));
}

}  // namespace fastltc::cuda
