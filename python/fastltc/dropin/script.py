"""Runs an unedited script with ncps patched: what ``fastltc run`` does.

Only the standard library is imported here. ncps is patched when the script imports it, so that a
script may still set environment variables that torch reads at its import.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import io
import os
import runpy
import sys
import zipfile
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_NCPS_TORCH = "ncps.torch"


def run_script(
    target: str, arguments: Sequence[str] = (), *, module: bool = False, report: bool = False
) -> None:
    """Run a script as ``python TARGET ARGUMENTS...`` does, with ncps patched.

    The script is ``__main__``, and ``sys.argv`` and ``sys.path[0]`` are what it expects. An
    uncaught exception is shown by ``sys.excepthook``, without the lines of fastltc, and raised:
    the caller lets it end the process, as it would under python, and it is not shown again.

    Args:
        target: path of a file, or of a folder or zip file with a ``__main__.py``; or the name of
            a module.
        arguments: what ``sys.argv[1:]`` is.
        module: run a module, as ``python -m`` does.
        report: print to standard error, at the end, what of ncps was swapped.

    Raises:
        SystemExit: as the script raises it, or if there is no such file or module.
        BaseException: what the script does not catch.
    """
    if not module and not os.path.exists(target):
        text = f"can't open file {os.path.abspath(target)!r}: [Errno 2] No such file or directory"
        print(f"{sys.executable}: {text}", file=sys.stderr)
        raise SystemExit(2)
    is_file = os.path.isfile(target) and not zipfile.is_zipfile(target)
    _set_path(target, module, is_file)
    sys.argv = ["-m" if module else target, *arguments]
    results = _patch_when_imported()
    main = ModuleType("__main__")
    vars(main)["__builtins__"] = builtins
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    sys.modules["__main__"] = main
    try:
        if is_file and not module:
            _run_file(os.path.abspath(target), main)
        else:
            # What python itself calls. The public functions of runpy take __main__ away at the
            # end, although threads and functions registered for the exit may still need it.
            run: Callable[[str, bool], object] = vars(runpy)["_run_module_as_main"]
            run(target if module else "__main__", module)
    except SystemExit:
        raise
    except BaseException as error:
        _show(error)
        raise
    finally:
        if report:
            text = str(results[0]) if results else "ncps.torch was not imported"
            print(f"fastltc: {text}", file=sys.stderr)


def _set_path(target: str, module: bool, is_file: bool) -> None:
    safe = getattr(sys.flags, "safe_path", False)  # python -P, from 3.11
    if not safe:
        del sys.path[0]  # the folder of the fastltc command
    if not module and not is_file:
        sys.path.insert(0, os.path.abspath(target))
    elif not safe:
        sys.path.insert(0, os.getcwd() if module else os.path.dirname(os.path.realpath(target)))


def _run_file(path: str, main: ModuleType) -> None:
    main.__file__ = path
    main.__cached__ = None  # type: ignore[attr-defined]
    if path.endswith(".pyc"):
        loader: Any = importlib.machinery.SourcelessFileLoader("__main__", path)
        code = loader.get_code("__main__")
    else:
        loader = importlib.machinery.SourceFileLoader("__main__", path)
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
    main.__loader__ = loader
    exec(code, vars(main))


def _patch_when_imported() -> list[object]:
    """Patch ncps when it is imported, or now if it has been. The list gets what came of it."""
    results: list[object] = []

    def patch() -> None:
        try:
            from fastltc.dropin.patch import patch_ncps
        except ImportError as error:
            # Another distribution of that name: the script may run with it all the same.
            if (error.name or "").partition(".")[0] != "ncps":
                raise
            results.append(f"ncps is left alone: {error}")
        else:
            results.append(patch_ncps())

    if _NCPS_TORCH in sys.modules:
        patch()
    else:
        sys.meta_path.insert(0, _AfterImport(patch))
    return results


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds ncps.torch where the other finders do, and acts once it has been imported."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _NCPS_TORCH:
            return None
        found = (f.find_spec(name, path, target) for f in sys.meta_path if f is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return None
        loader = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            # Whoever asks for the spec need not import; and a zip file has one loader for many.
            if module.__name__ == _NCPS_TORCH and self in sys.meta_path:
                sys.meta_path.remove(self)
                self.action()

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _show(error: BaseException) -> None:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") == __name__:
        traceback = traceback.tb_next
    sys.excepthook(type(error), error.with_traceback(traceback), traceback)
    sys.excepthook = lambda *shown: None
