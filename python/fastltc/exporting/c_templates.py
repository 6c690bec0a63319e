"""The C99 that `c_source` puts together: functions that several layers share, and layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import Template

# Types and functions that layers share, a blank line between two. Each needs earlier ones only.
# gelu: erfc(s) exp(s^2) = t P(t), t = 1 / (1 + 0.34 s), by a weighted least-squares fit for s >= 0.
_SHARED = """\
typedef struct {
    float capacitance;  /* times the number of unfolds */
    float leak;         /* conductance, epsilon included */
    float leak_current; /* conductance times potential */
} neuron;

typedef struct {
    float slope;
    float midpoint;
    float conductance;
    float current; /* conductance times reversal potential */
} synapse;

typedef struct {
    float ff1;
    float ff2;
} synapse_pair;

typedef struct {
    float a;
    float b;
} clock_weight;

typedef struct {
    float ff1;
    float ff2;
    float time_a;
    float time_b;
} heads;

static float absolute(float x)
{
    return x < 0.0f ? -x : x;
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* tanh. Near 0 by its series, where 1 - z would cancel. */
static float hyptan(float x)
{
    const float size = absolute(x);
    if (size < 0.2f) {
        const float q = x * x;
        return x * (1.0f - q * (0.333333333f - q * (0.133333333f - q * 0.0539682540f)));
    } else {
        const float z = expf(-2.0f * size);
        const float y = (1.0f - z) / (1.0f + z);
        return x < 0.0f ? -y : y;
    }
}

/* x times the normal distribution function, by a fit of erfc(s) exp(s^2) to 1e-9. */
static float gelu(float x)
{
    const float s = 0.707106781f * absolute(x);
    const float t = 1.0f / (1.0f + 0.34f * s);
    const float fit =\x20
        0.18027708f + t * (0.30400592f + t * (-0.28250377f + t * \
(1.20494428f + t * (-1.2448492f + t * (1.08442613f + t * (-0.24630045f))))));
    const float tail = 0.5f * x * expf(-s * s) * t * fit;
    return x < 0.0f ? tail : x - tail;
}

/* log(1 + exp(x)), the logarithm by the series of 2 atanh(s), s at most 1/3. */
static float softplus(float x)
{
    const float z = expf(-absolute(x));
    const float s = z / (2.0f + z);
    const float q = s * s;
    const float series =
        1.0f + q * (0.333333333f + q * (0.2f + q * (0.142857143f + q * (0.111111111f
        + q * (0.0909090909f + q * 0.0769230769f)))));
    return (x > 0.0f ? x : 0.0f) + 2.0f * s * series;
}

/* y = weight x + bias; bias may be NULL, y may not overlap x. */
static void dense(const float *weight, const float *bias, const float *x, float *y,
                  size_t inputs, size_t outputs)
{
    size_t i, j;
    for (j = 0; j < outputs; ++j) {
        float sum = bias ? bias[j] : 0.0f;
        for (i = 0; i < inputs; ++i) {
            sum += weight[i] * x[i];
        }
        weight += inputs;
        y[j] = sum;
    }
}

/* y may be x. */
static void softmax_of(const float *x, float *y, size_t size)
{
    float largest = x[0], sum = 0.0f;
    size_t i;
    for (i = 1; i < size; ++i) {
        largest = x[i] > largest ? x[i] : largest;
    }
    for (i = 0; i < size; ++i) {
        y[i] = expf(x[i] - largest);
        sum += y[i];
    }
    for (i = 0; i < size; ++i) {
        y[i] /= sum;
    }
}
"""

_EACH = Template("""\
/* y may be x. */
static void ${name}_of(const float *x, float *y, size_t size)
{
    size_t i;
    for (i = 0; i < size; ++i) {
        y[i] = $expression;
    }
}""")

_ACTIVATIONS = {
    "relu": "x[i] <= 0.0f ? 0.0f : x[i]",
    "tanh": "hyptan(x[i])",
    "sigmoid": "sigmoid(x[i])",
    "silu": "x[i] * sigmoid(x[i])",
    "gelu": "gelu(x[i])",
    "lecun_tanh": "1.7159f * hyptan(0.666f * x[i])",
    "softplus": "softplus(x[i])",
}


def helpers_of(code: str) -> str:
    """Return the shared types and functions that code uses, with those that they use."""
    *texts, softmax = _SHARED.rstrip().split("\n\n")
    texts += [_EACH.substitute(name=n, expression=e) for n, e in _ACTIVATIONS.items()]
    return used_by(code, [*texts, softmax])


def used_by(code: str, texts: Sequence[str]) -> str:
    """Return those of some types and functions that code uses, with those that they use.

    Each may use earlier ones only.
    """
    found: list[str] = []
    for text in reversed(texts):
        defined = re.search(r"^static \w+ (\w+)\(|^} (\w+);", text, re.MULTILINE)
        assert defined is not None
        if re.search(rf"\b{defined[1] or defined[2]}\b", re.sub(r"/\*.*?\*/", "", code)):
            code += f"\n{text}"
            found.insert(0, f"{text}\n")
    return "\n".join(found)


HEADER = Template("""\
/*
 * $facts
 *
 *     static ${name}_state state;
 *     float output[${upper}_OUTPUT_SIZE];
 *     ${name}_reset(&state);
 *     for (;;) {
 *         ... wait for the next observation, dt $unit after the last ...
 *         if (${name}_step(&state, input, dt, output) == ${upper}_OK) {
 *             ... use output ...
 *         }
 *     }
 *
 * C99. Nothing is allocated; of libm only expf is called. One state per stream; a state is used by
 * one thread at a time. Compile without -ffast-math, which removes the checks for NaN.
 */
#ifndef ${upper}_H
#define ${upper}_H

#ifdef __cplusplus
extern "C" {
#endif

#define ${upper}_INPUT_SIZE $inputs
#define ${upper}_OUTPUT_SIZE $outputs
#define ${upper}_STATE_SIZE $floats
#define ${upper}_TIME_UNIT $time_unit /* seconds that one unit of dt is */
$names
#define ${upper}_OK 0
#define ${upper}_BAD_INPUT 1 /* an input is NaN or infinite */
#define ${upper}_BAD_DT 2    /* the time step is negative, NaN or infinite */

/* What a stream carries from step to step: ${upper}_STATE_SIZE floats. */
typedef struct {
$members
} ${name}_state;

/* Sets the state of a stream to zeros, where every sequence starts. */
void ${name}_reset(${name}_state *state);

/*
 * Takes one observation, dt $unit after the last one (1 where the training had no time steps).
 * input: $inputs floats. output: $outputs floats, which may not overlap the input.
 * Returns ${upper}_OK; with any other result state and output are what they were before.
 */
int ${name}_step(${name}_state *state, const float *input, float dt, float *output);

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

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

$helpers
$layers
void ${name}_reset(${name}_state *state)
{
    memset(state, 0, sizeof *state);
}

int ${name}_step(${name}_state *state, const float *input, float dt, float *output)
{
$step
}
""")

STEP = Template("""\
$buffers    size_t i;
    if (!(dt >= 0.0f && dt - dt == 0.0f)) {
        return ${upper}_BAD_DT;
    }
    for (i = 0; i < $inputs; ++i) {
        if (!(input[i] - input[i] == 0.0f)) {
            return ${upper}_BAD_INPUT;
        }
    }
$calls
    return ${upper}_OK;""")

LSTM = Template("""\
/* x: $inputs inputs. h, c: $neurons each, changed. */
static void ${name}_lstm(const float *x, float *h, float *c)
{
    float z[$width], gates[4 * $neurons];
    const float *activation = gates, *write = gates + $neurons;
    const float *keep = gates + 2 * $neurons, *read = gates + 3 * $neurons;
    size_t j;
    memcpy(z, x, $inputs * sizeof *z);
    memcpy(z + $inputs, h, $neurons * sizeof *z);
    dense(${name}_lstm_weight, ${name}_lstm_bias, z, gates, $width, 4 * $neurons);
    for (j = 0; j < $neurons; ++j) {
        c[j] = c[j] * sigmoid(keep[j]) + hyptan(activation[j]) * sigmoid(write[j]);
        h[j] = hyptan(c[j]) * sigmoid(read[j]);
    }
}
""")

SYNAPSE_LOOP = Template("""\
for (; s < ${name}_${of}_ends[j]; ++s) {
    const synapse *q = &${name}_$of[s];
    const float open = sigmoid(q->slope * ($source[${name}_${of}_from[s]] - q->midpoint));
    sum_current += q->current * open;
    sum_conductance += q->conductance * open;
}
""")

LTC = Template("""\
/* x: $inputs inputs. v: $neurons membrane potentials, changed. y: $motors outputs. */
static void $name(const float *x, float dt, float *v$c, float *y)
{
    float current[$neurons], conductance[$neurons], next[$neurons], step;
$declared    size_t j, unfold$k$s;
$memory$mapped$start_sensory    for (j = 0; j < $neurons; ++j) {
        float sum_current = ${name}_neurons[j].leak_current;
        float sum_conductance = ${name}_neurons[j].leak;
$sensory        current[j] = sum_current;
        conductance[j] = sum_conductance;
    }
    /* Past these the potentials are at their limits to rounding, and products with dt overflow. */
    step = dt > 1e24f ? 1e24f : dt < 1e-29f ? 1e-29f : dt;
    /* A time step of 0 holds the potentials. */
    for (unfold = 0; dt > 0.0f && unfold < $unfolds; ++unfold) {
$start_recurrent        for (j = 0; j < $neurons; ++j) {
            const float capacitance = ${name}_neurons[j].capacitance;
            float sum_current = current[j], sum_conductance = conductance[j];
$recurrent            next[j] = (capacitance * v[j] + step * sum_current)
                / (capacitance + step * sum_conductance);
        }
        memcpy(v, next, sizeof next);
    }
    for (j = 0; j < $motors; ++j) {
        y[j] = $output;
    }
}
""")

CELL = Template("""\
/* x: $inputs inputs. h: $size neurons, changed. */
static void $function(const float *x, float dt, float *h)
{
    float z[$all]$buffers;
$weight    size_t j$counters;
    memcpy(z, x, $inputs * sizeof *z);
    memcpy(z + $inputs, h, $size * sizeof *z);
$before    for (j = 0; j < $size; ++j) {
$neuron    }
}
""")

# The sums of a neuron and its new state.
GATED = Template("""\
float f1 = ${prefix}_bias[j].ff1, f2 = ${prefix}_bias[j].ff2, r;
float a = ${prefix}_bias[j].time_a, b = ${prefix}_bias[j].time_b;
${loop}f1 = hyptan(f1);
f2 = hyptan(f2);
r = sigmoid(a * dt + b);
h[j] = $blend;
""")

PURE = Template("""\
float f = ${prefix}_bias[j];
${loop}h[j] = ${prefix}_a[j]
    - ${prefix}_a[j] * expf(-dt * (${prefix}_rate[j] + absolute(f))) * f;
""")

CFC = Template("""\
static void $name(const float *x, float dt, float *h$c, float *y)
{
$memory$calls
    $output
}
""")
