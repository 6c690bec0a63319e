"""From a state dict to what a model file holds.

A state dict has sizes, maps, masks and memory in its keys and shapes; the options that change
numbers and leave no trace in it (unfolds, mode, activation, ...) have to be told.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastltc._files import open_regular
from fastltc.exporting.descriptions import Part, clear_unused, to_array
from fastltc.exporting.errors import ExportError
from fastltc.runtime.model import tensor_shapes

# A key that every layer of a kind has, in a layer and in a cell by itself.
_MARKS = {"gleak": "ltc", "layer_0.ff1.weight": "wired_cfc", "ff1.weight": "cfc"}
_FOUND = re.compile(
    r"(?P<layer>(?:.*?\.)??)(?:rnn_cell\.)?(?P<mark>gleak|layer_0\.ff1\.weight|ff1\.weight)"
)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of ``torch.save`` or ``safetensors``, without unpickling.

    A dictionary of ``torch.save`` may hold the state dict under ``model``, ``state_dict`` or
    ``model_state_dict``, as checkpoints do. An ExportError says that it is no such file, an OSError
    that it cannot be opened.
    """
    with open_regular(path):
        pass  # the errors of the libraries are not OSErrors
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ExportError(f"{path}: damaged safetensors file: {error}") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises OSError, KeyError, EOFError, RuntimeError, UnpicklingError and more.
    except Exception as error:
        if not zipfile.is_zipfile(path):
            raise ExportError(f"{path}: neither a file of torch.save nor .safetensors") from None
        raise ExportError(
            f"{path}: torch cannot load it without running code of it ({type(error).__name__}); "
            "save the state dict: torch.save(model.state_dict(), path)"
        ) from None
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise ExportError(f"{path}: expected a state dict, got {type(content).__name__}")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ExportError(f"{path}: holds no tensors")
    return tensors


