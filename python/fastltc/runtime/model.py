"""What a model is without torch: its layers, their parameters, and what is valid."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._parameters import (
    CFC_ACTIVATIONS,
    CFC_HEADS,
    LTC_MASKS,
    LTC_TABLE,
    SIGMOID_PRECISIONS,
)

RECURRENT = ("ltc", "wired_cfc", "cfc")
"""Types of the layers that have a state."""
ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "gelu", "lecun_tanh", "softplus", "softmax")
"""Functions of an activation layer; the softmax is over the features."""
# Far above what any model of this kind needs; they bound what a forged file can ask for.
_MAX_PARAMETERS = 1 << 29
_MAX_SIZE = 1 << 20
_MAX_LAYERS = 256
_MAX_CELLS = 256
_MAX_UNFOLDS = 4096
_MAX_NAME = 1000


class ModelFileError(ValueError):
    """A model file, or the description of a model, is damaged or not of a kind that is known."""


@dataclass(frozen=True)
class Model:
    """A trained model: layers in the order in which they run, and their parameters.

    Args:
        input_size: number of inputs of a time step, I.
        output_size: number of outputs of a time step.
        layers: one dict per layer; ``type`` says which keys it has, see docs/export.md.
        tensors: ``layers.<i>.<key>``: float32, C-contiguous, the parameters as trained.
        time_unit: seconds that one unit of a time step is.
        input_names: a name for each input, or none at all.
        output_names: a name for each output, of classes for example, or none at all.
        sigmoid_precision: how precisely sessions compute the sigmoids of synapses, ``"highest"``
            or ``"medium"``; see :func:`fastltc.set_sigmoid_precision`.
    """

    input_size: int
    output_size: int
    layers: list[dict[str, Any]]
    tensors: dict[str, np.ndarray]
    time_unit: float = 1.0
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    sigmoid_precision: str = "highest"

    def __repr__(self) -> str:
        parameters = sum(t.size for name, t in self.tensors.items() if not _is_mask(name))
        layers = " + ".join(layer["type"] for layer in self.layers)
        return (
            f"Model({layers}, {self.input_size} inputs, {self.output_size} outputs, "
            f"{self.state_size} state values, {parameters:,} parameters"
            f"{unit_remark(self.time_unit)})"
        )

    @property
    def state_size(self) -> int:
        """Numbers that a stream carries, of each recurrent layer the h, then its c if it has one.

        h is ``[units]``; with ``mixed_memory`` the c of the LSTM cell, ``[units]``, follows it.
        """
        return sum(
            layer["units"] * (2 if layer["mixed_memory"] else 1)
            for layer in self.layers
            if layer["type"] in RECURRENT
        )

    def parameters(self, index: int) -> dict[str, np.ndarray]:
        """Return the tensors of a layer by the names they have in its state dict."""
        prefix = f"layers.{index}."
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


# What a value of a layer's description has to be: whether it is that, and that in words.
_Check = tuple[Callable[[Any], bool], str]


def _size(least: int = 1, most: int = _MAX_SIZE) -> _Check:
    def is_one(value: Any) -> bool:
        return type(value) is int and least <= value <= most

    return is_one, f"an integer from {least} to {most}"


def _one_of(*allowed: Any) -> _Check:
    def is_one(value: Any) -> bool:
        return any(type(value) is type(known) and value == known for known in allowed)

    return is_one, "one of " + ", ".join(json.dumps(known) for known in allowed)


_IS_SIZE, _A_SIZE = _size()


def _are_sizes(value: Any) -> bool:
    return type(value) is list and 1 <= len(value) <= _MAX_CELLS and all(map(_IS_SIZE, value))


_BOOL = _one_of(True, False)
_MAPPING = _one_of("affine", "linear", None)
_ENDS = {"input_size": _size(), "output_size": _size()}
_LAYER = {**_ENDS, "units": _size(), "mixed_memory": _BOOL}
_CFC = {
    **_LAYER,
    "mode": _one_of("default", "pure", "no_gate"),
    "proj_size": (lambda value: value is None or _IS_SIZE(value), f"{_A_SIZE}, or null"),
}
_KEYS: dict[str, dict[str, _Check]] = {
    "ltc": {
        **_LAYER,
        "ode_unfolds": _size(most=_MAX_UNFOLDS),
        "epsilon": (lambda v: type(v) in (int, float) and 0 <= v <= 1, "a number from 0 to 1"),
        "implicit_param_constraints": _BOOL,
        "input_mapping": _MAPPING,
        "output_mapping": _MAPPING,
    },
    "wired_cfc": {**_CFC, "cells": (_are_sizes, f"a list of 1 to {_MAX_CELLS} sizes")},
    "cfc": {
        **_CFC,
        "activation": _one_of(*CFC_ACTIVATIONS),
        "backbone_layers": _size(0, _MAX_CELLS),
        "backbone_units": _size(0),
    },
    "linear": {**_ENDS, "bias": _BOOL},
    "activation": {"function": _one_of(*ACTIVATIONS)},
}


def tensor_shapes(layer: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tensors of a layer, as in its state dict; it must be valid."""
    kind = layer["type"]
    if kind == "activation":
        return {}
    inputs = layer["input_size"]
    if kind == "linear":
        bias = {"bias": (layer["output_size"],)} if layer["bias"] else {}
        return {"weight": (layer["output_size"], inputs), **bias}
    neurons = layer["units"]
    shapes: dict[str, tuple[int, ...]] = {}
    if kind == "ltc":
        sizes = {"N": neurons, "I": inputs, "M": layer["output_size"]}
        maps = {"w": ("affine", "linear"), "b": ("affine",)}
        for name, axes in (*((row.name, row.shape) for row in LTC_TABLE), *LTC_MASKS.items()):
            side, _, key = name.partition("_")
            mapping = f"{side}_mapping"
            if mapping not in layer or layer[mapping] in maps[key]:
                shapes[name] = tuple(sizes[axis] for axis in axes)
        read = layer["output_size"]
    elif kind == "wired_cfc":
        before = inputs
        for index, size in enumerate(layer["cells"]):
            masked = {"sparsity_mask": (size, before + size)}
            for name, shape in {**masked, **_heads(layer, before + size, size)}.items():
                shapes[f"layer_{index}.{name}"] = shape
            before = size
        read = before
    else:
        width = inputs + neurons
        for index in range(layer["backbone_layers"]):
            shapes[f"backbone.{2 * index}.weight"] = layer["backbone_units"], width
            shapes[f"backbone.{2 * index}.bias"] = (layer["backbone_units"],)
            width = layer["backbone_units"]
        shapes.update(_heads(layer, width, neurons))
        read = neurons
    shapes = {f"rnn_cell.{name}": shape for name, shape in shapes.items()}
    if layer["mixed_memory"]:
        shapes["lstm.input_map.weight"] = 4 * neurons, inputs
        shapes["lstm.input_map.bias"] = (4 * neurons,)
        shapes["lstm.recurrent_map.weight"] = 4 * neurons, neurons
    if layer.get("proj_size") is not None:
        shapes["fc.weight"] = layer["proj_size"], read
        shapes["fc.bias"] = (layer["proj_size"],)
    return shapes


