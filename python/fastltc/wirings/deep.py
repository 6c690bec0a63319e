"""Neural circuit policies with several layers of inter-neurons."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastltc.wirings.checks import check_count, synapses_of_each
from fastltc.wirings.seeded import SeededWiring


class DeepNCP(SeededWiring):
    """A neural circuit policy (NCP) with any number of layers of inter-neurons.

    Sensory neurons, inter-neurons layer by layer, command neurons, motor neurons: each layer has
    synapses onto the next one, and command neurons onto each other, too. ``ncps.wirings.NCP`` is
    that with one layer of inter-neurons. Motor neurons are the first of the state, then command
    neurons, then inter-neurons from the first layer on.

    Args:
        inter_neurons: number of neurons of each layer of inter-neurons, from the inputs on.
        command_neurons: number of command neurons.
        motor_neurons: number of motor neurons, the outputs.
        sparsity_level: share of the pairs of neurons of two layers that have no synapse. A neuron
            that would have none gets one.
        seed: of the draws.

    Raises:
        ValueError: if there are no layers or a number is less than 1, or the level leaves a neuron
            without a synapse; the text says which level does not.

    Example:
        >>> import torch
        >>> from fastltc import CfC, LTC
        >>> from fastltc.wirings import DeepNCP
        >>> wiring = DeepNCP([12, 8], command_neurons=6, motor_neurons=2)
        >>> LTC(4, wiring)(torch.randn(2, 5, 4))[0].shape
        torch.Size([2, 5, 2])
        >>> CfC(4, wiring).rnn_cell.layer_sizes
        [12, 8, 6, 2]

    Source: Lechner et al., Neural circuit policies enabling auditable autonomy, Nature Machine
    Intelligence 2020, whose wiring this extends.
    """

    def __init__(
        self,
        inter_neurons: Sequence[int],
        command_neurons: int,
        motor_neurons: int,
        sparsity_level: float = 0.5,
        seed: int = 22222,
    ) -> None:
        if not inter_neurons:
            raise ValueError("inter_neurons: expected the size of one layer or more, got none")
        self._inter_neurons = [check_count("inter_neurons", count) for count in inter_neurons]
        self._command_neurons = check_count("command_neurons", command_neurons)
        self._motor_neurons = check_count("motor_neurons", motor_neurons)
        self._sparsity_level, self._seed = float(sparsity_level), int(seed)
        sizes = [*self._inter_neurons, command_neurons, motor_neurons]
        super().__init__(sum(sizes))
        self.set_output_dim(motor_neurons)
        first = np.cumsum([0, motor_neurons, command_neurons, *self._inter_neurons]).tolist()
        ranges = [list(range(a, b)) for a, b in itertools.pairwise(first)]
        motor, command, *inter = ranges
        self._layers = [*inter, command, motor]
        self._rng = np.random.default_rng(seed)
        for source, target in zip(self._layers[:-2], self._layers[1:-1], strict=True):
            self._connect(source, target, self.add_synapse)
        # A motor neuron has its number of command neurons, which may be more than it.
        self._connect(motor, command, lambda post, pre, sign: self.add_synapse(pre, post, sign))
        pairs = [(pre, post) for pre in command for post in command]
        count = min(len(pairs), int(2 * len(command) * (1 - self._sparsity_level)))
        for pair in self._rng.choice(len(pairs), size=count, replace=False):
            self.add_synapse(*pairs[pair], self._sign())
        self._after_neurons = self._rng.bit_generator.state

    @property
    def num_layers(self) -> int:
        """Number of layers: those of inter-neurons, and two."""
        return len(self._layers)

    def get_neurons_of_layer(self, layer_id: int) -> list[int]:
        """Return the neurons of a layer, from the first of inter-neurons on."""
        return list(self._layers[layer_id])

    def get_type_of_neuron(self, neuron_id: int) -> str:
        """Return ``"motor"``, ``"command"`` or ``"inter"``."""
        if neuron_id < self._motor_neurons:
            return "motor"
        return "command" if neuron_id < self._motor_neurons + self._command_neurons else "inter"

    def _connect_inputs(self, input_dim: int) -> None:
        # The same inputs get the same synapses, whatever was drawn before.
        self._rng.bit_generator.state = self._after_neurons
        self._connect(list(range(input_dim)), self._layers[0], self.add_sensory_synapse)

    def _sign(self) -> int:
        return int(self._rng.choice([-1, 1]))

    def _connect(
        self, source: list[int], target: list[int], add: Callable[[int, int, int], Any]
    ) -> None:
        """Connect each neuron of a layer with some of another, and each of that one with some."""
        count = synapses_of_each("sparsity_level", self._sparsity_level, len(target))
        missing = set(target)
        for pre in source:
            for post in self._rng.choice(target, size=count, replace=False).tolist():
                add(pre, post, self._sign())
                missing.discard(post)
        for post in sorted(missing):
            add(int(self._rng.choice(source)), post, self._sign())

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {
            "inter_neurons": self._inter_neurons,
            "command_neurons": self._command_neurons,
            "motor_neurons": self._motor_neurons,
            "sparsity_level": self._sparsity_level,
            "seed": self._seed,
        }
