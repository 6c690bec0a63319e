"""What the liquid layer of a trained classifier computes, for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...nn import LTC, CfC
from . import Network
from .network import Matrix, Neuron, Synapse, describe_sizes, layers_of, synapses_of

_GATES = "time gates (time_a, time_b): all of the layer before and all of its own"


def network_of(
    model: nn.Module, classes: Sequence[str] = (), features: Sequence[str] = ()
) -> Network | None:
    """The first liquid layer of a model that has a wiring, as it is now; None without one.

    Args:
        model: a classifier, or the layer.
        classes: names of the outputs, where the motor neurons are the classes.
        features: names of the inputs, where the layer reads them as they are.
    """
    layers = (module for module in model.modules() if isinstance(module, (LTC, CfC)))
    layer: Any = next((one for one in layers if isinstance(one, LTC) or one.wired_mode), None)
    if layer is None:
        return None
    names: dict[Neuron, str] = {}
    wiring = layer.wiring if isinstance(layer, CfC) else layer.rnn_cell._wiring
    if len(classes) == wiring.output_dim < wiring.units:
        # Motor neurons come first.
        names |= {("neuron", index): name for index, name in enumerate(classes)}
    if len(features) == wiring.input_dim:
        names |= {("sensory", index): name for index, name in enumerate(features)}
    notes = []
    if layer.use_mixed:
        notes.append("an LSTM cell, which is not drawn, updates the state before each step")
    members = getattr(model, "members", ())
    if len(members) > 1:
        notes.append(f"the first of {len(members)} members")
    with torch.no_grad():
        make = _ltc if isinstance(layer, LTC) else _cfc
        return make(layer.rnn_cell, wiring, names, tuple(notes))


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().double().numpy(), dtype=np.float64)


def _ltc(cell: Any, wiring: Any, names: dict[Neuron, str], notes: tuple[str, ...]) -> Network:
    """Synapses by the masks, with the trained reversal potentials and conductances."""

    def both(name: str, positive: bool) -> NDArray[np.float64]:
        parts = []
        for prefix in ("sensory_", ""):
            value = getattr(cell, f"{prefix}{name}")
            value = cell.make_positive_fn(value) if positive else value
            mask = getattr(cell, f"{prefix}sparsity_mask")
            parts.append(_array(torch.where(mask != 0, value, torch.nan)))
        return np.concatenate(parts)

    erev, weight = both("erev", False), both("w", True)
    synapses = tuple(synapses_of(erev, wiring.input_dim, weight))
    return Network(
        describe_sizes(f"LTC, {type(wiring).__name__}", wiring.units, synapses),
        layers_of(wiring),
        synapses,
        (
            Matrix("reversal potential erev (above 0: excitatory)", erev, signed=True),
            Matrix("conductance w", weight, signed=False),
        ),
        names,
        notes,
    )


def _cfc(cell: Any, wiring: Any, names: dict[Neuron, str], notes: tuple[str, ...]) -> Network:
    """A chain of layers: masked from one to the next, full within, time gates full throughout."""
    inputs, units = wiring.input_dim, wiring.units
    before: Sequence[Neuron] = [("sensory", index) for index in range(inputs)]
    shape = (inputs + units, units)
    heads = ["ff1"] if cell._layers[0].mode == "pure" else ["ff1", "ff2"]
    gates = [] if cell._layers[0].mode == "pure" else ["time_a", "time_b"]
    values = {name: np.full(shape, np.nan) for name in (*heads, *gates)}
    found: list[Synapse] = []
    # So it is made; a checkpoint may bring another mask.
    all_within = True
    layers: list[tuple[str, tuple[Neuron, ...]]] = [("sensory", tuple(before))]
    for number, part in enumerate(cell._layers):
        own: list[Neuron] = [("neuron", index) for index in wiring.get_neurons_of_layer(number)]
        sources = [*before, *own]
        rows = [index if kind == "sensory" else inputs + index for kind, index in sources]
        columns = [index for _, index in own]
        mask = _array(part.sparsity_mask).T if part.sparsity_mask is not None else 1.0
        for name in values:
            weight = _array(getattr(part, name).weight).T
            shown = np.where(mask != 0, weight, np.nan) if name in heads else weight
            values[name][np.ix_(rows, columns)] = shown
        size = np.sqrt(sum(values[name][np.ix_(rows, columns)] ** 2 for name in heads) / len(heads))
        all_within = all_within and not np.isnan(size[len(before) :]).any()
        found += [
            Synapse(sources[row], own[column], None, float(size[row, column]))
            for row, column in np.argwhere(~np.isnan(size)).tolist()
        ]
        # The neurons of an only layer may be of several kinds.
        kind = wiring.get_type_of_neuron(columns[0]) if len(cell._layers) > 1 else "neurons"
        layers.append((kind, tuple(own)))
        before = own
    count = f"{len(cell._layers)} layers" if len(cell._layers) > 1 else "one layer"
    layer_of = {neuron: number for number, (_, layer) in enumerate(layers) for neuron in layer}
    if all_within:
        found = [one for one in found if layer_of[one.source] != layer_of[one.target]]
    return Network(
        f"CfC, {type(wiring).__name__}: {units} neurons in {count}, "
        f"{len(found)} masked connections{' from layer to layer' if all_within else ''}",
        tuple(layers),
        tuple(found),
        tuple(
            Matrix(f"{name}, {'masked' if name in heads else 'not masked'}", weights, signed=True)
            for name, weights in values.items()
        ),
        names,
        notes,
        all_within=all_within,
        gates=_GATES if gates else "",
    )
