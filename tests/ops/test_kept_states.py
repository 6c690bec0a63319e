"""What a forward pass keeps for the backward pass: its size, here and in fake kernels."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import cfc_cases
import ltc_cases
from fastltc.ops import CFC_MODES
from fastltc.ops.ltc import _keeps_rates

CSRC = Path(__file__).resolve().parents[2] / "csrc"


def check(op: Any, arguments: tuple[Any, ...]) -> torch.Tensor:
    real = op(*arguments)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = op(
            *(
                mode.from_tensor(a)
                if isinstance(a, torch.Tensor)
                else [mode.from_tensor(t) for t in a]
                if isinstance(a, list) and a and isinstance(a[0], torch.Tensor)
                else a
                for a in arguments
            )
        )
    for got, expected in zip(fake, real, strict=True):
        assert got.shape == expected.shape
        assert got.stride() == expected.stride()
    return real[2]


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("timespans", [None, "BT", "BTN"])
def test_of_ltc(timespans: str | None, memory: bool) -> None:
    for batch, time, ode_unfolds in itertools.product((0, 1, 17, 40), (0, 1, 5), (1, 6)):
        options = {"timespans": timespans, "memory": memory, "ode_unfolds": ode_unfolds}
        arguments = ltc_cases.raw_arguments(ltc_cases.random_case(batch, time, **options), True)
        states = check(torch.ops.fastltc.ltc_forward.default, arguments)
        assert states.isfinite().all()
        kept = torch.ops.fastltc.ltc_backward
        output, hn = torch.zeros(batch, time, 2).double(), torch.zeros(batch, 7 * (1 + memory))
        for wrong in (states[:-1], states.new_zeros(states.numel() + 1), states[:, None]):
            if wrong.shape == states.shape:
                continue  # nothing was kept, and nothing is missing
            with pytest.raises(RuntimeError, match="states: expected shape"):
                kept(output, hn.double(), wrong, *arguments[:-1], False)


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("timespans", [None, "BT", "BTN"])
@pytest.mark.parametrize("mode", CFC_MODES)
def test_of_cfc(mode: str, timespans: str | None, memory: bool) -> None:
    for batch, time, layers in itertools.product((0, 1, 17, 40), (0, 1, 5), (0, 1, 2)):
        cells = (7,) if layers else (5, 3, 2)
        options = {"mode": mode, "timespans": timespans, "memory": memory}
        case = cfc_cases.random_cfc(batch, time, 4, cells, backbone_layers=layers, **options)
        arguments = cfc_cases.raw_arguments(case, True)
        states = check(torch.ops.fastltc.cfc_forward.default, arguments)
        assert states.isfinite().all()
        wrong = states.new_zeros(states.numel() + 1)
        with pytest.raises(RuntimeError, match="states: expected shape"):
            torch.ops.fastltc.cfc_backward(None, None, wrong, *arguments[:-1], False)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_of_dense_ltc_on_cuda_is_what_the_fake_kernel_says(tmp_path: Path) -> None:
    source = tmp_path / "rates.cpp"
    source.write_text(
        '#include "cuda/ltc.h"\n'
        'extern "C" bool rates(int64_t neurons, int64_t synapses, bool is_float64) {\n'
        "  fastltc::LayerSizes size;\n"
        "  size.N = neurons;\n"
        "  return fastltc::cuda::ltc_keeps_rates(size, {synapses, 0}, is_float64);\n"
        "}\n"
    )
    library = tmp_path / "rates.so"
    schedule = CSRC / "cuda" / "ltc_schedule.cpp"
    command = ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{CSRC}", source, schedule]
    subprocess.run([*map(str, command), "-o", str(library)], check=True)
    rates = ctypes.CDLL(str(library)).rates
    rates.argtypes, rates.restype = [ctypes.c_int64, ctypes.c_int64, ctypes.c_bool], ctypes.c_bool
    with FakeTensorMode():
        answers = set()
        for dtype in (torch.float32, torch.float64):
            x = torch.empty(0, dtype=dtype, device="cuda")
            for neurons in (1, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300):
                dense = neurons * neurons
                for synapses in {0, 4095, 4096, 4097, dense // 4 - 1, dense // 4, dense}:
                    synapse_list = torch.empty(max(0, synapses) + neurons + 1, device="cuda")
                    answer = rates(neurons, max(0, synapses), dtype == torch.float64)
                    assert _keeps_rates(x, neurons, synapse_list) == answer, (neurons, synapses)
                    answers.add(answer)
        assert answers == {True, False}
