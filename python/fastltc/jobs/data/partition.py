"""Splits: stratified by class, seeded, and whole groups on one side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..defaults import SHARES
from ..errors import DataError
from ..options import FROM_0
from .sets import SPLITS


def partition(
    labels: Sequence[Hashable],
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
    fixed: Sequence[str | None] | None = None,
) -> list[str]:
    """Allots examples to train, val and test, each with the same share of every class.

    Without groups the shares are exact but for rounding. Whole groups are allotted from the
    largest to the smallest, each to the split that lacks most of its classes, which no
    scikit-learn splitter does for three given shares.

    Args:
        labels: the class of each example.
        shares: of train, val and test; they sum to 1, and a share of 0 leaves a split empty.
        seed: decides which examples go where.
        groups: examples of equal group go to the same split, and one whose group is None or empty
            is a group of its own; None for no groups.
        fixed: the split of examples that are not to be moved, None for the others. They count
            towards the shares.

    Returns:
        The split of each example.

    Raises:
        DataError: the shares or the seed are impossible, or a class has fewer examples (groups)
            than there are splits.
    """
    shares = tuple(float(share) for share in shares)
    # Every comparison with NaN is false.
    if len(shares) != 3 or not min(shares) >= 0 or not abs(sum(shares) - 1) <= 1e-6:
        raise DataError(
            "shares: expected three numbers from 0 that sum to 1, got "
            + ", ".join(map(str, shares))
        )
    FROM_0.check("seed", seed, DataError)
    count = len(labels)
    keys: Sequence[Hashable] = range(count)
    if groups is not None:
        keys = [
            ("alone", index) if group in (None, "") else group for index, group in enumerate(groups)
        ]
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        members[key].append(index)
    kinds = sorted({str(label) for label in labels})
    place = {kind: number for number, kind in enumerate(kinds)}
    of = np.array([place[str(label)] for label in labels], dtype=np.int64)
    asked = [number for number, share in enumerate(shares) if share > 0]
    if fixed is None:
        _check_classes(of, kinds, members, len(asked), grouped=groups is not None)

    found: list[str] = [""] * count
    held = np.zeros((3, len(kinds)))
    open_groups = []
    for key, indices in members.items():
        where = None if fixed is None else fixed[indices[0]]
        if where is None:
            open_groups.append(key)
            continue
        for index in indices:
            found[index] = where
            held[SPLITS.index(where), of[index]] += 1
    wanted = np.array(shares)[:, None] * np.bincount(of, minlength=len(kinds))[None]

    order = np.random.default_rng(seed).permutation(len(open_groups))
    shuffled = [open_groups[number] for number in order]
    shuffled.sort(key=lambda key: -len(members[key]))
    contents = {key: np.bincount(of[members[key]], minlength=len(kinds)) for key in shuffled}
    left = sum((counts > 0 for counts in contents.values()), np.zeros(len(kinds), np.int64))
    for key in shuffled:
        best = _best_split(wanted, held, contents[key], left, asked)
        held[best] += contents[key]
        left = left - (contents[key] > 0)
        for index in members[key]:
            found[index] = SPLITS[best]
    return found


def _best_split(
    wanted: NDArray[Any],
    held: NDArray[Any],
    contents: NDArray[Any],
    left: NDArray[Any],
    asked: Sequence[int],
) -> int:
    """The split that comes closest to what it should hold by taking these classes.

    As long as a class has no more groups left than there are splits without it, only those splits
    are considered.
    """
    present = np.flatnonzero(contents)
    choices = list(asked)
    for kind in present:
        without = [number for number in asked if held[number, kind] == 0]
        if without and len(without) >= left[kind]:
            choices = [number for number in choices if number in without] or without
    scores = []
    for number in choices:
        error = held[number, present] - wanted[number, present]
        change = (2 * error + contents[present]) * contents[present]
        share = np.maximum(wanted[number, present], 1e-9)
        scores.append((float((change / share).sum()), -wanted[number].sum(), number))
    return min(scores)[2]


def _check_classes(
    of: NDArray[np.int64],
    kinds: Sequence[str],
    members: dict[Hashable, list[int]],
    splits: int,
    *,
    grouped: bool,
) -> None:
    present = (np.bincount(np.unique(of[own]), minlength=len(kinds)) for own in members.values())
    having = sum(present, np.zeros(len(kinds), np.int64))
    for kind, count in zip(kinds, having, strict=True):
        if count < splits:
            what = "groups" if grouped else "examples"
            raise DataError(
                f"class {kind!r} has {count} {what}; at least {splits} are needed to have it in "
                "every split"
            )
