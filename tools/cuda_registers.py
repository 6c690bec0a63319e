"""Registers and spills of the CUDA kernels, by architecture, from ptxas.

    python tools/cuda_registers.py --write     # after a change that is meant to change them
    python tools/cuda_registers.py             # compare with the committed list
    python tools/cuda_registers.py --if-changed  # unless it was made of these very sources

Compiles every kernel source for each architecture with ``nvcc -Xptxas -v`` (some seconds each) and
reads registers, spilled bytes and stack of each kernel. The comparison fails where a kernel is
missing from the list, or spills more than the list says or has a larger stack, as a copy of its
arguments takes; one named in ``HOT`` must not spill, whatever the list says. Register counts are
for reading: they vary with the version of the compiler. The list names the sources, the options and
the compiler that it was made with by a hash, from which the same figures would come again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "csrc" / "cuda" / "registers.json"
SOURCES = (
    "csrc/cuda/cfc.cu",
    "csrc/cuda/ltc.cu",
    "csrc/cuda/masked_linear.cu",
    "csrc/cuda/special_function_limit.cu",
    "csrc/cuda/stage.cu",
)
OPTIONS = ("-std=c++20", "-O3", "-Xptxas", "-v")
# Of machine code, the architecture of the intermediate code that it is made of (cmake/cuda.cmake).
ARCHITECTURES = {
    "75": "75",
    "80": "80",
    "86": "80",
    "89": "80",
    "90": "90",
    "100": "90",
    "120": "90",
}
# Kernels whose inner loop is the work of a call.
HOT = re.compile(
    r"((persistent|cluster)_(forward|backward)|tiled_(forward|neuron|state)|row_sums|sensory)_"
    r"|(masked_linear_(product|weight_gradient)|special_function_limit)_"
    r"|cfc_(warp|block|tiled)_(forward|backward)_"
    r"|stage_(given|weight_sums|input_gradient)_|memory_(step|state_gradient)_"
)
Figures = dict[str, dict[str, dict[str, int]]]


def nvcc() -> str:
    """Return the path of nvcc."""
    for place in (os.environ.get("CUDACXX"), shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"):
        if place is not None and Path(place).exists():
            return place
    sys.exit("no nvcc: put it on the PATH or set CUDACXX to its path")


def readable(symbol: str) -> str:
    """Return ``kernel<float, 4, 32>`` or ``kernel<16>`` for a mangled kernel of this project."""
    found = re.match(r"_ZN7fastltc4cuda(\d+)", symbol)
    if found is None:
        return symbol
    start = found.end()
    name = symbol[start : start + int(found[1])]
    arguments = re.match(r"I(?=[fdL])([fd]?)((?:L[ib]\d+E)*)", symbol[start + int(found[1]) :])
    if arguments is None:
        return name
    types = [{"f": "float", "d": "double"}[letter] for letter in arguments[1]]
    return f"{name}<{', '.join(types + re.findall(r'L[ib]([0-9]+)E', arguments[2]))}>"


def parse(log: str) -> dict[str, dict[str, int]]:
    """Return the figures of each kernel in the output of ``-Xptxas -v``."""
    pattern = re.compile(
        r"Compiling entry function '(?P<symbol>[^']+)'.*?"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
        r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
        re.DOTALL,
    )
    return {
        readable(found["symbol"]): {
            "registers": int(found["registers"]),
            "spill_bytes": max(int(found["stores"]), int(found["loads"])),
            "stack_bytes": int(found["stack"]),
        }
        for found in pattern.finditer(log)
    }


def compile_for(architecture: str) -> dict[str, dict[str, int]]:
    """Compile every source for one architecture; return the figures by kernel."""
    figures: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for source in SOURCES:
            codes = f"arch=compute_{ARCHITECTURES[architecture]},code=sm_{architecture}"
            command = [nvcc(), *OPTIONS, f"-gencode={codes}"]
            command += ["-I", str(ROOT / "csrc"), "-cubin", str(ROOT / source)]
            command += ["-o", str(Path(directory) / "kernels.cubin")]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode != 0:
                sys.exit(f"{' '.join(command)}\n{result.stderr}")
            figures.update(parse(result.stderr))
    return figures


def digest() -> str:
    """Return the hash of all that the figures depend on."""
    version = subprocess.run([nvcc(), "--version"], capture_output=True, check=True).stdout
    total = hashlib.sha256(version)
    # No kernel includes files of other folders, which a test sees to.
    files = [path for name in ("core", "cuda") for path in (ROOT / "csrc" / name).rglob("*")]
    for path in sorted(path for path in files if path.suffix in (".cu", ".cuh", ".h")):
        total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    total.update(repr((SOURCES, ARCHITECTURES, OPTIONS)).encode())
    return total.hexdigest()


def read_list() -> tuple[str, Figures]:
    """Return the hash that the committed list names, and its figures."""
    if not LIST.exists():
        return "", {}
    made = json.loads(LIST.read_text(encoding="utf-8"))
    return made["made_of"], made["kernels"]


def problems(measured: Figures, listed: Figures) -> list[str]:
    """Return what is wrong with figures, given the committed list."""
    found = []
    for architecture, kernels in measured.items():
        if not kernels:
            found.append(f"sm_{architecture}: no kernel found in the output of ptxas")
        for name, figures in kernels.items():
            if name not in listed.get(architecture, {}):
                found.append(f"sm_{architecture}: {name} is not in {LIST.name}")
            spilled = figures["spill_bytes"]
            known = listed.get(architecture, {}).get(name, {}).get("spill_bytes", 0)
            limit = 0 if HOT.search(name) else known
            stack = listed.get(architecture, {}).get(name, {}).get("stack_bytes", 0)
            if figures.get("stack_bytes", 0) > stack:
                found.append(
                    f"sm_{architecture}: {name} has a stack of {figures['stack_bytes']} bytes, "
                    f"listed {stack}"
                )
            if spilled > limit:
                found.append(f"sm_{architecture}: {name} spills {spilled} bytes, limit {limit}")
    return found


def main() -> None:
    """Measure; write the list or compare with it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the list")
    parser.add_argument(
        "--if-changed", action="store_true", help="compile only where that may tell"
    )
    parser.add_argument("--jobs", type=int, default=2, help="compilers at once")
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES, help="only these")
    arguments = parser.parse_args()
    made_of, listed = read_list()
    now = digest()
    if arguments.if_changed and made_of == now:
        print(f"{LIST.name} was made of these sources by this compiler")
        measured = listed
    else:
        architectures = arguments.arch or list(ARCHITECTURES)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            measured = dict(zip(architectures, pool.map(compile_for, architectures), strict=True))
    if arguments.write:
        made = {"made_of": now, "kernels": measured}
        LIST.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        listed = measured
    found = problems(measured, listed)
    count = sum(len(kernels) for kernels in measured.values())
    print(f"{count} kernels of {len(measured)} architectures")
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
