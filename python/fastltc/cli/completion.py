"""What the shell completes besides commands and flags; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

# Called with the context, the parameter and what has been typed.
Complete = Callable[[click.Context, click.Parameter, str], list["CompletionItem[Any]"]]


def among(names: Callable[[], Iterable[tuple[str, str]]]) -> Complete:
    """Completes one of several names, which have descriptions; they are asked for when needed."""

    def complete(
        context: click.Context, parameter: click.Parameter, typed: str
    ) -> list[CompletionItem[Any]]:
        return [
            CompletionItem(name, help=about or None)
            for name, about in names()
            # The larger files of MedMNIST, NAME_64 and so on, only once they are asked for.
            if name.startswith(typed) and ("_" in typed or "_" not in name)
        ]

    return complete


def _recipes() -> list[tuple[str, str]]:
    from ..jobs import describe_recipes

    return describe_recipes()


def _data_sets() -> list[tuple[str, str]]:
    from ..jobs.data.medmnist import RECORDS
    from ..jobs.data.registry import SOURCES

    named = {name: source.about for name, source in SOURCES.items() if ":" not in name}
    return list((named | dict.fromkeys(RECORDS, "MedMNIST v2")).items())


def run_folder(
    context: click.Context, parameter: click.Parameter, typed: str
) -> list[CompletionItem[Any]]:
    """Completes the runs below ``runs``, where training puts them, and any folder."""
    runs = {
        path.parent for name in ("config", "seeds") for path in Path().glob(f"runs/*/{name}.json")
    }
    found = sorted(str(path) for path in runs if str(path).startswith(typed))
    # The folder first: bash forgets what came before it.
    return [CompletionItem(typed, type="dir"), *map(CompletionItem, found)]


def a_file(
    context: click.Context, parameter: click.Parameter, typed: str
) -> list[CompletionItem[Any]]:
    """Completes a file or folder."""
    return [CompletionItem(typed, type="file")]


data_set = among(_data_sets)
recipe = among(_recipes)
