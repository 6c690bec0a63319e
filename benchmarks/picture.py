"""Draws the times of training steps out of the JSON of a run, for light and for dark pages.

    python benchmarks/picture.py benchmarks/results/NAME.json docs/images

Writes speed-light.svg and speed-dark.svg. Times span three powers of ten, so the axis is
logarithmic and marks stand on it, not bars, whose lengths would mean nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from figures import Row, duration
from report import read_rows

CASES = {
    "test_training_step[auto_ncp_19]": ("LTC, 19 neurons, NCP", "batch of 128, 32 steps"),
    "test_training_step[auto_ncp_64]": ("LTC, 64 neurons, NCP", "batch of 32, 128 steps"),
    "test_training_step[fully_connected_64]": (
        "LTC, 64 neurons, all to all",
        "batch of 64, 64 steps",
    ),
    "test_training_step[cfc_auto_ncp_19]": ("CfC, 19 neurons, NCP", "batch of 128, 32 steps"),
    "test_training_step[cfc_auto_ncp_64]": ("CfC, 64 neurons, NCP", "batch of 32, 128 steps"),
    "test_training_step[cfc_64]": ("CfC, 64 neurons, backbone", "batch of 64, 64 steps"),
}
# Colours that differ in lightness too, on GitHub's two backgrounds.
THEMES = {
    "light": {"text": "#1f2328", "faint": "#59636e", "line": "#d1d9e0"}
    | {"fastltc": "#0550ae", "LSTM": "#1a7f37", "ncps": "#bc4c00"},
    "dark": {"text": "#f0f6fc", "faint": "#9198a1", "line": "#3d444d"}
    | {"fastltc": "#79c0ff", "LSTM": "#56d364", "ncps": "#ffa657"},
}
WIDTH, LEFT, RIGHT, TOP, ROW = 800, 250, 50, 74, 52
SHORTEST, LONGEST = 0.5e-3, 1.0


def draw(rows: Mapping[str, Row], theme: Mapping[str, str], about: str) -> str:
    """Return the picture as SVG."""
    bottom = TOP + ROW * len(CASES)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 56}" '
        'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="15">',
        "<title>Time of a training step of fastltc, torch.nn.LSTM and ncps</title>",
        _text(12, 24, "Time of a training step, logarithmic", theme["text"], weight=600),
    ]
    for name, x in (("fastltc", 400), ("LSTM", 510), ("ncps", 680)):
        label = "torch.nn.LSTM" if name == "LSTM" else name
        parts += [_mark(name, x, 19, theme), _text(x + 14, 24, label, theme["text"])]
    for tick in (1e-3, 1e-2, 1e-1, 1.0):
        x = _place(tick)
        parts.append(f'<path d="M{x} {TOP - 22}V{bottom}" stroke="{theme["line"]}"/>')
        parts.append(_text(x, bottom + 20, duration(tick), theme["faint"], "middle"))
    for index, (name, (title, steps)) in enumerate(CASES.items()):
        y = TOP + ROW * index
        times = {who: c["seconds"] for who, c in rows[name].contestants.items()}
        first, last = _place(min(times.values())), _place(max(times.values()))
        parts += [
            _text(12, y, title, theme["text"]),
            _text(12, y + 17, steps, theme["faint"], size=13),
            f'<path d="M{first} {y}H{last}" stroke="{theme["faint"]}"/>',
        ]
        # Those of the LSTM below the line, for they may be near.
        for who, seconds in times.items():
            x, below = _place(seconds), 21 if who == "LSTM" else -11
            parts.append(_mark(who, x, y, theme))
            parts.append(_text(x, y + below, duration(seconds), theme[who], "middle", 13))
    parts.append(_text(12, bottom + 44, about, theme["faint"], size=13))
    return "\n".join([*parts, "</svg>", ""])


def _place(seconds: float) -> float:
    share = math.log(seconds / SHORTEST) / math.log(LONGEST / SHORTEST)
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _text(
    x: float,
    y: float,
    text: str,
    colour: str,
    anchor: str = "start",
    size: int = 15,
    weight: int = 400,
) -> str:
    options = "" if anchor == "start" else f' text-anchor="{anchor}"'
    options += "" if size == 15 else f' font-size="{size}"'
    options += "" if weight == 400 else f' font-weight="{weight}"'
    return f'<text x="{x}" y="{y}" fill="{colour}"{options}>{text}</text>'


def _mark(name: str, x: float, y: float, theme: Mapping[str, str]) -> str:
    """Return a dot, a square or a diamond."""
    shape = {
        "fastltc": f'<circle cx="{x}" cy="{y}" r="7"',
        "LSTM": f'<path d="M{x - 6} {y - 6}h12v12h-12z"',
        "ncps": f'<path d="M{x} {y - 8}l8 8l-8 8l-8 -8z"',
    }[name]
    return f'{shape} fill="{theme[name]}"/>'


def pictures(data: dict[str, object]) -> dict[str, str]:
    """Return the pictures of a run by the names of their files."""
    machine: dict[str, object] = data["machine_info"]  # type: ignore[assignment]
    about = (
        f"Forward and backward, {machine['threads']} threads of {machine['processor']} "
        f"({machine['instruction_set']}), float32; LSTMs with as many units. Medians of "
        "interleaved rounds."
    )
    rows = read_rows(data)
    return {f"speed-{name}.svg": draw(rows, theme, about) for name, theme in THEMES.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("result", type=Path, help="JSON of pytest-benchmark")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args(arguments)
    data = json.loads(options.result.read_text(encoding="utf-8"))
    if data["machine_info"]["quick"]:
        print(f"{options.result}: of the quick mode, which measures nothing", file=sys.stderr)
        return 1
    for name, text in pictures(data).items():
        (options.folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
