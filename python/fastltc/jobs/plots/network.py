"""What a liquid network computes: neurons in layers, synapses and matrices, to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .figure import FILL

if TYPE_CHECKING:
    from ncps.wirings import Wiring

# More lines than these run together, and so do the neurons of a longer layer.
_MOST_LINES = 500
_MOST_NEURONS = 48

# ("sensory", index) or ("neuron", index)
Neuron = tuple[str, int]


class Synapse(NamedTuple):
    """A connection that is drawn as a line.

    Args:
        source: presynaptic neuron or input.
        target: postsynaptic neuron.
        polarity: reversal potential, or only its sign; None where the connection has neither.
        weight: how strong it is, from 0; None where that is not known.
    """

    source: Neuron
    target: Neuron
    polarity: float | None
    weight: float | None = None


class Matrix(NamedTuple):
    """Values of all connections of a kind.

    Args:
        title: what they are.
        values: ``[inputs + N, N]``, from row to column, both in the order of the wiring; NaN where
            there is no connection.
        signed: whether 0 is in the middle of the scale.
    """

    title: str
    values: NDArray[np.float64]
    signed: bool


@dataclass(frozen=True)
class Network:
    """What a liquid layer computes, for a picture.

    Args:
        title: the kind and the sizes.
        layers: the kind of each layer, and its neurons; inputs (``sensory``) first.
        synapses: connections that are drawn one by one.
        matrices: all connections.
        names: of inputs and outputs, where they have any.
        notes: what a reader of the picture must know.
        all_within: every neuron of a layer is connected to every neuron of it.
        gates: what else every neuron reads of the whole layer before; empty for nothing.
    """

    title: str
    layers: tuple[tuple[str, tuple[Neuron, ...]], ...]
    synapses: tuple[Synapse, ...]
    matrices: tuple[Matrix, ...] = ()
    names: Mapping[Neuron, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    all_within: bool = False
    gates: str = ""

    @classmethod
    def of_wiring(cls, wiring: Wiring) -> Network:
        """The synapses of a built wiring with their signs, with which the training of LTC starts.

        Raises:
            ValueError: the wiring is not built.
        """
        if not wiring.is_built():
            raise ValueError("wiring: expected a built wiring; call wiring.build(input_dim) first")
        matrices = wiring.sensory_adjacency_matrix, wiring.adjacency_matrix
        signs = np.concatenate(matrices, dtype=float)
        signs[signs == 0] = np.nan
        synapses = tuple(synapses_of(signs, wiring.input_dim))
        return cls(
            describe_sizes(type(wiring).__name__, wiring.units, synapses),
            layers_of(wiring),
            synapses,
            (Matrix("sign of the synapse when training starts", signs, signed=True),),
        )

    @property
    def drawable(self) -> bool:
        """Whether lines show more than a matrix, as where it is neither full nor too large."""
        neurons = sum(len(layer) for kind, layer in self.layers if kind != "sensory")
        between = sum(synapse.source[0] == "neuron" for synapse in self.synapses)
        full = len(self.layers) == 2 if self.all_within else between >= max(neurons, 2) ** 2
        return not (
            full
            or len(self.synapses) > _MOST_LINES
            or max(len(layer) for _, layer in self.layers) > _MOST_NEURONS
        )


def layers_of(wiring: Wiring) -> tuple[tuple[str, tuple[Neuron, ...]], ...]:
    """The inputs of a wiring, and its neurons by their kind."""
    by_kind: dict[str, list[Neuron]] = {kind: [] for kind in FILL}
    by_kind["sensory"] = [("sensory", index) for index in range(wiring.input_dim)]
    for index in range(wiring.units):
        kind = wiring.get_type_of_neuron(index)
        by_kind[kind if kind in FILL else "inter"].append(("neuron", index))
    return tuple((kind, tuple(layer)) for kind, layer in by_kind.items() if layer)


def synapses_of(
    polarities: NDArray[np.float64], inputs: int, weights: NDArray[np.float64] | None = None
) -> list[Synapse]:
    """The synapses of a matrix ``[inputs + N, N]``, in which NaN is none."""
    found = []
    for row, column in np.argwhere(~np.isnan(polarities)).tolist():
        source = ("sensory", row) if row < inputs else ("neuron", row - inputs)
        weight = None if weights is None else float(weights[row, column])
        found.append(Synapse(source, ("neuron", column), float(polarities[row, column]), weight))
    return found


def describe_sizes(name: str, neurons: int, synapses: Sequence[Synapse]) -> str:
    """The title of a picture."""
    sensory = sum(synapse.source[0] == "sensory" for synapse in synapses)
    return (
        f"{name}: {neurons} neurons, {len(synapses) - sensory} synapses, {sensory} sensory synapses"
    )
