"""What ``fastltc export --c`` does, for the commands of both distributions; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..runtime.model import Model, unit_in_words
from .c_sizes import find_compiler, measure
from .c_source import in_words, write_c


def describe_in_lines(model: Model) -> Iterator[str]:
    """Say what a model is."""
    for index, described in enumerate(model.layers):
        yield f"layer {index}: {in_words(described)}"
    yield f"time steps in {unit_in_words(model.time_unit)}"


def export_c(model: Model, folder: Path, name: str, cc: str | None) -> Iterator[str]:
    """Write the C of a model, see `write_c`, and say what it takes."""
    compiler = find_compiler(cc)
    code = write_c(model, folder, name)
    yield f"{folder / name}.h, {folder / name}.c: {measure(code, compiler)}"
