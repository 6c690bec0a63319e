#include "model/network_builder.h"

#include <limits>
#include <span>
#include <stdexcept>
#include <utility>

#include "core/list_text.h"

namespace fastltc::model {

namespace {

// Far above any network of this kind; keeps products of two sizes far from overflow.
constexpr int64_t kMaxSize = int64_t{1} << 24;

[[noreturn]] void fail(const std::string& text) { throw std::invalid_argument(text); }

// In the order of the enumerations.
constexpr const char* kModes[] = {"default", "no_gate", "pure"};
constexpr const char* kFunctions[] = {"lecun_tanh", "silu",    "relu",     "tanh",
                                      "gelu",       "sigmoid", "softplus", "softmax"};
constexpr auto kActivations = std::span<const char* const>(kFunctions).first(5);

int64_t checked_size(const std::string& name, int64_t size, int64_t least = 1,
                     int64_t most = kMaxSize) {
  if (size < least || size > most) {
    fail(name + ": expected " + std::to_string(least) + " to " + std::to_string(most) + ", got " +
         std::to_string(size));
  }
  return size;
}

}  // namespace

// One layer's description and tensors.
class NetworkBuilder::Description {
 public:
  Description(size_t index, const Value& layer, const TensorSource& tensors)
      : title_("layers[" + std::to_string(index) + "]"),
        prefix_("layers." + std::to_string(index) + "."),
        layer_(layer),
        tensors_(tensors) {}

  std::string name(const char* key) const { return title_ + "." + key; }

  template <typename T>
  const T& get(const char* key) const {
    const Value& found = value(key);
    if (const T* const content = found.get_if<T>()) return *content;
    fail(name(key) + ": unexpected " + found.shown());
  }
  bool is_none(const char* key) const { return value(key).is_null(); }

  // A number, whole or not.
  double number(const char* key) const {
    const auto* const whole = value(key).get_if<int64_t>();
    return whole != nullptr ? static_cast<double>(*whole) : get<double>(key);
  }
  int64_t size(const char* key, int64_t least = 1, int64_t most = kMaxSize) const {
    return checked_size(name(key), get<int64_t>(key), least, most);
  }
  std::vector<int64_t> sizes(const char* key) const {
    std::vector<int64_t> found;
    for (const Value& each : get<Value::List>(key)) {
      const auto* const size = each.get_if<int64_t>();
      if (size == nullptr) fail(name(key) + ": unexpected " + each.shown());
      found.push_back(checked_size(name(key), *size));
    }
    if (found.empty()) fail(name(key) + ": expected at least one");
    return found;
  }
  void expect(const char* key, int64_t wanted) const {
    const auto found = get<int64_t>(key);
    if (found != wanted) {
      fail(name(key) + ": expected " + std::to_string(wanted) + ", got " + std::to_string(found));
    }
  }
  template <typename Enumeration>
  Enumeration one_of(const char* key, std::span<const char* const> known) const {
    const auto& text = get<std::string>(key);
    for (size_t k = 0; k < known.size(); ++k) {
      if (text == known[k]) return static_cast<Enumeration>(k);
    }
    fail(name(key) + ": unknown: '" + text + "'");
  }

  const float* tensor(const std::string& key, const std::vector<int64_t>& shape) const {
    const std::string full = prefix_ + key;
    const Tensor found = tensors_(full);
    if (found.data == nullptr) fail(full + ": this tensor is missing");
    if (found.shape != shape) {
      fail(full + ": expected shape " + list_text(shape) + ", got " + list_text(found.shape));
    }
    return found.data;
  }

 private:
  std::string title_;
  std::string prefix_;
  const Value& layer_;
  const TensorSource& tensors_;

