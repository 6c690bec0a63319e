"""What only CfC has: backbones with their activations and dropout."""

from __future__ import annotations

import pytest
import torch

from fastltc.ops import CFC_ACTIVATIONS, CFC_MODES
from layers import (
    CfcCase,
    assert_all_close,
    check_against_reference,
    check_values,
    random_weights,
    run_operator,
    run_reference,
    with_gradients,
)


@pytest.mark.parametrize("activation", CFC_ACTIVATIONS)
@pytest.mark.parametrize(("layers", "units"), [(0, 1), (1, 1), (1, 19), (2, 16), (3, 33)])
def test_backbones(layers: int, units: int, activation: str) -> None:
    cells = ((5, 4, 3, 7), (33, 2, 1, 18), (1, 3, 17, 1))
    for mode, (*sizes, neurons) in zip(CFC_MODES, cells, strict=True):
        options = {"mode": mode, "activation": activation, "density": None, "units": units}
        case = CfcCase.random(*sizes, (neurons,), backbone_layers=layers, **options)
        check_against_reference(case)
        check_values(case)


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("layers", [2, 4])
def test_dropout_factors(layers: int, mode: str) -> None:
    for batch in (3, 19):
        case = CfcCase.random(
            *(batch, 5, 4, (6,)),
            mode=mode,
            backbone_layers=layers,
            dropout=0.4,
            lengths=True,
            activation="silu",
        )
        check_against_reference(case)
        check_values(case)
    transposed = case.dropout.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    check_against_reference(case.with_(dropout=transposed))


@pytest.mark.parametrize("mode", CFC_MODES)
def test_large_arguments_saturate(mode: str) -> None:
    for dtype in (torch.float32, torch.float64):
        case = CfcCase.random(20, 3, poison=False, mode=mode, dtype=dtype)
        case = case.with_(
            **{n: t * 1e3 for n, t in case.parameters.items() if n.endswith("weight")}
        )
        weights = random_weights(case)
        actual = with_gradients(run_operator, case, weights)
        assert all(torch.isfinite(value).all() for value in actual.values())
        if dtype == torch.float64 and mode != "pure":
            # What is saturated has no gradient; in pure mode only time steps of 0 have one, and
            # it is as large as its rounding.
            expected = with_gradients(run_reference, case, weights)
            for name in ("output", "hn"):
                assert_all_close({name: actual[name]}, {name: expected[name]})
