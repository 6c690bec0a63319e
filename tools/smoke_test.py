"""Smoke test of an installed fastltc: run by tools/check_packaging.py in fresh environments."""

from __future__ import annotations

import fastltc
from fastltc import info


def main() -> None:
    """Raise when the installation does not work; print its report when it does."""
    collected = info.collect()
    for part in ("torch", "build", "cpu", "operators"):
        assert collected[part]["error"] is None, collected[part]["error"]
    assert collected["fastltc"] == fastltc.__version__
    print(info.format_report(collected))


if __name__ == "__main__":
    main()
