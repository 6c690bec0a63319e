"""The ``fastltc`` command; its subcommands are in ``cli_*.py``.

Only click is imported here. torch, scikit-learn and matplotlib are imported by the commands that
need them, so that ``fastltc --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from . import completion
from .data import audit, split
from .evaluate import compare, evaluate, predict
from .export import export
from .options import JSON, print_json, visible
from .train import recipes, train
from .tune import tune

# Errors whose text says all that a user needs, by the module that defines them.
_USER_ERRORS = {
    "fastltc.exporting.errors": ("ExportError",),
    "fastltc.runtime.model": ("ModelFileError",),
    "fastltc.jobs.errors": ("ConfigError", "DataError", "DivergedError", "RunError"),
}


def _is_user_error(error: Exception) -> bool:
    if isinstance(error, OSError):
        return True
    # Nothing is imported here: where a module was not loaded, the error is not one of its own.
    return any(
        isinstance(error, getattr(sys.modules[module], name))
        for module, names in _USER_ERRORS.items()
        if module in sys.modules
        for name in names
    )


class _Later(BaseException):
    """Ends click, so that a script, which may use click too, is run outside of it."""

    def __init__(self, run: Callable[[], None]) -> None:
        super().__init__()
        self.run = run


class _Group(click.Group):
    """Commands whose errors for a user's mistake are one message and exit status 1."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except _Later as later:
            run = later.run
        # Not in the handler: it would be the context of what the script raises.
        return run()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("traceback") or not _is_user_error(error):
                raise
            raise click.ClickException(visible(str(error))) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fastltc")
@click.option("--traceback", is_flag=True, help="Show where in the program an error was raised.")
@click.pass_context
def main(context: click.Context, traceback: bool) -> None:
    """Liquid neural networks for PyTorch, as quick as an LSTM."""
    if context.invoked_subcommand == "run":
        return  # the script's environment is the user's
    _let_threads_wait()


def _let_threads_wait() -> None:
    """Says how OpenMP's threads wait for work, unless the user's environment does.

    By default they spin until there is some. On a machine that is not idle that takes the cores
    from the very threads that they wait for, and an epoch takes several times longer. Threads that
    sleep at once have to be woken for each of the many short loops of a step, which costs a
    quarter of an epoch on an idle machine. So they spin for about a tenth of a millisecond, as
    long as most of what a step does in between, and then sleep: as quick as spinning on an idle
    machine, and a quarter slower than sleeping beside one busy program.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    # Read when torch is first imported; the second by GNU's OpenMP alone, torch's own on Linux.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


for command in (train, tune, recipes, evaluate, predict, compare, split, audit, export):
    main.add_command(command)


@main.command()
@JSON
def info(as_json: bool) -> None:
    """Print versions, instruction sets, CUDA support and threads."""
    from .. import info as report

    collected = report.collect()
    if as_json:
        print_json(collected)
    else:
        click.echo(report.format_report(collected))


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-m", "module", is_flag=True, help="SCRIPT is the name of a module.")
@click.option("--report", is_flag=True, help="Print at the end what of ncps was swapped.")
@click.argument("script", shell_complete=completion.a_file)
@click.argument("arguments", metavar="ARGS...", nargs=-1, type=click.UNPROCESSED)
def run(module: bool, report: bool, script: str, arguments: tuple[str, ...]) -> None:
    """Run SCRIPT, written for ncps, with the modules of fastltc.

    As `python SCRIPT ARGS...` or `python -m SCRIPT ARGS...` runs it; nothing is edited.
    """
    from ..dropin.script import run_script

    raise _Later(partial(run_script, script, arguments, module=module, report=report))


if __name__ == "__main__":
    main()
