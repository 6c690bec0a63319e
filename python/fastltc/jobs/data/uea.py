"""``ts:FILE``, files of the UEA and UCR archives, and two of their sets; aeon reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import open_regular
from . import series
from .options import DataOptions
from .rows import rows_of
from .sets import DataSet

# Sets that come with aeon, and the names of their functions.
SHIPPED = {"japanesevowels": "load_japanese_vowels", "basicmotions": "load_basic_motions"}

# Sequences [I, T], a class or a value for each, and the split of each where it is known.
_Read = tuple[list[Any], list[Any], list[str]]


def load_shipped(name: str, options: DataOptions) -> DataSet:
    """A set of the UEA archive that is in aeon: one class for each sequence.

    ``japanesevowels``: nine speakers, 270 and 370 utterances of 7 to 29 rows of 12 coefficients;
    ``basicmotions``: four activities, 40 and 40 recordings of 100 rows of six sensors. Validation
    is a tenth of the training sequences.

    Raises:
        DataError: aeon is not installed.

    Source: A. Bagnall et al., "The UEA multivariate time series classification archive", 2018; M.
    Kudo et al., "Multidimensional curve classification using passing-through regions", Pattern
    Recognition Letters 20, 1999.
    """
    load = getattr(_aeon(name), SHIPPED[name])
    read: _Read = ([], [], [])
    for split in ("train", "test"):
        sequences, classes = load(split=split)
        _append(read, sequences, classes, split)
    return _data(read, name, "aeon", options)


def load_ts(path: Path, options: DataOptions) -> DataSet:
    """A ``.ts`` file: sequences of any length with one class, or one value, for each.

    ``NAME_TRAIN.ts`` and ``NAME_TEST.ts`` in one folder are the splits, of which either may be
    named; validation is a tenth of the training sequences. Another file is split here.

    Raises:
        DataError: aeon is not installed, or a file is missing or is none that it reads.
    """
    datasets = _aeon(str(path))
    read: _Read = ([], [], [])
    names = [path.name.replace(word, "{}") for word in ("_TRAIN", "_TEST") if word in path.name]
    values = False
    if names:
        for word, split in (("_TRAIN", "train"), ("_TEST", "test")):
            values |= _read(path.with_name(names[0].format(word)), split, read, datasets)
    else:
        values = _read(path, "", read, datasets)
    return _data(read, f"ts:{path}", str(path), options, values=values)


def _aeon(name: str) -> Any:
    try:
        from aeon import datasets
    except ModuleNotFoundError:
        raise DataError(f"{name}: aeon reads it: pip install 'fastltc[aeon]'") from None
    return datasets


def _read(path: Path, split: str, read: _Read, datasets: Any) -> bool:
    """Whether each sequence has a value, no class."""
    try:
        with open_regular(path):
            pass
        found, answers, about = datasets.load_from_ts_file(str(path), return_meta_data=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    # What aeon does not read raises OSError, ValueError, IndexError and others.
    except Exception as error:
        text = " ".join(str(error).split())
        raise DataError(f"{path}: not a .ts file that aeon reads: {text:.300}") from None
    if not about.get("classlabel") and not about.get("targetlabel"):
        raise DataError(f"{path}: expected a class or a value for each sequence, got none")
    _append(read, found, answers, split)
    return bool(about.get("targetlabel"))


def _append(read: _Read, sequences: Any, answers: Any, split: str) -> None:
    read[0].extend(np.asarray(one).T for one in sequences)
    read[1].extend(answers)
    read[2].extend([split] * len(sequences) if split else [])


def _data(
    read: _Read, name: str, source: str, options: DataOptions, *, values: bool = False
) -> DataSet:
    sequences, answers, splits = read
    widths = {one.shape[1] for one in sequences}
    if len(widths) != 1:
        raise DataError(f"{source}: expected sequences with as many inputs each, got {widths}")
    features = [f"x{place}" for place in range(widths.pop())]
    targets = ("value",) if values else ()
    found = np.array(answers, np.float32)[:, None] if values else answers
    rows = rows_of(sequences, found, splits, features, source, options, targets)
    return series.assemble(rows, name, source, replace(options, label_per="recording"))
