from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastltc.jobs import ConfigError, TrainConfig
from fastltc.jobs.config import MODEL_OPTIONS
from fastltc.jobs.data import DataError
from fastltc.jobs.models import MODELS


def test_the_saved_configuration_is_the_same_one() -> None:
    config = TrainConfig.for_data("breastmnist", data_root="somewhere", seed=3, lr=5e-4)
    saved = json.loads(json.dumps(config.to_dict()))
    assert TrainConfig.from_dict(saved) == config


def test_a_data_set_brings_its_defaults_and_options_win() -> None:
    assert TrainConfig.for_data("breastmnist").units == 19
    assert TrainConfig.for_data("breastmnist", units=25, lr=None).units == 25
    assert TrainConfig.for_data("digits").units >= 13


def test_an_unknown_data_set() -> None:
    with pytest.raises(DataError, match="unknown data set 'mnits'; known: digits, mnist,"):
        TrainConfig.for_data("mnits")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("epochs", 0, "epochs: expected at least 1, got 0"),
        ("batch_size", -1, "batch_size: expected at least 1, got -1"),
        ("units", 2.5, "units: expected int, got 2.5"),
        ("units", True, "units: expected int, got True"),
        ("threads", 0, "threads: expected at least 1, got 0"),
        ("lr", 0.0, "lr: expected a finite number above 0, got 0.0"),
        ("lr", float("nan"), "lr: expected a finite number above 0, got nan"),
        ("gain", float("inf"), "gain: expected a finite number above 0, got inf"),
        ("seed", -1, r"seed: expected 0 to 2\*\*32 - 1, got -1"),
        ("select", "f2", "select: expected one of loss, auc, accuracy, .*, got 'f2'"),
        ("image_size", 0, "image_size: expected at least 1, got 0"),
        ("channels", 4, "channels: expected 1 .grey. or 3 .colour., got 4"),
        ("time_unit", 0.0, "time_unit: expected seconds above 0, got 0.0"),
        ("data", None, "data: expected str, got None"),
        ("epoch", 3, "unknown configuration: epoch"),
    ],
)
def test_impossible_values(option: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_dict({**TrainConfig().to_dict(), option: value})


def test_the_options_of_all_models_are_options_of_training() -> None:
    models = {name for entry in MODELS.values() for name in entry.options}
    assert {*models, "members", "sigmoid_precision"} == {*MODEL_OPTIONS}


def test_the_table_of_options_is_that_of_the_declarations() -> None:
    tool = Path(__file__).parents[2] / "tools" / "option_table.py"
    assert subprocess.run([sys.executable, tool, "--check"], check=False).returncode == 0
