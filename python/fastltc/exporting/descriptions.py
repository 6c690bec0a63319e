"""From a torch module to what a model file holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastltc._parameters import CFC_HEADS
from fastltc.exporting.errors import ExportError
from fastltc.exporting.leaves import leaves_of, title_of
from fastltc.nn import (
    LTC,
    Bidirectional,
    CfC,
    CfCCell,
    LTCCell,
    MaskedLinear,
    ParallelCfC,
    ParallelLTC,
    WiredCfCCell,
)
from fastltc.nn.cfc_cell import LeCun
from fastltc.nn.changes import change, compute_parameters, has_own_forward
from fastltc.nn.lstm_cell import memory_change
from fastltc.ops.synapses import mask_ones
from fastltc.runtime.model import Model, ModelFileError, check_model, tensor_shapes

SUPPORTED = (
    "LTC, CfC and their cells (of fastltc and of ncps), nn.Linear, MaskedLinear, nn.ReLU, nn.Tanh, "
    "nn.Sigmoid, nn.SiLU, nn.GELU, nn.Softplus, nn.Softmax(dim=-1), nn.Identity, nn.Dropout, "
    "Sequential and nn.ModuleList of these, and modules that say by a method export_layers() "
    "what they run"
)

_ACTIVATIONS: dict[type, str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.Softplus: "softplus",
    nn.Softmax: "softmax",
    LeCun: "lecun_tanh",
}
_NOTHING_WHEN_EVALUATED = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
_REASONS: dict[type, str] = {
    Bidirectional: "because it needs what comes later; its forward_layer can",
    **dict.fromkeys(
        (ParallelCfC, ParallelLTC),
        "because it is many networks; each of its layers can, as given by layer(index)",
    ),
}


@dataclass
class Part:
    """One layer of a model file."""

    layer: dict[str, Any]
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    wiring: dict[str, Any] | None = None
    sigmoid_precision: str | None = None


def describe(
    module: nn.Module | Sequence[nn.Module],
    *,
    time_unit: float = 1.0,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
) -> Model:
    """Return what a module computes in one time step, without torch.

    The module may be an :class:`~fastltc.LTC` or :class:`~fastltc.CfC`, wired or plain, of fastltc
    or of ncps; a cell of one; or a stack of them with linear layers and activations before,
    between and behind: a :class:`~fastltc.Sequential`, an ``nn.Sequential``, an ``nn.ModuleList``
    or a plain list, in the order in which they run. Of a layer that returns a tuple
    ``(output, hn)`` the next one takes the output.

    A module with a ``forward`` of its own says by a method ``export_layers()`` which modules it
    runs, one after the other::

        class Policy(nn.Module):
            def forward(self, x, hx=None, timespans=None):
                output, hn = self.rnn(torch.relu(self.encoder(x)), hx, timespans)
                return self.head(output), hn

            def export_layers(self):
                return [self.encoder, nn.ReLU(), self.rnn, self.head]

    Without it, a module whose parameters are all in an attribute ``layers`` is taken to run these
    in order, and it is checked on random numbers that it does.

    Dropout is left out, ``return_sequences`` and ``batch_first`` do not matter for single steps,
    hooks do not run, and numbers are rounded to float32. Sigmoids are of medium precision where
    that was set for each LTC, by its ``sigmoid_precision``.

    Args:
        module: the module or list of modules; it is not changed.
        time_unit: seconds that one unit of its time steps is, as the module was trained.
        input_names: a name for each input, or none at all.
        output_names: a name for each output, of classes for example, or none at all.

    Returns:
        The model; its layers and tensors are described in docs/export.md.

    Raises:
        ExportError: (a ValueError) if a module cannot be exported, or unit or names do not fit; the
            text names it.

    Example:
        >>> from fastltc import LTC
        >>> from fastltc.exporting import describe
        >>> from fastltc.wirings import AutoNCP
        >>> model = describe([LTC(16, AutoNCP(19, 2)), torch.nn.Linear(2, 1)])
        >>> [layer["type"] for layer in model.layers], model.state_size
        (['ltc', 'linear'], 19)
    """
    return assemble(describe_parts(module), time_unit, input_names, output_names)


def assemble(
    parts: Sequence[Part],
    time_unit: float = 1.0,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
) -> Model:
    """Return the model of its parts, checked; the rest as of :func:`describe`."""
    sized = [part.layer for part in parts if "input_size" in part.layer]
    if not sized:
        raise ExportError(f"nothing to export: expected at least one layer, supported: {SUPPORTED}")
    precisions = {part.sigmoid_precision for part in parts if part.layer["type"] == "ltc"}
    model = Model(
        input_size=sized[0]["input_size"],
        output_size=sized[-1]["output_size"],
        layers=[part.layer for part in parts],
        tensors={
            f"layers.{index}.{name}": tensor
            for index, part in enumerate(parts)
            for name, tensor in part.tensors.items()
        },
        time_unit=time_unit.item() if isinstance(time_unit, np.generic) else time_unit,
        input_names=_names(input_names),
        output_names=_names(output_names),
        # Of several layers the most precise.
        sigmoid_precision="medium" if precisions == {"medium"} else "highest",
    )
    try:
        check_model(model)
    except ModelFileError as error:
        raise ExportError(str(error)) from None
    return model


def _names(names: Any) -> Any:
    names = names.tolist() if isinstance(names, np.ndarray) else names
    # A text is a sequence of texts, but nobody means its letters.
    if isinstance(names, str) or not isinstance(names, Sequence):
        return names
    return tuple(str(name) if isinstance(name, str) else name for name in names)


def wiring_metadata(parts: Sequence[Part]) -> dict[str, str]:
    """Return what people may want to know of the wirings: entries of a file's metadata."""
    return {"wiring": json.dumps([part.wiring for part in parts])}


