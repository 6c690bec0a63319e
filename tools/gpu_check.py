"""All that a machine with an NVIDIA GPU can tell about the CUDA kernels, within some minutes.

    tools/gpu_check.sh NAME [--seconds 480] [--wheel FILE] [--results FOLDER] [STEP ...]

NAME is the GPU's, such as h200. Steps, in this order; without any all of them:

    install      the wheel, or else a build for this GPU's architecture, into the environment
    smoke        a few layers, each by itself: against the CPU, twice with the same bits, the time
                 of a step and of each of its kernels
    tests        pytest -m cuda, in parallel; whoever takes a minute is ended, the rest goes on
    benchmarks   some rows, seconds each
    memcheck     seven small cases under compute-sanitizer
    racecheck    the same

A step ends when its own time or all of it is up, and the others still run. What is learnt is
written as it comes: NAME-summary.txt, a table; NAME-log.txt, the output of everything;
NAME-smoke.json and NAME-benchmarks.json. Exit status 0: every step passed; 1: one did not; 2: wrong
arguments.

A machine without network takes a wheel built elsewhere, with the same Python and torch, and needs
besides torch what pyproject.toml names under `dependencies`, pytest, hypothesis and
pytest-benchmark: FASTLTC_WHEELS may name a folder of wheels, which are installed first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of a whole step, in seconds.
LIMITS = {
    "install": 400,
    "smoke": 150,
    "tests": 200,
    "benchmarks": 150,
    "memcheck": 90,
    "racecheck": 90,
}
SMOKE_CASES = (
    "ltc-ncp19",
    "ltc-fc64",
    "ltc-fc256",
    "ltc-fc256-b240",
    "ltc-mixed",
    "cfc-ncp19",
    "cfc-64",
)
SMALL_CASES = (
    "small-warp",
    "small-block",
    "small-cluster",
    "small-tiled",
    "small-mixed",
    "small-cfc-warp",
    "small-cfc-block",
)
BENCHMARKS = (
    *(
        f"{test}[{case}]"
        for test in ("test_training_step_in_a_graph", "test_forward_over_the_limit")
        for case in ("auto_ncp_19", "fully_connected_64", "fully_connected_256")
    ),
    "test_training_step[auto_ncp_19]",
    "test_training_step_in_a_graph[cfc_auto_ncp_19]",
    "test_training_step_in_a_graph[cfc_64]",
    "test_special_function_limit",
)


@dataclass
class Ended:
    """A command that has ended: its status, None where its time was up, and its output."""

    status: int | None
    output: str

    @property
    def problem(self) -> str:
        """What went wrong, or nothing."""
        if self.status is None:
            return "TIMEOUT"
        return "" if self.status == 0 else "FAILED"


@dataclass
class Step:
    """What a step came to."""

    outcome: str = "passed"
    notes: list[str] = field(default_factory=list)

    def take(self, problem: str, note: str) -> None:
        """Take a problem, if it is one, as what the step came to."""
        if problem:
            self.outcome = problem
        if note:
            self.notes.append(note)


class Check:
    """The check of one machine."""

    def __init__(self, name: str, seconds: float, results: Path, wheel: Path | None) -> None:
        self.results = results
        self.name = name
        self.wheel = wheel
        self.end = time.monotonic() + seconds
        self.step_end = self.end
        self.workers = max(1, min(8, (os.cpu_count() or 2) // 2))
        results.mkdir(parents=True, exist_ok=True)
        for old in results.glob(f"{name}-*"):
            old.unlink()
        toolkit = "/usr/local/cuda/bin"
        self.environment = {
            **os.environ,
            "PATH": f"{os.environ.get('PATH', '')}{os.pathsep}{toolkit}",
            "FASTLTC_REQUIRE_CUDA": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def path(self, what: str) -> Path:
        """Return the path of a file of the results."""
        return self.results / f"{self.name}-{what}"

    def left(self) -> float:
        """Return the seconds that are left to the step."""
        return min(self.end, self.step_end) - time.monotonic()

    def run(self, command: Iterable[object], limit: float = 1e9, **environment: str) -> Ended:
        """Run a command, which is ended with all that it started when its time is up."""
        limit = min(limit, self.left())
        words = [str(word) for word in command]
        if limit < 1:
            return Ended(None, "no time left\n")
        with tempfile.TemporaryFile("w+b") as output:
            try:
                process = subprocess.Popen(
                    words,
                    cwd=ROOT,
                    env={**self.environment, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                return self.log(words, Ended(127, f"{error}\n"))
            try:
                status: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                status = None
            # Of a process that has ended, too: it may have left others behind.
            for wanted in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, wanted)
                    process.wait(3)
                except (ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
                    continue
            output.seek(0)
            text = output.read().decode(errors="replace")
        return self.log(words, Ended(status, text))

    def log(self, words: list[str], ended: Ended) -> Ended:
        """Append a command to the log."""
        with self.path("log.txt").open("a", encoding="utf-8") as file:
            file.write(f"\n$ {' '.join(words)}\n{ended.output}[{ended.problem or 'passed'}]\n")
        return ended

    def python(self, *words: object, limit: float = 1e9, **environment: str) -> Ended:
        """Run this Python."""
        return self.run((sys.executable, *words), limit, **environment)

    # ---- Steps

    def install(self) -> Step:
        """Install what is to be checked."""
        step = Step()
        pip = ("-m", "pip", "install", "--no-index", "--no-deps", "--force-reinstall")
        wheels = sorted(Path(os.environ.get("FASTLTC_WHEELS", "/nonexistent")).glob("*.whl"))
        if wheels:
            step.take(self.python(*pip, *wheels).problem, "")
        if self.wheel is not None:
            step.take(self.python(*pip, self.wheel).problem, self.wheel.name)
        else:
            asked = "import torch; print('%d%d' % torch.cuda.get_device_capability())"
            ended = self.python("-c", asked)
            architecture = ended.output.split()[-1] if ended.output.split() else ""
            step.take(ended.problem, f"built for {architecture}")
            if not ended.problem:
                options = ("FASTLTC_CUDA=ON", f"FASTLTC_CUDA_ARCHITECTURES={architecture}")
                defines = [f"--config-settings=cmake.define.{option}" for option in options]
                step.take(self.python(*pip, "--no-build-isolation", *defines, ROOT).problem, "")
        step.take(self.python("-m", "fastltc.info").problem, "")
        return step

    def smoke(self) -> Step:
        """Run the layers of some sizes, each in a process of its own."""
        step = Step()
        learnt: list[object] = []
        for case in SMOKE_CASES:
            ended = self.python("tools/gpu_smoke.py", case, limit=45)
            found = [line for line in ended.output.splitlines() if line.startswith("{")]
            if not ended.problem and not found:
                ended.status = 1
            step.take(ended.problem, f"{case} {ended.problem}" if ended.problem else "")
            if not found:
                continue
            learnt.append(json.loads(found[-1]))
            self.path("smoke.json").write_text(json.dumps(learnt, indent=1), encoding="utf-8")
            step.notes.append(
                "{case}: error {error:.1e}, {bits}, {ms:.3f} ms a step, {nodes} kernels".format(
                    **json.loads(found[-1])
                )
            )
        return step

    def tests(self) -> Step:
        """Run the tests that take a GPU, some at once."""
        step = Step()
        files = [
            str(path.relative_to(ROOT))
            for path in sorted((ROOT / "tests").rglob("test_*.py"))
            if re.search(r"\bmark\.cuda\b", path.read_text(encoding="utf-8"))
        ]
        collected = self.python("-m", "pytest", "-q", "-m", "cuda", "--collect-only", *files)
        tests = [line for line in collected.output.splitlines() if re.match(r"tests/\S+::", line)]
        step.take(collected.problem or ("" if tests else "FAILED"), "")
        parts = [part for n in range(self.workers) if (part := tests[n :: self.workers])]
        passed = 0
        with ThreadPoolExecutor(self.workers) as pool:
            for ended_well, problems in pool.map(self.run_tests, parts):
                passed += ended_well
                for problem in problems:
                    step.take(problem.split()[0], problem)
        step.notes.insert(0, f"{passed} of {len(tests)} passed")
        if passed < len(tests) and step.outcome == "passed":
            step.outcome = "FAILED"
        return step

    def run_tests(self, tests: list[str]) -> tuple[int, list[str]]:
        """Run tests one after another; return how many passed, and what did not."""
        passed, problems = 0, []
        while tests:
            ended = self.python("-m", "pytest", "-v", "--tb=short", *tests, limit=60)
            outcome = dict(
                re.findall(r"^(tests/\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)", ended.output, re.M)
            )
            passed += list(outcome.values()).count("PASSED")
            problems += [f"{what} {test}" for test, what in outcome.items() if what != "PASSED"]
            rest = [test for test in tests if test not in outcome]
            if not rest or self.left() < 1:
                return passed, problems + [f"TIMEOUT {test}" for test in rest]
            # The first of them did not end, or ended its process.
            problems.append(f"{ended.problem or 'FAILED'} {rest[0]}")
            tests = rest[1:]
        return passed, problems

    def benchmarks(self) -> Step:
        """Time some rows, each in a process of its own."""
        step = Step()
        all_rows: dict[str, list[object]] | None = None
        for row in BENCHMARKS:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "row.json"
                test = f"benchmarks/bench_cuda.py::{row}"
                options = ("-q", "-m", "cuda", f"--benchmark-json={file}")
                ended = self.python(
                    "-m", "pytest", *options, test, limit=45, FASTLTC_BENCH_SECONDS="2"
                )
                step.take(ended.problem, f"{row} {ended.problem}" if ended.problem else "")
                if not file.exists() or not file.read_text(encoding="utf-8"):
                    continue
                learnt = json.loads(file.read_text(encoding="utf-8"))
            if all_rows is None:
                all_rows = learnt
            else:
                all_rows["benchmarks"] += learnt["benchmarks"]
            self.path("benchmarks.json").write_text(json.dumps(all_rows), encoding="utf-8")
        if all_rows is not None:
            step.notes.append(f"{len(all_rows['benchmarks'])} of {len(BENCHMARKS)} rows")
            report = self.python("benchmarks/report.py", self.path("benchmarks.json"))
            step.notes += report.output.splitlines() if not report.problem else []
        return step

    def sanitize(self, tool: str) -> Step:
        """Run the small cases under a sanitizer, which slows kernels down a hundredfold."""
        step = Step()
        program = shutil.which("compute-sanitizer", path=self.environment["PATH"])
        if program is None:
            step.take("MISSING", "compute-sanitizer")
            return step
        # Without torch's cache each tensor is an allocation of its own, whose ends memcheck knows.
        ended = self.run(
            (
                *(program, "--tool", tool, "--error-exitcode", 1, "--target-processes", "all"),
                *(sys.executable, "tools/gpu_smoke.py", "--once", *SMALL_CASES),
            ),
            PYTORCH_NO_CUDA_MEMORY_CACHING="1",
        )
        summary = [line for line in ended.output.splitlines() if "SUMMARY" in line]
        step.take(ended.problem, summary[-1] if summary else "")
        return step

    def memcheck(self) -> Step:
        """Look for accesses outside of memory."""
        return self.sanitize("memcheck")

    def racecheck(self) -> Step:
        """Look for races in shared memory."""
        return self.sanitize("racecheck")

    # ----

    def all(self, names: list[str]) -> bool:
        """Run steps; return whether all passed."""
        table: list[str] = []
        good = True
        for name in names:
            start = time.monotonic()
            self.step_end = start + LIMITS[name]
            body: Callable[[], Step] = getattr(self, name)
            print(f"=== {name}, {max(0.0, self.left()):.0f} s at most", flush=True)
            if self.end - start < 2:
                step = Step("NO TIME")
            else:
                try:
                    step = body()
                except Exception as error:
                    step = Step("ERROR", [f"{type(error).__name__}: {error}"])
            good &= step.outcome == "passed"
            table.append(f"{name:<11} {step.outcome:<8} {time.monotonic() - start:5.0f} s")
            table += [f"    {note}" for note in step.notes]
            self.step_end = self.end
            self.path("summary.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
            # An older installation must not be taken for this one.
            if name == "install" and step.outcome != "passed":
                break
        self.step_end = self.end = time.monotonic() + 10
        query = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
        device = self.run(query)
        table.insert(0, "no nvidia-smi" if device.problem else device.output.strip())
        self.path("summary.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
        print("\n" + "\n".join(table))
        return good


def main() -> None:
    """Run the steps asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of the GPU, in the names of files")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(LIMITS))
    parser.add_argument("--seconds", type=float, default=480, help="for all steps (default 480)")
    parser.add_argument("--wheel", type=Path, help="what to install")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args()
    unknown = [step for step in given.steps if step not in LIMITS]
    if unknown or not re.fullmatch(r"[\w.-]+", given.name):
        parser.error(f"no step {unknown[0]}" if unknown else f"{given.name!r} is no name of a file")
    if given.wheel is not None and not given.wheel.is_file():
        parser.error(f"no wheel {given.wheel}")
    wheel = given.wheel.resolve() if given.wheel else None
    check = Check(given.name, given.seconds, given.results.resolve(), wheel)
    sys.exit(0 if check.all(given.steps or list(LIMITS)) else 1)


if __name__ == "__main__":
    main()
