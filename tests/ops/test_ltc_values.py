"""What only LTC has: kernels for few samples, unfolds, the slopes and signs of its synapses."""

from __future__ import annotations

import pytest
import torch

from fastltc.ops import ltc
from layers import (
    LtcCase,
    assert_all_close,
    check_against_reference,
    check_values,
    random_weights,
    run_operator,
    run_reference,
    with_gradients,
)


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("neurons", [1, 2, 7, 8, 16, 17, 31, 32, 33, 64, 65, 130])
def test_inference_on_few_samples(neurons: int, density: float) -> None:
    for batch in (1, 2, 5):
        for timespans, lengths in ((None, False), ("BT", True), ("BTN", True)):
            options = {"density": density, "timespans": timespans, "lengths": lengths}
            check_values(LtcCase.random(batch, 3, 5, neurons, 1, **options))


@pytest.mark.parametrize("unfolds", [1, 2, 7])
@pytest.mark.parametrize("epsilon", [0.0, 1e-8, 0.5])
def test_unfolds_and_epsilon(unfolds: int, epsilon: float) -> None:
    check_against_reference(LtcCase.random(ode_unfolds=unfolds, epsilon=epsilon))


@pytest.mark.parametrize("batch", [2, 40])
def test_a_dense_layer_with_many_synapses(batch: int) -> None:
    check_against_reference(LtcCase.random(batch, 2, 5, 61, 4, density=1.0, ode_unfolds=3))


def test_extreme_arguments_of_the_sigmoid_saturate() -> None:
    for dtype in (torch.float32, torch.float64):
        # Each further unfold multiplies rounding by the slopes, in the reference as well.
        for time, unfolds in ((3, 6), (1, 1)):
            case = LtcCase.random(20, time, poison=False, dtype=dtype, ode_unfolds=unfolds)
            case = case.with_(
                sigma=case.parameters["sigma"] * 1e4,
                sensory_sigma=case.parameters["sensory_sigma"] * 1e4,
            )
            weights = random_weights(case)
            actual = with_gradients(run_operator, case, weights)
            assert all(torch.isfinite(value).all() for value in actual.values())
            if dtype == torch.float64 and unfolds == 1:
                assert_all_close(actual, with_gradients(run_reference, case, weights))


def test_softplus_is_linear_above_its_threshold() -> None:
    case = LtcCase.random()
    for name in ("cm", "gleak"):
        case.parameters[name][:4] = torch.tensor([19.999, 20.0, 20.001, 45.0])
    case.parameters["w"].copy_(torch.where(case.masks[0] == 1, 20.5, torch.nan))
    check_against_reference(case)


def test_the_function_takes_what_the_class_passes() -> None:
    case = LtcCase.random()
    options = (case.options[n] for n in ("output_size", "ode_unfolds"))
    positional = ltc(*case.arguments(), *options)
    assert torch.equal(positional[0], run_operator(case)[0])
