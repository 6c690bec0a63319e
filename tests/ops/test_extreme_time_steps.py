"""Time steps of 0 and near the largest number, and neurons without capacitance.

Held against the reference in float64: a step of 0 holds the state of an LTC, a large one is the
limit, and nothing becomes NaN.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from layers import (
    Case,
    Draw,
    LtcCase,
    assert_all_close,
    every_equation_and_layout,
    named,
    random_weights,
    run_operator,
    run_reference,
    with_gradients,
)

pytestmark = pytest.mark.kernels

DTYPES = [torch.float32, torch.float64]
BATCHES = (1, 3, 20, 70)
TIME = 4


def extreme(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw time steps among 0, some of everyday, and the largest."""
    largest = torch.finfo(dtype).max
    choices = torch.tensor([0.0, 0.0, 1.0, 0.3, 1e10, 2.0**64, largest / 2, largest], dtype=dtype)
    return choices[torch.randint(len(choices), shape)]


def as_doubles(results: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in results.items()}


def check(case: Case, dtype: torch.dtype) -> None:
    case = case.to(dtype)
    wide = case.to(torch.float64)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    expected = named(run_reference(wide))
    assert_all_close(as_doubles(named(run_operator(case))), expected, tolerance)
    weights = random_weights(wide)
    expected = with_gradients(run_reference, wide, weights)
    narrow = tuple(w.to(dtype) for w in weights)
    for run in (run_operator, run_reference):
        assert_all_close(as_doubles(with_gradients(run, case, narrow)), expected, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("timespans", ["BT", "BTN"])
@pytest.mark.parametrize("lengths", [False, True])
@every_equation_and_layout
def test_any_layer(
    draw: Draw, lengths: bool, timespans: str, memory: bool, dtype: torch.dtype
) -> None:
    for batch in BATCHES:
        case = draw(batch, TIME, lengths=lengths, timespans=timespans, memory=memory)
        given = case.data["timespans"]
        steps = extreme(tuple(given.shape), dtype).double()
        case = case.with_(timespans=torch.where(given.isnan(), given, steps))
        if isinstance(case, LtcCase):
            # As apply_weight_constraints leaves them, and as softplus makes them of strong decay.
            cm = case.parameters["cm"].clone()
            cm[::2] = -1000.0 if case.options["softplus"] else 0.0
            case = case.with_(cm=cm)
        check(case, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_a_step_of_0_holds_every_state_of_ltc_exactly(density: float, dtype: torch.dtype) -> None:
    for batch in BATCHES:
        case = LtcCase.random(batch, TIME, neurons=33, density=density, softplus=False)
        steps = torch.zeros(batch, TIME, dtype=torch.float64)
        case = case.with_(timespans=steps, cm=torch.zeros(33).double()).to(dtype)
        for run in (case, case.requiring_grad()):
            assert torch.equal(run_operator(run)[1], case.data["h0"])
