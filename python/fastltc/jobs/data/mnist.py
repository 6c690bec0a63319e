"""MNIST, from its four idx files or from one ``.npz``."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import open_regular
from .array_files import array_of, open_npz
from .fetch import Published, obtain, verify
from .options import DataOptions
from .sets import DataSet, Split

SPLIT_SEED = 54000

_ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# Kind of file -> name without .gz, md5 of the .gz at that address, sha256 of what is in it, shape.
# The .gz of a mirror may have been packed anew, so files on disk are held to their content.
_FILES: dict[str, tuple[str, str, str, tuple[int, ...]]] = {
    "train_images": (
        "train-images-idx3-ubyte",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        (60000, 28, 28),
    ),
    "train_labels": (
        "train-labels-idx1-ubyte",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        (60000,),
    ),
    "test_images": (
        "t10k-images-idx3-ubyte",
        "9fb629c4189551a2d022fa330f9573f3",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        (10000, 28, 28),
    ),
    "test_labels": (
        "t10k-labels-idx1-ubyte",
        "ec29112dd5afa0611ce80d1b7f02629c",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        (10000,),
    ),
}
_NPZ_KEYS = dict(zip(_FILES, ("x_train", "y_train", "x_test", "y_test"), strict=True))


def load_mnist(options: DataOptions) -> DataSet:
    """The 70,000 digits: 54,000 training, 6,000 validation and 10,000 test images.

    Read from ``data_root`` or the cache: ``mnist.npz`` (arrays ``x_train``, ``y_train``,
    ``x_test``, ``y_test``), or the four idx files, packed or not; downloaded where both lack them.
    The validation images are drawn from the training images, stratified, with a fixed seed.

    Raises:
        DataError: a file is missing or is not that of MNIST.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
    CC BY-SA 3.0.
    """
    from sklearn.model_selection import train_test_split

    npz = _npz(options)
    arrays = _read_npz(npz) if npz is not None else {kind: _idx(kind, options) for kind in _FILES}
    labels = arrays["train_labels"].astype(np.int64)
    images = arrays["train_images"][:, None]
    how: dict[str, Any] = {"test_size": len(labels) // 10, "random_state": SPLIT_SEED}
    train, val = train_test_split(np.arange(len(labels)), stratify=labels, **how)
    whole = Split(images, labels)
    splits = {"train": whole.take(train), "val": whole.take(val)}
    splits["test"] = Split(arrays["test_images"][:, None], arrays["test_labels"].astype(np.int64))
    return DataSet(
        name="mnist",
        classes=tuple("0123456789"),
        splits=splits,
        source=str(npz) if npz is not None else "the idx files of MNIST",
        remarks=("validation: 6,000 of the 60,000 training images, stratified, fixed seed",),
    )


def _npz(options: DataOptions) -> Path | None:
    if options.data_root is None:
        return None
    root = Path(options.data_root).expanduser()
    if root.is_file() and root.suffix == ".npz":
        return root
    return root / "mnist.npz" if (root / "mnist.npz").is_file() else None


def _read_npz(path: Path) -> dict[str, NDArray[np.uint8]]:
    arrays = open_npz(path)
    found = {}
    for kind, key in _NPZ_KEYS.items():
        values = array_of(arrays, key, path)
        shape = _FILES[kind][3]
        if values.shape != shape or not np.issubdtype(values.dtype, np.integer):
            raise DataError(
                f"{path}: {key}: expected integers of shape {shape}, "
                f"got {values.dtype} of shape {values.shape}"
            )
        content = values.astype(np.uint8)
        _check(path, kind, _idx_header(shape) + content.tobytes())
        found[kind] = content
    return found


def _idx_header(shape: tuple[int, ...]) -> bytes:
    """The start of an idx file of uint8: a magic number with the dimensions, then each size."""
    return bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)


def _check(path: Path, kind: str, content: bytes) -> None:
    name, _, expected, _ = _FILES[kind]
    verify(path, f"sha256:{expected}", f"{_ADDRESS}{name}.gz", content)


def _unpacked(file: BinaryIO, path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file)) if path.suffix == ".gz" else file


def _idx(kind: str, options: DataOptions) -> NDArray[np.uint8]:
    name, md5, _, shape = _FILES[kind]
    published = Published(f"{name}.gz", f"{_ADDRESS}{name}.gz", f"md5:{md5}", also=(name,))
    path = obtain(published, options)
    try:
        with open_regular(path) as file, _unpacked(file, path) as unpacked:
            # No more than there can be, and one byte that tells that there is more.
            content = unpacked.read(4 + 4 * len(shape) + math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: unreadable or damaged: {error}") from None
    _check(path, kind, content)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
