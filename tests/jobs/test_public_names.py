"""The public names of the jobs are there, whatever was imported before."""

from __future__ import annotations

import importlib
import pkgutil

from fastltc import jobs


def test_no_module_hides_a_public_name() -> None:
    modules = [module.name for module in pkgutil.iter_modules(jobs.__path__)]
    assert not {*modules} & {*jobs.__all__}
    for name in modules:
        importlib.import_module(f"{jobs.__name__}.{name}")
    for name in jobs.__all__:
        assert getattr(jobs, name).__name__ == name
