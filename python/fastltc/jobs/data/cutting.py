"""Rows in three splits, and their sequences: nothing of a split or of the future in another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..defaults import SHARES
from ..errors import DataError
from .options import DataOptions
from .partition import partition
from .rows import Recording, Rows
from .sets import IGNORED, SPLITS, WHOLE, Split
from .windows import CHUNK, Windows, new_array

# Rows of a sequence where nothing is asked for.
WINDOW = 32

Parts = dict[str, list[Recording]]


def split_rows(rows: Rows, source: str, options: DataOptions) -> tuple[Parts, str]:
    """The recordings of each split, or the parts of them, and a remark on how that was done.

    What says the split of every row decides; else ``options.split_by``.

    Raises:
        DataError: a split has no rows, or there are too few recordings to split.
    """
    if rows.splits is not None:
        return _by_column(rows, source, options)
    if options.whole:
        return dict.fromkeys(SPLITS, rows.recordings), WHOLE
    by = options.split_by or ("recording" if rows.roles.recording else "time")
    if by == "recording":
        return _by_recording(rows, source, options)
    if by == "windows":
        seed = options.split_seed
        return {"train": rows.recordings}, f"windows split 70/10/20 at random, seed {seed}"
    return _by_time(rows)


def _by_column(rows: Rows, source: str, options: DataOptions) -> tuple[Parts, str]:
    assert rows.splits is not None
    parts: Parts = {name: [] for name in SPLITS}
    for recording in rows.recordings:
        words = rows.splits[recording.start : recording.stop]
        bounds = [0, *(np.flatnonzero(np.diff(words)) + 1).tolist(), len(words)]
        for start, stop in itertools.pairwise(bounds):
            parts[SPLITS[words[start]]].append(recording.part(start, stop))
    missing = [name for name in SPLITS if not parts[name]]
    remark = ""
    if missing == ["val"] and rows.roles.recording:
        held, how = _allot(rows, parts["train"], (0.9, 0.1, 0.0), source, options)
        parts |= {"train": held["train"], "val": held["val"]}
        remark = f"validation: 10 % of the training recordings, {how}"
    elif missing:
        raise DataError(
            f"{source}: its splits are those of a column, which has no {missing[0]} rows; "
            "expected train, val and test"
        )
    if not rows.roles.split:
        return parts, remark
    counts = ", ".join(f"{len(runs)} {name}" for name, runs in parts.items())
    how = f"split by a column: runs of rows of one split: {counts}"
    return parts, f"{how}; {remark}" if remark else how


def _by_recording(rows: Rows, source: str, options: DataOptions) -> tuple[Parts, str]:
    recordings = rows.recordings
    if len(recordings) < len(SPLITS):
        found = "one recording only" if len(recordings) == 1 else f"{len(recordings)} recordings"
        raise DataError(
            f"{source}: {found}, which cannot be in three splits; --split-by time cuts along time"
        )
    parts, how = _allot(rows, recordings, SHARES, source, options)
    return parts, f"split 70/10/20 here, whole recordings, {how}"


def _allot(
    rows: Rows,
    recordings: Sequence[Recording],
    shares: Sequence[float],
    source: str,
    options: DataOptions,
) -> tuple[Parts, str]:
    """The split of each recording, by chance, and how that was done."""
    stratified = options.label_per == "recording" and not rows.roles.targets
    kinds = [
        str(rows.labels[recording.start]) if stratified else "recording" for recording in recordings
    ]
    grouped = [recording.group for recording in recordings] if rows.roles.group else None
    try:
        found = partition(kinds, shares, options.split_seed, grouped)
    except DataError as error:
        raise DataError(f"{source}: {error}; --split-by time cuts along time") from None
    parts: Parts = {name: [] for name in SPLITS}
    for recording, where in zip(recordings, found, strict=True):
        parts[where].append(recording)
    how = f"{'' if stratified else 'not '}stratified, seed {options.split_seed}"
    return parts, f"{how}, whole groups by {rows.roles.group!r}" if grouped else how


def _by_time(rows: Rows) -> tuple[Parts, str]:
    shares = list(itertools.accumulate(SHARES))
    parts: Parts = {name: [] for name in SPLITS}
    several = len(rows.recordings) > 1 and bool(rows.roles.time)
    if several:
        # One moment for all, so that no recording tells what is to come in another.
        places = [round(share * len(rows.times)) for share in shares[:-1]]
        moments = np.partition(rows.times, places)[places]
    for recording in rows.recordings:
        count = recording.stop - recording.start
        ends = [round(share * count) for share in shares]
        if several:
            own = rows.times[recording.start : recording.stop]
            ends = [*np.searchsorted(own, moments).tolist(), count]
        for name, (start, stop) in zip(SPLITS, itertools.pairwise([0, *ends]), strict=True):
            if start < stop:
                parts[name].append(recording.part(start, stop))
    if several:
        return parts, (
            "split along time, at the same moments in all recordings: the first 70 % of all rows, "
            "the next 10 %, the last 20 %"
        )
    return parts, "split along time: the first 70 % of the rows, the next 10 %, the last 20 %"


def steps_of(times: NDArray[np.float64], parts: Sequence[Recording]) -> Iterator[NDArray[Any]]:
    """Seconds from row to row within recordings, some at a time."""
    for part in parts:
        for start in range(part.start, part.stop - 1, CHUNK):
            yield np.diff(times[start : min(start + CHUNK + 1, part.stop)])


def time_steps(
    times: NDArray[np.float64], parts: Sequence[Recording], unit: float
) -> NDArray[np.float32]:
    """The time since the row before, in units, ``[R]``; 1 in the first row of each part."""
    found = new_array(times.shape, np.float32)
    for start in range(0, len(times), CHUNK):
        own = times[max(start - 1, 0) : start + CHUNK]
        steps = np.diff(own, prepend=own[:1] if start == 0 else [])
        found[start : start + CHUNK] = steps / unit
    for part in parts:
        found[part.start] = 1
    return found


def rows_of_windows(parts: Parts, rows: Rows, options: DataOptions) -> int:
    """Rows of a sequence: as asked for, but no more than any recording has."""
    longest = max((part.stop - part.start for own in parts.values() for part in own), default=0)
    if options.label_per == "recording" and options.window is None:
        return longest
    window = options.window or WINDOW
    # One long recording that is too short is an error; of many the short ones are filled up.
    return min(window, max(longest - (options.horizon or 0), 1)) if rows.roles.recording else window


def cut(
    rows: Rows,
    parts: Sequence[Recording],
    split: str,
    options: DataOptions,
    window: int,
    timespans: NDArray[np.float32] | None,
) -> Split:
    """Cuts recordings into sequences of ``window`` rows.

    The last sequence of a recording ends on its last row. Training sequences start every
    ``options.stride`` rows and every row of theirs is learned; elsewhere they start every
    ``window`` rows (of a forecast: every ``horizon`` rows), and rows that the sequence before has
    already are not judged again.

    Args:
        rows: of all splits.
        parts: recordings of this split; no sequence crosses from one to the next.
        split: its name; ``windows`` where all windows are one split that is divided later.
        options: ``stride``, ``horizon`` and ``label_per``.
        window: rows of a sequence, T.
        timespans: of all rows, ``[R]``.

    Raises:
        DataError: a recording is too short.
    """
    horizon = options.horizon or 0
    whole = options.label_per == "recording" and options.window is None
    apart = horizon or window
    if split in ("train", "windows"):
        apart = options.stride or (1 if horizon else window)
    starts, lengths, hidden, names = [], [], [], []
    for part in parts:
        most = part.stop - part.start - horizon
        if not whole and most < window and not rows.roles.recording:
            ahead = f" and {horizon} to forecast (--horizon)" if horizon else ""
            raise DataError(
                f"{part.name}: from row {part.start - part.origin + 1} on its {split} part has "
                f"{most + horizon} rows, fewer than the window of {window} (--window){ahead}"
            )
        if most < 1:
            continue
        length = most if whole else min(window, most)
        own = np.arange(0, most - length + 1, apart)
        if own[-1] + length < most:
            own = np.append(own, most - length)
        overlap = np.zeros(len(own), np.int64)
        if split in ("val", "test"):
            overlap[1:] = np.maximum((horizon or length) - np.diff(own), 0)
        starts.append(own + part.start)
        lengths.append(np.full(len(own), length))
        hidden.append(overlap)
        names += [f"{part.name}:{first}" for first in own + (part.start - part.origin + 1)]
    if not starts:
        longest = max((part.stop - part.start for part in parts), default=0)
        raise DataError(
            f"{parts[0].name if parts else 'the data'}: the longest recording of the {split} "
            f"split has {longest} rows; expected more than the {horizon} to forecast (--horizon)"
        )
    return _draw(
        rows, options, window, timespans, np.concatenate(starts), np.concatenate(lengths),
        np.concatenate(hidden), tuple(names),
    )  # fmt: skip


def _draw(
    rows: Rows,
    options: DataOptions,
    window: int,
    timespans: NDArray[np.float32] | None,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    hidden: NDArray[np.int64],
    names: tuple[str, ...],
) -> Split:
    """The windows that begin with these rows, and what is to be predicted of them."""
    values = bool(rows.roles.targets)
    answers: NDArray[Any] = rows.wanted if values else rows.labels
    unknown = np.nan if values else IGNORED
    single = options.label_per in ("recording", "window")
    if single:
        # The last row of a window, and any of a recording.
        found = answers[starts + lengths - 1]
        known = ~np.isnan(found).all(axis=1) if values else found != IGNORED
        kept = np.flatnonzero(known)
        starts, lengths, hidden = starts[kept], lengths[kept], hidden[kept]
        names = tuple(names[place] for place in kept)
    short = None if (lengths == window).all() else lengths

    def drawn(array: NDArray[Any] | None) -> Any:
        return None if array is None else Windows(array, starts, window, short).drawn()

    future = None
    if options.horizon is not None:
        ends, horizon = starts + lengths, options.horizon
        labels = Windows(answers, ends, horizon, hidden=hidden, fill=unknown).drawn()
        if rows.roles.known:
            future = Windows(rows.ahead, ends, horizon).drawn()
    elif single:
        labels = answers[starts + lengths - 1]
    else:
        labels = Windows(answers, starts, window, short, hidden, unknown).drawn()
    measured = drawn(rows.measured)
    return Split(drawn(rows.values), labels, drawn(timespans), names, short, measured, future)


def settle_labels_of_recordings(rows: Rows) -> None:
    """Gives all rows of a recording the class, or the values, that some of them have.

    Raises:
        DataError: two of them differ; the text names the first row that does.
    """
    values = bool(rows.roles.targets)
    answers: NDArray[Any] = rows.wanted if values else rows.labels[:, None]
    for recording in rows.recordings:
        own = answers[recording.start : recording.stop]
        for place, name in enumerate(rows.roles.targets or (rows.roles.label,)):
            found = own[:, place]
            known = np.flatnonzero(~np.isnan(found) if values else found != IGNORED)
            if not len(known):
                continue
            first = found[known[0]]
            other = known[found[known] != first]
            if len(other):
                shown = [
                    f"{value:g}" if values else rows.classes[value]
                    for value in (first, found[other[0]])
                ]
                raise DataError(
                    f"{rows.locate(recording.start + int(other[0]))}: column {name!r}: expected "
                    f"{shown[0]} as in the rows of the recording before (--label-per recording), "
                    f"got {shown[1]}"
                )
            found[:] = first


def by_windows(split: Split, options: DataOptions) -> dict[str, Split]:
    """Divides windows at random, as some papers do: 70/10/20."""
    found = np.array(partition(["window"] * len(split), SHARES, options.split_seed))
    return {name: split.take(np.flatnonzero(found == name)) for name in SPLITS}
