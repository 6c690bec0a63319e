"""Every task of time series, from training to prediction."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastltc.jobs import (
    ConfigError,
    Progress,
    Run,
    RunError,
    TrainConfig,
    compare,
    evaluate,
    train,
)
from fastltc.jobs.data import DataError, DataSet
from fastltc.jobs.evaluation.judge import answers_of
from fastltc.jobs.models.series import Series
from fastltc.jobs.training import fitting
from fastltc.jobs.training.fitting import Gradients
from series_data import QUICK, known_as, made, with_labels

TASKS: dict[str, dict[str, Any]] = {
    "steps": {},
    "sequences": {"per_step": False, "ragged": True},
    "two targets": {"targets": ("level", "slope"), "ragged": True},
    "masked": {"masked": True, "per_step": False},
    "forecast": {"task": "forecasting", "known": True, "ragged": True, "masked": True},
    "classes": {"task": "classification", "per_step": False, "ragged": True},
    "patches": {
        "task": "forecasting", "extra": False, "known": True, "ragged": True, "masked": True,
    },
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {"patches": {"model": "patches-cfc", "patch": 4}}


def fitted(monkeypatch: pytest.MonkeyPatch, data: DataSet, out: Path, **options: Any) -> Run:
    """A quick run on a data set that is made."""
    config = TrainConfig.for_data(known_as(monkeypatch, data), **{**QUICK, **options})
    return train(config, out)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_from_training_to_comparison(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made(**TASKS[name])
    run = fitted(monkeypatch, data, tmp_path / "run", **MODELS.get(name, {}))
    metrics = run.metrics
    assert metrics["status"] == "finished"
    result = evaluate(run, resamples=50)
    assert result["loss"] == metrics["test"]["loss"]
    for made_file in result["files"]:
        assert (run.path / made_file).stat().st_size > 100
    row = compare([run.path], tmp_path)[0]
    if not data.targets:
        assert "auc" in row["test"]
        return
    low, high = result["intervals"]["mae"]
    assert low < result["mae"] < high
    assert row["test"]["mae"]["interval"] == [low, high]
    assert result["mase"] > 0
    # What is told is what the model answers.
    checkpoint = run.load_checkpoint()
    answers = answers_of(checkpoint, data.splits["test"])
    errors = np.abs(answers - data.splits["test"].labels)
    each = [np.nanmean(errors[..., place]) for place in range(len(data.targets))]
    assert result["mae"] == pytest.approx(np.mean(each), rel=1e-6)
    with open(run.path / "predictions-test.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    judged = ~np.isnan(data.splits["test"].labels[..., 0])
    assert len(lines) == judged.sum()
    written = [float(line["predicted level"]) for line in lines]
    np.testing.assert_allclose(written, answers[..., 0][judged], rtol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "mae"},
        {"loss": "huber", "huber_delta": 0.5},
        {"loss": "pinball", "quantiles": "0.1,0.5,0.9", "select": "pinball"},
        {"select": "mase", "model": "series-cfc", "wiring": "ncp", "units": 12},
        {"select": "r2", "members": 2, "clip_norm": 1.0},
        {"model": "series-lstm", "difference": True, "encoder": 4, "dropout": 0.2},
        {"lr_erev": 5.0, "lr_sigma": 0.1, "lr_mu": 0.0, "mixed_memory": True},
        {"error_unit": "common", "loss": "mae"},
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("no_pictures")
def test_options_of_values(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fitted(monkeypatch, made(ragged=True), tmp_path / "run", **options)
    assert run.metrics["status"] == "finished"
    if "quantiles" in options:
        test = run.metrics["test"]
        assert 0 <= test["coverage"] <= 1
        answers = answers_of(run.load_checkpoint(), made(ragged=True).splits["test"])
        assert answers.shape[-1] == 3
        assert (np.diff(answers, axis=-1) >= 0).all()


@pytest.mark.usefixtures("no_pictures")
def test_training_learns_and_beats_the_last_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The next level is the last one, the wave and a little noise.
    data = made("forecasting", horizon=1, extra=False)
    options = {"epochs": 60, "lr": 0.02, "difference": True, "schedule": "cosine"}
    run = fitted(monkeypatch, data, tmp_path / "run", **options)
    assert run.metrics["test"]["mase"] < 0.8


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("forecast", ["direct", "recursive"])
@pytest.mark.parametrize("difference", [False, True])
def test_forecasts_of_both_kinds(
    forecast: str, difference: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made("forecasting", known=True, extra=False, ragged=True, masked=difference)
    options = {"forecast": forecast, "difference": difference}
    if difference:
        options |= {"decoder": 6, "encoder": 4, "time_input": True, "timestep": 0.5}
    run = fitted(monkeypatch, data, tmp_path / "run", **options)
    assert [entry["step"] for entry in run.metrics["test"]["per_step"]] == [1, 2, 3]
    # An untrained forecast by differences is near the last value, 100, and not near 0.
    answers = answers_of(run.load_checkpoint(), data.splits["test"])
    assert abs(answers - data.splits["test"].labels).mean() < 10


@pytest.mark.usefixtures("no_pictures")
def test_a_resumed_run_ends_on_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made(masked=True, ragged=True)
    options = {"lr_erev": 3.0, "dropout": 0.1, "encoder": 4, "rising": 2.0, "schedule": "cosine"}
    config = TrainConfig.for_data(known_as(monkeypatch, data), **{**QUICK, "epochs": 3, **options})
    whole = train(config, tmp_path / "whole")

    def stop(record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    run = train(config, tmp_path / "run", progress=Progress(epoch=stop))
    assert run.metrics["epochs"] == 1
    resumed = train(config, run.path, resume=True)
    assert resumed.metrics["test"] == whole.metrics["test"]


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ({}, {"task": "forecasting"}, "task: expected regression, for made has values"),
        ({"task": "forecasting"}, {"task": "regression"}, "task: expected forecasting, .* 3 steps"),
        ({}, {"select": "auc"}, "select: auc is of classes; for values: loss, mse"),
        ({"task": "classification"}, {"select": "mae"}, "select: mae is of values"),
        ({"task": "classification"}, {"loss": "huber"}, "loss: huber is of values"),
        ({}, {"loss": "cross_entropy"}, "loss: cross_entropy is of classes"),
        ({}, {"class_weights": "balanced"}, "class_weights: no option for values"),
        ({}, {"positive": "1"}, "positive: no option for values"),
        ({"task": "classification"}, {"quantiles": "0.1,0.9"}, "quantiles: no option for classes"),
        ({}, {"huber_delta": 0.5}, "huber_delta: an option of the loss huber"),
        ({"task": "classification"}, {"error_unit": "common"}, "error_unit: no option for classes"),
        ({}, {"select": "pinball"}, "select: pinball is of quantiles"),
        ({}, {"quantiles": "0.9,0.1"}, "quantiles: expected rising numbers"),
        ({}, {"quantiles": "0.1,0.9", "loss": "mse"}, "quantiles: are learned by the loss"),
        ({}, {"select": "kappa"}, "select: kappa is of classes that are in order"),
        ({}, {"forecast": "direct"}, "forecast: no option of regression of every step"),
        ({}, {"impute": "decay"}, "impute: all of the data was measured"),
        ({"task": "classification"}, {"difference": True}, "difference: .* the data has classes"),
        ({"targets": ("level", "slope")}, {"difference": True}, "difference: .* a target is not"),
        ({"task": "forecasting"}, {"forecast": "recursive"}, "forecast: recursive needs every"),
        (
            {"task": "forecasting", "known": True},
            {"wiring": "ncp"},
            "wiring: the motor neurons of an ncp wiring cannot see",
        ),
        ({}, {"wiring": "ncp", "dropout": 0.5}, "dropout: the motor neurons"),
        ({}, {"model": "series-cfc", "lr_mu": 2.0}, "lr_mu: the model series-cfc has no"),
        ({}, {"model": "series-lstm", "wiring": "ncp"}, "wiring: expected one of full"),
        ({}, {"model": "dense"}, "model: dense takes images or vectors, got series"),
        (
            {"per_step": False, "targets": ("slope",)},
            {"select": "mase"},
            "select: no mase on made",
        ),
    ],
)
def test_what_does_not_go_together(
    data: dict[str, Any],
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=message):
        fitted(monkeypatch, made(**data), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def _constant(labels: np.ndarray) -> np.ndarray:
    return np.full_like(labels, 2.5)


def _infinite(labels: np.ndarray) -> np.ndarray:
    labels.flat[3] = np.inf
    return labels


def _missing(labels: np.ndarray) -> np.ndarray:
    return np.full_like(labels, np.nan)


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        (_constant, "train", "'level' is 2.5 in all training rows"),
        (_infinite, "val", "'level' is infinite in the val split"),
        (_missing, "test", "the test split has no value of 'level'"),
    ],
)
def test_targets_that_cannot_be_learned(
    change: Any, split: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=message):
        fitted(monkeypatch, with_labels(made(), change, split), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_pictures")
def test_targets_that_are_missing_in_part_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(labels: np.ndarray) -> np.ndarray:
        labels[:, ::2] = np.nan
        return labels

    run = fitted(monkeypatch, with_labels(made(), some), tmp_path / "run")
    assert run.metrics["test"]["n"] == 8 * 6


@pytest.mark.usefixtures("no_pictures")
def test_a_run_is_not_judged_by_data_of_another_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fitted(monkeypatch, made(), tmp_path / "run")
    known_as(monkeypatch, made("forecasting"))
    with pytest.raises(RunError, match="trained for task = 'regression'; made has 'forecasting'"):
        evaluate(run)


@pytest.mark.usefixtures("no_pictures")
def test_classes_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made("classification", per_step=False)
    options = {"ordered": True, "select": "kappa", "class_weights": "balanced"}
    run = fitted(monkeypatch, data, tmp_path / "run", **options)
    assert -1 <= run.metrics["test"]["kappa"] <= 1
    assert "val_kappa" in run.log[0]
    resumed = train(replace(run.config, epochs=3), run.path, resume=True)
    assert resumed.metrics["epochs"] == 3


def test_longer_and_longer_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of `rising` has the sequences up to a share of the longest time, and those only."""
    data = made("classification", per_step=False, ragged=True)
    train_split = data.splits["train"]
    assert train_split.lengths is not None
    assert train_split.timespans is not None
    inside = np.arange(12) < train_split.lengths[:, None]
    durations = np.where(inside, train_split.timespans, 0).sum(axis=1)
    seen: list[set[int]] = []
    batches: list[int] = []
    original = Gradients.step

    def step(self: Gradients, batch: torch.Tensor) -> tuple[float, float, int]:
        seen[-1] |= set(batch.tolist())
        return original(self, batch)

    def epoch(self: Gradients, number: int, told: Any) -> tuple[float, float]:
        seen.append(set())
        return whole(self, number, told)

    whole = Gradients.epoch
    monkeypatch.setattr(Gradients, "step", step)
    monkeypatch.setattr(Gradients, "epoch", epoch)
    config = TrainConfig.for_data(
        known_as(monkeypatch, data), **{**QUICK, "epochs": 5, "rising": 3}
    )
    run = train(config, tmp_path / "run", progress=Progress(batch=batches.append))
    assert run.metrics["status"] == "finished"
    for place, share in enumerate((0.25, 0.5, 0.75, 1.0, 1.0)):
        longest = max(share * durations.max(), durations.min())
        assert seen[place] == set(np.flatnonzero(durations <= longest)), place
    assert len(seen[0]) < len(seen[1]) < len(seen[2]) < 24
    # A bar that counts examples comes to its end in every epoch.
    assert sum(batches) == 5 * 24


