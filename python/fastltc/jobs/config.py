"""Everything that decides what a training run does, in one dataclass.

Only the standard library is imported here, so that the command line has its options at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .._parameters import SIGMOID_PRECISIONS
from .errors import ConfigError
from .files import MOST_TEXT, parse_toml, read_bytes
from .options import (
    ABOVE_0,
    COUNT,
    FROM_0,
    PROBABILITY,
    SEED,
    SHARE,
    Range,
    check_options,
    one_of,
    option,
    options_of,
)
from .reading import ReadingOptions

if TYPE_CHECKING:
    from .data import DataOptions


def quantiles_in(text: str) -> tuple[float, ...]:
    """The numbers of a text with commas; what is no number is NaN."""

    def number(part: str) -> float:
        try:
            return float(part)
        except ValueError:
            return math.nan

    return tuple(map(number, text.split(",")))


def is_rising(quantiles: Sequence[float]) -> bool:
    """Whether numbers are between 0 and 1, each larger than the one before."""
    return all(low < high for low, high in itertools.pairwise((0.0, *quantiles, 1.0)))


# The power of the inverse frequency that each is.
CLASS_WEIGHTS = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}
# Of either kind of task, and of which of its metrics less is better.
SELECT_CLASSES = ("auc", "accuracy", "f1", "f1_macro", "average_precision", "kappa")
SELECT_VALUES = ("mse", "mae", "r2", "mase", "pinball")
LESS_IS_BETTER = ("loss", "mse", "mae", "mase", "pinball")
_SELECT = ("loss", *SELECT_CLASSES, *SELECT_VALUES, "last")
TASKS = ("classification", "regression", "forecasting")
LOSSES = ("cross_entropy", "mse", "mae", "huber", "pinball")
_SHEAR = Range("a number from 0 below 90", lambda value: 0 <= value < 90)
_QUANTILES = Range(
    "rising numbers between 0 and 1 with commas, as 0.1,0.5,0.9",
    lambda value: is_rising(quantiles_in(value)),
)
_BETWEEN_0_AND_1 = Range("a number between 0 and 1", lambda value: 0 < value < 1)

# Options that may differ when a run is resumed.
RESUMABLE = ("epochs", "threads", "device", "data_root")

# What `TrainConfig.for_data` starts from where a data set wants other values than the dataclass;
# the second for its usual model only.
_DATA_DEFAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "digits": ({}, {"units": 40, "gain": 5.0}),
    "breastmnist": ({"epochs": 50, "batch_size": 128, "lr": 1e-3}, {"units": 19, "gain": 1.0}),
}


# An option of training by gradients, which a model in closed form does not have.
_gradients = partial(option, by_gradient=True)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The options of the models; each is one of some, see their classes. None for their default."""

    model: str | None = option(None, "Model.", usual="conv-ncp; series-ltc; probe")
    """None for the usual one for that kind of data."""
    cell: str | None = option(None, "Recurrent cell of conv-ncp: ltc or cfc.", usual="ltc")
    units: int | None = option(None, "Neurons.", COUNT)
    gain: float | None = option(None, "Factor on the motor neurons' outputs.", ABOVE_0)
    wiring: str | None = option(
        None, "Of rows-*, series-*, patches-*: ncp (not of patches), random or full; none of CfC."
    )
    sparsity: float | None = option(None, "Share of the synapses that a random wiring lacks.")
    unfolds: int | None = option(
        None, "Of series-ltc and patches-ltc: solver steps in a time step.", COUNT, usual="6"
    )
    conductances: str | None = option(
        None, "Of series-ltc and patches-ltc: first values, as-ncps or fan-in.", usual="as-ncps"
    )
    backbone_units: int | None = option(
        None,
        "Of series-cfc and patches-cfc without wiring: neurons of a layer of the backbone.",
        COUNT,
        usual="128",
    )
    backbone_layers: int | None = option(
        None,
        "Of series-cfc and patches-cfc without wiring: layers of the backbone.",
        FROM_0,
        usual="1",
    )
    timestep: float | None = option(
        None,
        "Of rows-*, series-*, patches-*: time from one row or patch to the next, for the layer.",
    )
    clip: float | None = option(None, "Of series-*: deviations that inputs are held within.")
    pool: str | None = option(
        None, "Of series-*: states that are read: last or last-and-mean.", usual="last"
    )
    time_input: bool | None = option(None, "Of series-*: read the time step as an input, too.")
    encoder: int | None = option(
        None,
        "Of rows-*, series-*, patches-*: features that a row or patch is mapped to; 0 for none.",
    )
    """None for as many as neurons, of patches-*."""
    patch: int | None = option(
        None, "Of patches-*: rows that are read as one step.", COUNT, usual="12"
    )
    decoder: int | None = option(
        None, "Of series-*: neurons that see state and row, before the answer; 0 for none."
    )
    wiring_seed: int | None = option(None, "Seed of the wiring.", SEED)
    sigmoid_precision: str | None = option(
        None,
        "Of an LTC: how precise the sigmoids of its synapses are, highest or medium.",
        one_of(SIGMOID_PRECISIONS),
        usual="highest",
    )
    mixed_memory: bool | None = option(None, "An LSTM cell before the liquid one.")
    dropout: float | None = option(
        None,
        "Of series-*, patches-*: share left out of the encoder's features and before the readout.",
        SHARE,
    )
    impute: str | None = option(
        None, "Of series-*: what is not measured: forward, mean or decay.", usual="forward"
    )
    forecast: str | None = option(
        None, "Of series-*: direct or recursive.", one_of(("direct", "recursive")), usual="direct"
    )
    difference: bool | None = option(
        None, "Of series-*: tell values as the difference to the last one."
    )
    spectral_radius: float | None = option(None, "Of the reservoir.")
    leak: float | None = option(None, "Leak rate of the reservoir.")
    input_scale: float | None = option(None, "Deviation of the reservoir's input weights.")
    reads: int | None = option(None, "Of reservoir and rows-*: states that the readout sees.")
    probe: str | None = option(None, "logistic or svm.")
    c: float | None = option(None, "Inverse penalty of the probe.")
    backbone: str | None = option(None, "torchvision model whose features are probed.")
    pretrained: bool | None = option(None, "Take torchvision's pretrained weights.")
    head: str | None = option(None, "Of a torchvision model: linear, ltc or cfc.")
    members: int | None = option(
        None, "Train N such models and ask them together.", COUNT, usual="1"
    )
    weights: str | None = option(None, "State dict that the model starts from.", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ModelOptions, ReadingOptions):
    """The configuration of a run; saved in its folder as ``config.json``.

    A TOML file and the command line have the same names (``batch_size`` and ``--batch-size``).
    docs/training.md has a table of all.
    """

    data: str = option("digits", "Data set.")
    data_root: str | None = option(
        None, "Folder to look for the data file in first (or the file itself).", metavar="DIR"
    )
    """None for the cache."""
    task: str | None = option(
        None, "What the data has to be for: classification, regression, forecasting.", one_of(TASKS)
    )
    """Which of them it is the data says; another is an error."""
    epochs: int = _gradients(20, "Passes over the training split.", COUNT)
    batch_size: int = _gradients(64, "Examples per step.", COUNT)
    """Of the optimizer, over all processes."""
    accumulate: int = _gradients(1, "Parts that a batch is computed in.", COUNT)
    """One after the other, to save memory."""
    optimizer: str = _gradients("adam", "adam, adamw or nadam.", one_of(("adam", "adamw", "nadam")))
    lr: float | None = _gradients(
        None, "Learning rate.", ABOVE_0, usual="0.003; of series-ltc and patches-ltc 0.01"
    )
    """After the warm-up."""
    weight_decay: float = _gradients(0.0, "Weight decay.", FROM_0)
    schedule: str = _gradients(
        "constant", "constant, cosine or plateau.", one_of(("constant", "cosine", "plateau"))
    )
    """``cosine`` goes to zero, per step; ``plateau`` multiplies the rate by ``plateau_factor``
    after ``plateau_patience`` epochs without a smaller validation loss."""
    warmup: float = _gradients(0.0, "Epochs in which the rate rises.", FROM_0, metavar="EPOCHS")
    """Linearly, per step."""
    rising: float = _gradients(
        0.0, "Epochs in which longer and longer sequences come in.", FROM_0, metavar="EPOCHS"
    )
    """At first those of up to a quarter of the longest elapsed time."""
    plateau_factor: float = _gradients(0.1, "Of the plateau schedule.", _BETWEEN_0_AND_1)
    plateau_patience: int = _gradients(5, "Of the plateau schedule.", COUNT, metavar="EPOCHS")
    patience: int | None = _gradients(
        None, "Stop after so many epochs without a better one.", COUNT, metavar="EPOCHS"
    )
    """Better by the ``select`` metric; None for never."""
    clip_norm: float | None = _gradients(
        None, "Largest norm of the gradient.", ABOVE_0, usual="none; of series 1"
    )
    lr_erev: float = _gradients(1.0, "Times lr: the rate of reversal potentials of LTC.", FROM_0)
    lr_sigma: float = _gradients(1.0, "Times lr: the rate of the slopes of LTC.", FROM_0)
    lr_mu: float = _gradients(1.0, "Times lr: the rate of the centres of LTC.", FROM_0)
    loss: str | None = _gradients(
        None,
        "cross_entropy; of values mse, mae, huber or pinball.",
        one_of(LOSSES),
        usual="cross_entropy or mse",
    )
    """``pinball`` is that of the ``quantiles``."""
    error_unit: str = _gradients(
        "target",
        "What errors of values are counted in: deviations of their target, or in one common unit.",
        one_of(("target", "common")),
    )
    """``common`` where the mean squared error is what counts and targets differ in scale."""
    huber_delta: float = _gradients(
        1.0, "Of huber: deviations from which on it is linear.", ABOVE_0
    )
    quantiles: str | None = _gradients(
        None, "Quantiles to answer, as 0.1,0.5,0.9.", _QUANTILES, usual="0.1,0.5,0.9 with pinball"
    )
    class_weights: str = _gradients("none", "none, sqrt or balanced.", one_of(CLASS_WEIGHTS))
    """``balanced`` weighs the loss by the inverse frequency of the classes, ``sqrt`` by its square
    root."""
    label_smoothing: float = _gradients(
        0.0, "Share of the target that goes to all classes alike.", SHARE
    )
    amp: str = _gradients(
        "none", "Mixed precision: none, bf16 or fp16.", one_of(("none", "bf16", "fp16"))
    )
    augment_scale: float = _gradients(0.0, "Largest relative change of size.", SHARE)
    augment_shift: float = _gradients(0.0, "Largest shift, as a share of the side.", SHARE)
    augment_rotate: float = _gradients(0.0, "Largest rotation.", FROM_0, metavar="DEGREES")
    augment_shear: float = _gradients(0.0, "Largest shear.", _SHEAR, metavar="DEGREES")
    augment_affine_p: float = _gradients(1.0, "Probability of these four.", PROBABILITY)
    augment_flip: bool = _gradients(False, "Mirror left and right.")
    """With probability 0.5."""
    augment_crop: int | None = option(None, "Side of a random square.", COUNT)
    """The middle one in evaluation, and where a model in closed form is fitted."""
    augment_colour: float = _gradients(0.0, "Largest shift of a colour.", SHARE)
    augment_colour_p: float = _gradients(1.0, "Probability of it.", PROBABILITY)
    augment_brightness: float = _gradients(0.0, "Largest relative change.", SHARE)
    augment_contrast: float = _gradients(0.0, "Largest relative change.", SHARE)
    augment_light_p: float = _gradients(1.0, "Probability of the two.", PROBABILITY)
    mirror: bool = option(False, "Answer with the mean over an image and its mirror image.")
    """In evaluation and prediction; where classes do not tell left from right."""
    select: str = _gradients(
        "loss",
        f"What the best epoch is: {', '.join(_SELECT[:-1])}; or last.",
        one_of(_SELECT),
        metavar="METRIC",
    )
    """Of the validation split; ``last`` for the last epoch, whatever it is like, which is better
    with few validation images and a schedule that ends at a rate of 0."""
    ordered: bool = option(False, "The classes are in order: judge by quadratic kappa, too.")
    positive: str | None = option(
        None, "Class that F1 is about: its name or number.", metavar="CLASS"
    )
    """None for the data set's own."""
    seed: int = option(0, "Seed of parameters, order and augmentation.", SEED)
    threads: int | None = option(None, "CPU threads.", COUNT)
    """None for torch's default."""
    device: str = option("cpu", "Torch device, for example cpu or cuda.")
    tensorboard: bool = option(False, "Write a TensorBoard log.")
    """Into the run folder."""

    def __post_init__(self) -> None:
        check_options(self, ConfigError)
        if self.select == "last" and self.patience is not None:
            raise ConfigError(
                "patience: select = last takes the last epoch, so that none is better; leave one "
                "of the two out"
            )
        if self.quantiles is not None and self.loss not in (None, "pinball"):
            raise ConfigError(f"quantiles: are learned by the loss pinball, got {self.loss}")
        if self.select == "pinball" and not self.levels:
            raise ConfigError("select: pinball is of quantiles; give --quantiles 0.1,0.5,0.9")
        if self.select == "kappa" and not self.ordered:
            raise ConfigError("select: kappa is of classes that are in order; add --ordered")
        if self.model is not None:
            # Late: models need torch, and a recipe that is printed does not.
            from .models import find_model

            try:
                find_model(self.model)
            except ValueError as error:
                raise ConfigError(str(error)) from None

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
        from .data import DataOptions

        read: dict[str, Any] = {name: getattr(self, name) for name in options_of(ReadingOptions)}
        root = self.data_root if data_root is None else data_root
        return DataOptions(**read, data_root=root, offline=offline, progress=progress)

    @property
    def levels(self) -> tuple[float, ...]:
        """The quantiles to answer; empty for one value."""
        if self.quantiles is None and self.loss != "pinball":
            return ()
        return quantiles_in(self.quantiles or "0.1,0.5,0.9")

    def model_options(self) -> dict[str, Any]:
        """The options of the model, for `fastltc.jobs.models.build_model`."""
        return {name: getattr(self, name) for name in MODEL_OPTIONS}

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

    def settled(self, kind: str) -> TrainConfig:
        """The same, with what is left to the kind of data (`fastltc.jobs.data.DataSet`) said.

        Of time series a bound on the gradient, and of LTC a larger rate: docs, "How to train liquid
        networks".
        """
        from .models import default_model, find_model

        model = self.model or default_model(kind)
        if find_model(model).closed_form:
            return replace(self, model=model)
        return replace(
            self,
            model=model,
            lr=self.lr or (1e-2 if model in ("series-ltc", "patches-ltc") else 3e-3),
            clip_norm=self.clip_norm or (1.0 if kind == "series" else None),
        )

    def check_closed_form(self) -> None:
        """Makes sure that nothing is asked of a model in closed form that it does not do.

        Raises:
            ConfigError: an option of training by gradients is neither at its default nor at that
                of the data set, or there is nothing that ``weights`` could start; the text names
                it.
        """
        usual, _ = _DATA_DEFAULTS.get(self.data, ({}, {}))
        for name in GRADIENT_OPTIONS:
            value, default = getattr(self, name), OPTIONS[name].default
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
        from .data import find_source

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
        unknown = sorted(set(values) - OPTIONS.keys())
        if unknown:
            raise ConfigError(f"unknown configuration: {', '.join(unknown)}")
        return cls(**values)

    def changes(self, other: TrainConfig) -> list[str]:
        """What ``other`` has differently, but for what may differ when a run is resumed.

        Returns:
            ``NAME = VALUE, got OTHER`` for each option.
        """
        theirs = other.to_dict()
        return [
            f"{name} = {value!r}, got {theirs[name]!r}"
            for name, value in self.to_dict().items()
            if name not in RESUMABLE and value != theirs[name]
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"data": self.data, "data_root": self.data_root, **asdict(self)}