def _heads(layer: Mapping[str, Any], width: int, size: int) -> dict[str, tuple[int, ...]]:
    pure = layer["mode"] == "pure"
    shapes: dict[str, tuple[int, ...]] = {}
    for name in CFC_HEADS[:1] if pure else CFC_HEADS:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (size, width), (size,)
    if pure:
        shapes["w_tau"] = shapes["A"] = 1, size
    return shapes


def unit_in_words(time_unit: float) -> str:
    """Return what time steps are in: "seconds", or "units of 60 s"."""
    return "seconds" if time_unit == 1 else f"units of {time_unit:.9g} s"


def unit_remark(time_unit: float) -> str:
    """Return what a repr says of a unit that is not a second."""
    return "" if time_unit == 1 else f", time steps in {unit_in_words(time_unit)}"


def check_model(model: Model) -> None:
    """Raise ModelFileError, a ValueError, that names what is wrong with a model; else do nothing.

    Checked are the keys and values of every layer, that the sizes fit each other, names, shapes
    and dtypes of the tensors, that all numbers are finite and that masks are 0 or 1, that no
    potential is 0 / 0, the unit of time and the names of inputs and outputs.
    """
    shapes = check_layers(model.input_size, model.output_size, model.layers)
    check_facts(model)
    check_names(shapes, model.tensors)
    for name, shape in shapes.items():
        _check_tensor(name, model.tensors[name], shape)
    _check_denominators(model)


