"""A layer for each direction of time."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from fastltc.nn.checks import check_dense
from fastltc.nn.resets import check_packed_resets
from fastltc.nn.sequence_layer import SequenceLayer
from fastltc.nn.timespans import check_packed, layer_lengths


class Bidirectional(nn.Module):
    r"""Two layers over the same sequences, one of them from the end to the beginning.

    The outputs of both stand side by side for each step, as those of a bidirectional
    ``torch.nn.LSTM`` do: ``[B, T, M_forward + M_backward]``. With ``lengths`` and for a
    ``PackedSequence`` each sample is reversed within its own length.

    A time step is the time since the step before. Backwards that is the time to the step after, so
    the time steps are shifted by one: the step backwards from ``t + 1`` to ``t`` has
    ``timespans[t + 1]``, and the first one backwards has that of the first one forwards. A reset
    stands between a step and the one before it, which neither direction crosses with its state.

    Args:
        forward_layer: :class:`LTC` or :class:`CfC`.
        backward_layer: another, with the same number of inputs, ``batch_first`` and
            ``return_sequences``.

    Raises:
        TypeError: if one is no such layer.
        ValueError: if they do not agree.

    Example:
        >>> import torch
        >>> from fastltc import Bidirectional, LTC
        >>> from fastltc.wirings import AutoNCP
        >>> layer = Bidirectional(LTC(16, AutoNCP(19, 2)), LTC(16, AutoNCP(19, 2)))
        >>> output, (forward_hn, backward_hn) = layer(torch.randn(4, 32, 16))
        >>> output.shape, backward_hn.shape
        (torch.Size([4, 32, 4]), torch.Size([4, 19]))

    Source: Schuster and Paliwal, Bidirectional recurrent neural networks, 1997.
    """

    def __init__(self, forward_layer: SequenceLayer, backward_layer: SequenceLayer) -> None:
        super().__init__()
        for name, layer in (("forward_layer", forward_layer), ("backward_layer", backward_layer)):
            if not isinstance(layer, SequenceLayer):
                raise TypeError(f"{name}: expected an LTC or CfC layer, got {type(layer).__name__}")
        for what in ("batch_first", "return_sequences"):
            ours, theirs = getattr(backward_layer, what), getattr(forward_layer, what)
            if ours != theirs:
                raise ValueError(
                    f"backward_layer: expected {what}={theirs}, as forward_layer has, got {ours}"
                )
        inputs = [layer._inputs_and_neurons()[0] for layer in (forward_layer, backward_layer)]
        if inputs[0] != inputs[1]:
            raise ValueError(
                f"backward_layer: expected {inputs[0]} inputs, as forward_layer has, got "
                f"{inputs[1]}"
            )
        self.forward_layer = forward_layer
        self.backward_layer = backward_layer

    @property
    def batch_first(self) -> bool:
        """The order of the axes of the input."""
        return self.forward_layer.batch_first

    @property
    def return_sequences(self) -> bool:
        """Whether the outputs of all steps are returned."""
        return self.forward_layer.return_sequences

    @overload
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Any, Any] | None = None,
        timespans: Tensor | PackedSequence | float | None = None,
        lengths: Tensor | list[int] | int | None = None,
        resets: Tensor | PackedSequence | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: Literal[False] = False,
    ) -> tuple[Any, tuple[Any, Any]]: ...

    @overload
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Any, Any] | None = None,
        timespans: Tensor | PackedSequence | float | None = None,
        lengths: Tensor | list[int] | int | None = None,
        resets: Tensor | PackedSequence | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: bool,
    ) -> tuple[Any, ...]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Any, Any] | None = None,
        timespans: Tensor | PackedSequence | float | None = None,
        lengths: Tensor | list[int] | int | None = None,
        resets: Tensor | PackedSequence | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: bool = False,
    ) -> tuple[Any, ...]:
        """Run both directions.

        Args:
            input: as for :meth:`LTC.forward`.
            hx: initial states of both layers, each as for that layer, or None.
            timespans: as for :meth:`LTC.forward`.
            lengths: the same.
            resets: the same.
            reset_to_zero: the same.
            return_states: the same.

        Returns:
            ``(output, (forward_hn, backward_hn))``. Without ``return_sequences`` the output is
            that after the last step of each direction. With ``return_states`` there are, third,
            the states of all neurons of each layer, ``(forward_states, backward_states)``, both in
            the order of the input: backwards those that a step of the input led to.

        Raises:
            ValueError: as the layers do.
            TypeError: as the layers do.
        """
        states = (None, None) if hx is None else hx
        if len(states) != 2:
            raise ValueError(f"hx: expected a state for each direction, got {len(states)} of them")
        if isinstance(input, PackedSequence):
            return self._forward_packed(
                *(input, states, timespans, lengths, resets, reset_to_zero, return_states)
            )
        if isinstance(input, Tensor):
            check_dense("input", input)
        options: dict[str, Any] = {"return_states": True} if return_states else {}
        if reset_to_zero:
            options["reset_to_zero"] = True
        there, forward_hn, *seen = self.forward_layer(
            input, states[0], timespans, lengths, resets, **options
        )
        batched = input.dim() == 3
        turned = batched and not self.batch_first

        def turn(tensor: Tensor) -> Tensor:
            return tensor.transpose(0, 1) if turned else tensor

        def rows(tensor: Tensor) -> Tensor:
            """Return it as ``[B, T, ...]``."""
            return turn(tensor) if batched else tensor.unsqueeze(0)

        def given(tensor: Tensor) -> Tensor:
            return turn(tensor) if batched else tensor.squeeze(0)

        x = rows(input)
        batch, time, _ = x.shape
        if lengths is not None:
            lengths = layer_lengths(lengths, batch, batched, input.device)
        order, shifted = _backwards(time, lengths, input.device)
        spans = timespans
        if isinstance(spans, Tensor) and spans.dim() > 0:
            spans = given(_select(rows(spans), shifted))
        back_resets = resets
        if isinstance(resets, Tensor):
            # One before the first step is none before the first step backwards.
            later = torch.arange(time, device=input.device) > 0
            back_resets = given(_select(rows(resets), shifted) & later)
        back, backward_hn, *seen_back = self.backward_layer(
            given(_select(x, order)),
            states[1],
            spans,
            lengths if lengths is None or batched else lengths[0],
            back_resets,
            **options,
        )
        if self.return_sequences:
            back = given(_select(rows(back), order))
        results = torch.cat([there, back], -1), (forward_hn, backward_hn)
        if not return_states:
            return results
        return *results, (seen[0], given(_select(rows(seen_back[0]), order)))

    def _forward_packed(
        self,
        packed: PackedSequence,
        states: tuple[Any, Any],
        timespans: Any,
        lengths: Any,
        resets: Any,
        reset_to_zero: bool,
        return_states: bool,
    ) -> tuple[Any, ...]:
        if lengths is not None:
            raise ValueError("lengths: expected None with a PackedSequence, which has its own")
        x, steps = pad_packed_sequence(packed, batch_first=self.batch_first)
        if isinstance(timespans, PackedSequence):
            check_packed("timespans", timespans, packed)
            # In the order of the input, as the layers take them; so are the resets.
            timespans, _ = pad_packed_sequence(
                packed._replace(data=timespans.data), batch_first=self.batch_first
            )
        if isinstance(resets, PackedSequence):
            check_packed_resets(resets, packed)
            resets, _ = pad_packed_sequence(
                packed._replace(data=resets.data), batch_first=self.batch_first
            )
        output, hn, *seen = self.forward(
            *(x, states, timespans, steps, resets),
            reset_to_zero=reset_to_zero,
            return_states=return_states,
        )
        # In the order of the packed sequence that was given.
        order, back = packed.sorted_indices, packed.unsorted_indices
        if order is not None:
            steps = steps.index_select(0, order.to(steps.device))

        def pack(tensor: Tensor) -> PackedSequence:
            if order is not None:
                tensor = tensor.index_select(0 if self.batch_first else 1, order)
            data = pack_padded_sequence(tensor, steps, batch_first=self.batch_first).data
            return PackedSequence(data, packed.batch_sizes, order, back)

        results = pack(output) if self.return_sequences else output, hn
        return (*results, tuple(map(pack, seen[0]))) if seen else results


def _backwards(time: int, lengths: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where each step backwards finds its input and its time step: ``[T]`` or ``[B, T]``."""
    step = torch.arange(time, device=device)
    if lengths is None:
        return step.flip(0), torch.cat([step[:1], step[1:].flip(0)])
    length = lengths.unsqueeze(1)
    order = torch.where(step < length, length - 1 - step, step)
    # Behind the first step, which keeps its time step, they are one further.
    return order, torch.where((step > 0) & (step < length), length - step, step)


def _select(rows: Tensor, order: Tensor) -> Tensor:
    """Return the steps of ``[B, T, ...]``, where B may be 1 for all samples, in another order."""
    if order.dim() == 1:
        return rows.index_select(1, order)
    index = order.reshape(*order.shape, *(1,) * (rows.dim() - 2))
    rest = rows.shape[2:]
    return rows.expand(order.shape[0], -1, *rest).gather(1, index.expand(-1, -1, *rest))
