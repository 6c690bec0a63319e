"""The errors that the jobs raise for a user's mistake; the text says all that a user needs."""

from __future__ import annotations


class DataError(ValueError):
    """A data set or an image is missing, damaged or unknown; the text says which."""


class ConfigError(ValueError):
    """An option has a value that cannot work; the text says what was expected and what came."""


class DeviceError(ConfigError):
    """The device that was asked for is unknown or not there."""


class RunError(ValueError):
    """A run folder or one of its files is missing, damaged or in the way; the text names it."""


class DivergedError(RuntimeError):
    """The training loss is no longer a finite number."""
