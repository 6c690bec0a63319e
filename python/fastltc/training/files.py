"""Files that are either whole or absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .._files import write_bytes as write_bytes


def write_json(path: Path, content: Any) -> None:
    """Writes standard JSON (no NaN), indented, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
