"""Values and forecasts on the command line, from a CSV file to answers."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fastltc.cli.main import main
from job_support import leave_out_pictures

OPTIONS = ["--epochs", "1", "--units", "8", "--threads", "1", "--window", "8"]


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def tank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A level that follows a pump."""
    leave_out_pictures(monkeypatch)
    rng = np.random.default_rng(0)
    with open(tmp_path / "tank.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["time", "pump", "level"])
        level = 50.0
        for row in range(240):
            pump = np.sin(row / 9)
            level += pump + 0.1 * rng.normal()
            rows.writerow([60 * row, f"{pump:.4f}", f"{level:.4f}"])
    return tmp_path / "tank.csv"


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_values_of_every_row(tank: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    printed = invoke(
        "train", f"csv:{tank}", "--target", "level", "--task", "regression", "--out", run, *OPTIONS
    ).output
    assert "regression of level" in printed
    assert "MAE" in printed
    printed = invoke("evaluate", run, "--resamples", "20").output
    assert "MAE" in printed
    assert "AUC" not in printed
    rows = table(invoke("predict", run, tank).stdout)
    assert len(rows) == 240
    assert set(rows[0]) == {"file", "time", "level"}
    assert float(rows[1]["time"]) == 60
    found = json.loads(invoke("predict", run, tank, "--json").stdout)
    assert found[3]["values"]["level"] == pytest.approx(float(rows[3]["level"]), rel=1e-6)
    printed = invoke("compare", run, run).output
    assert "mae" in printed
    assert "auc" not in printed
    out = tmp_path / "model.safetensors"
    assert invoke("export", run, "-o", out, "--c", tmp_path / "c").exit_code == 0
    assert '{"level"}' in (tmp_path / "c" / "model.h").read_text()


def test_forecasts_with_quantiles(tank: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--target", "level", "--horizon", "3", "--quantiles", "0.1,0.9", *OPTIONS]
    printed = invoke("train", f"csv:{tank}", "--out", run, "--quiet", *options).output
    assert "between the outer quantiles" in printed
    rows = table(invoke("predict", run, tank).stdout)
    # One unit of time after another, behind the last row.
    assert [float(row["time"]) for row in rows] == [60 * step for step in (240, 241, 242)]
    low, high = (f"quantile {share} of level" for share in (0.1, 0.9))
    assert all(float(row[low]) <= float(row[high]) for row in rows)


def test_another_task_than_that_of_the_data(tank: Path, tmp_path: Path) -> None:
    arguments = ["train", f"csv:{tank}", "--target", "level", "--task", "forecasting"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "run"), *OPTIONS])
    assert result.exit_code == 1
    assert "task: expected regression" in result.output
    assert not (tmp_path / "run").exists()
