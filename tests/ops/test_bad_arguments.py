"""What the operators of all cells refuse, and what they say."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor

import fastltc
from fastltc.ops import cfc, ltc
from fastltc.ops.errors import check_has_kernels
from layers import CELLS, Case, CfcCase, Draw, LtcCase, plainly, run_operator, run_raw

Bad = dict[str, tuple[dict[str, Any], type[Exception], str]]


def refused(case: Case, error: type[Exception], match: str) -> None:
    """Check that the operator refuses, and that the function says why in its own words."""
    with pytest.raises(RuntimeError):
        run_raw(case, save_states=False)
    with pytest.raises(error, match=match):
        run_operator(case)


def bad_data(n: int) -> Bad:
    """Return what no layer of ``n`` neurons takes for 3 samples of 5 steps of 4 features."""
    return {
        "x of two axes": ({"x": torch.zeros(3, 4).double()}, ValueError, r"x: .*\[B, T, I\]"),
        "integer x": ({"x": torch.zeros(3, 5, 4, dtype=torch.int64)}, TypeError, "x: .*int64"),
        "h0 of another batch": (
            {"h0": torch.zeros(1, n).double()},
            ValueError,
            rf"h0: expected shape \[B, N\] = \[3, {n}\], got \[1, {n}\]",
        ),
        "h0 of another dtype": ({"h0": torch.zeros(3, n)}, TypeError, "h0: .*float64.*float32"),
        "timespans per step only": (
            {"timespans": torch.ones(5).double()},
            ValueError,
            r"timespans: expected shape \[B, T\] = \[3, 5\], got \[5\]",
        ),
        "timespans of other neurons": (
            {"timespans": torch.ones(3, 5, 6).double()},
            ValueError,
            rf"timespans: expected shape \[B, T, N\] = \[3, 5, {n}\], got \[3, 5, 6\]",
        ),
        "a negative time step": (
            {"timespans": -torch.ones(3, 5).double()},
            ValueError,
            r"timespans: .*got -1.0 at \[0, 0\] \(15 of 15",
        ),
        "a time step that is not a number": (
            {"timespans": torch.tensor([[1.0, torch.nan, 1, 1, 1]]).double().expand(3, 5)},
            ValueError,
            r"timespans: .*got nan at \[0, 1\]",
        ),
        "an infinite time step": (
            {"timespans": torch.full((3, 5, n), torch.inf).double()},
            ValueError,
            r"timespans: .*got inf at \[0, 0, 0\]",
        ),
        "too long": (
            {"lengths": torch.tensor([5, 6, 0])},
            ValueError,
            "lengths: expected values of 0 to T = 5, got 0 to 6",
        ),
        "a negative length": ({"lengths": torch.tensor([5, -1, 0])}, ValueError, "lengths: .*-1"),
        "lengths of another batch": (
            {"lengths": torch.tensor([5, 5])},
            ValueError,
            r"lengths: expected shape \[B\] = \[3\], got \[2\]",
        ),
        "float lengths": (
            {"lengths": torch.ones(3)},
            TypeError,
            "lengths: expected int64, got .*32",
        ),
        "resets of another shape": (
            {"resets": torch.zeros(5, 3, dtype=torch.bool)},
            ValueError,
            r"resets: expected shape \[B, T\] = \[3, 5\], got \[5, 3\]",
        ),
        "resets that are numbers": (
            {"resets": torch.zeros(3, 5)},
            TypeError,
            "resets: expected torch.bool, got torch.float32",
        ),
    }


BAD: dict[str, Bad] = {
    "LTC": {
        "x with other features": (
            {"x": torch.zeros(3, 5, 9).double()},
            ValueError,
            r"sensory_sigma: expected shape \[I, N\] = \[9, 7\], got \[4, 7\]",
        ),
        "gleak of another size": (
            {"vleak": torch.zeros(6).double()},
            ValueError,
            r"vleak: expected shape \[N\] = \[7\], got \[6\]",
        ),
        "w of another shape": (
            {"w": torch.zeros(7, 6).double()},
            ValueError,
            r"w: expected shape \[N, N\] = \[7, 7\], got \[7, 6\]",
        ),
        "output_b of another size": (
            {"output_b": torch.zeros(3).double()},
            ValueError,
            r"output_b: expected shape \[M\] = \[2\], got \[3\]",
        ),
        "mu of another dtype": ({"mu": torch.zeros(7, 7)}, TypeError, "mu: .*float64.*float32"),
        "more motors than neurons": (
            {"output_size": 8, "output_w": None},
            ValueError,
            "output_size: .* 7, got 8",
        ),
        "no unfold": ({"ode_unfolds": 0}, ValueError, "ode_unfolds: expected 1 or more, got 0"),
    },
    "CfC": {
        "x with other features": (
            {"x": torch.zeros(3, 5, 9).double()},
            ValueError,
            r"masks\[0\]: expected shape \[n, K\] = \[5, 14\], got \[5, 9\]",
        ),
        "no cell": ({"layer_sizes": []}, ValueError, r"layer_sizes: .* got \[\]"),
        "a cell without neurons": (
            {"layer_sizes": [5, 0, 2]},
            ValueError,
            "layer_sizes: .*or more",
        ),
        "more outputs than neurons": (
            {"output_size": 11},
            ValueError,
            "output_size: expected 1 to 10 neurons, got 11",
        ),
        "other cells": (
            {"layer_sizes": [5, 3]},
            ValueError,
            "masks: expected none or one for each of 2 cells, got 3",
        ),
        "parameters of another mode": (
            {"mode": "pure"},
            ValueError,
            "parameters: expected 12 tensors with 3 cells, 0 backbone layers and mode 'pure', "
            "got 24",
        ),
        "a backbone with masks": (
            {"backbone_layers": 1},
            ValueError,
            "backbone_layers: .* got 1 with 3 cells and 3 masks",
        ),
        "a backbone with the mask of one cell": (
            {"backbone_layers": 1, "layer_sizes": [10], "masks": [torch.ones(10, 14)]},
            ValueError,
            "backbone_layers: .* got 1 with 1 cells and 1 masks",
        ),
        "a backbone of several cells": (
            {"backbone_layers": 1, "masks": []},
            ValueError,
            "backbone_layers: .* got 1 with 3 cells and 0 masks",
        ),
        "dropout without a backbone": (
            {"dropout": torch.ones(1, 3, 5, 4).double()},
            ValueError,
            r"dropout: expected shape \[backbone_layers - 1, B, T, units\]",
        ),
    },
}


@pytest.mark.parametrize(
    ("cell", "bad"),
    [
        pytest.param(cell, bad, id=f"{name} {what}")
        for name, cell in CELLS.items()
        for what, bad in {**bad_data(cell.random().neurons), **BAD.get(name, {})}.items()
    ],
)
@pytest.mark.parametrize("needs_grad", [False, True])
def test_bad_arguments(cell: type[Case], bad: Any, needs_grad: bool) -> None:
    changes, error, match = bad
    case = cell.random(poison=False)
    case.parameters[cell.some_parameter].requires_grad_(needs_grad)
    refused(case.with_(**changes), error, match)


@pytest.mark.parametrize("needs_grad", [False, True])
def test_bad_parameters_are_named(needs_grad: bool) -> None:
    for options in ({}, {"layer_sizes": (4,), "backbone_layers": 2}, {"mode": "pure"}):
        case = CfcCase.random(poison=False, **options)
        case.data["x"].requires_grad_(needs_grad)
        for name, good in case.parameters.items():
            for bad, error, text in (
                (good[..., :-1], ValueError, r"expected shape \["),
                (good.float(), TypeError, "expected torch.float64"),
            ):
                short = name.partition(".")[2].removeprefix("0.").removeprefix("1.")
                match = rf"parameters\[\d+\] \(.*{short}\): {text}"
                refused(case.with_(**{name: bad}), error, match)


@pytest.mark.parametrize("expanded", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("name", CELLS)
def test_the_place_of_a_bad_time_step(name: str, expanded: tuple[int, ...]) -> None:
    case = CELLS[name].random(poison=False)
    shape = 3, 5, case.neurons
    kept = [1 if d in expanded else size for d, size in enumerate(shape)]
    steps = torch.ones(kept).double()
    steps[-1, -1, -1] = -1.0
    place = ", ".join(str(size - 1) for size in kept)
    count = math.prod(shape) // math.prod(kept)
    match = rf"timespans: .*got -1.0 at \[{place}\] \({count} of {math.prod(shape)}"
    refused(case.with_(timespans=steps.expand(shape)), ValueError, match)


@pytest.mark.parametrize("left", [0, 8, -8])  # below 0, so many bytes less than are needed
@pytest.mark.parametrize("name", CELLS)
def test_storages_that_were_made_smaller(name: str, left: int) -> None:
    case = CELLS[name].random(poison=False)
    for what in ("x", "h0", "timespans", CELLS[name].some_parameter):
        good = {**case.data, **case.parameters}[what]
        small = good.detach().clone()
        needed = good.numel() * good.element_size()
        kept = left % needed
        small.untyped_storage().resize_(kept)
        last = what.rpartition(".")[2]
        match = rf"{last}\)?: expected a storage of at least {needed} bytes, got one of {kept}$"
        refused(case.with_(**{what: small}), ValueError, match)


RACE = """
import threading
import torch
import fastltc
torch.set_num_threads(1)
{setup}
going = True
def write():
    while going:
        bad()
        good()
