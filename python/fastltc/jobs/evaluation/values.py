"""What predicted values are judged by: errors, R2, MASE, quantiles, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..defaults import RESAMPLES
from .curves import LEVEL

_Array = NDArray[np.float64]
# Resamples whose sums are formed at once.
_AT_ONCE = 64


def value_metrics(
    labels: NDArray[Any],
    answers: _Array,
    targets: Sequence[str],
    *,
    quantiles: Sequence[float] = (),
    naive: Sequence[float] | None = None,
    forecast: bool = False,
) -> dict[str, Any]:
    """Metrics of predicted values, by scikit-learn.

    Of several targets each is judged by itself, in its own unit, and the metrics of all are the
    means over the targets.

    Args:
        labels: ``[n, K]``, ``[n, T, K]`` or ``[n, H, K]``; NaN is not judged.
        answers: of the same shape, with one more axis for ``quantiles``, in rising order.
        targets: K names.
        quantiles: the mean, the errors and R2 are those of the one nearest to the median.
        naive: mean absolute difference of a training value to the one before, for each target;
            None, or NaN, where it is not known.
        forecast: the second axis is the steps ahead.

    Returns:
        Plain values, ready for JSON: ``n`` (values judged), ``mse``, ``rmse``, ``mae``, ``r2``
        (None where the truth is constant), ``mase`` (``mae`` over ``naive``; None where that is
        not known or 0; R. J. Hyndman, A. B. Koehler, "Another look at measures of forecast
        accuracy", 2006), ``pinball`` (mean over the quantiles, None without), ``coverage`` (the
        share of values between the outermost quantiles), ``per_target`` and, of a forecast,
        ``per_step``.

    Example:
        >>> metrics = value_metrics(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]]), ["level"])
        >>> metrics["mae"], metrics["r2"]
        (0.5, 0.5)
    """
    middle = middle_answers(answers, quantiles)
    per_target = []
    for place, name in enumerate(targets):
        known = None if naive is None else naive[place]
        own = answers[..., place, :] if quantiles else None
        found = _of_target(labels[..., place], middle[..., place], own, quantiles, known)
        per_target.append({"name": name, **found})
    result: dict[str, Any] = {"n": int((~np.isnan(labels)).sum())}
    for name in ("mse", "rmse", "mae", "r2", "mase", "pinball", "coverage"):
        values = [found[name] for found in per_target]
        result[name] = None if None in values else float(np.mean(values))
    result["per_target"] = per_target
    if forecast:
        result["per_step"] = [
            {"step": step + 1, **_errors(labels[:, step], middle[:, step])}
            for step in range(labels.shape[1])
        ]
    return result


def middle_answers(answers: _Array, quantiles: Sequence[float]) -> _Array:
    """One value for each target: that of the quantile nearest to the median."""
    if not quantiles:
        return answers
    nearest: _Array = answers[..., int(np.abs(np.array(quantiles) - 0.5).argmin())]
    return nearest


def _of_target(
    truth: NDArray[Any],
    answers: _Array,
    of_quantiles: _Array | None,
    quantiles: Sequence[float],
    naive: float | None,
) -> dict[str, Any]:
    from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error, r2_score

    there = ~np.isnan(truth)
    found: dict[str, Any] = dict.fromkeys(
        ("mse", "rmse", "mae", "r2", "mase", "pinball", "coverage")
    )
    true, given = truth[there].astype(np.float64), answers[there]
    found["n"] = len(true)
    if not len(true):
        return found
    mse, mae = mean_squared_error(true, given), mean_absolute_error(true, given)
    found |= {"mse": float(mse), "rmse": float(np.sqrt(mse)), "mae": float(mae)}
    if np.ptp(true) > 0:
        found["r2"] = float(r2_score(true, given))
    if naive is not None and naive > 0:
        found["mase"] = float(mae / naive)
    if of_quantiles is not None:
        each = of_quantiles[there]
        losses = [
            mean_pinball_loss(true, each[:, place], alpha=share)
            for place, share in enumerate(quantiles)
        ]
        found["pinball"] = float(np.mean(losses))
        inside = (each[:, 0] <= true) & (true <= each[:, -1])
        found["coverage"] = float(inside.mean()) if len(quantiles) > 1 else None
    return found


def _errors(truth: NDArray[Any], answers: _Array) -> dict[str, float | None]:
    """Of a step ahead: the mean over the targets of mean absolute and root mean square errors."""
    error = answers - truth
    targets = ~np.isnan(error).all(axis=0)
    if not targets.all():
        return {"mae": None, "rmse": None}
    return {
        "mae": float(np.nanmean(np.abs(error), axis=0).mean()),
        "rmse": float(np.sqrt(np.nanmean(error**2, axis=0)).mean()),
    }


def value_intervals(
    labels: NDArray[Any],
    answers: _Array,
    *,
    quantiles: Sequence[float] = (),
    naive: Sequence[float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Percentile intervals of metrics by resampling the sequences, with all of their values.

    Values of one sequence go together, since they are not independent. Sequences that overlap, or
    follow one another in one recording, are not either: their intervals are too narrow.

    Args:
        labels: see `value_metrics`.
        answers: see there.
        quantiles: see there.
        naive: see there.
        resamples: how many.
        seed: of the draws.

    Returns:
        The 95 % interval ``[low, high]`` of ``mse``, ``rmse``, ``mae``, ``r2``, ``mase`` and
        ``pinball``, as far as they are there in a resample.
    """
    # The sums of a resample are those of its sequences, of which each metric is made.
    sums = _sums(labels, answers, quantiles)
    rng = np.random.default_rng(seed)
    count = len(labels)
    drawn: dict[str, list[_Array]] = {}
    for start in range(0, resamples, _AT_ONCE):
        rows = min(_AT_ONCE, resamples - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=rows).astype(np.float64)
        of = {name: weights @ one for name, one in sums.items()}
        for name, values in _metrics_of(of, naive).items():
            drawn.setdefault(name, []).append(values)
    tail = 50 * (1 - LEVEL)
    result = {}
    for name, parts in drawn.items():
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]
        if len(values):
            low, high = np.percentile(values, (tail, 100 - tail))
            result[name] = [float(low), float(high)]
    return result


