// LTC over a sequence, one postsynaptic neuron per lane: inference on few samples.
//
// Maths as in cells/ltc.h. One sample fills one lane of that plan; here its neurons fill the
// lanes.
//
// Layout: neurons are dealt to lanes of whole registers, driven ones first (most synapses first, so
// that neighbours have like in-degrees), leaky ones after them; `position` is a neuron's lane. The
// state is one array over positions. A register's synapses stand in slots, [slot][lanes], short
// columns padded with synapses of weight zero. Where a register's neurons fill half of the lanes or
// less, each takes two or four lanes, its synapses are shared out among them, and the partial sums
// are exchanged and added, which leaves the same value in all of its lanes.
//
// Plan: samples one after another, or in parallel on threads; unfolds in sequence. Presynaptic
// values are permuted in registers where eight hold them all, else gathered; slots whose lanes all
// read the same neuron (full wirings) read one value. Bound by the latency of an unfold, 120 to 150
// cycles, until registers have about eight slots.
#pragma once

#include "core/ltc_problem.h"
#include "cpu/cells/ltc_packed.h"
#include "cpu/frame/arena.h"
#include "cpu/frame/simd.h"

namespace fastltc::cpu::FASTLTC_ISA {

// Lanes that a neuron takes at most, and registers that one instruction looks lanes up in.
#if defined(__AVX512F__)
inline constexpr int kMaxSplit = 4, kLookup = 2;
#elif defined(__AVX2__)
inline constexpr int kMaxSplit = 2, kLookup = 1;
#elif defined(FASTLTC_NEON)
inline constexpr int kMaxSplit = 4, kLookup = 4;
#else
inline constexpr int kMaxSplit = 1, kLookup = 1;
#endif
inline constexpr int64_t kMostPermuted = 8;  // registers

// x plus x with its lanes exchanged across halves (and quarters): the sum over `split` parts, in
// each.
template <typename T>
FASTLTC_INLINE typename Simd<T>::vec sum_parts(typename Simd<T>::vec x, int split) {
  using vec [[maybe_unused]] = typename Simd<T>::vec;
#if defined(__AVX512F__)
  if (split >= 2) x += (vec)_mm512_shuffle_f32x4((__m512)x, (__m512)x, 0x4E);
  if (split >= 4) x += (vec)_mm512_shuffle_f32x4((__m512)x, (__m512)x, 0xB1);
#elif defined(__AVX2__)
  if (split >= 2) x += (vec)_mm256_permute2f128_ps((__m256)x, (__m256)x, 1);
#elif defined(FASTLTC_NEON)
  if (split >= 2) x += (vec)vextq_f32((float32x4_t)x, (float32x4_t)x, 2);
  if (split >= 4) x += (vec)vrev64q_f32((float32x4_t)x);
#else
  (void)split;
#endif
  return x;
}

// One lane for each postsynaptic neuron of a register; a slot is one synapse of each.
template <typename T>
struct Slots {
  using S = Simd<T>;
  int32_t* begin = nullptr;        // [registers + 1]: the slots of each register
  T* parameters = nullptr;         // [slot][a, b, we, w][lanes]
  typename S::I* index = nullptr;  // [slot][lanes]: where the presynaptic value stands
  bool* uniform = nullptr;         // [slot]: all lanes read the same value
};

template <typename T>
struct PostLanes {
  using S = Simd<T>;
  static constexpr int L = S::lanes;

  int64_t neurons = 0;
  int64_t registers = 0;
  int64_t driven_registers = 0;
  int32_t* order = nullptr;     // [N] neurons: driven ones by falling in-degree, then leaky ones
  int32_t* position = nullptr;  // [N] first lane of each neuron
  int32_t* split = nullptr;     // [registers] lanes that a neuron takes
  int32_t* bins = nullptr;      // [N + 2] of the sorting
  Slots<T> recurrent;
  Slots<T> sensory;
  const int32_t* motor = nullptr;  // [M] the neuron of each output
  T* capacity = nullptr;           // [registers * L], in the order of positions
  T* leak_numerator = nullptr;
  T* leak_denominator = nullptr;