thread = threading.Thread(target=write)
thread.start()
ran = refused = 0
try:
    # Until both have happened often: read again after the check, such values end the process.
    while min(ran, refused) < 200:
        for call in calls:
            try:
                call()
                ran += 1
            except (RuntimeError, ValueError):
                refused += 1
finally:
    going = False
    thread.join()
"""

LENGTHS = """
layers = [fastltc.LTC(4, fastltc.wirings.AutoNCP(19, 2)), fastltc.CfC(4, 19)]
x, lengths, dt = torch.randn(512, 8, 4), torch.full((512,), 8), torch.ones(512, 8)
calls = [lambda layer=layer: layer(x, timespans=dt, lengths=lengths) for layer in layers]
def bad(): lengths.fill_(1 << 40)
def good(): lengths.fill_(8)
"""

ENTRIES = """
mask = (torch.rand(200, 300) < 0.5).float()
entries = fastltc.ops.mask_entries(mask)
x, list = torch.randn(8, 300), entries.clone()
calls = [
    lambda: torch.ops.fastltc.masked_linear(x, mask, None, list),
    lambda: torch.ops.fastltc.masked_linear_backward(x[:, :200], x, mask, list, True),
]
def bad(): list.fill_(1 << 30)
def good(): list.copy_(entries)
"""


@pytest.mark.parametrize("setup", [LENGTHS, ENTRIES], ids=["lengths", "entries"])
def test_arguments_that_another_thread_writes(setup: str) -> None:
    script = RACE.format(setup=setup)
    done = subprocess.run([sys.executable, "-c", script], timeout=300, check=False)
    assert done.returncode == 0


def test_unknown_names() -> None:
    case = CfcCase.random()
    with pytest.raises(ValueError, match=r"mode: expected one of .*, got 'impure'"):
        cfc(*case.arguments(), **{**case.options, "mode": "impure"})
    with pytest.raises(ValueError, match=r"activation: expected one of .*, got 'sin'"):
        cfc(*case.arguments(), **{**case.options, "activation": "sin"})


def test_bad_synapse_lists() -> None:
    case = LtcCase.random(poison=False, density=1.0)
    *front, synapses, sensory_synapses = case.arguments()

    def call(synapses: Tensor, sensory_synapses: Tensor) -> None:
        ltc(*front, synapses, sensory_synapses, **case.options)

    with pytest.raises(TypeError, match="synapses: expected the int32 list"):
        call(synapses.long(), sensory_synapses)
    for broken in (synapses[:3], synapses[:-1], synapses + 1, synapses.flip(0), synapses * -1):
        with pytest.raises(RuntimeError, match=r"fastltc::ltc_forward: synapses"):
            call(broken, sensory_synapses)
        with pytest.raises(RuntimeError, match=r"fastltc::ltc_forward: sensory_synapses"):
            call(synapses, broken)


@plainly
def test_tensors_on_another_device_say_what_to_do(draw: Draw) -> None:
    case = draw(poison=False)
    meta_x = case.with_(x=case.data["x"].to("meta"))
    with pytest.raises(TypeError, match="expected a tensor on meta"):
        run_operator(meta_x)
    with pytest.raises(NotImplementedError, match=r"no meta kernels.*FASTLTC_CUDA"):
        check_has_kernels(f"{case.operator}_forward", meta_x.data["x"])


@pytest.mark.parametrize("layer", [fastltc.LTC, fastltc.CfC])
def test_one_output_is_enough(layer: Any) -> None:
    output, _ = layer(3, AutoNCP(9, 1))(torch.zeros(2, 1, 3))
    assert output.shape == (2, 1, 1)
