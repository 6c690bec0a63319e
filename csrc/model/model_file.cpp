#include "model/model_file.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "model/sha256.h"

namespace fastltc::model {

static_assert(std::endian::native == std::endian::little, "model files are little-endian");

namespace {

constexpr int64_t kFormatVersion = 3;
// As in fastltc/runtime: far above what any model needs.
constexpr size_t kMostHeader = size_t{4} << 20;
constexpr size_t kMostBytes = size_t{1} << 31;
constexpr int64_t kMostSize = int64_t{1} << 20;
constexpr size_t kMostLayers = 256;
constexpr int64_t kMostUnfolds = 4096;

[[noreturn]] void fail(const std::string& text) { throw std::invalid_argument(text); }

const Value& member(const Value& object, const std::string& where, const char* name) {
  const Value* const found = object.find(name);
  if (found == nullptr) fail(where + "." + name + ": missing");
  return *found;
}

int64_t size_in(const std::string& name, const Value& value, int64_t least, int64_t most) {
  const auto* const size = value.get_if<int64_t>();
  if (size == nullptr || *size < least || *size > most) {
    fail(name + ": expected an integer from " + std::to_string(least) + " to " +
         std::to_string(most) + ", got " + value.shown());
  }
  return *size;
}

// A tensor of the file: floats from `begin` on.
struct Entry {
  std::string name;
  std::vector<int64_t> shape;
  size_t begin = 0;
  size_t count = 0;
};

Entry read_entry(const Member& described, size_t bytes) {
  const std::string& name = described.name;
  const Value& dtype = member(described.value, name, "dtype");
  const auto* const type = dtype.get_if<std::string>();
  if (type == nullptr || *type != "F32") fail(name + ": expected dtype F32, got " + dtype.shown());
  const auto* const shape = member(described.value, name, "shape").get_if<Value::List>();
  const auto* const range = member(described.value, name, "data_offsets").get_if<Value::List>();
  if (shape == nullptr || range == nullptr || range->size() != 2) fail(name + ": damaged header");
  Entry entry{name, {}, 0, 1};
  for (const Value& each : *shape) {
    entry.shape.push_back(size_in(name + ".shape", each, 1, static_cast<int64_t>(kMostBytes)));
    entry.count *= static_cast<size_t>(entry.shape.back());
    if (entry.count > bytes) fail(name + ": truncated: its shape takes more than the file has");
  }
  const auto most = static_cast<int64_t>(bytes);
  const auto begin = size_in(name + ".data_offsets", (*range)[0], 0, most);
  const auto end = size_in(name + ".data_offsets", (*range)[1], begin, most);
  if (static_cast<size_t>(end - begin) != entry.count * sizeof(float) || begin % 4 != 0) {
    fail(name + ": its place in the file does not fit its shape");
  }
  entry.begin = static_cast<size_t>(begin) / sizeof(float);
  return entry;
}

// The entries of the header, which have to fill the rest of the file.
std::vector<Entry> read_entries(const Value& header, size_t bytes) {
  std::vector<Entry> entries;
  for (const Member& each : *header.get_if<Value::Object>()) {
    if (each.name != "__metadata__") entries.push_back(read_entry(each, bytes));
  }
  std::ranges::sort(entries, {}, &Entry::begin);
  size_t end = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != end) fail(entry.name + ": overlaps another tensor, or a gap before it");
    end += entry.count;
  }
  if (end * sizeof(float) != bytes) fail("truncated, or bytes behind the last tensor");
  std::ranges::sort(entries, {}, &Entry::name);
  return entries;
}

const std::string& text_of(const Value& metadata, const char* key) {
  const Value* const found = metadata.find(key);
  const auto* const text = found == nullptr ? nullptr : found->get_if<std::string>();
  if (text == nullptr) fail(std::string(key) + ": missing in the metadata");
  return *text;
}

