"""Check that no function compiled for one instruction set can stand in for another's.

An inline function or template outside the namespace of its instruction set is a weak symbol; the
linker keeps one copy of it for the whole library, perhaps the AVX-512 one, and an older processor
then stops at an illegal instruction. Such functions have to be inlined or made local.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

# Harmless: it only ends the program.
ALLOWED = {"__clang_call_terminate"}


def shared_functions(nm: str, isa: str, objects: list[str]) -> set[str]:
    """Return the mangled names of the weak functions in ``objects`` that do not name ``isa``."""
    listing = subprocess.run([nm, *objects], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in listing.splitlines()]
    weak = {row[2] for row in rows if len(row) == 3 and row[1] in ("W", "u")}
    namespace = f"7fastltc3cpu{len(isa)}{isa}"
    return {name for name in weak if namespace not in name} - ALLOWED


def main() -> None:
    """Exit with an error text when there are such functions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nm", default="nm")
    parser.add_argument("isa")
    parser.add_argument("objects", nargs="+")
    arguments = parser.parse_args()
    found = shared_functions(arguments.nm, arguments.isa, arguments.objects)
    if found:
        sys.exit(
            f"{arguments.isa}: functions that could replace those of other instruction sets:\n  "
            + "\n  ".join(sorted(found))
        )


if __name__ == "__main__":
    main()
