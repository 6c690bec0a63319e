"""Writes the table of the options of `fastltc train` into docs/training.md, as they are declared.

python tools/option_table.py          writes it
python tools/option_table.py --check  ends with status 1 where another one is there
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastltc.jobs.config import OPTIONS, TrainConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"
BEGIN = "<!-- by tools/option_table.py -->\n"
END = "<!-- end of the table -->\n"


def table() -> str:
    """The table in Markdown: a row for each option, in the order of `config.json`."""
    lines = ["| option | default | values | |", "|---|---|---|---|"]
    for name in TrainConfig().to_dict():
        option = OPTIONS[name]
        default = option.usual or ("" if option.default is None else str(option.default))
        values = option.allowed.expected if option.allowed else option.declared
        lines.append(f"| `{name}` | {default} | {values} | {option.help} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the table, or compares it."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    found, after = rest.split(END)
    if sys.argv[1:] == ["--check"]:
        sys.exit(found != table())
    PAGE.write_text(before + BEGIN + table() + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
