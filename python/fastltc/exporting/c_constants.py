"""Numbers as constants of C."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from .errors import ExportError

FLOAT_BYTES = 4


def number(value: float) -> str:
    """Return the shortest C constant that is this float."""
    with np.errstate(over="ignore"):
        single = np.float32(value)
    if not np.isfinite(single):
        raise ExportError(f"a constant that is made of the parameters, {value:g}, is no float32")
    plain = np.format_float_positional(single, unique=True, trim="0")
    power = np.format_float_scientific(single, unique=True, trim="-", exp_digits=1)
    return f"{min(plain, power, key=len)}f"


def wrapped(items: Sequence[str]) -> str:
    """Return the items of an initializer in lines; none ends at a ~, which stands for a space."""
    text = textwrap.fill(
        ", ".join(items),
        98,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return text.replace("~", " ")


def texts(values: Sequence[str]) -> str:
    """Return an initializer of strings, in UTF-8, of characters that mean themselves in C."""

    def literal(value: str) -> str:
        # Of the rest, three octal digits, which no digit behind them can lengthen. A question mark
        # could begin a trigraph, and what is no ASCII depends on the compiler's settings.
        written = (
            chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}"
            for byte in value.encode()
        )
        return '"' + "".join(written) + '"'

    return "{" + ", ".join(literal(value) for value in values) + "}"
