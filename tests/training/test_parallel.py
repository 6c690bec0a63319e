"""Two processes on gloo compute what one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Each process compares its part with the whole, computed by itself, in float64.
SCRIPT = """
import copy
import torch
from torch import nn
from fastltc.models import build_model
from fastltc.training import parallel

torch.set_num_threads(1)
torch.manual_seed(0)
model = build_model("conv-ncp", (1, 8, 8), 3, 12).double()
whole = copy.deepcopy(model)
images, labels = torch.randn(11, 1, 8, 8).double(), torch.arange(11) % 3
for step in range(2):
    nn.functional.cross_entropy(whole(images), labels).backward()
with parallel.processes(torch.device("cpu")) as group:
    assert group.size == 2
    group.synchronise_batch_norm(model)
    index = group.share(torch.arange(11))
    assert len(index) in (5, 6)
    for step in range(2):
        logits = model(images[index])
        loss = nn.functional.cross_entropy(logits, labels[index], reduction="sum") / 11
        loss.backward()
    group.sum_gradients(model)
    both = dict(whole.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, both[name].grad, rtol=0, atol=1e-12)
    for name, value in whole.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[name], value, rtol=0, atol=1e-12)
    model.eval(), whole.eval()
    torch.testing.assert_close(model(images), whole(images), rtol=0, atol=1e-12)
    # A process without examples takes part all the same.
    empty = group.share(torch.arange(1))
    model.train()
    model(images[empty]).sum().backward()
    assert group.sums(torch.tensor(1.0), torch.tensor(len(empty))) == [2.0, 1.0]
print("the same")
"""


@pytest.mark.slow
def test_gradients_and_batch_norms_are_those_of_one_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, script],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same") == 2