  static int64_t registers_of(int64_t neurons) { return (neurons + L - 1) / L; }

  // Lanes and slots, from the wiring alone. `counting` finds how much memory that takes; the packed
  // layer's lists of driven and leaky neurons need not be filled for it.
  void take(Arena& arena, const LtcInputs<T>& in) {
    const int64_t N = neurons = in.size.N;
    int64_t driven = 0;
    for (int64_t j = 0; j < N; ++j) driven += in.synapses.column[j + 1] > in.synapses.column[j];
    driven_registers = registers_of(driven);
    registers = driven_registers + registers_of(N - driven);
    order = arena.take<int32_t>(N);
    position = arena.take<int32_t>(N);
    split = arena.take<int32_t>(registers);
    bins = arena.take<int32_t>(N + 2);
    capacity = arena.take<T>(registers * L);
    leak_numerator = arena.take<T>(registers * L);
    leak_denominator = arena.take<T>(registers * L);
    recurrent.begin = arena.take<int32_t>(registers + 1);
    sensory.begin = arena.take<int32_t>(registers + 1);
  }

  // The slots' counts, and how many lanes each neuron takes.
  void deal(const LtcInputs<T>& in) {
    const int64_t N = in.size.N;
    // Counting sort by falling in-degree; leaky neurons, of degree 0, come last but start a
    // register.
    const int32_t* const column = in.synapses.column;
    for (int64_t d = 0; d <= N + 1; ++d) bins[d] = 0;
    for (int64_t j = 0; j < N; ++j) ++bins[N - (column[j + 1] - column[j]) + 1];
    for (int64_t d = 1; d <= N + 1; ++d) bins[d] += bins[d - 1];
    for (int64_t j = 0; j < N; ++j) {
      order[bins[N - (column[j + 1] - column[j])]++] = static_cast<int32_t>(j);
    }
    int64_t next = 0;
    recurrent.begin[0] = sensory.begin[0] = 0;
    for (int64_t q = 0; q < registers; ++q) {
      const bool is_driven = q < driven_registers;
      int64_t count = 0;
      while (next + count < N && count < L &&
             (degree(in.synapses, order[next + count]) > 0) == is_driven) {
        ++count;
      }
      int parts = 1;
      while (parts < kMaxSplit && count * parts * 2 <= L) parts *= 2;
      split[q] = parts;
      int64_t most_recurrent = 0, most_sensory = 0;
      for (int64_t n = 0; n < count; ++n) {
        const int32_t j = order[next + n];
        position[j] = static_cast<int32_t>(q * L + n);
        const int64_t r = degree(in.synapses, j), s = degree(in.sensory_synapses, j);
        if (r > most_recurrent) most_recurrent = r;
        if (s > most_sensory) most_sensory = s;
      }
      recurrent.begin[q + 1] =
          recurrent.begin[q] + static_cast<int32_t>((most_recurrent + parts - 1) / parts);
      sensory.begin[q + 1] =
          sensory.begin[q] + static_cast<int32_t>((most_sensory + parts - 1) / parts);
      next += count;
    }
  }

  static int64_t degree(const SynapseList& list, int64_t j) {
    return list.column[j + 1] - list.column[j];
  }

  // Registers of sigmoids in a step, with what the latency of an unfold costs besides.
  int64_t cost(int64_t unfolds) const {
    constexpr int64_t latency = 8;
    return unfolds * (recurrent.begin[registers] + latency) + sensory.begin[registers] + latency;
  }

  void take_slots(Arena& arena) {
    take_slots(arena, recurrent);
    take_slots(arena, sensory);
  }

