"""Makes the table of measured numbers out of the JSON of a run.

    pytest benchmarks --benchmark-json=benchmarks/results/NAME.json
    python benchmarks/report.py benchmarks/results/NAME.json [--readme README.md]

Prints the table, or writes it between the two marker comments of a Markdown file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import Figure, Row, duration, number

BEGIN = "<!-- benchmark table: begin -->"
END = "<!-- benchmark table: end -->"
HEADER = ("case", "fastltc", "against ncps", "against LSTM", "other", "asked", "reached")
# Above this many waiting tasks per core before the run, others were using the machine.
BUSY = 0.7


def read_rows(data: dict[str, Any]) -> list[Row]:
    """Return the rows of a run."""
    return [
        Row.from_json(benchmark["extra_info"]["row"])
        for benchmark in data["benchmarks"]
        if "row" in benchmark["extra_info"]
    ]


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table; rows in which nothing is asked come last."""
    rows = sorted(rows, key=lambda row: all(figure.asked is None for figure in row.figures))
    lines = [HEADER, ("---",) * len(HEADER), *(_cells(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def load_warning(load: float | None, cores: int) -> str | None:
    """Return a warning if the machine was busy before the run."""
    if load is None or load <= BUSY * cores:
        return None
    return f"Warning: the load average before the run was {load} on {cores} cores: do not publish."


def warnings(data: dict[str, Any]) -> list[str]:
    """Return what speaks against publishing these numbers."""
    machine = data["machine_info"]
    busy = load_warning(machine["load_average_before"], machine["cores"])
    found = [busy] if busy else []
    if data["commit_info"].get("dirty"):
        found.append("Warning: the working tree had changes that no commit has.")
    if machine["build_type"] not in (None, "Release"):
        found.append(f"Warning: fastltc was built as {machine['build_type']}.")
    return found


def conditions(data: dict[str, Any], source: str) -> str:
    """Return a sentence on where, when and with what a run was measured."""
    machine, commit = data["machine_info"], data["commit_info"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    changed = " with changes" if commit.get("dirty") else ""
    gpu = machine.get("gpu")
    on_gpu = f"{gpu['name']} (CUDA {gpu['cuda']}, driver {gpu['driver']}) in " if gpu else ""
    return (
        f"Measured on {data['datetime'][:10]} on {on_gpu}{machine['processor']} "
        f"({machine['instruction_set']}, {machine['cores']} cores), float32, {machine['threads']} "
        f"threads unless said, load average {machine['load_average_before']} before; {versions}, "
        f"{machine['python']}, commit {commit['id'][:12]}{changed}. Medians over interleaved "
        f"rounds; made from {source} by `benchmarks/report.py`."
    )


def replace_block(text: str, block: str) -> str:
    """Return ``text`` with ``block`` between the two markers.

    Raises:
        ValueError: if each marker is not there exactly once and in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected one line {BEGIN} and, after it, one line {END}")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def _cells(row: Row) -> tuple[str, ...]:
    def text(figure: Figure) -> str:
        return figure.text.format(number(figure.value.median))

    def column(name: str) -> str:
        return "; ".join(text(figure) for figure in row.figures if figure.column == name)

    case = f"{row.case}: {row.task}"
    if row.threads:
        case += f", {row.threads} thread" + ("s" if row.threads > 1 else "")
    asked = [figure for figure in row.figures if figure.asked]
    return (
        case,
        _amount(next(iter(row.contestants.values()))),
        column("ncps"),
        column("LSTM"),
        column("other"),
        "; ".join(str(figure.asked) for figure in asked),
        "; ".join("yes" if figure.reached else "no" for figure in asked),
    )


def _amount(contestant: dict[str, float]) -> str:
    if "bytes" in contestant:
        return f"{number(contestant['bytes'] / 2**20)} MiB"
    return duration(contestant["seconds"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("result", type=Path, help="JSON of pytest-benchmark")
    parser.add_argument("--readme", type=Path, help="Markdown file with the two markers")
    options = parser.parse_args(arguments)
    data = json.loads(options.result.read_text(encoding="utf-8"))
    quick = data["machine_info"]["quick"]
    if quick and options.readme:
        print(
            f"{options.result}: of the quick mode (FASTLTC_BENCH_QUICK), which measures nothing; "
            f"{options.readme} stays as it is",
            file=sys.stderr,
        )
        return 1
    for warning in warnings(data):
        print(warning, file=sys.stderr)
    block = f"{table(read_rows(data))}\n\n{conditions(data, f'`{_shown_path(options)}`')}"
    if not options.readme:
        print(block)
        return 0
    try:
        text = replace_block(options.readme.read_text(encoding="utf-8"), block)
    except ValueError as error:
        print(f"{options.readme}: {error}", file=sys.stderr)
        return 1
    options.readme.write_text(text, encoding="utf-8")
    return 0


def _shown_path(options: argparse.Namespace) -> str:
    """Return the path of the result as seen from the Markdown file, or its name."""
    folder = (options.readme or Path("README.md")).resolve().parent
    result: Path = options.result.resolve()
    return result.relative_to(folder).as_posix() if result.is_relative_to(folder) else result.name


if __name__ == "__main__":
    sys.exit(main())
