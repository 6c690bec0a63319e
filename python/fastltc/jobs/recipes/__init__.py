"""Recipes: configurations that come with the package, as TOML files."""

from __future__ import annotations

from importlib import resources
from typing import Any

from ..config import read_toml
from ..errors import ConfigError
from ..files import parse_toml


def recipe_names() -> tuple[str, ...]:
    """Names that `read_recipe` knows."""
    folder = resources.files(__name__)
    return tuple(
        sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))
    )


def read_recipe(name: str) -> dict[str, Any]:
    """The options of a recipe, and ``about``, a line that describes it.

    Raises:
        ConfigError: there is none of this name; the text lists them.
    """
    if name not in recipe_names():
        raise ConfigError(f"recipe: expected one of {', '.join(recipe_names())}, got {name!r}")
    return read_toml(resources.files(__name__).joinpath(f"{name}.toml"))


def describe_recipes() -> list[tuple[str, str]]:
    """Each recipe's name and its line."""
    folder = resources.files(__name__)
    return [
        (name, parse_toml(folder.joinpath(f"{name}.toml").read_text(encoding="utf-8"))["about"])
        for name in recipe_names()
    ]
