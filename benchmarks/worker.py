"""Runs one layer in a process of its own, where a whole process is what must be measured.

    python worker.py memory CASE LAYER THREADS    peak memory of one training step, in bytes
    python worker.py calls NAME THREADS           for each line "N" on stdin, the seconds of N calls
    python worker.py instructions NAME...         under callgrind: instructions of one call of each

CASE is a key of CASES, LAYER is fastltc or ncps, NAME is a key of CALLS. The first two print one
line of JSON when ready, and all print one for each result. ``Worker`` runs the second.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from calls import CALLS
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


class Worker:
    """A process that calls one thing; ``with`` waits until it is ready, and ends it.

    Args:
        name: a key of ``CALLS``.
        threads: that torch may use.
        instruction_set: forced by ``FASTLTC_CPU``; the strongest by default.
        python: the interpreter of the environment whose fastltc is called.
    """

    def __init__(
        self,
        name: str,
        threads: int = 1,
        instruction_set: str = "",
        python: str = sys.executable,
    ) -> None:
        self.instruction_set = instruction_set
        self._process = subprocess.Popen(
            [python, __file__, "calls", name, str(threads)],
            env={**os.environ, "FASTLTC_CPU": instruction_set},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        self._result()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def seconds(self, calls: int) -> float:
        """Return how long so many calls take."""
        print(calls, file=self._process.stdin, flush=True)
        return float(self._result())

    def _result(self) -> str | float:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self._process.args))} ended")  # type: ignore[arg-type]
        result: str | float = json.loads(line)
        return result


def instructions(call: Callable[[], object], calls: int) -> int:
    """Count the instructions of so many calls, in a process that runs under callgrind.

    Those of the way to callgrind and back are among them.
    """
    control = ["callgrind_control", str(os.getpid())]
    subprocess.run([*control, "--zero"], check=True, stdout=subprocess.DEVNULL)
    for _ in range(calls):
        call()
    subprocess.run([*control, "--dump"], check=True, stdout=subprocess.DEVNULL)
    dump = max(Path().glob(f"callgrind.out.{os.getpid()}.*"), key=lambda p: int(p.suffix[1:]))
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{dump} has no totals")
    return int(found.group(1))


def instructions_of_each(names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield each name with the instructions of one call."""
    for name in names:
        call = CALLS[name]()
        start = time.perf_counter()
        for _ in range(3):
            call()
        calls = 3 if time.perf_counter() - start > 1 else 100
        gc.collect()
        instructions(call, 0)  # what the way to callgrind takes the first time only
        yield name, (instructions(call, calls) - instructions(call, 0)) // calls


def main() -> None:
    task, *arguments = sys.argv[1:]
    if task == "memory":
        case, which, threads = arguments
        make_memory_exact()
        torch.set_num_threads(int(threads))
        layer: Layer = getattr(Layers(CASES[case]), which)
        print(json.dumps("ready"), flush=True)
        print(json.dumps(peak_memory(layer)), flush=True)
    elif task == "calls":
        name, threads = arguments
        torch.set_num_threads(int(threads))
        call = CALLS[name]()
        call()
        print(json.dumps("ready"), flush=True)
        gc.disable()
        for line in sys.stdin:
            count = int(line)
            start = time.perf_counter()
            for _ in range(count):
                call()
            print(json.dumps(time.perf_counter() - start), flush=True)
    else:
        torch.set_num_threads(1)
        gc.disable()
        for found in instructions_of_each(arguments):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
