"""Two processes on gloo compute what one does."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from fastltc.jobs import Run, TrainConfig, train
from fastltc.jobs.training import parallel
from job_support import leave_out_pictures

# Each process compares its part with the whole, computed by itself, in float64.
SCRIPT = """
import copy
import itertools
import torch
from torch import nn
from fastltc.jobs.models import build_model
from fastltc.jobs.training import parallel

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
    # One value of a channel in all has no variance; every process says so.
    norm = nn.BatchNorm1d(3).double()
    group.synchronise_batch_norm(norm)
    try:
        norm(torch.randn(1, 3).double()[empty])
    except ValueError as error:
        assert "more than 1 value per channel" in str(error)
    else:
        raise AssertionError("a variance of one value")
    same = {"rtol": 0, "atol": 1e-12}
    for momentum, affine, tracked in itertools.product((0.1, None), (True, False), (True, False)):
        whole = nn.BatchNorm1d(3, momentum=momentum, affine=affine, track_running_stats=tracked)
        whole = whole.double()
        norm = copy.deepcopy(whole)
        group.synchronise_batch_norm(norm)
        for count in (2, 5, 11):
            values = torch.randn(count, 3).double()
            part = group.share(torch.arange(count))
            torch.testing.assert_close(norm(values[part]), whole(values)[part], **same)
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(norm.state_dict()[name], value, **same)
print("the same")
"""


# One group for all: under one launch a group that is gone cannot be made again.
TRAIN = """
import os
import sys
from pathlib import Path
import torch
from fastltc.jobs import plots
from fastltc.jobs import Progress, TrainConfig, train, train_seeds
from fastltc.jobs.training import parallel
for name in ("training_curve", "confusion_matrix", "wiring_diagram", "wiring_graph", "montage"):
    setattr(plots, name, lambda *arguments, **options: b"")
out = Path(sys.argv[1])
seen = []
with parallel.processes(torch.device("cpu")) as group:
    assert group.size == 2
    for name, options in {options}.items():
        config = TrainConfig.for_data("digits", **options)
        train(config, out / name, progress=Progress(batch=seen.append))
        if name == "closed":
            assert sum(seen) == (1257 if group.first else 0), seen
        seen.clear()
    assert train_seeds(config, out / "seeds", 2)["seeds"] == [0, 1]
    assert (out / "seeds" / "seeds.json").is_file()
"""

_QUICK = {"epochs": 1, "threads": 1, "lr": 1e-4}
UNEVEN = {
    # 1257 = 8 * 157 + 1: a batch of which one process has nothing.
    "empty": {**_QUICK, "model": "dense", "batch_size": 157},
    "crop": {**_QUICK, "model": "dense", "batch_size": 157, "augment_crop": 7},
    "parts": {**_QUICK, "model": "dense", "batch_size": 1240, "accumulate": 32},
    "bf16": {**_QUICK, "units": 14, "batch_size": 600, "amp": "bf16"},
    "fp16": {**_QUICK, "units": 14, "batch_size": 600, "amp": "fp16"},
    "closed": {"model": "reservoir", "units": 50, "reads": 4, "threads": 1},
}


@pytest.mark.slow
def test_what_processes_share_unevenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(TRAIN.replace("{options}", repr(UNEVEN)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, script, tmp_path / "two"],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    leave_out_pictures(monkeypatch)
    for name, options in UNEVEN.items():
        two = Run.open(tmp_path / "two" / name).metrics
        assert (two["status"], two["processes"]) == ("finished", 2)
        if name == "crop":
            continue  # each process draws its own
        one = train(TrainConfig.for_data("digits", **options), tmp_path / "one" / name).metrics
        assert two["val"]["loss"] == pytest.approx(one["val"]["loss"], rel=5e-3)


def test_a_batch_norm_over_processes_keeps_the_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel.dist, "all_reduce", lambda total: None)
    # More values of a channel than float16 can count.
    x = torch.randn(32, 2, 48, 48)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        ours, theirs = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
        found = parallel._batch_norm_over_processes(ours, x.to(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found, theirs(x.to(dtype)), atol=1e-5, rtol=2e-2)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(ours.running_var, theirs.running_var, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("momentum", [0.1, None, 0.0])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_a_batch_norm_over_processes_has_the_options_of_torchs(
    monkeypatch: pytest.MonkeyPatch, momentum: float | None, affine: bool, tracked: bool
) -> None:
    monkeypatch.setattr(parallel.dist, "all_reduce", lambda total: None)
    options = {"momentum": momentum, "affine": affine, "track_running_stats": tracked}
    for kind, shape in ((nn.BatchNorm1d, ()), (nn.BatchNorm1d, (4,)), (nn.BatchNorm2d, (3, 5))):
        theirs = kind(3, **options).double()
        ours = copy.deepcopy(theirs)
        ours.__dict__["forward"] = partial(parallel._batch_norm_over_processes, ours)
        for count in (2, 7, 0):
            x = torch.randn(count, 3, *shape, dtype=torch.float64)
            torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
        x = torch.randn(2, 3, *shape, dtype=torch.float64)
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
        for norm in (ours, theirs):
            with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
                norm.train()(torch.randn(1, 3, *(1 for _ in shape), dtype=torch.float64))
            with pytest.raises(ValueError, match=r"expected .*D"):
                norm(torch.randn(4, dtype=torch.float64))
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


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
