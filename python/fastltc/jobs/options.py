"""Options that are declared once: as fields of a dataclass.

The field has the name, the type and the default. `option` adds what the check of a value, the
command line and the table in the documentation take from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The values that an option may have: in words, as a condition, and, if few, one by one."""

    expected: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()

    def check(self, name: str, value: Any, error: type[ValueError] = ValueError) -> None:
        """Raises ``error``, which names the option, where a value is out of the range."""
        if not self.holds(value):
            raise error(f"{name}: expected {self.expected}, got {value!r}")


AT_LEAST_2 = Range("at least 2", lambda value: value >= 2)
COUNT = Range("at least 1", lambda value: value >= 1)
ABOVE_0 = Range("a finite number above 0", lambda value: 0 < value < float("inf"))
FROM_0 = Range("a finite number from 0", lambda value: 0 <= value < float("inf"))
SHARE = Range("a number from 0 below 1", lambda value: 0 <= value < 1)
ABOVE_0_TO_1 = Range("above 0 up to 1", lambda value: 0 < value <= 1)
PROBABILITY = Range("a number from 0 to 1", lambda value: 0 <= value <= 1)
SEED = Range("0 to 2**32 - 1", lambda value: 0 <= value < 2**32)


def one_of(names: Collection[str]) -> Range:
    """The range of an option that is one of several names."""
    return Range(f"one of {', '.join(names)}", names.__contains__, tuple(names))


def between(least: int, most: int) -> Range:
    """The range of an option that is a number within bounds, both among them."""
    return Range(f"{least} to {most}", lambda value: least <= value <= most)


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}
# How the command line calls the value of an option of a type.
_METAVARS = {"int": "N", "str": "NAME"}


@dataclass(frozen=True)
class Option:
    """What a field says of an option.

    Args:
        default: the value where none is given.
        help: a line that describes it.
        allowed: the values that it may have.
        metavar: what the command line calls its value.
        usual: the default in words, where the command line names it.
        by_gradient: whether it is of training by gradients alone.
        name: as in a TOML file; on the command line with dashes.
        declared: its type, of ``str``, ``int``, ``float`` and ``bool``.
        optional: whether None is a value, which leaves it to the data or the model.
    """

    default: Any
    help: str
    allowed: Range | None = None
    metavar: str | None = None
    usual: str | None = None
    by_gradient: bool = False
    name: str = ""
    declared: str = ""
    optional: bool = False

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    def check(self, value: Any, error: type[ValueError]) -> None:
        """Raises ``error`` where a value has another type, or is out of the range."""
        if value is None and self.optional:
            return
        known = _TYPES[self.declared]
        if not isinstance(value, known) or (isinstance(value, bool) and bool not in known):
            raise error(f"{self.name}: expected {self.declared}, got {value!r}")
        if self.allowed is not None:
            self.allowed.check(self.name, value, error)


def option(default: Any, help: str, allowed: Range | None = None, **given: Any) -> Any:
    """A field of a dataclass that is an option; the arguments are the first six of `Option`."""
    declared = Option(default, help, allowed, **given)
    return dataclasses.field(default=default, metadata={"option": declared})


def options_of(declaring: Any) -> dict[str, Option]:
    """The options of a dataclass, or of an object of one, by name and in order."""
    found = {}
    for field in dataclasses.fields(declaring):
        one: Option | None = field.metadata.get("option")
        if one is not None:
            # A string, as all annotations here are.
            kind = str(field.type).removesuffix(" | None")
            own: dict[str, Any] = {"declared": kind, "optional": kind != field.type}
            own["metavar"] = one.metavar or _METAVARS.get(kind)
            found[field.name] = dataclasses.replace(one, name=field.name, **own)
    return found


def check_options(values: Any, error: type[ValueError]) -> None:
    """Checks all options of an object.

    Raises:
        ValueError: of the class ``error``: a value has another type or is out of its range; the
            text says what was expected.
    """
    for name, one in options_of(values).items():
        one.check(getattr(values, name), error)
