// The device and the stream that a call on CUDA tensors runs on.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "cuda/set_device.h"

namespace fastltc {

// While it lives, the device of a tensor is the current one, for torch's copy of the CUDA runtime
// and for ours, which is linked statically; and a first use may fall into the capture of a graph.
class CudaContext {
 public:
  explicit CudaContext(const torch::stable::Tensor& tensor)
      : index_(tensor.get_device_index()), guard_(index_) {
    cuda::set_device(index_);
    relaxed_.emplace();
  }

  // Torch's current stream, a cudaStream_t.
  void* stream() const {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(get_stream()(index_, &stream));
    return stream;
  }

 private:
  using GetStream = AOTITorchError (*)(int32_t, void**);

  // Looked up in the library that torch has loaded: an import of this symbol would keep the library
  // from loading into builds of torch that have it elsewhere.
  static GetStream get_stream() {
    static const GetStream found = [] {
      void* const library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
      void* const symbol =
          dlsym(library != nullptr ? library : RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream");
      if (symbol == nullptr) {
        throw std::runtime_error(
            "fastltc: this torch has no aoti_torch_get_current_cuda_stream; fastltc needs a CUDA "
            "build of torch >= 2.10");
      }
      return reinterpret_cast<GetStream>(symbol);
    }();
    return found;
  }

  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
  // After set_device, which says what is wrong with a driver.
  std::optional<cuda::RelaxedCapture> relaxed_;
};

}  // namespace fastltc
