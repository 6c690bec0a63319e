"""Check libfastltc as its users have it: installed, found by CMake, linked, and loaded.

    python tools/check_library.py BUILD_FOLDER

Installs it from a build with FASTLTC_BUILD_LIBRARY=ON into a folder that goes again; builds and
runs examples/cpp with the shared and the static library; and compares the shared one, bit for bit,
with fastltc.runtime on every model of tests/golden.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fastltc import runtime

ROOT = Path(__file__).resolve().parents[1]
MODELS = sorted((ROOT / "tests" / "golden" / "models").glob("*.safetensors"))


def run(*command: str | Path) -> str:
    """Run a command and return what it prints."""
    words = [str(word) for word in command]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(
            f"{' '.join(words)}: exit status {result.returncode}\n{result.stdout}{result.stderr}"
        )
    return result.stdout


def check_symbols(library: Path) -> None:
    """Check that a library gives what its header declares, and nothing else."""
    header = (ROOT / "include" / "fastltc" / "fastltc.h").read_text()
    declared = set(re.findall(r"^FASTLTC_API [\w \n*]*?(fastltc_\w+)\(", header, re.MULTILINE))
    lines = run("nm", "-D", "--defined-only", library).splitlines()
    given = {line.split()[-1] for line in lines}
    if given != declared:
        sys.exit(f"{library}: missing {declared - given}, surplus {given - declared}")


def check_example(prefix: Path, folder: Path, kind: str) -> None:
    """Build and run the example with a library."""
    build = folder / kind
    run(
        *("cmake", "-S", ROOT / "examples" / "cpp", "-B", build, "-DCMAKE_BUILD_TYPE=Release"),
        *(f"-DCMAKE_PREFIX_PATH={prefix}", f"-DFASTLTC_KIND={kind}"),
    )
    run("cmake", "--build", build)
    printed = run(build / "sensor_node", MODELS[0])
    if "999 of 1000 messages answered" not in printed:
        sys.exit(f"the example with the {kind} library printed\n{printed}")


def step_all(library: ctypes.CDLL, path: Path, x: np.ndarray, dt: np.ndarray) -> np.ndarray:
    """Run x ``[T, S, I]`` with steps ``[T, S]`` through a model; return ``[T, S, M]``."""
    network, session = ctypes.c_void_p(), ctypes.c_void_p()
    pointer = np.ctypeslib.ndpointer(np.float32, flags="C")
    library.fastltc_step_each.argtypes = [ctypes.c_void_p, pointer, pointer, pointer]
    library.fastltc_output_size.argtypes = [ctypes.c_void_p]
    library.fastltc_output_size.restype = ctypes.c_size_t
    library.fastltc_last_error.restype = ctypes.c_char_p
    streams = x.shape[1]
    if library.fastltc_network_load(str(path).encode(), ctypes.byref(network)) or (
        library.fastltc_session_new(network, ctypes.c_size_t(streams), ctypes.byref(session))
    ):
        sys.exit(library.fastltc_last_error().decode())
    outputs = np.empty((*x.shape[:2], library.fastltc_output_size(network)), np.float32)
    for x_t, dt_t, y_t in zip(x, dt, outputs, strict=True):
        if library.fastltc_step_each(session, x_t, dt_t, y_t):
            sys.exit(library.fastltc_last_error().decode())
    library.fastltc_session_free(session)
    library.fastltc_network_free(network)
    return outputs


def check_numbers(library: ctypes.CDLL) -> None:
    """Compare with fastltc.runtime, for one stream and for many."""
    random = np.random.default_rng()
    for path in MODELS:
        network = runtime.load(path)
        for streams in (1, 21):
            x = random.standard_normal((20, streams, network.input_size), np.float32)
            dt = random.random((20, streams), np.float32)
            wanted = network.session(streams).run(x, dt)
            if not np.array_equal(step_all(library, path, x, dt), wanted):
                sys.exit(f"{path.name}, {streams} streams: other bits than fastltc.runtime")


def main() -> None:
    """Run the checks; exit with 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=Path, help="folder of a build with FASTLTC_BUILD_LIBRARY=ON")
    build = parser.parse_args().build
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prefix = folder / "prefix"
        run("cmake", "--install", build, "--prefix", prefix, "--component", "library")
        (shared,) = (path for path in prefix.rglob("libfastltc.so") if path.exists())
        check_symbols(shared)
        for kind in ("shared", "static"):
            check_example(prefix, folder, kind)
        check_numbers(ctypes.CDLL(str(shared)))
    print(f"libfastltc: installed, linked, and the bits of fastltc.runtime on {len(MODELS)} models")


if __name__ == "__main__":
    main()
