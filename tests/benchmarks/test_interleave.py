import gc

import pytest
import torch

from figures import Spread
from interleave import Contestant, Interleaved


class Machine:
    """A clock that only work moves, on a machine whose speed may change."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slowness = 1.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def contestant(self, name: str, seconds: float, threads: int = 1, jobs: int = 1) -> Contestant:
        def call() -> None:
            self.log.append(name)
            self.now += seconds * self.slowness

        return Contestant(name, call, threads, jobs)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture(autouse=True)
def keep_thread_count() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def play(comparison: Interleaved, rounds: int) -> None:
    for _ in range(rounds):
        comparison.run_others()
        comparison.run_subject()


def test_each_round_runs_the_others_and_then_the_subject(machine: Machine) -> None:
    names = ["ours", "theirs", "lstm"]
    comparison = Interleaved([machine.contestant(n, 1.0) for n in names], 0.5, machine.clock)
    machine.log.clear()
    play(comparison, 2)
    assert machine.log == ["theirs", "lstm", "ours"] * 2


def test_ratio_is_that_of_a_round_when_the_machine_changes_its_speed(machine: Machine) -> None:
    comparison = Interleaved(
        [machine.contestant("ours", 2.0), machine.contestant("theirs", 6.0)], 0.0, machine.clock
    )
    for slowness in (1.0, 1.0, 10.0, 100.0, 1000.0):
        machine.slowness = slowness
        play(comparison, 1)
    assert comparison.ratio("theirs", "ours") == Spread(3.0, 3.0, 3.0)
    assert comparison.ratio("theirs", "ours", scale=100.0).median == 300.0
    assert comparison.time("ours").median == 20.0


def test_ratio_is_the_median_over_rounds_and_not_of_times(machine: Machine) -> None:
    comparison = Interleaved(
        [machine.contestant("ours", 1.0), machine.contestant("theirs", 1.0)], 0.0, machine.clock
    )
    comparison.seconds = {"ours": [1.0, 2.0, 4.0], "theirs": [10.0, 2.0, 12.0]}
    # The ratio of the medians would be 5.
    assert comparison.ratio("theirs", "ours").median == 3.0


def test_short_calls_fill_their_slice_and_times_are_of_one_job(machine: Machine) -> None:
    comparison = Interleaved(
        [machine.contestant("ours", 0.01, jobs=5), machine.contestant("theirs", 3.0)],
        0.1,
        machine.clock,
    )
    assert comparison.calls == {"ours": 10, "theirs": 1}
    machine.log.clear()
    play(comparison, 1)
    # One untimed call more for the short one, and none for the long one.
    assert machine.log == ["theirs"] + ["ours"] * 11
    assert comparison.time("ours").median == pytest.approx(0.002)
    assert comparison.time("theirs").median == pytest.approx(3.0)


def test_first_call_does_not_count(machine: Machine) -> None:
    durations = iter([50.0] + [0.5] * 1000)

    def call() -> None:
        machine.now += next(durations)

    comparison = Interleaved([Contestant("ours", call, 1)], 2.0, machine.clock)
    assert comparison.calls["ours"] == 4
    play(comparison, 3)
    assert comparison.time("ours") == Spread(0.5, 0.5, 0.5)


@pytest.mark.parametrize(("budget", "expected"), [(1.0, 7), (100.0, 25), (1e6, 60)])
def test_rounds_follow_the_budget(machine: Machine, budget: float, expected: int) -> None:
    comparison = Interleaved(
        [machine.contestant("ours", 1.0), machine.contestant("theirs", 3.0)], 0.0, machine.clock
    )
    assert comparison.rounds(budget, least=7, most=60) == expected
    assert comparison.seconds == {"ours": [], "theirs": []}


def test_each_contestant_runs_with_its_threads() -> None:
    seen: dict[int, set[int]] = {1: set(), 2: set()}

    def contestant(threads: int) -> Contestant:
        return Contestant(str(threads), lambda: seen[threads].add(torch.get_num_threads()), threads)

    play(Interleaved([contestant(1), contestant(2)], 1e-4), 3)
    assert seen == {1: {1}, 2: {2}}


def test_garbage_is_not_collected_while_the_clock_runs(machine: Machine) -> None:
    collecting: list[bool] = []

    def call() -> None:
        machine.now += 1.0
        collecting.append(gc.isenabled())

    comparison = Interleaved([Contestant("ours", call, 1)], 0.0, machine.clock)
    collecting.clear()
    play(comparison, 3)
    assert collecting == [False] * 3
    assert gc.isenabled()


def test_spread_has_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)
