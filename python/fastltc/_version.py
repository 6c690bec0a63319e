"""The version of what is installed; imports nothing heavy."""

from __future__ import annotations

# What brings the package: all of it, or what needs no torch. Where both are installed, the first is
# what is imported.
DISTRIBUTIONS = ("fastltc", "fastltc-runtime")


def own_version() -> str | None:
    """Return the version of the installed distribution; None where the package is not installed."""
    # Takes longer to import than all that a session needs.
    from importlib.metadata import PackageNotFoundError, version

    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            pass
    return None