def find_layers(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return names of the liquid layers in a state dict, ``""`` for one at its top, and types."""
    found: dict[str, str] = {}
    for key in state:
        match = _FOUND.fullmatch(key)
        # layer_0.ff1.weight is also ff1.weight of a cell that is named layer_0.
        if match and not re.search(r"(^|\.)layer_\d+\.$", match["layer"]):
            name = match["layer"].removesuffix(".")
            found[name] = _MARKS[match["mark"]]
    return found


def describe_state_dict(
    state: Mapping[str, Tensor],
    layer: str | None = None,
    *,
    output_size: int | None = None,
    ode_unfolds: int = 6,
    epsilon: float = 1e-8,
    implicit_param_constraints: bool | None = None,
    mode: str | None = None,
    activation: str = "lecun_tanh",
) -> Part:
    """Return the liquid layer that a state dict, names and tensors, holds.

    ``layer`` is its name, needed where there are more than one. ``output_size``, the motor neurons
    of an LTC, is needed where it has no output map. ``implicit_param_constraints``, whether an LTC
    keeps parameters positive by a softplus, is by default True of a layer, False of a cell by
    itself, as the classes have it. ``mode`` is ``"default"`` or ``"no_gate"``; a ``"pure"`` CfC is
    recognised.

    An ExportError names a layer that there is not, an option that is missing or a tensor that does
    not fit.
    """
    layers = find_layers(state)
    name = _choose(layers, layer, state)
    prefix = f"{name}." if name else ""
    own = {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
    is_cell = not any(key.startswith("rnn_cell.") for key in own)
    if is_cell:
        own = {f"rnn_cell.{key}": tensor for key, tensor in own.items()}
    title = name or "state dict"
    described: dict[str, Any]
    try:
        if layers[name] == "ltc":
            if implicit_param_constraints is None:
                implicit_param_constraints = not is_cell
            described = _ltc(title, own, output_size)
            described |= {"ode_unfolds": ode_unfolds, "epsilon": epsilon}
            described |= {"implicit_param_constraints": implicit_param_constraints}
        elif layers[name] == "wired_cfc":
            described = _wired_cfc(title, own, mode)
        else:
            described = _cfc(title, own, mode, activation)
    except (KeyError, ValueError, IndexError) as error:
        if isinstance(error, ExportError):
            raise
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ExportError(f"{title}: {what}") from None
    described["mixed_memory"] = "lstm.input_map.weight" in own
    if described["type"] != "ltc" and "fc.weight" in own:
        described["proj_size"] = described["output_size"] = own["fc.weight"].shape[0]
    own = _renamed(own, described)
    wanted = tensor_shapes(described)
    for key in wanted:
        if key not in own:
            raise ExportError(f"{title}: {key} is missing")
    for key in own:
        if key not in wanted:
            raise ExportError(
                f"{title}: {key} is no parameter of a layer of type {described['type']}"
            )
    part = Part(described, {key: to_array(title, key, own[key]) for key in wanted})
    clear_unused(part)
    return part


def _choose(layers: Mapping[str, str], layer: str | None, state: Mapping[str, Tensor]) -> str:
    shown = ", ".join(repr(name) for name in layers) or "none"
    if layer is not None:
        if layer not in layers:
            raise ExportError(
                f"layer: expected one of the liquid layers here ({shown}), got {layer!r}"
            )
        return layer
    if len(layers) != 1:
        raise ExportError(
            f"layer: expected a name, because the state dict holds {len(layers)} liquid layers: "
            f"{shown}"
        )
    (name,) = layers
    others = [key for key in state if name and not key.startswith(f"{name}.")]
    if others:
        raise ExportError(
            f"layer: the state dict holds more than its liquid layer {name!r}, {others[0]} for "
            f"one; layer={name!r} exports that layer alone, and fastltc.export takes whole stacks"
        )
    return name


def _ltc(title: str, own: Mapping[str, Tensor], output_size: int | None) -> dict[str, Any]:
    inputs, neurons = own["rnn_cell.sensory_sparsity_mask"].shape
    maps = dict.fromkeys(("input", "output"))
    for side in maps:
        for key, mapping in (("w", "linear"), ("b", "affine")):
            if f"rnn_cell.{side}_{key}" in own:
                maps[side] = mapping
    if maps["output"] is not None:
        motors = own["rnn_cell.output_w"].shape[0]
        if output_size not in (None, motors):
            raise ExportError(f"output_size: expected {motors}, as {title} has, got {output_size}")
        output_size = motors
    elif output_size is None:
        raise ExportError(
            f"output_size: needed, because {title} has no output map that would tell the number of "
            "motor neurons"
        )
    return {
        "type": "ltc",
        "input_size": inputs,
        "units": neurons,
        "output_size": output_size,
        "input_mapping": maps["input"],
        "output_mapping": maps["output"],
    }


def _mode(title: str, pure: bool, mode: str | None) -> str:
    if mode is None:
        return "pure" if pure else "default"
    if (mode == "pure") != pure:
        raise ExportError(
            f"mode: {title} has {'the' if pure else 'no'} parameters of the mode pure, got {mode!r}"
        )
    return mode


def _wired_cfc(title: str, own: Mapping[str, Tensor], mode: str | None) -> dict[str, Any]:
    cells: list[int] = []
    while f"rnn_cell.layer_{len(cells)}.ff1.weight" in own:
        cells.append(own[f"rnn_cell.layer_{len(cells)}.ff1.weight"].shape[0])
    return {
        "type": "wired_cfc",
        "input_size": own["rnn_cell.layer_0.ff1.weight"].shape[1] - cells[0],
        "units": sum(cells),
        "output_size": cells[-1],
        "cells": cells,
        "mode": _mode(title, "rnn_cell.layer_0.w_tau" in own, mode),
        "proj_size": None,
    }


def _cfc(
    title: str, own: Mapping[str, Tensor], mode: str | None, activation: str
) -> dict[str, Any]:
    neurons, width = own["rnn_cell.ff1.weight"].shape
    dense = _backbone(own)
    if dense:
        width = own[f"rnn_cell.backbone.{dense[0]}.weight"].shape[1]
    return {
        "type": "cfc",
        "input_size": width - neurons,
        "units": neurons,
        "output_size": neurons,
        "mode": _mode(title, "rnn_cell.w_tau" in own, mode),
        "activation": activation,
        "backbone_layers": len(dense),
        "backbone_units": own["rnn_cell.ff1.weight"].shape[1] if dense else 0,
        "proj_size": None,
    }


def _backbone(own: Mapping[str, Tensor]) -> list[int]:
    """Return the numbers that the dense layers of a backbone have; dropout counts in them."""
    found = (re.fullmatch(r"rnn_cell\.backbone\.(\d+)\.weight", key) for key in own)
    return sorted(int(match[1]) for match in found if match)


def _renamed(own: Mapping[str, Tensor], described: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors by the names of the file, with the mask of a plain CfC cell applied."""
    result = dict(own)
    if described["type"] != "cfc":
        return result
    for index, number in enumerate(_backbone(own)):
        for name in ("weight", "bias"):
            key = f"rnn_cell.backbone.{number}.{name}"
            if key in result:
                result[f"rnn_cell.backbone.{2 * index}.{name}"] = result.pop(key)
    mask = result.pop("rnn_cell.sparsity_mask", None)
    if mask is not None:
        for name in ("ff1", "ff2"):
            key = f"rnn_cell.{name}.weight"
            if key in result and result[key].shape == mask.shape:
                result[key] = torch.where(mask != 0, result[key], 0)
    return result