int64_t check_version(const Value& metadata) {
  const Value* const format = metadata.find("format");
  if (format == nullptr || format->shown() != "'fastltc.model'") {
    fail("not a model file: its metadata has format " +
         (format == nullptr ? "None" : format->shown()) + ", expected 'fastltc.model'");
  }
  const std::string& text = text_of(metadata, "format_version");
  if (text.empty() || text.size() > 8 ||
      text.find_first_not_of("0123456789") != std::string::npos || std::stoll(text) < 1) {
    fail("format_version: expected a number, got '" + text + "'");
  }
  const int64_t version = std::stoll(text);
  if (version > kFormatVersion) {
    fail("format_version " + text + " is newer than " + std::to_string(kFormatVersion) +
         ", the newest that this library reads");
  }
  return version;
}

void check_keys(const std::string& where, const Value& object, std::vector<std::string> known) {
  const auto* const members = object.get_if<Value::Object>();
  if (members == nullptr) fail(where + ": expected an object, got " + object.shown());
  for (const Member& each : *members) {
    if (std::ranges::find(known, each.name) == known.end()) {
      fail(where + ": unknown key '" + each.name + "'");
    }
  }
}

// What the builder does not ask: keys that are not known, and values past what a model needs.
void check_layer(const std::string& where, const Value& layer) {
  const Value& type = member(layer, where, "type");
  const std::string kind = type.shown();
  std::vector<std::string> known = {"type"};
  const auto know = [&](std::initializer_list<const char*> keys) {
    known.insert(known.end(), keys.begin(), keys.end());
  };
  const auto size = [&](const char* key, int64_t least = 1, int64_t most = kMostSize) {
    return size_in(where + "." + key, member(layer, where, key), least, most);
  };
  if (kind == "'activation'") {
    know({"function"});
    return check_keys(where, layer, known);
  }
  know({"input_size", "output_size"});
  const int64_t outputs = size("output_size");
  if (kind == "'linear'") {
    know({"bias"});
    return check_keys(where, layer, known);
  }
  know({"units", "mixed_memory"});
  const int64_t units = size("units");
  if (kind == "'ltc'") {
    know({"ode_unfolds", "epsilon", "implicit_param_constraints", "input_mapping",
          "output_mapping"});
    size("ode_unfolds", 1, kMostUnfolds);
    if (outputs > units) {
      fail(where + ".output_size: expected at most units = " + std::to_string(units) + ", got " +
           std::to_string(outputs));
    }
    const Value& epsilon = member(layer, where, "epsilon");
    const auto* const whole = epsilon.get_if<int64_t>();
    const auto* const real = epsilon.get_if<double>();
    const double value = real != nullptr    ? *real
                         : whole != nullptr ? static_cast<double>(*whole)
                                            : -1;
    if (!(value >= 0 && value <= 1)) {
      fail(where + ".epsilon: expected a number from 0 to 1, got " + epsilon.shown());
    }
    for (const char* const key : {"input_mapping", "output_mapping"}) {
      const std::string mapping = member(layer, where, key).shown();
      if (mapping != "None" && mapping != "'affine'" && mapping != "'linear'") {
        fail(where + "." + key + ": expected affine, linear or null, got " + mapping);
      }
    }
  } else {
    know({"mode", "proj_size"});
    if (kind == "'wired_cfc'") {
      know({"cells"});
    } else if (kind != "'cfc'") {
      fail(where + ".type: expected ltc, wired_cfc, cfc, linear or activation, got " + kind);
    } else {
      know({"activation", "backbone_layers", "backbone_units"});
      const int64_t layers = size("backbone_layers", 0, static_cast<int64_t>(kMostLayers));
      if ((layers == 0) != (size("backbone_units", 0) == 0)) {
        fail(where + ".backbone_units: expected 0 without backbone layers, else 1 or more");
      }
    }
  }
  check_keys(where, layer, known);
}

