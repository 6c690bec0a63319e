"""One class, or values, for each sequence."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d

from .base import Array, Liquid


class LiquidClassifier(ClassifierMixin, Liquid):
    """Tells classes of sequences apart by a liquid layer: one class for each sequence.

    Args:
        cell: ``"ltc"``, ``"cfc"``, or ``"lstm"`` to compare with.
        units: neurons.
        wiring: ``"full"``, ``"random"`` (with ``sparsity``) or ``"ncp"``; ``"none"`` for a CfC with
            a backbone.
        sparsity: share of the synapses that a random wiring lacks.
        mixed_memory: an LSTM cell before the liquid one.
        encoder: features that a step is mapped to first; 0 for the step itself.
        dropout: share of what the readout sees that is left out in training.
        loss: None for the usual one, cross-entropy or mean square error; of values ``"mae"``,
            ``"huber"``.
        epochs, batch_size, optimizer, lr, weight_decay, schedule, clip_norm: of the training, see
            ``fastltc train``, whose defaults lr and clip_norm of None are.
        lr_erev, lr_sigma, lr_mu: factors on the learning rate of parameters of LTC.
        validation_fraction: share of the sequences by whose loss the best epoch is chosen; 0 for
            none, and the last epoch.
        patience: epochs without a better one after which training ends.
        random_state: of parameters and order.
        device: torch device.
        options: further options of ``fastltc train`` (docs/training.md has a table), by name, such
            as ``{"pool": "last-and-mean", "clip": 4.0}``; None for none.

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
        y = column_or_1d(self._targets(y), warn=True)
        check_consistent_length(rows, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least 2 classes, got 1 class ({self.classes_[0]!r})")
        train = self._split(rows, labels.astype(np.int64), timespans, lengths, reset=True)
        names = tuple(map(str, self.classes_))
        self._fit(self._config(), train, labels, classes=names)
        return self

    def predict_proba(
        self, X: ArrayLike, timespans: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> Array:
        """The probability of each class, ``[n, classes]``; arguments as of `fit`."""
        logits = torch.from_numpy(self._outputs(self._asked(X, timespans, lengths)))
        found: Array = logits.softmax(dim=-1).numpy()
        return found

    def predict(
        self, X: ArrayLike, timespans: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> Array:
        """The most probable class, ``[n]``; arguments as of `fit`."""
        found = self.predict_proba(X, timespans, lengths).argmax(axis=1)
        classes: Array = self.classes_[found]
        return classes


class LiquidRegressor(RegressorMixin, Liquid):
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
        values = check_array(self._targets(y), dtype="numeric", ensure_2d=False, input_name="y")
        check_consistent_length(rows, values)
        self._flat = values.ndim == 1
        values = values.reshape(len(values), -1).astype(np.float32)
        train = self._split(rows, values, timespans, lengths, reset=True)
        targets = tuple(f"y{place}" for place in range(values.shape[1]))
        self._fit(self._config(), train, targets=targets)
        return self

    def predict(
        self, X: ArrayLike, timespans: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> Array:
        """The values, ``[n]`` or ``[n, K]`` as in `fit`."""
        found = self._outputs(self._asked(X, timespans, lengths))
        return found[:, 0] if self._flat else found

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
