"""Files that are either whole or absent, and the formats of their texts."""

from __future__ import annotations

import json
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
