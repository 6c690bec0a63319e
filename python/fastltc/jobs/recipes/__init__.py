"""Recipes: configurations that come with the package, as TOML files."""

from __future__ import annotations

from importlib import resources
from typing import Any

from ..config import read_toml
from ..errors import ConfigError
from ..options import one_of


def recipe_names() -> tuple[str, ...]:
    """Names that `read_recipe` knows."""
    folder = resources.files(__name__)
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name[:-5] for name in names if name.endswith(".toml")))


def read_recipe(name: str) -> dict[str, Any]:
    """The options of a recipe, and ``about``, a line that describes it.

    Raises:
        ConfigError: there is none of this name; the text lists them.
    """
    one_of(recipe_names()).check("recipe", name, ConfigError)
    return read_toml(resources.files(__name__).joinpath(f"{name}.toml"))


def describe_recipes() -> list[tuple[str, str]]:
    """Each recipe's name and its line."""
    return [(name, read_recipe(name)["about"]) for name in recipe_names()]
