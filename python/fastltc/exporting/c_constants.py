"""Numbers as constants of C."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from .errors import ExportError

__all__ = ["FLOAT_BYTES", "Constants", "floats", "integers", "number", "records", "texts"]

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


def _wrapped(items: Sequence[str], indent: str = "    ") -> str:
    return textwrap.fill(
        ", ".join(items),
        98,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def floats(name: str, values: np.ndarray, what: str) -> tuple[str, int]:
    """Return the text of an array of floats, and its bytes."""
    flat = np.asarray(values).reshape(-1)
    numbers = _wrapped([number(value) for value in flat])
    return f"/* {what} */\nstatic const float {name}[{flat.size}] = {{\n{numbers}\n}};\n", (
        FLOAT_BYTES * flat.size
    )


def integers(name: str, values: Sequence[int], what: str) -> tuple[str, int]:
    """Return the text of an array of integers of the smallest type that holds them."""
    bits = next(bits for bits in (8, 16, 32) if max(values) < 1 << bits)
    numbers = _wrapped([str(value) for value in values])
    return (
        f"/* {what} */\nstatic const uint{bits}_t {name}[{len(values)}] = {{\n{numbers}\n}};\n",
        bits // 8 * len(values),
    )


def records(kind: str, name: str, rows: np.ndarray, what: str) -> tuple[str, int]:
    """Return the text of an array of structs of floats, one for each row."""
    lines = [", ".join(number(value) for value in row) for row in rows]
    body = _wrapped([f"{{{line}}}".replace(", ", ",~") for line in lines]).replace("~", " ")
    return (
        f"/* {what} */\nstatic const {kind} {name}[{len(rows)}] = {{\n{body}\n}};\n",
        FLOAT_BYTES * rows.size,
    )


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


class Constants:
    """Collects the constants of a layer."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.bytes = 0

    def add(self, made: tuple[str, int]) -> None:
        self.text.append(made[0])
        self.bytes += made[1]
