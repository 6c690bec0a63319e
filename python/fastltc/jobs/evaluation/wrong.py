"""The examples that a classifier is most wrong about, as a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...inspect.figure import shortened
from .. import plots
from ..data import IGNORED, Split
from ..run import Checkpoint

_MOST = 12


def wrong_picture(
    loaded: Checkpoint, part: Split, scores: NDArray[np.float64], title: str
) -> bytes | None:
    """Images or sequences with the least probability of their class; None where none is wrong.

    Of a sequence whose rows have a class each, the mean over those that are judged counts. Vectors,
    and examples of several labels, have no picture.
    """
    if loaded.multilabel or part.inputs.ndim < 3:
        return None
    labels = part.labels.reshape(len(part), -1)
    each = scores.reshape(*labels.shape, -1)
    judged = labels != IGNORED
    given = np.take_along_axis(each, np.where(judged, labels, 0)[..., None], axis=-1)[..., 0]
    wrong = judged & (each.argmax(axis=-1) != labels)
    candidates = np.flatnonzero(wrong.any(axis=1))
    if not len(candidates):
        return None
    mean = np.where(judged, given, 0).sum(axis=1) / np.maximum(judged.sum(axis=1), 1)
    chosen = candidates[np.argsort(mean[candidates], kind="stable")][:_MOST]

    def caption(place: int) -> str:
        name = shortened(part.names[place] if part.names else str(place), 34)
        if labels.shape[1] > 1:
            count = f"{int(wrong[place].sum())} of {int(judged[place].sum())} rows wrong"
            return f"{name}\n{count}, mean probability {mean[place]:.2f}"
        true = loaded.classes[int(labels[place, 0])]
        answer = loaded.classes[int(each[place, 0].argmax())]
        return f"{name}\n{shortened(true, 16)} taken for {shortened(answer, 16)}, {mean[place]:.2f}"

    captions = [caption(int(place)) for place in chosen]
    title = f"{title}: most wrong, with the probability of the true class"
    if part.inputs.ndim == 4:
        return plots.wrong_images(part.inputs[chosen], captions, title=title, of=loaded.origin)
    return plots.wrong_series(
        [_shown(part, int(place)) for place in chosen],
        captions,
        loaded.features,
        title=title,
        of=loaded.origin,
    )


def _shown(part: Split, place: int) -> NDArray[np.float64]:
    """The rows of a sequence without padding; what was not measured is a gap."""
    length = None if part.lengths is None else int(part.lengths[place])
    rows = part.inputs[place, :length].astype(np.float64)
    if part.measured is not None:
        rows = np.where(part.measured[place, :length], rows, np.nan)
    return rows
