"""What comes after the end of a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ..jobs.evaluation.values import middle_answers
from .base import Array, Liquid, check_lengths, expect


class LiquidForecaster(Liquid):
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
        patch: steps that are read at once, by a layer that reads each target by itself
            (`fastltc.jobs.models.Patches`, which is always direct and tells differences); 0 for a
            layer that reads all features step by step.
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
        patch: int = 0,
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
        shared = dict(locals())
        own = ("horizon", "window", "forecast", "difference", "quantiles", "known", "patch")
        for name in ("self", *own):
            shared.pop(name)
        shared.pop("__class__", None)
        super().__init__(**shared)
        self.horizon = horizon
        self.window = window
        self.forecast = forecast
        self.difference = difference
        self.quantiles = quantiles
        self.known = known
        self.patch = patch

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
        targets, known = self._roles(rows.shape[2])
        options: dict[str, Any] = {"forecast": self.forecast, "difference": self.difference}
        if self.patch:
            if self.forecast != "direct" or not self.difference:
                raise ValueError(
                    f"patch: with {self.patch}, expected forecast='direct' and difference=True, "
                    f"which is how patches forecast, got forecast={self.forecast!r} and "
                    f"difference={self.difference!r}"
                )
            options = {"model": f"patches-{self.cell}", "patch": self.patch}
        config = self._config(quantiles=self.quantiles, **options)
        split = self._split(*train[:2], None, None, train[2], reset=True)
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
    ) -> Array:
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
            expect("future", ahead.shape, (len(rows), self.horizon, len(known)))
        short = int(ends.min())
        if short < self.window:
            raise ValueError(f"X: expected at least window = {self.window} steps, got {short}")
        at = np.arange(len(rows))[:, None], ends[:, None] - self.window + np.arange(self.window)
        split = self._split(rows[at], np.zeros(len(rows)), None, None, ahead, reset=False)
        found = self._outputs(split)
        found = np.sort(found, axis=-1) if self.quantiles else found
        if self._axes == 3:
            return found
        return found[0, :, 0] if self._axes == 1 else found[0]

    def score(self, X: ArrayLike, y: None = None, lengths: ArrayLike | None = None) -> float:
        """R2 of the forecasts of all windows in a series, the mean over the targets."""
        check_is_fitted(self)
        rows, labels, future = self._windows(self._series(X, reset=False), lengths)
        found = self._outputs(self._split(rows, labels, None, None, future, reset=False))
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

    def _series(self, X: ArrayLike, *, reset: bool) -> Array:
        """``[R, N, I]``."""
        found = X if hasattr(X, "shape") else np.asarray(X)
        axes = len(getattr(found, "shape", ()))
        how: dict[str, Any] = {"dtype": "numeric", "ensure_all_finite": "allow-nan"}
        if axes == 3:
            rows: Array = check_array(found, allow_nd=True, ensure_2d=False, **how)
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

    def _ends(self, rows: Array, lengths: ArrayLike | None) -> Array:
        ends = check_lengths(rows, lengths)
        return np.full(len(rows), rows.shape[1]) if ends is None else ends

    def _windows(self, rows: Array, lengths: ArrayLike | None) -> tuple[Array, Array, Array | None]:
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
