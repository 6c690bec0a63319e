"""What exported code computes with, made of the parameters in float64: the same for C and ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


def under(parameters: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """Return the parameters whose names begin with a prefix, in float64, by the rest of them."""
    return {
        name.removeprefix(prefix): values.astype(np.float64)
        for name, values in parameters.items()
        if name.startswith(prefix)
    }


def positive(layer: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    """Return parameters of an LTC that its softplus, if it has one, keeps positive."""
    if not layer["implicit_param_constraints"]:
        return values
    # As torch's, with its threshold.
    return np.where(values > 20, values, np.log1p(np.exp(np.minimum(values, 20))))


def neurons(layer: Mapping[str, Any], p: Arrays) -> np.ndarray:
    """Return of an LTC's neurons capacitance, leak and leak current, ``[N, 3]``.

    The capacitance is multiplied by the number of unfolds, the leak includes epsilon.
    """
    leak = positive(layer, p["gleak"])
    capacitance = positive(layer, p["cm"]) * layer["ode_unfolds"]
    return np.stack([capacitance, leak + layer["epsilon"], leak * p["vleak"]], 1)


def synapses(
    layer: Mapping[str, Any], p: Arrays, prefix: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of an LTC's synapses the postsynaptic neuron, ascending, the source, and numbers.

    These are slope, midpoint, conductance and current, ``[synapses, 4]``.
    """
    post, pre = np.nonzero(p[f"{prefix}sparsity_mask"].T)
    sigma, mu, w, erev = (p[f"{prefix}{key}"][pre, post] for key in ("sigma", "mu", "w", "erev"))
    w = positive(layer, w)
    return post, pre, np.stack([sigma, mu, w, w * erev], 1)


def memory_gates(parameters: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Return weight ``[4 N, I + N]`` and bias ``[4 N]`` of a memory cell, on inputs and state."""
    p = under(parameters, "lstm.")
    bias = p["input_map.bias"]
    units = len(bias) // 4
    bias[2 * units : 3 * units] += 1.0  # the forget gate's constant offset
    return np.concatenate([p["input_map.weight"], p["recurrent_map.weight"]], 1), bias
