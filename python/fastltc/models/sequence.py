"""Liquid layers that read images row by row, or time series with their time steps."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .parts import (
    WIRING_SEED,
    Standardise,
    check_classes,
    diagonal,
    liquid_layer,
    make_wiring,
)


class _Sequence(nn.Module):
    """A liquid layer and a readout: linear on all neurons, or the motor neurons of an NCP."""

    def __init__(
        self,
        inputs: int,
        classes: int,
        cell: str,
        units: int,
        wiring: str,
        sparsity: float,
        wiring_seed: int,
        gain: float,
        mixed_memory: bool,
        *,
        return_sequences: bool,
    ) -> None:
        super().__init__()
        check_classes(classes)
        outputs = classes if wiring == "ncp" else units
        self.wiring = make_wiring(wiring, units, outputs, sparsity, wiring_seed)
        self.rnn = liquid_layer(
            cell,
            inputs,
            self.wiring,
            return_sequences=return_sequences,
            mixed_memory=mixed_memory,
        )
        self.gain = float(gain)
        self.readout = nn.Identity() if wiring == "ncp" else nn.Linear(units, classes)
        self.about = f"{cell.upper()} with {units} neurons, {wiring} wiring"

    def logits(self, output: Tensor) -> Tensor:
        """The readout of the layer's output; a trained one needs no gain."""
        if isinstance(self.readout, nn.Linear):
            return cast(Tensor, self.readout(output))
        return self.gain * output

    def export_layers(self) -> list[nn.Module]:
        """What runs at every time step, see `fastltc.exporting.describe`."""
        if isinstance(self.readout, nn.Linear):
            return [self.rnn, self.readout]
        return [self.rnn, diagonal(torch.full((self.rnn.output_size,), self.gain))]


class Rows(_Sequence):
    """Classifies images that a liquid layer reads as a sequence of rows, from the top.

    ``logits = readout(liquid(rows)[last])``; a row of a colour image has the values of all
    channels. With an ``ncp`` wiring the motor neurons are the logits (times ``gain``), else a
    linear map reads all neurons.

    Args:
        input_shape: ``(C, H, W)``.
        classes: number of classes.
        cell: ``"ltc"`` or ``"cfc"``.
        units: neurons.
        wiring: ``"random"``, ``"ncp"`` or ``"full"``.
        sparsity: share of the synapses that a random wiring lacks.
        wiring_seed: seed of the wiring.
        gain: factor on the motor neurons of an ``ncp`` wiring.
        mixed_memory: an LSTM cell before the liquid one.

    Returns:
        ``forward(images)``: images ``[B, C, H, W]``; logits ``[B, classes]``.

    Raises:
        ValueError: sizes that do not fit.
    """

    KINDS = ("images",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        units: int = 64,
        *,
        cell: str = "ltc",
        wiring: str = "random",
        sparsity: float = 0.75,
        wiring_seed: int = WIRING_SEED,
        gain: float = 5.0,
        mixed_memory: bool = False,
    ) -> None:
        channels, _, width = input_shape
        super().__init__(
            channels * width,
            classes,
            cell,
            units,
            wiring,
            sparsity,
            wiring_seed,
            gain,
            mixed_memory,
            return_sequences=False,
        )

    def forward(self, images: Tensor) -> Tensor:
        rows = images.movedim(1, 2).flatten(2)
        output, _ = self.rnn(rows)
        return self.logits(output)


class Series(_Sequence):
    """Classifies every row of a time series by a liquid layer that is given the time steps.

    ``logits[t] = readout(liquid(standardised rows, timespans)[t])``. The scales are those of the
    training rows (`fit_scales`) and part of the state dict.

    Args:
        input_shape: ``(T, I)``; any T works later.
        classes: number of classes.
        units: neurons.
        cell, wiring, sparsity, wiring_seed, gain, mixed_memory: see `Rows`.

    Returns:
        ``forward(rows, timespans)``: rows ``[B, T, I]``, timespans ``[B, T]`` in the unit of the
        data set (None for 1); logits ``[B, T, classes]``.
    """

    KINDS = ("series",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        units: int = 32,
        *,
        cell: str = "ltc",
        wiring: str = "full",
        sparsity: float = 0.5,
        wiring_seed: int = WIRING_SEED,
        gain: float = 5.0,
        mixed_memory: bool = False,
    ) -> None:
        features = input_shape[-1]
        super().__init__(
            features,
            classes,
            cell,
            units,
            wiring,
            sparsity,
            wiring_seed,
            gain,
            mixed_memory,
            return_sequences=True,
        )
        self.scale = Standardise(features)

    def fit_scales(self, inputs: Tensor) -> None:
        """Takes mean and deviation of training rows ``[..., I]``."""
        self.scale.fit(inputs)

    def forward(self, rows: Tensor, timespans: Tensor | None = None) -> Tensor:
        output, _ = self.rnn(self.scale(rows), timespans=timespans)
        return self.logits(output)

    def export_layers(self) -> list[nn.Module]:
        """What runs at every time step, see `fastltc.exporting.describe`."""
        return [self.scale, *super().export_layers()]
