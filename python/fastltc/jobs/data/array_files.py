"""Files of NumPy arrays, believed only as far as their sizes agree; nothing is unpickled."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import open_regular

# A file may unpack to so many times its size, or to a gigabyte: real data does not come near it,
# and arrays of zeros, which do, teach nothing.
_MOST_PACKED = 100
_ALWAYS = 1 << 30


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


def open_folder(path: Path) -> dict[str, NDArray[Any]]:
    """All ``NAME.npy`` of a folder, which stay on the disk until they are used.

    Raises:
        DataError: there is none, or one is damaged.
    """
    found = {one.stem: open_npy(one, mapped=True) for one in sorted(path.glob("*.npy"))}
    if not found:
        raise DataError(f"{path}: expected a folder with .npy files, found none")
    return found


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