def _sums(labels: NDArray[Any], answers: _Array, quantiles: Sequence[float]) -> dict[str, _Array]:
    """For every sequence and target ``[n, K]`` the sums that the metrics are made of."""

    def summed(values: _Array) -> _Array:
        there = np.where(np.isnan(truth), 0, values)
        total: _Array = there.reshape(len(there), -1, there.shape[-1]).sum(axis=1)
        return total

    truth = labels.astype(np.float64)
    middle = middle_answers(answers, quantiles)
    # From near 0, where squares keep their digits.
    centred = truth - np.nanmean(truth.reshape(-1, truth.shape[-1]), axis=0)
    error = middle - truth
    found = {
        "n": summed(np.ones_like(truth)),
        "squares": summed(error**2),
        "absolute": summed(np.abs(error)),
        "truth": summed(centred),
        "truth_squares": summed(centred**2),
    }
    if quantiles:
        share = np.array(quantiles)
        below = truth[..., None] - answers
        found["pinball"] = summed(np.maximum(share * below, (share - 1) * below).mean(axis=-1))
    return found


def _metrics_of(of: dict[str, _Array], naive: Sequence[float] | None) -> dict[str, _Array]:
    """The metrics of resamples ``[r]``; not finite where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        n = of["n"]
        mse, mae = of["squares"] / n, of["absolute"] / n
        spread = of["truth_squares"] - of["truth"] ** 2 / n
        found = {
            "mse": mse.mean(axis=1),
            "rmse": np.sqrt(mse).mean(axis=1),
            "mae": mae.mean(axis=1),
            "r2": (1 - of["squares"] / spread).mean(axis=1),
        }
        if naive is not None:
            found["mase"] = (mae / np.array(naive, dtype=np.float64)).mean(axis=1)
        if "pinball" in of:
            found["pinball"] = (of["pinball"] / n).mean(axis=1)
    return found
