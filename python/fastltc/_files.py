"""Files that are either whole or absent; imports nothing heavy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name beside it, then renames it over ``path``.

    After an OSError, which names ``path``, whatever was there before is still there, whole.
    """
    write_all({path: content})


def write_all(contents: Mapping[Path, bytes], stale: Iterable[Path] = ()) -> None:
    """Writes files that belong together: all lie on the disk before the first takes its name.

    ``stale`` are files of an earlier set, which would be taken for part of the new one. Those that
    are there, and are not written anew, are removed before the first new file takes its name. After
    an OSError, which names the file that could not be written, as a rule nothing has changed
    (renaming can hardly fail where writing did not).
    """
    written: dict[Path, str] = {}
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
        for path in stale:
            if path not in contents:
                path.unlink(missing_ok=True)
        for path in contents:
            os.replace(written[path], path)
    except BaseException as error:
        for temporary in written.values():
            if os.path.exists(temporary):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
