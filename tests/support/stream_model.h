// Random stacks of layers for prepared networks, with all that they point to, and the same in plain
// loops in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cpu/stream.h"
#include "support/plain_sequence.h"

namespace fastltc::test {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

inline double softplus(double x) { return x > 20 ? x : std::log1p(std::exp(x)); }

inline double apply(Function function, double x) {
  switch (function) {
    case Function::lecun_tanh:
      return 1.7159 * std::tanh(0.666 * x);
    case Function::silu:
      return x * sigmoid(x);
    case Function::relu:
      return std::max(x, 0.0);
    case Function::tanh:
      return std::tanh(x);
    case Function::gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Function::sigmoid:
      return sigmoid(x);
    case Function::softplus:
      return softplus(x);
    case Function::softmax:
      break;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

// weight [rows, columns] times z, plus bias (may be null).
inline Doubles product(const float* weight, const float* bias, int64_t rows, const Doubles& z) {
  Doubles result;
  for (int64_t row = 0; row < rows; ++row) {
    double sum = bias == nullptr ? 0.0 : bias[row];
    for (size_t k = 0; k < z.size(); ++k) sum += weight[row * z.size() + k] * z[k];
    result.push_back(sum);
  }
  return result;
}

inline Doubles joined(const Doubles& a, const Doubles& b) {
  Doubles result = a;
  result.insert(result.end(), b.begin(), b.end());
  return result;
}

// Random layers, with all that they point to, and the same in plain loops.
class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed) {}

  void add_ltc(int64_t I, int64_t N, int64_t M, int64_t U, double density, bool softplus, bool maps,
               bool memory) {
    NetworkLayer layer;
    layer.type = LayerType::ltc;
    layer.inputs = I;
    layer.outputs = M;
    layer.ltc.size = {1, 1, I, N, M, U};
    auto& p = layer.ltc.parameters;
    p.softplus = softplus;
    p.epsilon = 1e-3;
    const float low = softplus ? -2.0f : 0.05f;
    p.gleak = draw(N, low, 1.5f);
    p.vleak = draw(N, -0.5f, 0.5f);
    p.cm = draw(N, softplus ? -1.0f : 0.3f, 1.0f);
    p.sigma = draw(N * N, -4, 6);
    p.mu = draw(N * N, -0.5f, 0.8f);
    p.w = draw(N * N, low, 1.5f);
    p.erev = draw(N * N, -1, 1);
    p.sensory_sigma = draw(I * N, -4, 6);
    p.sensory_mu = draw(I * N, -0.5f, 0.8f);
    p.sensory_w = draw(I * N, low, 1.5f);
    p.sensory_erev = draw(I * N, -1, 1);
    if (maps) {
      p.input_w = draw(I, 0.5f, 1.5f);
      p.input_b = draw(I, -0.5f, 0.5f);
      p.output_w = draw(M, 0.5f, 1.5f);
      p.output_b = draw(M, -0.5f, 0.5f);
    }
    layer.ltc.synapses = draw_synapses(N, N, density);
    layer.ltc.sensory_synapses = draw_synapses(I, N, density);
    if (memory) add_memory(layer, N);
    layers.push_back(layer);
  }

  void add_cfc(int64_t I, std::vector<int64_t> cells, CfcMode mode, Activation activation,
               int64_t backbone_layers, int64_t backbone_units, bool masked, bool memory) {
    NetworkLayer layer;
    layer.type = LayerType::cfc;
    layer.inputs = I;
    layer.outputs = cells.back();
    auto& in = layer.cfc;
    int64_t N = 0;
    for (const int64_t size : cells) N += size;
    in.size = {1, 1, I, N, cells.back(), 1};
    in.mode = mode;
    in.activation = activation;
    in.backbone_layers = backbone_layers;
    in.backbone_units = backbone_units;
    in.cells = static_cast<int64_t>(cells.size());
    std::vector<const float*> parameters, masks;
    int64_t columns = I + N;
    for (int64_t b = 0; b < backbone_layers; ++b) {
      parameters.push_back(draw_weight(backbone_units, columns));
      parameters.push_back(draw(backbone_units, -0.3f, 0.3f));
      columns = backbone_units;
    }
    int64_t before = I;
    for (const int64_t size : cells) {
      if (backbone_layers == 0) columns = before + size;
      for (int head = 0; head < (mode == CfcMode::pure ? 1 : 4); ++head) {
        parameters.push_back(draw_weight(size, columns));
        parameters.push_back(draw(size, -0.4f, 0.4f));
      }
      if (mode == CfcMode::pure) {
        parameters.push_back(draw(size, -1, 1));
        parameters.push_back(draw(size, -1, 1));
      }
      float* const mask = draw(size * columns, 0, 1);
      for (int64_t k = 0; k < size * columns; ++k) mask[k] = mask[k] < 0.5f ? 0.0f : 1.0f;
      masks.push_back(mask);
      before = size;
    }
    in.parameters = pointers_.emplace_back(parameters).data();
    if (masked) in.masks = pointers_.emplace_back(masks).data();
    in.cell_sizes = sizes_.emplace_back(cells).data();
    if (memory) add_memory(layer, N);
    layers.push_back(layer);
  }

  void add_linear(int64_t I, int64_t M, bool bias) {
    NetworkLayer layer;
    layer.type = LayerType::linear;
    layer.inputs = I;
    layer.outputs = M;
    layer.weight = draw_weight(M, I);
    if (bias) layer.bias = draw(M, -0.5f, 0.5f);
    layers.push_back(layer);
  }

  void add_function(int64_t I, Function function) {
    NetworkLayer layer;
    layer.type = LayerType::function;
    layer.inputs = layer.outputs = I;
    layer.function = function;
    layers.push_back(layer);
  }

  // One step of one stream; takes the parts of the state from `state` and puts them back.
  Doubles step(Doubles value, double dt, Doubles& state) const {
    size_t at = 0;
    const auto take = [&](int64_t count) {
      const Doubles part(state.begin() + at, state.begin() + at + count);
      return part;
    };
    const auto put = [&](const Doubles& part) {
      std::copy(part.begin(), part.end(), state.begin() + at);
      at += part.size();
    };
    for (const NetworkLayer& layer : layers) {
      if (layer.type == LayerType::linear) {
        value = product(layer.weight, layer.bias, layer.outputs, value);
        continue;
      }
      if (layer.type == LayerType::function) {
        if (layer.function == Function::softmax) {
          double sum = 0;
          for (double& v : value) sum += v = std::exp(v);
          for (double& v : value) v /= sum;
        } else {
          for (double& v : value) v = apply(layer.function, v);
        }
        continue;
      }
      const bool ltc = layer.type == LayerType::ltc;
      const int64_t N = ltc ? layer.ltc.size.N : layer.cfc.size.N;
      Doubles h = take(N), c;
      if (layer.memory.weight != nullptr) {
        at += N;
        c = take(N);
        at -= N;
        remember(layer, value, h, c);
      }
      value = ltc ? ltc_step(layer, value, dt, h) : cfc_step(layer, value, dt, h);
      put(h);
      put(c);
    }
    return value;
  }

  void forget_parameters() {
    arrays_.clear();
    lists_.clear();
    pointers_.clear();
    sizes_.clear();
  }
  Network network() const { return {layers.data(), static_cast<int64_t>(layers.size())}; }

  std::vector<NetworkLayer> layers;

 private:
  std::mt19937_64 random_;
  std::deque<Floats> arrays_;
  std::deque<std::vector<int32_t>> lists_;
  std::deque<std::vector<const float*>> pointers_;
  std::deque<std::vector<int64_t>> sizes_;

  float* draw(int64_t count, float low, float high) {
    std::uniform_real_distribution<float> uniform(low, high);
    Floats& array = arrays_.emplace_back(count);
    for (float& value : array) value = uniform(random_);
    return array.data();
  }
  // Not so large that rounding errors grow from step to step.
  float* draw_weight(int64_t rows, int64_t columns) {
    const float most = 1.0f / std::sqrt(static_cast<float>(columns));
    return draw(rows * columns, -most, most);
  }
  fastltc::SynapseList draw_synapses(int64_t pre, int64_t post, double density) {
    std::bernoulli_distribution exists(density);
    std::vector<int32_t> column{0}, row;
    for (int64_t j = 0; j < post; ++j) {
      for (int64_t i = 0; i < pre; ++i) {
        if (exists(random_)) row.push_back(static_cast<int32_t>(i));
      }
      column.push_back(static_cast<int32_t>(row.size()));
    }
    const int32_t* const columns = lists_.emplace_back(column).data();
    return {columns, lists_.emplace_back(row).data()};
  }
  void add_memory(NetworkLayer& layer, int64_t N) {
    layer.memory.weight = draw_weight(4 * N, layer.inputs);
    layer.memory.bias = draw(4 * N, -0.4f, 0.4f);
    layer.memory.recurrent_weight = draw_weight(4 * N, N);
  }

  static void remember(const NetworkLayer& layer, const Doubles& x, Doubles& h, Doubles& c) {
    const int64_t N = static_cast<int64_t>(h.size());
    Doubles z = product(layer.memory.weight, layer.memory.bias, 4 * N, x);
    const Doubles own = product(layer.memory.recurrent_weight, nullptr, 4 * N, h);
    for (int64_t k = 0; k < 4 * N; ++k) z[k] += own[k];
    for (int64_t j = 0; j < N; ++j) {
      c[j] = c[j] * sigmoid(z[2 * N + j] + 1) + std::tanh(z[j]) * sigmoid(z[N + j]);
      h[j] = std::tanh(c[j]) * sigmoid(z[3 * N + j]);
    }
  }

  static Doubles ltc_step(const NetworkLayer& layer, const Doubles& x, double dt, Doubles& v) {
    const auto& in = layer.ltc;
    const auto& p = in.parameters;
    const int64_t N = in.size.N;
    const auto positive = [&](double value) { return p.softplus ? softplus(value) : value; };
    for (int64_t u = 0; u < in.size.U; ++u) {
      Doubles next(N);
      for (int64_t j = 0; j < N; ++j) {
        double num = positive(p.gleak[j]) * p.vleak[j], den = positive(p.gleak[j]) + p.epsilon;
        const auto add = [&](const fastltc::SynapseList& list, const float* sigma, const float* mu,
                             const float* w, const float* erev, auto value) {
          for (int32_t k = list.column[j]; k < list.column[j + 1]; ++k) {
            const int64_t entry = list.row[k] * N + j;
            const double s =
                positive(w[entry]) * sigmoid(sigma[entry] * (value(list.row[k]) - mu[entry]));
            num += s * erev[entry];
            den += s;
          }
        };
        add(in.synapses, p.sigma, p.mu, p.w, p.erev, [&](int64_t i) { return v[i]; });
        add(in.sensory_synapses, p.sensory_sigma, p.sensory_mu, p.sensory_w, p.sensory_erev,
            [&](int64_t i) {
              return x[i] * (p.input_w == nullptr ? 1.0 : p.input_w[i]) +
                     (p.input_b == nullptr ? 0.0 : p.input_b[i]);
            });
        const double capacity = positive(p.cm[j]) * static_cast<double>(in.size.U);
        next[j] = (capacity * v[j] + dt * num) / (capacity + dt * den);
      }
      v = next;
    }
    Doubles y(v.begin(), v.begin() + in.size.M);
    for (int64_t m = 0; m < in.size.M; ++m) {
      y[m] = y[m] * (p.output_w == nullptr ? 1.0 : p.output_w[m]) +
             (p.output_b == nullptr ? 0.0 : p.output_b[m]);
    }
    return y;
  }

  static Doubles cfc_step(const NetworkLayer& layer, Doubles value, double dt, Doubles& h) {
    const auto& in = layer.cfc;
    const float* const* p = in.parameters;
    size_t row = 0;
    for (int64_t c = 0; c < in.cells; ++c) {
      const int64_t size = in.cell_sizes[c];
      Doubles z = joined(value, Doubles(h.begin() + row, h.begin() + row + size));
      for (int64_t b = 0; b < in.backbone_layers; ++b, p += 2) {
        z = product(p[0], p[1], in.backbone_units, z);
        for (double& v : z) v = apply(static_cast<Function>(in.activation), v);
      }
      const auto head = [&](int gate) {
        Floats weight(p[2 * gate], p[2 * gate] + size * z.size());
        if (in.masks != nullptr && gate < 2) {
          for (size_t k = 0; k < weight.size(); ++k) weight[k] *= in.masks[c][k];
        }
        return product(weight.data(), p[2 * gate + 1], size, z);
      };
      const Doubles f1 = head(0);
      value.resize(size);
      if (in.mode == CfcMode::pure) {
        for (int64_t j = 0; j < size; ++j) {
          const double A = p[3][j], rate = std::abs(p[2][j]) + std::abs(f1[j]);
          value[j] = A - A * std::exp(-dt * rate) * f1[j];
        }
        p += 4;
      } else {
        const Doubles f2 = head(1), ta = head(2), tb = head(3);
        for (int64_t j = 0; j < size; ++j) {
          const double r = sigmoid(ta[j] * dt + tb[j]), t1 = std::tanh(f1[j]),
                       t2 = std::tanh(f2[j]);
          value[j] = in.mode == CfcMode::gated ? t1 * (1 - r) + r * t2 : t1 + r * t2;
        }
        p += 8;
      }
      std::copy(value.begin(), value.end(), h.begin() + row);
      row += size;
    }
    return value;
  }
};

}  // namespace fastltc::test
