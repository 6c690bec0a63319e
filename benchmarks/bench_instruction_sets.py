"""Training steps of LTC by each instruction set, in processes that take turns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from cases import CASES, QUICK, Layers
from fastltc import _extension
from figures import Figure
from interleave import Contestant
from worker import Worker

NAME = "auto_ncp_19"
# One call is this many steps, beside which the way to the other process is nothing.
STEPS = 1 if QUICK else 10


def test_instruction_sets(
    checked_layers: Callable[[str], tuple[Layers, float]],
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
) -> None:
    _, error = checked_layers(NAME)
    supported = _extension.load_runtime().cpu_info()["supported"]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(f"training, {NAME}", instruction_set=name))
            for name in reversed(supported)
        ]
        times = interleave(
            [
                Contestant(w.instruction_set, partial(w.seconds, STEPS), 1, jobs=STEPS)
                for w in workers
            ]
        )
    best, *others = (worker.instruction_set for worker in workers)
    figures = [
        Figure("other", f"{name} takes {{}} x the time", times.ratio(name, best)) for name in others
    ]
    record_times(str(CASES[NAME]), f"forward + backward by {best}", times, figures, error)
