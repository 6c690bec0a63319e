"""The runtime without torch: steps and their kernel against ncps, LSTM, onnxruntime and C99."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases import QUICK, Layers
from fastltc.exporting import describe
from fastltc.runtime import Model, Network, Session
from figures import Figure, Row, Spread
from interleave import Contestant

# Of each network: microseconds of a step from Python that are asked.
STEP = {"one_step": 1.5, "cfc_one_step": 1.2}
STREAMS = ["streams_64", "cfc_streams_64"]
# Steps of one call that times the kernel without the way through Python.
STEPS = 10 if QUICK else 1000
TOLERANCE = 1e-5

CheckedLayers = Callable[[str], tuple[Layers, float]]


class Streaming:
    """A case's network in the runtime, with inputs of its own."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.model: Model = describe(layers.fastltc.module)
        self.network = Network(self.model)
        self.streams = layers.case.batch
        self.x = layers.fastltc.x.detach()[:, 0].numpy().copy()

    def session(self) -> Session:
        return self.network.session(self.streams)

    def step(self) -> Callable[[], object]:
        return partial(self.session().step, self.x, 1.0)

    def steps(self) -> Callable[[], object]:
        """A call of ``STEPS`` steps, beside which the way through Python is nothing."""
        xs = np.ascontiguousarray(np.broadcast_to(self.x, (STEPS, *self.x.shape)))
        out = np.empty((STEPS, self.streams, self.network.output_size), np.float32)
        return partial(self.session().run, xs, 1.0, out)

    def expected(self) -> np.ndarray:
        """Return what two steps from a state of zeros give, by ncps."""
        with torch.no_grad():
            x = torch.from_numpy(self.x)[:, None].expand(-1, 2, -1)
            return self.layers.ncps.module(x)[0][:, 1].numpy()

    def check(self, second_step: np.ndarray) -> float:
        """Return the largest difference from what two steps should give; fail if it is large."""
        expected = self.expected()
        error = float(np.abs(second_step - expected).max() / np.abs(expected).max())
        # Also catches NaN.
        assert error <= TOLERANCE, f"{self.layers.case}: differs by {error:.1e} from ncps"
        return error

    def check_session(self) -> float:
        session = self.session()
        session.step(self.x, 1.0)
        return self.check(session.step(self.x, 1.0))


def by_module(layer: Any) -> Callable[[], object]:
    """Return a call of nothing but the module, with the state of a call before."""
    return partial(layer.module, layer.x.detach(), layer.hx)


def microseconds(times: Any, name: str) -> Spread:
    return Spread.of([1e6 * seconds for seconds in times.seconds[name]])


@pytest.mark.parametrize("name", STEP)
def test_step(
    name: str,
    checked_layers: CheckedLayers,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
) -> None:
    layers, _ = checked_layers(name)
    streaming = Streaming(layers)
    error = streaming.check_session()
    with torch.no_grad():
        times = interleave(
            [
                Contestant("fastltc", streaming.step(), 1),
                Contestant("kernel", streaming.steps(), 1, jobs=STEPS),
                Contestant("ncps", by_module(layers.ncps), 1),
                Contestant("LSTM", by_module(layers.lstm), 1),
            ]
        )
    lstm = f"{{}} x LSTM({layers.case.units})"
    figures = [
        Figure("fastltc", "{} us", microseconds(times, "fastltc"), at_most=STEP[name]),
        Figure("ncps", "{} x ncps", times.ratio("ncps", "fastltc")),
        Figure("LSTM", lstm, times.ratio("LSTM", "fastltc")),
        Figure("other", "{} us in the kernel", microseconds(times, "kernel"), at_most=0.6),
    ]
    record_times(str(layers.case), "step of a session from Python", times, figures, error)


@pytest.mark.parametrize("name", STEP)
def test_latency(
    name: str, checked_layers: CheckedLayers, benchmark: Any, record: Callable[[Row], None]
) -> None:
    layers, _ = checked_layers(name)
    streaming = Streaming(layers)
    error = streaming.check_session()
    step, x, clock = streaming.session().step, streaming.x, time.perf_counter_ns
    count = 1000 if QUICK else 1_000_000
    nanoseconds = np.zeros(count)

    def measure() -> None:
        gc.disable()
        try:
            for _ in range(min(count, 10_000)):
                step(x, 1.0)
            for k in range(count):
                start = clock()
                step(x, 1.0)
                nanoseconds[k] = clock() - start
        finally:
            gc.enable()

    # One run is the whole measurement: the clock itself takes some 0.02 us of each.
    benchmark.pedantic(measure, rounds=1)
    q1, median, q3, p99, p999 = np.percentile(nanoseconds, [25, 50, 75, 99, 99.9]) * 1e-9
    seconds = {"seconds": median, "q1": q1, "q3": q3, "p99": p99, "p99.9": p999, "calls": count}
    ratio = Spread.of([p99 / median])
    figures = [Figure("other", "{} x the median at the 99th percentile", ratio, at_most=3)]
    task = "each of a million steps from Python"
    record(Row(str(layers.case), task, 1, figures, {"fastltc": seconds}, 1, error))