OPTIONS = options_of(TrainConfig)
# Those that the models have: which of them has which, `fastltc.jobs.models` knows.
MODEL_OPTIONS = tuple(name for name in options_of(ModelOptions) if name not in ("model", "weights"))
# What training by gradients alone uses. The crop is not among it: a model in closed form is fitted
# on the middle square.
GRADIENT_OPTIONS = tuple(name for name, one in OPTIONS.items() if one.by_gradient)


def load_toml(path: Any) -> dict[str, Any]:
    """The table in a TOML file.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    try:
        return parse_toml(read_bytes(path, MOST_TEXT).decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None


def read_toml(path: Any) -> dict[str, Any]:
    """The options in a TOML file, for `TrainConfig.for_data` or `TrainConfig.from_dict`.

    Raises:
        ConfigError: the file is missing or damaged, or has a name that is no option or a value
            that the option cannot have.
    """
    values = load_toml(path)
    # "about" describes a recipe.
    unknown = sorted(set(values) - OPTIONS.keys() - {"about"})
    if unknown:
        raise ConfigError(
            f"{path}: unknown option {unknown[0]!r}; known: {', '.join(sorted(OPTIONS))}"
        )
    for name, value in values.items():
        if name in OPTIONS:
            try:
                OPTIONS[name].check(value, ConfigError)
            except ConfigError as error:
                raise ConfigError(f"{path}: {error}") from None
    return values
