"""The integer C99 that `int_source` puts together: shared functions, and layers.

Numbers are fixed-point: Qb is an integer times 2^-b. Products of two stay within 32 bits but where
a sum is scaled, once a neuron. Negative numbers are shifted to the right as all compilers for these
machines do it, with their sign.
"""

from __future__ import annotations

from string import Template

# Types and functions that layers share, a blank line between two. Each needs earlier ones only.
SHARED = """\
/* How a sum of products becomes a value: (sum + bias) multiplier 2^-shift. */
typedef struct {
    int32_t bias;
    int32_t multiplier;
    int8_t shift;
} row;

/* A time step: mantissa 2^exponent, the mantissa of 16 bits. */
typedef struct {
    uint32_t mantissa;
    int exponent;
} span;

static int32_t clamped(int64_t x, int32_t most)
{
    return x > most ? most : x < -most ? -most : (int32_t)x;
}

/* x multiplier 2^-shift, rounded; shift is 1 to 62. */
static int64_t product(int32_t x, int32_t multiplier, int shift)
{
    return ((int64_t)x * multiplier + ((int64_t)1 << (shift - 1))) >> shift;
}

/* x 2^-shift, of a shift to either side that keeps it within 63 bits. */
static int64_t shifted(int64_t x, int shift)
{
    if (shift > 62) {
        return 0;
    }
    return shift > 0 ? (x + ((int64_t)1 << (shift - 1))) >> shift : x * ((int64_t)1 << -shift);
}

static int32_t value(int32_t sum, const row *r, int32_t most)
{
    return clamped(product(sum, r->multiplier, r->shift), most);
}

static int leading_zeros(uint32_t x)
{
    int count = 0, step;
    for (step = 16; step > 0; step >>= 1) {
        if (!(x >> (32 - step))) {
            count += step;
            x <<= step;
        }
    }
    return count;
}

static span span_of(uint32_t dt)
{
    const int lead = leading_zeros(dt);
    span s;
    s.mantissa = (dt << lead) >> 16;
    s.exponent = 16 - lead;
    return s;
}

/* A function at x >= 0 in Q16, below 12, by straight lines between the values of a table: Q15. */
static int32_t look_up(const uint16_t *table, int32_t x)
{
    const int32_t place = x > END ? END : x;
    const int32_t low = table[place >> 12];
    return low + ((((int32_t)table[(place >> 12) + 1] - low) * (place & 4095) + 2048) >> 12);
}

/* Of x in Q16: Q15, 0 to 32768. */
static int32_t sigmoid(int32_t x)
{
    return x < 0 ? 32768 - look_up(sigmoid_table, -x) : look_up(sigmoid_table, x);
}

/* Of x in Q16, clamped to END: Q15, -32767 to 32767. */
static int32_t hyptan(int32_t x)
{
    return clamped(2 * sigmoid(2 * x) - 32768, 32767);
}

/* The normal distribution function of x in Q16: Q15. */
static int32_t normal(int32_t x)
{
    return x < 0 ? 32768 - look_up(normal_table, -x) : look_up(normal_table, x);
}

/* exp(-x) of x >= 0 in Q16: Q15. */
static int32_t decay(int32_t x)
{
    return look_up(decay_table, x);
}

/* A rate in Q16 times a time step: Q16. */
static int32_t over_time(int32_t rate, span dt)
{
    return clamped(shifted((int64_t)rate * (int32_t)dt.mantissa, DT_BITS - dt.exponent), END);
}

typedef struct {
    int32_t leak;         /* conductance, Q15 of the neuron's scale, as the sums are */
    int32_t leak_current;
    int32_t current_multiplier;
    uint16_t capacitance; /* times the number of unfolds: a mantissa, and its exponent */
    int16_t capacitance_exponent;
    int8_t current_shift;
    int8_t conductance_shift;
    int8_t recurrent_shift;
    int8_t sensory_shift;
} neuron;

typedef struct {
    int16_t offset; /* in units of 256 products */
    int8_t slope;
    int8_t conductance;
    int8_t current; /* conductance times reversal potential */
    index_type from;
} synapse8;

typedef struct {
    int32_t offset;
    int16_t slope;
    int16_t conductance;
    int16_t current; /* conductance times reversal potential */
    uint16_t from;
} synapse16;

/*
 * A solver step of a potential: v + dt (I - G v) / (C + dt G). Conductances have 14 bits, and the
 * quotient dt / (C + dt G) a mantissa of 16 and an exponent, so that no time step is too small.
 */
static int32_t moved(int32_t v, int32_t current, int32_t conductance, const neuron *n, span dt)
{
    const int32_t g = conductance >> n->conductance_shift;
    const int32_t force =
        clamped(product(current, n->current_multiplier, n->current_shift), 1 << 29) - g * (v >> 16);
    const int place = n->capacitance_exponent - dt.exponent;
    const int excess = place > 14 ? place - 14 : 0;
    uint32_t low = dt.mantissa * (uint32_t)g;
    uint32_t high = n->capacitance;
    uint32_t quotient;
    int lead;
    low = excess > 31 ? 0 : low >> excess;
    high = place > 14 ? high << 14 : place >= 0 ? high << place : place < -31 ? 0 : high >> -place;
    high += low;
    if (high == 0) {
        return v;
    }
    lead = leading_zeros(high);
    quotient = (dt.mantissa << 15) / ((high << lead) >> 16);
    return clamped(v + shifted((int64_t)force * (int32_t)quotient, 15 + excess - lead),
                   32767 * 65536);
}

/* c, with so many bits, and h of a memory cell, of gates in Q12. */
static int16_t remember(const int16_t *gates, size_t neurons, int32_t *c, int c_bits, int h_bits)
{
    const int64_t kept = (int64_t)*c * sigmoid(16 * gates[2 * neurons]) >> 15;
    const int32_t written = hyptan(16 * gates[0]) * sigmoid(16 * gates[neurons]);
    const int32_t open = sigmoid(16 * gates[3 * neurons]);
    *c = clamped(kept + shifted(written, 30 - c_bits), 2147483647);
    return (int16_t)clamped(
        (int64_t)hyptan(clamped(shifted(*c, c_bits - 16), END)) * open >> (30 - h_bits), 32767);
}

/* y may be x; bits: those of x. */
static void softmax_of(const int16_t *x, int16_t *y, size_t size, int bits)
{
    int32_t largest = x[0], sum = 0;
    size_t i;
    for (i = 1; i < size; ++i) {
        largest = x[i] > largest ? x[i] : largest;
    }
    for (i = 0; i < size; ++i) {
        const int32_t below = clamped(shifted(largest - x[i], bits - 16), END);
        y[i] = (int16_t)clamped(decay(below), 32767);
        sum += y[i];
    }
    for (i = 0; i < size; ++i) {
        y[i] = (int16_t)clamped(((int32_t)y[i] * 32768 + sum / 2) / sum, 32767);
    }
}
"""

