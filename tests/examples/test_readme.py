"""The README's code runs, and its pictures, pages and lines are what a reader needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from ncps.torch import LTC
from ncps.wirings import AutoNCP

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    output, hn = names["output"], names["hn"]
    assert output.shape == (128, 32, 2)  # type: ignore[attr-defined]
    assert hn.shape == (128, 19)  # type: ignore[attr-defined]
    LTC(16, AutoNCP(19, 2)).load_state_dict(torch.load(tmp_path / "layer.pt"))


def test_links_lead_to_files() -> None:
    links = re.findall(r'\]\(([^)#]+)|(?:src|srcset)="([^"]+)"', README)
    files = [link for pair in links for link in pair if link and "://" not in link]
    assert len(files) > 10
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_fits_a_terminal_and_two_screens() -> None:
    lines = README.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert len(lines) <= 120
