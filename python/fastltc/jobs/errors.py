"""The errors that training, evaluation and prediction raise for a user's mistake."""

from __future__ import annotations


class ConfigError(ValueError):
    """An option has a value that cannot work; the text says what was expected and what came."""


class DeviceError(ConfigError):
    """The device that was asked for is unknown or not there."""


class RunError(ValueError):
    """A run folder or one of its files is missing, damaged or in the way; the text names it."""


class DivergedError(RuntimeError):
    """The training loss is no longer a finite number."""
