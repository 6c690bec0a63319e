"""Find an installed torch on disk, without importing it.

Run as a program, it prints ``DIRECTORY;VERSION`` (a CMake list) of the torch to build against:
the one named by the argument, when that is not empty, else the one of the target environment, else
the first on ``sys.path``.
"""

from __future__ import annotations

import re
import site
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

MINIMUM = (2, 10)


class Torch(NamedTuple):
    """A torch package: its directory and version text, such as ``2.13.0+cpu``."""

    directory: Path
    version: str

    @property
    def usable(self) -> bool:
        """Whether its version has the stable ABI that the extension is written for."""
        match = re.match(r"(\d+)\.(\d+)", self.version)
        return match is not None and (int(match[1]), int(match[2])) >= MINIMUM


def read_torch(directory: Path) -> Torch | None:
    """Return the torch package in ``directory``, or None when there is no complete one."""
    try:
        text = (directory / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    header = directory / "include" / "torch" / "csrc" / "stable" / "library.h"
    libraries = list((directory / "lib").glob("libtorch_cpu.*"))
    if match is None or not header.is_file() or not libraries:
        return None
    return Torch(directory, match[1])


def target_directories() -> list[Path]:
    """Return the site-packages of the environment that the package is being built for.

    In an isolated build pip takes them off ``sys.path``, but ``sysconfig`` still names them.
    """
    directories = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    config = Path(sys.prefix, "pyvenv.cfg")
    if config.is_file() and re.search(
        r"^include-system-site-packages\s*=\s*true", config.read_text(encoding="utf-8"), re.M | re.I
    ):
        directories += site.getsitepackages([sys.base_prefix, sys.base_exec_prefix])
    return [Path(directory) for directory in dict.fromkeys(directories)]


def find_target_torch() -> Torch | None:
    """Return a usable torch of the target environment, or None."""
    for directory in target_directories():
        torch = read_torch(directory / "torch")
        if torch is not None:
            # The first one found is the one that would be imported.
            return torch if torch.usable else None
    return None


def find_torch(given: str = "") -> Torch:
    """Return the torch to build against.

    Raises:
        FileNotFoundError: if there is none that is complete and new enough.
    """
    minimum = ".".join(map(str, MINIMUM))
    if given:
        torch = read_torch(Path(given))
        if torch is None or not torch.usable:
            raise FileNotFoundError(
                f"FASTLTC_TORCH_DIR: expected the directory of a torch package >= {minimum} "
                f"(with version.py, include and lib), got {given} "
                f"({torch.version if torch else 'no complete torch package'})"
            )
        return torch
    torch = find_target_torch()
    if torch is not None:
        return torch
    searched = [Path(entry or ".") for entry in sys.path]
    for directory in searched:
        torch = read_torch(directory / "torch")
        if torch is not None and torch.usable:
            return torch
    raise FileNotFoundError(
        f"no torch >= {minimum} found to build against; looked in "
        + ", ".join(str(directory) for directory in dict.fromkeys(target_directories() + searched))
        + ". Install torch, or name its directory with FASTLTC_TORCH_DIR."
    )


if __name__ == "__main__":
    try:
        found = find_torch(sys.argv[1] if len(sys.argv) > 1 else "")
    except FileNotFoundError as error:
        sys.exit(f"fastltc: {error}")
    print(f"{found.directory};{found.version}")
