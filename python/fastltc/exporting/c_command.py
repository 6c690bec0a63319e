"""What ``fastltc export --c`` does, for the commands of both distributions; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..runtime.model import Model, unit_in_words
from .c_sizes import find_compiler, measure
from .c_source import CSource, in_words, write_c
from .int_export import write_integer_c


def describe_in_lines(model: Model) -> Iterator[str]:
    """Say what a model is."""
    for index, described in enumerate(model.layers):
        yield f"layer {index}: {in_words(described)}"
    yield f"time steps in {unit_in_words(model.time_unit)}"


def export_c(
    model: Model,
    folder: Path,
    name: str,
    cc: str | None,
    integers: str | None = None,
    calibration: Path | None = None,
) -> Iterator[str]:
    """Write the C of a model, and say what it takes.

    Args:
        model: what to write, see `write_c` and `write_integer_c`.
        folder: where to.
        name: prefix of functions, types and files.
        cc: the compiler to measure with, see `find_compiler`.
        integers: ``"int8"`` or ``"fixed"``, to compute with integers; None: with floats.
        calibration: a file of observations, for integers.
    """
    compiler = find_compiler(cc)
    if integers is None:
        code: CSource = write_c(model, folder, name)
        lines: list[str] = []
    else:
        fixed = integers == "fixed"
        report = write_integer_c(model, folder, name, fixed=fixed, calibration=calibration)
        code, lines = report.code, report.lines()
    yield f"{folder / name}.h, {folder / name}.c: {measure(code, compiler)}"
    yield from lines
