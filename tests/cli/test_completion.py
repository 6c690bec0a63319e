"""What the shell completes, by the protocol between it and the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("surroundings")


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-m", "fastltc"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )


def completed(line: str) -> list[str]:
    """The answers for the last word of a line, which may be empty, as ``type,value``."""
    words = line.split(" ")
    found = run(
        "-X",
        "importtime",
        COMP_WORDS=line,
        COMP_CWORD=str(len(words) - 1),
        _FASTLTC_COMPLETE="bash_complete",
    )
    imported = {text.rpartition("|")[2].strip() for text in found.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"torch", "sklearn", "matplotlib"}
    return found.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    script = run(_FASTLTC_COMPLETE=f"{shell}_source").stdout
    assert "_FASTLTC_COMPLETE" in script
    assert f"{shell}_complete" in script


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("fastltc ev", ["plain,evaluate"]),
        ("fastltc train bre", ["plain,breastmnist"]),
        ("fastltc train di", ["plain,digits"]),
        ("fastltc train breastmnist_", [f"plain,breastmnist_{side}" for side in (64, 128, 224)]),
        ("fastltc evaluate RUN --data occ", ["plain,occupancy"]),
        ("fastltc train --recipe occupancy", ["plain,occupancy-ltc"]),
        ("fastltc recipes mnist-rows", ["plain,mnist-rows-ltc"]),
        ("fastltc train --schedule c", ["plain,constant", "plain,cosine"]),
        ("fastltc train --data-root da", ["file,da"]),
        ("fastltc audit pho", ["file,pho"]),
    ],
)
def test_the_last_word(line: str, answers: list[str]) -> None:
    assert completed(line) == answers


@pytest.mark.parametrize("command", ["evaluate", "predict", "compare", "train --resume"])
def test_runs_and_folders(command: str) -> None:
    for name, file in (("digits", "config"), ("digits-2", "seeds"), ("other", "notes")):
        folder = Path("runs") / name
        folder.mkdir(parents=True)
        (folder / f"{file}.json").write_text("{}")
    answers = ["dir,runs/d", "plain,runs/digits", "plain,runs/digits-2"]
    assert completed(f"fastltc {command} runs/d") == answers
