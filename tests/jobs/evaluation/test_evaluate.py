from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastltc.jobs import (
    ConfigError,
    DivergedError,
    Run,
    RunError,
    TrainConfig,
    evaluate,
    predict,
    train,
)
from fastltc.jobs.data import DataError, load_data
from job_support import QUICK, publish, write_medmnist


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluate") / "run"
    train(TrainConfig.for_data("digits", **{**QUICK, "epochs": 2}), path)
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(trained, tmp_path / "run"))


def test_writes_the_metrics_and_the_picture(run: Run) -> None:
    result = evaluate(run, "val", positive="7")
    assert json.loads((run.path / "evaluation-val.json").read_text()) == result
    with Image.open(run.path / "confusion-val.png") as image:
        assert image.format == "PNG"
    assert (result["data"], result["split"], result["n"]) == ("digits", "val", 180)
    assert result["positive_class"] == {"label": 7, "name": "7"}
    assert result["f1"] == result["per_class"][7]["f1"]


def test_another_folder_for_the_results(run: Run, tmp_path: Path) -> None:
    before = sorted(run.path.iterdir())
    evaluate(run, "train", out=tmp_path / "elsewhere" / "deep")
    assert sorted(run.path.iterdir()) == before
    names = sorted(path.name for path in (tmp_path / "elsewhere" / "deep").iterdir())
    pictures = ["confusion-train.png", "wrong-train.png"]
    assert names == sorted([*pictures, "evaluation-train.json", "predictions-train.csv"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "split: expected one of train, val, test, got 'dev'"),
        ({"positive": "zero"}, "positive: no class 'zero'"),
        ({"device": "tpu"}, "device: 'tpu' cannot be used here"),
    ],
)
def test_bad_options(run: Run, options: dict[str, Any], message: str) -> None:
    before = sorted(run.path.iterdir())
    with pytest.raises(ConfigError, match=message):
        evaluate(run, **options)
    assert sorted(run.path.iterdir()) == before


def test_a_checkpoint_with_nan_weights(run: Run) -> None:
    path = run.path / "best.pt"
    content = torch.load(path, weights_only=True)
    content["model"]["rnn.rnn_cell.output_b"].fill_(float("nan"))
    torch.save(content, path)
    with pytest.raises(DivergedError, match="the model's output is infinite or NaN"):
        evaluate(run)


def test_the_data_may_have_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLTC_CACHE", str(tmp_path / "cache"))
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    publish(monkeypatch, write_medmnist(old / "breastmnist.npz"))
    config = TrainConfig.for_data("breastmnist", data_root=str(old), epochs=1, threads=1)
    run = train(config, tmp_path / "run")
    old.rename(new)
    with pytest.raises(DataError, match=r"data root .*old does not exist"):
        evaluate(run)
    assert evaluate(run, data_root=str(new))["n"] == 156


def test_data_of_another_kind(run: Run) -> None:
    path = run.path / "best.pt"
    content = torch.load(path, weights_only=True)
    content["classes"] = [f"digit {index}" for index in range(10)]
    torch.save(content, path)
    with pytest.raises(RunError, match="trained for 10 classes"):
        evaluate(run)


def test_predictions_on_files_are_those_on_the_data(run: Run, tmp_path: Path) -> None:
    split = load_data("digits").splits["test"]
    paths = []
    for index in range(30):
        # 0..16 as 0..255 and back is within half a grey level.
        pixels = (split.inputs[index, 0] * 255).round().astype(np.uint8)
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    checkpoint = run.load_checkpoint()
    found = predict(checkpoint, paths)
    assert [prediction.image.path for prediction in found] == paths
    with torch.no_grad():
        logits = checkpoint.model(torch.from_numpy(split.inputs[:30] * 2 - 1))
    expected = logits.double().softmax(dim=1).numpy()
    scores = [list(prediction.probabilities.values()) for prediction in found]
    np.testing.assert_allclose(scores, expected, atol=0.02)
    for prediction in found:
        assert prediction.name == str(prediction.label)
        assert prediction.probabilities[prediction.name] == max(prediction.probabilities.values())
        assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_no_files_no_predictions(run: Run) -> None:
    assert predict(run.load_checkpoint(), []) == []


def test_a_corrupt_image_is_named(run: Run, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with pytest.raises(DataError, match=r"bad.png: "):
        predict(run.load_checkpoint(), [tmp_path / "good.png", tmp_path / "bad.png"])
