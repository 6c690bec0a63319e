"""Files that are either whole or absent, also after Ctrl-C, and the formats of their texts."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._files import open_regular as open_regular
from .._files import read_bytes as read_bytes
from .._files import write_all as write_all
from .._files import write_bytes as write_bytes

# Of the texts that people write, and of those that runs keep, in bytes.
MOST_TEXT = 1 << 20
MOST_JSON = 1 << 26


def format_json(content: Any) -> bytes:
    """Standard JSON (no NaN), indented."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """Writes `format_json`, whole or not at all."""
    write_bytes(path, format_json(content))


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Raises a KeyboardInterrupt that comes inside the block at its end instead.

    Does nothing in other threads than the main one, where Python delivers no signals, and with
    signals that the program handles in a way of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = []
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is signal.default_int_handler
    ]
    for number in numbers:
        signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
    if received:
        raise KeyboardInterrupt


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Raises a KeyboardInterrupt in the block where the program is asked to end by SIGTERM.

    That is what Slurm, Kubernetes and ``kill`` send. Does nothing in other threads than the main
    one, and where the program, or the one that started it, has said what becomes of the signal.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def parse_toml(text: str) -> dict[str, Any]:
    """TOML as plain values.

    Raises:
        ValueError: it is no TOML.
    """
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
