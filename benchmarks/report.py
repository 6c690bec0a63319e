"""Makes the tables of measured numbers out of the JSON of a run.

    pytest benchmarks --benchmark-json=benchmarks/results/NAME.json
    python benchmarks/report.py benchmarks/results/NAME.json \\
        [--docs docs/benchmarks.md] [--readme README.md]

Prints the table of all rows, or writes it between the two marker comments of a Markdown file, and
the eight rows of `README` between those of another.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import Figure, Row, duration, number

BEGIN = "<!-- benchmark table: begin -->"
END = "<!-- benchmark table: end -->"
HEADER = ("case", "fastltc", "against ncps", "against LSTM", "other", "asked", "reached")
README_HEADER = ("training step", "fastltc", "ncps", "LSTM", "targets")
# The benchmarks of the README, and what they are called there. Missed targets are among them.
README = {
    "test_training_step[auto_ncp_19]": "LTC, 19 neurons, NCP",
    "test_training_step[auto_ncp_64]": "LTC, 64 neurons, NCP",
    "test_training_step[fully_connected_64]": "LTC, 64 neurons, all to all",
    "test_training_step[cfc_auto_ncp_19]": "CfC, 19 neurons, NCP",
    "test_training_step[cfc_64]": "CfC, 64 neurons, backbone",
    "test_training_step[cfc_mixed_auto_ncp_19]": "CfC, 19 neurons, mixed memory",
    "test_step[one_step]": "LTC, 19: step of a stream",
    "test_peak_memory[auto_ncp_64]": "LTC, 64: memory in training",
}
# Above this many waiting tasks per core before the run, others were using the machine.
BUSY = 0.7


def read_rows(data: dict[str, Any]) -> dict[str, Row]:
    """Return the rows of a run by the names of their benchmarks."""
    return {
        benchmark["name"]: Row.from_json(benchmark["extra_info"]["row"])
        for benchmark in data["benchmarks"]
        if "row" in benchmark["extra_info"]
    }


def table(rows: Iterable[Row]) -> str:
    """Return a Markdown table; rows in which nothing is asked come last."""
    rows = sorted(rows, key=lambda row: all(figure.asked is None for figure in row.figures))
    return _markdown([HEADER, ("---",) * len(HEADER), *(_cells(row) for row in rows)])


def readme_table(rows: Mapping[str, Row]) -> str:
    """Return the rows of `README` as a table that reads well as plain text too.

    How many times as quick (or small) as another: the median of the ratio, or 1 over the median.

    Raises:
        ValueError: if a row is missing.
    """
    missing = [name for name in README if name not in rows]
    if missing:
        raise ValueError(f"expected a result of {missing[0]}, which the README shows")
    lines = [README_HEADER]
    for name, label in README.items():
        row = rows[name]
        asked = [figure for figure in row.figures if figure.asked]
        met = sum(bool(figure.reached) for figure in asked)
        amount = _amount(next(iter(row.contestants.values())))
        others = [_times(row, column) for column in ("ncps", "LSTM")]
        lines.append((label, amount, *others, f"{met} of {len(asked)} met"))
    widths = [max(len(line[column]) for line in lines) for column in range(len(README_HEADER))]
    lines.insert(1, tuple("-" * width for width in widths))
    return _markdown(
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    )


def _markdown(lines: Iterable[Iterable[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _times(row: Row, column: str) -> str:
    for figure in row.figures:
        if figure.column == column:
            share = figure.text.startswith("{} of ")
            return f"{number(1 / figure.value.median if share else figure.value.median)} x"
    return ""


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
    parser.add_argument("--docs", type=Path, help="Markdown file for all rows, with the markers")
    parser.add_argument("--readme", type=Path, help="Markdown file for eight, with the markers")
    options = parser.parse_args(arguments)
    data = json.loads(options.result.read_text(encoding="utf-8"))
    files = [file for file in (options.docs, options.readme) if file]
    if data["machine_info"]["quick"] and files:
        print(
            f"{options.result}: of the quick mode (FASTLTC_BENCH_QUICK), which measures nothing; "
            f"{' and '.join(map(str, files))} stays as it is",
            file=sys.stderr,
        )
        return 1
    for warning in warnings(data):
        print(warning, file=sys.stderr)
    rows = read_rows(data)
    about = conditions(data, f"`{_shown_path(options.result)}`")
    if not files:
        print(f"{table(rows.values())}\n\n{about}")
        return 0
    texts = {}
    for file in files:
        try:
            if file == options.readme:
                block = (
                    f"{readme_table(rows)}\n\n{textwrap.fill(about, 80, break_on_hyphens=False)}"
                )
            else:
                block = f"{table(rows.values())}\n\n{about}"
            texts[file] = replace_block(file.read_text(encoding="utf-8"), block)
        except ValueError as error:
            print(f"{file}: {error}", file=sys.stderr)
            return 1
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    return 0


def _shown_path(result: Path) -> str:
    """Return the path of the result inside the repository, or its name."""
    root, result = Path(__file__).resolve().parents[1], result.resolve()
    return result.relative_to(root).as_posix() if result.is_relative_to(root) else result.name


if __name__ == "__main__":
    sys.exit(main())
