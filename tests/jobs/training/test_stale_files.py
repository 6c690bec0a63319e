"""Files of a run say which checkpoint they are of, and none is of one that is gone."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from fastltc.cli.main import main
from fastltc.jobs import Progress, Run, TrainConfig, compare, evaluate, train, train_seeds
from fastltc.jobs.run import LOCK
from fastltc.jobs.training.epochs import Epochs
from job_support import dense

# The only files that are of no checkpoint.
TIMELESS = {"config.json", "log.jsonl", "examples.png", "best.pt", "last.pt"}
PICTURES = {"training.png", "confusion-test.png", "wiring.png", "wiring-graph.png"}


def quick(**changes: Any) -> TrainConfig:
    options = {"epochs": 1, "batch_size": 256, "units": 14, "threads": 1, **changes}
    return TrainConfig.for_data("digits", **options)


def digests(folder: Path) -> set[str]:
    """The digests that the files in a folder name."""
    found = set()
    for path in folder.iterdir():
        if path.name in TIMELESS or path.name == LOCK:
            continue
        if path.suffix == ".png":
            with Image.open(path) as image:
                found.add(image.text["Description"].rpartition(" ")[2])
        elif path.suffix == ".md":
            found.add(re.findall(r"digest (\w+)", path.read_text())[0])
        elif path.suffix == ".csv":
            with open(path, newline="") as file:
                rows = list(csv.DictReader(file))
            found |= {row["checkpoint"].rpartition(" ")[2] for row in rows}
        else:
            content = json.loads(path.read_text())
            found.add(content["best_digest" if path.name == "metrics.json" else "digest"])
    return found


def of(run: Run, name: str) -> str:
    return hashlib.sha256((run.path / name).read_bytes()).hexdigest()[:16]


def evaluate_all(run: Run) -> None:
    for split, checkpoint in (("train", "last.pt"), ("val", "best.pt"), ("test", "last.pt")):
        evaluate(run, split, positive="7", checkpoint=checkpoint, resamples=5)


def test_every_file_names_its_checkpoint_and_a_longer_training_leaves_none_of_an_older(
    tmp_path: Path,
) -> None:
    run = train(quick(), tmp_path / "run")
    evaluate_all(run)
    assert digests(run.path) == {of(run, "best.pt"), of(run, "last.pt")}
    (run.path / "notes.txt").write_text("mine")

    def look(record: dict[str, Any]) -> None:
        (run.path / "notes.txt").unlink(missing_ok=True)
        # Also while training goes on, when it may be killed.
        assert digests(run.path) == {of(run, "best.pt")}
        assert not {path.name for path in run.path.iterdir()} & PICTURES

    before = of(run, "best.pt")
    train(quick(epochs=2), run.path, resume=True, progress=Progress(epoch=look))
    assert digests(run.path) == {of(run, "best.pt")} != {before}
    assert {path.name for path in run.path.iterdir()} >= PICTURES
    assert not list(run.path.glob("evaluation-*"))


def test_what_is_of_a_checkpoint_that_stays_stays(
    tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Epochs, "is_best", lambda epochs, val: epochs.best is None)
    run = train(dense(epochs=1), tmp_path / "run")
    evaluate_all(run)
    train(dense(epochs=2), run.path, resume=True)
    found = {path.name for path in run.path.glob("evaluation-*")}
    # The test split was evaluated anew, and the evaluation of last.pt is none any more.
    assert found == {"evaluation-val.json"}


def test_an_evaluation_replaces_the_whole_of_the_one_before(
    tmp_path: Path, no_pictures: None
) -> None:
    run = train(dense(epochs=1), tmp_path / "run")
    for folder in (None, tmp_path / "out"):
        place = folder or run.path
        before = set() if folder else {path.name for path in place.iterdir()}
        evaluate(run, "test", positive="7", out=folder, resamples=5)
        evaluate(run, "val", positive="7", out=folder, resamples=5)
        names = {path.name for path in place.iterdir()}
        assert {"roc-test.png", "roc-val.png", "calibration-test.png"} <= names
        result = evaluate(run, "test", out=folder, resamples=5)
        assert result["files"] == sorted(result["files"])
        left = {path.name for path in place.iterdir()} - before
        assert {name for name in left if "-test." in name} - before == set(result["files"]) - before
        assert "roc-test.png" not in left
        assert "roc-val.png" in left


def test_a_folder_without_an_evaluation_is_the_users(tmp_path: Path, no_pictures: None) -> None:
    run = train(dense(epochs=1), tmp_path / "run")
    (tmp_path / "roc-test.png").write_bytes(b"mine")
    evaluate(run, out=tmp_path, resamples=0)
    assert (tmp_path / "roc-test.png").read_bytes() == b"mine"


def test_on_a_full_disk_the_earlier_evaluation_is_whole(
    tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(dense(epochs=1), tmp_path / "run")
    evaluate(run, positive="7", resamples=5)
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(run, resamples=0)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupt_does_not_come_between_the_files_of_an_evaluation(
    tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(dense(epochs=1), tmp_path / "run")
    evaluate(run, positive="7", resamples=5)
    real = os.replace

    def pressed(source: str, target: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", pressed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(run, resamples=0)
    names = {path.name for path in run.path.glob("*-test.*")}
    written = json.loads((run.path / "evaluation-test.json").read_text())
    assert names == set(written["files"])
    assert "intervals" not in written


def test_best_and_last_checkpoint_of_an_epoch_are_written_together(
    tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(dense(epochs=1), tmp_path / "run")
    evaluate(run, "val", resamples=0)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    real = os.fsync
    written: list[str] = []

    def full(handle: int) -> None:
        written.append(os.readlink(f"/proc/self/fd/{handle}"))
        if ".last.pt." in written[-1]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*last\.pt"):
        train(dense(epochs=2), run.path, resume=True)
    assert any(".best.pt." in name for name in written)
    for name in ("best.pt", "last.pt", "evaluation-val.json", "predictions-val.csv"):
        assert (run.path / name).read_bytes() == before[name]


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}])
def test_what_a_killed_training_was_writing_goes(
    tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    run = train(dense(epochs=1), tmp_path / "run")
    names = {path.name for path in run.path.iterdir()}

    def killed(handle: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # nothing is cleaned up
        patch.setattr(os, "fsync", killed)
        patch.setattr(os, "unlink", lambda path: None)
        with pytest.raises(KeyboardInterrupt):
            run.write_config(run.config)
    (run.path / ".config.json.mine").write_text("")
    assert len(list(run.path.glob(".config.json.????????"))) == 1
    train(dense(epochs=2), run.path, **options)
    assert {path.name for path in run.path.iterdir()} == {*names, ".config.json.mine"}


def test_the_summary_of_seeds_goes_when_one_is_trained_on(
    tmp_path: Path, no_pictures: None
) -> None:
    summary = train_seeds(dense(epochs=1), tmp_path / "both", 2)
    known = [
        {"epoch": 1, "digest": of(Run(tmp_path / "both" / f"seed-{seed}"), "best.pt")}
        for seed in (0, 1)
    ]
    assert summary["checkpoints"] == known
    (row,) = compare([tmp_path / "both"])
    assert row["checkpoints"] == known
    assert (tmp_path / "both" / "seeds.json").is_file()
    train(dense(epochs=2), tmp_path / "both" / "seed-0", resume=True)
    assert not (tmp_path / "both" / "seeds.json").exists()


def test_only_what_was_written_is_listed(tmp_path: Path, no_pictures: None) -> None:
    def printed(*arguments: object) -> list[str]:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        (line,) = [line for line in result.stdout.splitlines() if line.startswith("written to")]
        return line.partition(": ")[2].split(", ")

    run = tmp_path / "run"
    options = ("--model", "dense", "--batch-size", 256, "--threads", 1, "--lr", 1e-3)
    first = printed("train", "digits", *options, "--epochs", 1, "--out", run)
    assert set(first) == {path.name for path in run.iterdir()}
    (run / "notes-test.txt").write_text("mine")
    (run / "roc-val.png").write_bytes(b"mine")
    listed = printed("evaluate", run, "--resamples", 0)
    pictures = ["confusion-test.png", "wrong-test.png"]
    assert sorted(listed) == sorted([*pictures, "evaluation-test.json", "predictions-test.csv"])
    again = printed("train", "--resume", run, "--epochs", 2)
    assert "notes-test.txt" not in again
    assert "evaluation-test.json" not in again
    assert {"last.pt", "log.jsonl", "metrics.json", "training.png"} <= set(again)
    assert all((run / name).exists() for name in again)


def test_a_single_run_is_compared_with_the_interval_of_its_evaluation(
    tmp_path: Path, no_pictures: None
) -> None:
    run = train(dense(epochs=1), tmp_path / "run")
    assert compare([run.path])[0]["test"]["auc"]["interval"] is None
    found = evaluate(run, resamples=20)
    assert compare([run.path])[0]["test"]["auc"]["interval"] == found["intervals"]["auc"]
    evaluate(run, resamples=20, positive="3")
    (row,) = compare([run.path])
    assert row["test"]["accuracy"]["interval"] is not None
    # Of another checkpoint it would be the interval of something else.
    evaluate(run, checkpoint="last.pt", resamples=20)
    train(dense(epochs=2), run.path, resume=True)
    assert compare([run.path])[0]["test"]["auc"]["interval"] is None


def test_seeds_are_compared_with_the_t_interval_of_their_mean(
    tmp_path: Path, no_pictures: None
) -> None:
    train_seeds(dense(epochs=1), tmp_path / "both", 2)
    found = compare([tmp_path / "both"])[0]["test"]["accuracy"]
    # Student's t with one degree of freedom, at 0.975.
    reach = 12.706204736 * found["std"] / 2**0.5
    expected = [found["mean"] - reach, found["mean"] + reach]
    assert found["interval"] == pytest.approx(expected, rel=1e-6)
