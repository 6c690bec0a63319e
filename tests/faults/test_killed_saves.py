"""A save that is killed at any of its system calls leaves each file as it was, or new."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from loose_modules import load_module

saves = load_module(Path(__file__).with_name("saves.py"))
STRACE = shutil.which("strace")
# In short only what changes files.
CALLS = ("openat", "write", "fsync", "chmod", "link", "unlink", "rename")


def save_traced(kind: str, folder: Path, *options: str, log: Path) -> int:
    """Save the second state in a process of its own under strace; return its wait status."""
    waiting, going = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(waiting, 1)
        try:
            saves.SAVES[kind](folder, 2)
        finally:
            os._exit(0)
    tracer = subprocess.Popen(
        [STRACE or "", "-p", str(child), "-o", log, *options], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    os.write(going, b"x")
    _, status = os.waitpid(child, 0)
    tracer.wait()
    os.close(waiting)
    os.close(going)
    if "attached" not in said:
        pytest.skip(f"processes cannot be traced here: {said.strip()}")
    return status


@pytest.mark.skipif(STRACE is None, reason="no strace")
@pytest.mark.parametrize("kind", saves.SAVES)
def test_a_kill_at_every_system_call(kind: str, tmp_path: Path) -> None:
    log, first, second = tmp_path / "log", tmp_path / "first", tmp_path / "second"
    first.mkdir()
    saves.SAVES[kind](first, 1)
    shutil.copytree(first, second)
    everything = os.environ.get("FASTLTC_FAULTS") == "all"
    traced = "all" if everything else ",".join(CALLS)
    assert save_traced(kind, second, "-e", f"trace={traced}", log=log) == 0
    old, new = saves.state(first), saves.state(second)
    assert old != new
    counts = Counter(re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE))
    assert counts["rename"] == len(new)
    counts.pop("exit_group", None)
    seen = set()
    for name, count in counts.items():
        for at in range(1, count + 1):
            folder = tmp_path / f"{name}-{at}"
            shutil.copytree(first, folder)
            inject = f"inject={name}:signal=KILL:when={at}"
            status = save_traced(kind, folder, "-e", inject, log=log)
            assert os.WIFSIGNALED(status), (name, at)
            assert os.WTERMSIG(status) == signal.SIGKILL
            found = saves.state(folder)
            for file in old.keys() | new.keys():
                assert found.get(file) in (old.get(file), new.get(file)), (file, name, at)
            if len(new) == 1:
                assert found in (old, new)
            seen.add(str(sorted(found.items())))
    assert len(seen) >= 2  # some kills came before, some after
    print(f"{kind}: killed at {sum(counts.values())} calls of {len(counts)} kinds")
