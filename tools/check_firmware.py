"""Compile exported C for microcontrollers, run it on emulated ones, and compare and count.

    python tools/check_firmware.py                      # models of tests/golden: compare
    python tools/check_firmware.py --table MODEL ...    # flash, RAM and instructions a step

Takes what Debian calls gcc-arm-none-eabi, libnewlib-arm-none-eabi, gcc-riscv64-unknown-elf,
picolibc-riscv64-unknown-elf, qemu-system-arm and qemu-system-misc. Integers have to be those of
this machine, bit for bit; floats within 1e-5 of fastltc.runtime.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastltc.exporting.c_source import CSource, generate_c
from fastltc.exporting.errors import ExportError
from fastltc.exporting.int_error import host_compiler, run_integers
from fastltc.exporting.int_ranges import Calibration, made_up, read_calibration
from fastltc.exporting.int_source import IntegerSource, generate_integer_c
from fastltc.runtime import Model, Session, read_model

ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "tools" / "firmware"
GOLDEN = ROOT / "tests" / "golden" / "models"
# Each another kind of layer: cells, maps, memory, modes, functions.
COMPARED = (
    "ltc",
    "ltc-memory",
    "ltc-maps",
    "wired",
    "wired-memory",
    "cfc-deep",
    "cfc-pure",
    "policy",
)
STEPS = 10
NANOSECONDS = 64  # that an instruction takes on an emulated clock


@dataclass(frozen=True)
class Target:
    """A processor: how to compile for it, what emulates it, and its ticks an instruction."""

    name: str
    compiler: str
    flags: tuple[str, ...]
    emulator: tuple[str, ...]
    ticks: float

    @property
    def missing(self) -> str | None:
        """The program that is not there."""
        return next((p for p in (self.compiler, self.emulator[0]) if shutil.which(p) is None), None)


def _arm(name: str, cpu: str, machine: str, megahertz: float, *flags: str) -> Target:
    ticks = megahertz * NANOSECONDS / 1000
    options = (f"-mcpu={cpu}", "-mthumb", *flags)
    debugger = ("-semihosting-config", "enable=on,target=native,chardev=out", "-serial", "none")
    emulator = ("qemu-system-arm", "-M", machine, "-chardev", "stdio,id=out", *debugger)
    return Target(name, "arm-none-eabi-gcc", options, emulator, ticks)


TARGETS = (
    _arm("Cortex-M0+", "cortex-m0plus", "microbit", 16),
    _arm("Cortex-M4", "cortex-m4", "mps2-an386", 25, "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    _arm("Cortex-M7", "cortex-m7", "mps2-an500", 25, "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    Target(
        "RV32IMC",
        "riscv64-unknown-elf-gcc",
        ("--specs=picolibc.specs", "-march=rv32imac", "-mabi=ilp32", "-mcmodel=medany"),
        ("qemu-system-riscv32", "-M", "virt", "-bios", "none", "-serial", "stdio"),
        # Its counter of instructions is that clock.
        NANOSECONDS,
    ),
)


@dataclass(frozen=True)
class Result:
    """Outputs ``[T, M]``, integers where the code is; bytes of the model's own; instructions."""

    outputs: np.ndarray
    flash: int
    instructions: float


def run_on(target: Target, code: CSource, data: Calibration) -> Result:
    """Compile a model for a processor and run its emulation on the first stream."""
    integers = isinstance(code, IntegerSource)
    x, dt = _as_arguments(code, data)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "model.h").write_text(code.header)
        (folder / "model.c").write_text(code.source)
        (folder / "data.h").write_text(_data(x, dt, integers))
        kind = "arm" if target.compiler.startswith("arm") else "riscv"
        command = [
            *(target.compiler, *target.flags, "-std=gnu99", "-Os", "-ffunction-sections"),
            *("-fdata-sections", "-I", str(folder), "-I", str(FILES)),
        ]
        _call([*command, "-c", str(folder / "model.c"), "-o", str(folder / "model.o")])
        size = shutil.which(target.compiler.replace("gcc", "size"))
        text, *_ = _call([str(size), str(folder / "model.o")]).splitlines()[1].split()
        link = ["-nostartfiles", "-T", str(FILES / f"{kind}.ld"), "-Wl,--gc-sections"]
        sources = [str(FILES / "main.c"), str(FILES / f"{kind}.c"), str(folder / "model.o")]
        _call([*command, *link, *sources, "-o", str(folder / "firmware.elf"), "-lm"])
        clock = ["-icount", f"shift={NANOSECONDS.bit_length() - 1}"]
        quiet = ["-display", "none", "-monitor", "none"]
        words = _call(
            [*target.emulator, *clock, *quiet, "-kernel", str(folder / "firmware.elf")]
        ).split()
    bits = np.array([int(word, 16) for word in words], np.uint32)
    outputs = bits[1:].view(np.int32 if integers else np.float32).reshape(STEPS, -1)
    return Result(outputs, int(text), int(bits[0]) / target.ticks / STEPS)


