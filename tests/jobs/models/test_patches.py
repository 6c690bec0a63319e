"""Forecasts of each target from its own past, several rows at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastltc.jobs.models import Goal, build_model
from fastltc.jobs.models.patches import Patches

CELLS = ["ltc", "cfc", "lstm"]


def patches(
    cell: str = "cfc", *, masked: bool = False, known: bool = False, **options: Any
) -> Patches:
    """Forecasts five steps of two targets, with scales that are not 0 and 1."""
    goal = Goal("forecasting", 2, False, 5, int(known), (), masked, (0, 1), (2,) * known)
    model = build_model(
        f"patches-{cell}", (20, 2 + known), 2, 8, goal=goal, **{"patch": 6, **options}
    )
    assert isinstance(model, Patches)
    rows = torch.randn(30, 20, 2 + known) * 3 + 50
    future = torch.randn(30, 5, 1) * 4 if known else None
    measured = torch.rand(rows.shape) > 0.3 if masked else None
    model.fit_scales(rows, None, measured, future)
    model.fit_answers(torch.randn(30, 5, 2) * 3 + 50, rows, None, measured)
    return model.eval()


@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5, 0.9)], ids=["value", "quantiles"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_is_answered_alone_as_in_a_batch(
    cell: str, masked: bool, quantiles: tuple[float, ...]
) -> None:
    goal = Goal("forecasting", 2, False, 5, 1, quantiles, masked, (0, 1), (2,))
    model = build_model(f"patches-{cell}", (20, 3), 2, 8, patch=6, goal=goal).eval()
    rows, future, spans = torch.randn(5, 20, 3), torch.randn(5, 5, 1), torch.rand(5, 20)
    measured = torch.rand(rows.shape) > 0.3 if masked else None
    lengths = torch.tensor([20, 12, 7, 6, 1])
    found = model(rows, spans, lengths, measured, future)
    assert found.shape == (5, 5, 2, *quantiles[:0], *((3,) if quantiles else ()))
    for at, count in enumerate(lengths):
        one = slice(at, at + 1)
        there = None if measured is None else measured[one, :count]
        alone = model(rows[one, :count], spans[one, :count], None, there, future[one])
        torch.testing.assert_close(alone[0], found[at], rtol=1e-5, atol=1e-5)
    assert model(rows[:0], spans[:0], None, None, future[:0]).shape == (0, *found.shape[1:])


def test_a_forecast_is_of_a_target_alone_and_moves_with_it() -> None:
    model = patches()
    rows = torch.randn(4, 20, 2) + 50
    found = model(rows)
    other = rows.clone()
    other[..., 1] = torch.randn(4, 20)
    torch.testing.assert_close(model(other)[..., 0], found[..., 0])
    assert not torch.allclose(model(other)[..., 1], found[..., 1])
    torch.testing.assert_close(model(rows + 7), found + 7, rtol=1e-5, atol=1e-4)


def test_the_first_value_stands_before_a_patch_that_is_not_full() -> None:
    model = patches()
    rows = torch.randn(3, 20, 2)
    whole = torch.cat([rows[:, :1].expand(-1, 4, -1), rows], dim=1)
    torch.testing.assert_close(model(rows), model(whole))


def test_the_time_step_of_a_patch_is_the_mean_of_its_rows() -> None:
    model = patches("ltc")
    rows, spans = torch.randn(3, 12, 2), torch.rand(3, 12)
    moved = spans.clone()
    moved[:, 0], moved[:, 1] = spans[:, 1], spans[:, 0]
    torch.testing.assert_close(model(rows, moved), model(rows, spans))
    assert not torch.allclose(model(rows, 2 * spans), model(rows, spans))
    torch.testing.assert_close(model(rows, torch.ones(3, 12)), model(rows))
    steady = patches("ltc", timestep=0.5)
    assert torch.equal(steady(rows, spans), steady(rows))


def test_what_was_not_measured_is_not_read() -> None:
    model = patches(masked=True)
    rows = torch.randn(3, 20, 2) + 50
    measured = torch.rand(rows.shape) > 0.3
    other = torch.where(measured, rows, torch.nan)
    assert torch.equal(model(other, measured=measured), model(rows, measured=measured))


def test_a_patch_itself_is_read_without_an_encoder() -> None:
    model = patches(encoder=0)
    assert model.rnn.input_size == model.patch
    assert model(torch.randn(3, 20, 2)).shape == (3, 5, 2)


def test_what_is_known_of_the_steps_ahead_is_read() -> None:
    model = patches(known=True)
    rows, future = torch.randn(3, 20, 3), torch.randn(3, 5, 1)
    found = model(rows, future=future)
    assert not torch.allclose(model(rows, future=future + 1), found)
    rows[..., 2] = 9.0
    assert torch.equal(model(rows, future=future), found)


def test_it_starts_as_the_scales_say() -> None:
    """The readout counts in deviations of the difference to the last value."""
    model = patches()
    torch.nn.init.zeros_(model.readout.weight)
    torch.nn.init.zeros_(model.readout.bias)
    rows = torch.randn(3, 20, 2)
    expected = rows[:, -1:] + model.answers.mean
    torch.testing.assert_close(model(rows), expected.expand(3, 5, 2))


FORECAST = Goal("forecasting", 2, False, 5, 0, (), False, (0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": None}, "model: patches-. forecast, and the task is classification of every"),
        ({"goal": Goal("forecasting", 2, horizon=5, own=(0, -1))}, "read the past of the targets"),
        ({"goal": Goal("forecasting", 1, horizon=5, own=(0,))}, "nothing but the targets and"),
        ({"patch": 0}, "patch: expected at least 1, got 0"),
        ({"encoder": -1}, "encoder: expected a finite number from 0"),
        ({"dropout": 1.0}, "dropout: expected a number from 0 below 1"),
        ({"timestep": 0.0}, "timestep: expected a finite number above 0"),
        ({"wiring": "ncp"}, "wiring: the readout sees all neurons"),
        ({"wiring": "full", "backbone_units": 9}, "backbone_units: only a CfC without a wiring"),
        ({"unfolds": 3}, "unfolds: an option of LTC"),
        ({"decoder": 4}, "decoder: no option of the model patches-cfc, whose options are"),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("patches-cfc", (20, 2), 2, **{"goal": FORECAST, **options})


def test_it_is_not_exported() -> None:
    with pytest.raises(ValueError, match="read several rows at a time"):
        patches().export_layers()
