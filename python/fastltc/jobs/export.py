"""From a run folder of ``fastltc train`` to what a model file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from fastltc.exporting.descriptions import Part, assemble, describe_parts, wiring_metadata
from fastltc.exporting.errors import ExportError
from fastltc.jobs.evaluation.answers import column_names
from fastltc.jobs.models import ConvNCP
from fastltc.jobs.models.backbones import Backbone
from fastltc.jobs.models.parts import diagonal
from fastltc.jobs.options import one_of
from fastltc.jobs.run import Checkpoint, Run
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
        features and of classes or targets where its inputs and outputs are these; and metadata for
        a model file: the wirings, which checkpoint it is of, and of a model of rows that were
        measured in part ``impute``, as JSON what `fastltc.runtime.Impute` takes, whose output are
        then the inputs.

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
    inputs, outputs = input_names(loaded), output_names(loaded)
    model = assemble(
        parts,
        # 0 where the data had no time steps, and each step is one unit.
        loaded.time_unit or 1.0,
        inputs if first and len(inputs) == sizes.input_size else (),
        outputs if last and len(outputs) == sizes.output_size else (),
    )
    metadata = {**wiring_metadata(parts), "checkpoint": loaded.origin}
    fill = getattr(loaded.model, "fill", None)
    if fill is not None and layer is None:
        # What fastltc.runtime.Impute takes, which makes the inputs.
        metadata["impute"] = json.dumps(fill.settings())
    return model, metadata


def input_names(loaded: Checkpoint) -> tuple[str, ...]:
    """What a model reads in a step: features, and of those measured in part what is added."""
    if not loaded.measured:
        return loaded.features
    beside = ("measured", "time since measured")
    return (*loaded.features, *(f"{name} {what}" for what in beside for name in loaded.features))


def output_names(loaded: Checkpoint) -> tuple[str, ...]:
    """What a model answers in a step: classes or targets, of steps ahead and of quantiles each."""
    if not loaded.targets:
        return loaded.classes
    names = column_names(loaded.targets, loaded.config.levels)
    if not loaded.horizon or loaded.config.forecast == "recursive":
        return tuple(names)
    return tuple(f"{name} +{step + 1}" for step in range(loaded.horizon) for name in names)


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
