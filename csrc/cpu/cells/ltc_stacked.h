// LTC with network lanes: what the kernels need of up to a register of networks, and the gradients of
// their parameters.
//
// Layout: wirings may differ. A synapse that any of the networks has is one of all, of weight zero
// where it is missing; that takes no more evaluations than the networks by themselves, each of which
// would fill a register with its samples.
#pragma once

#include "core/ltc_problem.h"
#include "cpu/cells/ltc_packed.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/gradient_sums.h"
#include "cpu/frame/networks.h"
#include "cpu/frame/rows.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// The networks from `first` on that fill a register, of those that `whole` has packed.
template <typename T>
struct LtcNetworks {
  const LtcInputs<T>& in;
  const PackedLtc<T>& whole;
  int64_t first;
  int64_t count;

  LtcNetworks(const LtcInputs<T>& inputs, const PackedLtc<T>& packed, int64_t begin)
      : in(inputs), whole(packed), first(begin), count(inputs.nets - begin) {
    if (count > Simd<T>::lanes) count = Simd<T>::lanes;
  }
};

template <typename T>
struct Synapses<T, Lanes::networks> {
  using S = Simd<T>;
  struct Values {
    typename S::vec a, b, we, w;
  };
  int64_t count = 0;
  int32_t* column = nullptr;
  int32_t* offset = nullptr;
  T* parameters = nullptr;   // [count][a, b, we, w][lanes]
  int32_t* place = nullptr;  // of each synapse of the networks, among these
  int32_t* seen = nullptr;   // [presynaptic neurons]
  int64_t begin = 0;         // the networks' first

  FASTLTC_INLINE Values at(int64_t k) const {
    const T* const p = parameters + k * 4 * S::lanes;
    return {S::load(p), S::load(p + S::lanes), S::load(p + 2 * S::lanes),
            S::load(p + 3 * S::lanes)};
  }

  // `rows`: presynaptic neurons of one network.
  void take(Arena& arena, const LtcNetworks<T>& nets, const Synapses<T>& whole, int64_t rows) {
    const int64_t N = nets.in.size.N / nets.in.nets;
    begin = whole.column[nets.first * N];
    const int64_t all = whole.column[(nets.first + nets.count) * N] - begin;
    const int64_t most = all < rows * N ? all : rows * N;
    column = arena.take<int32_t>(N + 1);
    offset = arena.take<int32_t>(most);
    parameters = arena.take<T>(most * 4 * S::lanes);
    place = arena.take<int32_t>(all);
    seen = arena.take<int32_t>(rows);
  }

  void fill(const LtcNetworks<T>& nets, const Synapses<T>& whole, int64_t rows) {
    const int64_t N = nets.in.size.N / nets.in.nets;
    count = 0;
    for (int64_t j = 0; j < N; ++j) {
      column[j] = static_cast<int32_t>(count);
      for (int64_t i = 0; i < rows; ++i) seen[i] = -1;
      each_synapse(nets, whole, j, rows, [&](int64_t, int64_t, int64_t i) { seen[i] = 0; });
      for (int64_t i = 0; i < rows; ++i) {
        if (seen[i] < 0) continue;
        clear_rows(parameters + count * 4 * S::lanes, 4);
        offset[count] = static_cast<int32_t>(i * S::lanes);
        seen[i] = static_cast<int32_t>(count++);
      }
      each_synapse(nets, whole, j, rows, [&](int64_t lane, int64_t k, int64_t i) {
        place[k - begin] = seen[i];
        const Synapse<T>& given = whole.parameters[k];
        T* const to = parameters + seen[i] * 4 * S::lanes + lane;
        to[0] = given.a;
        to[S::lanes] = given.b;
        to[2 * S::lanes] = given.we;
        to[3 * S::lanes] = given.w;
      });
    }
    column[N] = static_cast<int32_t>(count);
  }

 private:
  // Calls visit(lane, k, presynaptic neuron) for the synapses onto neuron j of each network.
  template <typename Visit>
  static FASTLTC_INLINE void each_synapse(const LtcNetworks<T>& nets, const Synapses<T>& whole,
                                          int64_t j, int64_t rows, const Visit& visit) {
    const int64_t N = nets.in.size.N / nets.in.nets;
    for (int64_t lane = 0; lane < nets.count; ++lane) {
      const int64_t net = nets.first + lane;
      const int32_t* const own = whole.column + net * N + j;
      for (int64_t k = own[0]; k < own[1]; ++k) {
        visit(lane, k, whole.offset[k] / S::lanes - net * rows);
      }
    }
  }
};

template <typename T>
struct StackedLtc : LtcLayer<T, Lanes::networks> {
  static constexpr int64_t L = Simd<T>::lanes;
  T* maps[4] = {};       // of inputs and outputs, rows of lanes
  T* scratch = nullptr;  // of write_ltc_gradients

  void take(Arena& arena, const LtcNetworks<T>& nets, bool) {
    const LtcInputs<T> part = networks_from(nets.in, nets.first);
    this->networks = static_cast<int>(nets.count);
    this->recurrent.take(arena, nets, nets.whole.recurrent, part.size.N);
    this->sensory.take(arena, nets, nets.whole.sensory, part.size.I);
    this->take_neurons(arena, part);
    for (int m = 0; m < 4; ++m) maps[m] = arena.take<T>((m < 2 ? part.size.I : part.size.M) * L);
    const int64_t wide = part.size.N > part.size.I ? part.size.N : part.size.I;
    scratch = arena.take<T>(2 * wide * part.size.N);
  }

