"""Several labels per image, as ChestMNIST has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import log_loss, roc_auc_score

from fastltc.cli.main import main
from fastltc.jobs import ConfigError, TrainConfig, evaluate, predict, train
from fastltc.jobs.data import load_data, medmnist
from fastltc.jobs.evaluation.metrics import classification_metrics, quick_metrics
from fastltc.jobs.training.objective import Objective

NAMES = ("atelectasis", "mass", "hernia")


@pytest.fixture
def chest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file like chestmnist.npz: each label brightens a third of the image."""
    import hashlib

    rng = np.random.default_rng(0)
    arrays = {}
    sizes = (300, 60, 90)
    for split, size in zip(("train", "val", "test"), sizes, strict=True):
        labels = (rng.random((size, 3)) < [0.5, 0.3, 0.2]).astype(np.uint8)
        images = rng.integers(0, 100, (size, 28, 28))
        for label, rows in enumerate((slice(0, 9), slice(9, 18), slice(18, 28))):
            images[:, rows] += 120 * labels[:, label, None, None]
        arrays[f"{split}_images"] = images.astype(np.uint8)
        arrays[f"{split}_labels"] = labels
    path = tmp_path / "chestmnist.npz"
    np.savez(path, **arrays)
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    record = medmnist.Record(
        "chestmnist", "https://example.org", md5, None, NAMES, 1, sizes, None, (), multilabel=True
    )
    monkeypatch.setitem(medmnist.RECORDS, "chestmnist", record)
    return path


def config(path: Path, **changes: Any) -> TrainConfig:
    options = {"epochs": 6, "threads": 1, "lr": 1e-3, "model": "dense", **changes}
    return TrainConfig.for_data("chestmnist", data_root=str(path), **options)


def test_labels_are_learned_and_evaluated(chest: Path, tmp_path: Path) -> None:
    run = train(config(chest), tmp_path / "run")
    assert run.metrics["test"]["auc"] > 0.95
    assert run.metrics["test"]["accuracy"] > 0.85
    assert not (run.path / "confusion-test.png").exists()
    result = evaluate(run, "test", positive="mass", resamples=50)
    assert result["positive_class"]["name"] == "mass"
    assert result["intervals"]["auc"][0] <= result["auc"] <= result["intervals"]["auc"][1]
    assert (run.path / "roc-test.png").is_file()
    data = load_data("chestmnist", chest).splits["test"]
    for index in range(3):
        Image.fromarray(data.inputs[index, 0]).save(tmp_path / f"{index}.png")
    found = predict(run.load_checkpoint(), [tmp_path / "0.png", tmp_path / "1.png"])
    line = (run.path / "predictions-test.csv").read_text().splitlines()[1].split(",")
    assert line[2] == found[0].name
    assert float(line[3]) == pytest.approx(found[0].probabilities["atelectasis"], abs=1e-4)
    printed = CliRunner().invoke(main, ["evaluate", str(run.path), "--resamples", "0"])
    assert printed.exit_code == 0, printed.output
    printed = CliRunner().invoke(main, ["predict", str(run.path), str(tmp_path / "0.png")])
    assert "atelectasis" in printed.output


def test_a_liquid_model_learns_labels_too(chest: Path, tmp_path: Path) -> None:
    run = train(config(chest, model="conv-ncp", epochs=3), tmp_path / "run")
    assert run.metrics["test"]["auc"] > 0.6


def test_closed_forms_are_refused(chest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model: reservoir knows no several labels"):
        train(config(chest, model="reservoir"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_metrics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < 0.4).astype(np.int64)
    scores = np.clip(0.3 * labels + 0.7 * rng.random((200, 3)), 0.01, 0.99)
    found = classification_metrics(labels, scores, NAMES, 1)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores, average="macro"))
    losses = [log_loss(labels[:, k], scores[:, k]) for k in range(3)]
    assert found["loss"] == pytest.approx(np.mean(losses))
    scores[:40, 1] = 0.5  # which is a yes
    found = classification_metrics(labels, scores, NAMES, 1)
    quick = quick_metrics(labels, scores, 1)
    for name in ("auc", "accuracy", "f1", "average_precision"):
        assert quick[name] == pytest.approx(found[name]), name


@pytest.mark.parametrize(("balance", "expected"), [(0.5, (0.5, 1.0)), (1.0, (0.25, 1.0))])
def test_weights_of_classes_are_a_power_of_their_inverse_frequency(
    balance: float, expected: tuple[float, float]
) -> None:
    labels = torch.tensor([0] * 80 + [1] * 20)
    weights = Objective(labels, 2, balance=balance).weights
    assert weights is not None
    torch.testing.assert_close(weights / weights[1], torch.tensor(expected))


def test_balanced_weights_make_both_sides_count_alike() -> None:
    labels = torch.tensor([[1, 0]] * 2 + [[0, 0]] * 6 + [[0, 1]] * 2)
    objective = Objective(labels, 2, multilabel=True, balance=1.0)
    assert objective.weights is not None
    assert objective.weights.tolist() == [4.0, 4.0]
