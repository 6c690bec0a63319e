"""Data sets for the jobs, and image files for prediction."""

from __future__ import annotations

from ..errors import DataError
from .images import ImageFile, normalise, read_image
from .options import DataOptions
from .registry import data_sets, find_source, load_data
from .sets import IGNORED, SPLITS, DataSet, Split

__all__ = [
    "IGNORED",
    "SPLITS",
    "DataError",
    "DataOptions",
    "DataSet",
    "ImageFile",
    "Split",
    "data_sets",
    "find_source",
    "load_data",
    "normalise",
    "read_image",
]
