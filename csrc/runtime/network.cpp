#include "runtime/network.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <limits>
#include <string>
#include <typeinfo>
#include <vector>

#include "core/network.h"
#include "core/synapse_check.h"

namespace py = pybind11;

namespace fastltc::runtime {

namespace {

// Far above any network of this kind; keeps products of two sizes far from overflow.
constexpr int64_t kMaxSize = int64_t{1} << 24;

[[noreturn]] void fail(const std::string& text) { throw py::value_error(text); }

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t k = 0; k < shape.size(); ++k) text += (k ? ", " : "") + std::to_string(shape[k]);
  return text + "]";
}

template <typename Value, size_t n>
Value one_of(const std::string& name, const std::string& text,
             const std::array<std::pair<const char*, Value>, n>& known) {
  std::string names;
  for (const auto& [known_name, value] : known) {
    if (text == known_name) return value;
    names += (names.empty() ? "" : ", ") + std::string(known_name);
  }
  fail(name + ": expected one of " + names + ", got '" + text + "'");
}

constexpr std::array<std::pair<const char*, CfcMode>, 3> kModes = {
    {{"default", CfcMode::gated}, {"no_gate", CfcMode::no_gate}, {"pure", CfcMode::pure}}};
constexpr std::array<std::pair<const char*, Function>, 8> kFunctions = {
    {{"lecun_tanh", Function::lecun_tanh},
     {"silu", Function::silu},
     {"relu", Function::relu},
     {"tanh", Function::tanh},
     {"gelu", Function::gelu},
     {"sigmoid", Function::sigmoid},
     {"softplus", Function::softplus},
     {"softmax", Function::softmax}}};
constexpr std::array<std::pair<const char*, Activation>, 5> kActivations = {
    {{"lecun_tanh", Activation::lecun_tanh},
     {"silu", Activation::silu},
     {"relu", Activation::relu},
     {"tanh", Activation::tanh},
     {"gelu", Activation::gelu}}};

// One layer's description and tensors.
class Description {
 public:
  Description(int64_t index, py::dict layer, const py::dict& tensors)
      : title_("layers[" + std::to_string(index) + "]"),
        prefix_("layers." + std::to_string(index) + "."),
        layer_(std::move(layer)),
        tensors_(tensors) {}

  std::string name(const char* key) const { return title_ + "." + key; }

  template <typename T>
  T get(const char* key) const {
    try {
      return value(key).cast<T>();
    } catch (const py::cast_error&) {
      fail(name(key) + ": unexpected " + py::repr(value(key)).cast<std::string>());
    }
  }
  bool is_none(const char* key) const { return value(key).is_none(); }

  int64_t size(const char* key, int64_t least = 1) const {
    const auto result = get<int64_t>(key);
    if (result < least || result > kMaxSize) {
      fail(name(key) + ": expected " + std::to_string(least) + " to " + std::to_string(kMaxSize) +
           ", got " + std::to_string(result));
    }
    return result;
  }

  const float* tensor(const std::string& key, const std::vector<int64_t>& shape) const {
    const std::string full = prefix_ + key;
    if (!tensors_.contains(full.c_str())) fail(full + ": this tensor is missing");
    const py::object object = tensors_[full.c_str()];
    if (!py::isinstance<py::array_t<float, py::array::c_style>>(object) ||
        py::hasattr(object, "mask")) {
      fail(full + ": expected a C-contiguous float32 array without a mask");
    }
    const auto array = py::reinterpret_borrow<py::array>(object);
    const std::vector<int64_t> found(array.shape(), array.shape() + array.ndim());
    if (found != shape) {
      fail(full + ": expected shape " + shape_text(shape) + ", got " + shape_text(found));
    }
    return static_cast<const float*>(array.data());
  }

 private:
  std::string title_;
  std::string prefix_;
  py::dict layer_;
  const py::dict& tensors_;

  py::object value(const char* key) const {
    if (!layer_.contains(key)) fail(name(key) + ": missing");
    return layer_[key];
  }
};

// Makes the plain description of a network, and owns the lists that it points to.
class Builder {
 public:
  explicit Builder(int64_t inputs) : width_(inputs) {}

  void add(const Description& d) {
    const auto type = d.get<std::string>("type");
    if (type == "ltc") {
      add_ltc(d);
    } else if (type == "wired_cfc") {
      add_wired_cfc(d);
    } else if (type == "cfc") {
      add_cfc(d);
    } else if (type == "linear") {
      add_linear(d, "", d.size("input_size"), d.size("output_size"), d.get<bool>("bias"));
    } else if (type == "activation") {
      add_activation(d);
    } else {
      fail(d.name("type") + ": unknown: '" + type + "'");
    }
  }

