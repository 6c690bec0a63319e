"""How the tests of the command line call it, and what a refusal looks like."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from click.testing import CliRunner, Result

from fastltc.cli.main import main


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def fails(result: Result, *texts: str, status: int = 1) -> None:
    """These texts on stderr, no traceback."""
    assert result.exit_code == status, result.output
    for text in texts:
        assert text in result.stderr
    assert "Traceback" not in result.output


def execute(
    command: list[str], folder: Path, timeout: int = 120, **environment: str
) -> tuple[int, str, str]:
    """Run a command in a folder: its exit status, what it printed, and on stderr."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    return done.returncode, done.stdout, done.stderr