  void fill(const LtcInputs<T>& in, const PackedLtc<T>& layer) {
    motor = layer.motor;
    for (int64_t k = 0; k < registers * L; ++k) {
      // Lanes without a neuron hold v = 0.
      capacity[k] = T(1);
      leak_numerator[k] = T(0);
      leak_denominator[k] = T(1);
    }
    for (int64_t j = 0; j < in.size.N; ++j) {
      const int64_t q = position[j] / L;
      for (int part = 0; part < split[q]; ++part) {
        const int64_t at = position[j] + part * (L / split[q]);
        capacity[at] = layer.capacity[j];
        leak_numerator[at] = layer.leak_numerator[j];
        leak_denominator[at] = layer.leak_denominator[j];
      }
    }
    fill_slots(in, recurrent, layer.recurrent, in.synapses, position);
    fill_slots(in, sensory, layer.sensory, in.sensory_synapses, nullptr);
  }

 private:
  void take_slots(Arena& arena, Slots<T>& slots) const {
    const int64_t count = slots.begin[registers];
    slots.parameters = arena.take<T>(count * 4 * L);
    slots.index = arena.take<typename S::I>(count * L);
    slots.uniform = arena.take<bool>(count);
  }

  void fill_slots(const LtcInputs<T>& in, Slots<T>& slots, const Synapses<T>& list,
                  const SynapseList& wiring, const int32_t* place) {
    const int64_t count = slots.begin[registers];
    for (int64_t k = 0; k < count * 4 * L; ++k) slots.parameters[k] = T(0);
    for (int64_t k = 0; k < count * L; ++k) slots.index[k] = -1;
    for (int64_t j = 0; j < in.size.N; ++j) {
      const int64_t q = position[j] / L;
      // One, two or four lanes: no division for each synapse.
      const int64_t parts = split[q], shift = parts >> 1, distance = L >> shift;
      const int64_t first_slot = slots.begin[q], first_lane = position[j] % L;
      for (int64_t k = wiring.column[j]; k < wiring.column[j + 1]; ++k) {
        const int64_t nth = k - wiring.column[j];
        const int64_t slot = first_slot + (nth >> shift);
        const int64_t lane = first_lane + (nth & (parts - 1)) * distance;
        T* const at = slots.parameters + slot * 4 * L + lane;
        at[0] = list.parameters[k].a;
        at[L] = list.parameters[k].b;
        at[2 * L] = list.parameters[k].we;
        at[3 * L] = list.parameters[k].w;
        slots.index[slot * L + lane] = place == nullptr ? wiring.row[k] : place[wiring.row[k]];
      }
    }
    for (int64_t slot = 0; slot < count; ++slot) {
      // Padding reads what one of the slot's synapses reads, so that full slots stay uniform.
      typename S::I* const index = slots.index + slot * L;
      typename S::I one = 0;
      for (int l = 0; l < L; ++l) one = index[l] > one ? index[l] : one;
      int different = 0;
      for (int l = 0; l < L; ++l) {
        index[l] = index[l] < 0 ? one : index[l];
        different |= index[l] != one;
      }
      slots.uniform[slot] = different == 0;
    }
  }
};

// Reads any lanes of an array.
template <typename T>
struct Gather {
  using S = Simd<T>;
  const T* source;

  FASTLTC_INLINE explicit Gather(const T* values) : source(values) {}
  FASTLTC_INLINE typename S::vec operator()(const Slots<T>& slots, int64_t slot) const {
    const typename S::I* const index = slots.index + slot * S::lanes;
    if (slots.uniform[slot]) return S::set(source[index[0]]);
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      return (typename S::vec)_mm512_i32gather_ps(_mm512_loadu_si512(index), source, 4);
    } else {
      return (typename S::vec)_mm512_i64gather_pd(_mm512_loadu_si512(index), source, 8);
    }
#else
    typename S::vec v;
    for (int l = 0; l < S::lanes; ++l) v[l] = source[index[l]];
    return v;
#endif
  }
};

// The same for arrays of at most R registers, a multiple of kLookup, without memory.
template <typename T, int R>
struct Permute {
  using S = Simd<T>;
  static constexpr bool available = kLookup > 1 && sizeof(T) == 4 && R <= kMostPermuted;
#if defined(FASTLTC_NEON)
  // Four registers as one value: put together of four, GCC would do so by memory for each lookup.
  uint8x16x4_t table[R / kLookup];

