"""What a benchmark says: rows of figures, some of them with a target, as they lie in the JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# Where a figure stands in the table of report.py.
Column = Literal["fastltc", "ncps", "LSTM", "other"]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a quantity over rounds."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, q1, q3)


@dataclass(frozen=True)
class Figure:
    """A measured quantity.

    Args:
        column: of the table.
        text: how to say it, with ``{}`` for the number: ``"{} x ncps"``.
        value: median and quartiles over rounds.
        at_least: target, or None.
        at_most: target, or None.
    """

    column: Column
    text: str
    value: Spread
    at_least: float | None = None
    at_most: float | None = None

    @property
    def asked(self) -> str | None:
        """The target in words, or None."""
        if self.at_least is not None:
            return "at least " + self.text.format(number(self.at_least))
        if self.at_most is not None:
            return "at most " + self.text.format(number(self.at_most))
        return None

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        if self.at_least is not None:
            return self.value.median >= self.at_least
        if self.at_most is not None:
            return self.value.median <= self.at_most
        return None


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        case: what is run: wiring and sizes.
        task: what of it is timed.
        threads: of the subject; 0 where a GPU does the work.
        figures: in the order in which they are asked.
        contestants: name to ``{"seconds": .., "q1": .., "q3": .., "calls": ..}``, the times of one
            job and the calls in a slice; or, where memory is measured, ``{"bytes": ..}``. The first
            is fastltc.
        rounds: how many there were.
        error: largest difference between fastltc and ncps that the check before found, relative to
            the largest value of a tensor; None where nothing was to be checked.
    """

    case: str
    task: str
    threads: int
    figures: list[Figure]
    contestants: dict[str, dict[str, float]] = field(default_factory=dict)
    rounds: int = 1
    error: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        figures = [Figure(**{**f, "value": Spread(**f["value"])}) for f in data["figures"]]
        return cls(**{**data, "figures": figures})


def number(value: float) -> str:
    """Return ``value`` with three significant digits and no exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.6f}"


def duration(seconds: float) -> str:
    """Return a time with its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds * 1e6)} us"
