"""What several classifiers are made of: a liquid layer on a wiring, and scales of inputs."""

from __future__ import annotations

from typing import Any

import torch
from ncps.wirings import AutoNCP, FullyConnected, Random, Wiring
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ...nn import LTC, CfC
from ..options import AT_LEAST_2, SHARE, Range, between, one_of

CELLS: dict[str, type[LTC] | type[CfC]] = {"ltc": LTC, "cfc": CfC}
WIRING_SEED = 22222  # that of ncps
WIRINGS = ("ncp", "random", "full")


def make_wiring(kind: str, units: int, outputs: int, sparsity: float, seed: int) -> Wiring:
    """A wiring by its name.

    Args:
        kind: ``ncp`` (sensory, inter, command and motor neurons, the last are the outputs),
            ``random`` (a share ``sparsity`` of all synapses is missing) or ``full``; in the last
            two the outputs are the first neurons.
        units: neurons.
        outputs: motor neurons.
        sparsity: share of missing synapses, for ``random``.
        seed: of the draw.

    Raises:
        ValueError: an unknown kind, or numbers that do not fit.
    """
    one_of(WIRINGS).check("wiring", kind)
    if kind == "ncp":
        if units < outputs + 3:
            raise ValueError(
                f"units: expected at least {outputs + 3} for {outputs} outputs "
                f"(one motor neuron each, and inter and command neurons), got {units}"
            )
        return AutoNCP(units, outputs, seed=seed)
    Range(f"at least {outputs}", lambda value: value >= outputs).check("units", units)
    if kind == "full":
        return FullyConnected(units, outputs, erev_init_seed=seed)
    SHARE.check("sparsity", sparsity)
    return Random(units, outputs, sparsity_level=sparsity, random_seed=seed)


def liquid_layer(
    cell: str, inputs: int, wiring: Wiring | int, *, return_sequences: bool, **options: Any
) -> LTC | CfC:
    """An LTC or CfC layer on a wiring, or a CfC of so many neurons; ``options`` are its own.

    Raises:
        ValueError: an unknown cell, or an impossible value of an option.
    """
    one_of(CELLS).check("cell", cell)
    return CELLS[cell](inputs, wiring, return_sequences=return_sequences, **options)


class Standardise(nn.Module):
    """``(x - mean) / deviation`` for every feature, with the values of the training data.

    They are part of the state dict, so a checkpoint brings its own scales, and data that comes
    later is judged by them.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))

    def fit(self, x: Tensor, valid: Tensor | None = None) -> None:
        """Takes the values of ``x`` ``[..., features]``; a constant feature is only shifted.

        ``valid``, of the same shape, says which values count; None for all.
        """
        if valid is not None:
            mean, deviation = mean_and_deviation(x, valid)
            self.mean.copy_(mean)
            self.deviation.copy_(deviation)
            return
        flat = x.reshape(-1, x.shape[-1]).double()
        deviation = flat.std(dim=0, correction=0)
        self.mean.copy_(flat.mean(dim=0))
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features in units of their deviation from their mean."""
        return (x - self.mean) / self.deviation

    def export_layers(self) -> list[nn.Module]:
        """The same as a linear layer, see `fastltc.exporting.describe`."""
        factor = 1 / self.deviation.double()
        return [diagonal(factor, -self.mean.double() * factor)]


def mean_and_deviation(values: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Of each feature ``[..., features]``, NaN left out; the deviation of a constant one is 1.

    ``valid``, of the same shape, says which values count; None for all.
    """
    if valid is not None:
        values = torch.where(valid, values, torch.nan)
    flat = values.reshape(-1, values.shape[-1]).double()
    mean = flat.nanmean(dim=0).nan_to_num()
    deviation = (flat - mean).square().nanmean(dim=0).sqrt()
    return mean, torch.where(deviation > 0, deviation, 1.0)


class TimedLSTM(nn.Module):
    """``torch.nn.LSTM`` with the call of a liquid layer; the time step is one more input.

    What liquid layers are compared with: the same loop, the same readout.
    """

    def __init__(self, inputs: int, units: int, *, return_sequences: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs + 1, units, batch_first=True)
        self.return_sequences = return_sequences

    def forward(
        self,
        x: Tensor,
        hx: tuple[Tensor, Tensor] | None = None,
        timespans: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the states ``[B, T, units]`` or the last one, and state and memory after it."""
        spans = x.new_ones(x.shape[:2]) if timespans is None else timespans
        read = torch.cat([x, spans.unsqueeze(-1)], dim=-1)
        if lengths is None:
            states, hx = self.lstm(read, hx)
        else:
            packed = pack_padded_sequence(
                read, lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            states, hx = self.lstm(packed, hx)
            states, _ = pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        return (states if self.return_sequences else hx[0][0]), hx


def diagonal(factor: Tensor, offset: Tensor | None = None) -> nn.Linear:
    """``factor * x + offset`` for every feature, as a linear layer, which can be exported."""
    layer = nn.Linear(len(factor), len(factor), bias=offset is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(factor))
        if offset is not None:
            layer.bias.copy_(offset)
    return layer


def clamp(features: int, bound: float) -> list[nn.Module]:
    """``min(max(x, -bound), bound)`` of every feature, as layers that can be exported."""
    # relu(x + bound) - relu(x - bound) - bound
    both, back = nn.Linear(features, 2 * features), nn.Linear(2 * features, features)
    one = torch.eye(features)
    with torch.no_grad():
        both.weight.copy_(torch.cat([one, one]))
        both.bias.copy_(torch.tensor([bound, -bound]).repeat_interleave(features))
        back.weight.copy_(torch.cat([one, -one], dim=1))
        back.bias.fill_(-bound)
    return [both, nn.ReLU(), back]


def check_classes(classes: int) -> None:
    """Raises ValueError for fewer than two classes."""
    AT_LEAST_2.check("classes", classes)


def rows_read(reads: int, height: int) -> list[int]:
    """Rows of an image after which a state is read: evenly spaced, the last one among them.

    Raises:
        ValueError: there are not so many rows.
    """
    between(1, height).check("reads", reads)
    return [height * (read + 1) // reads - 1 for read in range(reads)]
