"""What layers of one shape share that run beside each other in one operator call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar, overload

import torch
from torch import Tensor, nn, strided

from fastltc.nn.changes import has_own_forward
from fastltc.nn.checks import check_dense, check_input_kind, check_state
from fastltc.nn.resets import layer_resets
from fastltc.nn.timespans import layer_lengths, layer_timespans, timespans_like
from fastltc.ops.errors import check_timespan_values
from fastltc.ops.sequence import HALF_DTYPES, Sequences

Layer = TypeVar("Layer", bound=nn.Module)


class ParallelLayers(nn.Module, Generic[Layer]):
    """Base of ``ParallelLTC`` and ``ParallelCfC``; not for users."""

    count: int
    """Number of layers, K."""
    batch_first: bool
    return_sequences: bool
    state_size: int
    sensory_size: int
    output_size: int

    @property
    def _operator_outputs(self) -> int:
        """How many the operator has of a layer."""
        return self.output_size

    def _operator_parameters(self) -> tuple[Tensor, Any]:
        """Return one of the stacked parameters, and what the other methods read of all."""
        raise NotImplementedError

    def _run(
        self, sequences: Sequences, parameters: Any, all_neurons: bool
    ) -> tuple[Tensor, Tensor]:
        """Run the operator; with ``all_neurons`` the outputs are the states of all neurons."""
        raise NotImplementedError

    def _outputs(self, states: Tensor, parameters: Any) -> Tensor:
        """Return the operator's outputs that go with states, ``[K, ..., N]``."""
        raise NotImplementedError

    def _project(self, output: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the outputs that go with the operator's; 0 behind the lengths, as those are."""
        return output

    @staticmethod
    def _check_alike(layers: Sequence[Layer]) -> None:
        """Raise if layers cannot be run in one call, or do something else by themselves."""
        raise NotImplementedError

    def layer(self, index: int) -> Layer:
        """Return a copy of one layer, as a layer of its own.

        Args:
            index: which, 0 to K - 1.

        Raises:
            IndexError: if there is no such layer.
        """
        return self._taken(range(self.count)[index])

    def _taken(self, index: int) -> Layer:
        """Return a layer with copies of what is stacked."""
        raise NotImplementedError

    def _put(self, index: int, layer: Layer) -> None:
        """Copy what is stacked of a layer that agrees with the others; without gradients."""
        raise NotImplementedError

    def load_layer(self, index: int, layer: Layer) -> None:
        """Put the parameters, and masks that are stacked, of a layer in the place of another's.

        Args:
            index: which, 0 to K - 1.
            layer: one that agrees with the others.

        Raises:
            IndexError: if there is no such layer.
            TypeError: as on construction.
            ValueError: as on construction.
        """
        index = range(self.count)[index]
        self._check_alike([self.layer(index), layer])
        with torch.no_grad():
            self._put(index, layer)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return (
            f"{self.count} layers, {self.sensory_size}, {self.state_size}, "
            f"output_size={self.output_size}"
        )

    def __len__(self) -> int:
        return self.count

    @overload
    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        timespans: Tensor | float | None = None,
        lengths: Tensor | list[int] | None = None,
        resets: Tensor | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: Literal[False] = False,
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        timespans: Tensor | float | None = None,
        lengths: Tensor | list[int] | None = None,
        resets: Tensor | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: bool,
    ) -> tuple[Tensor, ...]: ...

    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        timespans: Tensor | float | None = None,
        lengths: Tensor | list[int] | None = None,
        resets: Tensor | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: bool = False,
    ) -> tuple[Tensor, ...]:
        """Run a batch of sequences through each layer.

        Args:
            input: ``[K, B, T, I]``, dtype and device of the parameters (half types: see
                :func:`fastltc.ops.ltc`). B and T may be 0.
            hx: initial states, ``[K, B, N]``; zeros by default.
            timespans: time since the last step, any unit, not negative, 1 by default: a number,
                ``(B, T)`` for all layers, ``(K, B, T)``, or ``(K, B, T, N)``, one per neuron; each
                axis may be 1 for all alike. 0 holds the state.
            lengths: valid steps of each sample, B integers from 0 to T, for all layers; T by
                default. From ``t = lengths[b]`` on the state is held and the output is 0.
            resets: steps before which the states of a sample are set to ``hx`` again, ``[B, T]``,
                bool, for all layers; none by default.
            reset_to_zero: have resets set states to zeros; ``hx`` is those before the first step.
            return_states: return the states of all neurons in every step, too.

        Returns:
            ``(output, hn)``: ``[K, B, T, M]``, or ``[K, B, M]`` without ``return_sequences``; and
            the states after the last valid step, ``[K, B, N]``. With ``return_states`` there are,
            third, those after each step, ``[K, B, T, N]``, 0 behind the lengths.

        Raises:
            ValueError: if a shape or a length is wrong, or a time step is negative or not finite
                (``RuntimeError`` in compiled code).
            TypeError: if a dtype or a device is wrong.
        """
        weight, parameters = self._operator_parameters()
        count, neurons = self.count, self.state_size
        if input.layout is not strided:
            check_dense("input", input)
        shape = input.shape
        if len(shape) != 4 or shape[0] != count or shape[3] != self.sensory_size:
            raise ValueError(
                f"input: expected shape [K, B, T, I] with K = {count} layers and I = "
                f"{self.sensory_size} features, got {list(shape)}"
            )
        _, batch, time, _ = shape
        if input.dtype != weight.dtype or input.device != weight.device:
            check_input_kind(input, weight)
        if hx is not None:
            hx = check_state("hx", hx, (count, batch, neurons), input)
            hx = (hx if batch == 1 else hx.transpose(0, 1)).reshape(batch, count * neurons)
        spans = None if timespans is None else self._timespans(timespans, input)
        if lengths is not None:
            lengths = layer_lengths(lengths, batch, True, input.device)
        if resets is not None:
            resets = layer_resets(resets, batch, time, True, True, input.device)
        # One observation per layer, as a device streams them, is not worth a permutation.
        single = batch == 1 and time == 1
        x = input if single else input.permute(1, 2, 0, 3)
        whole = self.return_sequences
        outputs = neurons if return_states else self._operator_outputs
        if return_states:
            # All neurons are outputs; half types are rounded once, behind what is made of them.
            x, hx, whole = _widened(x), _widened(hx), True
        x = x.reshape(batch, time, count * shape[3])
        sequences = Sequences(*(x, hx, spans, lengths, (), whole, False, resets), reset_to_zero)
        try:
            output, hn = self._run(sequences, parameters, return_states)
        except ValueError:
            if isinstance(timespans, Tensor):
                check_timespan_values("timespans", timespans)
            raise
        if batch == 1:
            hn = hn.view(count, 1, neurons)
        else:
            hn = hn.view(batch, count, neurons).transpose(0, 1)
        if not whole:
            return self._project(output.view(batch, count, outputs).transpose(0, 1), None), hn
        if single:
            output = output.view(count, 1, 1, outputs)
        else:
            output = output.view(batch, time, count, outputs).permute(2, 0, 1, 3)
        if not return_states:
            return self._project(output, lengths), hn
        states, narrow = output, input.dtype
        if self.return_sequences:
            output = self._project(self._outputs(states, parameters), None)
            output = zero_behind(output, lengths)
        else:
            output = self._project(self._outputs(hn, parameters), None)
        if torch.is_autocast_enabled(x.device.type):
            return output, hn, states
        return output.to(narrow), hn.to(narrow), states.to(narrow)

    def _timespans(self, timespans: Tensor | float, like: Tensor) -> Tensor | None:
        """Return them as ``[B, T]``, or as ``[B, T, K N]`` where they differ between layers."""
        count, batch, time, _ = like.shape
        if not isinstance(timespans, Tensor):
            return layer_timespans(timespans, batch, time, self.state_size, True, True, like)
        spans = timespans_like("timespans", timespans, like)
        wanted = (count, batch, time, self.state_size)
        if spans.dim() == 0:
            return spans.expand(batch, time)
        shape = wanted[1:3] if spans.dim() == 2 else wanted[: spans.dim()]
        if not 2 <= spans.dim() <= 4 or any(
            given != 1 and given != size for given, size in zip(spans.shape, shape, strict=True)
        ):
            raise ValueError(
                "timespans: expected a number or shape (B, T), (K, B, T) or (K, B, T, N) = "
                f"{list(wanted)}, got {list(timespans.shape)}"
            )
        if spans.dim() == 2:
            return spans.expand(batch, time)
        spans = (spans if spans.dim() == 4 else spans.unsqueeze(3)).expand(wanted)
        return spans.permute(1, 2, 0, 3).reshape(batch, time, count * self.state_size)


