"""From a torch module to a model file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import nn

from fastltc.exporting.descriptions import assemble, describe_parts, wiring_metadata
from fastltc.runtime.model import Model
from fastltc.runtime.model_file import write_model


def export(
    module: nn.Module | Sequence[nn.Module],
    path: str | os.PathLike[str],
    *,
    time_unit: float = 1.0,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
) -> Model:
    """Write a model file, which :class:`fastltc.runtime.Session` runs without torch.

    Args:
        module: an LTC or CfC layer of fastltc or ncps, or a stack of them with linear layers and
            activations between; see :func:`fastltc.exporting.describe` for what is possible.
        path: the file, ``.safetensors``. It is written to a temporary name and renamed, so that
            it is there whole or not at all.
        time_unit: seconds that one unit of its time steps is, as the module was trained.
        input_names: a name for each input, or none at all.
        output_names: a name for each output, of classes for example, or none at all.

    Returns:
        The model that the file holds.

    Raises:
        ExportError: (a ValueError) if a module cannot be exported, or unit or names do not fit; the
            text names it.
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> import fastltc
        >>> from fastltc.wirings import AutoNCP
        >>> layer = fastltc.LTC(16, AutoNCP(19, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = fastltc.export(layer, f"{folder}/model.safetensors", time_unit=60)
        >>> model.time_unit
        60
        >>> fastltc.exporting.describe(layer)
        Model(ltc, 16 inputs, 2 outputs, 19 state values, 2,753 parameters)

    Source: docs/export.md describes the file.
    """
    parts = describe_parts(module)
    model = assemble(parts, time_unit, input_names, output_names)
    write_model(model, path, wiring_metadata(parts))
    return model
