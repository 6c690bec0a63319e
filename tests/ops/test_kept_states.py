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

from fastltc.ops.ltc import _keeps_rates, _kept_unfolds
from layers import (
    Draw,
    backward_arguments,
    change_tensors,
    every_equation_and_layout,
    raw_arguments,
)

CSRC = Path(__file__).resolve().parents[2] / "csrc"


def check(op: Any, arguments: tuple[Any, ...]) -> torch.Tensor:
    real = op(*arguments)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = op(*change_tensors(arguments, mode.from_tensor))
    for got, expected in zip(fake, real, strict=True):
        assert got.shape == expected.shape
        assert got.stride() == expected.stride()
    return real[2]


# Options on which the size depends, beside those of every layer.
OWN: dict[str, list[dict[str, Any]]] = {
    "LTC": [{"ode_unfolds": 1}, {"ode_unfolds": 6}],
    "CfC": [{}, {"backbone_layers": 1}],
}


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("timespans", [None, "BT", "BTN"])
@every_equation_and_layout
def test_what_is_kept(draw: Draw, timespans: str | None, memory: bool) -> None:
    options = OWN.get(draw.cell.cell, [{}])
    for batch, time, own in itertools.product((0, 1, 17, 40), (0, 1, 5), options):
        case = draw(batch, time, timespans=timespans, memory=memory, **own)
        states = check(case.forward.default, raw_arguments(case, True))
        assert states.isfinite().all()
        for wrong in (states[:-1], states.new_zeros(states.numel() + 1), states[:, None]):
            if wrong.shape == states.shape:
                continue  # nothing was kept, and nothing is missing
            with pytest.raises(RuntimeError, match="states: expected shape"):
                case.backward(*backward_arguments(case, (None, None), wrong, False))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """What the kernels' sources say of the sizes of LTC."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("kept")
    source = folder / "kept.cpp"
    source.write_text(
        '#include "cuda/ltc.h"\n'
        'extern "C" bool rates(int64_t neurons, int64_t synapses, bool is_float64) {\n'
        "  fastltc::LayerSizes size;\n"
        "  size.N = neurons;\n"
        "  return fastltc::cuda::ltc_keeps_rates(size, {synapses, 0}, is_float64);\n"
        "}\n"
        'extern "C" int64_t unfolds(int64_t B, int64_t T, int64_t N, int64_t S, int64_t U,'
        "                           int64_t nets) {\n"
        "  return fastltc::ltc_kept_unfolds({B, T, 0, N, 0, U}, S, nets);\n"
        "}\n"
    )
    library = folder / "kept.so"
    schedule = CSRC / "cuda" / "ltc_schedule.cpp"
    command = ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{CSRC}", source, schedule]
    subprocess.run([*map(str, command), "-o", str(library)], check=True)
    found = ctypes.CDLL(str(library))
    found.rates.argtypes = [ctypes.c_int64, ctypes.c_int64, ctypes.c_bool]
    found.rates.restype = ctypes.c_bool
    found.unfolds.argtypes, found.unfolds.restype = [ctypes.c_int64] * 6, ctypes.c_int64
    return found


def test_of_dense_ltc_on_cuda_is_what_the_fake_kernel_says(kernels: ctypes.CDLL) -> None:
    with FakeTensorMode():
        answers = set()
        for dtype in (torch.float32, torch.float64):
            x = torch.empty(0, dtype=dtype, device="cuda")
            for neurons in (1, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300):
                dense = neurons * neurons
                for synapses in {0, 4095, 4096, 4097, dense // 4 - 1, dense // 4, dense}:
                    synapse_list = torch.empty(max(0, synapses) + neurons + 1, device="cuda")
                    answer = kernels.rates(neurons, max(0, synapses), dtype == torch.float64)
                    assert _keeps_rates(x, neurons, synapse_list) == answer, (neurons, synapses)
                    answers.add(answer)
        assert answers == {True, False}


def test_of_large_ltc_on_cpus_is_what_the_fake_kernel_says(kernels: ctypes.CDLL) -> None:
    with FakeTensorMode():
        answers = set()
        for nets, unfolds, batch in itertools.product(
            (1, 3), (1, 4, 6), (0, 1, 1 << 14, (1 << 14) + 1)
        ):
            x = torch.empty(batch, 1 << 7, 3)
            for neurons, synapses in itertools.product((32, 128), (0, 682, 683, 1024, 1025, 4097)):
                synapse_list = torch.empty(synapses + neurons + 1)
                answer = kernels.unfolds(batch, x.shape[1], neurons, synapses, unfolds, nets)
                assert _kept_unfolds(x, neurons, synapse_list, unfolds, nets) == answer
                answers.add((unfolds, answer))
        assert answers == {(1, 1), (4, 1), (4, 4), (6, 1), (6, 6)}
