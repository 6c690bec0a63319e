"""The estimators: scikit-learn's checks, pipelines and searches, lengths, gaps, time steps."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastltc.jobs.models import Patches
from fastltc.sklearn import LiquidClassifier, LiquidForecaster, LiquidRegressor

# Enough for the scores that some checks ask for.
LEARNS: dict[str, Any] = {"units": 8, "epochs": 100, "lr": 0.03, "random_state": 0}
QUICK: dict[str, Any] = {"units": 6, "epochs": 2, "random_state": 0}
EXPECTED = {
    "check_methods_subset_invariance": (
        "the network computes in float32, and an answer differs by a few units of the last digit "
        "with the samples beside it; the check asks for 1e-7"
    ),
}


@pytest.mark.slow
@parametrize_with_checks(
    [LiquidClassifier(**LEARNS), LiquidRegressor(**LEARNS)],
    # Probabilities are close enough.
    expected_failed_checks=lambda estimator: (
        EXPECTED if isinstance(estimator, LiquidRegressor) else {}
    ),
)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def sequences(count: int = 24, steps: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(count, steps, 2))
    return X, X[:, -1, 0] + X[:, 0, 1]


def test_what_is_behind_the_lengths_does_not_matter() -> None:
    X, y = sequences()
    lengths = np.arange(24) % 4 + 3
    behind = np.arange(6) >= lengths[:, None]
    other = np.where(behind[..., None], 1e3, X)
    for estimator, labels in (
        (LiquidClassifier(**QUICK), (y > 0).astype(int)),
        (LiquidRegressor(**QUICK, cell="cfc"), np.stack([y, -y], axis=1)),
    ):
        estimator.fit(X, labels, lengths=lengths)
        found = estimator.predict(X, lengths=lengths)
        assert np.shape(found) == np.shape(labels)
        np.testing.assert_array_equal(found, estimator.predict(other, lengths=lengths))
        again = clone(estimator).fit(other, labels, lengths=lengths)
        np.testing.assert_array_equal(found, again.predict(X, lengths=lengths))


def test_time_steps_are_read() -> None:
    X, y = sequences()
    timespans = np.random.default_rng(1).uniform(0.1, 2, (24, 6))
    model = LiquidRegressor(**QUICK).fit(X, y, timespans=timespans)
    assert (model.predict(X, timespans=timespans) != model.predict(X)).all()
    with pytest.raises(ValueError, match=r"timespans: expected shape \(24, 6\), got \(24, 5\)"):
        model.predict(X, timespans=timespans[:, :5])
    with pytest.raises(ValueError, match="lengths: expected integers from 1 to T = 6"):
        model.predict(X, lengths=np.full(24, 7))


def test_gaps_are_masked_where_the_training_had_some() -> None:
    X, y = sequences()
    gaps = X.copy()
    gaps[::2, 2:4] = np.nan
    model = LiquidRegressor(**QUICK).fit(gaps, y)
    assert np.isfinite(model.predict(gaps)).all()
    # A value that was measured is another matter than one that was carried on.
    held = X.copy()
    held[::2, 2:4] = X[::2, 1:2]
    assert (model.predict(held)[::2] != model.predict(gaps)[::2]).all()
    with pytest.raises(
        ValueError, match="X contains NaN, which LiquidRegressor was fitted without"
    ):
        LiquidRegressor(**QUICK).fit(X, y).predict(gaps)


def test_pipelines_and_searches() -> None:
    X, y = sequences()
    flat = X.reshape(24, -1)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LiquidClassifier(**QUICK)),
        {"liquidclassifier__units": [5, 7], "liquidclassifier__cell": ["ltc", "cfc"]},
        cv=2,
    )
    search.fit(flat, np.where(y > 0, "up", "down"))
    assert set(search.predict(flat)) <= {"up", "down"}
    assert search.best_params_["liquidclassifier__units"] in (5, 7)


def test_a_fit_leaves_the_generator_of_torch_alone_and_can_be_stored() -> None:
    X, y = sequences()
    before = torch.get_rng_state()
    model = LiquidRegressor(**QUICK, validation_fraction=0.25, patience=1).fit(X, y)
    assert torch.equal(before, torch.get_rng_state())
    assert [record["epoch"] for record in model.history_] == [1, 2][: model.n_iter_]
    stored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(stored.predict(X), model.predict(X))


def test_sequences_of_other_shapes_than_in_fit() -> None:
    X, y = sequences()
    model = LiquidRegressor(**QUICK).fit(X, y)
    # Any number of steps, but the same features.
    assert model.predict(X[:, :3]).shape == (24,)
    with pytest.raises(ValueError, match="X has 1 features, but LiquidRegressor is expecting 2"):
        model.predict(X[..., :1])
    with pytest.raises(ValueError, match=r"X: expected \[n, T, 2\]"):
        model.predict(X[:, :2, 0])


@pytest.mark.parametrize("forecast", ["direct", "recursive"])
def test_a_forecaster_learns_a_wave(forecast: str) -> None:
    X = np.stack([np.sin(0.5 * np.arange(160)), np.cos(0.5 * np.arange(160))], axis=1)
    model = LiquidForecaster(
        3, 10, forecast=forecast, units=10, epochs=15, lr=0.02, random_state=0
    ).fit(X[:120])
    assert model.predict(X[:120]).shape == (3, 2)
    assert model.score(X[120:]) > 0.9
    assert np.abs(model.predict(X[:120]) - X[120:123]).max() < 0.5


@pytest.mark.parametrize(("name", "value"), [("forecast", "recursive"), ("difference", False)])
def test_patches_refuse_what_they_do_not_do(name: str, value: object) -> None:
    model = LiquidForecaster(2, 8, patch=4).set_params(**{name: value})
    with pytest.raises(ValueError, match=f"patch: with 4, .* got .*{name}={value!r}"):
        model.fit(np.sin(np.arange(40.0)))


@pytest.mark.parametrize("cell", ["ltc", "cfc"])
def test_a_forecaster_that_reads_patches_learns_a_wave(cell: str) -> None:
    X = np.stack([np.sin(0.5 * np.arange(160)), np.cos(0.5 * np.arange(160))], axis=1)
    model = LiquidForecaster(
        3, 12, cell=cell, patch=4, units=10, encoder=10, epochs=15, lr=0.02, random_state=0
    ).fit(X[:120])
    assert isinstance(model.model_, Patches)
    assert model.score(X[120:]) > 0.9


def test_options_of_a_training_by_name() -> None:
    X = np.random.default_rng(0).normal(size=(30, 6, 2))
    given = {"conductances": "fan-in", "pool": "last-and-mean", "clip": 4.0, "warmup": 1.0}
    model = LiquidRegressor(options=given, **QUICK).fit(X, X[:, -1, 0])
    assert model.model_.clip == 4.0
    assert model.model_.mean_too
    search = GridSearchCV(LiquidRegressor(**QUICK), {"options": [None, given]}, cv=2)
    assert search.fit(X, X[:, -1, 0]).best_params_.keys() == {"options"}
    for wrong, why in (("lr", "a parameter of its own"), ("lrr", "unknown")):
        with pytest.raises(ValueError, match=f"options: expected .* got '{wrong}', {why}"):
            LiquidRegressor(options={wrong: 1}, **QUICK).fit(X, X[:, -1, 0])
    with pytest.raises(ValueError, match="clip: expected a finite number above 0"):
        LiquidRegressor(options={"clip": -1.0}, **QUICK).fit(X, X[:, -1, 0])


def test_forecasts_of_many_recordings_with_quantiles_and_what_is_known() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 20, 2)).cumsum(axis=1)
    X[0, 4] = np.nan
    X[:, :, 1] = np.arange(20) % 7
    model = LiquidForecaster(2, 5, quantiles="0.1,0.5,0.9", known=[1], **QUICK)
    model.fit(X, lengths=[20, 12, 9])
    future = np.zeros((3, 2, 1))
    found = model.predict(X, future=future, lengths=[20, 12, 9])
    assert found.shape == (3, 2, 1, 3)
    assert (np.diff(found, axis=-1) >= 0).all()
    with pytest.raises(ValueError, match=r"future: expected \[2, 1\]"):
        model.predict(X)
    with pytest.raises(ValueError, match="X: expected at least window = 5 steps, got 4"):
        model.predict(X[:, :4], future=future)
    with pytest.raises(ValueError, match=r"window \+ horizon = 7 steps, got n_samples = 6"):
        clone(model).fit(X[:, :6])


def test_a_search_over_forecasters() -> None:
    X = np.sin(0.5 * np.arange(60))[:, None]
    search = GridSearchCV(
        LiquidForecaster(1, 6, **QUICK), {"difference": [True, False]}, cv=TimeSeriesSplit(2)
    )
    assert search.fit(X).best_estimator_.predict(X).shape == (1, 1)
