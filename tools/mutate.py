r"""Change one operator or number of a source at a time, and see whether the tests notice.

    python tools/mutate.py csrc/core/synapse_check.cpp csrc/torch/checks.h --command "..." \
        [--sample 40] [--seed 0] [--only 'check|expected']

The command runs in a copy of the tracked files, as they are, once unchanged (it must pass) and once
for each mutant; one that passes has survived and is printed. Texts and comments are left alone.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# What is found, and what takes its place, one after the other.
CHANGES: list[tuple[str, tuple[str, ...]]] = [
    (r"<=", ("<", ">")),
    (r">=", (">", "<")),
    (r"(?<=\s)<(?=\s)", ("<=", ">")),
    (r"(?<=\s)>(?=\s)", (">=", "<")),
    (r"==", ("!=",)),
    (r"!=", ("==",)),
    (r"&&", ("||",)),
    (r"\|\|", ("&&",)),
    (r"\band\b", ("or",)),
    (r"\bor\b", ("and",)),
    (r"\bnot in\b", ("in",)),
    (r"\bis not\b", ("is",)),
    (r"(?<=[\w)\]] )\+(?= [\w(])", ("-",)),
    (r"(?<=[\w)\]] )-(?= [\w(])", ("+",)),
    (r"(?<=[\w)\]] )\*(?= [\w(])", ("+",)),
    (r"(?<=[(\s])!(?=[\w(])", ("",)),
    (r"(?<![\w.\"])0(?![\w.])", ("1",)),
    (r"(?<![\w.\"])1(?![\w.])", ("0", "2")),
    (r"\btrue\b", ("false",)),
    (r"\bfalse\b", ("true",)),
    (r"\breturn;", ("",)),
    (r"\bTrue\b", ("False",)),
    (r"\bFalse\b", ("True",)),
    (r"\bcontinue;", ("break;",)),
]
_TEXT = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'')


def mutants(path: Path, only: str) -> Iterator[tuple[int, str, str]]:
    """Yield number, old and new text of each line that is changed."""
    inside = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        code = re.sub(r"(//|#(?!include)).*", "", line)
        inside ^= code.count('"""') % 2 == 1
        skipped = re.match(r"\s*(#|template|using|from|import|static_assert|\*)", code)
        if inside or '"""' in code or skipped or not re.search(only, line):
            continue
        texts = [match.span() for match in _TEXT.finditer(code)]
        for pattern, others in CHANGES:
            for match in re.finditer(pattern, code):
                if any(begin <= match.start() < end for begin, end in texts):
                    continue
                for other in others:
                    yield number, line, line[: match.start()] + other + line[match.end() :]


def main() -> None:
    """Run the command for each mutant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--command", required=True)
    parser.add_argument("--sample", type=int, help="how many, drawn by chance; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a regular expression that lines must have")
    parser.add_argument(
        "--timeout", type=int, default=600, help="seconds; a slower mutant is killed"
    )
    options = parser.parse_args()
    drawn = [(file, *mutant) for file in options.files for mutant in mutants(file, options.only)]
    count = len(drawn)
    if options.sample is not None and options.sample < count:
        drawn = random.Random(options.seed).sample(drawn, options.sample)
    with tempfile.TemporaryDirectory() as folder:
        tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True)
        for name in tracked.stdout.splitlines():
            if Path(name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(name, Path(folder) / name)

        def passes() -> bool:
            try:
                done = subprocess.run(
                    ["bash", "-c", options.command],
                    cwd=folder,
                    capture_output=True,
                    timeout=options.timeout,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return False
            return done.returncode == 0

        if not passes():
            sys.exit("the command fails without any change")
        survived = 0
        for file, number, old, new in drawn:
            target = Path(folder) / file
            lines = target.read_text(encoding="utf-8").splitlines()
            lines[number] = new
            target.write_text("\n".join(lines) + "\n", encoding="utf-8")
            if passes():
                survived += 1
                print(
                    f"survived: {file}:{number + 1}\n  {old.strip()}\n  {new.strip()}", flush=True
                )
            lines[number] = old
            target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    killed = len(drawn) - survived
    print(f"{killed} of {len(drawn)} mutants killed ({count} there are)")


if __name__ == "__main__":
    main()