  void fill(const LtcNetworks<T>& nets, bool) {
    const PackedLtc<T>& whole = nets.whole;
    const int64_t count = nets.in.nets;
    const int64_t N = nets.in.size.N / count, I = nets.in.size.I / count;
    const int64_t M = nets.in.size.M / count;
    this->recurrent.fill(nets, whole.recurrent, N);
    this->sensory.fill(nets, whole.sensory, I);
    this->sort_neurons(N);
    // A tile is one register of four.
    this->puts_sigmoids_by = ltc_puts_sigmoids_by(nets.in.size, this->recurrent.count, 4);
    const auto side_by_side = [&](const T* values, int64_t each, T* to) {
      const SequenceView<const T> view{values + nets.first * each, each, 0, 1};
      load_rows(view, 0, each, {0, static_cast<int>(nets.count)}, to);
    };
    side_by_side(whole.capacity, N, this->capacity);
    side_by_side(whole.leak_numerator, N, this->leak_numerator);
    side_by_side(whole.leak_denominator, N, this->leak_denominator);
    const auto map = [&](int m, const T* values, const T*& own) {
      if (values == nullptr) return;
      side_by_side(values, m < 2 ? I : M, maps[m]);
      own = maps[m];
    };
    map(0, whole.input_w, this->input_w);
    map(1, whole.input_b, this->input_b);
    map(2, whole.output_w, this->output_w);
    map(3, whole.output_b, this->output_b);
    for (int64_t m = 0; m < M; ++m) this->motor[m] = static_cast<int32_t>(m);
  }

  void write_gradients(const LtcNetworks<T>& nets, const LtcGradients<T>& grad,
                       const GradientSums<T, LtcSums<T, Lanes::networks>>& sums) const {
    sums.take_up(sums.first.recurrent);
    const auto place_in = [](const auto& list) {
      return [&list](int64_t k) { return list.place[k - list.begin]; };
    };
    for (int64_t lane = 0; lane < nets.count; ++lane) {
      write_ltc_gradients(nets.in, grad, nets.whole, nets.first + lane, sums.first,
                          LaneSums<T>{static_cast<int>(lane)}, place_in(this->recurrent),
                          place_in(this->sensory), scratch);
    }
  }
};

// Each network as a problem of its own. Its lists count neurons and synapses from the network's
// first.
template <typename T>
class LtcOneByOne {
 public:
  explicit LtcOneByOne(const LtcInputs<T>& in)
      : in_(in), lists_([&](Arena& arena) { take(arena); }) {
    const int64_t N = in.size.N / in.nets;
    copy(in.synapses, N, N, synapses_);
    copy(in.sensory_synapses, N, in.size.I / in.nets, sensory_);
  }

  LtcInputs<T> of(int64_t net) const {
    LtcInputs<T> own = networks_from(in_, net);
    move(own.size, net, own.parameters);
    own.synapses = list_of(synapses_, in_.synapses, own.size.N, net);
    own.sensory_synapses = list_of(sensory_, in_.sensory_synapses, own.size.N, net);
    return own;
  }
  LtcGradients<T> of(int64_t net, LtcGradients<T> grad) const {
    move(networks_from(in_, net).size, net, grad);
    return grad;
  }

 private:
  struct Lists {
    int32_t* column = nullptr;  // [networks][N + 1]
    int32_t* row = nullptr;
  };

  void take(Arena& arena) {
    const int64_t N = in_.size.N;
    synapses_ = {arena.take<int32_t>(N + in_.nets), arena.take<int32_t>(in_.synapses.column[N])};
    sensory_ = {arena.take<int32_t>(N + in_.nets),
                arena.take<int32_t>(in_.sensory_synapses.column[N])};
  }
  void copy(const SynapseList& from, int64_t neurons, int64_t rows, const Lists& to) const {
    for (int64_t net = 0; net < in_.nets; ++net) {
      const int32_t* const column = from.column + net * neurons;
      for (int64_t j = 0; j <= neurons; ++j) {
        to.column[net * (neurons + 1) + j] = column[j] - column[0];
      }
      for (int64_t k = column[0]; k < column[neurons]; ++k) {
        to.row[k] = static_cast<int32_t>(from.row[k] - net * rows);
      }
    }
  }
  static SynapseList list_of(const Lists& lists, const SynapseList& whole, int64_t neurons,
                             int64_t net) {
    return {lists.column + net * (neurons + 1), lists.row + whole.column[net * neurons]};
  }
  // From stacked parameters, or their gradients, to those of a network.
  template <typename Pointer>
  static void move(const LayerSizes& size, int64_t net, LtcTensors<Pointer>& tensors) {
    const int64_t sizes[] = {size.N, size.N * size.N, size.I * size.N, size.I, size.M};
    for (const auto& row : kLtcParameters<Pointer>) {
      Pointer& pointer = tensors.*row.pointer;
      if (pointer != nullptr) pointer += net * sizes[static_cast<int>(row.shape)];
    }
  }

  const LtcInputs<T>& in_;
  Lists synapses_, sensory_;
  BlockOf lists_;
};

}  // namespace fastltc::cpu::FASTLTC_ISA
