"""How far integer C is from the float model: compiled for this machine, and run."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .c_source import CSource
from .errors import ExportError
from .int_ranges import Calibration


@dataclass(frozen=True)
class IntegerError:
    """Of the outputs, as parts of their range in the float model: the largest error and the mean.

    Args:
        largest: over all outputs, streams and steps.
        mean: root of the mean square.
        least_range: how far the output moves that moves least.
    """

    largest: float
    mean: float
    least_range: float

    def __str__(self) -> str:
        return f"at most {self.largest:.2%} of the output range, {self.mean:.3%} on average (rms)"


def host_compiler() -> str | None:
    """Return a C compiler for this machine, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def measure_error(
    code: CSource, data: Calibration, wanted: np.ndarray, compiler: str
) -> IntegerError:
    """Run integer C on calibration data and compare it with the float model.

    Args:
        code: what `generate_integer_c` returned.
        data: the observations.
        wanted: ``[T, S, M]``, what the float model gives for them.
        compiler: a path.

    Raises:
        ExportError: (a ValueError) if the compiler fails.
    """
    output = run_integers(code, data, compiler)
    low, high = wanted.min((0, 1)), wanted.max((0, 1))
    # An output that stays where it is has the range of the others.
    range_of = np.where(high > low, high - low, np.max(high - low))
    error = (output - wanted) / np.where(range_of > 0, range_of, 1.0)
    mean = float(np.sqrt((error**2).mean()))
    return IntegerError(float(np.abs(error).max()), mean, float(range_of.min()))


def run_integers(code: CSource, data: Calibration, compiler: str) -> np.ndarray:
    """Return what integer C gives for observations: ``[T, S, M]``."""
    steps, streams = data.dt.shape
    outputs = int(code.header.split(f"{code.name.upper()}_OUTPUT_SIZE ")[1].split()[0])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / f"{code.name}.h").write_text(code.header)
        (folder / f"{code.name}.c").write_text(code.source)
        (folder / "driver.c").write_text(
            _DRIVER.replace("NAME", code.name.upper()).replace("name", code.name)
        )
        command = [compiler, "-std=c99", "-O2", "-shared", "-fPIC", "driver.c", f"{code.name}.c"]
        done = subprocess.run(
            [*command, "-o", "driver.so"], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ExportError(f"compiler: {compiler} failed: {done.stderr.strip()[:2000]}")
        run = ctypes.CDLL(str(folder / "driver.so")).run
    result = np.empty((streams, steps, outputs), np.float32)
    pointer = np.ctypeslib.ndpointer(np.float32, flags="C")
    run.argtypes = [ctypes.c_size_t, ctypes.c_size_t, pointer, pointer, pointer]
    x, dt = (np.ascontiguousarray(values.swapaxes(0, 1)) for values in (data.x, data.dt))
    if run(streams, steps, x, dt, result) != 0:
        raise ExportError("calibration: expected finite numbers, and no negative time step")
    return result.swapaxes(0, 1)


_DRIVER = """
#include <stddef.h>
#define NAME_WITH_FLOAT
#include "name.h"
int run(size_t streams, size_t steps, const float *x, const float *dt, float *y)
{
    static name_state state;
    size_t t;
    for (; streams > 0; --streams) {
        name_reset(&state);
        for (t = 0; t < steps; ++t) {
            if (name_step_float(&state, x, *dt, y) != NAME_OK) {
                return 1;
            }
            x += NAME_INPUT_SIZE;
            y += NAME_OUTPUT_SIZE;
            ++dt;
        }
    }
    return 0;
}
"""
