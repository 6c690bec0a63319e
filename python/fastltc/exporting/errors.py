"""The error that exporting raises for a model that cannot leave torch."""

from __future__ import annotations


class ExportError(ValueError):
    """Something that cannot be exported; the text names it and says what can."""
