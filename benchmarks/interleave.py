"""Times several ways of doing one job in turn, so that what slows the machine slows all of them.

A round runs each contestant once for a slice of time, one after another. Ratios are taken inside a
round, between slices a moment apart, and only then the median over rounds: a machine that is slower
for a minute changes both sides of a ratio alike.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from figures import Spread


@dataclass(frozen=True)
class Contestant:
    """One way of doing the job.

    Args:
        name: stands in the JSON.
        call: does the job.
        threads: that torch may use in it.
        jobs: how often ``call`` does the job; times are those of one.
    """

    name: str
    call: Callable[[], object]
    threads: int
    jobs: int = 1


class Interleaved:
    """The contestants of one comparison, their calls per slice and their times.

    Args:
        contestants: the first is the subject, which runs last in each round; names differ.
        slice_seconds: a contestant is called as often as fits into this time, but at least once.
        clock: returns seconds.
    """

    def __init__(
        self,
        contestants: Sequence[Contestant],
        slice_seconds: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.subject, *self.others = contestants
        self.seconds: dict[str, list[float]] = {c.name: [] for c in contestants}
        self.calls: dict[str, int] = {}
        self._clock = clock
        self._slice_seconds = slice_seconds
        for contestant in contestants:
            self.calls[contestant.name] = self._calls_per_slice(contestant)

    def rounds(self, budget: float, least: int, most: int) -> int:
        """Return how many rounds fit into ``budget`` seconds, by the time of a first one.

        The first round is not kept.
        """
        start = self._clock()
        self.run_others()
        self.run_subject()
        elapsed = self._clock() - start
        for times in self.seconds.values():
            times.clear()
        return max(least, min(most, int(budget / elapsed))) if elapsed > 0 else most

    def run_others(self) -> None:
        for contestant in self.others:
            self._run_slice(contestant)

    def run_subject(self) -> None:
        self._run_slice(self.subject)

    def time(self, name: str) -> Spread:
        """Return the seconds of one job."""
        return Spread.of(self.seconds[name])

    def ratio(self, numerator: str, denominator: str, scale: float = 1.0) -> Spread:
        """Return ``scale`` times the time of one contestant over that of another."""
        pairs = zip(self.seconds[numerator], self.seconds[denominator], strict=True)
        return Spread.of([scale * a / b for a, b in pairs])

    def contestants(self) -> dict[str, dict[str, float]]:
        """Return the times of one job and the calls in a slice, as ``figures.Row`` has them."""
        found = {}
        for contestant in (self.subject, *self.others):
            time = self.time(contestant.name)
            found[contestant.name] = {
                "seconds": time.median,
                "q1": time.q1,
                "q3": time.q3,
                "calls": self.calls[contestant.name],
            }
        return found

    def _calls_per_slice(self, contestant: Contestant) -> int:
        torch.set_num_threads(contestant.threads)
        contestant.call()  # allocations and compilation of the first call
        calls, elapsed = 1, self._clock_calls(contestant, 1)
        # The estimate of a short call from one call would be mostly noise.
        while elapsed < self._slice_seconds / 4:
            calls *= 2
            elapsed = self._clock_calls(contestant, calls)
        return max(1, math.ceil(self._slice_seconds * calls / elapsed)) if elapsed > 0 else 1

    def _run_slice(self, contestant: Contestant) -> None:
        calls = self.calls[contestant.name]
        torch.set_num_threads(contestant.threads)
        if calls > 1:
            # Caches, and worker threads still spinning, belong to the one that ran before.
            contestant.call()
        elapsed = self._clock_calls(contestant, calls)
        self.seconds[contestant.name].append(elapsed / (calls * contestant.jobs))

    def _clock_calls(self, contestant: Contestant, calls: int) -> float:
        collecting = gc.isenabled()
        gc.disable()
        try:
            call = contestant.call
            start = self._clock()
            for _ in range(calls):
                call()
            return self._clock() - start
        finally:
            if collecting:
                gc.enable()
