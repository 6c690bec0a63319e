"""Run folders that several processes want, that a kill has left, or that somebody has edited."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastltc.jobs import Progress, Run, RunError, train, train_seeds
from fastltc.jobs.data import DataError
from fastltc.jobs.files import interrupts_held_back, terminated_as_interrupted
from fastltc.jobs.lock import locked
from fastltc.jobs.run import LOCK
from fastltc.jobs.training import loop, seeds
from job_support import dense

pytestmark = pytest.mark.usefixtures("no_pictures")

needs_flock = pytest.mark.skipif(sys.platform == "win32", reason="no flock")


class Killed(BaseException):
    """In the place of SIGKILL: nothing of the run is written after it."""


def holding(path: Path, code: str = "time.sleep(60)") -> subprocess.Popen[str]:
    """A process that holds a lock; its first line says that it does."""
    program = (
        "import sys, time, pathlib\nfrom fastltc.jobs.lock import locked\n"
        f"with locked(pathlib.Path({str(path)!r})):\n    print('held', flush=True)\n    {code}\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def finished(tmp_path: Path) -> Run:
    return train(dense(), tmp_path / "run")


@needs_flock
def test_a_folder_is_for_one_process_at_a_time(finished: Run) -> None:
    before = {path.name: path.read_bytes() for path in finished.path.iterdir()}
    other = holding(finished.path / LOCK)
    try:
        expected = rf"{finished.path}: in use by process {other.pid} on .*; wait until"
        with pytest.raises(RunError, match=expected):
            train(dense(), finished.path, overwrite=True)
        with pytest.raises(RunError, match=expected):
            train(dense(epochs=3), finished.path, resume=True)
        with pytest.raises(RunError, match=expected):
            finished.remove()
    finally:
        # The lock ends with the process, however that ends.
        other.kill()
        other.wait()
    assert {p.name: p.read_bytes() for p in finished.path.iterdir() if p.name != LOCK} == before
    assert train(dense(epochs=3), finished.path, resume=True).metrics["epochs"] == 3
    assert not (finished.path / LOCK).exists()


@needs_flock
def test_a_folder_of_seeds_is_for_one_process_at_a_time(tmp_path: Path) -> None:
    other = holding(tmp_path / LOCK)
    try:
        with pytest.raises(RunError, match=f"in use by process {other.pid}"):
            train_seeds(dense(), tmp_path, 2)
    finally:
        other.kill()
        other.wait()
    assert not any(tmp_path.glob("seed-*"))


@needs_flock
def test_the_lock_of_a_new_run_is_there_while_it_trains(tmp_path: Path) -> None:
    seen = []

    def epoch(record: dict[str, Any]) -> None:
        seen.append((tmp_path / "run" / LOCK).read_text())
        with pytest.raises(RunError, match="in use by"):
            train(dense(), tmp_path / "run", overwrite=True)

    run = train(dense(epochs=1), tmp_path / "run", progress=Progress(epoch=epoch))
    assert [text.split(" on ")[0] for text in seen] == [f"process {os.getpid()}"]
    assert not (run.path / LOCK).exists()


def test_a_run_that_fails_gives_its_folder_back(tmp_path: Path) -> None:
    def stop(count: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(dense(), tmp_path / "run", progress=Progress(batch=stop))
    assert not (tmp_path / "run" / LOCK).exists()
    assert train(dense(epochs=1), tmp_path / "run", overwrite=True).complete


@needs_flock
def test_those_who_wait_have_a_lock_one_after_the_other(tmp_path: Path) -> None:
    """Each adds one to a number in a file, by reading and writing it."""
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=count_up, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "count").read_text() == "100"
    assert not (tmp_path / LOCK).exists()


def count_up(folder: Path) -> None:
    for _ in range(25):
        with locked(folder / LOCK, wait=True):
            value = int((folder / "count").read_text())
            time.sleep(0.0002)
            (folder / "count").write_text(str(value + 1))


@needs_flock
def test_a_lock_is_no_link_to_a_file_of_others(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / LOCK).symlink_to("precious")
    with pytest.raises(OSError, match="symbolic"), locked(tmp_path / LOCK):
        pass
    assert (tmp_path / "precious").read_text() == "text"


def test_without_flock_there_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked(tmp_path / LOCK), locked(tmp_path / LOCK):
        pass
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lr": 0.5}, "lr = 0.001, got 0.5"),
        ({"seed": 7, "batch_size": 2}, "batch_size = 256, got 2; seed = 0, got 7"),
        ({"model": "rows-cfc", "units": 8}, "model = 'dense', got 'rows-cfc'; units = None, got 8"),
    ],
)
def test_a_run_whose_configuration_was_edited_is_not_resumed(
    finished: Run, changes: dict[str, Any], text: str
) -> None:
    path = finished.path / "config.json"
    content = path.read_text()
    path.write_text(json.dumps({**json.loads(content), **changes}))
    before = finished.path.joinpath("last.pt").read_bytes()
    with pytest.raises(RunError, match=f"last.pt: trained with {text}; restore config.json"):
        train(replace(finished.config, epochs=3), finished.path, resume=True)
    assert finished.path.joinpath("last.pt").read_bytes() == before
    path.write_text(content)
    assert train(replace(finished.config, epochs=3), finished.path, resume=True).complete


@pytest.mark.parametrize("place", ["draw_test", "draw", "write_card", "draw_examples"])
def test_a_kill_in_the_last_pictures_is_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def kill(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop.RunLog, place, kill)
        # What a killed process does not do.
        real = Run.write_metrics
        patch.setattr(
            Run,
            "write_metrics",
            lambda run, metrics: None if metrics["status"] == "failed" else real(run, metrics),
        )
        with pytest.raises(Killed):
            train(dense(), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.metrics["status"] == "finished"
    assert run.metrics["test"] is not None
    assert not run.complete
    test = run.metrics["test"]
    again = train(dense(), run.path, resume=True)
    assert again.complete
    assert again.metrics["test"] == test
    assert {"confusion-test.png", "training.png", "examples.png", "README.md"} <= {
        path.name for path in run.path.iterdir()
    }
    with pytest.raises(RunError, match="has 2 epochs already"):
        train(dense(), run.path, resume=True)


def test_a_run_of_before_the_mark_counts_as_complete(finished: Run) -> None:
    metrics = finished.metrics
    assert metrics.pop("complete") is True
    finished.write_metrics(metrics)
    assert finished.complete


LEFT = (
    ".best.pt.abcd_123",
    ".metrics.json.abcdefgh",
    ".confusion-test.png.abcdefgh",
    ".evaluation-val.json.abcdefgh",
    ".README.md.abcdefgh",
)


@pytest.mark.parametrize("how", [{"overwrite": True}, {"resume": True}])
def test_what_a_kill_left_goes(finished: Run, how: dict[str, bool]) -> None:
    for name in (*LEFT, ".mine.txt.abcdefgh", ".best.pt.backup"):
        (finished.path / name).write_bytes(b"half")
    train(dense(epochs=3), finished.path, **how)
    hidden = {path.name for path in finished.path.glob(".*")}
    assert hidden == {".mine.txt.abcdefgh", ".best.pt.backup"}


def test_what_a_kill_left_beside_seeds_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "train", lambda config, path, **how: train(dense(epochs=1), path))
    (tmp_path / ".seeds.json.abcdefgh").write_bytes(b"half")
    train_seeds(dense(epochs=1), tmp_path, 2)
    assert not any(tmp_path.glob(".*"))


def test_seeds_that_cannot_begin_leave_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        train_seeds(replace(dense(), data="npz:none.npz"), tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()


def send(number: int) -> Callable[[dict[str, Any]], None]:
    def epoch(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            os.kill(os.getpid(), number)

    return epoch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_can_be_resumed(tmp_path: Path, number: int) -> None:
    with terminated_as_interrupted():
        run = train(dense(epochs=4), tmp_path / "run", progress=Progress(epoch=send(number)))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert (run.metrics["status"], run.metrics["epochs"]) == ("interrupted", 2)
    assert train(dense(epochs=4), run.path, resume=True).metrics["epochs"] == 4


def test_a_signal_waits_until_files_are_written() -> None:
    done = []

    def write() -> None:
        with interrupts_held_back():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("written")

    with terminated_as_interrupted():
        with pytest.raises(KeyboardInterrupt):
            write()
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert done == ["written"]


def test_a_signal_that_the_program_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with terminated_as_interrupted():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
