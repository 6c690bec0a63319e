"""From a torch module to what a model file holds."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastltc.exporting.errors import ExportError
from fastltc.exporting.leaves import leaves_of, title_of
from fastltc.nn import (
    LTC,
    Bidirectional,
    CfC,
    CfCCell,
    LTCCell,
    MaskedLinear,
    ParallelLTC,
    WiredCfCCell,
)
from fastltc.nn.cfc_cell import LeCun
from fastltc.nn.changes import change, compute_parameters, has_own_forward
from fastltc.nn.lstm_cell import memory_change
from fastltc.ops.synapses import mask_ones
from fastltc.runtime.model import Model, ModelFileError, check_model, tensor_shapes

__all__ = ["describe", "describe_parts", "wiring_metadata"]

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
    ParallelLTC: "because it is many networks; each of its layers can, as given by layer(index)",
}


@dataclass
class Part:
    """One layer of a model file."""

    layer: dict[str, Any]
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    wiring: dict[str, Any] | None = None


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
    hooks do not run, and numbers are rounded to float32.

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
    """Return the model of its parts, checked; the rest as of :func:`describe`.

    Raises:
        ExportError: if they do not fit each other.
    """
    sized = [part.layer for part in parts if "input_size" in part.layer]
    if not sized:
        raise ExportError(f"nothing to export: expected at least one layer, supported: {SUPPORTED}")
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
    last: tuple[str, bool] | None = None
    for path, leaf in leaves_of(module, name):
        if last is not None and isinstance(leaf, (LTC, CfC)):
            raise ExportError(
                f"{path}: reads sequences, but {last[0]} before it has return_sequences=False"
            )
        if isinstance(leaf, (LTC, CfC)):
            if batch_first is not None and batch_first[1] != leaf.batch_first:
                raise ExportError(
                    f"{path}: batch_first={leaf.batch_first}, but {batch_first[0]} has "
                    f"{batch_first[1]}"
                )
            batch_first = path, leaf.batch_first
            last = None if leaf.return_sequences else (path, False)
        parts += _describe_leaf(path, leaf)
    return parts


def _describe_leaf(path: str, module: Any) -> list[Part]:
    title = title_of(path, module)
    kind = type(module)
    if kind in _NOTHING_WHEN_EVALUATED:
        return []
    if kind in _ACTIVATIONS:
        return [Part({"type": "activation", "function": _activation(title, module)})]
    describe_one: Any
    for known, describe_one in (
        (nn.Linear, _describe_linear),
        (MaskedLinear, _describe_masked_linear),
        (LTC, _describe_ltc),
        (CfC, _describe_cfc),
        (LTCCell, _describe_ltc_cell),
        (WiredCfCCell, _describe_wired_cfc_cell),
        (CfCCell, _describe_cfc_cell),
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


def _check_own_cell(title: str, layer: Any) -> None:
    if not has_own_forward(layer.rnn_cell):
        _refuse(title, f"its rnn_cell, a {type(layer.rnn_cell).__name__}, has a forward of its own")


def _describe_ltc(title: str, module: LTC) -> Part:
    _check_own_cell(title, module)
    part = _describe_ltc_cell(title, module.rnn_cell)
    return _with_memory(title, part, module)


def _describe_ltc_cell(title: str, cell: Any) -> Part:
    def mapping(value: Any) -> str | None:
        return value if value in ("affine", "linear") else None

    _refuse(title, cell._softplus_change())
    compute_parameters(cell)
    layer = {
        "type": "ltc",
        "input_size": cell.sensory_size,
        "units": cell.state_size,
        "output_size": cell.motor_size,
        "ode_unfolds": int(cell._ode_unfolds),
        "epsilon": float(cell._epsilon),
        "implicit_param_constraints": bool(cell._implicit_param_constraints),
        "input_mapping": mapping(cell._input_mapping),
        "output_mapping": mapping(cell._output_mapping),
        "mixed_memory": False,
    }
    wiring = _wiring(cell._wiring, range(cell.state_size))
    return Part(layer, _look_up(cell, layer), wiring)


def _describe_cfc(title: str, module: CfC) -> Part:
    _check_own_cell(title, module)
    if module.wired_mode:
        part = _describe_wired_cfc_cell(title, module.rnn_cell)
    else:
        part = _describe_cfc_cell(title, module.rnn_cell)
    fc = module.fc
    _refuse(title, change("fc", fc, (nn.Linear, nn.Identity), computed=True))
    if isinstance(fc, nn.Linear):
        compute_parameters(fc)
        part.layer["proj_size"] = part.layer["output_size"] = fc.out_features
        if fc.bias is None:
            raise ExportError(f"{title}: its fc has no bias")
        part.tensors.update({"fc.weight": fc.weight, "fc.bias": fc.bias})  # type: ignore[dict-item]
    return _with_memory(title, part, module)


def _parts(title: str, cell: Any) -> Any:
    """Return the modules of a CfC cell whose parameters can be read."""
    parts = cell._find_parts(computed=True)
    _refuse(title, parts if isinstance(parts, str) else None)
    for linear in parts.linears:
        compute_parameters(linear)
    return parts


def _describe_wired_cfc_cell(title: str, cell: Any) -> Part:
    _parts(title, cell)
    wiring = cell._wiring
    neurons = [n for index in range(wiring.num_layers) for n in wiring.get_neurons_of_layer(index)]
    layer = {
        "type": "wired_cfc",
        "input_size": cell.sensory_size,
        "units": cell.state_size,
        "output_size": cell.layer_sizes[-1],
        "cells": list(cell.layer_sizes),
        "mode": cell._layers[0].mode,
        "mixed_memory": False,
        "proj_size": None,
    }
    return Part(layer, _look_up(cell, layer), _wiring(wiring, neurons))


def _describe_cfc_cell(title: str, cell: Any) -> Part:
    parts = _parts(title, cell)
    layers = cell.backbone_layers
    dense = parts.linears[:layers]
    layer = {
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
    # Dropout modules count in the names of the module, and are not in the file.
    backbone = {
        f"rnn_cell.backbone.{2 * index}.{name}": getattr(linear, name)
        for index, linear in enumerate(dense)
        for name in ("weight", "bias")
    }
    tensors: Any = _look_up(cell, layer, known=backbone)
    mask = cell.sparsity_mask
    if mask is not None:
        for name in ("ff1", "ff2"):
            key = f"rnn_cell.{name}.weight"
            if key in tensors:
                tensors[key] = torch.where(mask != 0, tensors[key], 0)
    return Part(layer, tensors)


def _with_memory(title: str, part: Part, module: Any) -> Part:
    part.layer["mixed_memory"] = bool(module.use_mixed)
    if module.use_mixed:
        lstm = module.lstm
        _refuse(title, memory_change(lstm, computed=True))
        compute_parameters(lstm.input_map)
        compute_parameters(lstm.recurrent_map)
        for name in ("input_map.weight", "input_map.bias", "recurrent_map.weight"):
            part.tensors[f"lstm.{name}"] = _attribute(module.lstm, name)
    return part


def _look_up(
    cell: nn.Module, layer: Mapping[str, Any], known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the tensors of a cell by the names of the file."""
    known = known or {}
    found = {}
    for name in tensor_shapes(layer):
        if name in known:
            found[name] = known[name]
        else:
            found[name] = _attribute(cell, name.removeprefix("rnn_cell."))
    return found


def _attribute(module: nn.Module, path: str) -> Any:
    # Not from the state dict: of pruned and parametrized modules that holds other tensors.
    return functools.reduce(getattr, path.split("."), module)


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


def _wiring(wiring: Any, neurons: Any) -> dict[str, Any]:
    return {
        "class": type(wiring).__name__,
        "neurons": [str(wiring.get_type_of_neuron(neuron)) for neuron in neurons],
    }
