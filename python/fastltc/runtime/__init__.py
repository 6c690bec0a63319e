"""Inference without torch: one observation at a time, the state carried; see docs/runtime.md."""

from __future__ import annotations

from fastltc.runtime.impute import Impute
from fastltc.runtime.model import Model, ModelFileError, check_model
from fastltc.runtime.model_file import read_model, write_model
from fastltc.runtime.session import Network, Session, load

__all__ = [
    "Impute",
    "Model",
    "ModelFileError",
    "Network",
    "Session",
    "check_model",
    "load",
    "read_model",
    "write_model",
]
