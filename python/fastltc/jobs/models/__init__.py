"""Models by name: liquid networks and what they are compared with."""

from __future__ import annotations

from .backbones import Backbone, MissingTorchvisionError
from .conv_ncp import ConvNCP
from .dense import Dense
from .ensemble import Ensemble
from .goal import Goal
from .parts import CELLS
from .patches import Patches
from .probe import Probe
from .registry import (
    MODELS,
    build_model,
    default_model,
    find_model,
    load_weights,
    trainable_parameters,
)
from .reservoir import Reservoir
from .sequence import Rows
from .series import Series

__all__ = [
    "CELLS",
    "MODELS",
    "Backbone",
    "ConvNCP",
    "Dense",
    "Ensemble",
    "Goal",
    "MissingTorchvisionError",
    "Patches",
    "Probe",
    "Reservoir",
    "Rows",
    "Series",
    "build_model",
    "default_model",
    "find_model",
    "load_weights",
    "trainable_parameters",
]
