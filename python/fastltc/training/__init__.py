"""Training, evaluation and prediction around a run folder."""

from __future__ import annotations

from .compare import compare, summarise, train_seeds
from .config import TrainConfig, read_toml
from .errors import ConfigError, DeviceError, DivergedError, RunError
from .evaluate import Prediction, RowPrediction, evaluate, predict, predict_series
from .loop import Progress, train
from .metrics import classification_metrics
from .recipes import describe_recipes, read_recipe, recipe_names
from .run import Checkpoint, Run

__all__ = [
    "Checkpoint",
    "ConfigError",
    "DeviceError",
    "DivergedError",
    "Prediction",
    "Progress",
    "RowPrediction",
    "Run",
    "RunError",
    "TrainConfig",
    "classification_metrics",
    "compare",
    "describe_recipes",
    "evaluate",
    "predict",
    "predict_series",
    "read_recipe",
    "read_toml",
    "recipe_names",
    "summarise",
    "train",
    "train_seeds",
]
