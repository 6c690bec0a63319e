#include "cpu/stream/lowering.h"

#include <algorithm>

namespace fastltc::cpu {

using Kind = StreamStage::Kind;

float StreamStage::read_row(int gate, int64_t row, float* values) const {
  if (kind == Kind::memory) {
    const MemoryParameters<float>& p = layer->memory;
    const int64_t r = gate * size + row;
    std::copy_n(p.weight + r * inputs, inputs, values);
    std::copy_n(p.recurrent_weight + r * own_count, own_count, values + inputs);
    // The forget gate has a constant besides.
    return p.bias[r] + (gate == 2 ? 1.0f : 0.0f);
  }
  const float* const given = weight[gate] + row * columns;
  const float* const ones = mask == nullptr || gate >= 2 ? nullptr : mask + row * columns;
  for (int64_t k = 0; k < columns; ++k) {
    values[k] = ones == nullptr || ones[k] != 0.0f ? given[k] : 0.0f;
  }
  return bias[gate] == nullptr ? 0.0f : bias[gate][row];
}

void StreamStage::place(const int64_t* buffers) {
  for (Place* const part : {&from, &own, &to, &kept}) part->at += buffers[part->buffer];
}

LoweredNetwork::LoweredNetwork(const Network& network)
    : inputs(network.layers[0].inputs), outputs(network.layers[network.count - 1].outputs) {
  result = reserve(inputs);
  for (int64_t n = 0; n < network.count; ++n) result = add_layer(network.layers[n], result);
  stages = stage_list_.data();
  stage_count = static_cast<int64_t>(stage_list_.size());
  buffers = buffer_list_.data();
  buffer_count = static_cast<int64_t>(buffer_list_.size());
  parts = part_list_.data();
  part_count = static_cast<int64_t>(part_list_.size());
}

LoweredNetwork::~LoweredNetwork() = default;

Place LoweredNetwork::reserve(int64_t count) {
  buffer_list_.push_back(count);
  return {static_cast<int64_t>(buffer_list_.size()) - 1, 0};
}

void LoweredNetwork::keep(Place place, int64_t count) {
  part_list_.push_back({place.buffer, count});
  state_size += count;
}

StreamStage& LoweredNetwork::add(Kind kind, Place from, int64_t input_count, int64_t size) {
  StreamStage& stage = stage_list_.emplace_back();
  stage.kind = kind;
  stage.from = from;
  stage.inputs = stage.columns = input_count;
  stage.size = size;
  return stage;
}

void LoweredNetwork::set_own(StreamStage& stage, Place own, int64_t count) {
  stage.own = own;
  stage.own_count = count;
  stage.columns = stage.inputs + count;
}

StreamStage& LoweredNetwork::add_dense(Place from, int64_t input_count, int64_t size,
                                       const float* weight, const float* bias) {
  StreamStage& stage = add(Kind::dense, from, input_count, size);
  stage.gates = 1;
  stage.weight[0] = weight;
  stage.bias[0] = bias;
  stage.to = reserve(size);
  return stage;
}

Place LoweredNetwork::add_layer(const NetworkLayer& layer, Place from) {
  switch (layer.type) {
    case LayerType::ltc:
      return add_ltc(layer, from);
    case LayerType::cfc:
      return add_cfc(layer, from);
    case LayerType::linear:
      return add_dense(from, layer.inputs, layer.outputs, layer.weight, layer.bias).to;
    case LayerType::function:
      break;
  }
  StreamStage& stage = add(Kind::function, from, layer.inputs, layer.outputs);
  stage.function = layer.function;
  return stage.to = reserve(stage.size);
}

// The state from which a layer's cells go on: h, or with mixed memory what its memory cell makes of
// x and h.
Place LoweredNetwork::add_memory(const NetworkLayer& layer, Place from, Place h) {
  const int64_t N = layer.type == LayerType::ltc ? layer.ltc.size.N : layer.cfc.size.N;
  keep(h, N);
  if (layer.memory.weight == nullptr) return h;
  StreamStage& stage = add(Kind::memory, from, layer.inputs, N);
  stage.layer = &layer;
  stage.gates = kMostGates;
  set_own(stage, h, N);
  stage.to = reserve(N);
  stage.kept = reserve(N);
  keep(stage.kept, N);
  return stage.to;
}

Place LoweredNetwork::add_ltc(const NetworkLayer& layer, Place from) {
  const Place v = reserve(layer.ltc.size.N);
  const Place own = add_memory(layer, from, v);
  if (own.buffer == v.buffer) {
    part_list_.back().of_ltc = true;
    part_list_.back().ltc = ltc_count;
  }
  StreamStage& stage = add(Kind::ltc, from, layer.inputs, layer.outputs);
  stage.layer = &layer;
  stage.own = own;
  stage.kept = v;
  stage.ltc = ltc_count++;
  return stage.to = reserve(stage.size);
}

Place LoweredNetwork::add_cfc(const NetworkLayer& layer, Place from) {
  const CfcInputs<float>& in = layer.cfc;
  const int64_t N = in.size.N;
  const Place h = reserve(N), next = reserve(N);
  const Place own = add_memory(layer, from, h);
  const float* const* p = in.parameters;
  int64_t input_count = layer.inputs;
  for (int64_t b = 0; b < in.backbone_layers; ++b, p += 2) {
    StreamStage& stage = add_dense(from, input_count, in.backbone_units, p[0], p[1]);
    if (b == 0) set_own(stage, own, N);
    stage.activated = true;
    stage.function = static_cast<Function>(in.activation);
    from = stage.to;
    input_count = in.backbone_units;
  }
  int64_t first = 0;
  for (int64_t c = 0; c < in.cells; ++c) {
    const int64_t size = in.cell_sizes[c];
    StreamStage& stage = add(Kind::cell, from, input_count, size);
    stage.mode = in.mode;
    stage.gates = in.mode == CfcMode::pure ? 1 : kMostGates;
    set_own(stage, {own.buffer, first}, in.backbone_layers > 0 ? 0 : size);
    stage.to = {next.buffer, first};
    for (int gate = 0; gate < stage.gates; ++gate) {
      stage.weight[gate] = p[2 * gate];
      stage.bias[gate] = p[2 * gate + 1];
    }
    stage.mask = in.masks == nullptr ? nullptr : in.masks[c];
    if (in.mode == CfcMode::pure) {
      stage.w_tau = p[2];
      stage.A = p[3];
    }
    p += in.mode == CfcMode::pure ? 4 : 8;
    from = stage.to;
    input_count = size;
    first += size;
  }
  // Only now: until the last cell, the old state was read.
  add(Kind::copy, next, N, N).to = h;
  return from;
}

}  // namespace fastltc::cpu