def describe_parts(module: Any, name: str = "") -> list[Part]:
    """Return the layers of a module; see :func:`describe`."""
    if not isinstance(module, nn.Module) and not (
        isinstance(module, (list, tuple)) and all(isinstance(m, nn.Module) for m in module)
    ):
        raise ExportError(
            f"module: expected a torch.nn.Module or a list of them, got {type(module).__name__}"
        )
    parts: list[Part] = []
    batch_first: tuple[str, bool] | None = None
    last: str | None = None
    for path, leaf in leaves_of(module, name):
        if isinstance(leaf, (LTC, CfC)):
            if last is not None:
                raise ExportError(
                    f"{path}: reads sequences, but {last} before it has return_sequences=False"
                )
            if batch_first is not None and batch_first[1] != leaf.batch_first:
                raise ExportError(
                    f"{path}: batch_first={leaf.batch_first}, but {batch_first[0]} has "
                    f"{batch_first[1]}"
                )
            batch_first = path, leaf.batch_first
            last = None if leaf.return_sequences else path
        parts += _describe_leaf(path, leaf)
    return parts


def _describe_leaf(path: str, module: Any) -> list[Part]:
    title = title_of(path, module)
    kind = type(module)
    if kind in _NOTHING_WHEN_EVALUATED:
        return []
    if kind in _ACTIVATIONS:
        return [Part({"type": "activation", "function": _activation(title, module)})]
    known: Any
    describe_one: Any
    for known, describe_one in (
        (nn.Linear, _describe_linear),
        (MaskedLinear, _describe_masked_linear),
        *((kind, _describe_liquid) for kind in (LTC, CfC, LTCCell, WiredCfCCell, CfCCell)),
    ):
        if isinstance(module, known):
            if kind.forward is not known.forward or "forward" in vars(module):
                raise ExportError(
                    f"{title}: has a forward of its own, which may compute something else than "
                    f"that of {known.__name__}"
                )
            part = describe_one(title, module)
            _read_tensors(title, part)
            return [part]
    reason = next((f", {why}" for known, why in _REASONS.items() if isinstance(module, known)), "")
    raise ExportError(f"{title}: cannot be exported{reason}; supported: {SUPPORTED}")