def check_each(layers: Sequence[Any], kind: type[nn.Module]) -> None:
    """Raise unless there are layers, of a kind, without a memory or a cell that is another one."""
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    for k, layer in enumerate(layers):
        if not isinstance(layer, kind):
            expected = f"a fastltc.{kind.__name__}"
            raise TypeError(f"layers[{k}]: expected {expected}, got {type(layer).__name__}")
        own: Any = layer
        if own.use_mixed:
            raise ValueError(f"layers[{k}]: expected mixed_memory=False, got True")
        if not has_own_forward(own.rnn_cell):
            raise ValueError(f"layers[{k}]: expected the usual rnn_cell, got one of one's own")


def check_agree(descriptions: Sequence[dict[str, Any]]) -> None:
    """Raise a ValueError unless layers agree, in what is said of each by name."""
    for k, layer in enumerate(descriptions):
        for what, theirs in descriptions[0].items():
            if layer[what] != theirs:
                raise ValueError(
                    f"layers[{k}]: expected {what} of {theirs}, as layers[0] has, got {layer[what]}"
                )


def _widened(tensor: Any) -> Any:
    return tensor.float() if tensor is not None and tensor.dtype in HALF_DTYPES else tensor


def zero_behind(output: Tensor, lengths: Tensor | None) -> Tensor:
    """Return ``[K, B, T, .]`` with 0 behind the last valid step of each sample."""
    if lengths is None:
        return output
    valid = torch.arange(output.shape[2], device=output.device) < lengths.unsqueeze(1)
    return torch.where(valid.unsqueeze(2), output, 0)
