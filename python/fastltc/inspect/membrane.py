"""The conductances of an LTC's membranes in given states, in plain PyTorch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastltc._parameters import LTC_PARAMETERS

# Numbers of synapses times rows that are computed at once.
_AT_ONCE = 1 << 22


class Conductances(NamedTuple):
    """Sums over the synapses onto each neuron, ``[rows, N]`` each."""

    recurrent: Tensor
    recurrent_reversal: Tensor
    """The same, each conductance times its reversal potential."""
    sensory: Tensor
    sensory_reversal: Tensor


class Membrane:
    """The equation of an ``LTCCell`` with its parameters as they are now."""

    def __init__(self, cell: Any) -> None:
        given = dict(zip(LTC_PARAMETERS, cell._operator_parameters(), strict=True))
        made = dict(zip(LTC_PARAMETERS, cell._made_positive(tuple(given.values())), strict=True))
        self.gleak, self.vleak, self.cm = made["gleak"], made["vleak"], made["cm"]
        self.epsilon: float = cell._epsilon
        self._maps = made["input_w"], made["input_b"]
        masks = {"": cell.sparsity_mask, "sensory_": cell.sensory_sparsity_mask}
        self._synapses = {
            prefix: tuple(
                torch.where(mask != 0, made[prefix + name], 0)
                for name in ("w", "erev", "sigma", "mu")
            )
            for prefix, mask in masks.items()
        }

    def signals(self, x: Tensor) -> Tensor:
        """Return what sensory synapses read of inputs ``[..., I]``."""
        factor, offset = self._maps
        u = x if factor is None else x * factor
        return u if offset is None else u + offset

    def per_synapse(self, signals: Tensor, *, sensory: bool) -> tuple[Tensor, Tensor]:
        """Return conductances ``[rows, pre, N]`` and reversal potentials ``[pre, N]``.

        ``signals`` is ``[rows, pre]``: states of the neurons, or :meth:`signals` of inputs.
        """
        w, erev, sigma, mu = self._synapses["sensory_" if sensory else ""]
        return w * torch.sigmoid(sigma * (signals.unsqueeze(2) - mu)), erev

    def conductances(self, x: Tensor, v: Tensor) -> Conductances:
        """Return the sums for inputs ``[rows, I]`` and states ``[rows, N]``."""
        pre, neurons = max(x.shape[1], v.shape[1]), v.shape[1]
        rows = max(1, _AT_ONCE // (pre * neurons))
        parts = []
        for some_x, some_v in zip(x.split(rows), v.split(rows), strict=True):
            sums: list[Tensor] = []
            for signals, sensory in ((some_v, False), (self.signals(some_x), True)):
                g, erev = self.per_synapse(signals, sensory=sensory)
                sums += g.sum(1), (g * erev).sum(1)
            parts.append(sums)
        return Conductances(*(torch.cat(sums) for sums in zip(*parts, strict=True)))
