"""The liquid time-constant layer: a whole sequence in one operator call."""

from __future__ import annotations

from typing import Any

from ncps.wirings import FullyConnected, Wiring

from fastltc.nn.lstm_cell import LSTMCell
from fastltc.nn.ltc_cell import LTCCell
from fastltc.nn.sequence_layer import SequenceLayer
from fastltc.nn.wiring import WiringSizes


class LTC(WiringSizes, SequenceLayer):
    r"""A liquid time-constant (LTC) layer, which runs whole sequences.

    The equation is that of :func:`fastltc.reference.ltc`. The class takes the place of
    ``ncps.torch.LTC``: arguments, attributes, parameters, random draws and the keys of the state
    dict are the same, and checkpoints load both ways. What ncps does wrong or refuses is listed
    in docs/compatibility.md. Parameters and masks are in ``rnn_cell``, see :class:`LTCCell`.

    ``torch.compile(fullgraph=True)`` and ``torch.export`` work for any batch and length;
    ``torch.jit.script`` does not.

    Args:
        input_size: number of inputs, I.
        units: ``ncps.wirings.Wiring``, or the number of neurons of a fully connected one.
        return_sequences: return the output of every step, or only that of the last valid one.
        batch_first: input and output are ``[B, T, .]``, else ``[T, B, .]``.
        mixed_memory: put an LSTM cell before the liquid cell, to remember for longer.
        input_mapping: ``"affine"``, ``"linear"`` (no offset) or None.
        output_mapping: the same for the output.
        ode_unfolds: U, solver steps per time step.
        epsilon: added to the denominator.
        implicit_param_constraints: keep conductances and capacitances positive by a softplus; if
            False, call :meth:`apply_weight_constraints` after each step of the optimizer.

    Raises:
        TypeError: if ``units`` is neither a wiring nor an integer.
        ValueError: if the wiring does not fit; see :class:`LTCCell`.

    Example:
        >>> import torch
        >>> from fastltc import LTC
        >>> from fastltc.wirings import AutoNCP
        >>> layer = LTC(16, AutoNCP(19, 2))
        >>> output, hn = layer(torch.randn(4, 32, 16), timespans=torch.rand(4, 32))
        >>> output.shape, hn.shape
        (torch.Size([4, 32, 2]), torch.Size([4, 19]))

        Four environments, whose episodes begin where it is marked, in one call:

        >>> begins = torch.rand(4, 32) < 0.1
        >>> output, hn = layer(torch.randn(4, 32, 16), resets=begins)

    Source: Hasani et al., Liquid Time-constant Networks, AAAI 2021; Lechner et al., Neural circuit
    policies, Nature Machine Intelligence 2020.
    """

    def __init__(
        self,
        input_size: int,
        units: Any,
        return_sequences: bool = True,
        batch_first: bool = True,
        mixed_memory: bool = False,
        input_mapping: str | None = "affine",
        output_mapping: str | None = "affine",
        ode_unfolds: int = 6,
        epsilon: float = 1e-8,
        implicit_param_constraints: bool = True,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.wiring_or_units = units
        self.batch_first = batch_first
        self.return_sequences = return_sequences
        if isinstance(units, Wiring):
            wiring = units
        else:
            try:
                wiring = FullyConnected(units)
            except TypeError:
                raise TypeError(
                    "units: expected an ncps.wirings.Wiring or a number of neurons, got "
                    f"{type(units).__name__}"
                ) from None
        self.rnn_cell = LTCCell(
            wiring=wiring,
            in_features=input_size,
            input_mapping=input_mapping,
            output_mapping=output_mapping,
            ode_unfolds=ode_unfolds,
            epsilon=epsilon,
            implicit_param_constraints=implicit_param_constraints,
        )
        self._wiring = wiring
        self.use_mixed = mixed_memory
        if self.use_mixed:
            self.lstm = LSTMCell(input_size, self.state_size)

    @property
    def synapse_count(self) -> int:
        """Number of synapses between neurons, by the mask."""
        return self.rnn_cell.synapse_count

    @property
    def sensory_synapse_count(self) -> int:
        """Number of synapses from inputs to neurons, by the mask."""
        return self.rnn_cell.sensory_synapse_count

    @property
    def sigmoid_precision(self) -> str | None:
        """How precisely sigmoids of synapses are computed, ``"highest"`` or ``"medium"``.

        None, as at first: what :func:`fastltc.set_sigmoid_precision` has set.
        """
        return self.rnn_cell.sigmoid_precision

    @sigmoid_precision.setter
    def sigmoid_precision(self, precision: str | None) -> None:
        """Set it; a ValueError is raised where there is none of that name."""
        self.rnn_cell.sigmoid_precision = precision

    def apply_weight_constraints(self) -> None:
        """Clip ``w``, ``sensory_w``, ``cm`` and ``gleak`` at 0; nothing where a softplus does it.

        Call it after each step of the optimizer if ``implicit_param_constraints`` is False.
        """
        self.rnn_cell.apply_weight_constraints()
