"""Training, evaluation and prediction around a run folder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import TrainConfig as TrainConfig
    from .config import read_toml as read_toml
    from .errors import ConfigError as ConfigError
    from .errors import DeviceError as DeviceError
    from .errors import DivergedError as DivergedError
    from .errors import RunError as RunError
    from .evaluation.comparison import compare as compare
    from .evaluation.comparison import summarise as summarise
    from .evaluation.evaluate import evaluate as evaluate
    from .evaluation.metrics import classification_metrics as classification_metrics
    from .evaluation.predict import Prediction as Prediction
    from .evaluation.predict import RowPrediction as RowPrediction
    from .evaluation.predict import draw_rows as draw_rows
    from .evaluation.predict import predict as predict
    from .evaluation.predict import predict_series as predict_series
    from .recipes import describe_recipes as describe_recipes
    from .recipes import read_recipe as read_recipe
    from .recipes import recipe_names as recipe_names
    from .run import Checkpoint as Checkpoint
    from .run import Run as Run
    from .training.loop import Progress as Progress
    from .training.loop import train as train
    from .training.seeds import train_seeds as train_seeds
    from .tuning.space import Choice as Choice
    from .tuning.space import read_space as read_space
    from .tuning.study import tune as tune

# Imported at first use, so that a command that only prints a recipe or a table of metrics waits for
# neither torch nor matplotlib. No module is called as one of these: importing it would hide them.
_MODULES = {
    "config": ("TrainConfig", "read_toml"),
    "errors": ("ConfigError", "DeviceError", "DivergedError", "RunError"),
    "evaluation.comparison": ("compare", "summarise"),
    "evaluation.evaluate": ("evaluate",),
    "evaluation.metrics": ("classification_metrics",),
    "evaluation.predict": (
        *("Prediction", "RowPrediction"),
        *("draw_rows", "predict", "predict_series"),
    ),
    "recipes": ("describe_recipes", "read_recipe", "recipe_names"),
    "run": ("Checkpoint", "Run"),
    "training.loop": ("Progress", "train"),
    "training.seeds": ("train_seeds",),
    "tuning.space": ("Choice", "read_space"),
    "tuning.study": ("tune",),
}
_EXPORTS = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
