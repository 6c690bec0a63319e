"""C99 in integers for microcontrollers: weights of 8 or 16 bits, values of 16, sums of 32.

What layers pass to each other is fixed-point; where its point is follows from what the float
model meets on calibration data (`int_ranges`). The weights of a neuron share a scale. The
potentials of an LTC are kept with 32 bits, so that no time step is too short to move them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ..runtime.model import Model, check_model, unit_in_words
from . import int_templates as c
from .c_constants import number, wrapped
from .c_source import CSource, assigned, check_name, facts_of, names_of
from .c_templates import used_by
from .errors import ExportError
from .int_layers import IntegerLayer, generate
from .int_numbers import TABLE, bits_for, table_of
from .int_ranges import Calibration, made_up, seen, trace


@dataclass(frozen=True)
class IntegerSource(CSource):
    """Generated C in integers.

    Args:
        parts: bits of the weights of each part of the code that can have 8 or 16.
    """

    parts: dict[str, int]


def generate_integer_c(
    model: Model,
    name: str = "model",
    wide: Collection[str] | None = (),
    calibration: Calibration | None = None,
) -> IntegerSource:
    """Return a model as integer C99.

    Args:
        model: what to write.
        name: prefix of functions, types and files; a C identifier.
        wide: the parts whose weights have 16 bits and not 8; None: all of them.
        calibration: observations of the kind that the device will see; None makes some up.

    Raises:
        ExportError: (a ValueError) if a layer cannot be written in integers; the text names it and
            says why.
    """
    check_name(name)
    check_model(model)
    data = calibration or made_up(model)
    met = trace(model, data)
    dt_bits = min(44, max(4, math.floor(31 - math.log2(16 * (float(data.dt.max()) or 1.0)))))
    input_bits = np.array([bits_for(seen(column)) for column in met.inputs[0].T])
    if model.layers[0]["type"] == "activation":
        input_bits[:] = input_bits.min()
    _check_bits("the inputs", input_bits)

    most = max(max(layer.get("units", 0), layer.get("input_size", 0)) for layer in model.layers)
    index_bytes = 1 if most <= 256 else 2
    layers, coming = [], input_bits
    for index, layer in enumerate(model.layers):
        width = layer.get("output_size", len(coming))
        made = IntegerLayer(index, layer, wide, dt_bits, coming, met, index_bytes)
        generate(made, model.parameters(index))
        layers.append(made)
        coming = np.full(width, made.output_bits)
        _check_bits(made.where, coming)
    return _put_together(model, name, layers, input_bits, dt_bits, index_bytes)


def _check_bits(where: str, bits: np.ndarray) -> None:
    if (bits < -15).any():
        raise ExportError(
            f"{where}: a range that overflows: numbers up to {2.0 ** (15 - bits.min()):.3g}, "
            "expected less than 2^30"
        )


def _put_together(
    model: Model,
    name: str,
    layers: list[IntegerLayer],
    input_bits: np.ndarray,
    dt_bits: int,
    index_bytes: int,
) -> IntegerSource:
    from .. import __version__

    calls, buffers = assigned(model, layers)
    code = "\n".join(text for layer in layers for text in layer.text)
    helpers = _helpers_of(f"{code}{calls} span_of")
    used = sorted(set(re.findall(r"\b(\w+)_table\b", helpers)))
    tables = ""
    for each in used:
        values = wrapped(list(map(str, table_of(each))))
        tables += f"static const uint16_t {each}_table[{TABLE}] = {{\n{values}\n}};\n\n"
    facts = facts_of(model, __version__)
    source = c.SOURCE.substitute(
        name=name,
        facts=facts,
        dt_bits=dt_bits,
        index=f"uint{8 * index_bytes}_t",
        tables=tables,
        helpers=helpers,
        layers=code,
        buffers="".join(f"    int16_t {key}[{size}];\n" for key, size in buffers.items()),
        calls=calls,
    )
    parts = {part: bits for layer in layers for part, bits in layer.parts.items()}
    members = [member for layer in layers for member in layer.members]
    output_bits = layers[-1].output_bits
    header = c.HEADER.substitute(
        name=name,
        upper=name.upper(),
        facts=facts,
        widths=" and ".join(map(str, sorted(set(parts.values())) or [8])) + " bits",
        inputs=model.input_size,
        outputs=model.output_size,
        unit=unit_in_words(model.time_unit),
        time_unit=number(model.time_unit),
        names=names_of(model, name),
        input_bits="{" + ", ".join(map(str, input_bits)) + "}",
        output_bits=f"({output_bits})",
        dt_bits=dt_bits,
        input_ones="{" + ", ".join(number(2.0**bits) for bits in input_bits) + "}",
        output_unit=number(2.0**-output_bits),
        dt_one=number(2.0**dt_bits),
        members="\n".join(
            f"    {kind} {key}[{size}]; /* {what} */" for kind, key, size, what in members
        ),
    )
    sizes = {"int32_t": 4, "int16_t": 2}
    return IntegerSource(
        name=name,
        header=header,
        source=source,
        table_bytes=sum(layer.table_bytes for layer in layers) + 2 * TABLE * len(used),
        state_bytes=sum(sizes[kind] * size for kind, _, size, _ in members),
        # Arrays of 16 bits but for those of an LTC, which are counted as two.
        scratch_bytes=2 * (max(layer.scratch_floats for layer in layers) + sum(buffers.values())),
        parts=parts,
    )


def _helpers_of(code: str) -> str:
    """Return the shared types and functions that code uses, with those that they use."""
    *texts, softmax = c.SHARED.rstrip().split("\n\n")
    texts += [c.DENSE.substitute(bits=bits) for bits in (8, 16)]
    texts += [c.EACH.substitute(name=n, expression=e) for n, e in c.ACTIVATIONS.items()]
    return used_by(code, [*texts, softmax])
