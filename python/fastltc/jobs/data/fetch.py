"""Published files: found, or downloaded into the cache folder and verified."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import open_regular, read_bytes, write_all
from ..lock import locked
from .options import DataOptions, Progress

OFFLINE_VARIABLE = "FASTLTC_OFFLINE"

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Published:
    """A file that a data set is published as.

    Args:
        file_name: its name on disk.
        url: where it is downloaded from.
        checksum: ``md5:...`` or ``sha256:...`` of the download, None where its content is verified
            after unpacking.
        also: other names that it may have on disk (unpacked, say).
        most: bytes that a download may have; a server could send them without end.
    """

    file_name: str
    url: str
    checksum: str | None
    also: tuple[str, ...] = ()
    most: int = 1 << 35


def cache_folder() -> Path:
    """The folder downloads go to: ``FASTLTC_CACHE``, else the platform's cache folder."""
    import pooch

    return Path(os.environ.get("FASTLTC_CACHE") or pooch.os_cache("fastltc"))


def is_offline(options: DataOptions) -> bool:
    """Whether downloads are switched off, by option or by ``FASTLTC_OFFLINE=1``."""
    return options.offline or os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0")


def obtain(published: Published, options: DataOptions, suffixes: tuple[str, ...] = ()) -> Path:
    """The path of a published file: in the data root, in the cache, or downloaded into it.

    The data root may be the file itself, with one of the ``suffixes``. A download has the published
    checksum; files found on disk are verified by the caller, who knows what is in them.

    Raises:
        DataError: the file is nowhere and cannot be downloaded; the text says where it was looked
            for, where to get it and where to put it.
    """
    places = _places(published, options.data_root, suffixes)
    found = next((place for place in places if place.is_file()), None)
    return found if found is not None else _download(published, places, options)


def _places(
    published: Published, data_root: Path | str | None, suffixes: tuple[str, ...]
) -> list[Path]:
    names = (published.file_name, *published.also)
    places = []
    if data_root is not None:
        root = Path(data_root).expanduser()
        if not root.exists():
            # A mistyped folder must not turn into a download.
            raise DataError(
                f"data root {root} does not exist; expected a folder that holds "
                f"{published.file_name}" + (", or that file" if suffixes else "")
            )
        if root.is_file() and root.suffix not in suffixes:
            expected = f" or an {' or '.join(suffixes)} file" if suffixes else ""
            raise DataError(f"data root {root}: expected a folder{expected}")
        places += [root] if root.is_file() else [root / name for name in names]
    return places + [cache_folder() / name for name in names]


def _download(published: Published, places: list[Path], options: DataOptions) -> Path:
    import pooch
    import requests

    looked = "\n".join(f"  {place}" for place in places)
    missing = f"{published.file_name} not found. Looked for:\n{looked}\n"
    checksum = "" if published.checksum is None else f" ({published.checksum.replace(':', ' ')})"
    remedy = (
        f"Get it from {published.url}{checksum} and either put it there or name its folder "
        "as the data root (--data-root DIR)."
    )
    if is_offline(options):
        raise DataError(f"{missing}Downloading is switched off. {remedy}")
    folder = cache_folder()
    part = folder / f".{published.file_name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Another process that is at it is waited for; pooch then finds what it has brought.
        with locked(folder / f".{published.file_name}.lock", wait=True):
            # Pooch receives into a temporary file beside the target and renames it once the
            # checksum holds.
            try:
                path = pooch.retrieve(
                    published.url,
                    known_hash=published.checksum,
                    fname=published.file_name,
                    path=folder,
                    downloader=_Resuming(part, published.most, options.progress),
                )
            except ValueError:
                part.unlink(missing_ok=True)
                raise
            part.unlink(missing_ok=True)
    except (requests.RequestException, OSError) as error:
        raise DataError(f"{missing}Downloading {published.url} failed: {error}\n{remedy}") from None
    except ValueError as error:
        raise DataError(f"{missing}{published.url} gave another file: {error}\n{remedy}") from None
    return Path(path)