@pytest.mark.parametrize("name", STREAMS)
def test_many_streams(
    name: str,
    checked_layers: CheckedLayers,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
) -> None:
    layers, _ = checked_layers(name)
    many = Streaming(layers)
    error = many.check_session()
    one = many.network.session()
    with torch.no_grad():
        times = interleave(
            [
                Contestant("fastltc", many.step(), 1, jobs=many.streams),
                Contestant("one stream", partial(one.step, many.x[0], 1.0), 1),
                Contestant("ncps", by_module(layers.ncps), 1, jobs=many.streams),
                Contestant("LSTM", by_module(layers.lstm), 1, jobs=many.streams),
            ]
        )
    lstm = f"{{}} x LSTM({layers.case.units})"
    throughput = times.ratio("one stream", "fastltc")
    figures = [
        Figure("ncps", "{} x ncps", times.ratio("ncps", "fastltc")),
        Figure("LSTM", lstm, times.ratio("LSTM", "fastltc")),
        Figure("other", "{} x the throughput of one stream", throughput, at_least=20),
    ]
    task = f"step of {many.streams} streams from Python, time of one stream's step"
    record_times(str(layers.case), task, times, figures, error)


@pytest.mark.parametrize("name", [*STEP, *STREAMS])
def test_step_against_onnxruntime(
    name: str,
    checked_layers: CheckedLayers,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
) -> None:
    pytest.importorskip("onnx", reason="the ONNX model is made by the package onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from fastltc.exporting.onnx_graph import build_onnx

    layers, _ = checked_layers(name)
    streaming = Streaming(layers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        build_onnx(streaming.model).SerializeToString(), options, ["CPUExecutionProvider"]
    )
    feed = {
        "x": streaming.x[:, None],
        "timespans": np.ones((streaming.streams, 1), np.float32),
        "state": np.zeros((streaming.streams, streaming.network.state_size), np.float32),
    }
    _, state = session.run(None, feed)
    second, _ = session.run(None, {**feed, "state": state})
    error = max(streaming.check(second[:, 0]), streaming.check_session())
    jobs = streaming.streams
    times = interleave(
        [
            Contestant("fastltc", streaming.step(), 1, jobs=jobs),
            Contestant("onnxruntime", partial(session.run, None, feed), 1, jobs=jobs),
        ]
    )
    ratio = times.ratio("onnxruntime", "fastltc")
    figures = [Figure("other", "{} x onnxruntime", ratio)]
    task = f"step of {jobs} streams from Python, time of one stream's step"
    if jobs == 1:
        task = "step of a session from Python"
    record_times(str(layers.case), task, times, figures, error)


# Steps in C, as a device would run them.
DRIVER = """
#include "model.h"

static model_state state;

int run(int steps, int from_zero, const float *x, float *y)
{
    int k, status = 0;
    if (from_zero) {
        model_reset(&state);
    }
    for (k = 0; k < steps && status == 0; ++k) {
        status = model_step(&state, x, 1.0f, y);
    }
    return status;
}
"""


class ExportedC:
    """The C99 of a model, compiled and loaded."""

    def __init__(self, streaming: Streaming, compiler: str, folder: Path) -> None:
        from fastltc.exporting.c_source import write_c

        write_c(streaming.model, folder, "model")
        (folder / "driver.c").write_text(DRIVER)
        library = folder / "model.so"
        flags = ["-std=c99", "-O2", "-shared", "-fPIC"]
        files = ["model.c", "driver.c", "-o", str(library), "-lm"]
        subprocess.run([compiler, *flags, *files], cwd=folder, check=True)
        self._run = ctypes.CDLL(str(library)).run
        self._x = np.ascontiguousarray(streaming.x[0])
        self._y = np.zeros(streaming.network.output_size, np.float32)

    def run(self, steps: int, from_zero: bool = False) -> np.ndarray:
        x, y = (a.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for a in (self._x, self._y))
        assert self._run(steps, int(from_zero), x, y) == 0
        return self._y[None]


@pytest.mark.parametrize("name", STEP)
def test_exported_c(
    name: str,
    checked_layers: CheckedLayers,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    tmp_path: Path,
) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    layers, _ = checked_layers(name)
    streaming = Streaming(layers)
    exported = ExportedC(streaming, compiler, tmp_path)
    error = max(streaming.check(exported.run(2, from_zero=True)), streaming.check_session())
    times = interleave(
        [
            Contestant("fastltc", streaming.steps(), 1, jobs=STEPS),
            Contestant("C99", partial(exported.run, STEPS), 1, jobs=STEPS),
        ]
    )
    figures = [
        Figure("other", "{} us in the exported C99", microseconds(times, "C99"), at_most=6),
        Figure("other", "{} x the exported C99", times.ratio("C99", "fastltc")),
    ]
    record_times(str(layers.case), "step without Python", times, figures, error)
