"""Reads what is a file, and writes files whole or not at all; imports nothing heavy."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

# What may be in the place of a file.
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: True, "a device"),
)


class NotRegularError(OSError):
    """What is at a path is a folder, a pipe, a socket or a device."""


def open_regular(path: Path | str) -> BinaryIO:
    """Opens a file for reading, in bytes.

    A pipe would wait for somebody to write, a terminal for somebody to type, and a device may give
    bytes for ever.

    Raises:
        NotRegularError: (an OSError) it is no regular file.
        OSError: there is none, or it may not be read.
    """
    # Opening alone does something to some devices, and the file may be another one by then.
    _check_regular(os.stat(path).st_mode, path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_regular(os.fstat(file.fileno()).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(mode: int, path: Path | str) -> None:
    if not stat.S_ISREG(mode):
        found = next(name for holds, name in _KINDS if holds(mode))
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise NotRegularError(number, f"expected a regular file, got {found}", str(path))


def read_bytes(path: Path | str, most: int | None = None) -> bytes:
    """The content of a file.

    Raises:
        OSError: as `open_regular`; or it has more than ``most`` bytes.
    """
    with open_regular(path) as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise OSError(errno.EFBIG, f"expected at most {most:,} bytes, got more", str(path))
    return content


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name beside it, then renames it over ``path``.

    After an OSError, which names ``path``, whatever was there before is still there, whole.
    """
    write_all({path: content})


def write_all(contents: Mapping[Path, bytes], stale: Iterable[Path] = ()) -> None:
    """Writes files that belong together: all lie on the disk before the first takes its name.

    ``stale`` are files of an earlier set, which would be taken for part of the new one. Those that
    are there, and are not written anew, are removed before the first new file takes its name. After
    an OSError, which names the file that could not be written, everything is as it was; a process
    that is killed leaves each file as it was or new.
    """
    # Takes as long to import as all else of the runtime.
    import tempfile

    written: dict[Path, str] = {}
    earlier: dict[Path, str] = {}
    absent = [path for path in contents if not os.path.lexists(path)]
    gone = [path for path in stale if path not in contents]
    path = Path()
    try:
        for path, content in contents.items():
            handle, written[path] = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner can read.
            os.chmod(written[path], 0o666 & ~_umask())
        if len(contents) + len(gone) > 1:
            for path in (*gone, *contents):
                # Some file systems have no second names: then nothing is put back.
                with contextlib.suppress(OSError):
                    name = str(path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}"))
                    os.link(path, name)
                    earlier[path] = name
        for path in gone:
            path.unlink(missing_ok=True)
        for path in contents:
            os.replace(written[path], path)
    except BaseException as error:
        for changed, name in earlier.items():
            os.replace(name, changed)
        for changed in absent:
            changed.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        for name in (*written.values(), *earlier.values()):
            with contextlib.suppress(OSError):
                os.unlink(name)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