def _as_arguments(code: CSource, data: Calibration) -> tuple[np.ndarray, np.ndarray]:
    x, dt = data.x[:STEPS, 0], data.dt[:STEPS, 0]
    if not isinstance(code, IntegerSource):
        return x, dt
    lines = dict(
        line.split(maxsplit=2)[1:] for line in code.header.splitlines() if "_BITS " in line
    )
    bits = np.array([int(b) for b in lines["MODEL_INPUT_BITS"].strip("{}").split(",")])
    scaled = np.clip(x * np.float32(2) ** bits, -32767, 32767)
    # As the header's function for floats rounds.
    rounded = np.trunc(scaled + np.where(scaled < 0, np.float32(-0.5), np.float32(0.5)))
    return rounded.astype(int), np.rint(dt * 2.0 ** int(lines["MODEL_DT_BITS"])).astype(int)


def _data(x: np.ndarray, dt: np.ndarray, integers: bool) -> str:
    kinds = ("int16_t", "uint32_t") if integers else ("float", "float")
    rows = ",\n".join("{" + ", ".join(map(str, row.tolist())) + "}" for row in x)
    return (
        f"#include <stdint.h>\n#define STEPS {STEPS}\ntypedef {kinds[0]} value;\n"
        f"static const value inputs[STEPS][{x.shape[1]}] = {{\n{rows}\n}};\n"
        f"static const {kinds[1]} timespans[STEPS] = {{{', '.join(map(str, dt.tolist()))}}};\n"
    )


def _call(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout


def kinds_of(model: Model, data: Calibration) -> dict[str, CSource]:
    """Return the model's C: float, and integers with narrow and wide weights."""
    narrow = generate_integer_c(model, calibration=data)
    wide = generate_integer_c(model, wide=None, calibration=data)
    return {"float": generate_c(model), "int8": narrow, "fixed": wide}


def check(target: Target, model: Model, kind: str, code: CSource, data: Calibration) -> Result:
    """Run a model on a processor, and exit where its outputs are others than here."""
    found = run_on(target, code, data)
    start = Calibration(data.x[:STEPS, :1].copy(), data.dt[:STEPS, :1].copy(), "")
    if isinstance(code, IntegerSource):
        compiler = host_compiler()
        if compiler is None:
            sys.exit("no C compiler for this machine")
        unit = 2.0 ** -int(code.header.split("_OUTPUT_BITS (")[1].split(")")[0])
        same = np.array_equal(found.outputs * unit, run_integers(code, start, compiler)[:, 0])
    else:
        wanted = Session(model).run(start.x[:, 0], start.dt[:, 0])
        same = bool(np.abs(found.outputs - wanted).max() < 1e-5)
    if not same:
        sys.exit(f"{target.name}, {kind}: other outputs than on this machine:\n{found.outputs}")
    return found


def main() -> None:
    """Compare, and print a table if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, help="model files; MODEL.npz: calibration")
    parser.add_argument("--table", action="store_true", help="print Markdown")
    parser.add_argument("--targets", nargs="*", help="names of processors; default: all")
    arguments = parser.parse_args()
    targets = [t for t in TARGETS if not arguments.targets or t.name in arguments.targets]
    for target in targets:
        if target.missing is not None:
            sys.exit(f"{target.name}: {target.missing} is not on the PATH")
    paths = arguments.models or [GOLDEN / f"{name}.safetensors" for name in COMPARED]
    if arguments.table:
        print("| model | processor | numbers | flash | RAM | instructions a step |")
        print("|---|---|---|---|---|---|")
    for path in paths:
        model = read_model(path)
        given = path.with_suffix(".npz")
        data = read_calibration(model, given) if given.is_file() else made_up(model)
        try:
            kinds = kinds_of(model, data)
        except ExportError as error:
            sys.exit(f"{path}: {error}")
        for target in targets:
            for kind, code in kinds.items():
                found = check(target, model, kind, code, data)
                if arguments.table:
                    print(
                        f"| {path.stem} | {target.name} | {kind} | {found.flash:,} | "
                        f"{code.state_bytes} | {found.instructions:,.0f} |"
                    )
    if not arguments.table:
        print(f"{len(paths)} models, {len(targets)} processors: the outputs of this machine")


if __name__ == "__main__":
    main()
