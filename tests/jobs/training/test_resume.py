"""Runs that were interrupted, and data that changed in between."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fastltc.jobs import (
    ConfigError,
    Progress,
    RunError,
    TrainConfig,
    evaluate,
    plots,
    train,
)
from fastltc.jobs.models import build_model
from fastltc.jobs.training import loop
from fastltc.jobs.training.epochs import Epochs
from job_support import DENSE, dense, write_images

pytestmark = pytest.mark.usefixtures("no_pictures")


def interrupt(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def in_epoch(number: int) -> Progress:
    """Ctrl-C when that epoch has been reported."""

    def epoch(record: dict[str, Any]) -> None:
        if record["epoch"] == number:
            raise KeyboardInterrupt

    return Progress(epoch=epoch)


def test_a_run_is_not_judged_by_data_that_changed(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_images(photos, {"a": 40, "b": 40})
    config = TrainConfig.for_data(f"folder:{photos}", **DENSE)
    run = train(config, tmp_path / "run")
    assert evaluate(run, "test", resamples=0)["n"] == 16
    write_images(photos, {"a": 43, "b": 43})
    sizes = "56 train, now 60; 8 val, now 8; 16 test, now 18"
    with pytest.raises(RunError, match=rf"best.pt: the test split of .*: {sizes}.*train anew"):
        evaluate(run, "test", resamples=0)
    with pytest.raises(RunError, match=rf"last.pt: the train split of .*: {sizes}.*train anew"):
        train(
            TrainConfig.for_data(f"folder:{photos}", **{**DENSE, "epochs": 3}),
            run.path,
            resume=True,
        )
    assert run.metrics["epochs"] == 2
    # Naming the data of the run makes no other data of it.
    with pytest.raises(RunError, match="the test split of"):
        evaluate(run, "test", data=f"folder:{photos}", resamples=0)
    write_images(tmp_path / "new", {"a": 10, "b": 10})
    assert evaluate(run, data=f"folder:{tmp_path / 'new'}", resamples=0)["n"] == 20


def test_a_label_that_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    arrays = vectors(3)
    np.savez(path, **arrays)
    run = train(TrainConfig.for_data(f"npz:{path}", **DENSE), tmp_path / "run")
    arrays["y_test"][:2] = arrays["y_test"][1::-1]
    np.savez(path, **arrays)
    with pytest.raises(RunError, match="the test split of"):
        evaluate(run, "test", resamples=0)
    assert evaluate(run, "val", resamples=0)["n"] == 30


def test_a_checkpoint_without_digests_is_judged_as_before(tmp_path: Path) -> None:
    run = train(dense(), tmp_path / "run")
    for name in ("best.pt", "last.pt"):
        content = torch.load(run.path / name, weights_only=True)
        del content["splits"]
        torch.save(content, run.path / name)
    assert evaluate(run, "test", resamples=0)["n"] == 360
    assert train(dense(epochs=3), run.path, resume=True).metrics["epochs"] == 3


def test_an_interrupt_after_the_last_epoch_leaves_the_end_to_resume(tmp_path: Path) -> None:
    whole = train(dense(), tmp_path / "whole")
    run = train(dense(), tmp_path / "run", progress=in_epoch(2))
    assert (run.metrics["status"], run.metrics["epochs"]) == ("interrupted", 2)
    assert run.metrics["test"] is None
    with pytest.raises(RunError, match="has 2 epochs already"):
        train(dense(epochs=1), run.path, resume=True)
    resumed = train(dense(), run.path, resume=True)
    assert resumed.metrics["status"] == "finished"
    assert resumed.metrics["test"] == whole.metrics["test"]
    assert len((run.path / "log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "config",
    [
        dense(epochs=1),
        TrainConfig.for_data("digits", model="reservoir", units=50, reads=4, threads=1),
    ],
    ids=["dense", "reservoir"],
)
@pytest.mark.parametrize("place", ["the test split", "a picture"])
def test_an_interrupt_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: TrainConfig, place: str
) -> None:
    whole = train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        if place == "a picture":
            patch.setattr(plots, "montage", interrupt)
        else:
            patch.setattr(loop._Session, "_test", interrupt)
        run = train(config, tmp_path / "run")
    assert run.metrics["status"] == "interrupted"
    resumed = train(config, run.path, resume=True)
    assert resumed.metrics["status"] == "finished"
    assert resumed.metrics["test"] == whole.metrics["test"]
    assert resumed.metrics["fitted"] == whole.metrics["fitted"]
    assert (run.path / "examples.png").is_file()


def test_a_run_that_patience_ended_stays_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Epochs, "is_best", lambda epochs, val: epochs.best is None)
    config = dense(epochs=9, patience=2)
    run = train(config, tmp_path / "run")
    before = run.metrics
    assert before["epochs"] == 3
    for _ in range(2):
        after = train(config, run.path, resume=True).metrics
        assert (after["status"], after["epochs"]) == ("finished", 3)
        assert after["test"] == before["test"]


def test_resuming_needs_no_first_weights(tmp_path: Path) -> None:
    first = tmp_path / "first.pt"
    torch.save(build_model("dense", (1, 8, 8), 10).state_dict(), first)
    config = dense(weights=str(first))
    whole = train(config, tmp_path / "whole")
    run = train(config, tmp_path / "run", progress=in_epoch(1))
    first.unlink()
    resumed = train(config, run.path, resume=True)
    assert resumed.metrics["test"] == whole.metrics["test"]


def test_without_tensorboard_the_old_run_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(dense(epochs=1), tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"tensorboard: cannot be imported"):
        train(dense(tensorboard=True), run.path, overwrite=True)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def vectors(classes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for name, size in (("train", 90), ("val", 30), ("test", 30)):
        labels = np.arange(size) % classes
        arrays[f"y_{name}"] = labels
        arrays[f"x_{name}"] = (rng.normal(size=(size, 4)) + labels[:, None]).astype(np.float32)
    return arrays


def test_selecting_by_what_the_validation_split_lacks(tmp_path: Path) -> None:
    arrays = vectors(3)
    arrays["y_val"] %= 2
    np.savez(tmp_path / "v.npz", **arrays)

    def config(**changes: Any) -> TrainConfig:
        return TrainConfig.for_data(f"npz:{tmp_path / 'v.npz'}", **{**DENSE, **changes})

    with pytest.raises(ConfigError, match="select: no auc on the validation split"):
        train(config(select="auc"), tmp_path / "run")
    with pytest.raises(ConfigError, match="select: no average_precision on the validation split"):
        train(config(select="average_precision", positive="2"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = train(config(select="average_precision", positive="1"), tmp_path / "run")
    assert run.metrics["selected_by"] == "validation average_precision"


def test_each_member_is_clipped_by_itself(tmp_path: Path) -> None:
    parts: list[Any] = []
    norms: list[float] = []

    def note(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        for part in parts:
            squares = [p.grad.square().sum() for p in part.parameters() if p.grad is not None]
            norms.append(float(torch.stack(squares).sum().sqrt()))

    def remember(data: object, model: Any) -> None:
        parts.extend(model.members)

    handle = register_optimizer_step_pre_hook(note)
    try:
        train(
            dense(members=2, clip_norm=0.01, epochs=1, batch_size=1257),
            tmp_path / "run",
            progress=Progress(start=remember),
        )
    finally:
        handle.remove()
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)