def check_facts(model: Model) -> None:
    """Check the unit of time, the precision, and the names, which are all there or none."""
    _check_value("sigmoid_precision", model.sigmoid_precision, _one_of(*SIGMOID_PRECISIONS))
    unit = model.time_unit
    # What float32 holds, so that every format can say it.
    if type(unit) not in (int, float) or not 1e-30 <= unit <= 1e30:
        raise ModelFileError(
            f"time_unit: expected a number of seconds from 1e-30 to 1e30, got {shown(unit)}"
        )
    for key, size in (("input_names", model.input_size), ("output_names", model.output_size)):
        names = getattr(model, key)
        if type(names) is not tuple or not all(type(name) is str for name in names):
            raise ModelFileError(f"{key}: expected a tuple of texts, got {shown(names)}")
        if names and len(names) != size:
            raise ModelFileError(f"{key}: expected {size} names or none, got {len(names)}")
        for name in names:
            if len(name) > _MAX_NAME or not _is_text(name):
                raise ModelFileError(
                    f"{key}: expected at most {_MAX_NAME} characters of Unicode, got {shown(name)}"
                )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _check_denominators(model: Model) -> None:
    """Check that the equation of an LTC has no neuron whose potential is 0 / 0.

    Its denominator is ``cm / dt + gleak + epsilon`` and what synapses add, which can be 0.
    """
    for index, layer in enumerate(model.layers):
        if layer["type"] != "ltc" or layer["implicit_param_constraints"]:
            continue
        cm, gleak = (model.tensors[f"layers.{index}.rnn_cell.{key}"] for key in ("cm", "gleak"))
        empty = (cm == 0) & (gleak + np.float32(layer["epsilon"]) == 0)
        if empty.any():
            raise ModelFileError(
                f"layers[{index}]: expected cm, gleak or epsilon above 0 for each neuron, without "
                f"which its potential is 0 / 0, got all 0 at neuron {int(empty.argmax())}"
            )


def check_layers(input_size: Any, output_size: Any, layers: Any) -> dict[str, tuple[int, ...]]:
    """Check the description of a model; return names and shapes of its tensors."""
    for name, value in (("input_size", input_size), ("output_size", output_size)):
        _check_value(name, value, _size())
    if type(layers) is not list or not 1 <= len(layers) <= _MAX_LAYERS:
        raise ModelFileError(f"layers: expected a list of 1 to {_MAX_LAYERS} layers")
    shapes: dict[str, tuple[int, ...]] = {}
    width = input_size
    for index, layer in enumerate(layers):
        where = f"layers[{index}]"
        _check_layer(where, layer)
        if layer["type"] != "activation":
            if layer["input_size"] != width:
                raise ModelFileError(
                    f"{where}.input_size: expected {width}, which is what "
                    f"{f'layers[{index - 1}] gives' if index else 'the model takes'}, got "
                    f"{layer['input_size']}"
                )
            width = layer["output_size"]
        for name, shape in tensor_shapes(layer).items():
            shapes[f"layers.{index}.{name}"] = shape
    if width != output_size:
        raise ModelFileError(f"output_size: expected {width} as the layers give, got {output_size}")
    if not any(layer["type"] in RECURRENT for layer in layers):
        raise ModelFileError(f"layers: expected at least one of {', '.join(RECURRENT)}")
    total = sum(math.prod(shape) for shape in shapes.values())
    if total > _MAX_PARAMETERS:
        raise ModelFileError(f"layers: {total} parameters, expected at most {_MAX_PARAMETERS}")
    return shapes