  FASTLTC_INLINE explicit Permute(const T* values) {
    for (int k = 0; k < R / kLookup; ++k) {
      table[k] = vld1q_u8_x4((const uint8_t*)(values + k * kLookup * S::lanes));
    }
  }
#else
  typename S::vec part[R];

  FASTLTC_INLINE explicit Permute(const T* values) {
    for (int r = 0; r < R; ++r) part[r] = S::load(values + r * S::lanes);
  }
#endif
  FASTLTC_INLINE typename S::vec operator()([[maybe_unused]] const Slots<T>& slots,
                                            [[maybe_unused]] int64_t slot) const {
#if defined(__AVX512F__)
    const __m512i index = _mm512_loadu_si512(slots.index + slot * S::lanes);
    __m512 found = _mm512_permutex2var_ps((__m512)part[0], index, (__m512)part[1]);
    if constexpr (R > 2) {
      // An instruction reads two registers, by the low bits of the index; the rest is which two.
      const __m512i pair = _mm512_srli_epi32(index, 5);
#pragma GCC unroll 3
      for (int p = 1; p < R / 2; ++p) {
        const __m512 here =
            _mm512_permutex2var_ps((__m512)part[2 * p], index, (__m512)part[2 * p + 1]);
        found =
            _mm512_mask_mov_ps(found, _mm512_cmpeq_epi32_mask(pair, _mm512_set1_epi32(p)), here);
      }
    }
    return (typename S::vec)found;
#elif defined(FASTLTC_NEON)
    // The four bytes of lane l are those at 4 l, 4 l + 1 and so on; what lies past the 64 of a
    // table leaves zeros in the first lookup and in the others what was found before.
    const uint32x4_t lane = vld1q_u32((const uint32_t*)slots.index + slot * S::lanes);
    const uint8x16_t byte = (uint8x16_t)vmlaq_n_u32(vdupq_n_u32(0x03020100), lane, 0x04040404);
    uint8x16_t found = vqtbl4q_u8(table[0], byte);
#pragma GCC unroll 2
    for (int k = 1; k < R / kLookup; ++k) {
      found = vqtbx4q_u8(found, table[k], vsubq_u8(byte, vdupq_n_u8(k * kLookup * 16)));
    }
    return (typename S::vec)found;
#else
    return part[0];
#endif
  }
};

// Registers of an array of so many values, a multiple of kLookup where they are permuted.
template <typename T>
FASTLTC_INLINE int64_t padded_registers(int64_t values) {
  const int64_t registers = (values + Simd<T>::lanes - 1) / Simd<T>::lanes;
  return registers <= kMostPermuted ? (registers + kLookup - 1) / kLookup * kLookup : registers;
}

// Calls run(source) with the quickest way to read an array of so many registers.
template <typename T, int R = kLookup, typename Run>
FASTLTC_INLINE void with_source(const T* values, int64_t registers, Run run) {
  if constexpr (Permute<T, R>::available) {
    if (registers <= R) return run(Permute<T, R>(values));
    return with_source<T, R + kLookup>(values, registers, run);
  }
  run(Gather<T>(values));
}

// One sample's time step: buffers, sensory sums and unfolds.
template <typename T>
struct PostLanesStep {
  using S = Simd<T>;
  using vec = typename S::vec;
  static constexpr int L = S::lanes;

  const PostLanes<T>& lanes;
  int64_t inputs;
  T* u = nullptr;    // [I], padded
  T* dt = nullptr;   // [registers * L]
  T* num = nullptr;  // [registers * L]; leaky: v' = num + den v
  T* den = nullptr;

  PostLanesStep(const PostLanes<T>& l, int64_t input_count) : lanes(l), inputs(input_count) {}

  // Values of a state, padded.
  static int64_t state_width(const PostLanes<T>& lanes) {
    return padded_registers<T>(lanes.registers * L) * L;
  }
  void take(Arena& arena) {
    const int64_t width = lanes.registers * L;
    u = arena.take<T>(padded_registers<T>(inputs) * L);
    dt = arena.take<T>(width);
    num = arena.take<T>(width);
    den = arena.take<T>(width);
  }

