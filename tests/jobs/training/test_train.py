from __future__ import annotations

import errno
import io
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fastltc.jobs import (
    ConfigError,
    DivergedError,
    Progress,
    Run,
    RunError,
    TrainConfig,
    evaluate,
    train,
)
from fastltc.jobs.data import DataError
from fastltc.jobs.models import ConvNCP
from job_support import QUICK, publish, real_data, write_medmnist

PICTURES = (
    "training.png",
    "confusion-test.png",
    "wiring.png",
    "wiring-graph.png",
    "examples.png",
)


def quick(**changes: Any) -> TrainConfig:
    return TrainConfig.for_data("digits", **{**QUICK, **changes})


def log(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]


def log_without_times(run: Run) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in record.items() if name != "seconds"} for record in log(run)
    ]


def test_a_run_folder_has_everything(tmp_path: Path) -> None:
    run = train(quick(epochs=2), tmp_path / "runs" / "first")
    assert sorted(path.name for path in run.path.iterdir()) == sorted(
        ["README.md", "best.pt", "config.json", "last.pt", "log.jsonl", "metrics.json", *PICTURES]
    )
    for name in PICTURES:
        with Image.open(io.BytesIO((run.path / name).read_bytes())) as image:
            assert image.format == "PNG"
            assert min(image.size) > 300
    metrics = run.metrics
    assert metrics["status"] == "finished"
    assert metrics["images"] == {"train": 1257, "val": 180, "test": 360}
    assert metrics["epochs"] == 2
    assert metrics["threads"] == 1
    assert metrics["test"]["n"] == 360
    records = log(run)
    assert [record["epoch"] for record in records] == [1, 2]
    assert set(records[0]) >= {"train_loss", "train_accuracy", "val_loss", "val_auc", "seconds"}


def test_digits_are_learned(tmp_path: Path, no_pictures: None) -> None:
    run = train(TrainConfig.for_data("digits", epochs=6, threads=1), tmp_path / "run")
    # Six of the twenty epochs: five seeds gave 0.94 to 0.98.
    assert run.metrics["test"]["accuracy"] > 0.9
    assert run.metrics["test"]["auc"] > 0.99


