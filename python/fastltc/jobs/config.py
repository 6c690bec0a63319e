"""Everything that decides what a training run does, in one dataclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from .data import DataOptions, find_source
from .errors import ConfigError

SELECT = ("loss", "auc", "accuracy", "f1", "f1_macro", "average_precision", "last")
OPTIMIZERS = ("adam", "adamw", "nadam")
SCHEDULES = ("constant", "cosine", "plateau")
# The power of the inverse frequency that each is.
CLASS_WEIGHTS = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}
AMP = ("none", "bf16", "fp16")

# Options that may differ when a run is resumed.
RESUMABLE = ("epochs", "threads", "device", "data_root")

# What `TrainConfig.for_data` starts from where a data set wants other values than the dataclass;
# the second for its usual model only.
_DATA_DEFAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "digits": ({}, {"units": 40, "gain": 5.0}),
    "breastmnist": (
        {"epochs": 50, "batch_size": 128, "lr": 1e-3},
        {"units": 19, "gain": 1.0},
    ),
}

# What training by gradients alone uses. The crop is not among it: a model in closed form is fitted
# on the middle square.
GRADIENT_OPTIONS = (
    "epochs",
    "batch_size",
    "accumulate",
    "optimizer",
    "lr",
    "weight_decay",
    "schedule",
    "warmup",
    "plateau_factor",
    "plateau_patience",
    "patience",
    "clip_norm",
    "class_weights",
    "label_smoothing",
    "amp",
    "augment_scale",
    "augment_shift",
    "augment_rotate",
    "augment_shear",
    "augment_affine_p",
    "augment_flip",
    "augment_colour",
    "augment_colour_p",
    "augment_brightness",
    "augment_contrast",
    "augment_light_p",
    "select",
)


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a run; saved in its folder as ``config.json``.

    A TOML file and the command line have the same names (``batch_size`` and ``--batch-size``).

    Args:
        data: name of the data set.
        data_root: folder (or file) of the data set, None for the cache.
        image_size, channels, file_column, label_column, split_column, group_column, time_column,
            window, stride, time_unit, split_seed: how the data is read, see
            `fastltc.jobs.data.DataOptions`.
        model: name of the model; None for the usual one for that kind of data.
        cell, units, gain, wiring, sparsity, timestep, encoder, wiring_seed, mixed_memory,
            spectral_radius, leak, input_scale, reads, probe, c, backbone, pretrained, head: options
            of the model, see its class; None for its default.
        members: how many such models are trained and asked together; None for one.
        weights: file with a state dict that the model starts from.
        epochs: passes over the training split.
        batch_size: examples per step of the optimizer, over all processes.
        accumulate: parts that a batch is computed in, one after the other, to save memory.
        optimizer: ``adam``, ``adamw`` or ``nadam``.
        lr: its learning rate, after the warm-up.
        weight_decay: its weight decay.
        schedule: ``constant``; ``cosine`` to zero, per step; ``plateau``, which multiplies the rate
            by ``plateau_factor`` after ``plateau_patience`` epochs without a smaller validation
            loss.
        warmup: epochs in which the rate rises linearly, per step.
        plateau_factor, plateau_patience: of the plateau schedule.
        patience: epochs without a better ``select`` metric after which training stops; None never.
        clip_norm: largest norm of the gradient; None for no limit.
        class_weights: ``balanced`` weighs the loss by the inverse frequency of the classes,
            ``sqrt`` by its square root.
        label_smoothing: share of the target that goes to all classes alike, for example 0.1.
        amp: mixed precision, ``bf16`` or ``fp16``.
        augment_scale: largest relative change of size, for example 0.1.
        augment_shift: largest shift, as a share of the side.
        augment_rotate: largest rotation, degrees.
        augment_shear: largest shear, degrees.
        augment_affine_p: probability with which an image is scaled, shifted, rotated and sheared.
        augment_flip: mirror left and right, with probability 0.5.
        augment_crop: side of a random square of the image; the middle one in evaluation.
        augment_colour: largest shift of each colour, of 1.
        augment_colour_p: probability of it.
        augment_brightness, augment_contrast: largest relative change.
        augment_light_p: probability of both.
        mirror: answer with the mean over an image and its mirror image, in evaluation and
            prediction; where classes do not tell left from right.
        select: validation metric by which the best checkpoint is chosen; ``last`` for the last
            epoch, whatever it is like: with few validation images and a schedule that ends at a
            rate of 0 the better choice.
        positive: class (name or number) that F1 is about; None for the data set's own.
        seed: seed of the parameters, the order of the examples and the augmentation.
        threads: CPU threads, None for torch's default.
        device: torch device.
        tensorboard: write a TensorBoard log into the run folder.
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
    model: str | None = None
    cell: str | None = None
    units: int | None = None
    gain: float | None = None
    wiring: str | None = None
    sparsity: float | None = None
    timestep: float | None = None
    encoder: int | None = None
    wiring_seed: int | None = None
    mixed_memory: bool | None = None
    spectral_radius: float | None = None
    leak: float | None = None
    input_scale: float | None = None
    reads: int | None = None
    probe: str | None = None
    c: float | None = None
    backbone: str | None = None
    pretrained: bool | None = None
    head: str | None = None
    members: int | None = None
    weights: str | None = None
    epochs: int = 20
    batch_size: int = 64
    accumulate: int = 1
    optimizer: str = "adam"
    lr: float = 3e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    plateau_factor: float = 0.1
    plateau_patience: int = 5
    patience: int | None = None
    clip_norm: float | None = None
    class_weights: str = "none"
    label_smoothing: float = 0.0
    amp: str = "none"
    augment_scale: float = 0.0
    augment_shift: float = 0.0
    augment_rotate: float = 0.0
    augment_shear: float = 0.0
    augment_affine_p: float = 1.0
    augment_flip: bool = False
    augment_crop: int | None = None
    augment_colour: float = 0.0
    augment_colour_p: float = 1.0
    augment_brightness: float = 0.0
    augment_contrast: float = 0.0
    augment_light_p: float = 1.0
    mirror: bool = False
    select: str = "loss"
    positive: str | None = None
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check_type(field.name, str(field.type))
        for name in ("units", "members", "epochs", "batch_size", "accumulate", "patience"):
            self._check(name, lambda value: value >= 1, "at least 1")
        for name in ("threads", "plateau_patience", "augment_crop"):
            self._check(name, lambda value: value >= 1, "at least 1")
        for name in ("lr", "gain", "clip_norm"):
            self._check(name, lambda value: 0 < value < float("inf"), "a finite number above 0")
        for name in ("weight_decay", "warmup", "augment_rotate"):
            self._check(name, lambda value: 0 <= value < float("inf"), "a finite number from 0")
        self._check("label_smoothing", lambda value: 0 <= value < 1, "a number from 0 below 1")
        for name in ("scale", "shift", "colour", "brightness", "contrast"):
            self._check(f"augment_{name}", lambda value: 0 <= value < 1, "a number from 0 below 1")
        for name in ("affine_p", "colour_p", "light_p"):
            self._check(f"augment_{name}", lambda value: 0 <= value <= 1, "a number from 0 to 1")
        self._check("augment_shear", lambda value: 0 <= value < 90, "a number from 0 below 90")
        self._check("plateau_factor", lambda value: 0 < value < 1, "a number between 0 and 1")
        for name in ("seed", "wiring_seed", "split_seed"):
            self._check(name, lambda value: 0 <= value < 2**32, "0 to 2**32 - 1")
        for name, known in (
            ("select", SELECT),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("class_weights", CLASS_WEIGHTS),
            ("amp", AMP),
        ):
            self._check(name, known.__contains__, f"one of {', '.join(known)}")
        if self.select == "last" and self.patience is not None:
            raise ConfigError(
                "patience: select = last takes the last epoch, so that none is better; leave one "
                "of the two out"
            )
        try:
            self.data_options()
            if self.model is not None:
                # Late, as below: models need torch, and a recipe that is printed does not.
                from .models import find_model

                find_model(self.model)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def _check(self, name: str, holds: Callable[[Any], bool], expected: str) -> None:
        value = getattr(self, name)
        if value is not None and not holds(value):
            raise ConfigError(f"{name}: expected {expected}, got {value!r}")

    def _check_type(self, name: str, declared: str) -> None:
        value = getattr(self, name)
        allowed: tuple[type, ...] = {
            "str": (str,),
            "int": (int,),
            "float": (int, float),
            "bool": (bool,),
            "str | None": (str, type(None)),
            "int | None": (int, type(None)),
            "float | None": (int, float, type(None)),
            "bool | None": (bool, type(None)),
        }[declared]
        if (isinstance(value, bool) and bool not in allowed) or not isinstance(value, allowed):
            raise ConfigError(f"{name}: expected {declared.removesuffix(' | None')}, got {value!r}")

    def data_options(
        self,
        data_root: str | None = None,
        *,
        offline: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> DataOptions:
        """How `fastltc.jobs.data.load_data` is to read the data.

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

    def model_options(self) -> dict[str, Any]:
        """The options of the model, for `fastltc.jobs.models.build_model`."""
        from .models import MODEL_OPTIONS

        own = {field.name for field in fields(self)}
        return {name: getattr(self, name) for name in MODEL_OPTIONS if name in own}

    def model_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the model sees of inputs of ``shape``: images may be cropped.

        Raises:
            ConfigError: the crop is larger than the images, or there is nothing to crop.
        """
        if self.augment_crop is None:
            return shape
        if len(shape) != 3 or self.augment_crop > min(shape[1:]):
            raise ConfigError(
                f"augment_crop: expected at most the side of the images, got {self.augment_crop} "
                f"for inputs of shape {shape}"
            )
        return (shape[0], self.augment_crop, self.augment_crop)

    def check_closed_form(self) -> None:
        """Makes sure that nothing is asked of a model in closed form that it does not do.

        Raises:
            ConfigError: an option of training by gradients is neither at its default nor at that
                of the data set, or there is nothing that ``weights`` could start; the text names
                it.
        """
        usual, _ = _DATA_DEFAULTS.get(self.data, ({}, {}))
        for name in GRADIENT_OPTIONS:
            value, default = getattr(self, name), default_of(name)
            if value not in (default, usual.get(name, default)):
                raise ConfigError(
                    f"{name}: no option of the model {self.model}, which is fitted in closed form; "
                    f"expected {default!r}, got {value!r}"
                )
        if self.model == "probe" and self.backbone is None and self.weights is not None:
            raise ConfigError(
                "weights: a probe without a backbone has none to start from; expected none, got "
                f"{self.weights!r}"
            )

    @classmethod
    def for_data(cls, data: str, **options: Any) -> TrainConfig:
        """The defaults for a data set, with those ``options`` changed that are not None.

        Raises:
            ConfigError: an option is unknown or has an impossible value.
            fastltc.jobs.data.DataError: the data set is unknown.
        """
        find_source(data)
        given = {name: value for name, value in options.items() if value is not None}
        usual, of_model = _DATA_DEFAULTS.get(data, ({}, {}))
        if given.get("model", "conv-ncp") != "conv-ncp":
            of_model = {}
        return cls.from_dict({"data": data, **usual, **of_model, **given})

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


def read_toml(path: Any) -> dict[str, Any]:
    """The options in a TOML file, for `TrainConfig.for_data` or `TrainConfig.from_dict`.

    Raises:
        ConfigError: the file is missing or damaged, or has a name that is no option.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    try:
        values = parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    known = {field.name for field in fields(TrainConfig)}
    # "about" describes a recipe.
    unknown = sorted(set(values) - known - {"about"})
    if unknown:
        raise ConfigError(
            f"{path}: unknown option {unknown[0]!r}; known: {', '.join(sorted(known))}"
        )
    return values


def parse_toml(text: str) -> dict[str, Any]:
    """TOML as plain values.

    Raises:
        ValueError: it is no TOML.
    """
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def default_of(name: str) -> Any:
    """The default of an option."""
    for field in fields(TrainConfig):
        if field.name == name:
            return None if field.default is MISSING else field.default
    raise KeyError(name)
