// From the description of a model's layers, docs/export.md, to the plain network that kernels take.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "core/network.h"
#include "model/value.h"

namespace fastltc::model {

// A parameter as it lies in memory: float32, contiguous.
struct Tensor {
  const float* data = nullptr;  // null: there is none of that name
  std::vector<int64_t> shape;
};

// Finds `layers.<i>.<key>`.
using TensorSource = std::function<Tensor(const std::string& name)>;

// Checked is what keeps from reading or computing outside of the tensors: std::invalid_argument,
// naming it, where a key or tensor is missing or sizes do not fit.
class NetworkBuilder {
 public:
  NetworkBuilder(int64_t inputs, TensorSource tensors);

  // The next layer.
  void add(const Value& layer);

  // Points to the tensors, and to what the builder owns.
  Network network(bool medium_sigmoid = false) const;

  // Values that the last layer gives.
  int64_t outputs() const { return width_; }

 private:
  class Description;

  TensorSource tensors_;
  size_t described_ = 0;
  std::vector<NetworkLayer> layers_;
  int64_t width_;
  // Deques do not move what they hold.
  std::deque<std::vector<int32_t>> lists_;
  std::deque<std::vector<int64_t>> sizes_;
  std::deque<std::vector<const float*>> pointers_;

  void push(const NetworkLayer& layer);
  SynapseList synapses(const float* mask, int64_t pre, int64_t post);
  void add_memory(const Description& d, NetworkLayer& layer, int64_t units);
  void add_ltc(const Description& d);
  static void add_heads(const Description& d, const std::string& prefix, CfcMode mode,
                        int64_t columns, int64_t size, std::vector<const float*>& parameters);
  NetworkLayer new_cfc(const Description& d);
  void finish_cfc(const Description& d, NetworkLayer layer, std::vector<int64_t> cells,
                  std::vector<const float*> parameters);
  void add_wired_cfc(const Description& d);
  void add_cfc(const Description& d);
  void add_linear(const Description& d, const std::string& prefix, int64_t outputs, bool bias);
  void add_activation(const Description& d);
};

}  // namespace fastltc::model
