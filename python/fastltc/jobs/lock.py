"""What one process at a time does: a lock that ends with the process that holds it."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import RunError


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a lock on a file, which is made, and removed at the end of the block.

    A process that is killed holds it no longer. Where the system or the file system has no
    ``flock`` (Windows, some network folders) the block runs without.

    Args:
        path: the file, in a folder that is there.
        wait: until the process that holds the lock gives it back, else it is an error.

    Raises:
        RunError: another process holds it; the text says which.
        OSError: the file cannot be made.
    """
    handle = _take(path, wait)
    try:
        yield
    finally:
        if handle is not None:
            # As long as it is held: whoever has opened it looks whether it is still there.
            path.unlink(missing_ok=True)
            os.close(handle)


def _take(path: Path, wait: bool) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    # A link would lead to a file that somebody else has chosen.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        handle = os.open(path, flags, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(handle, 200, 0).decode("utf-8", "replace") or "another process"
            os.close(handle)
            raise RunError(
                f"{path.parent}: in use by {owner}; wait until it has ended, or take another folder"
            ) from None
        except OSError:
            # No locks there. The file stays: another process may have it open.
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        if _is_at(path, handle):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {platform.node()}".encode(), 0)
            return handle
        # The process before has removed it in between.
        os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    return False
