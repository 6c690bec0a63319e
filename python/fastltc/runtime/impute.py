"""Values for readings of streams that are missing, one step at a time, without torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from fastltc._parameters import IMPUTE_METHODS


class Impute:
    """Fills in what is missing in the readings of one or many streams, before a session's step.

    It does what :class:`fastltc.Impute` does, one step of a sequence a call, in float32:
    ``Impute(**module.settings())`` is that of a trained module. It is no part of a model file;
    keep the settings beside it, as JSON.

    Args:
        features: I, number of features.
        method: ``"forward"``, ``"mean"`` or ``"decay"``.
        mean: ``[I]`` or one number for all.
        add_mask: append the mask, I more features.
        add_elapsed: append the time since the last observation before this step, I more features.
        decay_rate: ``[I]``, per unit of a time step; for ``"decay"``.
        decay_offset: ``[I]``; for ``"decay"``.
        streams: number of independent streams, S.

    Raises:
        ValueError: if a number or a shape is out of its range, or the method is unknown.

    Attributes:
        output_size: number of features that come out: I, 2 I or 3 I.

    Example:
        >>> import numpy as np
        >>> from fastltc.runtime import Impute
        >>> impute = Impute(2, mean=[0.5, 1.0], add_mask=True)
        >>> impute([np.nan, 3.0], dt=0.1).tolist()
        [0.5, 3.0, 0.0, 1.0]
        >>> impute([2.0, np.nan], dt=0.1).tolist()
        [2.0, 3.0, 1.0, 0.0]

    Source: Che et al., Recurrent Neural Networks for Multivariate Time Series with Missing Values,
    Scientific Reports 2018.
    """

    def __init__(
        self,
        features: int,
        method: str = "forward",
        mean: npt.ArrayLike = 0.0,
        add_mask: bool = False,
        add_elapsed: bool = False,
        decay_rate: npt.ArrayLike = 1.0,
        decay_offset: npt.ArrayLike = 0.0,
        streams: int = 1,
    ) -> None:
        for name, count in (("features", features), ("streams", streams)):
            if count < 1:
                raise ValueError(f"{name}: expected 1 or more, got {count}")
        if method not in IMPUTE_METHODS:
            raise ValueError(f"method: expected one of {', '.join(IMPUTE_METHODS)}, got {method!r}")
        self.features, self.streams, self.method = features, streams, method
        self.add_mask, self.add_elapsed = add_mask, add_elapsed
        self.output_size = features * (1 + add_mask + add_elapsed)
        self._mean = self._of_features("mean", mean)
        self._rate = self._of_features("decay_rate", decay_rate)
        self._offset = self._of_features("decay_offset", decay_offset)
        # In float64, like the sums of the module.
        self._elapsed = np.zeros((streams, features))
        self._last = np.empty((streams, features), np.float32)
        self._started = np.empty(streams, bool)
        self.reset()

    def _of_features(self, name: str, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
        found = np.asarray(values, np.float32)
        if found.shape not in ((), (self.features,)):
            raise ValueError(
                f"{name}: expected a number or shape [I] = [{self.features}], got "
                f"{list(found.shape)}"
            )
        if not np.isfinite(found).all():
            raise ValueError(f"{name}: expected finite numbers, got others")
        return np.broadcast_to(found, (self.features,)).copy()

    def reset(self, streams: SupportsIndex | Iterable[SupportsIndex] | None = None) -> None:
        """Forget what was observed: of all streams, or of those of these numbers."""
        which = slice(None) if streams is None else np.atleast_1d(np.asarray(streams, np.int64))
        self._elapsed[which] = 0.0
        self._last[which] = self._mean
        self._started[which] = False

    def __call__(
        self, x: npt.ArrayLike, dt: npt.ArrayLike = 1.0, mask: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.float32]:
        """Take the readings of one step and return what a session steps with.

        Args:
            x: ``[I]`` or, of several streams, ``[S, I]``. What is missing may hold anything.
            dt: time since the last step, one number or ``[S]``, not negative. That of the first
                step of a stream is not read.
            mask: which entries were observed, of the shape of ``x``, booleans or 0 and 1; by
                default those that are not NaN.

        Returns:
            float32, ``[output_size]`` or ``[S, output_size]``.

        Raises:
            ValueError: if a shape or a number is wrong; nothing has changed then.
        """
        values = np.asarray(x, np.float32)
        expected = (self.features,) if values.ndim == 1 else (self.streams, self.features)
        if values.shape != expected or (values.ndim == 1 and self.streams != 1):
            shape = (self.features,) if self.streams == 1 else (self.streams, self.features)
            raise ValueError(f"x: expected shape {list(shape)}, got {list(values.shape)}")
        if mask is None:
            seen = ~np.isnan(values)
        else:
            given = np.asarray(mask)
            if given.shape != values.shape:
                raise ValueError(
                    f"mask: expected shape {list(values.shape)}, got {list(given.shape)}"
                )
            if not np.isin(given, (0, 1)).all():
                raise ValueError("mask: expected booleans or numbers of 0 and 1, got others")
            seen = given.astype(bool)
        spans = np.asarray(dt, np.float64)
        if spans.shape not in ((), (self.streams,)):
            raise ValueError(
                f"dt: expected a number or shape [{self.streams}], got {list(spans.shape)}"
            )
        if not (np.isfinite(spans).all() and (spans >= 0).all()):
            raise ValueError("dt: expected finite time steps of 0 or more, got others")
        result = self._fill(
            values.reshape(-1, self.features), seen.reshape(-1, self.features), spans
        )
        return result if values.ndim == 2 else result[0]

    def _fill(
        self,
        x: npt.NDArray[np.float32],
        seen: npt.NDArray[np.bool_],
        spans: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float32]:
        passed = np.where(self._started, spans, 0.0)[:, None]
        elapsed = (self._elapsed + passed).astype(np.float32)
        carried = self._last
        if self.method == "mean":
            carried = np.broadcast_to(self._mean, x.shape)
        elif self.method == "decay":
            g = np.exp(-np.maximum(self._rate * elapsed + self._offset, 0.0))
            carried = g * self._last + (1 - g) * self._mean
        parts = [np.where(seen, x, carried)]
        if self.add_mask:
            parts.append(seen.astype(np.float32))
        if self.add_elapsed:
            parts.append(elapsed)
        self._elapsed = np.where(seen, 0.0, self._elapsed + passed)
        self._last = np.where(seen, x, self._last)
        self._started[:] = True
        return np.concatenate(parts, 1, dtype=np.float32)
