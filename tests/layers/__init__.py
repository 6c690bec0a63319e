"""The cells, each described once for the tests of what all layers promise.

A new cell is a subclass of ``Case`` in a file of its own and an entry of ``CELLS``; every test
that takes ``draw`` or ``cell`` then runs with it.
"""

from __future__ import annotations

from typing import Any

import pytest

from layers.case import (
    Case,
    Draw,
    assert_all_close,
    assert_same_bits,
    backward_arguments,
    cases,
    change_tensors,
    check_against_reference,
    check_values,
    named,
    random_weights,
    raw_arguments,
    run_operator,
    run_raw,
    run_reference,
    with_gradients,
)
from layers.cfc import CfcCase
from layers.ltc import LtcCase

CELLS: dict[str, type[Case]] = {cell.cell: cell for cell in (LtcCase, CfcCase)}


def draws(options: str) -> dict[str, Draw]:
    """Return a draw for each entry of "kinds", "calls" or the like of each cell."""
    return {
        f"{name} {kind}".strip(): Draw(cell, chosen)
        for name, cell in CELLS.items()
        for kind, chosen in getattr(cell, options).items()
    }


def over(draws: dict[str, Draw]) -> Any:
    return pytest.mark.parametrize("draw", draws.values(), ids=draws)


def over_equations_and(name: str, attribute: str) -> Any:
    """Parametrize a test by ``draw`` and, as ``name``, the entries of an attribute of its cell."""
    return pytest.mark.parametrize(
        ("draw", name),
        [
            pytest.param(draw, value, id=f"{text} {value}")
            for text, draw in draws("equations").items()
            for value in getattr(draw.cell, attribute)
        ],
    )


# Parametrize a test by ``draw``, or by ``cell`` for the classes themselves.
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
plainly = over({name: Draw(cell) for name, cell in CELLS.items()})
every_kind = over(draws("kinds"))
few_kinds = over(
    {f"{n} {kind}": Draw(c, c.kinds[kind]) for n, c in CELLS.items() for kind in c.few}
)
every_equation = over(draws("equations"))
every_layout = over(draws("layouts"))
every_call = over(draws("calls"))
every_equation_and_layout = over(
    {
        f"{name} {layout}".strip(): Draw(draw.cell, {**draw.options, **chosen})
        for name, draw in draws("equations").items()
        for layout, chosen in draw.cell.layouts.items()
    }
)

__all__ = [
    "CELLS",
    "Case",
    "CfcCase",
    "Draw",
    "LtcCase",
    "assert_all_close",
    "assert_same_bits",
    "backward_arguments",
    "cases",
    "change_tensors",
    "check_against_reference",
    "check_values",
    "draws",
    "every_call",
    "every_cell",
    "every_equation",
    "every_equation_and_layout",
    "every_kind",
    "every_layout",
    "few_kinds",
    "named",
    "over",
    "over_equations_and",
    "plainly",
    "random_weights",
    "raw_arguments",
    "run_operator",
    "run_raw",
    "run_reference",
    "with_gradients",
]
