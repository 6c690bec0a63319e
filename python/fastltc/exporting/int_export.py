"""Integer C as users get it: weights of 8 bits where they are enough, and the error measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._files import write_all
from ..runtime.model import Model
from .int_error import IntegerError, host_compiler, measure_error
from .int_ranges import Calibration, made_up, read_calibration, trace
from .int_source import IntegerSource, generate_integer_c

MOST_ERROR = 0.01
"""Of the output range: what weights of 8 bits may cost."""


@dataclass(frozen=True)
class IntegerReport:
    """What integer C is, and how good.

    Args:
        code: the code.
        calibration: what it was made with.
        error: against the float model on that; None where this machine has no C compiler.
        narrow: the same with weights of 8 bits everywhere, where that was too much.
    """

    code: IntegerSource
    calibration: Calibration
    error: IntegerError | None
    narrow: IntegerError | None = None

    def lines(self) -> list[str]:
        """Say it in words."""
        steps, streams = self.calibration.dt.shape
        lines = [f"ranges from {self.calibration.source}, {streams} x {steps} steps"]
        if self.error is None:
            return [*lines, "error: not measured, there is no C compiler for this machine"]
        lines.append(f"error against the float model, on these: {self.error}")
        wide = [part for part, bits in self.code.parts.items() if bits == 16]
        if self.narrow is not None:
            lines.append(f"16 bits for {', '.join(wide)}; 8 bits everywhere: {self.narrow}")
        if self.error.largest > MOST_ERROR:
            why = (
                "weights of 16 bits change nothing about it: values have 16 bits, and the outputs "
                f"move by {self.error.least_range:.3g} alone, which is what the error is a part of"
                if len(wide) == len(self.code.parts)
                else "weights of 8 bits"
            )
            lines.append(f"that is more than {MOST_ERROR:.0%}; why: {why}")
        return lines


def write_integer_c(
    model: Model,
    folder: str | os.PathLike[str],
    name: str = "model",
    *,
    fixed: bool = False,
    calibration: Calibration | str | os.PathLike[str] | None = None,
) -> IntegerReport:
    """Write ``name.h`` and ``name.c``, which compute with integers alone, into a folder.

    Weights have 8 bits. Where the error against the float model is more than 1 % of the range of
    the outputs, the parts that this comes from get 16.

    Args:
        model: what to write, see :func:`fastltc.exporting.describe`.
        folder: where to; it is made if it is not there.
        name: prefix of functions, types and files; a C identifier.
        fixed: whether all weights have 16 bits.
        calibration: observations of the kind that the device will see, or a file of them
            (docs/edge.md); None makes some up.

    Returns:
        The code, its sizes and its error.

    Raises:
        ExportError: (a ValueError) if a layer cannot be written in integers, which the text names,
            or the calibration does not fit.
        OSError: if a file cannot be read or written.

    Example:
        >>> import tempfile
        >>> import fastltc
        >>> from fastltc.exporting import describe, write_integer_c
        >>> from fastltc.wirings import AutoNCP
        >>> model = describe(fastltc.LTC(4, AutoNCP(9, 1)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = write_integer_c(model, folder, "pilot")
        >>> report.code.state_bytes
        36

    Source: docs/edge.md says how it computes.
    """
    report = _make(model, name, fixed, calibration)
    folder, code = Path(folder), report.code
    folder.mkdir(parents=True, exist_ok=True)
    write_all(
        {folder / f"{name}.h": code.header.encode(), folder / f"{name}.c": code.source.encode()}
    )
    return report


def _make(
    model: Model,
    name: str,
    fixed: bool,
    calibration: Calibration | str | os.PathLike[str] | None,
) -> IntegerReport:
    if calibration is None:
        data = made_up(model)
    elif isinstance(calibration, Calibration):
        data = calibration
    else:
        data = read_calibration(model, Path(calibration))
    code = generate_integer_c(model, name, None if fixed else (), data)
    compiler = host_compiler()
    if compiler is None:
        return IntegerReport(code, data, None)
    wanted = trace(model, data).outputs

    def error_of(made: IntegerSource) -> IntegerError:
        return measure_error(made, data, wanted, compiler)

    def error_with(wide: Sequence[str]) -> IntegerError:
        return error_of(generate_integer_c(model, name, wide, data))

    error = error_of(code)
    if fixed or error.largest <= MOST_ERROR:
        return IntegerReport(code, data, error)
    wide: list[str] = []
    # First what alone changes most.
    for part in sorted(code.parts, key=lambda part: error_with([part]).largest):
        wide.append(part)
        if error_with(wide).largest <= MOST_ERROR:
            break
    # Then again without those that the later ones made needless.
    for part in wide[:-1]:
        rest = [each for each in wide if each != part]
        if error_with(rest).largest <= MOST_ERROR:
            wide = rest
    chosen = generate_integer_c(model, name, wide, data)
    return IntegerReport(chosen, data, error_of(chosen), narrow=error)