// Names that fit; false where they do not.
bool read_names(const Value& value, int64_t wanted, std::vector<std::string>& names) {
  const auto* const list = value.get_if<Value::List>();
  if (list == nullptr || (!list->empty() && static_cast<int64_t>(list->size()) != wanted)) {
    return false;
  }
  std::vector<std::string> found;
  for (const Value& each : *list) {
    const auto* const name = each.get_if<std::string>();
    if (name == nullptr) return false;
    found.push_back(*name);
  }
  names = std::move(found);
  return true;
}

void read_unit(const Value& value, double& unit) {
  const auto* const whole = value.get_if<int64_t>();
  const auto* const real = value.get_if<double>();
  unit = real != nullptr ? *real : whole != nullptr ? static_cast<double>(*whole) : 0.0;
  if (!(unit >= 1e-30 && unit <= 1e30)) {
    fail("time_unit: expected a number of seconds from 1e-30 to 1e30, got " + value.shown());
  }
}

// Unit of time, names and precision: of the description, or in version 1 of the metadata, where names
// that do not fit were allowed.
void read_facts(int64_t version, const Value& metadata, const Value& description, ModelFile& file) {
  const int64_t outputs = file.builder.outputs();
  if (version > 1) {
    if (const Value* const unit = description.find("time_unit")) read_unit(*unit, file.time_unit);
    const auto read = [&](const char* key, int64_t size, std::vector<std::string>& names) {
      const Value* const value = description.find(key);
      if (value != nullptr && !read_names(*value, size, names)) {
        fail(std::string(key) + ": expected " + std::to_string(size) + " names or none, got " +
             value->shown());
      }
    };
    read("input_names", file.inputs, file.input_names);
    read("output_names", outputs, file.output_names);
    if (const Value* const precision = description.find("sigmoid_precision")) {
      const std::string shown = precision->shown();
      file.medium_sigmoid = shown == "'medium'";
      if (!file.medium_sigmoid && shown != "'highest'") {
        fail("sigmoid_precision: expected highest or medium, got " + shown);
      }
    }
    return;
  }
  const auto parsed = [&](const char* key, auto use) {
    if (metadata.find(key) != nullptr) use(parse_json(text_of(metadata, key)));
  };
  parsed("time_unit", [&](const Value& value) { read_unit(value, file.time_unit); });
  // Those of a layer of a larger model were written with the outputs' names of the model.
  if (metadata.find("inputs") == nullptr) return;
  parsed("inputs", [&](const Value& value) { read_names(value, file.inputs, file.input_names); });
  parsed("outputs", [&](const Value& value) { read_names(value, outputs, file.output_names); });
}

void check_numbers(const Entry& entry, const float* numbers) {
  const bool mask = entry.name.ends_with("sparsity_mask");
  for (size_t k = 0; k < entry.count; ++k) {
    if (!std::isfinite(numbers[k])) fail(entry.name + ": expected finite numbers, got others");
    if (mask && numbers[k] != 0.0f && numbers[k] != 1.0f) {
      fail(entry.name + ": expected 0 and 1 only, got others");
    }
  }
}

// As an LTC of the runtime: no potential may be 0 / 0.
void check_denominators(const Network& network) {
  for (int64_t n = 0; n < network.count; ++n) {
    const NetworkLayer& layer = network.layers[n];
    const LtcParameters<float>& p = layer.ltc.parameters;
    if (layer.type != LayerType::ltc || p.softplus) continue;
    for (int64_t j = 0; j < layer.ltc.size.N; ++j) {
      if (p.cm[j] == 0.0f && p.gleak[j] + static_cast<float>(p.epsilon) == 0.0f) {
        fail(
            "cm, gleak or epsilon: expected one above 0 for each neuron, without which its "
            "potential is 0 / 0, got all 0 at neuron " +
            std::to_string(j));
      }
    }
  }
}

}  // namespace

