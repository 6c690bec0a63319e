"""Output that cannot be written, and signals, while the command trains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli_support import fails, invoke
from fastltc.cli import train as command
from fastltc.cli.options import make_console
from fastltc.jobs import Run
from job_support import leave_out_pictures

TRAIN = ["train", "digits", "--model", "dense", "--threads", "1", "--epochs", "3", "--out"]


def test_training_goes_on_when_nobody_reads_its_lines(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fastltc", *TRAIN, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("digits")
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(), errors) == (0, "")
    run = Run.open(tmp_path / "run")
    assert run.complete
    assert run.metrics["epochs"] == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_training_goes_on_when_its_lines_have_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_pictures(monkeypatch)
    with open("/dev/full", "w") as full:

        def console() -> Any:
            made = make_console()
            made.file = full
            return made

        monkeypatch.setattr(command, "make_console", console)
        # The result could not be printed, and that is what it says.
        fails(invoke(*TRAIN, tmp_path / "run"), "No space left on device")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    run = Run.open(tmp_path / "run")
    assert run.complete
    assert run.metrics["epochs"] == 3


def test_sigterm_ends_training_as_ctrl_c_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_pictures(monkeypatch)
    real = command._TrainView.epoch

    def epoch(view: Any, record: dict[str, Any]) -> None:
        real(view, record)
        if record["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(command._TrainView, "epoch", epoch)
    result = invoke(*TRAIN, tmp_path / "run")
    assert result.exit_code == 130, result.output
    assert "interrupted after epoch 2" in result.output
    metrics = Run.open(tmp_path / "run").metrics
    assert (metrics["status"], metrics["epochs"]) == ("interrupted", 2)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