@pytest.mark.parametrize(
    ("data", "found"),
    [({"per_step": False}, None), ("digits", "got no sequences"), ("equal", "all as long")],
)
def test_what_cannot_rise(
    data: Any, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**QUICK, "rising": 2}
    if data == "digits":
        config = TrainConfig.for_data("digits", model="rows-cfc", **options)
    else:
        whole = made(**(data if isinstance(data, dict) else {}))
        if data == "equal":
            splits = {
                name: replace(one, timespans=None, lengths=None)
                for name, one in whole.splits.items()
            }
            whole = replace(whole, splits=splits, time_unit=0.0)
        config = TrainConfig.for_data(known_as(monkeypatch, whole), **options)
    if found is None:
        # Of the same number of rows, but not of the same time.
        assert train(config, tmp_path / "run").metrics["status"] == "finished"
        return
    with pytest.raises(ConfigError, match=f"rising: expected sequences of different .*{found}"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["sequences", "two targets", "forecast", "classes"])
def test_padding_that_a_batch_does_not_need_is_not_computed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made(**TASKS[name])
    longest: list[int] = []
    read: list[int] = []
    original = Series.forward

    def forward(self: Series, rows: torch.Tensor, *beside: Any) -> torch.Tensor:
        if self.training:
            longest.append(int(beside[1].max()))
            read.append(rows.shape[1])
        return original(self, rows, *beside)

    monkeypatch.setattr(Series, "forward", forward)
    trimmed = fitted(monkeypatch, data, tmp_path / "trimmed", batch_size=4)
    assert read == longest
    assert min(read) < 12
    monkeypatch.setattr(fitting, "_trimmed", lambda inputs, labels, per_step: (inputs, labels))
    whole = fitted(monkeypatch, data, tmp_path / "whole", batch_size=4)
    assert read[-1] == 12
    losses = [run.metrics["test"]["loss"] for run in (trimmed, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