def _check_layer(where: str, layer: Any) -> None:
    if not isinstance(layer, dict):
        raise ModelFileError(f"{where}: expected an object, got {shown(layer)}")
    kind = layer.get("type")
    if type(kind) is not str or kind not in _KEYS:
        raise ModelFileError(f"{where}.type: expected one of {', '.join(_KEYS)}, got {shown(kind)}")
    checks = _KEYS[kind]
    check_keys(where, layer, ("type", *checks))
    for key, check in checks.items():
        _check_value(f"{where}.{key}", layer[key], check)
    given = layer.get("output_size")
    if kind == "ltc" and given > layer["units"]:
        raise ModelFileError(
            f"{where}.output_size: expected at most units = {layer['units']}, got {given}"
        )
    if kind == "wired_cfc" and sum(layer["cells"]) != layer["units"]:
        raise ModelFileError(
            f"{where}.cells: expected sizes whose sum is units = {layer['units']}, got "
            f"{sum(layer['cells'])}"
        )
    if kind == "cfc" and (layer["backbone_layers"] == 0) != (layer["backbone_units"] == 0):
        raise ModelFileError(
            f"{where}.backbone_units: expected 0 without backbone layers, else 1 or more, got "
            f"{layer['backbone_units']} with backbone_layers = {layer['backbone_layers']}"
        )
    if "proj_size" in layer:
        last = layer["cells"][-1] if kind == "wired_cfc" else layer["units"]
        wanted = last if layer["proj_size"] is None else layer["proj_size"]
        if given != wanted:
            raise ModelFileError(f"{where}.output_size: expected {wanted}, got {given}")


def check_keys(where: str, found: dict[str, Any], wanted: tuple[str, ...]) -> None:
    """Check that an object has these keys and no others."""
    for key in wanted:
        if key not in found:
            raise ModelFileError(f"{where}.{key}: missing")
    for key in found:
        if key not in wanted:
            raise ModelFileError(f"{where}: unknown key {shown(key)}")


def _check_value(name: str, value: Any, check: _Check) -> None:
    is_right, expected = check
    if not is_right(value):
        raise ModelFileError(f"{name}: expected {expected}, got {shown(value)}")


def check_names(shapes: Mapping[str, Any], names: Iterable[str]) -> None:
    """Check that there are these tensors and no others."""
    found = set(names)
    for name in shapes:
        if name not in found:
            raise ModelFileError(f"{name}: this tensor is missing")
    for name in sorted(found - shapes.keys()):
        raise ModelFileError(f"{shown(name)}: unknown tensor")


def _check_tensor(name: str, tensor: Any, shape: tuple[int, ...]) -> None:
    # Another subclass may mean something else than its numbers, as a masked array does.
    if type(tensor) not in (np.ndarray, np.memmap):
        raise ModelFileError(f"{name}: expected a plain numpy array, got {type(tensor).__name__}")
    if tensor.dtype != np.float32:
        raise ModelFileError(f"{name}: expected dtype float32, got {tensor.dtype}")
    check_shape(name, tensor.shape, shape)
    if not tensor.flags.c_contiguous:
        raise ModelFileError(f"{name}: expected a C-contiguous array")
    _check_values(name, tensor)


def check_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Check the shape of a tensor."""
    if found != wanted:
        raise ModelFileError(f"{name}: expected shape {list(wanted)}, got {list(found)}")


def _check_values(name: str, tensor: np.ndarray) -> None:
    """Check that numbers are finite, and those of masks 0 or 1."""
    finite = np.isfinite(tensor)
    if not finite.all():
        raise ModelFileError(f"{name}: expected finite numbers, got {tensor[~finite].flat[0]}")
    if _is_mask(name):
        other = (tensor != 0) & (tensor != 1)
        if other.any():
            raise ModelFileError(f"{name}: expected 0 and 1 only, got {tensor[other].flat[0]}")


def _is_mask(name: str) -> bool:
    return name.endswith("sparsity_mask")


def shown(value: Any) -> str:
    """Return a value as text that fits a message, whatever it is."""
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