ModelFile parse_model_file(std::string_view content) {
  if (content.size() < 8) fail("truncated: " + std::to_string(content.size()) + " bytes");
  if (content.size() > kMostBytes) fail("longer than any model file");
  uint64_t length = 0;
  std::memcpy(&length, content.data(), sizeof length);
  if (length > std::min(kMostHeader, content.size() - 8)) {
    fail("truncated or not a safetensors file: its header claims " + std::to_string(length) +
         " bytes");
  }
  const Value header = parse_json(content.substr(8, length));
  const std::string_view data = content.substr(8 + length);
  const Value* const metadata = header.find("__metadata__");
  if (metadata == nullptr) fail("not a model file: it has no metadata");
  const int64_t version = check_version(*metadata);
  const std::string &text = text_of(*metadata, "model"), &wanted = text_of(*metadata, "sha256");
  const std::vector<Entry> entries = read_entries(header, data.size());
  const Value description = parse_json(text);
  std::vector<std::string> keys = {"input_size", "output_size", "layers"};
  if (version > 1) keys.insert(keys.end(), {"time_unit", "input_names", "output_names"});
  if (version > 2) keys.emplace_back("sigmoid_precision");
  check_keys("model", description, keys);

  // Copied, because the numbers of a file need not be aligned.
  std::vector<float> numbers(data.size() / sizeof(float));
  std::memcpy(numbers.data(), data.data(), data.size());
  Sha256 digest;
  digest.add(text.data(), text.size());
  for (const Entry& entry : entries) {
    digest.add(numbers.data() + entry.begin, entry.count * sizeof(float));
    check_numbers(entry, numbers.data() + entry.begin);
  }
  if (digest.hexadecimal() != wanted) {
    fail("the content does not match its sha256: damaged or tampered with");
  }

  const int64_t inputs =
      size_in("model.input_size", member(description, "model", "input_size"), 1, kMostSize);
  const Value& layers = member(description, "model", "layers");
  const auto* const list = layers.get_if<Value::List>();
  if (list == nullptr || list->empty() || list->size() > kMostLayers) {
    fail("layers: expected a list of 1 to " + std::to_string(kMostLayers) + " layers");
  }
  std::set<std::string> used;
  const TensorSource find = [&](const std::string& name) -> Tensor {
    const auto found = std::ranges::lower_bound(entries, name, {}, &Entry::name);
    if (found == entries.end() || found->name != name) return {};
    used.insert(name);
    return {numbers.data() + found->begin, found->shape};
  };
  NetworkBuilder builder(inputs, find);
  for (size_t index = 0; index < list->size(); ++index) {
    check_layer("layers[" + std::to_string(index) + "]", (*list)[index]);
    builder.add((*list)[index]);
  }
  for (const Entry& entry : entries) {
    if (!used.contains(entry.name)) fail("'" + entry.name + "': unknown tensor");
  }
  const Value& outputs = member(description, "model", "output_size");
  if (size_in("model.output_size", outputs, 1, kMostSize) != builder.outputs()) {
    fail("output_size: expected " + std::to_string(builder.outputs()) +
         " as the layers give, got " + outputs.shown());
  }
  const Network network = builder.network();
  if (std::none_of(network.layers, network.layers + network.count, [](const NetworkLayer& layer) {
        return layer.type == LayerType::ltc || layer.type == LayerType::cfc;
      })) {
    fail("layers: expected at least one of ltc, wired_cfc, cfc");
  }
  check_denominators(network);
  // The vector's memory moves along with it.
  ModelFile file{std::move(builder), inputs, 1.0, false, {}, {}, std::move(numbers)};
  read_facts(version, *metadata, description, file);
  return file;
}

std::string read_file(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  // A pipe would wait for somebody to write, and a device may give bytes for ever.
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    fail("expected a regular file, got a folder, a pipe or a device");
  }
  const auto close = [](std::FILE* open) { std::fclose(open); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "rb"));
  if (!file) throw std::system_error(errno, std::generic_category());
  std::string content;
  char part[1 << 14];
  size_t count = 0;
  while ((count = std::fread(part, 1, sizeof part, file.get())) > 0) {
    content.append(part, count);
    if (content.size() > kMostBytes) fail("longer than any model file");
  }
  if (std::ferror(file.get())) throw std::system_error(errno, std::generic_category());
  return content;
}

}  // namespace fastltc::model
