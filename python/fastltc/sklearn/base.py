"""What the estimators share: the parameters, the arrays, and the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ..jobs.config import OPTIONS, TrainConfig
from ..jobs.data import DataSet, Split
from ..jobs.device import find_device
from ..jobs.evaluation.feed import Feed
from ..jobs.evaluation.probabilities import outputs
from ..jobs.training.memory import fit

Array = NDArray[Any]

# Parameters that are options of a training.
_OPTIONS = (
    *("units", "wiring", "sparsity", "mixed_memory", "encoder", "dropout", "loss", "epochs"),
    *("batch_size", "optimizer", "lr", "weight_decay", "schedule", "clip_norm", "patience"),
    *("lr_erev", "lr_sigma", "lr_mu", "device"),
)


class Liquid(BaseEstimator):
    """What the estimators share: the parameters, the arrays, and the training.

    ``X`` is ``[n, T, I]``, n sequences of T steps with I features, or ``[n, T]``, sequences of one
    feature. NaN is what was not measured, where the training had such values, too.
    """

    # Whether X had three axes in fit, whether it had gaps.
    _deep: bool
    _masked: bool

    def __init__(
        self,
        cell: str = "ltc",
        units: int = 32,
        *,
        wiring: str = "full",
        sparsity: float = 0.5,
        mixed_memory: bool = False,
        encoder: int = 0,
        dropout: float = 0.0,
        loss: str | None = None,
        epochs: int = 100,
        batch_size: int = 64,
        optimizer: str = "adam",
        lr: float | None = None,
        weight_decay: float = 0.0,
        schedule: str = "constant",
        clip_norm: float | None = None,
        lr_erev: float = 1.0,
        lr_sigma: float = 1.0,
        lr_mu: float = 1.0,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        random_state: Any = None,
        device: str = "cpu",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.cell = cell
        self.units = units
        self.wiring = wiring
        self.sparsity = sparsity
        self.mixed_memory = mixed_memory
        self.encoder = encoder
        self.dropout = dropout
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.lr_erev = lr_erev
        self.lr_sigma = lr_sigma
        self.lr_mu = lr_mu
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.device = device
        self.options = options

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def _config(self, **options: Any) -> TrainConfig:
        """The parameters as options of a training."""
        given = self.get_params(deep=False)
        own = {name: value for name, value in given.items() if name in _OPTIONS} | options
        more = dict(self.options or {})
        wrong = next((name for name in more if name in given or name not in OPTIONS), None)
        if wrong is not None:
            what = "a parameter of its own" if wrong in given else "unknown"
            raise ValueError(
                "options: expected options of fastltc train that are no parameters of "
                f"{type(self).__name__}, got {wrong!r}, {what}"
            )
        seed = int(check_random_state(self.random_state).randint(2**31))
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                "validation_fraction: expected a number from 0 below 1, got "
                f"{self.validation_fraction!r}"
            )
        select = "loss" if self.validation_fraction else "last"
        settings = {"model": f"series-{self.cell}", "seed": seed, "select": select, **own, **more}
        config = TrainConfig(**settings)
        return config.settled("series")

    def _sequences(self, X: ArrayLike, *, reset: bool) -> Array:
        """``[n, T, I]``, float32; NaN stays."""
        how: dict[str, Any] = {"dtype": "numeric", "ensure_all_finite": "allow-nan"}
        rows = X if hasattr(X, "shape") else np.asarray(X)
        if len(getattr(rows, "shape", ())) == 3:
            found: Array = check_array(rows, allow_nd=True, ensure_2d=False, **how)
            if reset:
                self.n_features_in_ = found.shape[2]
            elif found.shape[2] != self.n_features_in_ or not self._deep:
                raise ValueError(
                    f"X has {found.shape[2]} features, but {type(self).__name__} is expecting "
                    f"{self.n_features_in_ if self._deep else 1} features as input"
                )
        else:
            found = validate_data(self, X, reset=reset, **how)
            if not reset and self._deep:
                raise ValueError(
                    f"X: expected [n, T, {self.n_features_in_}], as in fit, got {found.shape}"
                )
        if reset:
            self._deep = found.ndim == 3
        return (found if found.ndim == 3 else found[:, :, None]).astype(np.float32)

    def _split(
        self,
        rows: Array,
        labels: Array,
        timespans: ArrayLike | None,
        lengths: ArrayLike | None,
        future: Array | None = None,
        *,
        reset: bool,
    ) -> Split:
        """Examples as the jobs know them; with ``reset`` they say whether there may be gaps."""
        spans = None
        if timespans is not None:
            spans = check_array(timespans, dtype=np.float32, input_name="timespans")
            expect("timespans", spans.shape, rows.shape[:2])
            if (spans < 0).any():
                raise ValueError("timespans: expected times from 0, got negative ones")
        counts = check_lengths(rows, lengths)
        inside = np.ones(rows.shape[:2], bool)
        if counts is not None:
            inside = np.arange(rows.shape[1]) < counts[:, None]
        measured = ~np.isnan(rows)
        gaps = bool((~measured & inside[..., None]).any())
        masked = gaps if reset else self._masked
        if gaps and not masked:
            raise ValueError(
                f"X contains NaN, which {type(self).__name__} was fitted without; expected none"
            )
        return Split(
            _held(rows, measured), labels, spans, (), counts, measured if masked else None, future
        )

    def _fit(
        self, config: TrainConfig, train: Split, stratify: Array | None = None, **about: Any
    ) -> None:
        names = tuple(f"x{place}" for place in range(train.inputs.shape[2]))
        splits = {"train": train}
        if self.validation_fraction:
            from sklearn.model_selection import train_test_split

            kept, held = train_test_split(
                np.arange(len(train)),
                test_size=self.validation_fraction,
                random_state=config.seed,
                stratify=stratify,
            )
            splits = {"train": train.take(np.sort(kept)), "val": train.take(np.sort(held))}
        about = {"classes": (), "features": names, **about}
        data = DataSet("the data", splits=splits, source="X", **about)
        self.model_, self.history_ = fit(config, data)
        self.n_iter_ = len(self.history_)
        self._masked = train.measured is not None

    def _outputs(self, split: Split) -> Array:
        device = find_device(self.device)
        found: Array = outputs(self.model_.to(device), Feed(split, device)).numpy()
        return found

    def _asked(self, X: ArrayLike, timespans: Any, lengths: Any) -> Split:
        check_is_fitted(self)
        rows = self._sequences(X, reset=False)
        return self._split(rows, np.zeros(len(rows)), timespans, lengths, reset=False)

    def _targets(self, y: ArrayLike) -> ArrayLike:
        """What is to be learned, which the interface of scikit-learn allows to be missing."""
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        return y


def check_lengths(rows: Array, lengths: ArrayLike | None) -> Array | None:
    """The steps of each of ``[n, T, I]``, int64, or None for all.

    Raises:
        ValueError: they are not n integers from 1 to T.
    """
    if lengths is None:
        return None
    counts = np.asarray(lengths)
    expect("lengths", counts.shape, rows.shape[:1])
    if counts.dtype.kind not in "iu" or not ((counts > 0) & (counts <= rows.shape[1])).all():
        raise ValueError(f"lengths: expected integers from 1 to T = {rows.shape[1]}")
    return counts.astype(np.int64)


def expect(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raises ValueError where an argument has another shape than expected."""
    if tuple(shape) != tuple(expected):
        raise ValueError(f"{name}: expected shape {tuple(expected)}, got {tuple(shape)}")


def _held(rows: Array, measured: Array) -> Array:
    """Each value that is missing as the last that was measured, 0 before there is one."""
    if measured.all():
        return rows
    steps = np.arange(rows.shape[1])[:, None]
    last = np.maximum.accumulate(np.where(measured, steps, -1), axis=1)
    held = np.take_along_axis(rows, np.maximum(last, 0), axis=1)
    return np.where(last < 0, 0, held).astype(np.float32)
