"""Options that several commands share; those of training are the fields of `TrainConfig`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..jobs.config import OPTIONS
from ..jobs.options import Option
from . import completion

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_TYPES = {"str": str, "int": int, "float": float}


def field_option(name: str) -> Callable[..., Any]:
    """The click option of a field of `TrainConfig`; without a default, so that a recipe has one."""
    declared = OPTIONS[name]
    if declared.declared == "bool":
        flags = f"{declared.flag}/--no-{declared.flag[2:]}"
        return click.option(flags, name, default=None, help=declared.help)
    return click.option(
        declared.flag,
        name,
        type=_TYPES[declared.declared],
        metavar=declared.metavar,
        shell_complete=_complete(declared),
        help=declared.help + (f"  [default: {declared.usual}]" if declared.usual else ""),
    )


def _complete(declared: Option) -> completion.Complete | None:
    if declared.metavar in ("DIR", "FILE"):
        return completion.a_file
    names = () if declared.allowed is None else declared.allowed.names
    return completion.among(lambda: ((name, "") for name in names)) if names else None


def path_option(
    flag: str, metavar: str, help: str, *names: str, **given: Any
) -> Callable[..., Any]:
    """A click option that is a path."""
    path = click.Path(path_type=Path)
    return click.option(flag, *names, type=path, metavar=metavar, help=help, **given)


DATA_ROOT = field_option("data_root")
POSITIVE = field_option("positive")
THREADS = field_option("threads")
DEVICE = field_option("device")
# The other options of training. DATA is an argument.
_SHARED = ("data", "data_root", "positive", "threads", "device")
TRAIN_OPTIONS = tuple(field_option(name) for name in OPTIONS if name not in _SHARED)


def absolute(data: str) -> str:
    """The name of a data set, with the path in it made absolute, so that it holds anywhere."""
    kind, colon, place = data.partition(":")
    return f"{kind}:{Path(place).expanduser().resolve()}" if colon and place else data


def options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A decorator that applies several, the first on top."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


RUN = click.argument(
    "run",
    metavar="RUN",
    type=click.Path(path_type=Path),
    shell_complete=completion.run_folder,
)
OFFLINE = click.option("--offline", is_flag=True, help="Never download.")
CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="The best epoch by validation, or the last.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


_HIDDEN = {
    number: f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
    # Those of terminals but for new line and tab, and those that turn the direction of a text.
    for number in (
        *({*range(32), *range(127, 160)} - {*map(ord, "\n\t")}),
        *(0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
        # Bytes of a file's name that are no text.
        *range(0xD800, 0xE000),
    )
}


def visible(text: str) -> str:
    r"""A text without what a terminal would take for a command; such characters as ``\x1b``.

    Names of files and classes come from others, and could hide or forge lines.
    """
    return text.translate(_HIDDEN)


def echo(text: str, **how: Any) -> None:
    """Prints a text, `visible`, where rich is not needed; see `click.echo`."""
    click.echo(visible(text), **how)


def print_json(content: Any) -> None:
    """Prints what ``--json`` asks for."""
    click.echo(json.dumps(content, indent=2))


def make_console() -> Console:
    """Where commands print: on a terminal in its width, else with lines as long as they are."""
    from rich.console import Console

    class Output(Console):
        """Prints texts `visible`, and nothing where nobody reads on."""

        def render_str(self, text: str, **how: Any) -> Text:
            """As of `Console`."""
            return super().render_str(visible(text), **how)

        def on_broken_pipe(self) -> None:
            """Goes on without output: a training must not end because nobody reads on."""
            self.quiet = True
            # What is still to be written would fail again when the program ends.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    # Names of classes and files are no markup, whatever brackets and colons are in them.
    console = Output(soft_wrap=True, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        # In a file or a pipe nothing is too wide, and a table would be cut.
        console.width = 10_000
    return console


def set_threads(threads: int | None) -> None:
    """Sets torch's threads, where a number is given."""
    if threads is None:
        return
    if threads < 1:
        raise click.BadParameter(f"expected at least 1, got {threads}", param_hint="--threads")
    import torch

    torch.set_num_threads(threads)
