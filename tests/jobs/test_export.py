"""The public names of training are there, whatever was imported before."""

from __future__ import annotations

import importlib
import pkgutil

from fastltc import training


def test_no_module_hides_a_public_name() -> None:
    modules = [module.name for module in pkgutil.iter_modules(training.__path__)]
    assert not {*modules} & {*training.__all__}
    for name in modules:
        importlib.import_module(f"{training.__name__}.{name}")
    for name in training.__all__:
        assert getattr(training, name).__name__ == name
