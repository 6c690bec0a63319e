"""MedMNIST v2 sets: finds, downloads, verifies and reads the published ``.npz`` files.

No code of the ``medmnist`` package is used: it wants torchvision, pandas and scikit-image, and
hides download errors.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .images import SPLITS, ImageData, Split

OFFLINE_VARIABLE = "FASTLTC_OFFLINE"

# Called with (received, total) bytes.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Record:
    """A published file: its name, address, checksum and what its labels mean."""

    name: str
    url: str
    md5: str
    classes: tuple[str, ...]
    channels: int
    sizes: tuple[int, int, int]
    positive: int | None
    remarks: tuple[str, ...]

    @property
    def file_name(self) -> str:
        return f"{self.name}.npz"


# Addresses and checksums as MedMNIST's own description (medmnist/info.py, v2) gives them.
RECORDS = {
    "breastmnist": Record(
        name="breastmnist",
        url="https://zenodo.org/record/6496656/files/breastmnist.npz?download=1",
        md5="750601b1f35ba3300ea97c75c52ff8f6",
        classes=("malignant", "normal or benign"),
        channels=1,
        sizes=(546, 78, 156),
        positive=1,
        remarks=(
            "label 0 is malignant, label 1 is normal or benign: published F1 scores are of label 1",
        ),
    )
}


def load_medmnist(
    name: str,
    data_root: Path | str | None = None,
    *,
    offline: bool = False,
    progress: Progress | None = None,
) -> ImageData:
    """Reads one MedMNIST v2 set with its official split.

    The file ``NAME.npz`` is looked for in ``data_root`` (a folder, or the file itself) and then in
    the cache folder of the platform. Where both lack it, it is downloaded from its published
    address into the cache. The MD5 checksum must be the published one.

    Args:
        name: for example ``breastmnist``.
        data_root: a folder, or the ``.npz`` file itself.
        offline: never download; the environment variable ``FASTLTC_OFFLINE=1`` says the same.
        progress: called with the received and the total number of bytes during a download.

    Returns:
        The images in ``[0, 1]``; for ``breastmnist`` label 0 is malignant, 1 is normal or benign.

    Raises:
        DataError: the file is missing, damaged, or cannot be downloaded.

    Source: J. Yang et al., "MedMNIST v2", Scientific Data 10, 41 (2023). CC BY 4.0.
    """
    record = RECORDS[name]
    path = _find(record, data_root)
    if path is None:
        path = _download(record, data_root, offline, progress)
    _check_md5(record, path)
    return ImageData(
        name=record.name,
        classes=record.classes,
        splits=read_npz(path, record),
        source=str(path),
        positive=record.positive,
        remarks=record.remarks,
    )


def cache_folder() -> Path:
    """The folder downloads go to: ``FASTLTC_CACHE``, else the platform's cache folder."""
    import pooch

    return Path(os.environ.get("FASTLTC_CACHE") or pooch.os_cache("fastltc"))


def _places(record: Record, data_root: Path | str | None) -> list[Path]:
    places = []
    if data_root is not None:
        root = Path(data_root).expanduser()
        places.append(root if root.suffix == ".npz" else root / record.file_name)
    places.append(cache_folder() / record.file_name)
    return places


def _find(record: Record, data_root: Path | str | None) -> Path | None:
    if data_root is not None:
        root = Path(data_root).expanduser()
        if not root.exists():
            # A mistyped folder must not turn into a download.
            raise DataError(
                f"data root {root} does not exist; expected a folder that holds "
                f"{record.file_name}, or that file"
            )
        if root.is_file() and root.suffix != ".npz":
            raise DataError(f"data root {root}: expected a folder or an .npz file")
    return next((place for place in _places(record, data_root) if place.is_file()), None)


def _is_offline(offline: bool) -> bool:
    return offline or os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0")


def _download(
    record: Record, data_root: Path | str | None, offline: bool, progress: Progress | None
) -> Path:
    import pooch
    import requests

    looked = "\n".join(f"  {place}" for place in _places(record, data_root))
    missing = f"{record.file_name} not found. Looked for:\n{looked}\n"
    remedy = (
        f"Get it from {record.url} (md5 {record.md5}) and either put it there or name its folder "
        "as the data root (--data-root DIR)."
    )
    if _is_offline(offline):
        raise DataError(f"{missing}Downloading is switched off. {remedy}")
    try:
        # Pooch receives into a temporary file beside the target and renames it once the checksum
        # holds.
        path = pooch.retrieve(
            record.url,
            known_hash=f"md5:{record.md5}",
            fname=record.file_name,
            path=cache_folder(),
            downloader=pooch.HTTPDownloader(
                timeout=30, progressbar=_Bar(progress) if progress else False
            ),
        )
    except (requests.RequestException, OSError) as error:
        raise DataError(f"{missing}Downloading {record.url} failed: {error}\n{remedy}") from None
    except ValueError as error:
        raise DataError(f"{missing}{record.url} gave another file: {error}\n{remedy}") from None
    return Path(path)


class _Bar:
    """Pooch's progress-bar interface (that of tqdm) in front of a function of two numbers."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.total = 0
        self.received = 0

    def update(self, count: int) -> None:
        # Pooch counts whole chunks, so the last one overshoots.
        self.received = min(self.received + count, self.total)
        self.progress(self.received, self.total)

    def reset(self) -> None:
        self.received = 0

    def close(self) -> None:
        pass


def _check_md5(record: Record, path: Path) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != record.md5:
        raise DataError(
            f"{path}: damaged or another version: expected md5 {record.md5}, got {found} "
            f"({len(content):,} bytes). Remove it and get it again from {record.url}"
        )


def read_npz(path: Path, record: Record) -> dict[str, Split]:
    """Reads the six arrays of a MedMNIST file and checks their shapes and labels.

    Args:
        path: the ``.npz`` file.
        record: what it must contain.

    Returns:
        ``train``, ``val`` and ``test``.

    Raises:
        DataError: not a NumPy archive, an array is missing or has another shape, dtype or label.
    """
    splits = {}
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not a readable .npz file: no zip archive")
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name, size in zip(SPLITS, record.sizes, strict=True):
                images = _array(archive, path, f"{name}_images")
                labels = _array(archive, path, f"{name}_labels")
                splits[name] = _split(path, record, name, size, images, labels)
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable .npz file: {error}") from None
    return splits


def _array(archive: Any, path: Path, key: str) -> NDArray[Any]:
    if key not in archive.files:
        keys = ", ".join(archive.files) or "none"
        raise DataError(f"{path}: array {key!r} is missing; the file has: {keys}")
    return np.asarray(archive[key])


def _split(
    path: Path,
    record: Record,
    name: str,
    size: int,
    images: NDArray[Any],
    labels: NDArray[Any],
) -> Split:
    if images.ndim == 3:
        images = images[..., None]
    expected = (size, 28, 28, record.channels)
    if images.shape != expected or images.dtype != np.uint8:
        raise DataError(
            f"{path}: {name}_images: expected uint8 of shape {expected}, "
            f"got {images.dtype} of shape {images.shape}"
        )
    if labels.shape != (size, 1) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{path}: {name}_labels: expected integers of shape {(size, 1)}, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= len(record.classes):
        raise DataError(
            f"{path}: {name}_labels: expected 0 to {len(record.classes) - 1}, "
            f"got {labels.min()} to {labels.max()}"
        )
    pixels = np.moveaxis(images, -1, 1).astype(np.float32) / np.float32(255.0)
    return Split(np.ascontiguousarray(pixels), labels[:, 0].astype(np.int64))
