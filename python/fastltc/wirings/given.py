"""Wirings out of what somebody has: matrices, graphs, and wirings for other inputs."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
from ncps.wirings import Wiring

from fastltc.wirings.checks import check_count


def from_adjacency(
    adjacency: npt.ArrayLike, sensory: npt.ArrayLike | int, output_dim: int | None = None
) -> Wiring:
    """Return the wiring of these matrices.

    Args:
        adjacency: ``[N, N]`` from row to column: 1 excitatory, -1 inhibitory, 0 no synapse.
        sensory: the same of the inputs, ``[I, N]``, or their number, I, each of which excites every
            neuron.
        output_dim: number of motor neurons, the first of the state; N by default.

    Returns:
        A ``Wiring`` that is built.

    Raises:
        ValueError: if a shape or an entry is another.

    Example:
        >>> import torch
        >>> from fastltc import LTC
        >>> from fastltc.wirings import from_adjacency
        >>> ring = from_adjacency([[0, 1, 0], [0, 0, -1], [1, 0, 0]], [[1, 0, 0], [0, -1, 0]], 1)
        >>> LTC(2, ring)(torch.randn(4, 5, 2))[0].shape
        torch.Size([4, 5, 1])
    """
    matrix = _signs("adjacency", adjacency)
    units = matrix.shape[0]
    if units < 1 or matrix.shape != (units, units):
        raise ValueError(f"adjacency: expected shape [N, N], got {list(matrix.shape)}")
    if isinstance(sensory, (int, np.integer)):
        given = np.ones((check_count("sensory", sensory), units), np.int32)
    else:
        given = _signs("sensory", sensory)
        if given.shape[1] != units or not given.shape[0]:
            raise ValueError(f"sensory: expected shape [I, N = {units}], got {list(given.shape)}")
    wiring = Wiring(units)
    wiring.adjacency_matrix = matrix
    wiring.build(given.shape[0])
    wiring.sensory_adjacency_matrix = given
    wiring.set_output_dim(check_count("output_dim", output_dim or units, 1, units))
    return wiring


def from_networkx(graph: Any, sensory: int | None = None, output_dim: int | None = None) -> Wiring:
    """Return the wiring of a graph.

    Neurons keep the order of the nodes, but those whose ``neuron_type`` is ``"motor"`` come first;
    those with ``"sensory"`` are the inputs. So what ``Wiring.get_graph`` of ncps returns gives the
    same wiring again, but for the types.

    Args:
        graph: a ``networkx`` graph. A connection of an undirected one is two synapses. The
            ``polarity`` of an edge is ``"excitatory"``, ``"inhibitory"``, 1 or -1, else the sign of
            its ``weight``, else excitatory.
        sensory: number of inputs, each of which excites every neuron, for a graph without sensory
            nodes.
        output_dim: number of motor neurons; by default those of the graph, or all neurons.

    Returns:
        A ``Wiring`` that is built.

    Raises:
        ValueError: if there are no inputs, or inputs twice, a synapse leads to an input, or a
            polarity is another.

    Example:
        >>> import networkx
        >>> from fastltc.wirings import from_networkx
        >>> wiring = from_networkx(networkx.cycle_graph(6), sensory=3, output_dim=2)
        >>> int(wiring.synapse_count)
        12
    """
    kinds = {node: data.get("neuron_type") for node, data in graph.nodes(data=True)}
    inputs: list[Hashable] = [node for node, kind in kinds.items() if kind == "sensory"]
    motor: list[Hashable] = [node for node, kind in kinds.items() if kind == "motor"]
    others = [node for node, kind in kinds.items() if kind not in ("sensory", "motor")]
    if bool(inputs) == (sensory is not None):
        raise ValueError(
            f"sensory: expected {'None with' if inputs else 'a number for'} a graph of "
            f"{len(inputs)} sensory nodes, got {sensory}"
        )
    neurons = {node: index for index, node in enumerate([*motor, *others])}
    places = {node: index for index, node in enumerate(inputs)}
    adjacency = np.zeros((len(neurons), len(neurons)), np.int32)
    from_inputs = np.zeros((len(inputs), len(neurons)), np.int32)
    edges = list(graph.edges(data=True))
    if not graph.is_directed():
        both = [*edges, *((b, a, data) for a, b, data in edges)]
        edges = [edge for edge in both if edge[1] not in places]
    for a, b, data in edges:
        if b in places:
            raise ValueError(f"graph: expected no synapse onto an input, got {a!r} -> {b!r}")
        matrix, row = (from_inputs, places[a]) if a in places else (adjacency, neurons[a])
        matrix[row, neurons[b]] = _polarity(a, b, data)
    return from_adjacency(
        adjacency, from_inputs if sensory is None else sensory, output_dim or len(motor) or None
    )


def for_inputs(wiring: Wiring, input_dim: int) -> Wiring:
    """Return a wiring with the same neurons for another number of inputs.

    A wiring belongs to the number of inputs that it is built for. The copy has the same synapses
    between neurons, where there are any yet, and draws new ones for the inputs, as its class does.

    Args:
        wiring: any; it is left as it is.
        input_dim: number of inputs.

    Returns:
        A copy that is built.

    Raises:
        ValueError: if the number is less than 1, or the class draws no synapses for inputs, as
            those that are given by matrices or graphs.

    Example:
        >>> from fastltc import LTC, Sequential
        >>> from fastltc.wirings import AutoNCP, for_inputs
        >>> wiring = AutoNCP(19, 4)
        >>> model = Sequential(LTC(16, for_inputs(wiring, 16)), LTC(4, for_inputs(wiring, 4)))
    """
    check_count("input_dim", input_dim)
    made = copy.deepcopy(wiring)
    if not made.is_built():
        made.build(input_dim)
        return made
    between = made.adjacency_matrix.copy()
    made.input_dim = made.sensory_adjacency_matrix = None
    made.build(input_dim)
    # NCPs draw these when they are built.
    made.adjacency_matrix = between
    if not made.sensory_adjacency_matrix.any():
        raise ValueError(
            f"wiring: expected one that draws synapses for its inputs, got {type(wiring).__name__}"
        )
    return made


def _signs(name: str, matrix: npt.ArrayLike) -> npt.NDArray[np.int32]:
    found = np.asarray(matrix)
    if found.ndim != 2:
        raise ValueError(f"{name}: expected a matrix, got {found.ndim} axes")
    if not np.isin(found, (-1, 0, 1)).all():
        raise ValueError(f"{name}: expected entries of -1, 0 and 1, got others")
    return found.astype(np.int32)


def _polarity(a: Hashable, b: Hashable, data: dict[str, Any]) -> int:
    polarity = data.get("polarity")
    if polarity is None:
        polarity = -1 if data.get("weight", 1) < 0 else 1
    found = {"excitatory": 1, "inhibitory": -1, 1: 1, -1: -1}.get(polarity)
    if found is None:
        raise ValueError(
            f"polarity: expected excitatory, inhibitory, 1 or -1, got {polarity!r} "
            f"of {a!r} -> {b!r}"
        )
    return found
