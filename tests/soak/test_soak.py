"""Nothing grows: session steps, training steps and errors by the thousand, by the million if asked.

``FASTLTC_SOAK=all``: a million steps of a session, 100,000 of training, 50,000 errors; else a
hundredth.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP

import fastltc
from fastltc import runtime
from fastltc.runtime.model import ModelFileError
from runtime_cases import make_session

SHARE = 1 if os.environ.get("FASTLTC_SOAK") == "all" else 100
# What allocators may keep besides.
MOST_BYTES = 8 * 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def memory() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def soak(call: Callable[[int], None], count: int) -> None:
    """Call so often, after a tenth to warm up; memory may not grow by more than the bound."""
    count //= SHARE
    for number in range(max(count // 10, 200)):
        call(number)
    before, objects = memory(), len(gc.get_objects())
    for number in range(count):
        call(number)
    grown = memory() - before
    print(f"{count} calls, {grown} bytes")
    assert grown < MOST_BYTES
    assert len(gc.get_objects()) - objects < 100


def test_session_steps() -> None:
    layers = [
        fastltc.LTC(4, AutoNCP(12, 3)),
        fastltc.CfC(3, 8, mixed_memory=True, proj_size=2),
    ]
    session, other = make_session(layers), make_session(layers, 3)
    x, out, many = np.ones(4, np.float32), np.zeros(2, np.float32), np.ones((3, 4), np.float32)

    def call(number: int) -> None:
        session.step(x, 0.5, out=out)
        if number % 8 == 0:
            session.step(x.tolist())  # converted
            other.step(many)
            other.set_state(other.get_state())
        if number % 1000 == 0:
            session.reset()

    soak(call, 1_000_000)
    assert np.isfinite(out).all()


def test_training_steps() -> None:
    model = fastltc.Sequential(fastltc.LTC(3, AutoNCP(9, 2)), fastltc.CfC(2, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x, lengths = torch.randn(5, 4, 3), torch.tensor([4, 3, 0, 1, 4])

    def call(number: int) -> None:
        output, _ = model(x, lengths=lengths if number % 2 else None)
        output.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    soak(call, 100_000)


def test_errors(tmp_path: Path) -> None:
    layer, session = fastltc.LTC(3, AutoNCP(9, 2)), make_session(fastltc.CfC(3, 4))
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    nan = np.full(3, np.nan, np.float32)
    calls: tuple[Callable[[], object], ...] = (
        lambda: layer(torch.zeros(2, 2, 4)),
        lambda: layer(torch.zeros(2, 2, 3), timespans=-torch.ones(2, 2)),
        lambda: layer(torch.zeros(2, 2, 3), lengths=torch.tensor([1, 3])),
        lambda: torch.ops.fastltc.masked_linear(
            torch.zeros(2, 3), torch.zeros(2, 3), None, torch.arange(13, dtype=torch.int32)
        ),
        lambda: session.step(nan),
        lambda: session.step(np.zeros(5, np.float32)),
        lambda: session.step("abc"),
        lambda: session.set_state(np.zeros((1, 99), np.float32)),
        lambda: runtime.Session.load(bad),
    )

    def call(number: int) -> None:
        with pytest.raises((ValueError, TypeError, RuntimeError, ModelFileError)):
            calls[number % len(calls)]()

    soak(call, 50_000)
