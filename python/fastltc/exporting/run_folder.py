"""From a run folder of ``fastltc train`` to what a model file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from fastltc.exporting.describe import Part, describe_parts
from fastltc.exporting.errors import ExportError
from fastltc.models import ConvNCP
from fastltc.models.backbones import Backbone
from fastltc.models.parts import diagonal
from fastltc.nn import LTC, CfC
from fastltc.training import Run

__all__ = ["describe_run"]


def describe_run(
    path: Path, layer: str | None = None, *, checkpoint: str = "best"
) -> tuple[list[Part], dict[str, str]]:
    """Return the model of a run, or one liquid layer of it.

    Args:
        path: the run folder.
        layer: name of a liquid layer of the model; None for the whole model. Of a convolutional
            model, the constant factor behind the layer, its ``gain``, is kept as a linear layer.
        checkpoint: ``"best"`` or ``"last"``.

    Returns:
        The layers, and what a file's metadata may say of the run: ``outputs`` (names of the
        classes) and, where the run knows them, ``inputs`` (names of the features) and
        ``time_unit`` (seconds that one unit of a time step is).

    Raises:
        ExportError: (a ValueError) if the model, or the layer, cannot be exported.
        RunError: (a ValueError) if the run or its checkpoint is missing or damaged.
    """
    loaded = Run.open(path).load_checkpoint(f"{checkpoint}.pt", "cpu")
    model: Any = loaded.model
    facts = {"outputs": json.dumps(list(loaded.classes))}
    if loaded.features and layer is None:
        facts["inputs"] = json.dumps(list(loaded.features))
    if loaded.time_unit:
        facts["time_unit"] = str(loaded.time_unit)
    liquid = {name: m for name, m in model.named_modules() if isinstance(m, (LTC, CfC))}
    if layer is None:
        try:
            return describe_parts(model), facts
        except ExportError as error:
            known = ", ".join(
                f"--layer {name} ({type(m).__name__}, {m.input_size} inputs a step)"
                for name, m in liquid.items()
            )
            raise ExportError(
                f"{path}: the whole model cannot be exported: {error}. "
                f"Its liquid part can: {known or 'it has none'}. What comes before it, as "
                "convolutions, has to be computed by other means"
            ) from None
    if layer not in liquid:
        raise ExportError(
            f"layer: expected one of {', '.join(liquid) or '(this model has none)'}, got {layer!r}"
        )
    if not isinstance(model, (ConvNCP, Backbone)) or model.gain == 1.0:
        return describe_parts(liquid[layer], layer), facts
    gains = torch.full((liquid[layer].output_size,), model.gain)
    return describe_parts([liquid[layer], diagonal(gains)]), facts
