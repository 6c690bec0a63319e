"""What the GPU benchmarks make of their times, on a clock that only work moves."""

import json
from collections.abc import Callable

import pytest

import report
from cuda_rows import (
    LIMIT,
    Asked,
    against_compiled_ncps,
    against_lstm,
    against_ncps,
    evaluation_rate,
    gpu_row,
    over_limit,
)
from figures import Row
from interleave import Contestant, Interleaved
from special_function_limit import EVALUATIONS_PER_REPEAT, THREADS, SpecialFunctionLimit


class Gpu:
    """Takes the seconds it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds

        return call

    def times(self, rounds: int = 3, **seconds: float) -> Interleaved:
        """Return a comparison of contestants that take so long; underscores stand for spaces."""
        contestants = [
            Contestant(name.replace("_", " "), self.work(t), 1) for name, t in seconds.items()
        ]
        comparison = Interleaved(contestants, 0.0, self.clock)
        for _ in range(rounds):
            comparison.run_others()
            comparison.run_subject()
        return comparison

    def against_limit(self, seconds: float, limit_seconds: float) -> Interleaved:
        contestants = [
            Contestant("fastltc", self.work(seconds), 1),
            Contestant(LIMIT, self.work(limit_seconds), 1),
        ]
        comparison = Interleaved(contestants, 0.0, self.clock)
        comparison.run_others()
        comparison.run_subject()
        return comparison


@pytest.fixture
def gpu() -> Gpu:
    return Gpu()


def test_figures_against_others_hold_what_is_asked(gpu: Gpu) -> None:
    times = gpu.times(fastltc=0.001, LSTM=0.0025, ncps=0.25, ncps_compiled=0.05)
    asked = Asked(part_of_lstm=0.5, times_ncps=300)
    ncps, lstm = against_ncps(times, asked), against_lstm(times, 19, asked)
    assert (ncps.column, ncps.asked, ncps.reached) == ("ncps", "at least 300 x ncps", False)
    assert ncps.value.median == pytest.approx(250)
    assert (lstm.column, lstm.asked, lstm.reached) == ("LSTM", "at most 0.5 of LSTM(19)", True)
    assert lstm.value.median == pytest.approx(0.4)
    compiled = against_compiled_ncps(times)
    assert compiled.value.median == pytest.approx(50)
    assert compiled.asked is None
    assert against_lstm(times, 19, Asked()).asked is None


def test_part_of_the_limit(gpu: Gpu) -> None:
    # The limit does 1000 evaluations in 1 s, the layer 100 in 0.2 s: half of that rate.
    times = gpu.against_limit(0.2, 1.0)
    asked = Asked(percent_of_limit=60)
    forward = over_limit(times, 100, 1000, asked, passes=1)
    assert forward.value.median == pytest.approx(50)
    assert forward.reached is False
    both = over_limit(times, 100, 1000, asked, passes=2)
    assert both.value.median == pytest.approx(100)
    assert both.asked == "at least 60 % of the special-function limit"
    assert both.reached is True


def test_rate_of_the_limit(gpu: Gpu) -> None:
    comparison = Interleaved([Contestant(LIMIT, gpu.work(0.01), 1)], 0.0, gpu.clock)
    comparison.run_subject()
    figure = evaluation_rate(comparison, 20_000_000_000)
    assert figure.value.median == pytest.approx(2.0)
    assert "2 x 10^12 evaluations/s" in figure.text.format(f"{figure.value.median:g}")


def test_rows_survive_json_and_name_no_threads(gpu: Gpu) -> None:
    times = gpu.times(rounds=4, fastltc=0.001, LSTM=0.002)
    row = gpu_row("LTC", "forward", times, [against_lstm(times, 8, Asked(0.6))], 1e-6)
    assert row.rounds == 4
    assert list(row.contestants) == ["fastltc", "LSTM"]
    assert row.contestants["fastltc"]["seconds"] == pytest.approx(0.001)
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row
    line = report.table([row]).splitlines()[2]
    assert "| LTC: forward | 1 ms |" in line
    assert "at most 0.6 of LSTM(8) | yes |" in line


def test_conditions_name_the_gpu() -> None:
    data = {
        "machine_info": {
            "processor": "Some CPU",
            "cores": 2,
            "gpu": {"name": "Some GPU", "cuda": "13.0", "driver": "1.2"},
            "instruction_set": "avx2",
            "python": "CPython",
            "versions": {},
            "threads": 2,
            "load_average_before": 0,
        },
        "commit_info": {"id": "0" * 40},
        "datetime": "2026-01-02T03",
    }
    text = report.conditions(data, "x.json")
    assert "on Some GPU (CUDA 13.0, driver 1.2) in Some CPU (avx2" in text
    data["machine_info"]["gpu"] = None
    assert "on Some CPU (avx2" in report.conditions(data, "x.json")


def test_the_limit_runs_long_enough(gpu: Gpu) -> None:
    calls = []

    def run(threads: int, repeats: int) -> None:
        calls.append((threads, repeats))
        gpu.now += 1e-6 * repeats

    limit = SpecialFunctionLimit(0.001, run, gpu.clock)
    # The first call is not timed.
    assert calls[0] == (THREADS, 8)
    assert calls[-1] == (THREADS, 1024)
    assert limit.evaluations == THREADS * EVALUATIONS_PER_REPEAT * 1024
    limit.call()
    assert calls[-1] == (THREADS, 1024)