  Network network() const {
    if (layers_.empty()) fail("layers: expected at least one");
    return {layers_.data(), static_cast<int64_t>(layers_.size())};
  }

 private:
  std::vector<NetworkLayer> layers_;
  int64_t width_;  // values that the last layer gives
  // Deques do not move what they hold.
  std::deque<std::vector<int32_t>> lists_;
  std::deque<std::vector<int64_t>> sizes_;
  std::deque<std::vector<const float*>> pointers_;

  void push(const Description& d, const NetworkLayer& layer) {
    if (layer.inputs != width_) {
      fail(d.name("input_size") + ": expected " + std::to_string(width_) + ", got " +
           std::to_string(layer.inputs));
    }
    layers_.push_back(layer);
    width_ = layer.outputs;
  }

  // The synapses of a mask [pre, post].
  SynapseList synapses(const std::string& name, const float* mask, int64_t pre, int64_t post) {
    // The mask is there in full, so its size is no overflow; that of the list is an int32.
    int64_t count = 0;
    for (int64_t k = 0; k < pre * post; ++k) count += mask[k] != 0.0f;
    if (count > std::numeric_limits<int32_t>::max()) {
      fail(name + ": expected fewer than 2^31 synapses, got " + std::to_string(count));
    }
    std::vector<int32_t>& list = lists_.emplace_back(static_cast<size_t>(post + 1));
    list.reserve(static_cast<size_t>(post + 1 + count));
    for (int64_t j = 0; j < post; ++j) {
      for (int64_t i = 0; i < pre; ++i) {
        if (mask[i * post + j] != 0.0f) list.push_back(static_cast<int32_t>(i));
      }
      list[j + 1] = static_cast<int32_t>(static_cast<int64_t>(list.size()) - (post + 1));
    }
    const std::string error =
        synapse_list_error(list.data(), static_cast<int64_t>(list.size()), post, pre);
    if (!error.empty()) fail(name + ": " + error);
    return {list.data(), list.data() + post + 1};
  }

  void add_memory(const Description& d, NetworkLayer& layer, int64_t units) {
    if (!d.get<bool>("mixed_memory")) return;
    layer.memory.weight = d.tensor("lstm.input_map.weight", {4 * units, layer.inputs});
    layer.memory.bias = d.tensor("lstm.input_map.bias", {4 * units});
    layer.memory.recurrent_weight = d.tensor("lstm.recurrent_map.weight", {4 * units, units});
  }