class _Resuming:
    """A downloader for pooch that goes on where an earlier one broke off.

    Pooch's own starts again from the first byte. What has come so far stays in ``part``; the
    checksum, which pooch takes over the whole file, tells whether the pieces fit.
    """

    def __init__(self, part: Path, most: int, progress: Progress | None) -> None:
        self.part = part
        self.most = most
        self.progress = progress

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        import requests

        have = self.part.stat().st_size if self.part.is_file() else 0
        headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {}
        with requests.get(url, headers=headers, stream=True, timeout=30) as response:
            if have and response.status_code == requests.codes.requested_range_not_satisfiable:
                # All of it is there already; the checksum decides.
                shutil.copyfile(self.part, output_file)
                return
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                have = 0
            self.part.parent.mkdir(parents=True, exist_ok=True)
            length = response.headers.get("content-length")
            total = have + int(length) if length else 0
            with open(self.part, "ab" if have else "wb") as file:
                for chunk in response.iter_content(chunk_size=_CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    if have > self.most:
                        raise ValueError(f"expected at most {self.most:,} bytes, got more")
                    if self.progress:
                        self.progress(have, max(total, have))
        if total and have < total:
            raise requests.ConnectionError(f"broke off after {have:,} of {total:,} bytes")
        shutil.copyfile(self.part, output_file)


def verify(path: Path, checksum: str, url: str, content: bytes | None = None) -> None:
    """Makes sure that a file, or its unpacked ``content``, has an md5 or sha256 (``md5:...``).

    Raises:
        DataError: it cannot be read, or is another file.
    """
    try:
        content = read_bytes(path) if content is None else content
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    kind, expected = checksum.split(":")
    found = hashlib.new(kind, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise DataError(
            f"{path}: damaged or another version: expected {kind} {expected}, got {found} "
            f"({len(content):,} bytes). Remove it and get it again from {url}"
        )


def unpacked(
    published: Published, files: Mapping[str, str], folder: str, options: DataOptions
) -> dict[str, Path]:
    """The paths of files that are published in a zip archive, each with its known content.

    They are looked for in the data root, in its folder ``folder`` and in that of the cache; else
    the archive is obtained and they are unpacked into the cache. (UCI packs its archives anew, so
    it is the files in them that have checksums.)

    Args:
        published: the archive; a file in it has at most as many bytes as it.
        files: the SHA-256 of each, by its name in the archive, where it may be packed by gzip.
        folder: of the files.
        options: where to look.

    Raises:
        DataError: a file is missing or another one.
    """
    folders = [cache_folder() / folder]
    if options.data_root is not None:
        root = Path(options.data_root).expanduser()
        if not root.is_dir():
            raise DataError(f"data root {root}: expected a folder that holds {', '.join(files)}")
        folders = [root, root / folder, *folders]
    for place in folders:
        found = {name: place / name for name in files}
        if all(path.is_file() for path in found.values()):
            for name, path in found.items():
                verify(path, f"sha256:{files[name]}", published.url)
            return found
    archive = obtain(published, options)
    contents = {}
    try:
        with open_regular(archive) as file, zipfile.ZipFile(file) as packed:
            for name in files:
                inner = f"{name}.gz" if f"{name}.gz" in packed.namelist() else name
                with packed.open(inner) as member:
                    plain = member if inner == name else gzip.GzipFile(fileobj=member)
                    # No more than there can be: the check sum refuses what is cut off.
                    contents[folders[-1] / name] = plain.read(published.most)
    # Damaged archives raise KeyError, BadZipFile, zlib.error, RuntimeError and others.
    except Exception as error:
        raise DataError(f"{archive}: not the archive of {published.url}: {error}") from None
    for path, content in contents.items():
        verify(archive, f"sha256:{files[path.name]}", published.url, content)
    folders[-1].mkdir(parents=True, exist_ok=True)
    write_all(contents)
    return {path.name: path for path in contents}