def _activation(title: str, module: Any) -> str:
    if isinstance(module, nn.GELU) and module.approximate != "none":
        raise ExportError(f"{title}: expected approximate='none', got {module.approximate!r}")
    if isinstance(module, nn.Softplus) and (module.beta, module.threshold) != (1, 20):
        raise ExportError(
            f"{title}: expected beta=1, threshold=20, got {module.beta}, {module.threshold}"
        )
    if isinstance(module, nn.Softmax) and module.dim != -1:
        raise ExportError(f"{title}: expected dim=-1, the features, got {module.dim}")
    return _ACTIVATIONS[type(module)]


# The functions below put torch tensors into a part; _read_tensors makes arrays of them.


def _describe_linear(title: str, module: nn.Linear) -> Part:
    bias = module.bias is not None
    tensors = {"weight": module.weight, **({"bias": module.bias} if bias else {})}
    sizes = {"input_size": module.in_features, "output_size": module.out_features}
    return Part({"type": "linear", **sizes, "bias": bias}, tensors)  # type: ignore[arg-type]


def _describe_masked_linear(title: str, module: Any) -> Part:
    part = _describe_linear(title, module)
    part.tensors["weight"] = torch.where(module.mask != 0, module.weight, 0)  # type: ignore[assignment]
    return part


def _refuse(title: str, reason: str | None) -> None:
    if reason is not None:
        raise ExportError(f"{title}: {reason}, which an exported model cannot follow")


def _describe_ltc(title: str, cell: Any) -> dict[str, Any]:
    _refuse(title, cell._softplus_change())
    compute_parameters(cell)
    maps = {f"{side}_mapping": getattr(cell, f"_{side}_mapping") for side in ("input", "output")}
    return {
        "type": "ltc",
        "input_size": cell.sensory_size,
        "units": cell.state_size,
        "output_size": cell.motor_size,
        "ode_unfolds": int(cell._ode_unfolds),
        "epsilon": float(cell._epsilon),
        "implicit_param_constraints": bool(cell._implicit_param_constraints),
        **{key: m if m in ("affine", "linear") else None for key, m in maps.items()},
        "mixed_memory": False,
    }


def _parts(title: str, cell: Any) -> Any:
    """Return the modules of a CfC cell whose parameters can be read."""
    parts = cell._find_parts(computed=True)
    _refuse(title, parts if isinstance(parts, str) else None)
    for linear in parts.linears:
        compute_parameters(linear)
    return parts


def _describe_wired_cfc(title: str, cell: Any) -> dict[str, Any]:
    _parts(title, cell)
    return {
        "type": "wired_cfc",
        "input_size": cell.sensory_size,
        "units": cell.state_size,
        "output_size": cell.layer_sizes[-1],
        "cells": list(cell.layer_sizes),
        "mode": cell._layers[0].mode,
        "mixed_memory": False,
        "proj_size": None,
    }


def _describe_cfc(title: str, cell: Any, known: dict[str, Any]) -> dict[str, Any]:
    """Describe a plain cell; tensors that it has under other names come into ``known``."""
    parts = _parts(title, cell)
    layers = cell.backbone_layers
    dense = parts.linears[:layers]
    # Dropout modules count in the names of the module, and are not in the file.
    for index, linear in enumerate(dense):
        for name in ("weight", "bias"):
            known[f"rnn_cell.backbone.{2 * index}.{name}"] = getattr(linear, name)
    mask = cell.sparsity_mask
    if mask is not None:
        for name, head in zip(CFC_HEADS[:2], parts.linears[layers:], strict=False):
            known[f"rnn_cell.{name}.weight"] = torch.where(mask != 0, head.weight, 0)
    return {
        "type": "cfc",
        "input_size": cell.input_size,
        "units": cell.hidden_size,
        "output_size": cell.hidden_size,
        "mode": cell.mode,
        "activation": parts.activation,
        "backbone_layers": layers,
        "backbone_units": dense[0].out_features if layers else 0,
        "mixed_memory": False,
        "proj_size": None,
    }


