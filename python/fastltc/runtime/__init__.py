"""Inference without torch; see docs/export.md for the model file."""

from __future__ import annotations

from fastltc.runtime.model import Model, ModelFileError, check_model
from fastltc.runtime.model_file import read_model, write_model

__all__ = ["Model", "ModelFileError", "check_model", "read_model", "write_model"]
