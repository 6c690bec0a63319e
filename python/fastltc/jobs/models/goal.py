"""What a model is to answer: classes or values, of a sequence, of its steps or ahead of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..data import DataSet
from ..data.sets import task_of


@dataclass(frozen=True)
class Goal:
    """The task of a model, in sizes; see `fastltc.jobs.data.DataSet` for its words.

    Args:
        task: ``"classification"``, ``"regression"`` or ``"forecasting"``.
        outputs: classes, or targets K.
        per_step: every row of a time series is answered, else the sequence as a whole.
        horizon: steps to forecast, H.
        known: features that are known of these steps, F.
        quantiles: of each target, in rising order; empty for one value of each.
        masked: rows come with what of them was measured.
        own: places of the targets among the inputs, ``(-1)`` for one that is not there.
        given: places of the features known in advance among the inputs, or ``-1``.
    """

    task: str = "classification"
    outputs: int = 2
    per_step: bool = True
    horizon: int = 0
    known: int = 0
    quantiles: tuple[float, ...] = ()
    masked: bool = False
    own: tuple[int, ...] = ()
    given: tuple[int, ...] = ()

    @property
    def of_values(self) -> bool:
        """Whether values are answered, not classes."""
        return self.task != "classification"

    @property
    def in_words(self) -> str:
        """The task as an error names it."""
        if self.horizon:
            return "forecasting"
        return f"{self.task} of {'every step' if self.per_step else 'whole sequences'}"

    @classmethod
    def make(
        cls,
        *,
        classes: Sequence[str],
        targets: Sequence[str] = (),
        features: Sequence[str] = (),
        horizon: int = 0,
        known: Sequence[str] = (),
        per_step: bool = True,
        measured: bool = False,
        quantiles: tuple[float, ...] = (),
    ) -> Goal:
        """The goal by the names that a data set or a checkpoint has."""
        places = {name: place for place, name in enumerate(features)}
        return cls(
            task_of(targets, horizon),
            len(targets) or len(classes),
            per_step,
            horizon,
            len(known),
            quantiles if targets else (),
            measured,
            tuple(places.get(name, -1) for name in targets),
            tuple(places.get(name, -1) for name in known),
        )

    @classmethod
    def of(cls, data: DataSet, quantiles: tuple[float, ...] = ()) -> Goal:
        """The goal of a data set."""
        return cls.make(
            classes=data.classes,
            targets=data.targets,
            features=data.features,
            horizon=data.horizon,
            known=data.known,
            per_step=data.per_step,
            measured=data.splits["train"].measured is not None,
            quantiles=quantiles,
        )