  void add_ltc(const Description& d) {
    NetworkLayer layer;
    layer.type = LayerType::ltc;
    const int64_t I = d.size("input_size"), N = d.size("units"), M = d.size("output_size");
    if (M > N) fail(d.name("output_size") + ": expected at most units = " + std::to_string(N));
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
      const auto kind = d.get<std::string>(key);
      if (kind != "affine" && kind != "linear") {
        fail(d.name(key) + ": expected 'affine', 'linear' or None, got '" + kind + "'");
      }
      return kind == "affine" ? 2 : 1;
    };
    constexpr int all = std::numeric_limits<int>::max();
    // By LtcShape.
    int wanted[] = {all, all, all, mapping("input_mapping"), mapping("output_mapping")};
    const std::vector<int64_t> shapes[] = {{N}, {N, N}, {I, N}, {I}, {M}};
    for (const LtcParameter<const float*>& row : kLtcParameters<const float*>) {
      const auto shape = static_cast<size_t>(row.shape);
      if (wanted[shape]-- > 0) p.*row.pointer = cell(row.name, shapes[shape]);
    }
    p.epsilon = d.get<double>("epsilon");
    p.softplus = d.get<bool>("implicit_param_constraints");
    layer.ltc.synapses = synapses(d.name("sparsity_mask"), cell("sparsity_mask", {N, N}), N, N);
    layer.ltc.sensory_synapses =
        synapses(d.name("sensory_sparsity_mask"), cell("sensory_sparsity_mask", {I, N}), I, N);
    add_memory(d, layer, N);
    push(d, layer);
  }

  // Weights and biases of a cell's heads, or what takes their place in a pure one.
  static void add_heads(const Description& d, const std::string& prefix, CfcMode mode,
                        int64_t columns, int64_t size, std::vector<const float*>& parameters) {
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

  NetworkLayer new_cfc(const Description& d) {
    NetworkLayer layer;
    layer.type = LayerType::cfc;
    layer.inputs = d.size("input_size");
    layer.cfc.mode = one_of(d.name("mode"), d.get<std::string>("mode"), kModes);
    layer.cfc.size.I = layer.inputs;
    layer.cfc.size.N = d.size("units");
    return layer;
  }

  void finish_cfc(const Description& d, NetworkLayer layer, std::vector<int64_t> cells,
                  std::vector<const float*> parameters) {
    CfcInputs<float>& in = layer.cfc;
    in.cells = static_cast<int64_t>(cells.size());
    in.size.M = layer.outputs = cells.back();
    in.cell_sizes = sizes_.emplace_back(std::move(cells)).data();
    in.parameters = pointers_.emplace_back(std::move(parameters)).data();
    add_memory(d, layer, in.size.N);
    push(d, layer);
    if (!d.is_none("proj_size")) {
      add_linear(d, "fc.", layer.outputs, d.size("proj_size"), true);
    }
    if (d.size("output_size") != width_) {
      fail(d.name("output_size") + ": expected " + std::to_string(width_) + ", got " +
           std::to_string(d.size("output_size")));
    }
  }

  void add_wired_cfc(const Description& d) {
    NetworkLayer layer = new_cfc(d);
    auto cells = d.get<std::vector<int64_t>>("cells");
    int64_t total = 0;
    for (const int64_t size : cells) {
      if (size < 1 || size > kMaxSize) {
        fail(d.name("cells") + ": expected sizes of 1 or more, got " + std::to_string(size));
      }
      total += size;
    }
    if (cells.empty() || total != layer.cfc.size.N) {
      fail(d.name("cells") + ": expected sizes whose sum is units = " +
           std::to_string(layer.cfc.size.N) + ", got " + std::to_string(total));
    }
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

  void add_cfc(const Description& d) {
    NetworkLayer layer = new_cfc(d);
    CfcInputs<float>& in = layer.cfc;
    in.activation = one_of(d.name("activation"), d.get<std::string>("activation"), kActivations);
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

  void add_linear(const Description& d, const std::string& prefix, int64_t inputs, int64_t outputs,
                  bool bias) {
    NetworkLayer layer;
    layer.type = LayerType::linear;
    layer.inputs = inputs;
    layer.outputs = outputs;
    layer.weight = d.tensor(prefix + "weight", {outputs, inputs});
    if (bias) layer.bias = d.tensor(prefix + "bias", {outputs});
    push(d, layer);
  }

  void add_activation(const Description& d) {
    NetworkLayer layer;
    layer.type = LayerType::function;
    layer.inputs = layer.outputs = width_;
    layer.function = one_of(d.name("function"), d.get<std::string>("function"), kFunctions);
    push(d, layer);
  }
};

}  // namespace

PreparedNetwork::PreparedNetwork(int64_t input_size, const py::list& layers,
                                 const py::dict& tensors, double time_unit)
    : time_unit_(time_unit) {
  if (!(time_unit > 0 && std::isfinite(time_unit))) {
    fail("time_unit: expected a finite number of seconds above 0, got " +
         py::repr(py::float_(time_unit)).cast<std::string>());
  }
  if (input_size < 1 || input_size > kMaxSize) {
    fail("input_size: expected 1 to " + std::to_string(kMaxSize) + ", got " +
         std::to_string(input_size));
  }
  Builder builder(input_size);
  int64_t index = 0;
  for (const py::handle layer : layers) {
    if (!py::isinstance<py::dict>(layer)) {
      fail("layers[" + std::to_string(index) + "]: expected a dict");
    }
    builder.add(Description(index, py::reinterpret_borrow<py::dict>(layer), tensors));
    ++index;
  }
  const Network network = builder.network();
  network_ = cpu::prepare_network(network);
}

const PreparedNetwork& network_of(const char* name, py::handle object) {
  if (!py::isinstance<PreparedNetwork>(object)) {
    throw py::type_error(std::string(name) + ": expected a Network, got " +
                         Py_TYPE(object.ptr())->tp_name);
  }
  // A cast would take memory where there is no PreparedNetwork yet for one.
  const auto* const type = py::detail::get_type_info(typeid(PreparedNetwork));
  auto* const instance = reinterpret_cast<py::detail::instance*>(object.ptr());
  if (!instance->get_value_and_holder(type).holder_constructed()) {
    throw py::type_error(std::string(name) +
                         ": expected an initialized Network, got one whose __init__ has not run");
  }
  return py::cast<const PreparedNetwork&>(object);
}

}  // namespace fastltc::runtime
