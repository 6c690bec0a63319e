"""Threads that call all at once: first calls, layers of one model, sessions, writers and errors.

For a few seconds; ``FASTLTC_SOAK=all``: for a minute. torch is not compiled for thread sanitizers.
"""

from __future__ import annotations

import os
import subprocess
import sys

SECONDS = 60 if os.environ.get("FASTLTC_SOAK") == "all" else 3

STRESS = """
import sys, threading, time
import numpy as np
import torch
import fastltc
from fastltc.exporting import describe
from fastltc.runtime import Network, Session
from fastltc.wirings import AutoNCP

end = time.monotonic() + float(sys.argv[1])
failures, counts = [], {}

def repeated(name, make):
    def run():
        try:
            gate.wait()
            call = make()
            while time.monotonic() < end and not failures:
                call()
                counts[name] = counts.get(name, 0) + 1
        except BaseException as error:
            failures.append(f"{name}: {error!r}")
    return threading.Thread(target=run)

ltc, cfc = fastltc.LTC(4, AutoNCP(19, 3)), fastltc.CfC(4, AutoNCP(19, 3))
masked = fastltc.MaskedLinear(40, 30, (torch.rand(30, 40) < 0.2).float())
network = Network(describe([fastltc.LTC(4, AutoNCP(12, 3))]))
x = torch.randn(6, 7, 4)
lengths = torch.full((6,), 7)
probe = np.linspace(-1, 1, 4, dtype=np.float32)
wanted = Session(network).step(probe)

def forward(layer):
    # No call has been before: the first ones are at once.
    first = []
    def call():
        with torch.no_grad():
            y = layer(x)[0]
        if not first:
            first.append(y)
        assert torch.equal(y, first[0])
    return lambda: call

def training(layer):
    weights = [p for p in layer.parameters() if p.requires_grad]
    def make():
        def call():
            own = x.clone().requires_grad_()
            output, _ = layer(own)
            torch.autograd.grad(output.sum(), [own, *weights])
            assert own.grad is None
        return call
    return make

def sessions():
    def call():
        session = Session(network)
        np.testing.assert_array_equal(session.step(probe), wanted)
    return call

def writer():
    def call():
        lengths.fill_(1 << 40)
        lengths.fill_(7)
        time.sleep(0)
    return call

def reader():
    def call():
        try:
            ltc(x, lengths=lengths)
        except ValueError:
            pass
    return call

def products():
    rows = torch.randn(5, 40)
    return lambda: masked(rows)

jobs = []
for layer in (ltc, cfc):
    jobs += [("forward", forward(layer))] * 2 + [("training", training(layer))]
jobs += [("session", sessions)] * 2 + [("writer", writer), ("reader", reader)]
jobs += [("product", products)] * 2
gate = threading.Barrier(len(jobs))
threads = [repeated(name, make) for name, make in jobs]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(counts)
sys.exit("\\n".join(failures) or 0)
"""


def test_threads_all_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STRESS, str(SECONDS)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-2000:]