DENSE = Template("""\
static void dense$bits(const int${bits}_t *w, const row *r, const int16_t *x, int16_t *y,
                   size_t inputs, size_t outputs)
{
    size_t i, j;
    for (j = 0; j < outputs; ++j) {
        int32_t sum = r[j].bias;
        for (i = 0; i < inputs; ++i) {
            sum += w[i] * x[i];
        }
        w += inputs;
        y[j] = (int16_t)value(sum, &r[j], 32767);
    }
}""")

EACH = Template("""\
/* y may be x; bits: those of x. */
static void ${name}_of(const int16_t *x, int16_t *y, size_t size, int bits)
{
    size_t i;
    (void)bits;
    for (i = 0; i < size; ++i) {
        y[i] = (int16_t)$expression;
    }
}""")

# Of x[i] with so many bits. tanh and sigmoid give Q15, LeCun's tanh Q14, softplus one bit less
# than x but at most Q14, the others what x has.
ACTIVATIONS = {
    "relu": "(x[i] > 0 ? x[i] : 0)",
    "tanh": "hyptan(clamped(shifted(x[i], bits - 16), END))",
    "sigmoid": "clamped(sigmoid(clamped(shifted(x[i], bits - 16), END)), 32767)",
    "silu": "(x[i] * sigmoid(clamped(shifted(x[i], bits - 16), END)) / 32768)",
    "gelu": "(x[i] * normal(clamped(shifted(x[i], bits - 16), END)) / 32768)",
    # 0.666 is 21823 / 32768, and 1.7159 in Q14 is 28113.
    "lecun_tanh": "(hyptan(clamped(shifted((int64_t)x[i] * 21823, bits - 1), END)) * 28113"
    " / 32768)",
    "softplus": "clamped(((x[i] > 0 ? x[i] : 0) + shifted(look_up(softplus_table, "
    "clamped(shifted(x[i] < 0 ? -(int32_t)x[i] : x[i], bits - 16), END)), 15 - bits))"
    " >> (bits < 15 ? 1 : bits - 14), 32767)",
}

