"""MedMNIST v2 sets: finds, downloads, verifies and reads the published ``.npz`` files.

No code of the ``medmnist`` package is run: it wants torchvision, pandas and scikit-image, makes a
folder in the user's home when it is imported, and hides download errors. Where it is installed, its
table of names, labels, checksums and addresses is read as data.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .arrays import array_of, open_npz
from .fetch import Published, obtain, verify
from .options import DataOptions
from .sets import SPLITS, DataSet, Split

# The two-dimensional sets of MedMNIST v2.
NAMES = (
    "pathmnist",
    "chestmnist",
    "dermamnist",
    "octmnist",
    "pneumoniamnist",
    "retinamnist",
    "breastmnist",
    "bloodmnist",
    "tissuemnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
)
# Sides in pixels; the larger ones (MedMNIST+) are called NAME_SIDE, as their files are.
SIDES = (28, 64, 128, 224)


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
    side: int = 28
    multilabel: bool = False

    @property
    def file_name(self) -> str:
        """The file that MedMNIST publishes the set in."""
        return f"{self.name}.npz"


# Addresses and checksums as MedMNIST's own description (medmnist/info.py, v2) gives them, of the
# sets that can be had without that package.
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
    ),
    "retinamnist": Record(
        name="retinamnist",
        url="https://zenodo.org/record/6496656/files/retinamnist.npz?download=1",
        md5="bd4c0672f1bba3e3a89f0e4e876791e4",
        classes=("0", "1", "2", "3", "4"),
        channels=3,
        sizes=(1080, 120, 400),
        positive=None,
        remarks=("the classes are ordered grades of diabetic retinopathy, 0 none to 4 severest",),
    ),
}


def is_medmnist(name: str) -> bool:
    """Whether a name is that of a two-dimensional set, in any of the published sizes."""
    base, _, side = name.partition("_")
    return base in NAMES and (not side or side in map(str, SIDES[1:]))


def find_record(name: str) -> Record:
    """What is published about a set.

    Raises:
        DataError: the package that has the table is not installed, or it lacks the set.
    """
    if name in RECORDS:
        return RECORDS[name]
    base, _, side = name.partition("_")
    table = _package_table()
    if table is None:
        raise DataError(
            f"{name}: labels, checksum and address of this set come with the package medmnist, "
            "which is not installed. Its table is enough: pip install --no-deps medmnist. "
            f"A file that you have can also be read as npz:{name}.npz"
        )
    suffix = f"_{side}" if side else ""
    try:
        entry = table[base]
        labels = entry["label"]
        task = entry["task"]
        usual = 1 if task == "binary-class" else None
        return Record(
            name=name,
            url=entry[f"url{suffix}"],
            md5=entry[f"MD5{suffix}"],
            classes=tuple(labels[str(index)] for index in range(len(labels))),
            channels=entry["n_channels"],
            sizes=tuple(entry["n_samples"][split] for split in SPLITS),
            positive=RECORDS[base].positive if base in RECORDS else usual,
            remarks=RECORDS[base].remarks if base in RECORDS else (),
            side=int(side or SIDES[0]),
            multilabel=task.startswith("multi-label"),
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"{name}: the installed medmnist does not describe it: {error}") from None


@functools.cache
def _package_table() -> dict[str, Any] | None:
    """The dictionary INFO of medmnist/info.py, without importing the package."""
    try:
        spec = importlib.util.find_spec("medmnist")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    try:
        tree = ast.parse((Path(spec.origin).parent / "info.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INFO":
                table: dict[str, Any] = ast.literal_eval(node.value)
                return table
    except (OSError, SyntaxError, ValueError):
        return None
    return None


def load_medmnist(name: str, options: DataOptions) -> DataSet:
    """Reads one MedMNIST v2 set with its official split.

    The file ``NAME.npz`` is looked for in ``data_root`` (a folder, or the file itself) and then in
    the cache folder of the platform. Where both lack it, it is downloaded from its published
    address into the cache. The MD5 checksum must be the published one.

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
    record = find_record(name)
    published = Published(record.file_name, record.url, f"md5:{record.md5}")
    path = obtain(published, options, suffixes=(".npz",))
    verify(path, f"md5:{record.md5}", record.url)
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
    """Reads the six arrays of a MedMNIST file and checks their shapes and labels.

    Args:
        path: the ``.npz`` file.
        record: what it must contain.

    Returns:
        ``train``, ``val`` and ``test``.

    Raises:
        DataError: not a NumPy archive, an array is missing or has another shape, dtype or label.
    """
    arrays = open_npz(path)
    return {
        name: _split(path, record, name, size, arrays)
        for name, size in zip(SPLITS, record.sizes, strict=True)
    }


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
