"""The options that a search tries, and between what: a small table in TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import OPTIONS, TrainConfig, load_toml
from ..errors import ConfigError
from ..models import find_model
from ..options import options_of
from ..reading import ReadingOptions

# What would search the data, the judging or the machine.
_FIXED = (
    *("data", "data_root", "model", "select", "task", "loss", "huber_delta", "quantiles"),
    "error_unit",
    *("positive", "ordered", "device", "threads", "seed", "tensorboard"),
    *options_of(ReadingOptions),
)
_KEYS = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class Choice:
    """What an option may be: one of some values, or a number of a range.

    Args:
        values: to choose from; empty for a range.
        low: the least number.
        high: the largest.
        log: numbers are drawn alike per power of ten.
        step: from one number to the next; None for any.
    """

    values: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None

    def draw(self, trial: Any, name: str) -> Any:
        """A value, suggested by a trial of Optuna."""
        if self.values:
            return trial.suggest_categorical(name, self.values)
        if OPTIONS[name].declared == "int":
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(name, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def to_plain(self) -> Any:
        """As in TOML."""
        if self.values:
            return list(self.values)
        rest = {"log": True} if self.log else {} if self.step is None else {"step": self.step}
        return {"low": self.low, "high": self.high, **rest}


# Where a table names none: what moves most networks most. An option that the model does not have
# is left out.
_DEFAULT: dict[str, Choice] = {
    "lr": Choice(low=3e-4, high=3e-2, log=True),
    "batch_size": Choice((16, 32, 64, 128)),
    "units": Choice(low=16, high=128, log=True),
    "wiring": Choice(("full", "random")),
    "encoder": Choice((0, 16, 32)),
    "weight_decay": Choice(low=1e-6, high=1e-2, log=True),
}


def default_space(config: TrainConfig) -> dict[str, Choice]:
    """What is searched for a configuration where nobody says it."""
    assert config.model is not None
    takes = find_model(config.model).options
    of_training = ("lr", "batch_size", "weight_decay")
    return {name: one for name, one in _DEFAULT.items() if name in of_training or name in takes}


def read_space(path: Path) -> dict[str, Choice]:
    """The table in a file: ``lr = {low = 1e-4, high = 1e-2, log = true}``, ``units = [16, 32]``.

    Raises:
        ConfigError: the file is missing or damaged, or a line is not such a range or list of values
            that the option can have; the text names it.
    """
    values = load_toml(path)
    if not values:
        raise ConfigError(f"{path}: expected options to search, as units = [16, 32], got none")
    return {name: _choice(path, name, value) for name, value in values.items()}


def _choice(path: Path, name: str, value: Any) -> Choice:
    if name not in OPTIONS or name in _FIXED:
        what = "is no option" if name not in OPTIONS else "is not searched"
        raise ConfigError(f"{path}: {name} {what}; expected an option of training or of the model")
    made = _made(value, OPTIONS[name].declared)
    if made is None:
        raise ConfigError(
            f"{path}: {name}: expected a list of values or {{low = ..., high = ...}} with log or "
            f"step, got {value!r}"
        )
    for one in made.values or (made.low, made.high):
        try:
            OPTIONS[name].check(one, ConfigError)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    return made


def _made(value: Any, declared: str) -> Choice | None:
    if isinstance(value, list):
        return Choice(tuple(value)) if value else None
    if not isinstance(value, Mapping) or not {"low", "high"} <= set(value) <= _KEYS:
        return None
    found = Choice(**value)
    number = int if declared == "int" else (int, float)
    bounds = [found.low, found.high, *([] if found.step is None else [found.step])]
    if declared not in ("int", "float") or type(found.log) is not bool:
        return None
    if any(not isinstance(one, number) or isinstance(one, bool) for one in bounds):
        return None
    fits = found.low < found.high and (found.step is None or (found.step > 0 and not found.log))
    return found if fits and (found.low > 0 or not found.log) else None
