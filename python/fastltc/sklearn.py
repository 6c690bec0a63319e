"""Liquid networks as estimators of scikit-learn: for classes, for values, and for what comes next.

They are the models ``series-ltc`` and ``series-cfc`` of `fastltc.jobs`, trained by its loop; the
parameters are options of ``fastltc train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from .jobs.config import TrainConfig
from .jobs.data import DataSet, Split
from .jobs.device import find_device
from .jobs.evaluation.feed import Feed
from .jobs.evaluation.probabilities import outputs
from .jobs.evaluation.values import middle_answers
from .jobs.training.memory import fit

__all__ = ["LiquidClassifier", "LiquidForecaster", "LiquidRegressor"]

_Array = NDArray[Any]


class _Liquid(BaseEstimator):
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
        lr: float = 3e-3,
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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def _config(self, **options: Any) -> TrainConfig:
        """The parameters as options of a training."""
        own = {name: value for name, value in self.get_params().items() if name in _OPTIONS}
        seed = int(check_random_state(self.random_state).randint(2**31))
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                "validation_fraction: expected a number from 0 below 1, got "
                f"{self.validation_fraction!r}"
            )
        select = "loss" if self.validation_fraction else "last"
        return TrainConfig(model=f"series-{self.cell}", seed=seed, select=select, **own, **options)

    def _sequences(self, X: ArrayLike, *, reset: bool) -> _Array:
        """``[n, T, I]``, float32; NaN stays."""
        how: dict[str, Any] = {"dtype": "numeric", "ensure_all_finite": "allow-nan"}
        rows = X if hasattr(X, "shape") else np.asarray(X)
        if len(getattr(rows, "shape", ())) == 3:
            found: _Array = check_array(rows, allow_nd=True, ensure_2d=False, **how)
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
        rows: _Array,
        labels: _Array,
        timespans: ArrayLike | None,
        lengths: ArrayLike | None,
        future: _Array | None = None,
    ) -> Split:
        """Examples as the jobs know them."""
        spans = None
        if timespans is not None:
            spans = check_array(timespans, dtype=np.float32, input_name="timespans")
            _expect("timespans", spans.shape, rows.shape[:2])
            if (spans < 0).any():
                raise ValueError("timespans: expected times from 0, got negative ones")
        counts = None
        if lengths is not None:
            counts = np.asarray(lengths)
            _expect("lengths", counts.shape, rows.shape[:1])
            fits = counts.dtype.kind in "iu" and ((counts > 0) & (counts <= rows.shape[1])).all()
            if not fits:
                raise ValueError(f"lengths: expected integers from 1 to T = {rows.shape[1]}")
            counts = counts.astype(np.int64)
        inside = np.ones(rows.shape[:2], bool)
        if counts is not None:
            inside = np.arange(rows.shape[1]) < counts[:, None]
        measured = ~np.isnan(rows)
        gaps = bool((~measured & inside[..., None]).any())
        masked = getattr(self, "_masked", gaps)
        if gaps and not masked:
            raise ValueError(
                f"X contains NaN, which {type(self).__name__} was fitted without; expected none"
            )
        return Split(
            _held(rows, measured), labels, spans, (), counts, measured if masked else None, future
        )

    def _fit(
        self, config: TrainConfig, train: Split, stratify: _Array | None = None, **about: Any
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

    def _outputs(self, split: Split) -> _Array:
        device = find_device(self.device)
        found: _Array = outputs(self.model_.to(device), Feed(split, device)).numpy()
        return found

    def _asked(self, X: ArrayLike, timespans: Any, lengths: Any) -> Split:
        check_is_fitted(self)
        rows = self._sequences(X, reset=False)
        return self._split(rows, np.zeros(len(rows)), timespans, lengths)


class LiquidClassifier(ClassifierMixin, _Liquid):
    """Tells classes of sequences apart by a liquid layer: one class for each sequence.

    Args:
        cell: ``"ltc"``, ``"cfc"``, or ``"lstm"`` to compare with.
        units: neurons.
        wiring: ``"full"``, ``"random"`` (with ``sparsity``) or ``"ncp"``.
        sparsity: share of the synapses that a random wiring lacks.
        mixed_memory: an LSTM cell before the liquid one.
        encoder: features that a step is mapped to first; 0 for the step itself.
        dropout: share of what the readout sees that is left out in training.
        loss: None for the usual one, cross-entropy or mean square error; of values ``"mae"``,
            ``"huber"``.
        epochs, batch_size, optimizer, lr, weight_decay, schedule, clip_norm: of the training, see
            ``fastltc train``.
        lr_erev, lr_sigma, lr_mu: factors on the learning rate of parameters of LTC.
        validation_fraction: share of the sequences by whose loss the best epoch is chosen; 0 for
            none, and the last epoch.
        patience: epochs without a better one after which training ends.
        random_state: of parameters and order.
        device: torch device.

    Attributes:
        classes_: ``[classes]``.
        model_: the trained ``torch.nn.Module``.
        history_: a record for each epoch.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(40, 10, 2)) + np.arange(2).repeat(20)[:, None, None]
        >>> model = LiquidClassifier(units=8, epochs=20, lr=0.02, random_state=0)
        >>> bool(model.fit(X, np.arange(2).repeat(20)).score(X, np.arange(2).repeat(20)) > 0.8)
        True
    """

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        timespans: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> LiquidClassifier:
        """Trains on sequences.

        Args:
            X: ``[n, T, I]`` or ``[n, T]``.
            y: ``[n]``, the class of each.
            timespans: ``[n, T]``, time since the step before, in any unit; None for 1.
            lengths: ``[n]``, steps of each sequence; what comes after is padding.
        """
        rows = self._sequences(X, reset=True)
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        y = column_or_1d(y, warn=True)
        check_consistent_length(rows, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least 2 classes, got 1 class ({self.classes_[0]!r})")
        self.__dict__.pop("_masked", None)
        train = self._split(rows, labels.astype(np.int64), timespans, lengths)
        names = tuple(map(str, self.classes_))
        self._fit(self._config(), train, labels, classes=names)
        return self

    def predict_proba(
        self, X: ArrayLike, timespans: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> _Array:
        """The probability of each class, ``[n, classes]``; arguments as of `fit`."""
        logits = torch.from_numpy(self._outputs(self._asked(X, timespans, lengths)))
        found: _Array = logits.softmax(dim=-1).numpy()
        return found

    def predict(
        self, X: ArrayLike, timespans: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> _Array:
        """The most probable class, ``[n]``; arguments as of `fit`."""
        found = self.predict_proba(X, timespans, lengths).argmax(axis=1)
        classes: _Array = self.classes_[found]
        return classes


class LiquidRegressor(RegressorMixin, _Liquid):
    """Predicts one or several values of each sequence by a liquid layer.

    The parameters are those of `LiquidClassifier`.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(60, 8))
        >>> model = LiquidRegressor(units=8, epochs=40, lr=0.02, random_state=0)
        >>> bool(model.fit(X, X[:, -1]).score(X, X[:, -1]) > 0.5)
        True
    """

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        timespans: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> LiquidRegressor:
        """Trains on sequences.

        Args:
            X: ``[n, T, I]`` or ``[n, T]``.
            y: ``[n]`` or ``[n, K]``, the values of each.
            timespans: ``[n, T]``, time since the step before, in any unit; None for 1.
            lengths: ``[n]``, steps of each sequence; what comes after is padding.
        """
        rows = self._sequences(X, reset=True)
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        values = check_array(y, dtype="numeric", ensure_2d=False, input_name="y")
        check_consistent_length(rows, values)
        self._flat = values.ndim == 1
        values = values.reshape(len(values), -1).astype(np.float32)
        self.__dict__.pop("_masked", None)
        train = self._split(rows, values, timespans, lengths)
        targets = tuple(f"y{place}" for place in range(values.shape[1]))
        self._fit(self._config(), train, targets=targets)
        return self

    def predict(
        self, X: ArrayLike, timespans: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> _Array:
        """The values, ``[n]`` or ``[n, K]`` as in `fit`."""
        found = self._outputs(self._asked(X, timespans, lengths))
        return found[:, 0] if self._flat else found

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class LiquidForecaster(_Liquid):
    """Forecasts the next steps of a series from the steps before, by a liquid layer.

    ``X`` is one series: ``[N]`` or ``[N, I]``, rows in the order of time, as
    ``sklearn.model_selection.TimeSeriesSplit`` cuts it; or ``[R, N, I]``, several recordings. It is
    cut into windows, each followed by the steps to forecast.

    Args:
        horizon: steps to forecast, H.
        window: steps that a forecast is made from.
        forecast: ``"direct"``, all steps at once, or ``"recursive"``, each from the one before.
        difference: tell values as the difference to the last one.
        quantiles: as ``"0.1,0.5,0.9"``; None for one value.
        known: places of the features that are known in advance; all others are forecast.
        cell, units, ...: as of `LiquidClassifier`.

    Example:
        >>> X = np.sin(0.5 * np.arange(120.0))
        >>> model = LiquidForecaster(2, window=12, units=8, epochs=20, lr=0.02, random_state=0)
        >>> model.fit(X).predict(X).shape
        (2,)
    """

    def __init__(
        self,
        horizon: int = 1,
        window: int = 32,
        *,
        forecast: str = "direct",
        difference: bool = True,
        quantiles: str | None = None,
        known: Sequence[int] = (),
        cell: str = "ltc",
        units: int = 32,
        wiring: str = "full",
        sparsity: float = 0.5,
        mixed_memory: bool = False,
        encoder: int = 0,
        dropout: float = 0.0,
        loss: str | None = None,
        epochs: int = 100,
        batch_size: int = 64,
        optimizer: str = "adam",
        lr: float = 3e-3,
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
    ) -> None:
        shared = dict(locals())
        for name in ("self", "horizon", "window", "forecast", "difference", "quantiles", "known"):
            shared.pop(name)
        shared.pop("__class__", None)
        super().__init__(**shared)
        self.horizon = horizon
        self.window = window
        self.forecast = forecast
        self.difference = difference
        self.quantiles = quantiles
        self.known = known

    def fit(
        self, X: ArrayLike, y: None = None, lengths: ArrayLike | None = None
    ) -> LiquidForecaster:
        """Trains on one series or several.

        Args:
            X: ``[N]``, ``[N, I]`` or ``[R, N, I]``; NaN where nothing was measured.
            y: not used.
            lengths: ``[R]``, steps of each recording.
        """
        rows = self._series(X, reset=True)
        train = self._windows(rows, lengths)
        self.__dict__.pop("_masked", None)
        targets, known = self._roles(rows.shape[2])
        options = {"forecast": self.forecast, "difference": self.difference}
        config = self._config(quantiles=self.quantiles, **options)
        split = self._split(train[0], train[1], None, None, train[2])
        self._fit(
            config,
            split,
            targets=tuple(f"x{place}" for place in targets),
            known=tuple(f"x{place}" for place in known),
            horizon=self.horizon,
        )
        return self

    def predict(
        self, X: ArrayLike, future: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> _Array:
        """The steps after the end of a series.

        Args:
            X: ``[N]``, ``[N, I]`` or ``[R, N, I]``, at least ``window`` steps.
            future: ``[H, F]`` or ``[R, H, F]``, what is known of the steps to come.
            lengths: ``[R]``, steps of each recording.

        Returns:
            ``[H]``, ``[H, K]`` or ``[R, H, K]``; of quantiles with one more axis.
        """
        check_is_fitted(self)
        rows = self._series(X, reset=False)
        ends = self._ends(rows, lengths)
        known = self._roles(rows.shape[2])[1]
        ahead = None
        if known:
            if future is None:
                raise ValueError(
                    f"future: expected [{self.horizon}, {len(known)}], the known features of the "
                    "steps to come, got None"
                )
            ahead = np.asarray(future, dtype=np.float32)
            ahead = ahead[None] if ahead.ndim == 2 else ahead
            _expect("future", ahead.shape, (len(rows), self.horizon, len(known)))
        short = int(ends.min())
        if short < self.window:
            raise ValueError(f"X: expected at least window = {self.window} steps, got {short}")
        at = np.arange(len(rows))[:, None], ends[:, None] - self.window + np.arange(self.window)
        split = self._split(rows[at], np.zeros(len(rows)), None, None, ahead)
        found = self._outputs(split)
        found = np.sort(found, axis=-1) if self.quantiles else found
        if self._axes == 3:
            return found
        return found[0, :, 0] if self._axes == 1 else found[0]

    def score(self, X: ArrayLike, y: None = None, lengths: ArrayLike | None = None) -> float:
        """R2 of the forecasts of all windows in a series, the mean over the targets."""
        check_is_fitted(self)
        rows, labels, future = self._windows(self._series(X, reset=False), lengths)
        found = self._outputs(self._split(rows, labels, None, None, future))
        levels = tuple(map(float, self.quantiles.split(","))) if self.quantiles else ()
        middle = middle_answers(np.sort(found, axis=-1) if levels else found, levels)
        there = ~np.isnan(labels)
        scores = [
            r2_score(labels[..., place][there[..., place]], middle[..., place][there[..., place]])
            for place in range(labels.shape[2])
        ]
        return float(np.mean(scores))

    def _roles(self, features: int) -> tuple[list[int], list[int]]:
        """The places of the targets, and of what is known in advance."""
        known = [int(place) for place in self.known]
        if any(not 0 <= place < features for place in known) or len(known) >= features:
            raise ValueError(
                f"known: expected places of the {features} features, and one at least to forecast, "
                f"got {known}"
            )
        return [place for place in range(features) if place not in known], known

    def _series(self, X: ArrayLike, *, reset: bool) -> _Array:
        """``[R, N, I]``."""
        found = X if hasattr(X, "shape") else np.asarray(X)
        axes = len(getattr(found, "shape", ()))
        how: dict[str, Any] = {"dtype": "numeric", "ensure_all_finite": "allow-nan"}
        if axes == 3:
            rows: _Array = check_array(found, allow_nd=True, ensure_2d=False, **how)
            if reset:
                self.n_features_in_ = rows.shape[2]
        else:
            if axes == 1:
                found = np.asarray(found)[:, None]
            rows = validate_data(self, found, reset=reset, **how)[None]
        if rows.shape[2] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[2]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        self._axes = axes
        return rows.astype(np.float32)

    def _ends(self, rows: _Array, lengths: ArrayLike | None) -> _Array:
        if lengths is None:
            return np.full(len(rows), rows.shape[1])
        ends = np.asarray(lengths)
        _expect("lengths", ends.shape, rows.shape[:1])
        return ends.astype(np.int64)

    def _windows(
        self, rows: _Array, lengths: ArrayLike | None
    ) -> tuple[_Array, _Array, _Array | None]:
        """Every window, what follows it, and what of that is known in advance."""
        if self.horizon < 1 or self.window < 1:
            raise ValueError(
                f"horizon, window: expected at least 1, got {self.horizon} and {self.window}"
            )
        size = self.window + self.horizon
        ends = self._ends(rows, lengths)
        starts = [
            (recording, start)
            for recording, end in enumerate(ends)
            for start in range(int(end) - size + 1)
        ]
        if not starts:
            raise ValueError(
                f"X: expected at least window + horizon = {size} steps, got n_samples = "
                f"{int(ends.max(initial=0))}"
            )
        recording, start = np.array(starts).T
        both = rows[recording[:, None], start[:, None] + np.arange(size)]
        targets, known = self._roles(rows.shape[2])
        before, after = both[:, : self.window], both[:, self.window :]
        return before, after[..., targets], after[..., known] if known else None


def _expect(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(shape) != tuple(expected):
        raise ValueError(f"{name}: expected shape {tuple(expected)}, got {tuple(shape)}")


def _held(rows: _Array, measured: _Array) -> _Array:
    """Each value that is missing as the last that was measured, 0 before there is one."""
    if measured.all():
        return rows
    steps = np.arange(rows.shape[1])[:, None]
    last = np.maximum.accumulate(np.where(measured, steps, -1), axis=1)
    held = np.take_along_axis(rows, np.maximum(last, 0), axis=1)
    return np.where(last < 0, 0, held).astype(np.float32)


_OPTIONS = (
    *("units", "wiring", "sparsity", "mixed_memory", "encoder", "dropout", "loss", "epochs"),
    *("batch_size", "optimizer", "lr", "weight_decay", "schedule", "clip_norm", "patience"),
    *("lr_erev", "lr_sigma", "lr_mu", "device"),
)
