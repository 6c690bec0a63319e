"""Everything that decides what a training run does, in one dataclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..data import DataError, DataOptions, find_source
from .errors import ConfigError

SELECT = ("loss", "auc", "accuracy")

# What `TrainConfig.for_data` starts from where a data set wants other values than the dataclass.
_DATA_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {},
    "breastmnist": {"units": 19, "gain": 1.0, "epochs": 50, "batch_size": 128, "lr": 1e-3},
}


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a run; saved in its folder as ``config.json``.

    Args:
        data: name of the data set.
        data_root: folder (or file) of the data set, None for the cache.
        image_size, channels, file_column, label_column, split_column, group_column, time_column,
            window, stride, time_unit, split_seed: how the data is read, see
            `fastltc.data.DataOptions`.
        model: name of the model.
        cell: recurrent cell of the model.
        units: neurons of the wiring.
        gain: factor on the motor neurons' outputs (see `fastltc.models.ConvNCP`).
        wiring_seed: seed of the wiring.
        epochs: passes over the training split.
        batch_size: images per step of the optimizer.
        lr: learning rate of Adam.
        select: validation metric by which the best checkpoint is chosen.
        positive: class (name or number) that F1 is about; None for the data set's own.
        seed: seed of the parameters and of the order of the images.
        threads: CPU threads, None for torch's default.
        device: torch device.
    """

    data: str = "digits"
    data_root: str | None = None
    image_size: int | None = None
    channels: int | None = None
    file_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    time_column: str | None = None
    window: int = 32
    stride: int | None = None
    time_unit: float | None = None
    split_seed: int = 0
    model: str = "conv-ncp"
    cell: str = "ltc"
    units: int = 40
    gain: float = 5.0
    wiring_seed: int = 22222
    epochs: int = 20
    batch_size: int = 64
    lr: float = 3e-3
    select: str = "loss"
    positive: str | None = None
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check_type(field.name, str(field.type))
        for name in ("units", "epochs", "batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}")
        for name in ("lr", "gain"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name}: expected a finite number above 0, got {value}")
        for name in ("seed", "wiring_seed", "split_seed"):
            value = getattr(self, name)
            if not 0 <= value < 2**32:
                raise ConfigError(f"{name}: expected 0 to 2**32 - 1, got {value}")
        try:
            self.data_options()
        except DataError as error:
            raise ConfigError(str(error)) from None
        if self.select not in SELECT:
            raise ConfigError(f"select: expected one of {', '.join(SELECT)}, got {self.select!r}")

    def _check_type(self, name: str, declared: str) -> None:
        value = getattr(self, name)
        allowed: tuple[type, ...] = {
            "str": (str,),
            "int": (int,),
            "float": (int, float),
            "str | None": (str, type(None)),
            "int | None": (int, type(None)),
            "float | None": (int, float, type(None)),
        }[declared]
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise ConfigError(f"{name}: expected {declared}, got {value!r}")

    def data_options(
        self,
        data_root: str | None = None,
        *,
        offline: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> DataOptions:
        """How `fastltc.data.load_data` is to read the data.

        Args:
            data_root: where the data is now; None for where it was.
            offline: never download.
            progress: called with received and total bytes.
        """
        own = {field.name for field in fields(self)}
        named = {
            field.name: getattr(self, field.name)
            for field in fields(DataOptions)
            if field.name in own
        }
        named["data_root"] = self.data_root if data_root is None else data_root
        return DataOptions(**named, offline=offline, progress=progress)

    @classmethod
    def for_data(cls, data: str, **options: Any) -> TrainConfig:
        """The defaults for a data set, with those ``options`` changed that are not None.

        Raises:
            ConfigError: an option is unknown or has an impossible value.
            fastltc.data.DataError: the data set is unknown.
        """
        find_source(data)
        given = {name: value for name, value in options.items() if value is not None}
        return cls.from_dict({"data": data, **_DATA_DEFAULTS.get(data, {}), **given})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The configuration saved by `to_dict`.

        Raises:
            ConfigError: a name is unknown or a value impossible.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(f"unknown configuration: {', '.join(unknown)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return asdict(self)
