"""The generated C99: compiled without warnings, and the same numbers as torch."""

from __future__ import annotations

import ctypes
import math
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP, FullyConnected
from torch import nn

import export_cases
import fastltc
import runtime_cases
from fastltc import runtime
from fastltc.exporting import ExportError, describe
from fastltc.exporting.c_sizes import find_compiler, measure
from fastltc.exporting.c_source import CSource, generate_c, write_c
from fastltc.runtime.model_file import model_digest

GCC = shutil.which("gcc")
STRICT = (
    *("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow"),
    *("-Wstrict-prototypes", "-Wmissing-prototypes", "-Wcast-qual", "-Wdouble-promotion"),
)

needs_gcc = pytest.mark.skipif(GCC is None, reason="no gcc")


def compiled(command: list[str], folder: Path) -> None:
    assert GCC is not None
    done = subprocess.run(
        [GCC, *STRICT, *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


class Compiled:
    """The generated code as a shared library."""

    def __init__(self, module: Any, folder: Path) -> None:
        self.model = describe(module)
        self.code = write_c(self.model, folder)
        compiled(["-O2", "-shared", "-fPIC", "model.c", "-o", "model.so", "-lm"], folder)
        library = ctypes.CDLL(str(folder / "model.so"))
        self.function = library.model_step
        pointer = ctypes.c_void_p
        self.function.argtypes = [pointer, pointer, ctypes.c_float, pointer]
        # Filled, so that the reset has something to do.
        self.state = np.full(self.model.state_size, 7, dtype=np.float32)
        library.model_reset(ctypes.c_void_p(self.state.ctypes.data))
        self.output = np.zeros(self.model.output_size, dtype=np.float32)

    def step(self, x: np.ndarray, dt: float) -> int:
        assert x.dtype == np.float32
        assert x.shape == (self.model.input_size,)
        addresses = self.state.ctypes.data, x.ctypes.data, self.output.ctypes.data
        return self.function(addresses[0], addresses[1], dt, addresses[2])

    def run(self, xs: np.ndarray, timespans: np.ndarray) -> np.ndarray:
        outputs = []
        for x, dt in zip(xs, timespans, strict=True):
            assert self.step(x, float(dt)) == 0
            outputs.append(self.output.copy())
        return np.array(outputs)


@needs_gcc
@pytest.mark.parametrize("name", export_cases.MODELS)
def test_the_numbers_of_torch(name: str, tmp_path: Path) -> None:
    module = export_cases.make(name)
    x, timespans = export_cases.random_sequence(export_cases.inputs_of(module), 1, 200)
    wanted, state, tolerance = export_cases.run_exactly(module, x, timespans)
    code = Compiled(module, tmp_path)
    output = code.run(x[0].numpy(), timespans[0].numpy())
    assert export_cases.difference(output, wanted[0]) < tolerance
    assert export_cases.difference(code.state, state[0]) < tolerance


@needs_gcc
@pytest.mark.parametrize("name", ["ltc", "wired cfc", "ltc, mixed memory", "stack"])
def test_no_drift_in_ten_thousand_steps(name: str, tmp_path: Path) -> None:
    module = export_cases.make(name)
    x, timespans = export_cases.random_sequence(export_cases.inputs_of(module), 1, 10_000)
    wanted, _, tolerance = export_cases.run_exactly(module, x, timespans)
    output = Compiled(module, tmp_path).run(x[0].numpy(), timespans[0].numpy())
    first, last = slice(0, 1000), slice(9000, None)
    assert export_cases.difference(output[first], wanted[0, first]) < tolerance
    assert export_cases.difference(output[last], wanted[0, last]) < tolerance


@needs_gcc
@pytest.mark.parametrize("name", export_cases.MODELS)
def test_the_numbers_of_the_runtime(name: str, tmp_path: Path) -> None:
    module = export_cases.make(name)
    code = Compiled(module, tmp_path)
    session = runtime.Session(code.model)
    x, timespans = export_cases.random_sequence(code.model.input_size, 1, 500)
    output = code.run(x[0].numpy(), timespans[0].numpy())
    wanted = session.run(x[0].numpy(), timespans[0].numpy())
    _, _, tolerance = export_cases.run_exactly(module, x, timespans)
    assert np.abs(output - wanted).max() < tolerance
    assert np.abs(code.state - session.get_state().reshape(-1)).max() < tolerance


@needs_gcc
@pytest.mark.parametrize("name", runtime_cases.TIME_STEP_LAYERS)
def test_every_time_step_as_the_reference(name: str, tmp_path: Path) -> None:
    layer, x, dt, outputs, state = runtime_cases.time_step_case(name)
    code = Compiled(layer, tmp_path)
    for stream in range(x.shape[1]):
        code.state[:] = 0
        output = code.run(x[:, stream], dt[:, stream])
        runtime_cases.assert_agree(output, outputs[:, stream], 1e-5)
        runtime_cases.assert_agree(code.state, state[stream], 1e-5)


@needs_gcc
@pytest.mark.parametrize("name", ["ltc of ncps", "wired cfc, proj", "wired cfc, pure", "stack"])
def test_under_sanitizers(name: str, tmp_path: Path) -> None:
    module = export_cases.make(name)
    x, timespans = export_cases.random_sequence(export_cases.inputs_of(module), 1, 50)
    wanted, _, tolerance = export_cases.run_exactly(module, x, timespans)
    write_c(describe(module), tmp_path)
    (tmp_path / "driver.c").write_text(export_cases.DRIVER)
    flags = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compiled([*flags, "model.c", "driver.c", "-o", "driver", "-lm"], tmp_path)
    observations = torch.cat([timespans[0, :, None], x[0]], 1).contiguous()
    done = subprocess.run(
        [tmp_path / "driver"], input=observations.numpy().tobytes(), capture_output=True, check=True
    )
    output = np.frombuffer(done.stdout, dtype=np.float32).reshape(wanted[0].shape)
    assert not done.stderr
    assert export_cases.difference(output, wanted[0]) < tolerance


@pytest.mark.skipif(
    not (shutil.which("arm-linux-gnueabihf-gcc") and shutil.which("qemu-arm")),
    reason="no arm-linux-gnueabihf-gcc, or no qemu-arm",
)
@pytest.mark.parametrize("name", ["ltc, mixed memory", "wired cfc", "stack"])
def test_the_numbers_of_torch_on_arm(name: str, tmp_path: Path) -> None:
    module = export_cases.make(name)
    x, timespans = export_cases.random_sequence(export_cases.inputs_of(module), 1, 500)
    wanted, _, tolerance = export_cases.run_exactly(module, x, timespans)
    write_c(describe(module), tmp_path)
    (tmp_path / "driver.c").write_text(export_cases.DRIVER)
    command = ["arm-linux-gnueabihf-gcc", *STRICT, "-Os", "-mthumb", "-static"]
    command += ["model.c", "driver.c", "-o", "driver", "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    observations = torch.cat([timespans[0, :, None], x[0]], 1).contiguous().numpy().tobytes()
    done = subprocess.run(
        ["qemu-arm", tmp_path / "driver"], input=observations, capture_output=True, check=True
    )
    output = np.frombuffer(done.stdout, dtype=np.float32).reshape(wanted[0].shape)
    assert export_cases.difference(output, wanted[0]) < tolerance


@needs_gcc
def test_bad_input_changes_nothing(tmp_path: Path) -> None:
    code = Compiled(fastltc.LTC(3, AutoNCP(9, 2), mixed_memory=True), tmp_path)
    good = np.ones(3, dtype=np.float32)
    assert code.step(good, 0.5) == 0
    before = code.state.copy(), code.output.copy()
    for bad in (math.nan, math.inf, -math.inf):
        x = good.copy()
        x[2] = bad
        assert code.step(x, 0.5) == 1
        assert code.step(good, bad) == 2
    assert code.step(good, -1e-30) == 2
    assert np.array_equal(code.state, before[0])
    assert np.array_equal(code.output, before[1])
    assert code.step(good, 0.5) == 0
    assert not np.array_equal(code.state, before[0])


@needs_gcc
def test_a_time_step_of_0_holds_the_potentials_to_the_bit(tmp_path: Path) -> None:
    code = Compiled(fastltc.LTC(3, AutoNCP(9, 2)), tmp_path)
    x = np.ones(3, dtype=np.float32)
    code.step(x, 1.0)
    before = code.state.copy()
    code.step(x, 0.0)
    assert np.array_equal(code.state, before)


@needs_gcc
def test_no_function_of_the_c_library_but_expf_and_memory(tmp_path: Path) -> None:
    for name in ("stack", "wired cfc", "cfc, pure, no backbone"):
        write_c(describe(export_cases.make(name)), tmp_path, "net")
        compiled(["-O2", "-c", "net.c"], tmp_path)
        listing = subprocess.run(
            ["nm", "-u", "net.o"], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.split()
        called = {symbol for symbol in listing if symbol != "U"}
        assert called <= {"expf", "memcpy", "memset", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


@needs_gcc
@pytest.mark.parametrize("function", [nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.GELU(), nn.Softplus()])
def test_activations_over_their_range(function: nn.Module, tmp_path: Path) -> None:
    # The first output is that of the activation of the only input.
    layer = fastltc.CfC(1, 1, mode="pure", backbone_layers=0)
    with torch.no_grad():
        # A - A exp(..) f with A = -1 and no decay is f - 1, and f = x.
        layer.rnn_cell.A.fill_(-1)
        layer.rnn_cell.ff1.weight.copy_(torch.tensor([[1.0, 0.0]]))
        layer.rnn_cell.ff1.bias.fill_(1.0)
    code = Compiled([layer, function], tmp_path)
    x = torch.cat([torch.linspace(-30, 30, 3001), torch.linspace(-0.5, 0.5, 1001)])
    got = code.run(x.numpy()[:, None], np.zeros(len(x)))[:, 0]
    # What the layer before it gives in float32 is the argument.
    argument = (x + 1.0) - 1.0
    wanted = function(argument.double())
    assert float((torch.from_numpy(got).double() - wanted).abs().max()) < 3e-6
    near = argument.abs() < 0.5
    assert float((torch.from_numpy(got)[near].double() - wanted[near]).abs().max()) < 2.5e-7


@needs_gcc
def test_sizes_by_a_compiler_and_without() -> None:
    code = generate_c(describe(fastltc.LTC(16, AutoNCP(19, 2))))
    computed, measured = measure(code, None), measure(code, find_compiler("gcc"))
    assert computed.ram == measured.ram == 4 * 19
    # Constants are in both; code is in the measured figure only.
    assert code.table_bytes == computed.flash < measured.flash < code.table_bytes + 4000
    assert code.scratch_bytes <= measured.stack < code.scratch_bytes + 1000
    assert "no compiler" in str(computed)
    assert re.search(r"\(size of the object by gcc -Os [\d.]+ for \S+\)$", str(measured))
    tuned = measure(code, find_compiler("gcc -ffunction-sections"))
    assert "gcc -ffunction-sections -Os" in str(tuned)


@needs_gcc
def test_two_models_in_one_program_and_a_header_for_cxx(tmp_path: Path) -> None:
    for name, module in (("left", fastltc.LTC(2, AutoNCP(7, 1))), ("right", fastltc.CfC(3, 4))):
        write_c(describe(module), tmp_path, name)
        compiled(["-c", f"{name}.c"], tmp_path)
    (tmp_path / "both.cpp").write_text(
        """
        #include "left.h"
        #include "right.h"
        int main() {
            left_state left;
            right_state right;
            left_reset(&left);
            right_reset(&right);
            const float input[RIGHT_INPUT_SIZE] = {1, 2, 3};
            float output[RIGHT_OUTPUT_SIZE];
            return left_step(&left, input, 1, output) + right_step(&right, input, 1, output);
        }
        """
    )
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    command = ["g++", "-Wall", "-Wextra", "-Werror", "both.cpp", "left.o", "right.o", "-o", "both"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "both"], check=False).returncode == 0


def test_a_compiler_that_fails_or_is_not_there() -> None:
    with pytest.raises(ExportError, match="compiler: 'no-such-cc' is not on the PATH"):
        find_compiler("no-such-cc")
    if GCC:
        broken = CSource("model", "", "int main(void) { return syntax error; }", 0, 0, 0)
        with pytest.raises(ExportError, match=r"(?s)compiler: .*error"):
            measure(broken, [GCC])


@pytest.mark.parametrize("name", ["2nd", "a-b", "", "for", "x" * 42, "State"])
def test_names_that_are_no_c_identifiers(name: str) -> None:
    model = describe(fastltc.CfC(2, 3))
    with pytest.raises(ExportError, match="name: expected a C identifier"):
        generate_c(model, name)


def test_constants_are_exact() -> None:
    layer = fastltc.CfC(2, 3, backbone_layers=0, mode="pure")
    values = np.random.default_rng(0).integers(0, 2**32, 15, dtype=np.uint32).view(np.float32)
    values[~np.isfinite(values)] = 1e-45
    with torch.no_grad():
        layer.rnn_cell.ff1.weight.copy_(torch.from_numpy(values.reshape(3, 5)))
    text = generate_c(describe(layer)).source
    body = text.split("layer0_weight[15] = {")[1].split("}")[0]
    read = np.array([float(number.strip("f \n")) for number in body.split(",")], dtype=np.float32)
    assert np.array_equal(read, values)


def test_large_wirings_have_wider_indices() -> None:
    text = generate_c(describe(fastltc.LTC(3, FullyConnected(20)))).source
    assert "static const uint16_t layer0_recurrent_ends[20]" in text
    assert "static const uint8_t layer0_recurrent_from[400]" in text


def test_the_text_says_what_it_is() -> None:
    model = describe(fastltc.LTC(16, AutoNCP(19, 2)))
    code = generate_c(model, "pilot")
    for text in (code.header, code.source):
        assert f"Generated by fastltc {fastltc.__version__}" in text
        assert model_digest(model) in text
        assert "LTC, 19 neurons, 6 unfolds, 16 inputs, 2 outputs" in text
    assert "pilot_step(&state, input, dt, output) == PILOT_OK" in code.header


STRANGE = (
    "plain", "", 'quo"te', "back\\slash", "what??!", "end */ of", "new\nline", "\u00e9t\u00e9",
    "100%", "\0" "7", "$name",
)  # fmt: skip


@needs_gcc
def test_the_unit_of_time_and_names(tmp_path: Path) -> None:
    layer = fastltc.CfC(len(STRANGE), AutoNCP(9, 2))
    model = describe(layer, time_unit=60, input_names=STRANGE, output_names=["off", "on"])
    code = write_c(model, tmp_path)
    assert "second" not in re.sub("/\\* seconds that one unit of dt is \\*/", "", code.header)
    assert code.header.count("dt units of 60 s after the last") == 2
    (tmp_path / "names.c").write_text(
        """
        #include <stdio.h>
        #include "model.h"
        int main(void)
        {
            static const char inputs[][20] = MODEL_INPUT_NAMES;
            static const char *const outputs[] = MODEL_OUTPUT_NAMES;
            const float unit = MODEL_TIME_UNIT;
            fwrite(inputs, sizeof inputs, 1, stdout);
            return !(unit > 59.0f && unit < 61.0f) + 2 * (outputs[1][1] != 'n');
        }
        """
    )
    compiled(["-trigraphs", "names.c", "model.c", "-o", "names", "-lm"], tmp_path)
    done = subprocess.run([tmp_path / "names"], capture_output=True, check=True)
    # Each fills an array of 20.
    assert done.stdout == b"".join(name.encode().ljust(20, b"\0") for name in STRANGE)
    plain = generate_c(describe(layer)).header
    assert plain.count("dt seconds after the last") == 2
    assert "#define MODEL_TIME_UNIT 1.0f" in plain
    assert "_NAMES" not in plain


def test_a_compiler_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_compiler("env -DX=1 -g") == [shutil.which("env"), "-DX=1", "-g"]
    monkeypatch.setenv("CC", "env")
    assert find_compiler() == [shutil.which("env")]
    monkeypatch.setenv("CC", "no-such-cc")
    assert find_compiler() is None


@needs_gcc
def test_it_is_quick_enough(tmp_path: Path) -> None:
    """One step of AutoNCP(19, 2) with 16 inputs takes at most 6 us."""
    code = Compiled(fastltc.LTC(16, AutoNCP(19, 2)), tmp_path)
    x = np.ones(16, dtype=np.float32)
    addresses = code.state.ctypes.data, x.ctypes.data, code.output.ctypes.data
    best = math.inf
    for _ in range(20):
        start = time.thread_time()
        for _ in range(500):
            code.function(addresses[0], addresses[1], 0.1, addresses[2])
        best = min(best, (time.thread_time() - start) / 500)
    print(f"{best * 1e6:.2f} us, the call through ctypes included")
    assert best < 6e-6
