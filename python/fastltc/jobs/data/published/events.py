"""``xor`` and ``event-mnist``: what changes, and how long ago, in place of every step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..mnist import load_mnist
from ..options import DataOptions
from ..partition import partition
from ..sets import DataSet, Split, check_splits

# Events that a sequence has at most; the time step is a count of steps divided by it.
XOR_EVENTS, MNIST_EVENTS = 32, 256
_MADE = {"train": (100_000, 1234984), "test": (10_000, 48736)}


def load_xor(options: DataOptions) -> DataSet:
    """The parity of random strings of 2 to 31 bits, of which runs of equal bits are one event.

    An event is the bit that a run begins with and the time since the event before; the end of the
    last run is one, too, unless it has one bit only. Nothing is read: the strings are drawn,
    100,000 to train and 10,000 to test; validation is a tenth of the training strings.

    Source: M. Lechner, R. Hasani, "Learning long-term dependencies in irregularly-sampled time
    series", 2020; R. Hasani et al., "Closed-form continuous-time neural networks", Nature Machine
    Intelligence 4, 2022.
    """
    made = {name: _strings(*given) for name, given in _MADE.items()}
    where = np.array(partition(made["train"].labels.tolist(), (0.9, 0.1, 0), options.split_seed))
    splits = {name: made["train"].take(where == name) for name in ("train", "val")}
    remark = f"validation: 10 % of the training strings, stratified, seed {options.split_seed}"
    data = DataSet(
        "xor",
        ("even", "odd"),
        splits | {"test": made["test"]},
        "drawn at random",
        positive=1,
        remarks=(remark,),
        features=("bit",),
        time_unit=1.0,
    )
    return check_splits(data)


def _strings(count: int, seed: int) -> Split:
    rng = np.random.RandomState(seed)
    string = np.full((count, XOR_EVENTS - 1), -1)
    length = np.zeros(count, np.int64)
    for place in range(count):
        length[place] = rng.randint(2, XOR_EVENTS)
        string[place, : length[place]] = rng.randint(0, 2, length[place])
    event = np.diff(string, axis=1, prepend=-1) != 0
    event &= string >= 0
    # The end of the last run.
    event[np.arange(count), length - 1] = True
    bits, timespans, lengths = _of_changes(string, event, XOR_EVENTS)
    return Split(bits, (string > 0).sum(axis=1) % 2, timespans, lengths=lengths)


def _of_changes(
    states: NDArray[Any], event: NDArray[np.bool_], most: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """The states at the first ``most`` events of each row, the time since the last, and how many.

    Times are in units of ``most`` steps.
    """
    row, step = np.nonzero(event)
    first = np.concatenate([[0], np.cumsum(event.sum(axis=1))[:-1]])
    place = np.arange(len(row)) - first[row]
    spans = np.diff(step, prepend=-1)
    spans[place == 0] = step[place == 0] + 1
    kept = place < most
    row, step, place = row[kept], step[kept], place[kept]
    bits = np.zeros((len(states), most, 1), np.float32)
    timespans = np.zeros((len(states), most), np.float32)
    bits[row, place, 0] = states[row, step]
    timespans[row, place] = spans[kept] / np.float32(most)
    return bits, timespans, np.bincount(row, minlength=len(states)).astype(np.int64)


def load_event_mnist(options: DataOptions) -> DataSet:
    """MNIST pixel by pixel, of which runs of black or white are one event, 256 at most.

    A pixel is white above 128. The time step is the number of pixels since the event before,
    divided by 256; the run that ends the image is no event of its own. Splits are those of
    ``mnist``: 54,000, 6,000 and 10,000.

    Raises:
        DataError: a file is missing or another one.

    Source: see `load_xor`.
    """
    images = load_mnist(options)
    splits = {name: _events(part) for name, part in images.splits.items()}
    return check_splits(
        DataSet(
            "event-mnist",
            images.classes,
            splits,
            images.source,
            remarks=images.remarks,
            features=("white",),
            time_unit=1.0,
        )
    )


def _events(images: Split) -> Split:
    pixels: NDArray[Any] = images.inputs
    white = pixels.reshape(len(images), -1) > 128
    changed = np.ones(white.shape, bool)
    changed[:, 1:] = white[:, 1:] != white[:, :-1]
    bits, timespans, lengths = _of_changes(white, changed, MNIST_EVENTS)
    return Split(bits, images.labels, timespans, images.names, lengths)
