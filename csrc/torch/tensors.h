// Torch's tensors as the kernels take them, and tensors for what they write.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "core/sequence.h"
#include "torch/checks.h"

namespace fastltc {

inline Parallel torch_parallel() {
  Parallel parallel;
  parallel.threads = static_cast<int>(torch::stable::get_num_threads());
  parallel.run = [](int64_t n, void (*body)(void*, int64_t), void* context) {
    if (n == 1) return body(context, 0);
    torch::stable::parallel_for(0, n, 1, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(context, i);
    });
  };
  return parallel;
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// [B, T, C], or [B, T] with C = 1, or [B, C] with no time.
template <typename T>
SequenceView<const T> sequence_view(const Tensor& tensor, bool has_time = true) {
  SequenceView<const T> view;
  view.data = tensor.const_data_ptr<T>();
  view.stride_b = tensor.stride(0);
  if (has_time) view.stride_t = tensor.stride(1);
  const int64_t channel_dim = has_time ? 2 : 1;
  if (tensor.dim() > channel_dim) view.stride_c = tensor.stride(channel_dim);
  return view;
}

// A new tensor on the device of another. torch::stable::new_empty goes through the dispatcher by
// name, which takes as long as a step of a small layer.
inline Tensor new_strided(const Tensor& like, int32_t dtype, const int64_t* sizes,
                          const int64_t* strides, int64_t dim) {
  int32_t device;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  AtenTensorHandle result;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dim, sizes, strides, dtype, device,
                                                  like.get_device_index(), &result));
  return Tensor(result);
}

// Uninitialised memory on the device of another tensor.
inline Tensor new_bytes(const Tensor& like, size_t bytes) {
  const int64_t size = static_cast<int64_t>(bytes), stride = 1;
  return new_strided(like, aoti_torch_dtype_uint8(), &size, &stride, 1);
}

// A contiguous tensor of the dtype of another, of at most four dimensions.
inline Tensor new_tensor(const Tensor& like, const int64_t* sizes, int64_t dim) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  int64_t strides[4];
  int64_t stride = 1;
  for (int64_t d = dim - 1; d >= 0; --d) {
    strides[d] = stride;
    // As torch has it for empty dimensions, too.
    stride *= std::max<int64_t>(sizes[d], 1);
  }
  return new_strided(like, dtype, sizes, strides, dim);
}
inline Tensor new_tensor(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return new_tensor(like, sizes.begin(), static_cast<int64_t>(sizes.size()));
}

// The same of the shape of another.
inline Tensor new_like(const Tensor& like, bool zeroed = false) {
  const int64_t dim = like.dim();
  int64_t sizes[4];
  for (int64_t d = 0; d < dim; ++d) sizes[d] = like.size(d);
  Tensor result = new_tensor(like, sizes, dim);
  const size_t size = like.scalar_type() == ScalarType::Float ? sizeof(float) : sizeof(double);
  if (zeroed && result.numel() > 0) {
    std::memset(result.mutable_data_ptr(), 0, result.numel() * size);
  }
  return result;
}

// [B, T, C], stored time first where `time_major`.
inline Tensor new_sequence(const Tensor& like, int64_t B, int64_t T, int64_t C, bool time_major) {
  if (!time_major) return new_tensor(like, {B, T, C});
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  const int64_t sizes[] = {B, T, C}, inner = std::max<int64_t>(C, 1);
  const int64_t strides[] = {inner, inner * std::max<int64_t>(B, 1), 1};
  return new_strided(like, dtype, sizes, strides, 3);
}

// Strides as sequence_view has them.
template <typename T>
SequenceView<T> writable(Tensor& tensor, bool has_time = true) {
  const SequenceView<const T> view = sequence_view<T>(tensor, has_time);
  return {tensor.mutable_data_ptr<T>(), view.stride_b, view.stride_t, view.stride_c};
}

template <typename Call>
void with_dtype(ScalarType dtype, Call call) {
  if (dtype == ScalarType::Float) {
    call(float{});
  } else {
    call(double{});
  }
}

}  // namespace fastltc
