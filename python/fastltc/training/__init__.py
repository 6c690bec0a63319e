"""Training, evaluation and prediction around a run folder."""

from __future__ import annotations

from .config import TrainConfig
from .errors import ConfigError, DeviceError, DivergedError, RunError
from .evaluate import Prediction, evaluate, predict
from .loop import Progress, train
from .metrics import classification_metrics
from .run import Checkpoint, Run

__all__ = [
    "Checkpoint",
    "ConfigError",
    "DeviceError",
    "DivergedError",
    "Prediction",
    "Progress",
    "Run",
    "RunError",
    "TrainConfig",
    "classification_metrics",
    "evaluate",
    "predict",
    "train",
]
