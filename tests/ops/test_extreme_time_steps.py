"""Time steps of 0 and near the largest number, and neurons without capacitance.

Held against the reference in float64: a step of 0 holds the state of an LTC, a large one is the
limit, and nothing becomes NaN.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import cfc_cases
import ltc_cases
from fastltc.ops import CFC_MODES

DTYPES = [torch.float32, torch.float64]
BATCHES = (1, 3, 20, 70)
TIME = 4


def extreme(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw time steps among 0, some of everyday, and the largest."""
    largest = torch.finfo(dtype).max
    choices = torch.tensor([0.0, 0.0, 1.0, 0.3, 1e10, 2.0**64, largest / 2, largest], dtype=dtype)
    return choices[torch.randint(len(choices), shape)]


def check(cases: Any, case: Any, dtype: torch.dtype) -> None:
    case = case.to(dtype)
    wide = case.to(torch.float64)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    expected = dict(zip(("output", "hn"), cases.run_reference(wide), strict=True))
    actual = dict(zip(("output", "hn"), cases.run_operator(case), strict=True))
    actual = {name: value.double() for name, value in actual.items()}
    ltc_cases.assert_all_close(actual, expected, tolerance)
    weights = cases.random_weights(wide)
    expected = ltc_cases.with_gradients(cases.run_reference, wide, weights)
    narrow = tuple(w.to(dtype) for w in weights)
    for run in (cases.run_operator, cases.run_reference):
        results = ltc_cases.with_gradients(run, case, narrow)
        actual = {name: value.double() for name, value in results.items()}
        ltc_cases.assert_all_close(actual, expected, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("timespans", ["BT", "BTN"])
@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("lengths", [False, True])
def test_ltc(
    lengths: bool, softplus: bool, timespans: str, memory: bool, dtype: torch.dtype
) -> None:
    for batch in BATCHES:
        options: dict[str, Any] = {"softplus": softplus, "timespans": timespans, "memory": memory}
        case = ltc_cases.random_case(batch, TIME, neurons=19, lengths=lengths, **options)
        given = case.data["timespans"]
        steps = extreme(tuple(given.shape), dtype).double()
        case = case.with_(timespans=torch.where(given.isnan(), given, steps))
        # As apply_weight_constraints leaves them, and as softplus makes them of strong decay.
        cm = case.parameters["cm"].clone()
        cm[::2] = -1000.0 if softplus else 0.0
        check(ltc_cases, case.with_(cm=cm), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_a_step_of_0_holds_every_state_exactly(density: float, dtype: torch.dtype) -> None:
    for batch in BATCHES:
        case = ltc_cases.random_case(batch, TIME, neurons=33, density=density, softplus=False)
        steps = torch.zeros(batch, TIME, dtype=torch.float64)
        case = case.with_(timespans=steps, cm=torch.zeros(33).double()).to(dtype)
        assert torch.equal(ltc_cases.run_operator(case)[1], case.data["h0"])
        held = ltc_cases.run_operator(case.requiring_grad())[1]
        assert torch.equal(held, case.data["h0"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("timespans", ["BT", "BTN"])
@pytest.mark.parametrize("backbone_layers", [0, 1])
@pytest.mark.parametrize("mode", CFC_MODES)
def test_cfc(
    mode: str, backbone_layers: int, timespans: str, memory: bool, dtype: torch.dtype
) -> None:
    cells = (7,) if backbone_layers else (5, 3, 2)
    options: dict[str, Any] = {"mode": mode, "backbone_layers": backbone_layers, "memory": memory}
    for batch in BATCHES:
        case = cfc_cases.random_cfc(batch, TIME, 4, cells, timespans=timespans, **options)
        steps = extreme(tuple(case.data["timespans"].shape), dtype).double()
        check(cfc_cases, case.with_(timespans=steps), dtype)
