"""Files that are either whole or absent, also after Ctrl-C, and the formats of their texts."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._files import write_all as write_all
from .._files import write_bytes as write_bytes


def format_json(content: Any) -> bytes:
    """Standard JSON (no NaN), indented."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """Writes `format_json`, whole or not at all."""
    write_bytes(path, format_json(content))


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Raises a KeyboardInterrupt that comes inside the block at its end instead.

    Does nothing in other threads than the main one, where Python delivers no signals, and where
    the program handles SIGINT in a way of its own.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    received = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if received:
        raise KeyboardInterrupt


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
    return tomllib.loads(text)
