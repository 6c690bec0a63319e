"""The model card that training leaves in a run folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastltc.jobs import Run, TrainConfig, train
from fastltc.jobs.run import CARD_MARK, Checkpoint
from fastltc.jobs.training.card import model_card
from job_support import dense

pytestmark = pytest.mark.usefixtures("no_pictures")


def parts(card: str) -> tuple[dict[str, Any], str]:
    """The metadata, and the text."""
    _, head, text = card.split("---\n", 2)
    lines = (line.split(": ", 1) for line in head.splitlines() if not line.startswith("#"))
    return {name: json.loads(value) for name, value in lines}, text


def run_its_code(text: str, run: Run, capsys: pytest.CaptureFixture[str]) -> str:
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    exec(code.replace("FOLDER", str(run.path)), {})
    return capsys.readouterr().out


def made_card(
    shape: tuple[int, ...], data: str, test: dict[str, Any] | None, **changes: Any
) -> str:
    scores = dict.fromkeys(("accuracy", "f1_macro", "loss"), 0.5)
    scores |= dict.fromkeys(("auc", "f1", "average_precision"))
    metrics = {
        "data": data,
        "images": {"train": 2000, "val": 5, "test": 6},
        "remarks": ["a remark"],
        "trainable_parameters": 1234,
        "best_epoch": 3,
        "epochs": 4,
        "selected_by": "validation loss",
        "best_digest": "0" * 16,
        "val": scores,
        "test": None if test is None else {**scores, **test},
        "seed": 0,
        "threads": 1,
        "device": "cpu",
        "seconds": 12.3,
        "versions": {"fastltc": "0", "torch": "0"},
    }
    given = {"config": TrainConfig(data=data, model="probe"), "positive": None, **changes}
    best = Checkpoint(
        classes=("a|b", "c"), image_shape=shape, epoch=3, val={}, model=torch.nn.ReLU(), **given
    )
    return model_card(metrics, best)


def test_the_card_says_what_the_run_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig.for_data("digits", epochs=1, batch_size=256, threads=1, positive="7")
    run = train(config, tmp_path / "run")
    metrics = run.metrics
    assert "README.md" in metrics["files"]
    described, text = parts((run.path / "README.md").read_text())
    assert described["datasets"] == ["digits"]
    assert described["tags"] == ["fastltc", "conv-ncp", "liquid-neural-networks", "ltc"]
    assert "license" not in described
    test = metrics["test"]
    (result,) = described["model-index"][0]["results"]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "accuracy": round(test["accuracy"], 4),
        "roc_auc": round(test["auc"], 4),
        "f1": round(test["f1"], 4),
    }
    assert f"| F1 of 7 | {metrics['val']['f1']:.4f} | {test['f1']:.4f} |" in text
    assert f"digest {metrics['best_digest']}" in text
    assert "1,257 train, 180 val, 360 test" in text
    assert f"{metrics['trainable_parameters']:,} trainable parameters" in text
    assert "not a medical device" in text
    # The options are those of a file for --config.
    options = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
    assert "batch_size = 256\n" in options
    (tmp_path / "again.toml").write_text(options)
    from fastltc.jobs import read_toml

    assert TrainConfig.for_data("digits", **read_toml(tmp_path / "again.toml")) == run.config
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    assert run_its_code(text, run, capsys)[0].isdecimal()


def test_the_hub_reads_the_metadata() -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the Hub's own reader is not installed")
    card = hub.ModelCard(made_card((1, 8, 8), "digits", {"accuracy": 0.25}))
    (result,) = (one for one in card.data.eval_results if one.metric_type == "accuracy")
    assert (result.dataset_split, result.metric_value) == ("test", 0.25)
    assert card.data.library_name == "fastltc"
    assert card.data.license is None


def test_the_code_of_a_card_of_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(60) % 2
    np.savez(
        tmp_path / "v.npz", x=np.random.default_rng(0).random((60, 3)) + labels[:, None], y=labels
    )
    run = train(TrainConfig.for_data(f"npz:{tmp_path / 'v.npz'}", threads=1), tmp_path / "run")
    card = (run.path / "README.md").read_text()
    described, text = parts(card)
    assert "datasets" not in described
    assert described["tags"] == ["fastltc", "probe"]
    # Nothing of the machine's folders.
    assert str(tmp_path) not in card
    assert "# probe on npz:v.npz\n" in text
    assert run_its_code(text, run, capsys) in ("0\n", "1\n")


def test_a_card_of_a_time_series() -> None:
    described, text = parts(made_card((32, 5), "occupancy", {}))
    assert described["pipeline_tag"] == "tabular-classification"
    assert 'predict_series(checkpoint, "rows.csv")' in text


def test_an_interrupted_run_has_no_test_results() -> None:
    described, text = parts(made_card((1, 8, 8), "digits", None, positive=0))
    assert described["model-index"][0]["results"][0]["dataset"]["split"] == "val"
    assert "Training was interrupted: the test split was not judged." in text
    assert "| accuracy | 0.5000 |  |\n" in text


def test_a_name_of_a_class_cannot_break_the_table() -> None:
    card = made_card((1, 8, 8), "digits", {"f1": 0.5}, positive=0)
    assert "| F1 of a\\|b |  | 0.5000 |\n" in card


def test_only_the_card_of_the_run_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(dense(), out)
    card = (out / "README.md").read_text()
    train(dense(seed=1), out, overwrite=True)
    assert (out / "README.md").read_text() != card
    mine = card.replace(CARD_MARK, "license: mit")
    (out / "README.md").write_text(mine)
    run = train(dense(seed=2), out, overwrite=True)
    assert (out / "README.md").read_text() == mine
    assert "README.md" not in run.metrics["files"]
    run.remove()
    assert [path.name for path in out.iterdir()] == ["README.md"]
