"""Looks for inputs that a reader of hostile files neither takes nor refuses, by coverage.

    pip install atheris
    python tests/fuzz/fuzz.py TARGET --seconds 1800 [--corpus FOLDER]

Starts from ``corpus/TARGET``; what covers more is written to the other folder, what fails to
``crash-*`` there. Ends with another status than 0 where something failed: an exception that the
target does not allow, 30 s for an input, or 2 GiB of memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--corpus", type=Path, help="where new inputs go; by default nowhere kept")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    with atheris.instrument_imports(
        include=["fastltc", "targets", "safetensors", "tomllib", "zipfile", "numpy.lib"]
    ):
        from targets import TARGETS
    found = options.corpus or Path(tempfile.mkdtemp())
    found.mkdir(parents=True, exist_ok=True)
    limits = ["-rss_limit_mb=2048", "-timeout=30", "-max_len=20000", "-print_final_stats=1"]
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={options.seconds}",
            f"-artifact_prefix={found}/",
            *limits,
            str(found),
            str(HERE / "corpus" / options.target),
        ],
        TARGETS[options.target],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
