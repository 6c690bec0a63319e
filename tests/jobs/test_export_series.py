"""Models of time series that leave torch: row by row they answer what the run answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastltc.exporting import ExportError
from fastltc.jobs import Run, TrainConfig, train
from fastltc.jobs.evaluation.judge import answers_of
from fastltc.jobs.export import describe_run
from fastltc.runtime import Impute, Session, write_model
from series_data import QUICK, known_as, made

pytestmark = pytest.mark.usefixtures("no_pictures")


def fitted(monkeypatch: pytest.MonkeyPatch, out: Path, data: dict[str, Any], **how: Any) -> Run:
    config = TrainConfig.for_data(known_as(monkeypatch, made(**data)), **{**QUICK, **how})
    return train(config, out)


@pytest.mark.parametrize(
    ("data", "options", "names"),
    [
        (
            {"targets": ("level", "slope")},
            {"model": "series-cfc", "wiring": "ncp", "units": 12},
            ("level", "slope"),
        ),
        ({"per_step": False, "masked": True}, {"encoder": 5, "impute": "decay"}, ("level",)),
        (
            {"per_step": False},
            {"time_input": True, "encoder": 5, "clip": 0.7, "unfolds": 3, "dropout": 0.1},
            ("level",),
        ),
        (
            {},
            {"model": "series-cfc", "wiring": "none", "backbone_units": 9, "mixed_memory": True},
            ("level",),
        ),
        (
            {"task": "forecasting", "horizon": 2},
            {"quantiles": "0.1,0.9", "dropout": 0.2},
            tuple(f"quantile {share} of level +{step}" for step in (1, 2) for share in (0.1, 0.9)),
        ),
    ],
    ids=["steps", "masked", "time", "backbone", "forecast"],
)
def test_a_session_answers_as_the_run(
    data: dict[str, Any],
    options: dict[str, Any],
    names: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = fitted(monkeypatch, tmp_path / "run", data, **options)
    model, metadata = describe_run(run.path)
    assert tuple(model.output_names) == names
    write_model(model, tmp_path / "model.safetensors", metadata)
    session = Session.load(tmp_path / "model.safetensors")
    assert session.time_unit == 60.0
    checkpoint = run.load_checkpoint()
    timed = options.get("time_input")
    split = made(**data).splits["test"]
    expected = answers_of(checkpoint, split)[0].reshape(-1, len(names))
    impute = Impute(**json.loads(metadata["impute"])) if "impute" in metadata else None
    steps = split.timespans[0] if split.timespans is not None else np.ones(len(split.inputs[0]))
    found = []
    for step, (row, span) in enumerate(zip(split.inputs[0], steps, strict=True)):
        read = row
        if impute is not None and split.measured is not None:
            read = impute(np.where(split.measured[0, step], row, np.nan)[None], span)[0]
        read = np.append(read, span).astype(np.float32) if timed else read
        found.append(session.step(read, float(span)).copy())
    told = np.sort(found, axis=-1) if "quantiles" in options and len(names) == 2 else found
    last = len(expected)
    got = np.array(told)[-last:]
    if "quantiles" in options:
        got = np.sort(got.reshape(2, 2), axis=-1).reshape(1, 4)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ({}, {"difference": True}, "difference: an answer is the last value and a difference"),
        (
            {"per_step": False},
            {"pool": "last-and-mean"},
            "pool: the readout sees the mean over all",
        ),
        ({}, {"decoder": 5}, "decoder: it sees the row beside the state, and a chain of layers"),
        ({}, {"model": "series-lstm"}, "model: a torch.nn.LSTM is here to compare with"),
        ({"task": "forecasting", "known": True}, {}, "known: the readout sees features of the"),
    ],
)
def test_what_cannot_go_row_by_row(
    data: dict[str, Any],
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = fitted(monkeypatch, tmp_path / "run", data, **options)
    with pytest.raises(ExportError, match=message):
        describe_run(run.path)
