"""Names of classes and files that a spreadsheet would run or a terminal obey."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from cli_support import fails, invoke
from fastltc.cli.options import visible
from fastltc.jobs import Run, TrainConfig, evaluate, train
from fastltc.jobs.data.tables import format_table, read_table
from job_support import DENSE, leave_out_pictures, write_images

FORMULA = '=HYPERLINK("http:example.org","x")'
CLEAR = "\x1b[2J\x1b]0;title\x07"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    leave_out_pictures(monkeypatch)
    write_images(tmp_path / "photos", {FORMULA: 20, f"b{CLEAR}": 20})
    config = TrainConfig.for_data(f"folder:{tmp_path / 'photos'}", **{**DENSE, "epochs": 1})
    return train(config, tmp_path / "run")


def test_tables_hold_no_formulas(run: Run) -> None:
    evaluate(run, resamples=0)
    with open(run.path / "predictions-test.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert f"'{FORMULA}" in rows[0]
    cells = [cell for row in rows for cell in row]
    assert not any(cell.startswith(tuple("=+-@\t\r")) for cell in cells)


def test_terminals_get_no_commands(run: Run) -> None:
    photos = run.path.parent / "photos"
    bad = photos / f"b{CLEAR}" / "0.png"
    for result in (
        invoke("evaluate", run.path, "--resamples", 0),
        invoke("predict", run.path, bad, photos / FORMULA / "0.png"),
        invoke(
            "train",
            f"folder:{photos}",
            "--model",
            "dense",
            "--epochs",
            1,
            "--out",
            run.path.parent / "other",
        ),
        invoke("split", f"folder:{photos}", "--out", run.path.parent / "split"),
    ):
        assert result.exit_code == 0, result.output
        assert "\x1b" not in result.output
        assert "\x07" not in result.output
    assert r"b\x1b[2J\x1b]0;title\x07" in result.output
    bad.write_bytes(b"")
    fails(invoke("predict", run.path, bad), r"\x1b[2J")
    assert "\x1b" not in invoke("predict", run.path, bad).output


def test_names_in_tables_are_read_as_they_were_written(tmp_path: Path) -> None:
    names = [
        FORMULA,
        "+a",
        "-b",
        "@c",
        "\tx",
        "'=d",
        "''-e",
        "'f",
        "-1",
        "+2.5",
        "-1e-3",
        "=",
        "＝g",  # noqa: RUF001
    ]
    path = tmp_path / "a.csv"
    path.write_bytes(format_table(["filename", "=label"], [[name, "1"] for name in names]))
    with open(path, newline="", encoding="utf-8") as file:
        cells = [row[0] for row in csv.reader(file)][1:]
    assert cells[:5] == [f"'{name}" for name in names[:5]]
    # Numbers stay numbers.
    assert cells[8:11] == ["-1", "+2.5", "-1e-3"]
    table = read_table(path)
    assert table.columns == ("filename", "=label")
    assert table.column(0) == names


def test_visible() -> None:
    assert visible("a\tb\nçé 猫") == "a\tb\nçé 猫"
    assert visible("\x1b\x9b\x00\r\x7f") == r"\x1b\x9b\x00\x0d\x7f"
    assert visible("a\u202egnp.exe") == r"a\u202egnp.exe"
    assert visible("\udcff") == r"\udcff"