HEADER = Template("""\
/*
 * $facts
 *
 * Integers alone: weights of $widths with a scale for each neuron, values of 16, sums of 32.
 *
 *     static ${name}_state state;
 *     int16_t output[${upper}_OUTPUT_SIZE];
 *     ${name}_reset(&state);
 *     for (;;) {
 *         ... wait for the next observation, dt $unit after the last ...
 *         ${name}_step(&state, input, dt, output);
 *     }
 *
 * An input i is the reading times 2^b, b the i-th of ${upper}_INPUT_BITS; dt is the time times
 * 2^${upper}_DT_BITS; an output is the integer times 2^-${upper}_OUTPUT_BITS. Every integer is
 * allowed: readings past the range of 16 bits have to be clamped to it. With ${upper}_WITH_FLOAT
 * defined before, ${name}_step_float does all of this for floats.
 *
 * C99. Nothing is allocated, and no function of the C library is called but memcpy and memset. One
 * state per stream; a state is used by one thread at a time.
 */
#ifndef ${upper}_H
#define ${upper}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ${upper}_INPUT_SIZE $inputs
#define ${upper}_OUTPUT_SIZE $outputs
#define ${upper}_INPUT_BITS $input_bits
#define ${upper}_OUTPUT_BITS $output_bits
#define ${upper}_DT_BITS $dt_bits
#define ${upper}_TIME_UNIT $time_unit /* seconds that one unit of time is */
$names
/* What a stream carries from step to step. */
typedef struct {
$members
} ${name}_state;

/* Sets the state of a stream to zeros, where every sequence starts. */
void ${name}_reset(${name}_state *state);

/* Takes one observation; input: $inputs, output: $outputs integers, which may not overlap it. */
void ${name}_step(${name}_state *state, const int16_t *input, uint32_t dt, int16_t *output);

#ifdef ${upper}_WITH_FLOAT
#define ${upper}_OK 0
#define ${upper}_BAD_INPUT 1 /* an input is NaN or infinite */
#define ${upper}_BAD_DT 2    /* the time step is negative, NaN or infinite */

/* The same of floats, with dt in $unit; with any other result than OK nothing has changed. */
static inline int ${name}_step_float(${name}_state *state, const float *input, float dt,
                                     float *output)
{
    static const float ones[] = $input_ones;
    int16_t x[$inputs], y[$outputs];
    int i;
    if (!(dt >= 0.0f && dt - dt == 0.0f)) {
        return ${upper}_BAD_DT;
    }
    for (i = 0; i < $inputs; ++i) {
        const float scaled = input[i] * ones[i];
        if (!(input[i] - input[i] == 0.0f)) {
            return ${upper}_BAD_INPUT;
        }
        x[i] = (int16_t)(scaled > 32767.0f ? 32767.0f : scaled < -32767.0f ? -32767.0f
            : scaled < 0.0f ? scaled - 0.5f : scaled + 0.5f);
    }
    dt *= $dt_one;
    ${name}_step(state, x, dt < 4294967040.0f ? (uint32_t)(dt + 0.5f) : 4294967295u, y);
    for (i = 0; i < $outputs; ++i) {
        output[i] = (float)y[i] * $output_unit;
    }
    return ${upper}_OK;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
""")

SOURCE = Template("""\
/*
 * $facts
 *
 * See ${name}.h on how to call it.
 */
#include "${name}.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define DT_BITS ($dt_bits)
#define END 786431 /* just below 12 in Q16, where tables end */
typedef $index index_type;

$tables$helpers
$layers
void ${name}_reset(${name}_state *state)
{
    memset(state, 0, sizeof *state);
}

void ${name}_step(${name}_state *state, const int16_t *input, uint32_t dt, int16_t *output)
{
$buffers    const span elapsed = span_of(dt);
$calls
}
""")

