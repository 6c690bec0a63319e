"""Compares the fastltc of this environment with that of another one, another commit for example.

    python benchmarks/against.py OTHER_PYTHON                   time of each call, of both in turn
    python benchmarks/against.py OTHER_PYTHON --instructions    instructions of each, by callgrind

OTHER_PYTHON is the interpreter of an environment in which the other fastltc is installed. Both run
the calls of this folder (``CALLS``). A number above 1 says that this environment's takes more.
Instructions are those of the AVX2 kernels (valgrind knows no AVX-512); they do not drift, whatever
else the machine does, and they are not time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from calls import CALLS
from figures import Spread
from worker import Worker

WORKER = Path(__file__).with_name("worker.py")


PAIRS = 5
"""Processes of each: where one's memory lies is chance, and costs or saves some per cent."""


def compare_times(name: str, other: str, threads: int, rounds: int) -> Spread:
    """Return the time of this fastltc over that of the other, round by round."""
    ratios = [
        ratio
        for _ in range(PAIRS)
        for ratio in _ratios(name, other, threads, math.ceil(rounds / PAIRS))
    ]
    return Spread.of(ratios)


def _ratios(name: str, other: str, threads: int, rounds: int) -> list[float]:
    with Worker(name, threads) as ours, Worker(name, threads, python=other) as theirs:
        calls = 1
        while (elapsed := ours.seconds(calls)) < 0.01:
            calls *= 2
        calls = max(1, math.ceil(0.05 * calls / elapsed))
        ours.seconds(calls)
        theirs.seconds(calls)
        ratios = []
        for number in range(rounds):
            # Each goes first as often as the other.
            pair = (ours, theirs) if number % 2 else (theirs, ours)
            seconds = {worker: worker.seconds(calls) for worker in pair}
            ratios.append(seconds[ours] / seconds[theirs])
        return ratios


def count_instructions(python: str, names: list[str]) -> dict[str, int]:
    """Return the instructions of one call of each."""
    with tempfile.TemporaryDirectory() as folder:
        output = subprocess.run(
            ["valgrind", "--tool=callgrind", python, str(WORKER), "instructions", *names],
            env={**os.environ, "FASTLTC_CPU": "avx2", "OMP_NUM_THREADS": "1"},
            cwd=folder,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ).stdout
    return dict(json.loads(line) for line in output.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", metavar="OTHER_PYTHON")
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("-k", default="", help="only calls whose name contains this")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    options = parser.parse_args()
    names = [name for name in CALLS if options.k in name]
    table = {}
    if options.instructions:
        ours, theirs = (count_instructions(p, names) for p in (sys.executable, options.python))
        for name in names:
            table[name] = {"instructions": ours[name], "ratio": ours[name] / theirs[name]}
            print(f"{table[name]['ratio']:.4f}  {ours[name]:>12,d}  {name}")
    else:
        for name in names:
            spread = compare_times(name, options.python, options.threads, options.rounds)
            table[name] = {"ratio": spread.median, "q1": spread.q1, "q3": spread.q3}
            print(f"{spread.median:.3f}  {spread.q1:.3f} to {spread.q3:.3f}  {name}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
