"""Options, fixtures and what goes into the JSON of the benchmarks."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

# The modules beside this file; report.py and worker.py also run as scripts.
sys.path.insert(0, str(Path(__file__).parent))

import machine
import report
from cases import CASES, QUICK, Layers
from cuda_marker import require_cuda
from figures import Figure, Row
from interleave import Contestant, Interleaved

ROWS = pytest.StashKey[list[Row]]()
LOAD_BEFORE = pytest.StashKey["float | None"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastltc benchmarks")
    group.addoption(
        "--threads", type=int, default=2, help="threads of every contestant (default: 2)"
    )
    group.addoption(
        "--compiled-ncps",
        action="store_true",
        help="also time torch.compile of ncps, which compiles for many minutes",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[LOAD_BEFORE] = machine.load_average()


def pytest_runtest_setup(item: pytest.Item) -> None:
    require_cuda(item)


@pytest.fixture(scope="session", autouse=True)
def keep_thread_count() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--threads"))


@pytest.fixture
def compiled_ncps(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--compiled-ncps"))


@functools.cache
def _checked_layers(name: str) -> tuple[Layers, float]:
    layers = Layers(CASES[name])
    return layers, layers.check()


@pytest.fixture
def checked_layers() -> Callable[[str], tuple[Layers, float]]:
    """A function from the key of a case to its layers, once they agree, and by how much they do."""
    return _checked_layers


@pytest.fixture
def interleave(benchmark: Any) -> Callable[..., Interleaved]:
    """A function that times contestants in turn; see ``Interleaved``.

    pytest-benchmark times the subject, and calls the others as the setup of each round.
    """

    def run(
        contestants: Sequence[Contestant],
        seconds: float = 8.0,
        slice_seconds: float = 0.05,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Interleaved:
        comparison = Interleaved(contestants, 0.0 if QUICK else slice_seconds, clock)
        rounds = 2 if QUICK else comparison.rounds(seconds, least=7, most=200)
        benchmark.pedantic(
            comparison.run_subject, setup=comparison.run_others, rounds=rounds, iterations=1
        )
        return comparison

    return run


@pytest.fixture
def record(benchmark: Any, request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """A function that puts a row into the JSON and into the table at the end."""

    def put(row: Row) -> None:
        benchmark.extra_info["row"] = row.to_json()
        request.config.stash[ROWS].append(row)

    return put


@pytest.fixture
def record_times(
    record: Callable[[Row], None], threads: int
) -> Callable[[str, str, Interleaved, list[Figure], float | None], None]:
    """The same for a comparison: title of the case, task, comparison, figures, error."""

    def put(
        case: str,
        task: str,
        comparison: Interleaved,
        figures: list[Figure],
        error: float | None,
    ) -> None:
        rounds = len(comparison.seconds[comparison.subject.name])
        threads = comparison.subject.threads
        record(Row(case, task, threads, figures, comparison.contestants(), rounds, error))

    return put


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    return {
        **machine.describe(),
        "threads": config.getoption("--threads"),
        "load_average_before": config.stash[LOAD_BEFORE],
        "load_average_after": machine.load_average(),
        "quick": QUICK,
    }


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    # The name of the folder.
    commit_info.pop("project", None)


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    # The rows have medians and quartiles; single rounds would make committed files large.
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_group_stats(
    config: pytest.Config, benchmarks: list[Any], group_by: str
) -> list[Any]:
    # The table of pytest-benchmark would show slices of many calls, and only of the subject.
    return []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    rows = config.stash[ROWS]
    if not rows:
        return
    terminalreporter.section("fastltc benchmarks")
    if QUICK:
        terminalreporter.write_line(f"{len(rows)} comparisons run; the quick mode measures nothing")
        return
    terminalreporter.write_line(report.table(rows))
    warning = report.load_warning(config.stash[LOAD_BEFORE], machine.describe()["cores"])
    if warning:
        terminalreporter.write_line(warning, yellow=True)
