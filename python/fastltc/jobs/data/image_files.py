"""Classified image files: a folder per class, or a table of names and labels."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..defaults import SHARES
from ..errors import DataError
from .audit import shared_groups
from .audit_report import Item
from .images import is_grey, known_formats, opened_picture, read_image
from .options import DataOptions
from .partition import partition
from .sets import SPLITS, WHOLE, DataSet, Split, check_splits, class_names
from .tables import (
    FILE_NAMES,
    GROUP_NAMES,
    LABEL_NAMES,
    SPLIT_NAMES,
    TIME_NAMES,
    Table,
    read_table,
    split_word,
)

# Sides of images that come in several sizes, where none is asked for.
DEFAULT_SIZE = 64


def image_suffixes() -> frozenset[str]:
    """Endings of the names of image files, in lower case."""
    from PIL import Image

    known = known_formats()
    return frozenset(
        suffix for suffix, kind in Image.registered_extensions().items() if kind in known
    )


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder and of those in it, in order; none that are hidden."""
    suffixes = image_suffixes()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def list_folder(root: Path) -> list[Item]:
    """The images of ``ROOT/CLASS/...`` or of ``ROOT/train/CLASS/...``, ``ROOT/test/CLASS/...``.

    Classes may hold folders of their own. Hidden files and folders (their names start with a
    dot) and files of other types are left out.

    Raises:
        DataError: there is no such folder, no class in it, a class without images, or a file whose
            name is not UTF-8.
    """
    if not root.is_dir():
        what = "a file" if root.is_file() else "nothing"
        raise DataError(f"{root}: expected a folder with a folder per class, got {what}")
    inside = _folders(root)
    words = {folder: split_word(folder.name) for folder in inside}
    if any(words.values()):
        strange = sorted(folder.name for folder, word in words.items() if word is None)
        if strange:
            raise DataError(
                f"{root}: holds splits and something else: {', '.join(strange)}; expected only "
                "train, val and test, or only classes"
            )
        doubled = [word for word in words.values() if list(words.values()).count(word) > 1]
        if doubled:
            raise DataError(f"{root}: holds two folders for the {doubled[0]} split")
        return [
            replace(item, split=word or "")
            for folder, word in words.items()
            for item in _classes(root, folder)
        ]
    return _classes(root, root)


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(
            path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")
        )
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror}") from None


def _classes(root: Path, folder: Path) -> list[Item]:
    found: list[Item] = []
    folders = _folders(folder)
    if not folders:
        raise DataError(f"{folder}: expected a folder per class, found none")
    for kind in folders:
        files = images_in(kind)
        if not files:
            raise DataError(f"{kind}: class {kind.name!r} is empty: no image of a known type in it")
        for path in files:
            _check_name(path)
            found.append(Item(path.relative_to(root).as_posix(), "", kind.name, path))
    return found


def _check_name(path: Path) -> None:
    # Tables, of splits and of predictions, are in UTF-8.
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise DataError(f"{shown}: the name of this file is not UTF-8; rename it") from None


def list_table(path: Path, options: DataOptions, split: str = "") -> list[Item]:
    """The images of a CSV file, or of ``train.csv``, ``val.csv`` and ``test.csv`` in a folder.

    Names are relative to ``options.data_root`` where it is given, else to the folder of the table.
    Files of one split each may have a column ``group``, as `fastltc split` writes it.

    Args:
        path: the file or the folder.
        options: names of the columns, and the folder of the images.
        split: that of all rows of the file; empty where a column says it, or nothing does.

    Raises:
        DataError: a file or a column is missing, or a cell means nothing; the text names it.
    """
    if not path.is_dir():
        return _rows(read_table(path), options, split)
    if options.split_column is not None:
        raise DataError(
            f"--split-column {options.split_column}: the files train.csv, val.csv and test.csv of "
            f"{path} are the splits"
        )
    listed = []
    for name in SPLITS:
        if (path / f"{name}.csv").is_file():
            listed += _rows(read_table(path / f"{name}.csv"), options, name)
    if not listed:
        raise DataError(f"{path}: expected train.csv, val.csv and test.csv in it, found none")
    return listed


def _rows(table: Table, options: DataOptions, split: str) -> list[Item]:
    files = table.need(
        options.file_column,
        FILE_NAMES,
        "names of the images",
        "--file-column (the times of a series by --time-column)",
    )
    labels = table.need(options.label_column, LABEL_NAMES, "classes", "--label-column")
    table.classes(labels)
    where = [split] * len(table.rows)
    if not split:
        place = table.find(options.split_column, SPLIT_NAMES, "--split-column")
        where = where if place is None else table.splits(place)
    usual = GROUP_NAMES if split else ()
    groups = table.find(options.group_column, usual, "--group-column")
    root = table.path.parent if options.data_root is None else Path(options.data_root).expanduser()
    listed = []
    for line, row, of in zip(table.lines, table.rows, where, strict=True):
        if not row[files] or not row[labels]:
            missing = table.columns[files if not row[files] else labels]
            raise DataError(f"{table.path}, line {line}: column {missing!r} is empty")
        # An empty cell names no group.
        group = (row[groups] or None) if groups is not None else None
        listed.append(Item(row[files], of, row[labels], root / row[files], group=group))
    return listed


