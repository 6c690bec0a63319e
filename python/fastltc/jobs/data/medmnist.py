"""MedMNIST v2 sets: finds, downloads, verifies and reads the published ``.npz`` files.

What is published about them is in ``medmnist.toml``; the package ``medmnist`` is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import parse_toml
from .array_files import array_of, open_npz
from .fetch import Published, obtain, verify
from .options import DataOptions
from .sets import SPLITS, DataSet, Split


@dataclass(frozen=True)
class Record:
    """A published file: its name, address, checksum and what its labels mean."""

    name: str
    url: str
    md5: str
    sha256: str | None
    classes: tuple[str, ...]
    channels: int
    sizes: tuple[int, int, int]
    positive: int | None
    remarks: tuple[str, ...]
    side: int = 28
    multilabel: bool = False

    @property
    def file_name(self) -> str:
        """The file that MedMNIST publishes the set in."""
        return f"{self.name}.npz"

    @property
    def checksum(self) -> str:
        """What its file is held to: the SHA-256 where it is known, else the published MD5.

        MD5 tells damage, but whoever made a file could have made two of the same MD5.
        """
        return f"md5:{self.md5}" if self.sha256 is None else f"sha256:{self.sha256}"


def _records() -> Iterator[Record]:
    file = resources.files(__package__).joinpath("medmnist.toml")
    table = parse_toml(file.read_text(encoding="utf-8"))
    for base, facts in table["sets"].items():
        for side, md5 in facts["md5"].items():
            # The larger files (MedMNIST+) came later and have their side in the name.
            name = base if side == "28" else f"{base}_{side}"
            yield Record(
                name=name,
                url=table["address"].format(name),
                md5=md5,
                sha256=facts.get("sha256", {}).get(side),
                classes=tuple(facts["classes"]),
                channels=facts["channels"],
                sizes=tuple(facts["sizes"]),
                positive=facts.get("positive"),
                remarks=tuple(facts.get("remarks", ())),
                side=int(side),
                multilabel=facts["task"].startswith("multi-label"),
            )


RECORDS = {record.name: record for record in _records()}
# Those of 28x28 pixels.
NAMES = tuple(name for name, record in RECORDS.items() if record.side == 28)


def load_medmnist(name: str, options: DataOptions) -> DataSet:
    """Reads one MedMNIST v2 set with its official split.

    The file ``NAME.npz`` is looked for in ``data_root`` (a folder, or the file itself) and then in
    the cache folder of the platform. Where both lack it, it is downloaded from its published
    address into the cache. Its checksum must be the known one.

    Args:
        name: for example ``breastmnist``, or ``breastmnist_64`` for 64x64 pixels.
        options: ``data_root``, ``offline`` and ``progress`` are used.

    Returns:
        The images in ``[0, 1]``; for ``breastmnist`` label 0 is malignant, 1 is normal or benign.

    Raises:
        DataError: the file is missing, damaged, or cannot be downloaded.

    Source: J. Yang et al., "MedMNIST v2", Scientific Data 10, 41 (2023). CC BY 4.0, but DermaMNIST
    CC BY-NC 4.0.
    """
    record = RECORDS[name]
    published = Published(record.file_name, record.url, record.checksum)
    path = obtain(published, options, suffixes=(".npz",))
    verify(path, record.checksum, record.url)
    return DataSet(
        name=record.name,
        classes=record.classes,
        splits=read_npz(path, record),
        source=str(path),
        positive=record.positive,
        remarks=record.remarks,
        multilabel=record.multilabel,
    )


def read_npz(path: Path, record: Record) -> dict[str, Split]:
    """Reads the six arrays of a MedMNIST file and checks that they are those of the record.

    Raises:
        DataError: not a NumPy archive, an array is missing or has another shape, dtype or label.
    """
    arrays = open_npz(path)
    sizes = zip(SPLITS, record.sizes, strict=True)
    return {name: _split(path, record, name, size, arrays) for name, size in sizes}


def _split(
    path: Path, record: Record, name: str, size: int, arrays: dict[str, NDArray[Any]]
) -> Split:
    images = array_of(arrays, f"{name}_images", path)
    labels = array_of(arrays, f"{name}_labels", path)
    if images.ndim == 3:
        images = images[..., None]
    expected = (size, record.side, record.side, record.channels)
    if images.shape != expected or images.dtype != np.uint8:
        raise DataError(
            f"{path}: {name}_images: expected uint8 of shape {expected}, "
            f"got {images.dtype} of shape {images.shape}"
        )
    width = len(record.classes) if record.multilabel else 1
    if labels.shape != (size, width) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path}: {name}_labels: expected integers of shape {(size, width)}, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    largest = 1 if record.multilabel else len(record.classes) - 1
    if labels.min() < 0 or labels.max() > largest:
        raise DataError(
            f"{path}: {name}_labels: expected 0 to {largest}, got {labels.min()} to {labels.max()}"
        )
    pixels = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    return Split(pixels, (labels if record.multilabel else labels[:, 0]).astype(np.int64))