def _describe_liquid(title: str, module: Any) -> Part:
    """Describe a layer, or a cell by itself."""
    is_layer = isinstance(module, (LTC, CfC))
    cell = module.rnn_cell if is_layer else module
    if is_layer and not has_own_forward(cell):
        _refuse(title, f"its rnn_cell, a {type(cell).__name__}, has a forward of its own")
    known: dict[str, Any] = {}
    if isinstance(cell, LTCCell):
        layer = _describe_ltc(title, cell)
    elif isinstance(cell, WiredCfCCell):
        layer = _describe_wired_cfc(title, cell)
    else:
        layer = _describe_cfc(title, cell, known)
    fc = module.fc if isinstance(module, CfC) else None
    if fc is not None:
        _refuse(title, change("fc", fc, (nn.Linear, nn.Identity), computed=True))
    if isinstance(fc, nn.Linear):
        compute_parameters(fc)
        layer["proj_size"] = layer["output_size"] = fc.out_features
        if fc.bias is None:
            raise ExportError(f"{title}: its fc has no bias")
    if is_layer and module.use_mixed:
        layer["mixed_memory"] = True
        _refuse(title, memory_change(module.lstm, computed=True))
        compute_parameters(module.lstm.input_map)
        compute_parameters(module.lstm.recurrent_map)
    # Not from the state dict: of pruned and parametrized modules that holds other tensors.
    tensors = {}
    for name in tensor_shapes(layer):
        path = name if is_layer else name.removeprefix("rnn_cell.")
        tensors[name] = known[name] if name in known else attrgetter(path)(module)
    precision = cell.sigmoid_precision if isinstance(cell, LTCCell) else None
    return Part(layer, tensors, _wiring(cell), precision)


def _read_tensors(title: str, part: Part) -> None:
    for name, tensor in part.tensors.items():
        part.tensors[name] = to_array(title, name, tensor)
    clear_unused(part)


def to_array(title: str, name: str, tensor: Any) -> np.ndarray:
    """Return a tensor as a float32 array that is its own."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.is_meta:
        raise ExportError(f"{title}: {name}: expected a floating-point tensor with values")
    if name.endswith("sparsity_mask"):
        try:
            tensor = mask_ones(tensor, f"{title}: {name}").float()
        except ValueError as error:
            raise ExportError(str(error)) from None
    values = tensor.detach().to(device="cpu", dtype=torch.float32).numpy()
    return np.array(values, dtype=np.float32, order="C")


def clear_unused(part: Part) -> None:
    """Set the parameters of synapses that do not exist to 0 where they are no numbers."""
    if part.layer["type"] != "ltc":
        return
    for prefix in ("", "sensory_"):
        mask = part.tensors[f"rnn_cell.{prefix}sparsity_mask"]
        for name in ("sigma", "mu", "w", "erev"):
            tensor = part.tensors[f"rnn_cell.{prefix}{name}"]
            if tensor.shape == mask.shape:
                tensor[(mask == 0) & ~np.isfinite(tensor)] = 0


def _wiring(cell: Any) -> dict[str, Any] | None:
    if isinstance(cell, CfCCell):
        return None
    wiring, neurons = cell._wiring, list(range(cell.state_size))
    if isinstance(cell, WiredCfCCell):
        layers = range(wiring.num_layers)
        neurons = [n for index in layers for n in wiring.get_neurons_of_layer(index)]
    return {
        "class": type(wiring).__name__,
        "neurons": [str(wiring.get_type_of_neuron(neuron)) for neuron in neurons],
    }
