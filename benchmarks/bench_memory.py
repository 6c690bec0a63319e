"""Peak memory of a training step of LTC against that of ncps, each in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cases import CASES, QUICK, Layers
from figures import Figure, Row, Spread

WORKER = Path(__file__).with_name("worker.py")
NAMES = ["auto_ncp_19", "auto_ncp_64", "fully_connected_64"]

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK),
    reason="the peak of resident memory can only be reset on Linux",
)


def peak_bytes(name: str, which: str, threads: int) -> int:
    command = [sys.executable, str(WORKER), "memory", name, which, str(threads)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return int(json.loads(output.splitlines()[-1]))


@pytest.mark.parametrize("name", NAMES[:1] if QUICK else NAMES)
def test_peak_memory(
    name: str,
    checked_layers: Callable[[str], tuple[Layers, float]],
    benchmark: Any,
    record: Callable[[Row], None],
    threads: int,
) -> None:
    _, error = checked_layers(name)
    rounds = 1 if QUICK else 3
    peaks: dict[str, list[int]] = {"fastltc": [], "ncps": []}

    def measure(which: str) -> None:
        peaks[which].append(peak_bytes(name, which, threads))

    # The time is that of starting a process; only the bytes are of interest.
    benchmark.pedantic(measure, ("fastltc",), rounds=rounds)
    measure("ncps")
    theirs = peaks["ncps"][0]
    ratio = Spread.of([theirs / ours for ours in peaks["fastltc"]])
    contestants = {which: {"bytes": Spread.of(values).median} for which, values in peaks.items()}
    figures = [Figure("ncps", "{} x less than ncps", ratio, at_least=50)]
    record(
        Row(
            str(CASES[name]),
            "peak memory, forward + backward",
            threads,
            figures,
            contestants,
            rounds,
            error,
        )
    )