  template <typename Source>
  FASTLTC_INLINE void sum(const Slots<T>& slots, int64_t q, const Source& source, vec& n,
                          vec& d) const {
    const auto add = [&](int64_t slot, vec& num, vec& den) {
      const T* const p = slots.parameters + slot * 4 * L;
      const vec s = S::synapse_sigmoid(source(slots, slot) * S::load(p) + S::load(p + L));
      num += s * S::load(p + 2 * L);
      den += s * S::load(p + 3 * L);
    };
    // Two chains of additions: one would be as long as the slots' sigmoids.
    vec n0{}, n1{}, d0{}, d1{};
    int64_t k = slots.begin[q];
    const int64_t end = slots.begin[q + 1];
    for (; k + 1 < end; k += 2) {
      add(k, n0, d0);
      add(k + 1, n1, d1);
    }
    if (k < end) add(k, n0, d0);
    n = sum_parts<T>(n0 + n1, lanes.split[q]);
    d = sum_parts<T>(d0 + d1, lanes.split[q]);
  }

  template <typename Source>
  void sensory_sums_from(const Source& source) {
    for (int64_t q = 0; q < lanes.registers; ++q) {
      vec n, d;
      sum(lanes.sensory, q, source, n, d);
      n += S::load(lanes.leak_numerator + q * L);
      d += S::load(lanes.leak_denominator + q * L);
      if (q >= lanes.driven_registers) {
        const vec step = S::load(dt + q * L), capacity = S::load(lanes.capacity + q * L);
        const vec rate = T(1) / (d * step + capacity);
        n = n * step * rate;
        d = rate * capacity;
      }
      S::store(num + q * L, n);
      S::store(den + q * L, d);
    }
  }

  template <typename Source>
  void unfold(const Source& source, const T* from, T* to) const {
    for (int64_t q = 0; q < lanes.driven_registers; ++q) {
      vec n, d;
      sum(lanes.recurrent, q, source, n, d);
      n += S::load(num + q * L);
      d += S::load(den + q * L);
      const vec step = S::load(dt + q * L), capacity = S::load(lanes.capacity + q * L);
      S::store(to + q * L, (S::load(from + q * L) * capacity + n * step) / (d * step + capacity));
    }
    for (int64_t q = lanes.driven_registers; q < lanes.registers; ++q) {
      S::store(to + q * L, S::load(from + q * L) * S::load(den + q * L) + S::load(num + q * L));
    }
  }

  void sensory_sums() {
    with_source(u, padded_registers<T>(inputs),
                [&](const auto& source) { sensory_sums_from(source); });
  }

  // Runs the unfolds from v, which ends in one of the two buffers: the one returned.
  T* solve(T* v, T* other, int64_t unfolds) const {
    const int64_t registers = padded_registers<T>(lanes.registers * L);
    for (int64_t k = 0; k < unfolds; ++k) {
      with_source(v, registers, [&](const auto& source) { unfold(source, v, other); });
      T* const last = v;
      v = other;
      other = last;
    }
    return v;
  }

  // Values of the neurons into their lanes.
  void spread(const T* values, int64_t stride, T* to) const {
    const int64_t N = lanes.neurons;
    for (int64_t j = 0; j < N; ++j) {
      const int parts = lanes.split[lanes.position[j] / L];
      for (int part = 0; part < parts; ++part) {
        to[lanes.position[j] + part * (L / parts)] = values[j * stride];
      }
    }
  }
};

template <typename T>
struct PostLanesForward {
  static constexpr int L = Simd<T>::lanes;

  const LtcInputs<T>& in;
  const LtcOutputs<T>& out;
  const PostLanes<T>& lanes;
  PostLanesStep<T> step;
  T* ping = nullptr;  // a state, padded
  T* pong = nullptr;

