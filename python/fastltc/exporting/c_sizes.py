"""How much flash and RAM generated C takes, by a compiler where there is one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .c_source import CSource
from .errors import ExportError

_FLAGS = ("-std=c99", "-Os", "-fno-asynchronous-unwind-tables", "-fstack-usage", "-c")


@dataclass(frozen=True)
class Sizes:
    """Bytes of flash, RAM of a stream and stack of a step without ``expf``; how they were found."""

    flash: int
    ram: int
    stack: int
    source: str

    def __str__(self) -> str:
        return (
            f"flash {self.flash:,} bytes, RAM {self.ram:,} bytes per stream and at most "
            f"{self.stack:,} of stack ({self.source})"
        )


def find_compiler(command: str | None = None) -> list[str] | None:
    """Return the command of a C compiler: that given, ``$CC``, or ``gcc`` or ``cc`` if it is there.

    It takes gcc's options; with options of one's own, ``arm-none-eabi-gcc -mcpu=cortex-m4`` for
    one. An ExportError says that the one that is given is not there.
    """
    for wanted in (command, os.environ.get("CC")):
        words = shlex.split(wanted or "")
        if words:
            found = shutil.which(words[0])
            if found is None and wanted is command:
                raise ExportError(f"compiler: {words[0]!r} is not on the PATH")
            return None if found is None else [found, *words[1:]]
    found = shutil.which("gcc") or shutil.which("cc")
    return None if found is None else [found]


def measure(code: CSource, compiler: list[str] | None) -> Sizes:
    """Compile generated C for size and read the sizes of the object; without a compiler, compute.

    An ExportError has what a compiler says that fails.
    """
    size_tool = _size_tool(compiler[0]) if compiler else None
    if compiler is None or size_tool is None:
        return Sizes(
            code.table_bytes,
            code.state_bytes,
            code.scratch_bytes,
            "computed from the tables: constants without code, arrays without frames; no compiler",
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / f"{code.name}.h").write_text(code.header)
        (folder / f"{code.name}.c").write_text(code.source)
        _run([*compiler, *_FLAGS, f"{code.name}.c", "-o", "model.o"], folder)
        table = _run([size_tool, "model.o"], folder).splitlines()[1].split()
        text, data, bss = (int(number) for number in table[:3])
        frames = [
            int(line.split("\t")[1])
            for path in folder.glob("*.su")
            for line in path.read_text().splitlines()
        ]
        target = _run([compiler[0], "-dumpmachine"], folder).strip()
        name = " ".join([Path(compiler[0]).name, *compiler[1:], "-Os"])
        version = _run([compiler[0], "-dumpversion"], folder).strip()
    # No function calls itself, so that no chain of calls is longer than all of them together.
    return Sizes(
        flash=text + data,
        ram=code.state_bytes + bss,
        stack=sum(frames) if frames else code.scratch_bytes,
        source=f"size of the object by {name} {version} for {target}",
    )


def _size_tool(compiler: str) -> str | None:
    """Return the path of the ``size`` that belongs to a compiler."""
    path = Path(compiler)
    own = re.sub(r"(gcc|cc|clang)(-[\d.]+)?$", "size", path.name)
    return shutil.which(str(path.with_name(own))) or shutil.which(own)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ExportError(f"compiler: {' '.join(command)} failed: {done.stderr.strip()[:2000]}")
    return done.stdout
