"""How the tests of the command line call it, and what a refusal looks like."""

from __future__ import annotations

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
