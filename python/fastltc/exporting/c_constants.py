"""Numbers as constants of C."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np

from .errors import ExportError

__all__ = ["FLOAT_BYTES", "Constants", "number", "texts"]

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


def _wrapped(items: Sequence[str]) -> str:
    text = textwrap.fill(
        ", ".join(items),
        98,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return text.replace("~", " ")  # spaces at which no line may end


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
    """Collects the constants of a layer: C text, and bytes."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.table_bytes = 0

    def _add(self, kind: str, name: str, items: Sequence[str], what: str, size: int) -> None:
        self.text.append(
            f"/* {what} */\nstatic const {kind} {name}[{len(items)}] = {{\n{_wrapped(items)}\n}};\n"
        )
        self.table_bytes += size * len(items)

    def floats(self, name: str, values: np.ndarray, what: str) -> None:
        """Add an array of floats."""
        numbers = [number(value) for value in np.asarray(values).reshape(-1)]
        self._add("float", name, numbers, what, FLOAT_BYTES)

    def integers(self, name: str, values: Iterable[int], what: str) -> None:
        """Add an array of integers of the smallest type that holds them."""
        numbers = [int(value) for value in values]
        bits = next(bits for bits in (8, 16, 32) if max(numbers) < 1 << bits)
        self._add(f"uint{bits}_t", name, [str(value) for value in numbers], what, bits // 8)

    def records(self, kind: str, name: str, rows: np.ndarray, what: str) -> None:
        """Add an array of structs of floats, one for each row."""
        items = ["{" + ",~".join(number(value) for value in row) + "}" for row in rows]
        self._add(kind, name, items, what, FLOAT_BYTES * rows.shape[1])