def group_by_pattern(listed: Sequence[Item], pattern: str) -> list[Item]:
    """Groups by a regular expression in the name of the file: its first group, else all of it.

    Raises:
        DataError: no regular expression, or a name that it does not occur in.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--group-pattern {pattern!r}: no regular expression: {error}") from None
    grouped = []
    for item in listed:
        found = compiled.search(Path(item.name).name)
        if found is None:
            raise DataError(f"--group-pattern {pattern!r}: does not occur in {item.name}")
        key = found.group(1) if compiled.groups else found.group(0)
        grouped.append(replace(item, group=key))
    return grouped


def complete_splits(
    listed: Sequence[Item], seed: int, source: str
) -> tuple[list[Item], tuple[str, ...]]:
    """Makes the splits that the source lacks, and says so.

    Without any, 70/10/20; without validation, 10 % of the training images; without test images
    the validation split is not touched, and that is an error, because a score on images that chose
    the checkpoint is none.

    Raises:
        DataError: there are splits but no training or no test images.
    """
    present = {item.split for item in listed}
    grouped = any(item.group is not None for item in listed)

    def allotted(items: Sequence[Item], shares: Sequence[float]) -> list[Item]:
        groups = [item.group for item in items] if grouped else None
        found = partition([item.label for item in items], shares, seed, groups)
        return [replace(item, split=where) for item, where in zip(items, found, strict=True)]

    if present == {""}:
        return allotted(listed, SHARES), (f"split 70/10/20 here, stratified, seed {seed}",)
    for name in ("train", "test"):
        if name not in present:
            raise DataError(
                f"{source}: has splits but no {name} images; `fastltc split` makes all three"
            )
    if "val" in present:
        return list(listed), ()
    train = [item for item in listed if item.split == "train"]
    rest = [item for item in listed if item.split != "train"]
    remark = f"validation: 10 % of the training images, stratified, seed {seed}"
    return allotted(train, (0.9, 0.1, 0.0)) + rest, (remark,)


def load_listed(listed: Sequence[Item], options: DataOptions, name: str) -> DataSet:
    """Reads all images into memory, as uint8.

    Raises:
        DataError: a file is missing or damaged, a split is empty or has one class only, or grey
            and coloured images are mixed and ``options.channels`` does not say what to make of it.
    """
    source = name.partition(":")[2]
    whole = options.whole and not any(item.split for item in listed)
    remarks: tuple[str, ...] = (WHOLE,)
    if not whole:
        listed, remarks = complete_splits(listed, options.split_seed, source)
    if any(item.group is not None for item in listed):
        groups = {
            split: {item.group for item in listed if item.split == split and item.group}
            for split in SPLITS
        }
        remarks = tuple(filter(None, (*remarks, shared_groups(groups))))
    classes = class_names({item.label for item in listed})
    shape, shape_remarks = _common_shape(listed, options)
    splits = {}
    for split in SPLITS[:1] if whole else SPLITS:
        items = [item for item in listed if whole or item.split == split]
        images = np.empty((len(items), *shape), dtype=np.uint8)
        for index, item in enumerate(items):
            pixels = read_image(item.file, shape, grey_as_colour=options.channels == 3).pixels
            images[index] = np.rint(pixels * np.float32(255)).astype(np.uint8)
        splits[split] = Split(
            images,
            np.array([classes.index(item.label) for item in items], dtype=np.int64),
            names=tuple(str(item.path) for item in items),
        )
    if whole:
        splits = dict.fromkeys(SPLITS, splits["train"])
    remarks = (*remarks, *shape_remarks)
    return check_splits(DataSet(name, classes, splits, source, remarks=remarks, whole=whole))


def _common_shape(
    listed: Sequence[Item], options: DataOptions
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """The shape to read all images in: what is asked for, else what they share."""
    remarks: tuple[str, ...] = ()
    sizes = set()
    # An image of each kind, coloured or grey.
    kinds: dict[bool, Path] = {}
    for item in listed:
        size, coloured = _peek(item.file)
        sizes.add(size)
        kinds.setdefault(coloured, item.file)
    if options.image_shape is not None:
        _, height, width = options.image_shape
        if sizes != {(width, height)}:
            remarks = (f"images resized to {width}x{height}",)
        return options.image_shape, remarks
    if len(kinds) == 2 and options.channels is None:
        raise DataError(
            f"channels: {kinds[False]} is grey and {kinds[True]} in colour; say --channels 3 to "
            "give grey images to all three channels, or --channels 1 for all in grey"
        )
    channels = options.channels or (3 if True in kinds else 1)
    width = height = options.image_size or DEFAULT_SIZE
    if options.image_size is None and len(sizes) == 1:
        width, height = sizes.pop()
    elif options.image_size is None:
        remarks = (
            f"images of {len(sizes)} sizes: all resized to {width}x{height} "
            "(--image-size N for another)",
        )
    return (channels, height, width), remarks


def _peek(path: Path) -> tuple[tuple[int, int], bool]:
    """Size as shown and whether it is in colour, from the header of an image file."""
    from PIL import ExifTags

    with opened_picture(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        width, height = image.size
        return (height, width) if turned else (width, height), not is_grey(image.mode)


def load_folder(root: Path, options: DataOptions) -> DataSet:
    """``folder:PATH``: a folder per class, with or without ``train``, ``val`` and ``test``."""
    return load_listed(list_folder(root), options, f"folder:{root}")


def is_series(path: Path, options: DataOptions) -> bool:
    """Whether a CSV file is a time series.

    It is where an option of time series says so, and where it has a time column and names no files.
    """
    if path.is_dir():
        return False
    if options.target or options.horizon or options.recording_column:
        return True
    table = read_table(path)
    names_files = table.find(options.file_column, FILE_NAMES, "--file-column") is not None
    timed = table.find(options.time_column, TIME_NAMES, "--time-column") is not None
    return timed and not names_files
