"""The error a data file or an image file raises."""

from __future__ import annotations


class DataError(ValueError):
    """A data set or an image is missing, damaged or unknown; the text says which."""
