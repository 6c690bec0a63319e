"""Runs an unedited script with ncps patched: what ``fastltc run`` does.

Only the standard library is imported here. ncps is patched when the script imports it, so that a
script may still set environment variables that torch reads at its import.
"""

from __future__ import annotations

import atexit
import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import runpy
import signal
import sys
import zipfile
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastltc.compat import Patch

__all__ = ["ScriptNotFoundError", "run_script"]

_NCPS_TORCH = "ncps.torch"


class ScriptNotFoundError(Exception):
    """There is no such file or module. ``status`` is the exit status that python has then."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run_script(
    target: str, arguments: Sequence[str] = (), *, module: bool = False, report: bool = False
) -> None:
    """Run a script as ``python TARGET ARGUMENTS...`` does, with ncps patched.

    The script is ``__main__``, and ``sys.argv`` and ``sys.path[0]`` are what it expects. The end
    of the process is left to the caller; this function returns when the script ends, and raises
    SystemExit with its exit status if that is not 0. An uncaught exception is shown by
    ``sys.excepthook``, without the lines of fastltc.

    Args:
        target: path of a file, or of a folder or zip file with a ``__main__.py``; or the name of
            a module.
        arguments: what ``sys.argv[1:]`` is.
        module: run a module, as ``python -m`` does.
        report: print to standard error, at the end, what of ncps was swapped.

    Raises:
        ScriptNotFoundError: if there is no such file or module.
        SystemExit: as the script raises it, or with status 1 after an uncaught exception.
    """
    if not module and not os.path.exists(target):
        raise ScriptNotFoundError(f"can't open file {os.path.abspath(target)!r}", 2)
    if not getattr(sys.flags, "safe_path", False):  # python -P, from 3.11
        _set_path(target, module)
    # Registered before anything the script registers, and so called after all of that.
    atexit.register(_die_if_interrupted)
    sys.argv = [target, *arguments]
    patches = _patch_when_imported()
    try:
        if module:
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        elif _is_source(target):
            _run_source(os.path.abspath(target))
        else:
            runpy.run_path(target, run_name="__main__")
    except SystemExit:
        raise
    except BaseException as error:
        _show(error)
    finally:
        if report:
            text = str(patches[0]) if patches else "ncps.torch was not imported"
            print(f"fastltc: {text}", file=sys.stderr)


def _set_path(target: str, module: bool) -> None:
    # Until now the first entry is the folder of the fastltc command.
    if module:
        sys.path[0] = os.getcwd()
    elif os.path.isfile(target) and not zipfile.is_zipfile(target):
        sys.path[0] = os.path.dirname(os.path.realpath(target))
    else:
        del sys.path[0]  # runpy puts the target there


def _is_source(path: str) -> bool:
    return os.path.isfile(path) and not path.endswith(".pyc") and not zipfile.is_zipfile(path)


def _run_source(path: str) -> None:
    """Run a file as runpy does, but with sys.argv[0] as it was given, and ``__main__`` left.

    Functions that the script has registered for the exit of the process may still need it.
    """
    with io.open_code(path) as file:
        source = file.read()
    main = ModuleType("__main__")
    main.__file__ = path
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    vars(main).update(__annotations__={}, __builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = main
    exec(compile(source, path, "exec", dont_inherit=True), vars(main))


def _patch_when_imported() -> list[Patch]:
    """Patch ncps when it is imported, or now if it has been. The patch is put in the list."""
    patches: list[Patch] = []

    def patch() -> None:
        from fastltc.compat import patch_ncps

        patches.append(patch_ncps())

    if _NCPS_TORCH in sys.modules:
        patch()
    else:
        sys.meta_path.insert(0, _AfterImport(patch))
    return patches


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds ncps.torch where the other finders do, and acts once it has been imported."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _NCPS_TORCH:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        loader = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.action()

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _show(error: BaseException) -> None:
    global _interrupted
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") in (
        __name__,
        "runpy",
    ):
        traceback = traceback.tb_next
    if traceback is None and isinstance(error, ImportError):
        raise ScriptNotFoundError(str(error), 1) from None
    sys.excepthook(type(error), error.with_traceback(traceback), traceback)
    _interrupted = isinstance(error, KeyboardInterrupt)
    raise SystemExit(1)


_interrupted = False


def _die_if_interrupted() -> None:
    """End as python does after an uncaught KeyboardInterrupt, so that a shell's loop ends too."""
    if _interrupted:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