  const Value& value(const char* key) const {
    const Value* const found = layer_.find(key);
    if (found == nullptr) fail(name(key) + ": missing");
    return *found;
  }
};

NetworkBuilder::NetworkBuilder(int64_t inputs, TensorSource tensors)
    : tensors_(std::move(tensors)), width_(checked_size("input_size", inputs)) {}

void NetworkBuilder::add(const Value& layer) {
  const Description d(described_++, layer, tensors_);
  const auto& type = d.get<std::string>("type");
  if (type == "ltc") {
    add_ltc(d);
  } else if (type == "wired_cfc") {
    add_wired_cfc(d);
  } else if (type == "cfc") {
    add_cfc(d);
  } else if (type == "linear") {
    d.expect("input_size", width_);
    add_linear(d, "", d.size("output_size"), d.get<bool>("bias"));
  } else if (type == "activation") {
    add_activation(d);
  } else {
    fail(d.name("type") + ": unknown: '" + type + "'");
  }
}

Network NetworkBuilder::network(bool medium_sigmoid) const {
  if (layers_.empty()) fail("layers: expected at least one");
  return {layers_.data(), static_cast<int64_t>(layers_.size()), medium_sigmoid};
}

void NetworkBuilder::push(const NetworkLayer& layer) {
  layers_.push_back(layer);
  width_ = layer.outputs;
}

// The synapses of a mask [pre, post].
SynapseList NetworkBuilder::synapses(const float* mask, int64_t pre, int64_t post) {
  std::vector<int32_t>& list = lists_.emplace_back(static_cast<size_t>(post + 1));
  for (int64_t j = 0; j < post; ++j) {
    for (int64_t i = 0; i < pre; ++i) {
      if (mask[i * post + j] != 0.0f) list.push_back(static_cast<int32_t>(i));
    }
    list[j + 1] = static_cast<int32_t>(static_cast<int64_t>(list.size()) - (post + 1));
  }
  return {list.data(), list.data() + post + 1};
}

void NetworkBuilder::add_memory(const Description& d, NetworkLayer& layer, int64_t units) {
  if (!d.get<bool>("mixed_memory")) return;
  layer.memory.weight = d.tensor("lstm.input_map.weight", {4 * units, layer.inputs});
  layer.memory.bias = d.tensor("lstm.input_map.bias", {4 * units});
  layer.memory.recurrent_weight = d.tensor("lstm.recurrent_map.weight", {4 * units, units});
}

void NetworkBuilder::add_ltc(const Description& d) {
  NetworkLayer layer;
  layer.type = LayerType::ltc;
  const int64_t I = width_, N = d.size("units"), M = d.size("output_size", 1, N);
  d.expect("input_size", I);
  layer.inputs = I;
  layer.outputs = M;
  layer.ltc.size = {1, 1, I, N, M, d.size("ode_unfolds")};
  LtcParameters<float>& p = layer.ltc.parameters;
  const auto cell = [&](const char* key, std::vector<int64_t> shape) {
    return d.tensor(std::string("rnn_cell.") + key, shape);
  };
  // How many parameters a map has: its weight, and its bias.
  const auto mapping = [&](const char* key) {
    if (d.is_none(key)) return 0;
    return d.get<std::string>(key) == "affine" ? 2 : 1;
  };
  constexpr int all = std::numeric_limits<int>::max();
  // By LtcShape.
  int wanted[] = {all, all, all, mapping("input_mapping"), mapping("output_mapping")};
  const std::vector<int64_t> shapes[] = {{N}, {N, N}, {I, N}, {I}, {M}};
  for (const LtcParameter<const float*>& row : kLtcParameters<const float*>) {
    const auto shape = static_cast<size_t>(row.shape);
    if (wanted[shape]-- > 0) p.*row.pointer = cell(row.name, shapes[shape]);
  }
  p.epsilon = d.number("epsilon");
  p.softplus = d.get<bool>("implicit_param_constraints");
  layer.ltc.synapses = synapses(cell("sparsity_mask", {N, N}), N, N);
  layer.ltc.sensory_synapses = synapses(cell("sensory_sparsity_mask", {I, N}), I, N);
  add_memory(d, layer, N);
  push(layer);
}

// Weights and biases of a cell's heads, or what takes their place in a pure one.
void NetworkBuilder::add_heads(const Description& d, const std::string& prefix, CfcMode mode,
                               int64_t columns, int64_t size,
                               std::vector<const float*>& parameters) {
  const auto dense = [&](const char* key) {
    parameters.push_back(d.tensor(prefix + key + ".weight", {size, columns}));
    parameters.push_back(d.tensor(prefix + key + ".bias", {size}));
  };
  dense("ff1");
  if (mode == CfcMode::pure) {
    parameters.push_back(d.tensor(prefix + "w_tau", {1, size}));
    parameters.push_back(d.tensor(prefix + "A", {1, size}));
  } else {
    dense("ff2");
    dense("time_a");
    dense("time_b");
  }
}

NetworkLayer NetworkBuilder::new_cfc(const Description& d) {
  NetworkLayer layer;
  layer.type = LayerType::cfc;
  d.expect("input_size", width_);
  layer.inputs = width_;
  layer.cfc.mode = d.one_of<CfcMode>("mode", kModes);
  layer.cfc.size.I = layer.inputs;
  layer.cfc.size.N = d.size("units");
  return layer;
}

void NetworkBuilder::finish_cfc(const Description& d, NetworkLayer layer,
                                std::vector<int64_t> cells, std::vector<const float*> parameters) {
  CfcInputs<float>& in = layer.cfc;
  in.cells = static_cast<int64_t>(cells.size());
  in.size.M = layer.outputs = cells.back();
  in.cell_sizes = sizes_.emplace_back(std::move(cells)).data();
  in.parameters = pointers_.emplace_back(std::move(parameters)).data();
  add_memory(d, layer, in.size.N);
  push(layer);
  if (!d.is_none("proj_size")) add_linear(d, "fc.", d.size("proj_size"), true);
  d.expect("output_size", width_);
}

void NetworkBuilder::add_wired_cfc(const Description& d) {
  NetworkLayer layer = new_cfc(d);
  auto cells = d.sizes("cells");
  int64_t total = 0;
  for (const int64_t size : cells) total += size;
  d.expect("units", total);
  std::vector<const float*> parameters, masks;
  int64_t before = layer.inputs;
  for (size_t c = 0; c < cells.size(); ++c) {
    const std::string prefix = "rnn_cell.layer_" + std::to_string(c) + ".";
    add_heads(d, prefix, layer.cfc.mode, before + cells[c], cells[c], parameters);
    masks.push_back(d.tensor(prefix + "sparsity_mask", {cells[c], before + cells[c]}));
    before = cells[c];
  }
  layer.cfc.masks = pointers_.emplace_back(std::move(masks)).data();
  finish_cfc(d, layer, std::move(cells), std::move(parameters));
}

void NetworkBuilder::add_cfc(const Description& d) {
  NetworkLayer layer = new_cfc(d);
  CfcInputs<float>& in = layer.cfc;
  in.activation = d.one_of<Activation>("activation", kActivations);
  in.backbone_layers = d.size("backbone_layers", 0);
  in.backbone_units = d.size("backbone_units", in.backbone_layers > 0 ? 1 : 0);
  std::vector<const float*> parameters;
  int64_t columns = layer.inputs + in.size.N;
  for (int64_t b = 0; b < in.backbone_layers; ++b) {
    const std::string prefix = "rnn_cell.backbone." + std::to_string(2 * b) + ".";
    parameters.push_back(d.tensor(prefix + "weight", {in.backbone_units, columns}));
    parameters.push_back(d.tensor(prefix + "bias", {in.backbone_units}));
    columns = in.backbone_units;
  }
  add_heads(d, "rnn_cell.", in.mode, columns, in.size.N, parameters);
  finish_cfc(d, layer, {in.size.N}, std::move(parameters));
}

void NetworkBuilder::add_linear(const Description& d, const std::string& prefix, int64_t outputs,
                                bool bias) {
  NetworkLayer layer;
  layer.type = LayerType::linear;
  layer.inputs = width_;
  layer.outputs = outputs;
  layer.weight = d.tensor(prefix + "weight", {outputs, layer.inputs});
  if (bias) layer.bias = d.tensor(prefix + "bias", {outputs});
  push(layer);
}

void NetworkBuilder::add_activation(const Description& d) {
  NetworkLayer layer;
  layer.type = LayerType::function;
  layer.inputs = layer.outputs = width_;
  layer.function = d.one_of<Function>("function", kFunctions);
  push(layer);
}

}  // namespace fastltc::model
