"""Several seeds of one run: interrupted, made again, and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastltc.jobs import (
    Progress,
    RunError,
    TrainConfig,
    compare,
    train,
    train_seeds,
)
from fastltc.jobs.data import DataError
from job_support import dense

pytestmark = pytest.mark.usefixtures("no_pictures")


def reservoir(**changes: Any) -> TrainConfig:
    options = {"model": "reservoir", "units": 30, "reads": 4, "threads": 1}
    return TrainConfig.for_data("digits", **options, **changes)


class Interrupt:
    """Ctrl-C in an epoch of one of the seeds."""

    def __init__(self, seed: int, epoch: int) -> None:
        self.seed, self.epoch = seed, epoch
        self.trained: list[int] = []

    def __call__(self, config: TrainConfig) -> Progress:
        self.trained.append(config.seed)
        steps = 0

        def batch(images: int) -> None:
            nonlocal steps
            steps += 1
            if config.seed == self.seed and steps == 5 * (self.epoch - 1) + 1:
                raise KeyboardInterrupt

        return Progress(batch=batch)


@pytest.mark.parametrize("epoch", [1, 2])
def test_interrupted_seeds_go_on(tmp_path: Path, epoch: int) -> None:
    whole = train_seeds(dense(), tmp_path / "whole", 3)
    out = tmp_path / "seeds"
    with pytest.raises(KeyboardInterrupt):
        train_seeds(dense(), out, 3, progress=Interrupt(1, epoch))
    assert not (out / "seeds.json").exists()
    first = (out / "seed-0" / "metrics.json").read_bytes()
    again = Interrupt(9, 9)
    summary = train_seeds(dense(), out, 3, resume=True, progress=again)
    assert again.trained == [1, 2]
    assert (out / "seed-0" / "metrics.json").read_bytes() == first
    assert summary["test"] == whole["test"]
    assert json.loads((out / "seeds.json").read_text()) == summary
    more = Interrupt(9, 9)
    assert train_seeds(dense(), out, 4, resume=True, progress=more)["seeds"] == [0, 1, 2, 3]
    assert more.trained == [3]
    with pytest.raises(RunError, match=r"seed-0: has lr = 0.001, got 0.1; cannot be resumed"):
        train_seeds(dense(lr=0.1), out, 4, resume=True)


def test_overwriting_leaves_no_old_seeds(tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    train_seeds(reservoir(), out, 3)
    (out / "seed-2" / "notes.txt").write_text("mine")
    train_seeds(dense(epochs=1), out, 2, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "seed-0",
        "seed-1",
        "seed-2",
        "seeds.json",
        "training.png",
    ]
    assert [path.name for path in (out / "seed-2").iterdir()] == ["notes.txt"]
    (row,) = compare([out])
    assert (row["model"], row["n"], row["seeds"]) == ("dense", 2, [0, 1])


def test_data_that_is_not_there_removes_no_seeds(tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    train_seeds(reservoir(), out, 2)
    before = set(out.rglob("*"))
    with pytest.raises(DataError, match="nowhere"):
        train_seeds(TrainConfig(data="folder:nowhere"), out, 2, overwrite=True)
    assert set(out.rglob("*")) == before


def test_folders_are_looked_at_before_any_training(tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    train(reservoir(seed=1), out / "seed-1")
    with pytest.raises(RunError, match="seed-1: holds a run already"):
        train_seeds(reservoir(), out, 2)
    assert not (out / "seed-0").exists()


def test_a_comparison_reads_the_seeds_of_the_list(tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    train_seeds(reservoir(), out, 2)
    train(dense(epochs=1, seed=7), out / "seed-7")
    (row,) = compare([out.rename(tmp_path / "moved")])
    assert (row["model"], row["n"]) == ("reservoir", 2)
    (tmp_path / "moved" / "seeds.json").write_text("{}")
    with pytest.raises(RunError, match=r"seeds.json: damaged: expected a list of seeds"):
        compare([tmp_path / "moved"])
