"""``npz:FILE``: images, time series or vectors as NumPy arrays."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..defaults import SHARES
from ..errors import DataError
from ..files import open_regular
from .options import DataOptions
from .partition import partition
from .sets import SPLITS, WHOLE, DataSet, Split, check_splits
from .tables import check_classes_are_none_of_a_regression

# What the inputs and labels of a split may be called.
_LAYOUTS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"), ("X_{}", "y_{}"))
# Each class has its name, and a number in the answer for every example.
_MOST_CLASSES = 1 << 16
# A file may unpack to so many times its size, or to a gigabyte: real data does not come near it,
# and arrays of zeros, which do, teach nothing.
_MOST_PACKED = 100
_ALWAYS = 1 << 30
_WHOLE = (("images", "labels"), ("x", "y"), ("X", "y"), ("embeddings", "labels"))


def open_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file; nothing in it is unpickled.

    Raises:
        DataError: the file is missing, damaged or holds Python objects; the text names it.
    """
    try:
        with open_regular(path) as file:
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path}: not a readable .npz file: no zip archive")
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                return _read_arrays(archive, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    # Damaged members raise ValueError, BadZipFile, zlib.error, RuntimeError and others.
    except Exception as error:
        raise DataError(f"{path}: not a readable .npz file: {error}") from None


def _read_arrays(archive: zipfile.ZipFile, size: int) -> dict[str, NDArray[Any]]:
    """The arrays of a file of ``size`` bytes, once it is sure that they are what it says."""
    members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
    check_unpacked(sum(member.file_size for member in members), size)
    for member in members:
        with archive.open(member) as opened:
            shape, dtype = _header(opened)
            if dtype.hasobject:
                raise ValueError(f"{member.filename}: holds Python objects, which are not loaded")
            declared = math.prod(shape) * dtype.itemsize
            held = member.file_size - opened.tell()
            if declared != held:
                raise ValueError(
                    f"{member.filename}: {dtype} of shape {shape} are {declared:,} bytes, "
                    f"got {held:,}"
                )
    found = {}
    for member in members:
        with archive.open(member) as opened:
            array = np.lib.format.read_array(opened, allow_pickle=False)
            # Its check sum is compared where the member ends.
            opened.read(1)
        found[member.filename.removesuffix(".npy")] = array
    return found


def open_npy(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """The array of an ``.npy`` file; ``mapped`` for one that stays on the disk.

    Raises:
        DataError: the file is missing, damaged or holds Python objects; the text names it.
    """
    try:
        with open_regular(path) as file:
            shape, dtype = _header(file)
            declared, held = math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size
            held -= file.tell()
            if dtype.hasobject:
                raise ValueError("holds Python objects, which are not loaded")
            if declared != held:
                text = f"{dtype} of shape {shape} are {declared:,} bytes, got {held:,}"
                raise ValueError(text)
            file.seek(0)
            if not mapped:
                return np.lib.format.read_array(file, allow_pickle=False)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    # Damaged headers raise ValueError, SyntaxError, OverflowError and others.
    except Exception as error:
        raise DataError(f"{path}: not a readable .npy file: {error}") from None


def check_unpacked(whole: int, size: int) -> None:
    """Makes sure that a file of ``size`` bytes may hold ``whole`` bytes.

    Raises:
        ValueError: real data does not come near it.
    """
    most = max(_ALWAYS, _MOST_PACKED * size)
    if whole > most:
        raise ValueError(f"{size:,} bytes that unpack to {whole:,}, expected at most {most:,}")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"expected version 1.0 or 2.0 of the format, got {version}")
    shape, _, dtype = read[version](file)
    return shape, dtype


def array_of(arrays: Mapping[str, NDArray[Any]], name: str, path: Path) -> NDArray[Any]:
    """An array of numbers of a file.

    Raises:
        DataError: it is not there, and the text lists those that are; or it has no numbers.
    """
    if name not in arrays:
        held = ", ".join(arrays) or "none"
        raise DataError(f"{path}: array {name!r} is missing; the file has: {held}")
    array = arrays[name]
    if array.dtype.kind not in "buif" or array.ndim == 0:
        raise DataError(
            f"{path}: {name}: expected an array of numbers, got {array.dtype} of shape "
            f"{array.shape}"
        )
    return array


def load_npz(path: Path, options: DataOptions) -> DataSet:
    """Reads inputs and labels from an ``.npz`` file.

    Arrays of the splits are ``train_images`` and ``train_labels`` (as MedMNIST has them) or
    ``x_train`` and ``y_train``, likewise ``val`` and ``test``; or ``images`` and ``labels`` (or
    ``x`` and ``y``) of all, which are split 70/10/20 here. Images are ``[n, H, W]``,
    ``[n, H, W, C]`` or ``[n, C, H, W]`` of uint8, or floats in ``[0, 1]``; vectors (embeddings)
    ``[n, I]``; time series ``[n, T, I]`` of floats with ``train_timespans [n, T]`` (``timespans``
    of all) beside them. Labels are integers ``[n]`` or ``[n, 1]``, of time series ``[n, T]``. A
    split made here is stratified by class, but that of time series, which is one of whole
    sequences.
    Class names, all different, are in ``classes`` where there is such an array of strings.

    Raises:
        DataError: an array is missing or does not fit; the text names it.
    """
    arrays = open_npz(path)
    whole = next((pair for pair in _WHOLE if pair[0] in arrays and pair[1] in arrays), None)
    remarks: tuple[str, ...] = ()
    read: dict[str, Split] = {}
    layout = next((pair for pair in _LAYOUTS if pair[0].format("train") in arrays), None)
    if layout is not None:
        for split in SPLITS:
            inputs, labels = (part.format(split) for part in layout)
            if split != "val" or inputs in arrays:
                read[split] = _read(path, arrays, inputs, labels, f"{split}_timespans")
        if "val" not in read:
            train = read["train"]
            where, how = _partition(train.labels, (0.9, 0.1, 0.0), options.split_seed)
            read |= {split: train.take(where == split) for split in ("train", "val")}
            remarks = (f"validation: 10 % of the training examples, {how}",)
    elif whole is not None:
        everything = _read(path, arrays, whole[0], whole[1], "timespans")
        if options.whole:
            read = dict.fromkeys(SPLITS, everything)
            remarks = (WHOLE,)
        else:
            where, how = _partition(everything.labels, SHARES, options.split_seed)
            read = {split: everything.take(where == split) for split in SPLITS}
            remarks = (f"split 70/10/20 here, {how}",)
    else:
        raise DataError(
            f"{path}: expected train_images and train_labels, x_train and y_train, or images and "
            f"labels; the file has: {', '.join(arrays) or 'none'}"
        )
    shapes = {name: split.inputs.shape[1:] for name, split in read.items()}
    if len(set(shapes.values())) != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(f"{path}: the splits have different shapes: {listed}")
    largest = max(int(split.labels.max(initial=0)) for split in read.values())
    return check_splits(
        DataSet(
            name=f"npz:{path}",
            classes=_classes(path, arrays, largest + 1),
            splits={name: read[name] for name in SPLITS},
            source=str(path),
            remarks=remarks,
            whole=whole is not None and options.whole,
            time_unit=1.0 if any(part.timespans is not None for part in read.values()) else 0.0,
        )
    )


def _partition(
    labels: NDArray[np.int64], shares: Sequence[float], seed: int
) -> tuple[NDArray[np.str_], str]:
    """The split of each example, and how it was made."""
    if labels.ndim == 1:
        return np.array(partition(labels.tolist(), shares, seed)), f"stratified, seed {seed}"
    # A sequence has many classes, and its rows must stay together.
    found = partition(["sequence"] * len(labels), shares, seed)
    return np.array(found), f"whole sequences, not stratified, seed {seed}"


def _read(
    path: Path, arrays: dict[str, NDArray[Any]], inputs: str, labels: str, timespans: str
) -> Split:
    values, found = (array_of(arrays, name, path) for name in (inputs, labels))
    series = timespans in arrays
    if np.issubdtype(found.dtype, np.floating):
        check_classes_are_none_of_a_regression(
            found.ravel().tolist(), f"{path}: {labels}", "number them from 0"
        )
    if not series and found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != (2 if series else 1) or not np.issubdtype(found.dtype, np.integer):
        expected = "(n, T), a class for each step" if series else "(n,) or (n, 1)"
        raise DataError(
            f"{path}: {labels}: expected integers of shape {expected}, got {found.dtype} of shape "
            f"{arrays[labels].shape}{'' if series else _hint(found, labels, timespans)}"
        )
    if series and found.shape != values.shape[:2]:
        raise DataError(
            f"{path}: {labels}: expected the shape (n, T) of {inputs} {values.shape}, got "
            f"{found.shape}"
        )
    if len(found) != len(values):
        raise DataError(f"{path}: {inputs} has {len(values)} examples, {labels} has {len(found)}")
    if found.size and not 0 <= found.min() <= found.max() < _MOST_CLASSES:
        raise DataError(
            f"{path}: {labels}: expected classes from 0 below {_MOST_CLASSES}, got {found.min()} "
            f"to {found.max()}"
        )
    times = None
    if series:
        times = array_of(arrays, timespans, path).astype(np.float32)
        if values.ndim != 3 or times.shape != values.shape[:2]:
            raise DataError(
                f"{path}: {timespans}: expected the shape (n, T) of {inputs} {values.shape}, "
                f"got {times.shape}"
            )
        if not np.isfinite(times).all() or times.min(initial=0) < 0:
            raise DataError(f"{path}: {timespans}: expected numbers from 0, got others")
    return Split(_inputs(path, inputs, values, series=series), found.astype(np.int64), times)


def _hint(found: NDArray[Any], labels: str, timespans: str) -> str:
    """What may be meant by labels of another shape than ``(n,)``."""
    if found.ndim != 2:
        return ""
    if found.size and np.isin(found, (0, 1)).all():
        if (found.sum(axis=1) == 1).all():
            return f": one-hot labels; give the classes, {labels}.argmax(1)"
        return "; several labels of an example are read of MedMNIST sets only"
    return f"; of a time series {timespans} is missing"


def _inputs(path: Path, name: str, values: NDArray[Any], *, series: bool) -> NDArray[Any]:
    if series or values.ndim == 2:
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError(f"{path}: {name}: has infinite or NaN values")
        return values
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and values.shape[-1] in (1, 3) and values.shape[1] not in (1, 3):
        values = np.moveaxis(values, -1, 1)
    if values.ndim != 4 or values.shape[1] not in (1, 3):
        raise DataError(
            f"{path}: {name}: expected images [n, H, W], [n, H, W, C] or [n, C, H, W] with C of 1 "
            f"or 3, or vectors [n, I]; got shape {values.shape}"
        )
    if 0 in values.shape[1:]:
        raise DataError(f"{path}: {name}: expected pixels, got none, shape {values.shape}")
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    pixels = np.ascontiguousarray(values, dtype=np.float32)
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise DataError(
            f"{path}: {name}: expected uint8, or numbers in [0, 1], got {values.dtype} from "
            f"{values.min():g} to {values.max():g}"
        )
    return pixels


def _classes(path: Path, arrays: dict[str, NDArray[Any]], count: int) -> tuple[str, ...]:
    if "classes" not in arrays:
        return tuple(str(index) for index in range(max(count, 2)))
    names = tuple(str(name) for name in arrays["classes"].ravel())
    if len(names) < count:
        raise DataError(f"{path}: classes: expected {count} names for the labels, got {len(names)}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: classes: expected different names, got {twice!r} twice")
    return names
