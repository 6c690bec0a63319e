"""What the tests of data, training and the command line share."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastltc.jobs import TrainConfig, plots
from fastltc.jobs.data import SPLITS, medmnist

# Functions of fastltc.jobs.plots that training and evaluation call.
PLOTS = (
    *("training_curve", "training_curves", "wiring_diagram", "wiring_graph", "montage"),
    *("confusion_matrix", "truth_over_time", "truth_and_answers", "residuals", "error_by_step"),
    *("wrong_images", "wrong_series"),
)

# Small and quick, but a full run: every part of the training is passed through.
QUICK = {"epochs": 1, "batch_size": 256, "units": 14, "threads": 1}

# Quicker still, for what does not depend on the model.
DENSE = {"model": "dense", "epochs": 2, "batch_size": 256, "threads": 1, "lr": 1e-3}


def dense(**changes: Any) -> TrainConfig:
    """A configuration for the digits: `DENSE` and changes."""
    return TrainConfig.for_data("digits", **{**DENSE, **changes})


def leave_out_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than an epoch; one test is enough to see that they are there."""
    for name in PLOTS:
        monkeypatch.setattr(plots, name, lambda *arguments, **options: b"")


def write_medmnist(path: Path, **changes: np.ndarray | None) -> Path:
    """Writes a file like breastmnist.npz: label 0 is dark, label 1 bright.

    Args:
        path: the file to write.
        changes: arrays that replace those of the same name; None leaves one out.
    """
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray | None] = {}
    for name, size in zip(SPLITS, medmnist.RECORDS["breastmnist"].sizes, strict=True):
        labels = (np.arange(size) % 4 > 0).astype(np.uint8)
        images = rng.integers(0, 120, (size, 28, 28)) + 100 * labels[:, None, None]
        arrays[f"{name}_images"] = images.astype(np.uint8)
        arrays[f"{name}_labels"] = labels[:, None]
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def publish(monkeypatch: pytest.MonkeyPatch, path: Path, url: str | None = None) -> None:
    """Makes the checksum of ``path`` the published one of breastmnist (and ``url`` its address)."""
    record = medmnist.RECORDS["breastmnist"]
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    changed = dataclasses.replace(
        record, md5=md5, sha256=None, url=record.url if url is None else url
    )
    monkeypatch.setitem(medmnist.RECORDS, "breastmnist", changed)


def real_data(name: str) -> Path:
    """A real data file, or a skip with the reason where this checkout has none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FASTLTC_TEST_DATA", beside))
    if not (folder / name).exists():
        pytest.skip(f"no {name}: set FASTLTC_TEST_DATA to the folder that has it")
    return folder / name


def write_images(folder: Path, classes: dict[str, int], side: int = 8, mode: str = "L") -> None:
    """Writes PNG files ``folder/CLASS/INDEX.png``, all different, later classes brighter."""
    rng = np.random.default_rng([*folder.name.encode()])
    for level, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = rng.integers(0, 120, (side, side)) + 100 * level
            image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
            image.save(folder / name / f"{index}.png")
