"""Numbers as integers with a scale, for `int_layers`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .errors import ExportError

MOST = 32767
"""The largest value that layers pass to each other."""
LEVELS = {8: 127, 16: 32767}
"""The largest weight, by its bits."""
# A sum has to stay below 2^31, with what rounding of its parts adds.
_MOST_SUM = 0.99 * 2.0**31
_SAMPLES = 2000
TABLE = 193
"""Values of a table."""


def bits_for(range_of: float) -> int:
    """Return b, so that numbers up to this one times 2^b fit 16 bits."""
    return 30 if range_of <= 2.0**-15 else math.floor(math.log2(MOST / range_of))


def multiplier_of(where: str, factor: float) -> tuple[int, int]:
    """Return ``multiplier, shift`` with ``factor = multiplier 2^-shift``, the shift 1 to 62."""
    if factor == 0 or abs(factor) < 2.0**-62:
        return 0, 1
    mantissa, exponent = math.frexp(factor)
    multiplier, shift = round(mantissa * 2**31), 31 - exponent
    if abs(multiplier) == 2**31:
        multiplier, shift = multiplier // 2, shift - 1
    if shift > 62:
        multiplier, shift = round(multiplier * 2.0 ** (62 - shift)), 62
    if shift < 1:
        raise ExportError(
            f"{where}: a range that overflows: a sum would have to be scaled by {factor:.3g}, "
            "expected less than 2^30"
        )
    return multiplier, shift


def rounded(values: np.ndarray, met: np.ndarray, most: int) -> tuple[np.ndarray, float]:
    """Round the weights of a sum, so that the sum changes little where it was met.

    One weight after the other is rounded, and those that are left make up for it as far as they
    can (Frantar et al., GPTQ, ICLR 2023, whose inverse this is).

    Args:
        values: ``[K]``, in units of what they are rounded to.
        met: ``[samples, K]``, what they are multiplied with.
        most: the largest integer that is allowed.

    Returns:
        The integers, and what the bias of the sum has to make up for.
    """
    met = met[:: max(1, len(met) // _SAMPLES)]
    mean = met.mean(0)
    # The bias takes what is constant.
    spread = (met - mean).T @ (met - mean) / len(met)
    damping = 0.01 * np.trace(spread) / max(1, len(values)) + 1e-12
    upper = np.linalg.cholesky(np.linalg.inv(spread + damping * np.eye(len(values)))).T
    left, found = values.astype(np.float64), np.zeros(len(values), int)
    for k in range(len(values)):
        found[k] = np.clip(np.rint(left[k]), -most, most)
        left[k:] -= (left[k] - found[k]) / upper[k, k] * upper[k, k:]
    return found, float((values - found) @ mean)


@dataclass(frozen=True)
class Rows:
    """A matrix as integers.

    Args:
        weight: ``[rows, columns]``.
        rows: ``[rows, 3]``: bias, multiplier and shift of each, see the C type.
    """

    weight: np.ndarray
    rows: list[tuple[int, int, int]]


def quantised_rows(
    where: str,
    weight: np.ndarray,
    bias: np.ndarray,
    input_bits: np.ndarray,
    output_bits: int,
    bits: int,
    met: np.ndarray,
) -> Rows:
    """Return a matrix and its bias as integers, each row with a scale of its own.

    Args:
        where: what errors call it.
        weight: ``[rows, columns]``.
        bias: ``[rows]``.
        input_bits: ``[columns]``, fractional bits of what it is multiplied with.
        output_bits: those of the result.
        bits: of a weight, 8 or 16.
        met: ``[samples, columns]``, what it is multiplied with.
    """
    scaled = weight * 2.0**-input_bits
    largest = np.abs(scaled).max(1, initial=0.0)
    total = np.abs(scaled).sum(1) * 32768 + np.abs(bias)
    # The finest scale with which neither a weight nor a sum overflows.
    scale = np.maximum(largest / LEVELS[bits], total / _MOST_SUM)
    scale = np.where(scale == 0, 1.0, scale)
    integers, rows = np.zeros(weight.shape, int), []
    for index, (b, s) in enumerate(zip(bias, scale, strict=True)):
        there = np.flatnonzero(weight[index])
        seen = met[:, there] * 2.0 ** input_bits[there]
        integers[index, there], rest = rounded(scaled[index, there] / s, seen, LEVELS[bits])
        multiplier, shift = multiplier_of(f"{where}, row {index}", s * 2.0**output_bits)
        rows.append((round(b / s + rest), multiplier, shift))
    return Rows(integers, rows)


@dataclass(frozen=True)
class Channel:
    """The synapses onto a neuron as integers: scales of conductance and current, and the rest.

    Args:
        conductance: of all synapses, sensory ones first, integers.
        current: the same.
        neuron: leak, leak current, current multiplier, capacitance, its exponent, current shift and
            conductance shift.
    """

    conductance: np.ndarray
    current: np.ndarray
    neuron: tuple[int, ...]


def quantised_channel(
    where: str,
    conductance: np.ndarray,
    current: np.ndarray,
    neuron: np.ndarray,
    potential_bits: int,
    dt_bits: int,
    bits: int,
    opened: np.ndarray,
) -> Channel:
    """Return what a neuron of an LTC sums up.

    Args:
        where: what errors call it.
        conductance: of its synapses.
        current: conductance times reversal potential of each.
        neuron: capacitance, leak and leak current.
        potential_bits: fractional bits of the upper half of a potential.
        dt_bits: those of a time step.
        bits: of a weight, 8 or 16.
        opened: ``[samples, synapses]``, how far each was open, 0 to 1.
    """
    capacitance, leak, leak_current = neuron

    def scale_of(values: np.ndarray, start: float) -> float:
        total = np.abs(values).sum() + abs(start)
        scale = max(np.abs(values).max(initial=0.0) / LEVELS[bits], total * 2**15 / _MOST_SUM)
        return float(scale) or 1.0

    of_g, of_i = scale_of(conductance, leak), scale_of(current, leak_current)
    g, g_rest = rounded(conductance / of_g, opened, LEVELS[bits])
    i, i_rest = rounded(current / of_i, opened, LEVELS[bits])
    # A conductance stays positive.
    g = np.maximum(g, 0)
    g_leak = max(0, round((leak / of_g + g_rest) * 2**15))
    i_leak = round((leak_current / of_i + i_rest) * 2**15)
    shift = max(0, (int(g.sum() * 2**15) + g_leak).bit_length() - 14)
    # What one unit of the shifted conductance is.
    unit = of_g * 2.0**-15 * 2.0**shift
    multiplier, current_shift = multiplier_of(where, of_i * 2.0**-15 * 2.0**potential_bits / unit)
    mantissa, exponent = math.frexp(capacitance / unit)
    c = min(round(mantissa * 2**16), 2**16 - 1)
    place = exponent - 16 + dt_bits if c else 0
    if abs(place) > 32767:
        raise ExportError(f"{where}: a range that overflows: capacitance {capacitance:.3g}")
    numbers = (g_leak, i_leak, multiplier, c, place, current_shift, shift)
    return Channel(g, i, numbers)


def quantised_sigmoids(
    slope: np.ndarray, midpoint: np.ndarray, source_bits: np.ndarray, bits: int, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return slopes and offsets of the synapses onto a neuron, and the shift that gives Q16.

    Args:
        slope: of the sigmoids.
        midpoint: where they are 1/2.
        source_bits: fractional bits of what they are of.
        bits: of a weight, 8 or 16.
        mean: of what they are of, where rounding of the slope is to change nothing.
    """
    step = offset_step(bits)
    a = slope * 2.0**-source_bits
    # Past +-12 for every source a sigmoid is at its end.
    most = 12.0 + np.abs(a) * 32768
    b = np.clip(-slope * midpoint, -most, most)
    # The scale is a power of two, so that a shift is all that is left to do for a synapse.
    limits = (2.0**15 - 1) * step if bits == 8 else 2.0**30 - 1
    fit = [
        math.log2(limit / size)
        for limit, size in (
            (LEVELS[bits], np.abs(a).max(initial=0.0)),
            (limits, np.abs(b).max(initial=0.0)),
            # Both together.
            (2.0**30, float((np.abs(a) * 32768).max(initial=0.0))),
        )
        if size > 0
    ]
    place = 16 - int(math.log2(finer(bits)))
    shift = min(30, max(0, min([40, *map(math.floor, fit)]) - place))
    scale = 2.0 ** (shift + place)
    # One that is too steep for that is a step: less steep, with the same midpoint, it still is.
    steep = np.maximum(np.abs(a) * scale / LEVELS[bits], np.abs(b) * scale / limits)
    scale = scale / np.maximum(steep, 1.0)
    slopes = np.rint(a * scale)
    offsets = np.rint((b * scale + (a * scale - slopes) * mean * 2.0**source_bits) / step)
    return slopes.astype(int), np.clip(offsets, -limits // step, limits // step).astype(int), shift


def offset_step(bits: int) -> int:
    """Return what a unit of an offset is: 16 bits of them are enough for weights of 8 bits."""
    return 256 if bits == 8 else 1


def finer(bits: int) -> int:
    """Return what a sum for a sigmoid is multiplied with before its shift."""
    return 16 if bits == 8 else 1


def table_of(function: str) -> np.ndarray:
    """Return the values of a function at 0, 1/16 .. 12 in Q15, between which lines are drawn.

    They lie beside the function by half of what a line would be wrong by in between, so that lines
    are half as wrong.
    """
    step = 1 / 16
    x = np.arange(-1, TABLE + 1) * step
    if function == "sigmoid":
        y = 1 / (1 + np.exp(-x))
    elif function == "normal":
        y = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])
    elif function == "decay":
        y = np.exp(-x)
    else:
        y = np.log1p(np.exp(-x))
    bent = np.diff(y, 2) / 16
    # Where the sign of x changes, there is no line to the other side.
    bent[0] = 0
    return np.rint(np.clip(y[1:-1] - bent, 0, 1) * 2**15).astype(int)
