"""Runs one layer in a process of its own, where a whole process is what must be measured.

    python worker.py memory CASE LAYER THREADS    peak memory of one training step, in bytes
    python worker.py steps CASE LAYER THREADS     for each line "N" on stdin, N training steps

CASE is a key of CASES and LAYER is fastltc or ncps. Both print one line of JSON when ready and one
for each result.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
from pathlib import Path

import torch

from cases import CASES, Layer, Layers

PR_SET_THP_DISABLE = 41
M_MMAP_THRESHOLD = -3


def status_bytes(key: str) -> int:
    """Return a size from /proc/self/status."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{key}:\s*(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {key}")
    return int(found.group(1)) * 1024


def peak_memory(layer: Layer) -> int:
    """Return by how much the resident memory grows during one training step.

    All of it counts: tensors, what autograd keeps, scratch memory of kernels. What only a first
    call allocates does not: a step of the full batch but of one time step comes before, and the
    memory it freed goes back to the system. The kernel adds up pages per core in batches, so the
    result may be off by 128 KiB for each core that the process ran on.
    """
    whole, whole_grad = layer.x, layer.grad_output
    layer.x = whole[:, :1].detach().clone().requires_grad_()
    layer.grad_output = whole_grad[:, :1].clone()
    layer.training_step()
    layer.module.zero_grad(set_to_none=True)
    layer.x, layer.grad_output = whole, whole_grad
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # "5" sets the peak back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    layer.training_step()
    return status_bytes("VmHWM") - before


def make_memory_exact() -> None:
    """Have memory grow by what is allocated, and shrink by what is freed."""
    libc = ctypes.CDLL(None)
    # Pages of 2 MiB would round small sizes up.
    libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    # Tensors of 64 KiB and more come from the system and go back to it. On the heap, holes between
    # them would add half as much again to what ncps takes.
    libc.mallopt(M_MMAP_THRESHOLD, 64 * 1024)


def main() -> None:
    task, case, which, threads = sys.argv[1:]
    if task == "memory":
        make_memory_exact()
    torch.set_num_threads(int(threads))
    layer: Layer = getattr(Layers(CASES[case]), which)
    print(json.dumps("ready"), flush=True)
    if task == "memory":
        print(json.dumps(peak_memory(layer)), flush=True)
        return
    for line in sys.stdin:
        for _ in range(int(line)):
            layer.training_step()
        print(json.dumps("done"), flush=True)


if __name__ == "__main__":
    main()
