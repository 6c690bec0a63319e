"""From a run folder of ``fastltc train`` to what a model file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fastltc.exporting.descriptions import Part, assemble, describe_parts, wiring_metadata
from fastltc.exporting.errors import ExportError
from fastltc.jobs.models import ConvNCP
from fastltc.jobs.models.backbones import Backbone
from fastltc.jobs.models.parts import diagonal
from fastltc.jobs.options import one_of
from fastltc.jobs.run import Run
from fastltc.nn import LTC, CfC
from fastltc.runtime.model import Model

__all__ = ["describe_run"]

# Models whose logits are the outputs of their liquid layer, times a factor.
_ENDS_LIQUID = (ConvNCP, Backbone)


def describe_run(
    path: Path, layer: str | None = None, *, checkpoint: str = "best"
) -> tuple[Model, dict[str, str]]:
    """Return the model of a run, or one liquid layer of it.

    Args:
        path: the run folder.
        layer: name of a liquid layer of the model; None for the whole model. Of a convolutional
            model, the constant factor behind the layer, its ``gain``, is kept as a linear layer.
        checkpoint: ``"best"`` or ``"last"``.

    Returns:
        The model, with what the run knows of it: the unit of its time steps, and the names of
        features and classes where its inputs and outputs are these; and metadata for a model file:
        the wirings, and which checkpoint it is of.

    Raises:
        ExportError: (a ValueError) if the model, or the layer, cannot be exported.
        RunError: (a ValueError) if the run or its checkpoint is missing or damaged.
    """
    loaded = Run.open(path).load_checkpoint(f"{checkpoint}.pt", "cpu")
    parts = _parts(path, loaded.model, layer)
    sizes = assemble(parts)
    # The inputs of a layer are not those of the model, and its outputs only of some, whatever their
    # number.
    first, last = layer is None, layer is None or isinstance(loaded.model, _ENDS_LIQUID)
    model = assemble(
        parts,
        # 0 where the data had no time steps, and each step is one unit.
        loaded.time_unit or 1.0,
        loaded.features if first and len(loaded.features) == sizes.input_size else (),
        loaded.classes if last and len(loaded.classes) == sizes.output_size else (),
    )
    return model, {**wiring_metadata(parts), "checkpoint": loaded.origin}


def _parts(path: Path, model: Any, layer: str | None) -> list[Part]:
    liquid = {name: m for name, m in model.named_modules() if isinstance(m, (LTC, CfC))}
    if layer is None:
        try:
            return describe_parts(model)
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
    one_of(liquid or ("(this model has none)",)).check("layer", layer, ExportError)
    if not isinstance(model, _ENDS_LIQUID) or model.gain == 1.0:
        return describe_parts(liquid[layer], layer)
    gains = torch.full((liquid[layer].output_size,), model.gain)
    return describe_parts([liquid[layer], diagonal(gains)])