def test_the_same_seed_gives_the_same_metrics(tmp_path: Path, no_pictures: None) -> None:
    # Few steps: two threads on cores that others use as well are slow.
    config = quick(seed=5, threads=2, batch_size=630)
    runs = [train(config, tmp_path / name) for name in "ab"]
    assert log_without_times(runs[0]) == log_without_times(runs[1])
    assert runs[0].metrics["test"] == runs[1].metrics["test"]
    states = [run.load_checkpoint().model.state_dict() for run in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_another_seed_gives_others(tmp_path: Path, no_pictures: None) -> None:
    runs = [train(quick(seed=seed), tmp_path / str(seed)) for seed in (5, 6)]
    assert log_without_times(runs[0]) != log_without_times(runs[1])


class Spoil:
    """Ruins the model after an epoch, so that the epochs that follow are worse."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.model: ConvNCP | None = None

    def progress(self) -> Progress:
        return Progress(start=self.start, epoch=self.epoch)

    def start(self, data: object, model: ConvNCP) -> None:
        self.model = model

    def epoch(self, record: dict[str, Any]) -> None:
        if record["epoch"] == self.after:
            assert self.model is not None
            with torch.no_grad():
                for parameter in self.model.parameters():
                    if parameter.requires_grad:
                        parameter.mul_(0.01)


@pytest.mark.parametrize("select", ["loss", "auc", "accuracy"])
def test_the_best_checkpoint_is_a_copy_of_the_best_epoch(
    tmp_path: Path, no_pictures: None, select: str
) -> None:
    config = quick(epochs=4, lr=1e-3, select=select)
    run = train(config, tmp_path / "run", progress=Spoil(after=2).progress())
    records = log(run)
    sign = -1 if select == "loss" else 1
    # On equal scores the smaller loss decides.
    keys = [(sign * record[f"val_{select}"], -record["val_loss"]) for record in records]
    best = keys.index(max(keys))
    assert best < 3
    assert run.metrics["best_epoch"] == best + 1
    assert run.load_checkpoint("best.pt").epoch == best + 1
    assert run.load_checkpoint("last.pt").epoch == 4
    # The weights themselves are those of that epoch.
    for name, record in (("best.pt", records[best]), ("last.pt", records[3])):
        again = evaluate(run, "val", checkpoint=name)
        assert again["loss"] == pytest.approx(record["val_loss"], abs=1e-6)
        assert again["accuracy"] == record["val_accuracy"]


def test_the_test_metrics_are_those_of_the_best_checkpoint(
    tmp_path: Path, no_pictures: None
) -> None:
    run = train(quick(epochs=3, lr=1e-3), tmp_path / "run", progress=Spoil(after=2).progress())
    again = evaluate(run, "test")
    assert again["loss"] == pytest.approx(run.metrics["test"]["loss"], abs=1e-6)
    assert again["confusion_matrix"] == run.metrics["test"]["confusion_matrix"]


def test_an_interrupt_leaves_a_usable_run(tmp_path: Path, no_pictures: None) -> None:
    steps = 0

    def interrupt(images: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 12:  # in the third epoch of five steps
            raise KeyboardInterrupt

    run = train(quick(epochs=50), tmp_path / "run", progress=Progress(batch=interrupt))
    metrics = run.metrics
    assert metrics["status"] == "interrupted"
    assert metrics["epochs"] == 2
    assert metrics["test"] is None
    assert len(log(run)) == 2
    assert run.load_checkpoint("last.pt").epoch == 2
    assert evaluate(run, "test")["n"] == 360


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("method", ["save_checkpoints", "append_log", "write_metrics"])
def test_an_interrupt_while_an_epoch_is_saved_waits(
    tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    real = getattr(Run, method)

    pressed = False

    def press_ctrl_c(run: Run, *arguments: Any) -> Any:
        nonlocal pressed
        if not pressed and (run.path / "log.jsonl").exists():
            pressed = True
            os.kill(os.getpid(), signal.SIGINT)
        return real(run, *arguments)

    monkeypatch.setattr(Run, method, press_ctrl_c)
    run = Run(tmp_path / "run")

    def not_lost(record: dict[str, Any]) -> None:
        assert not pressed

    train(quick(epochs=3), run.path, progress=Progress(epoch=not_lost))
    metrics = run.metrics
    assert metrics["status"] == "interrupted"
    assert metrics["epochs"] in (1, 2)
    assert len(log(run)) == metrics["epochs"]
    assert run.load_checkpoint("last.pt").epoch == metrics["epochs"]
    assert run.load_checkpoint("best.pt").epoch == metrics["best_epoch"]


def test_an_interrupt_in_the_first_epoch(tmp_path: Path, no_pictures: None) -> None:
    def interrupt(images: int) -> None:
        raise KeyboardInterrupt

    run = train(quick(), tmp_path / "run", progress=Progress(batch=interrupt))
    assert run.metrics["status"] == "interrupted"
    assert run.metrics["best_epoch"] is None
    with pytest.raises(RunError, match="no checkpoint; training has not come to the end"):
        evaluate(run)


def test_a_diverged_run_says_so(tmp_path: Path, no_pictures: None) -> None:
    def poison(data: object, model: ConvNCP) -> None:
        with torch.no_grad():
            model.conv1.weight.fill_(math.nan)

    with pytest.raises(DivergedError, match=r"run: the loss became nan in epoch 1; .*0.003"):
        train(quick(), tmp_path / "run", progress=Progress(start=poison))
    assert Run.open(tmp_path / "run").metrics["status"] == "failed"


def test_a_full_disk_while_saving_keeps_the_last_checkpoint(
    tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fill(record: dict[str, Any]) -> None:
        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match=r"No space left on device: .*run/"):
        train(quick(epochs=2), tmp_path / "run", progress=Progress(epoch=fill))
    monkeypatch.setattr(os, "fsync", real)
    run = Run.open(tmp_path / "run")
    assert run.load_checkpoint("last.pt").epoch == 1
    assert not list(run.path.glob(".*"))
    assert evaluate(run, "val")["n"] == 180


def test_a_device_without_kernels_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_kernels(*arguments: object) -> None:
        raise NotImplementedError("fastltc: no cuda kernels")

    monkeypatch.setattr(ConvNCP, "forward", no_kernels)
    with pytest.raises(ConfigError, match="device: 'cpu' cannot be used here: fastltc: no cuda"):
        train(quick(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"device": "meta"}, ConfigError, "device: 'meta' cannot be used here"),
        ({"positive": "ten"}, ConfigError, "positive: no class 'ten'; the classes are: 0 = 0"),
        ({"units": 12}, ConfigError, "units: expected at least 13 for 10 outputs"),
        ({"model": "resnet"}, ConfigError, "model: expected one of conv-ncp, .*, got 'resnet'"),
        ({"cell": "gru"}, ConfigError, "cell: expected one of ltc, cfc, got 'gru'"),
        ({"device": "tpu"}, ConfigError, "device: 'tpu' cannot be used here"),
        ({"data": "mnits"}, DataError, "unknown data set 'mnits'"),
    ],
)
def test_a_bad_option_makes_no_folder(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(TrainConfig.from_dict({**quick().to_dict(), **changes}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_damaged_data_makes_no_folder(tmp_path: Path) -> None:
    (tmp_path / "breastmnist.npz").write_bytes(b"torn")
    config = TrainConfig.for_data("breastmnist", data_root=str(tmp_path))
    with pytest.raises(DataError, match=r"breastmnist.npz: damaged or another version"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_breastmnist_is_trained_with_its_positive_class(
    tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, write_medmnist(tmp_path / "breastmnist.npz"))
    config = TrainConfig.for_data(
        "breastmnist", data_root=str(tmp_path), epochs=2, lr=3e-3, threads=1
    )
    run = train(config, tmp_path / "run")
    metrics = run.metrics
    assert metrics["trainable_parameters"] == 264_065
    assert metrics["test"]["positive_class"] == {"label": 1, "name": "normal or benign"}
    # Bright against dark images.
    assert metrics["test"]["auc"] > 0.95
    other = evaluate(run, "test", positive="malignant")
    assert other["positive_class"] == {"label": 0, "name": "malignant"}
    assert other["f1"] == other["per_class"][0]["f1"]


def test_the_real_breastmnist(tmp_path: Path, no_pictures: None) -> None:
    root = real_data("breastmnist.npz").parent
    config = TrainConfig.for_data("breastmnist", data_root=str(root), epochs=12, threads=1)
    metrics = train(config, tmp_path / "run").metrics
    # Always "normal or benign" would be 0.731.
    assert metrics["test"]["accuracy"] > 0.731
    assert metrics["test"]["auc"] > 0.75
