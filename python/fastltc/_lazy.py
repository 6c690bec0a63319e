"""Names of a package that are imported at first use: what needs no torch imports without it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any


def lazy_names(
    package: str, namespace: dict[str, Any], exports: Mapping[str, str], modules: Collection[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its name.
        namespace: its ``globals()``.
        exports: public name to the module that defines it.
        modules: names of its submodules.

    What ``fastltc-runtime`` leaves out is an ImportError that says where it is.
    """

    def get(name: str) -> Any:
        if name not in exports and name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        target = exports.get(name, f"{package}.{name}")
        try:
            module = importlib.import_module(target)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != "fastltc":
                raise
            raise ImportError(
                f"{package}.{name}: not in fastltc-runtime, which only runs and exports models "
                "that are trained; it is in fastltc (pip install fastltc)"
            ) from None
        value = getattr(module, name) if name in exports else module
        namespace[name] = value
        return value

    def names() -> list[str]:
        return sorted({*namespace, *exports, *modules})

    return get, names
