"""The closed-form continuous-time layer: a whole sequence in one operator call."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from ncps.wirings import Wiring
from torch import Tensor, nn

from fastltc.nn.cfc_cell import CfCCell
from fastltc.nn.changes import GLOBAL_HOOKS, has_hooks
from fastltc.nn.lstm_cell import LSTMCell
from fastltc.nn.sequence_layer import SequenceLayer, zero_behind
from fastltc.nn.wired_cfc_cell import WiredCfCCell
from fastltc.ops.sequence import Sequences


class CfC(SequenceLayer):
    r"""A closed-form continuous-time (CfC) layer, which runs whole sequences.

    The equation is that of :func:`fastltc.reference.cfc`. The class takes the place of
    ``ncps.torch.CfC``: arguments, attributes, parameters, random draws and the keys of the state
    dict are the same, and checkpoints load both ways. What ncps does wrong or refuses is listed
    in docs/compatibility.md. Parameters are in ``rnn_cell``, a :class:`CfCCell` or
    :class:`WiredCfCCell`, and in ``fc``. M, the number of outputs, is N, or with a wiring the
    number of neurons of its last layer, or ``proj_size``.

    ``torch.compile(fullgraph=True)`` and ``torch.export`` work for any batch and length;
    ``torch.jit.script`` does not.

    Args:
        input_size: number of inputs, I; with a wiring that is built it may be None.
        units: number of neurons, N, or ``ncps.wirings.Wiring``.
        proj_size: size of a linear map of the output; none by default.
        return_sequences: return the output of every step, or only that of the last valid one.
        batch_first: input and output are ``[B, T, .]``, else ``[T, B, .]``.
        mixed_memory: put an LSTM cell before the liquid cell, to remember for longer.
        mode: ``"default"``, ``"pure"`` (the closed-form solution itself) or ``"no_gate"``.
        activation: of the backbone: ``"lecun_tanh"``, ``"silu"``, ``"relu"``, ``"tanh"`` or
            ``"gelu"``.
        backbone_units: units of each backbone layer, 128 by default; not with a wiring.
        backbone_layers: number of dense layers before the heads, 1 by default, may be 0; not with
            a wiring.
        backbone_dropout: probability with which an activation of the backbone layers after the
            first is dropped in training, anew at every step; 0 by default; not with a wiring.

    Raises:
        TypeError: if ``units`` is neither a wiring nor an integer.
        ValueError: if an argument does not go with a wiring, the wiring does not fit, or a mode
            or activation is unknown; see :class:`CfCCell` and :class:`WiredCfCCell`.

    Example:
        >>> import torch
        >>> from fastltc import CfC
        >>> from fastltc.wirings import AutoNCP
        >>> layer = CfC(16, AutoNCP(19, 2))
        >>> output, hn = layer(torch.randn(4, 32, 16), timespans=torch.rand(4, 32))
        >>> output.shape, hn.shape
        (torch.Size([4, 32, 2]), torch.Size([4, 19]))

        Four environments, whose episodes begin where it is marked, in one call:

        >>> begins = torch.rand(4, 32) < 0.1
        >>> output, hn = layer(torch.randn(4, 32, 16), resets=begins)

    Source: Hasani et al., Closed-form continuous-time neural networks, Nature Machine
    Intelligence 2022 (arXiv:2106.13898).
    """

    def __init__(
        self,
        input_size: int,
        units: Any,
        proj_size: int | None = None,
        return_sequences: bool = True,
        batch_first: bool = True,
        mixed_memory: bool = False,
        mode: str = "default",
        activation: str = "lecun_tanh",
        backbone_units: int | None = None,
        backbone_layers: int | None = None,
        backbone_dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.wiring_or_units = units
        self.proj_size = proj_size
        self.batch_first = batch_first
        self.return_sequences = return_sequences
        self.wired_mode = isinstance(units, Wiring)
        if self.wired_mode:
            for name, value in (
                ("backbone_units", backbone_units),
                ("backbone_layers", backbone_layers),
                ("backbone_dropout", backbone_dropout),
            ):
                if value is not None:
                    raise ValueError(f"{name}: expected None with a wiring, got {value}")
            self.wiring = units
            self.rnn_cell = WiredCfCCell(input_size, units, mode)
            self.state_size = units.units
            self.output_size = units.output_dim
            inputs, last = units.input_dim, self.rnn_cell.layer_sizes[-1]
            if proj_size is not None and self.output_size != last:
                raise ValueError(
                    f"proj_size: expected None with this wiring, whose last layer has {last} "
                    f"neurons but {self.output_size} outputs, got {proj_size}"
                )
        else:
            try:
                operator.index(units)
            except TypeError:
                raise TypeError(
                    "units: expected an ncps.wirings.Wiring or a number of neurons, got "
                    f"{type(units).__name__}"
                ) from None
            self.wired_false = True  # the name it has in ncps
            self.state_size = units
            self.output_size = units
            inputs = input_size
            self.rnn_cell = CfCCell(
                input_size,
                units,
                mode,
                activation,
                128 if backbone_units is None else backbone_units,
                1 if backbone_layers is None else backbone_layers,
                0.0 if backbone_dropout is None else backbone_dropout,
            )
        self._sizes = inputs, self.state_size
        self.use_mixed = mixed_memory
        if self.use_mixed:
            self.lstm = LSTMCell(inputs, self.state_size)
        self.fc: nn.Module = (
            nn.Identity() if proj_size is None else nn.Linear(self.output_size, proj_size)
        )

    def _inputs_and_neurons(self) -> tuple[int, int]:
        return self._sizes

    def _run(self, sequences: Sequences, return_states: bool) -> tuple[Tensor, Any, Tensor | None]:
        output, hn, states = super()._run(sequences, return_states)
        lengths, time_major = sequences.lengths, sequences.time_major
        fc: Any = self._modules["fc"]
        kind = type(fc)
        plain = kind is nn.Identity or kind is nn.Linear
        if not plain or has_hooks(fc) or any(GLOBAL_HOOKS) or "forward" in vars(fc):
            fc = functools.partial(_at_each_step, fc, 0 if time_major else 1)
        elif kind is nn.Identity:
            return output, hn, states
        return self._project(fc, output, lengths, time_major), hn, states

    def _project(
        self,
        fc: Callable[[Tensor], Tensor],
        output: Tensor,
        lengths: Tensor | None,
        time_major: bool,
    ) -> Tensor:
        """Run the map of the outputs."""
        time_major = time_major and self.return_sequences
        if time_major:  # so that the result has the layout of its input
            output = output.transpose(0, 1)
        dtype, device = output.dtype, output.device
        own = next((p.dtype for p in self.fc.parameters() if p.is_floating_point()), dtype)
        if own == dtype or torch.is_autocast_enabled(device.type):
            output = fc(output)
        else:
            output = fc(output.to(own)).to(dtype)
        if time_major:
            output = output.transpose(0, 1)
        return zero_behind(output, lengths) if self.return_sequences else output


def _at_each_step(fc: nn.Module, axis: int, output: Tensor) -> Tensor:
    """Call a map of one's own as ncps does; ``[B, M]`` is the output of one step."""
    if output.dim() == 2 or not output.shape[axis]:
        return fc(output)
    return torch.stack([fc(y) for y in output.unbind(axis)], axis)