  PostLanesForward(const LtcInputs<T>& inputs, const LtcOutputs<T>& outputs, const PostLanes<T>& l,
                   Arena& arena)
      : in(inputs), out(outputs), lanes(l), step(l, inputs.size.I) {
    step.take(arena);
    ping = arena.take<T>(step.state_width(lanes));
    pong = arena.take<T>(step.state_width(lanes));
  }

  void load_inputs(int64_t b, int64_t t) {
    const LtcParameters<T>& p = in.parameters;
    const T* const x = in.x.data + b * in.x.stride_b + t * in.x.stride_t;
    for (int64_t i = 0; i < in.size.I; ++i) {
      T value = x[i * in.x.stride_c];
      if (p.input_w != nullptr) value *= p.input_w[i];
      if (p.input_b != nullptr) value += p.input_b[i];
      step.u[i] = value;
    }
    for (int64_t k = 0; k < in.size.I; k += L) {
      Simd<T>::store(step.u + k, bounded_input<T>(Simd<T>::load(step.u + k)));
    }
    if (in.timespans.data == nullptr) return;
    const T* const dt = in.timespans.data + b * in.timespans.stride_b + t * in.timespans.stride_t;
    if (!in.timespans_per_neuron) {
      for (int64_t k = 0; k < lanes.registers * L; ++k) step.dt[k] = dt[0];
    } else {
      step.spread(dt, in.timespans.stride_c, step.dt);
    }
    for (int64_t k = 0; k < lanes.registers * L; k += L) {
      const auto given = Simd<T>::load(step.dt + k);
      Simd<T>::store(step.dt + k, Simd<T>::at_most(given, kLongestStep<T>));
    }
  }

  void write_output(const T* v, int64_t b, int64_t t) const {
    const LtcParameters<T>& p = in.parameters;
    T* const y = out.output.data + b * out.output.stride_b + t * out.output.stride_t;
    for (int64_t m = 0; m < in.size.M; ++m) {
      T value = v[lanes.position[lanes.motor[m]]];
      if (p.output_w != nullptr) value *= p.output_w[m];
      if (p.output_b != nullptr) value += p.output_b[m];
      y[m * out.output.stride_c] = value;
    }
  }

  // From a state as h0. Lanes without a neuron have 0.
  void begin(int64_t b, const SequenceView<const T>& state, T* v) const {
    for (int64_t k = 0; k < lanes.registers * L; ++k) v[k] = T(0);
    if (state.data != nullptr) step.spread(state.data + b * state.stride_b, state.stride_c, v);
  }

  void run(int64_t b) {
    const int64_t N = in.size.N;
    const int64_t width = lanes.registers * L;
    const int64_t steps = in.lengths == nullptr ? in.size.T : in.lengths[b * in.lengths_stride];
    for (int64_t k = 0; k < step.state_width(lanes); ++k) ping[k] = pong[k] = T(0);
    for (int64_t k = 0; k < width; ++k) step.dt[k] = T(1);
    for (int64_t k = in.size.I; k < padded_registers<T>(in.size.I) * L; ++k) step.u[k] = T(0);
    T* v = ping;
    begin(b, in.h0, v);
    for (int64_t t = 0; t < steps; ++t) {
      if (in.resets.data != nullptr &&
          in.resets.data[b * in.resets.stride_b + t * in.resets.stride_t]) {
        begin(b, in.reset_state(), v);
      }
      load_inputs(b, t);
      step.sensory_sums();
      v = step.solve(v, v == ping ? pong : ping, in.size.U);
      if (out.return_sequences) write_output(v, b, t);
    }
    for (int64_t j = 0; j < N; ++j) out.hn[b * in.beside * N + j] = v[lanes.position[j]];
    if (!out.return_sequences) {
      write_output(v, b, 0);
      return;
    }
    for (int64_t t = steps; t < in.size.T; ++t) {
      T* const y = out.output.data + b * out.output.stride_b + t * out.output.stride_t;
      for (int64_t m = 0; m < in.size.M; ++m) y[m * out.output.stride_c] = T(0);
    }
  }
};

}  // namespace fastltc::cpu::FASTLTC_ISA
