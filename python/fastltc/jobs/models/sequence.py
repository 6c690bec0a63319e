"""A liquid layer with a readout, and images that it reads row by row."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ...nn import init_by_fan_in
from ..options import ABOVE_0, FROM_0, one_of
from . import parts
from .parts import CELLS, WIRING_SEED

# How the first conductances of an LTC are drawn.
CONDUCTANCES = ("as-ncps", "fan-in")


class Layer(NamedTuple):
    """What a liquid layer is; see `Rows` and `Series`. None for the default of the cell."""

    cell: str
    units: int
    wiring: str
    sparsity: float
    wiring_seed: int
    gain: float
    mixed_memory: bool
    unfolds: int | None = None
    conductances: str | None = None
    backbone_units: int | None = None
    backbone_layers: int | None = None

    def check(self) -> None:
        """Raises ValueError for a wiring or an option that the cell does not have."""
        wirings = {"lstm": ("full",), "cfc": (*parts.WIRINGS, "none")}
        one_of(wirings.get(self.cell, parts.WIRINGS)).check("wiring", self.wiring)
        if self.cell == "lstm" and self.mixed_memory:
            raise ValueError("mixed_memory: an LSTM is a memory itself; leave the option out")
        if self.cell != "ltc":
            for name in ("unfolds", "conductances"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: an option of LTC; leave it out")
        if self.wiring != "none":
            for name in ("backbone_units", "backbone_layers"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name}: only a CfC without a wiring has a backbone; leave the option out"
                    )
        if self.conductances is not None:
            one_of(CONDUCTANCES).check("conductances", self.conductances)

    def options(self) -> dict[str, Any]:
        """Those of LTC or CfC."""
        if self.cell == "ltc":
            return {} if self.unfolds is None else {"ode_unfolds": self.unfolds}
        return {"backbone_units": self.backbone_units, "backbone_layers": self.backbone_layers}


class LiquidReadout(nn.Module):
    """A liquid layer and a readout: linear on all neurons, or the motor neurons of an NCP.

    Args:
        inputs: of the layer, at a time step.
        outputs: of the readout.
        layer: the layer.
        reads: states that the readout sees at once.
        known: what it sees besides.
        decoder: neurons between what it sees and the outputs; 0 for none.
        classes: whether the outputs are classes.
        return_sequences: read every time step, else the state after the last.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layer: Layer,
        *,
        reads: int = 1,
        known: int = 0,
        decoder: int = 0,
        classes: bool = True,
        return_sequences: bool = True,
    ) -> None:
        super().__init__()
        if classes:
            parts.check_classes(outputs)
        layer.check()
        cell, units, wiring = layer.cell, layer.units, layer.wiring
        self.rnn: nn.Module
        if cell == "lstm":
            self.rnn = parts.TimedLSTM(inputs, units, return_sequences=return_sequences)
            self.about = f"torch.nn.LSTM with {units} units"
        else:
            motor = outputs if wiring == "ncp" else units
            if wiring != "none":
                self.wiring = parts.make_wiring(
                    wiring, units, motor, layer.sparsity, layer.wiring_seed
                )
            self.rnn = parts.liquid_layer(
                cell,
                inputs,
                units if wiring == "none" else self.wiring,
                return_sequences=return_sequences,
                mixed_memory=layer.mixed_memory,
                **layer.options(),
            )
            if layer.conductances == "fan-in":
                init_by_fan_in(self.rnn)
            self.about = f"{CELLS[cell].__name__} with {units} neurons, {wiring} wiring"
        self.gain = float(layer.gain)
        seen = units * reads + known
        self.readout: nn.Module = nn.Identity()
        if wiring != "ncp":
            self.readout = nn.Linear(decoder or seen, outputs)
        if decoder:
            self.readout = nn.Sequential(nn.Linear(seen, decoder), nn.SiLU(), self.readout)

    def logits(self, output: Tensor) -> Tensor:
        """The readout of the layer's output; a trained one needs no gain."""
        if isinstance(self.readout, nn.Identity):
            return self.gain * output
        return cast(Tensor, self.readout(output))

    def export_layers(self) -> list[nn.Module]:
        """What runs at every time step, see `fastltc.exporting.describe`."""
        if isinstance(self.rnn, parts.TimedLSTM):
            raise ValueError("model: a torch.nn.LSTM is here to compare with and is not exported")
        if not isinstance(self.readout, nn.Identity):
            return [self.rnn, self.readout]
        motor = torch.full((cast(int, self.rnn.output_size),), self.gain)
        return [self.rnn, parts.diagonal(motor)]


class Rows(LiquidReadout):
    """Classifies images that a liquid layer reads as a sequence of rows, from the top.

    ``logits = readout(liquid(tanh(A rows + b))[some rows])``; a row of a colour image has the
    values of all channels. A linear readout sees all neurons after ``reads`` evenly spaced rows,
    the last one among them; with an ``ncp`` wiring the motor neurons after the last row are the
    logits (times ``gain``). A is the encoder: a sparse wiring gives a neuron only a few of its
    inputs, which are then features of the whole row instead of pixels.

    Args:
        input_shape: ``(C, H, W)``.
        classes: number of classes.
        cell: ``"ltc"`` or ``"cfc"``.
        units: neurons.
        wiring: ``"random"``, ``"ncp"`` or ``"full"``.
        sparsity: share of the synapses that a random wiring lacks.
        timestep: time from one row to the next, in the units of the membrane's time constants.
            At 1, the default of ncps, an LTC as it is initialised has mostly forgotten a row when
            the next one comes; the shorter the time, the longer it remembers.
        reads: states that the readout sees; 7 by default, and 1 for an ``ncp`` wiring.
        encoder: features that a row is mapped to; 0 for the pixels themselves.
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
        sparsity: float = 0.9,
        timestep: float = 0.3,
        reads: int | None = None,
        encoder: int = 32,
        wiring_seed: int = WIRING_SEED,
        gain: float = 5.0,
        mixed_memory: bool = False,
    ) -> None:
        channels, height, width = input_shape
        if reads is None:
            reads = 1 if wiring == "ncp" else min(7, height)
        chosen = parts.rows_read(reads, height)
        if wiring == "ncp" and reads != 1:
            raise ValueError(f"reads: expected 1 with an ncp wiring, got {reads}")
        FROM_0.check("encoder", encoder)
        ABOVE_0.check("timestep", timestep)
        layer = Layer(cell, units, wiring, sparsity, wiring_seed, gain, mixed_memory)
        super().__init__(encoder or channels * width, classes, layer, reads=reads)
        self.timestep = float(timestep)
        self.rows_read = chosen
        self.encoder = nn.Sequential()
        if encoder:
            self.encoder.extend([nn.Linear(channels * width, encoder), nn.Tanh()])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, classes]`` of images ``[B, C, H, W]``."""
        rows = self.encoder(images.movedim(1, 2).flatten(2))
        output, _ = self.rnn(rows, timespans=self.timestep)
        return self.logits(output[:, self.rows_read].flatten(1))

    def export_layers(self) -> list[nn.Module]:
        """What runs at every row, with a time step of ``timestep``.

        See `fastltc.exporting.describe`.
        """
        if len(self.rows_read) > 1:
            raise ValueError(
                f"reads: the readout sees the states after {len(self.rows_read)} rows at once, "
                "which a model that goes step by step cannot; train with --reads 1"
            )
        return [self.encoder, *super().export_layers()]
