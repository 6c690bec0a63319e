"""Wirings without layers, drawn as networks of nature are thought to be."""

from __future__ import annotations

from typing import Any

import networkx
import numpy as np

from fastltc.wirings.checks import check_count, synapses_of_each
from fastltc.wirings.seeded import SeededWiring


class _Drawn(SeededWiring):
    """Synapses from a seed: those of the neurons at once, those of the inputs when it is built."""

    def __init__(
        self,
        units: int,
        output_dim: int | None,
        sensory_sparsity: float,
        inhibitory: float,
        seed: int,
    ) -> None:
        super().__init__(check_count("units", units, 2))
        self.set_output_dim(units if output_dim is None else output_dim)
        check_count("output_dim", self.output_dim, 1, units)
        if not 0 <= inhibitory <= 1:
            raise ValueError(f"inhibitory: expected a share of 0 to 1, got {inhibitory}")
        self._per_input = synapses_of_each("sensory_sparsity", sensory_sparsity, units)
        self._sensory_sparsity, self._inhibitory = float(sensory_sparsity), float(inhibitory)
        self._seed = int(seed)

    def _signs(self, rng: np.random.Generator, count: int) -> list[int]:
        return np.where(rng.random(count) < self._inhibitory, -1, 1).tolist()

    def _connect_inputs(self, input_dim: int) -> None:
        rng = np.random.default_rng([self._seed, 1])
        for source in range(input_dim):
            targets = rng.choice(self.units, size=self._per_input, replace=False).tolist()
            for target, sign in zip(targets, self._signs(rng, len(targets)), strict=True):
                self.add_sensory_synapse(source, target, sign)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {
            "units": self.units,
            "output_dim": self.output_dim,
            "sensory_sparsity": self._sensory_sparsity,
            "inhibitory": self._inhibitory,
            "seed": self._seed,
        }


class SmallWorld(_Drawn):
    """A small world: neighbours on a ring, of whose connections some lead far away.

    Each neuron is connected with its nearest neighbours, and each connection is moved to another
    neuron with some probability. A few such suffice to have any two neurons a few synapses apart.
    A connection is two synapses, one each way, with signs of their own.

    Args:
        units: number of neurons, N.
        output_dim: number of motor neurons, the first of the state; N by default.
        neighbours: of each neuron, an even number of 2 to N - 1.
        rewiring: probability with which a connection is moved: 0 is the ring, 1 is random.
        sensory_sparsity: share of the neurons that an input has no synapse onto.
        inhibitory: share of the synapses.
        seed: of the draws.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> from fastltc import LTC
        >>> from fastltc.wirings import SmallWorld
        >>> LTC(4, SmallWorld(20, 2, neighbours=4)).synapse_count
        80

    Source: Watts and Strogatz, Collective dynamics of 'small-world' networks, Nature 1998.
    """

    def __init__(
        self,
        units: int,
        output_dim: int | None = None,
        neighbours: int = 4,
        rewiring: float = 0.1,
        sensory_sparsity: float = 0.5,
        inhibitory: float = 1 / 3,
        seed: int = 1111,
    ) -> None:
        super().__init__(units, output_dim, sensory_sparsity, inhibitory, seed)
        self._neighbours = check_count("neighbours", neighbours, 2, units - 1)
        if neighbours % 2:
            raise ValueError(f"neighbours: expected an even number, got {neighbours}")
        if not 0 <= rewiring <= 1:
            raise ValueError(f"rewiring: expected a probability of 0 to 1, got {rewiring}")
        self._rewiring = float(rewiring)
        graph = networkx.watts_strogatz_graph(units, neighbours, rewiring, seed=self._seed)
        rng = np.random.default_rng([self._seed, 0])
        for a, b in graph.edges:
            there, back = self._signs(rng, 2)
            self.add_synapse(a, b, there)
            self.add_synapse(b, a, back)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        own = {"neighbours": self._neighbours, "rewiring": self._rewiring}
        return super().get_config() | own


class ConnectomeLike(_Drawn):
    """A random network with statistics of the nervous system of the worm C. elegans.

    It is no connectome: no neuron stands for one of the worm's. By default it has as many neurons
    as its chemical synapses connect (279), and as many connections as these make (2194). In- and
    out-degrees are drawn from distributions whose tails are power laws, as theirs are, and pairs
    with probabilities in proportion to both. One connection in five is inhibitory. The exponents
    of the tails, 3.17 and 4.22, have not been checked against the paper, and the numbers of neurons
    and synapses only against a text that quotes it.

    Args:
        units: number of neurons, N.
        output_dim: number of motor neurons, the first of the state; N by default.
        mean_degree: connections per neuron, more than 0 and less than N - 1.
        sensory_sparsity: share of the neurons that an input has no synapse onto.
        inhibitory: share of the synapses.
        seed: of the draws.

    Raises:
        ValueError: if a number is out of its range.

    Example:
        >>> from fastltc import LTC
        >>> from fastltc.wirings import ConnectomeLike
        >>> LTC(16, ConnectomeLike(output_dim=4)).synapse_count
        2194

    Source: Varshney et al., Structural Properties of the Caenorhabditis elegans Neuronal Network,
    PLoS Computational Biology 2011; signs: Fenyves et al., Synaptic polarity and sign-balance
    prediction using gene expression data in the Caenorhabditis elegans chemical synapse neuronal
    connectome network, PLoS Computational Biology 2020.
    """

    def __init__(
        self,
        units: int = 279,
        output_dim: int | None = None,
        mean_degree: float = 2194 / 279,
        sensory_sparsity: float = 0.9,
        inhibitory: float = 0.2,
        seed: int = 1111,
    ) -> None:
        super().__init__(units, output_dim, sensory_sparsity, inhibitory, seed)
        if not 0 < mean_degree < units - 1:
            raise ValueError(
                f"mean_degree: expected more than 0 and less than {units - 1}, got {mean_degree}"
            )
        self._mean_degree = float(mean_degree)
        rng = np.random.default_rng([self._seed, 0])
        # A Pareto variable of index a has a density that falls with the exponent a + 1.
        into, out = (1 + rng.pareto(exponent - 1, units) for exponent in (3.17, 4.22))
        weights = np.outer(out, into)
        np.fill_diagonal(weights, 0)
        chosen = rng.choice(
            weights.size,
            size=round(units * mean_degree),
            replace=False,
            p=(weights / weights.sum()).ravel(),
        )
        signs = self._signs(rng, len(chosen))
        for pair, sign in zip(chosen.tolist(), signs, strict=True):
            self.add_synapse(*divmod(pair, units), sign)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return super().get_config() | {"mean_degree": self._mean_degree}
