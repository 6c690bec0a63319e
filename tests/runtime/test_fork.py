"""A process that was forked by one that had computed: what SECURITY.md says of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

# In a process of its own: what hangs there, hangs not here.
PROGRAM = """
import os, sys
import numpy as np, torch
import fastltc
from fastltc.runtime import Session
torch.set_num_threads(2)
layer = fastltc.LTC(3, fastltc.wirings.AutoNCP(20, 2))
x = torch.randn(64, 8, 3)
layer(x)[0].sum().backward()
fastltc.export(layer, sys.argv[1])
session = Session.load(sys.argv[1])
expected = layer(x)[0].detach()
child = os.fork()
if child == 0:
    torch.set_num_threads(1)
    again = layer(x)[0]
    again.sum().backward()
    assert torch.allclose(again, expected, atol=1e-5)
    assert np.isfinite(session.step(np.ones(3, np.float32))).all()
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_computes_in_one_thread(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "model.safetensors")]
    result = subprocess.run(command, timeout=120, capture_output=True, text=True, check=False)
    assert result.returncode == 7, result.stderr
