"""Wirings that ncps does not have, in its layers and ours."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import ncps.torch
import networkx
import numpy as np
import pytest
import torch
from ncps.wirings import NCP, AutoNCP, Random, Wiring

from fastltc import LTC, CfC
from fastltc.wirings import (
    ConnectomeLike,
    DeepNCP,
    SmallWorld,
    for_inputs,
    from_adjacency,
    from_networkx,
)
from ncps_twins import check_twins, twins

I = 3  # noqa: E741
MADE: dict[str, Callable[[], Any]] = {
    "deep": lambda: DeepNCP([7, 5, 4], 4, 2, 0.4),
    "small world": lambda: SmallWorld(12, 3),
    "connectome-like": lambda: ConnectomeLike(30, 4, sensory_sparsity=0.5),
    "given": lambda: from_networkx(networkx.cycle_graph(6), I, 2),
}


# CfC goes by layers, which the others do not have.
@pytest.mark.parametrize(("name", "kind"), [*((name, "LTC") for name in MADE), ("deep", "CfC")])
def test_layers_of_ncps_and_ours_agree_on_them(name: str, kind: str) -> None:
    theirs, ours = twins(MADE[name], I, kind)
    check_twins(theirs, ours, torch.randn(2, 4, I).double())


@pytest.mark.parametrize("name", ["deep", "small world", "connectome-like"])
def test_the_same_seed_draws_the_same(name: str) -> None:
    first, second = MADE[name](), MADE[name]()
    first.build(I)
    second.build(I)
    again = type(first).from_config(first.get_config())
    again.build(I)
    again.build(I)  # which adds nothing
    for other in (second, again):
        assert (first.adjacency_matrix == other.adjacency_matrix).all()
        assert (first.sensory_adjacency_matrix == other.sensory_adjacency_matrix).all()
    config = first.get_config() | {"seed": 7}
    other = type(first)(**config)
    assert (first.adjacency_matrix != other.adjacency_matrix).any()
    with pytest.raises(ValueError, match="Conflicting"):
        first.build(I + 1)


def test_a_deep_ncp_connects_layer_by_layer() -> None:
    wiring = DeepNCP([9, 6], command_neurons=5, motor_neurons=2, sparsity_level=0.5)
    wiring.build(I)
    layers = [wiring.get_neurons_of_layer(k) for k in range(wiring.num_layers)]
    assert [len(layer) for layer in layers] == [9, 6, 5, 2]
    assert sorted(itertools.chain(*layers)) == list(range(22))
    assert layers[-1] == [0, 1]
    matrix = wiring.adjacency_matrix != 0
    allowed = np.zeros_like(matrix)
    for before, after in itertools.pairwise(layers):
        allowed[np.ix_(before, after)] = True
        assert matrix[np.ix_(before, after)].any(0).all()
        assert matrix[np.ix_(before, after)].any(1).all()
    command = np.ix_(layers[2], layers[2])
    allowed[command] = True
    assert not matrix[~allowed].any()
    assert matrix[command].sum() == 5
    assert wiring.sensory_adjacency_matrix[:, layers[0]].any(0).all()
    assert not wiring.sensory_adjacency_matrix[:, [*itertools.chain(*layers[1:])]].any()
    kinds = [wiring.get_type_of_neuron(layer[0]) for layer in layers]
    assert kinds == ["inter", "inter", "command", "motor"]


def test_a_cfc_of_a_deep_ncp_has_a_cell_for_each_layer() -> None:
    theirs, ours = twins(lambda: DeepNCP([6, 5, 4], 4, 2), I, "CfC")
    assert ours.rnn_cell.layer_sizes == [6, 5, 4, 4, 2]
    assert isinstance(theirs, ncps.torch.CfC)


def test_a_small_world_is_a_ring_with_some_long_ways() -> None:
    ring = SmallWorld(20, neighbours=4, rewiring=0.0).adjacency_matrix != 0
    for i, j in np.argwhere(ring):
        assert min((i - j) % 20, (j - i) % 20) in (1, 2)
    assert ring.sum() == 80
    moved = SmallWorld(20, neighbours=4, rewiring=0.3).adjacency_matrix != 0
    assert (moved == moved.T).all()
    assert 0 < (moved & ~ring).sum() < 60

    def longest(matrix: Any) -> int:
        return networkx.diameter(networkx.from_numpy_array(matrix.astype(int)))

    assert longest(moved) < longest(ring)


def test_something_like_a_connectome_has_its_statistics() -> None:
    matrix = ConnectomeLike().adjacency_matrix
    assert matrix.shape == (279, 279)
    assert (matrix != 0).sum() == 2194
    assert not matrix.diagonal().any()
    # 3.2 standard deviations of a share of 0.2 of 2194 draws.
    assert 0.17 < (matrix < 0).sum() / 2194 < 0.23
    into, out = (matrix != 0).sum(0), (matrix != 0).sum(1)
    # Heavier tails than of random graphs of this density, whose degrees have a deviation of 2.8.
    assert into.std() > 4
    assert out.std() > 3.3


def test_matrices() -> None:
    matrix, sensory = [[0, 1, 0], [-1, 0, 1], [0, 0, -1]], [[1, 0, 0], [0, -1, 1]]
    wiring = from_adjacency(matrix, sensory, 1)
    assert wiring.adjacency_matrix.tolist() == matrix
    assert wiring.sensory_adjacency_matrix.tolist() == sensory
    assert (wiring.input_dim, wiring.output_dim, wiring.is_built()) == (2, 1, True)
    assert from_adjacency(matrix, 4).sensory_adjacency_matrix.tolist() == [[1] * 3] * 4
    layer = LTC(2, wiring)
    assert torch.equal(layer.rnn_cell.erev, torch.tensor(matrix).float())


def test_graphs_of_wirings_come_back() -> None:
    wiring = AutoNCP(12, 2)
    wiring.build(I)
    again = from_networkx(wiring.get_graph())
    assert (again.adjacency_matrix == wiring.adjacency_matrix).all()
    assert (again.sensory_adjacency_matrix == wiring.sensory_adjacency_matrix).all()
    assert again.output_dim == 2


def test_graphs_of_ones_own() -> None:
    graph = networkx.DiGraph()
    graph.add_node("eye", neuron_type="sensory")
    graph.add_node("a")
    graph.add_node("b", neuron_type="motor")
    graph.add_edge("eye", "a", weight=-0.5)
    graph.add_edge("a", "b", polarity="inhibitory")
    graph.add_edge("b", "b", polarity=1)
    wiring = from_networkx(graph)
    assert wiring.adjacency_matrix.tolist() == [[1, 0], [-1, 0]]
    assert wiring.sensory_adjacency_matrix.tolist() == [[0, -1]]
    assert wiring.output_dim == 1
    both = networkx.Graph()
    both.add_node("eye", neuron_type="sensory")
    both.add_edges_from([("a", "eye"), ("a", "b")])
    wiring = from_networkx(both)
    assert wiring.adjacency_matrix.tolist() == [[0, 1], [1, 0]]
    assert wiring.sensory_adjacency_matrix.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    "make", [lambda: AutoNCP(12, 2), lambda: Random(9, 2, 0.5), lambda: NCP(5, 4, 2, 3, 2, 3, 2)]
)
@pytest.mark.parametrize("built", [False, True])
def test_one_wiring_for_several_numbers_of_inputs(make: Any, built: bool) -> None:
    wiring = make()
    if built:
        wiring.build(I)
    before = copy.deepcopy(vars(wiring))
    few, many = for_inputs(wiring, 2), for_inputs(wiring, 40)
    assert (few.input_dim, many.input_dim) == (2, 40)
    assert wiring.adjacency_matrix.tolist() == before["adjacency_matrix"].tolist()
    assert wiring.input_dim == before["input_dim"]
    if built:
        assert (few.adjacency_matrix == wiring.adjacency_matrix).all()
        assert (many.adjacency_matrix == wiring.adjacency_matrix).all()
    for number, made in ((2, few), (40, many)):
        assert made.sensory_adjacency_matrix.any()
        LTC(number, made)(torch.zeros(1, 1, number))
    with pytest.raises(ValueError, match=r"wiring: expected one that draws.*got Wiring"):
        for_inputs(from_adjacency([[1]], 2), 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeepNCP([], 3, 2), "inter_neurons: expected .*one layer or more"),
        (lambda: DeepNCP([4, 0], 3, 2), "inter_neurons: expected 1 or more, got 0"),
        (
            lambda: DeepNCP([9], 3, 2, 0.9),
            r"sparsity_level: expected at most 0\.83, .* of 3, got 0\.9",
        ),
        (lambda: DeepNCP([9], 3, 2, 1.0), r"sparsity_level: .*less than 1, got 1\.0"),
        (lambda: SmallWorld(6, 7), "output_dim: expected 1 to 6, got 7"),
        (lambda: SmallWorld(6, neighbours=3), "neighbours: expected an even number, got 3"),
        (lambda: SmallWorld(6, neighbours=6), "neighbours: expected 2 to 5, got 6"),
        (lambda: SmallWorld(6, rewiring=2), "rewiring: .*got 2"),
        (lambda: SmallWorld(6, sensory_sparsity=0.95), r"sensory_sparsity: expected at most 0\.91"),
        (lambda: SmallWorld(6, inhibitory=-1), "inhibitory: .*got -1"),
        (lambda: ConnectomeLike(5, 1, sensory_sparsity=0), r"mean_degree: .*than 4, got 7\.8"),
        (lambda: from_adjacency([[1, 0]], 2), r"adjacency: expected shape \[N, N\], got \[1, 2\]"),
        (lambda: from_adjacency([[2]], 2), "adjacency: expected entries of -1, 0 and 1"),
        (lambda: from_adjacency([[1]], [[1, 1]]), r"sensory: expected shape \[I, N = 1\]"),
        (lambda: from_adjacency([[1]], 0), "sensory: expected 1 or more, got 0"),
        (lambda: from_adjacency([[1]], 1, 2), "output_dim: expected 1 to 1, got 2"),
        (lambda: from_networkx(networkx.path_graph(3)), "sensory: expected a number"),
        (lambda: for_inputs(AutoNCP(12, 2), 0), "input_dim: expected 1 or more, got 0"),
    ],
)
def test_bad_arguments(make: Callable[[], Wiring], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_highest_sparsity_that_an_error_names_is_taken() -> None:
    for size in range(1, 60):
        with pytest.raises(ValueError, match="expected at most") as caught:
            DeepNCP([size], size, 1, 0.999)
        most = float(str(caught.value).split("at most ")[1].split(",")[0])
        DeepNCP([size], size, 1, most).build(2)
        with pytest.raises(ValueError, match="sparsity"):
            DeepNCP([size], size, 1, most + 0.011)


def test_a_graph_with_a_synapse_onto_an_input_is_refused() -> None:
    graph = networkx.DiGraph()
    graph.add_node("eye", neuron_type="sensory")
    graph.add_edge("a", "eye")
    with pytest.raises(ValueError, match="graph: expected no synapse onto an input, got 'a'"):
        from_networkx(graph)
    graph = networkx.DiGraph([("a", "b", {"polarity": "strong"})])
    with pytest.raises(ValueError, match=r"polarity: .*got 'strong' of 'a' -> 'b'"):
        from_networkx(graph, 1)
    assert CfC(1, from_networkx(networkx.path_graph(3), 1)).state_size == 3
