"""The synapses of an LTC one by one: their currents, and their signs before and after training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastltc.inspect.membrane import Membrane
from fastltc.nn import LTC


def synaptic_currents(
    layer: nn.Module,
    input: Tensor,
    hx: Any = None,
    timespans: Tensor | float | None = None,
) -> Tensor:
    """Return the current through every synapse of an LTC after each step of one sequence.

    That of a synapse is ``w s (erev - v)``: the conductance ``w`` times its activity ``s``, times
    how far the potential ``v`` of the postsynaptic neuron is from the reversal potential.

    Args:
        layer: an LTC layer.
        input: ``[T, I]``, one sequence.
        hx: as for the layer, ``[N]``.
        timespans: as for the layer.

    Returns:
        ``[T, I + N, N]`` from row to column, inputs before neurons; 0 where there is no synapse.
        Summed over the rows it is ``recurrent + sensory`` of :class:`Currents`.

    Raises:
        TypeError: if it is no LTC layer.
        ValueError: if there is a batch axis.

    Example:
        >>> import torch
        >>> from fastltc import LTC
        >>> from fastltc.inspect import synaptic_currents
        >>> from fastltc.wirings import AutoNCP
        >>> synaptic_currents(LTC(4, AutoNCP(12, 2)), torch.randn(50, 4)).shape
        torch.Size([50, 16, 12])

    Source: Lechner et al., Neural circuit policies, Nature Machine Intelligence 2020.
    """
    check_ltc(layer)
    if not isinstance(input, Tensor) or input.dim() != 2:
        got = list(input.shape) if isinstance(input, Tensor) else type(input).__name__
        raise ValueError(f"input: expected one sequence, [T, I], got {got}")
    v = layer(input, hx, timespans, return_states=True)[2]
    membrane = Membrane(layer.rnn_cell)
    parts = []
    for signals, sensory in ((membrane.signals(input), True), (v, False)):
        g, erev = membrane.per_synapse(signals, sensory=sensory)
        parts.append(g * (erev - v.unsqueeze(1)))
    return torch.cat(parts, 1)


@dataclass(frozen=True)
class Polarities:
    """The signs of the synapses of an LTC, ``[I + N, N]`` from row to column, inputs first.

    1 is excitatory, -1 inhibitory, 0 no synapse.
    """

    wired: Tensor
    """By the wiring, with which training started."""
    trained: Tensor
    """Of the reversal potentials as they are now, where the masks have a synapse."""

    @property
    def flipped(self) -> Tensor:
        """Where a synapse has the other sign now, booleans."""
        return self.wired * self.trained < 0


def polarities(layer: nn.Module) -> Polarities:
    """Return the signs of the synapses by the wiring, and as they are now.

    Args:
        layer: an LTC layer. (The synapses of a CfC have no reversal potential.)

    Raises:
        TypeError: if it is none.

    Example:
        >>> from fastltc import LTC
        >>> from fastltc.inspect import polarities
        >>> from fastltc.wirings import AutoNCP
        >>> int(polarities(LTC(4, AutoNCP(12, 2))).flipped.sum())
        0
    """
    check_ltc(layer)
    cell: Any = layer.rnn_cell
    wiring = cell._wiring
    wired = np.concatenate([wiring.sensory_adjacency_matrix, wiring.adjacency_matrix])
    with torch.no_grad():
        trained = torch.cat(
            [
                torch.where(getattr(cell, f"{prefix}sparsity_mask") != 0, erev.sign(), 0)
                for prefix in ("sensory_", "")
                for erev in [getattr(cell, f"{prefix}erev")]
            ]
        )
    return Polarities(torch.as_tensor(np.sign(wired), device=trained.device), trained.long())


def check_ltc(layer: Any) -> None:
    """Raise TypeError if it is no LTC layer."""
    if not isinstance(layer, LTC):
        raise TypeError(
            f"layer: expected an LTC layer, whose synapses have conductances, got "
            f"{type(layer).__name__}"
        )
