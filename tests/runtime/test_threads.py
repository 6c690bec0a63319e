"""Sessions in threads: they share weights, and one is not for two threads at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import fastltc
from fastltc.exporting import describe
from fastltc.runtime import Network, Session
from runtime_cases import make_layer, random_sequence


@pytest.fixture
def network() -> Network:
    return Network(describe(make_layer("ltc 70")))


@pytest.mark.parametrize("streams", [1, 20])
def test_sessions_of_one_network_run_in_parallel_threads(network: Network, streams: int) -> None:
    jobs = [random_sequence(60, streams, 33) for _ in range(8)]
    expected = [network.session(streams).run(*job) for job in jobs]

    def by_run(job: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return network.session(streams).run(*job)

    def by_step(job: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        session = network.session(streams)
        return np.stack([session.step(x, dt) for x, dt in zip(*job, strict=True)])

    with ThreadPoolExecutor(8) as pool:
        for work in (by_run, by_step):
            for actual, wanted in zip(pool.map(work, jobs), expected, strict=True):
                np.testing.assert_array_equal(actual, wanted)


@pytest.fixture
def slow_network() -> Network:
    """A network whose step takes about 0.1 ms."""
    return Network(describe(fastltc.LTC(4, 64, ode_unfolds=100)))


def long_run(session: Session, started: threading.Event, seconds: float = 2.0) -> float:
    """Run for about so long in one call; return how long it took."""

    def run(steps: int) -> float:
        xs = np.ones((steps, session.streams, 4), np.float32)
        begin = time.perf_counter()
        session.run(xs)
        return time.perf_counter() - begin

    run(20)
    steps = int(100 * seconds / run(100)) + 1
    started.set()
    return run(steps)


def test_a_session_in_use_is_refused_to_another_thread(slow_network: Network) -> None:
    session, other = slow_network.session(8), slow_network.session(8)
    started = threading.Event()
    x = np.zeros((8, 4), np.float32)
    refused: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(long_run, session, started)
        started.wait()
        time.sleep(0.3)  # from where it is about to begin to where it runs
        while not running.done():
            for call in (
                lambda: session.step(x),
                lambda: session.run(x[None]),
                session.get_state,
                session.reset,
                lambda: session.reset(3),
                lambda: session.set_state(np.zeros((8, 64))),
            ):
                try:
                    call()
                except RuntimeError as error:
                    refused.append(str(error))
            # Others of the same network are free.
            other.step(x)
        running.result()
    assert refused
    assert all("this session is in use by another thread" in text for text in refused)
    session.step(x)


def test_other_threads_run_python_meanwhile(slow_network: Network) -> None:
    started = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(long_run, slow_network.session(8), started)
        started.wait()
        begin, gaps = time.perf_counter(), []
        while not running.done():
            now = time.perf_counter()
            gaps.append(now - begin)
            begin = now
        seconds = running.result()
    # With the interpreter lock held, one gap would be as long as the run.
    assert max(gaps) < seconds / 2


def test_a_busy_session_raises_and_nothing_is_lost(network: Network) -> None:
    """Many threads on one session: each call is done whole or refused."""
    session, steps = network.session(64), 25
    x = torch.randn(64, 33).numpy()
    done = []

    def work() -> None:
        for _ in range(steps):
            try:
                session.step(x)
                done.append(1)
            except RuntimeError:
                time.sleep(0.0001)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result()
    twin = network.session(64)
    for _ in done:
        twin.step(x)
    np.testing.assert_array_equal(session.get_state(), twin.get_state())


def test_ctrl_c_ends_a_long_run(slow_network: Network) -> None:
    session = slow_network.session()
    xs = np.zeros((50_000, 4), np.float32)
    out = np.full((len(xs), slow_network.output_size), np.nan, np.float32)
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        session.run(xs, out=out)
    timer.join()
    assert np.isnan(out[-1]).all()  # far from the end
    # It ended between two steps, and goes on from there.
    assert np.isfinite(session.get_state()).all()
    session.step(xs[0])


ENDING = """
import sys, threading, time
import numpy as np
from fastltc import _runtime
from fastltc.runtime import load

network = load(sys.argv[1])
steps = [0] * 3

def work(k):
    session = network.session(8)
    x, xs = np.zeros((8, 4)), np.zeros((2, 8, 4), np.float32)
    out = np.zeros((8, 64), np.float32)
    while True:
        # A copy of the input, results that only the call holds, and one that others hold too.
        session.step(x, [0.1] * 8)
        session.run(xs)
        session.step(x, out=out)
        _runtime.sigmoid_limit(1000)
        steps[k] += 1

for k in range(3):
    threading.Thread(target=work, args=(k,), daemon=True).start()
while min(steps) < 3:
    time.sleep(0.01)
"""


def test_daemon_threads_do_not_disturb_the_end_of_the_interpreter(tmp_path: Path) -> None:
    # Three threads, so that most of the ten times one of them waits for the interpreter lock.
    layer = fastltc.LTC(4, 64)
    fastltc.export(layer, tmp_path / "model.safetensors")
    for _ in range(10):
        result = subprocess.run(
            [sys.executable, "-c", ENDING, str(tmp_path / "model.safetensors")],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (result.returncode, result.stderr) == (0, "")