LSTM = Template("""\
/* x: $inputs inputs. h, c: $neurons each, changed. */
static void ${name}_lstm(const int16_t *x, int16_t *h, int32_t *c)
{
    int16_t z[$width], gates[4 * $neurons];
    size_t j;
    memcpy(z, x, $inputs * sizeof *z);
    memcpy(z + $inputs, h, $neurons * sizeof *z);
    dense$bits(${name}_lstm_weight, ${name}_lstm_rows, z, gates, $width, 4 * $neurons);
    for (j = 0; j < $neurons; ++j) {
        h[j] = remember(gates + j, $neurons, &c[j], $c_bits, $h_bits);
    }
}
""")

SYNAPSE_LOOP = Template("""\
for (; s < ${name}_${of}_ends[j]; ++s) {
    const synapse$bits *q = &${name}_$of[s];
    const int32_t open = sigmoid(
        ((q->slope * ($source) + q->offset * $step) * $finer) >> n->${of}_shift);
    sum_current += q->current * open;
    sum_conductance += q->conductance * open;
}
""")

LTC = Template("""\
/* x: $inputs inputs. v: $neurons membrane potentials, changed. y: $motors outputs. */
static void $name(const int16_t *x, span dt, int32_t *v$c, int16_t *y)
{
    int32_t current[$neurons], conductance[$neurons], next[$neurons];
    size_t j, unfold$s;
$memory$start_sensory    for (j = 0; j < $neurons; ++j) {
        const neuron *n = &${name}_neurons[j];
        int32_t sum_current = n->leak_current, sum_conductance = n->leak;
$sensory        current[j] = sum_current;
        conductance[j] = sum_conductance;
    }
    /* A time step of 0 holds the potentials. */
    for (unfold = 0; dt.mantissa > 0 && unfold < $unfolds; ++unfold) {
$start_recurrent        for (j = 0; j < $neurons; ++j) {
            const neuron *n = &${name}_neurons[j];
            int32_t sum_current = current[j], sum_conductance = conductance[j];
$recurrent            next[j] = moved(v[j], sum_current, sum_conductance, n, dt);
        }
        memcpy(v, next, sizeof next);
    }
    for (j = 0; j < $motors; ++j) {
        const row *r = &${name}_output[j]; /* its bias is that of the output */
        y[j] = (int16_t)clamped(product(v[j] >> 16, r->multiplier, r->shift) + r->bias, 32767);
    }
}
""")

# The memory cell of an LTC reads and writes its potentials.
LTC_MEMORY = Template("""\
    {
        int16_t h[$neurons];
        for (j = 0; j < $neurons; ++j) {
            h[j] = (int16_t)(v[j] >> 16);
        }
        ${name}_lstm(x, h, c);
        for (j = 0; j < $neurons; ++j) {
            v[j] = (int32_t)h[j] * 65536;
        }
    }
""")

CELL = Template("""\
/* x: $inputs inputs. h: $size neurons, changed. */
static void $function(const int16_t *x, span dt, int16_t *h)
{
    int16_t z[$all]$buffers;
$weight    size_t j$counters;
    memcpy(z, x, $inputs * sizeof *z);
    memcpy(z + $inputs, h, $size * sizeof *z);
$before    for (j = 0; j < $size; ++j) {
$neuron    }
}
""")

GATED = Template("""\
const row *r = &${prefix}_rows[4 * j];
int32_t f1 = r[0].bias, f2 = r[1].bias, a = r[2].bias, b = r[3].bias, open;
${loop}f1 = hyptan(value(f1, &r[0], END));
f2 = hyptan(value(f2, &r[1], END));
open = sigmoid(clamped((int64_t)over_time(value(a, &r[2], 2147483647), dt)
    + value(b, &r[3], 1 << 30), END));
h[j] = (int16_t)clamped($blend, 32767);
""")

PURE = Template("""\
const row *r = &${prefix}_rows[j];
int32_t f = r->bias, size, fading;
${loop}f = value(f, r, 1 << 30);
size = f < 0 ? -f : f;
fading = decay(over_time(clamped((int64_t)${prefix}_rate[j] + size, 2147483647), dt));
f = clamped((int64_t)f * fading >> 15, 1 << 30);
h[j] = (int16_t)clamped(
    shifted((int64_t)${prefix}_a[j] * (65536 - (int64_t)f), 32 - ($h_bits)), 32767);
""")

CFC = Template("""\
static void $name(const int16_t *x, span dt, int16_t *h$c, int16_t *y)
{
$memory$calls
    $output
}
""")
