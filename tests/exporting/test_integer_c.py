"""C of integers alone: without warnings, near the float model, and defined for every input."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP, FullyConnected
from torch import nn

import export_cases
import fastltc
from fastltc.exporting import ExportError, describe, int_export, write_integer_c
from fastltc.exporting.int_error import run_integers
from fastltc.exporting.int_numbers import multiplier_of, quantised_rows, rounded
from fastltc.exporting.int_ranges import Calibration, made_up, read_calibration, trace
from fastltc.exporting.int_source import generate_integer_c
from fastltc.runtime import Session

GCC = shutil.which("gcc")
STRICT = (
    *("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"),
    *("-Wstrict-prototypes", "-Wmissing-prototypes", "-Wcast-qual"),
)
# Some tens of roundings of values between -2 and 2 to 16 bits.
TOLERANCE = 3e-3

needs_gcc = pytest.mark.skipif(GCC is None, reason="no gcc")


def observations(inputs: int, steps: int, streams: int = 3) -> Calibration:
    random = np.random.default_rng()
    x = random.standard_normal((steps, streams, inputs)).astype(np.float32)
    # From what hardly moves a potential to what takes it to its end.
    dt = np.exp(random.uniform(np.log(1e-3), np.log(5), x.shape[:2])).astype(np.float32)
    return Calibration(x, dt, "random numbers")


def build(command: list[Any], folder: Path) -> None:
    words = [GCC, *STRICT, *map(str, command)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_gcc
@pytest.mark.parametrize("name", export_cases.MODELS)
def test_near_the_float_model(name: str, tmp_path: Path) -> None:
    model = describe(export_cases.make(name))
    data = observations(model.input_size, 150)
    assert GCC is not None
    for wide in (None, ()):
        code = generate_integer_c(model, wide=wide, calibration=data)
        (tmp_path / "model.h").write_text(code.header)
        (tmp_path / "model.c").write_text(code.source)
        build(["-O2", "-c", "model.c"], tmp_path)
        error = np.abs(run_integers(code, data, GCC) - trace(model, data).outputs).max()
        print(f"{name}, {'16' if wide is None else '8'} bits: {error:.2g}")
        # Eight bits are near, sixteen are nearly it.
        scale = max(1.0, float(np.abs(trace(model, data).outputs).max()))
        assert error < (TOLERANCE if wide is None else 0.15) * scale


@needs_gcc
@pytest.mark.parametrize("name", ["ltc", "wired cfc", "ltc, mixed memory"])
def test_no_drift_in_ten_thousand_steps(name: str) -> None:
    model = describe(export_cases.make(name))
    data = observations(model.input_size, 10_000, 1)
    code = generate_integer_c(model, wide=None, calibration=data)
    assert GCC is not None
    error = np.abs(run_integers(code, data, GCC) - trace(model, data).outputs)
    assert error[-1000:].max() < TOLERANCE


@needs_gcc
def test_small_steps_add_up() -> None:
    model = describe(fastltc.LTC(3, AutoNCP(9, 2)))
    x = np.full((4000, 1, 3), 0.7, np.float32)
    dt = np.full((4000, 1), 1e-4, np.float32)
    data = Calibration(x, dt, "")
    assert GCC is not None
    for wide in (None, ()):
        output = run_integers(generate_integer_c(model, wide=wide, calibration=data), data, GCC)
        wanted = Session(model).run(x[:, 0], dt[:, 0])
        moved = np.abs(wanted[-1] - wanted[0]).max()
        assert moved > 0.01
        assert np.abs(output[-1, 0] - wanted[-1]).max() < 0.02 * moved + 2e-4


EXTREMES = """
#include <stdio.h>
#include <stdlib.h>
#include "model.h"
int main(void)
{
    static model_state state;
    static const uint32_t times[] = {0, 1, 2, 255, 65535, 65536, 1u << 24, 1u << 31, 4294967295u};
    int16_t input[MODEL_INPUT_SIZE], output[MODEL_OUTPUT_SIZE];
    int t, i;
    model_reset(&state);
    for (t = 0; t < 5000; ++t) {
        const int kind = rand() % 3;
        for (i = 0; i < MODEL_INPUT_SIZE; ++i) {
            input[i] = (int16_t)(kind == 0 ? rand() % 65536 - 32768 : rand() % 2 ? 32767 : -32768);
        }
        model_step(&state, input, times[rand() % 9], output);
        for (i = 0; i < MODEL_OUTPUT_SIZE; ++i) {
            printf("%d ", output[i]);
        }
    }
    return 0;
}
"""


@needs_gcc
@pytest.mark.parametrize(("index", "name"), [*enumerate(export_cases.MODELS)])
def test_every_integer_is_defined(index: int, name: str, tmp_path: Path) -> None:
    # Every kind of layer is there more than once.
    wide = None if index % 2 else ()
    code = generate_integer_c(describe(export_cases.make(name)), wide=wide)
    (tmp_path / "driver.c").write_text(EXTREMES)
    (tmp_path / "model.h").write_text(code.header)
    (tmp_path / "model.c").write_text(code.source)
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    build(["-O1", *checks, "model.c", "driver.c", "-o", "driver"], tmp_path)
    done = subprocess.run(
        [tmp_path / "driver"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_no_floating_point() -> None:
    for name in export_cases.MODELS:
        code = generate_integer_c(describe(export_cases.make(name)))
        # What the header has of it is for those who ask for it.
        for text in (code.source, re.sub(r"(?s)#ifdef \w+_WITH_FLOAT.*?#endif", "", code.header)):
            body = re.sub(r"(?s)/\*.*?\*/", "", text)
            assert not re.search(
                r"\bfloat\b|\bdouble\b|math\.h|\d\.\d",
                body.replace("#define MODEL_TIME_UNIT 1.0f", ""),
            )


@needs_gcc
def test_a_step_of_nothing_holds_an_ltc() -> None:
    model = describe(fastltc.LTC(3, AutoNCP(9, 2)))
    data = observations(3, 20, 1)
    data.dt[10:] = 0
    assert GCC is not None
    output = run_integers(generate_integer_c(model, calibration=data), data, GCC)
    assert (output[10:] == output[9]).all()


@needs_gcc
def test_parts_get_more_bits_where_eight_are_too_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = describe(fastltc.CfC(6, AutoNCP(12, 1)))
    plain = write_integer_c(model, tmp_path)
    assert plain.error is not None
    narrow = plain.error if plain.narrow is None else plain.narrow
    for allowed, most in ((0.8, None), (0.0, "that is more than 0%")):
        monkeypatch.setattr(int_export, "MOST_ERROR", allowed * narrow.largest)
        report = write_integer_c(model, tmp_path)
        assert report.narrow == narrow
        assert report.error is not None
        assert report.error.largest < narrow.largest
        wide = [part for part, bits in report.code.parts.items() if bits == 16]
        assert f"16 bits for {', '.join(wide)}; 8 bits everywhere" in report.lines()[2]
        assert most is None or report.lines()[-1].startswith(most)
    assert set(report.code.parts.values()) == {16}
    for part in report.code.parts:
        only = generate_integer_c(model, wide=[part])
        assert [p for p, bits in only.parts.items() if bits == 16] == [part]


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = write_integer_c(describe(fastltc.CfC(2, 3)), tmp_path)
    assert "not measured" in report.lines()[-1]


def negative(layer: fastltc.LTC) -> fastltc.LTC:
    with torch.no_grad():
        layer.rnn_cell.w.fill_(-0.1)
    return layer


def huge(layer: nn.Linear) -> nn.Linear:
    with torch.no_grad():
        layer.weight.fill_(1e12)
    return layer


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            negative(fastltc.LTC(2, FullyConnected(4), implicit_param_constraints=False)),
            r"layers\[0\] \(ltc\): w is negative \(-0\.1\)",
        ),
        (
            [fastltc.CfC(2, 3), huge(nn.Linear(3, 1))],
            r"layers\[1\] \(linear\).*: a range that overflows",
        ),
    ],
)
def test_what_cannot_be_integers(module: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=text):
        write_integer_c(describe(module), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_layer_norm_is_named() -> None:
    with pytest.raises(ExportError, match=r"1 \(LayerNorm\): cannot be exported"):
        describe([fastltc.CfC(2, 3), nn.LayerNorm(3)])


def test_calibration_files(tmp_path: Path) -> None:
    model = describe(fastltc.CfC(2, 3))
    x, dt = np.random.default_rng().standard_normal((5, 7, 2)), np.full((5, 7), 0.5)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x, timespans=dt)
    rows = np.concatenate([dt[0, :, None], x[0]], 1)
    np.savetxt(tmp_path / "x.csv", rows, delimiter=",", header="dt, a, b", comments="")
    plain, timed, table = (
        read_calibration(model, tmp_path / f"x.{kind}") for kind in ("npy", "npz", "csv")
    )
    assert np.array_equal(plain.x, x.swapaxes(0, 1).astype(np.float32))
    assert (plain.dt == 1).all()
    assert (timed.dt == 0.5).all()
    assert np.allclose(table.x[:, 0], x[0])
    assert table.dt.shape == (7, 1)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"y": np.zeros((3, 2))}, "expected an array x, got y"),
        ({"x": np.zeros((3, 4))}, r"shape \[T, I\] or \[S, T, I\] with I = 2, got \[1, 3, 4\]"),
        (
            {"x": np.zeros((3, 2)), "timespans": np.zeros(2)},
            r"expected timespans of shape \[1, 3\]",
        ),
        ({"x": np.full((3, 2), np.nan)}, "expected finite numbers"),
        ({"x": np.zeros((3, 2)), "timespans": -np.ones(3)}, "no negative time step"),
        ({"x": np.array([["a", "b"]])}, "expected numbers"),
        ({"x": np.array([[None, None]])}, "calibration: "),
    ],
)
def test_calibration_files_that_are_none(content: Any, text: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(ExportError, match=text):
        read_calibration(describe(fastltc.CfC(2, 3)), tmp_path / "x.npz")


def test_rounding_keeps_sums() -> None:
    random = np.random.default_rng()
    ratios = []
    for _ in range(20):
        met = random.standard_normal((500, 6)) @ random.standard_normal((6, 40)) + 3.0
        weights = random.uniform(-20, 20, 40)
        integers, rest = rounded(weights, met, 127)
        error = met @ (integers - weights) + rest
        assert abs(error.mean()) < 1e-9
        ratios.append(error.std() / (met @ (np.rint(weights) - weights)).std())
    assert np.median(ratios) < 0.5


def test_rows_are_near_their_numbers() -> None:
    random = np.random.default_rng()
    weight, bias = random.standard_normal((5, 7)), random.standard_normal(5)
    x = random.uniform(-1, 1, (100, 7))
    bits = np.full(7, 14)
    for width in (8, 16):
        made = quantised_rows("a matrix", weight, bias, bits, 12, width, x)
        sums = np.rint(x * 2**14).astype(int) @ made.weight.T
        factor = np.array([m * 2.0**-s for _, m, s in made.rows])
        found = (sums + [b for b, _, _ in made.rows]) * factor / 2**12
        # Each weight is within a step of its row; the rest is what inputs and bias are rounded to.
        allowed = 7 * np.abs(weight).max(1) / (2 ** (width - 1) - 1) + 1e-3
        assert (np.abs(found - (x @ weight.T + bias)).max(0) < allowed).all()


def test_multipliers() -> None:
    for factor in (1.0, 0.3, -7.5, 1e-9, 2.0**20, 0.0):
        multiplier, shift = multiplier_of("here", factor)
        assert 1 <= shift <= 62
        assert abs(multiplier) < 2**31
        assert abs(multiplier * 2.0**-shift - factor) <= abs(factor) * 1e-9
    with pytest.raises(ExportError, match="here: a range that overflows"):
        multiplier_of("here", 2.0**31)


def test_made_up_data_is_the_same_every_time() -> None:
    model = describe(fastltc.CfC(2, 3))
    assert np.array_equal(made_up(model).x, made_up(model).x)
