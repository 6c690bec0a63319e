"""What the layers share: arguments of a call, packed sequences, mixed memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn, strided
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from fastltc.nn.changes import compute_parameters, has_own_forward, warn_of_steps
from fastltc.nn.checks import check_dense, check_state
from fastltc.nn.lstm_cell import memory_parameters
from fastltc.nn.resets import check_packed_resets, layer_resets
from fastltc.nn.steps import run_steps, some_weight
from fastltc.nn.timespans import check_packed, layer_lengths, layer_timespans
from fastltc.ops.sequence import HALF_DTYPES, Sequences


class SequenceLayer(nn.Module):
    """Base of the layers that run whole sequences; not for users.

    A layer sets ``batch_first``, ``return_sequences`` and ``use_mixed``, has its cell in
    ``rnn_cell`` (whose ``_run`` takes a sequence) and, with mixed memory, an ``LSTMCell`` in
    ``lstm``.
    """

    batch_first: bool
    return_sequences: bool
    use_mixed: bool
    output_size: Any
    rnn_cell: Any
    lstm: Any

    def _inputs_and_neurons(self) -> tuple[int, int]:
        """Return I and N."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the sizes and options."""
        inputs, neurons = self._inputs_and_neurons()
        options = f"{inputs}, {neurons}, output_size={self.output_size}"
        for name, value in (
            ("proj_size", vars(self).get("proj_size")),
            ("mixed_memory", self.use_mixed or None),
            ("return_sequences", None if self.return_sequences else False),
            ("batch_first", None if self.batch_first else False),
        ):
            if value is not None:
                options += f", {name}={value}"
        return options

    @overload
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | tuple[Tensor, Tensor] | None = None,
        timespans: Tensor | PackedSequence | float | None = None,
        lengths: Tensor | list[int] | int | None = None,
        resets: Tensor | PackedSequence | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: Literal[False] = False,
    ) -> tuple[Any, Any]: ...

    @overload
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | tuple[Tensor, Tensor] | None = None,
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
        hx: Tensor | tuple[Tensor, Tensor] | None = None,
        timespans: Tensor | PackedSequence | float | None = None,
        lengths: Tensor | list[int] | int | None = None,
        resets: Tensor | PackedSequence | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: bool = False,
    ) -> tuple[Any, ...]:
        """Run a batch of sequences, or one sequence.

        Args:
            input: ``[B, T, I]`` (``[T, B, I]`` with ``batch_first=False``), ``[T, I]`` for one
                sequence without a batch axis, a ``PackedSequence``, or, with ``batch_first``, a
                nested tensor of the layout ``torch.jagged``; dtype and device of the parameters
                (half types: see :func:`fastltc.ops.ltc`). B and T may be 0.
            hx: initial state, ``[B, N]`` (``[N]`` for one sequence), zeros by default; a pair of
                them, state and memory, with ``mixed_memory``. For a ``PackedSequence``, in the
                original order of the samples.
            timespans: time since the last step, any unit, not negative, 1 by default: a number,
                a tensor of no dimension, or ``(B, T)``, ``(B, T, 1)`` or, one per neuron,
                ``(B, T, N)``, where B may be 1 for all samples. The axes of batch and time stand
                as in the input: ``(T, B)`` with ``batch_first=False``. For one sequence ``(T,)``,
                ``(T, 1)`` or ``(T, N)``. For a ``PackedSequence`` either of these in the original
                order of the samples, or another packed in the same way; for a nested tensor ``(B,
                T)`` or ``(B, T, N)`` padded to its longest sample, or nested as it is. 0 holds the
                state of an LTC without mixed memory.
            lengths: valid steps of each sample, B integers from 0 to T (one for one sequence), T
                by default. From ``t = lengths[b]`` on the state is held and the output is 0.
            resets: steps before which the state of a sample, with ``mixed_memory`` both of the
                pair, is set to ``hx`` again, bool, none by default: ``[B, T]``, as in the input
                ``[T, B]`` with ``batch_first=False`` and ``[T]`` for one sequence. For a
                ``PackedSequence`` this in the original order of the samples, or packed in the
                same way; for a nested tensor padded, or nested as it is. A rollout of many
                episodes is so one call; the gradient of ``hx`` is the sum over all its episodes.
            reset_to_zero: have resets set states to zeros, and leave ``hx`` to the beginning alone,
                as where it was carried over from the call before.
            return_states: return the states of all neurons in every step, too.

        Returns:
            ``(output, hn)``: ``[B, T, M]`` in the layout of the input, or ``[B, M]`` without
            ``return_sequences``; and the state after the last valid step, ``[B, N]``, or a pair
            with ``mixed_memory``. For one sequence without the batch axis. For a
            ``PackedSequence`` the output is packed in the same way, and the rest stands in the
            original order of the samples. For a nested tensor the output is nested.

            With ``return_states`` ``(output, hn, states)``: the states after each step,
            ``[B, T, N]`` in the layout of the input, or packed or nested as it is, also without
            ``return_sequences``. Like the output they are 0 behind the lengths. With
            ``mixed_memory`` they are those of the liquid cell, without the memory. All three are
            differentiable.

        Raises:
            ValueError: if a shape or a length is wrong, or a time step is negative or not finite
                (``RuntimeError`` in compiled code).
            TypeError: if a dtype, a device or the kind of an object is wrong.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(
                *(input, hx, timespans, lengths, resets, reset_to_zero, return_states)
            )
        if not isinstance(input, Tensor):
            raise TypeError(
                f"input: expected a tensor or PackedSequence, got {type(input).__name__}"
            )
        if input.layout is not strided or input.is_nested:
            return self._forward_nested(
                *(input, hx, timespans, lengths, resets, reset_to_zero, return_states)
            )
        shape, batch_first = input.shape, self.batch_first
        inputs, neurons = self._inputs_and_neurons()
        dim = len(shape)
        if (dim != 3 and dim != 2) or shape[-1] != inputs:
            axes = "[B, T, I]" if batch_first else "[T, B, I]"
            raise ValueError(
                f"input: expected shape {axes} or [T, I] with I = {inputs} features, "
                f"got {list(shape)}"
            )
        batched = dim == 3
        if not batched:
            x, batch, time = input.unsqueeze(0), 1, shape[0]
        elif batch_first:
            x, batch, time = input, shape[0], shape[1]
        else:
            x, batch, time = input.transpose(0, 1), shape[1], shape[0]
        state = self._initial_state(hx, batch, batched, input)
        if timespans is not None:
            if isinstance(timespans, PackedSequence):
                raise TypeError("timespans: expected a tensor with a tensor as input, got packed")
            timespans = layer_timespans(timespans, batch, time, neurons, batch_first, batched, x)
        if lengths is not None:
            lengths = layer_lengths(lengths, batch, batched, x.device)
        if resets is not None:
            if isinstance(resets, PackedSequence):
                raise TypeError("resets: expected a tensor with a tensor as input, got packed")
            resets = layer_resets(resets, batch, time, batch_first, batched, x.device)
        time_major = batched and not batch_first
        sequences = Sequences(
            *(x, state, timespans, lengths, (), self.return_sequences, time_major, resets),
            reset_to_zero,
        )
        output, hn, states = self._run(sequences, return_states)
        if not batched:
            output, hn = output.squeeze(0), _each(hn, lambda h: h.squeeze(0))
            states = _each(states, lambda h: h.squeeze(0))
        elif not batch_first:
            states = _each(states, lambda h: h.transpose(0, 1))
            if self.return_sequences:
                output = output.transpose(0, 1)
        return (output, hn, states) if return_states else (output, hn)

    def _initial_state(self, hx: Any, batch: int, batched: bool, like: Tensor) -> Any:
        if hx is None:
            return None
        _, neurons = self._inputs_and_neurons()
        shape = (batch, neurons) if batched else (neurons,)
        if self.use_mixed:
            if isinstance(hx, Tensor) or len(hx) != 2:
                raise TypeError(
                    "hx: expected a pair of tensors (h0, c0) with mixed_memory=True, got "
                    + ("one tensor" if isinstance(hx, Tensor) else f"{len(hx)} of them")
                )
            pair = tuple(
                check_state(name, h, shape, like)
                for name, h in zip(("hx[0]", "hx[1]"), hx, strict=True)
            )
            return pair if batched else _each(pair, lambda h: h.unsqueeze(0))
        state = check_state("hx", hx, shape, like)
        return state if batched else state.unsqueeze(0)

    def _run(self, sequences: Sequences, return_states: bool) -> tuple[Tensor, Any, Tensor | None]:
        """Run the layer; with mixed memory ``h0`` is a pair.

        Returns outputs, last state and, if they are asked for, the states of all neurons.
        """
        cell: Any = self._modules["rnn_cell"]
        if cell._forward_pre_hooks:
            # The cell is not called, in ncps neither.
            compute_parameters(cell)
        own = has_own_forward(cell)
        if not self.use_mixed and own:
            if return_states:
                return _run_for_states(cell, sequences)
            return *cell._run(sequences), None
        memory = memory_parameters(self._modules["lstm"]) if self.use_mixed and own else None
        result = None
        if memory is not None:
            h0 = None if sequences.h0 is None else torch.cat(sequences.h0, 1)
            given = sequences._replace(h0=h0, memory=memory)
            result = _run_for_states(cell, given) if return_states else cell._run(given)
        if result is None:
            return self._run_steps(sequences, return_states)
        output, hn, *states = result
        neurons = hn.shape[1] // 2
        # Copies: views could not be changed in place, as states are where sequences are cut.
        hn = hn[:, :neurons].clone(), hn[:, neurons:].clone()
        return output, hn, states[0] if states else None

    def _run_steps(
        self, sequences: Sequences, return_states: bool
    ) -> tuple[Tensor, Any, Tensor | None]:
        """Run step by step what the operators do not know: a memory cell or cell of one's own."""
        cell, own = self.rnn_cell, has_own_forward(self.rnn_cell)
        if not torch.compiler.is_compiling():
            kind = type(cell).__name__
            what = "its memory cell or what is in it" if own else f"the forward of its {kind}"
            warn_of_steps(self, f"{what} is another one or has a hook")

        after: list[Tensor] = []

        def step(x: Tensor, state: Any, dt: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
            h, *rest = state
            if self.use_mixed:
                h, *rest = self.lstm(x, state)
            if own:
                # Of one step: [B, T] where it is that of a sample, else [B, T, N].
                spans = dt if dt is None or dt.shape[1] == 1 else dt.unsqueeze(1)
                y, h = cell._run(Sequences(x.unsqueeze(1), h, spans, return_sequences=False))
            else:
                y, h = cell.forward(x, h, 1.0 if dt is None else dt)
            if return_states:
                after.append(h)
            return y, (h, *rest)

        x, state = sequences.x, sequences.h0
        if state is None:
            _, neurons = self._inputs_and_neurons()
            state = (x.new_zeros(x.shape[0], neurons),) * (2 if self.use_mixed else 1)
        elif not self.use_mixed:
            state = (state,)
        part = self.lstm if self.use_mixed else cell
        readout = cell._outputs if own else None
        output, hn = run_steps(step, sequences, state, readout, some_weight(part))
        states = None
        if return_states:
            states = torch.stack(after, 1) if after else state[0].unsqueeze(1)[:, :0]
            states = zero_behind(states.to(output.dtype), sequences.lengths)
        return output, hn if self.use_mixed else hn[0], states

    def _forward_packed(
        self,
        packed: PackedSequence,
        hx: Any,
        timespans: Any,
        lengths: Any,
        resets: Any,
        reset_to_zero: bool,
        return_states: bool,
    ) -> tuple[Any, ...]:
        if lengths is not None:
            raise ValueError("lengths: expected None with a PackedSequence, which has its own")
        data, batch_sizes, sorted_indices, unsorted_indices = packed
        inputs, neurons = self._inputs_and_neurons()
        if data.dim() != 2 or data.shape[1] != inputs:
            raise ValueError(
                f"input: expected a PackedSequence of I = {inputs} features, got data "
                f"of shape {list(data.shape)}"
            )
        # Without its indices a packed sequence unpacks in its own order, longest sample first.
        x, lengths = pad_packed_sequence(PackedSequence(data, batch_sizes))
        time, batch, _ = x.shape

        def sort(tensor: Tensor) -> Tensor:
            return tensor if sorted_indices is None else tensor.index_select(0, sorted_indices)

        def unsort(tensor: Tensor) -> Tensor:
            return tensor if unsorted_indices is None else tensor.index_select(0, unsorted_indices)

        state = _each(self._initial_state(hx, batch, True, data), sort)
        if isinstance(timespans, PackedSequence):
            check_packed("timespans", timespans, packed)
            timespans, _ = pad_packed_sequence(PackedSequence(timespans.data, batch_sizes))
            timespans = layer_timespans(timespans, batch, time, neurons, False, True, data)
        elif timespans is not None:
            timespans = layer_timespans(
                timespans, batch, time, neurons, self.batch_first, True, data
            )
            timespans = None if timespans is None else sort(timespans)
        if isinstance(resets, PackedSequence):
            check_packed_resets(resets, packed)
            resets, _ = pad_packed_sequence(PackedSequence(resets.data, batch_sizes))
            resets = layer_resets(resets, batch, time, False, True, data.device)
        elif resets is not None:
            resets = layer_resets(resets, batch, time, self.batch_first, True, data.device)
            resets = sort(resets)
        valid = lengths.to(data.device)
        sequences = Sequences(
            *(x.transpose(0, 1), state, timespans, valid, (), self.return_sequences, True, resets),
            reset_to_zero,
        )
        output, hn, states = self._run(sequences, return_states)

        def pack(tensor: Tensor) -> PackedSequence:
            data = pack_padded_sequence(tensor.transpose(0, 1), lengths).data
            return PackedSequence(data, batch_sizes, sorted_indices, unsorted_indices)

        results = pack(output) if self.return_sequences else unsort(output), _each(hn, unsort)
        return results if states is None else (*results, pack(states))

    def _forward_nested(
        self,
        nested: Tensor,
        hx: Any,
        timespans: Any,
        lengths: Any,
        resets: Any,
        reset_to_zero: bool,
        return_states: bool,
    ) -> tuple[Any, ...]:
        if nested.layout is not torch.jagged:
            check_dense("input", nested)
        inputs, _ = self._inputs_and_neurons()
        if not self.batch_first:
            raise ValueError("input: expected batch_first=True with a nested tensor, got False")
        if lengths is not None:
            raise ValueError("lengths: expected None with a nested tensor, which has its own")
        valid = _jagged_lengths("input", nested)
        if nested.dim() != 3 or nested.shape[2] != inputs:
            raise ValueError(
                f"input: expected a nested tensor of shape [B, T, I] with I = {inputs} features, "
                f"got {list(nested.shape)}"
            )

        def padded(name: str, given: Any) -> Any:
            if not isinstance(given, Tensor) or given.layout is not torch.jagged:
                return given
            if not torch.equal(_jagged_lengths(name, given), valid):
                raise ValueError(f"{name}: expected as many steps as the input, got others")
            return torch.nested.to_padded_tensor(given, 0.0)

        x = torch.nested.to_padded_tensor(nested, 0.0)
        timespans, resets = padded("timespans", timespans), padded("resets", resets)
        output, hn, *states = self.forward(
            *(x, hx, timespans, valid, resets),
            reset_to_zero=reset_to_zero,
            return_states=return_states,
        )
        steps = torch.arange(x.shape[1], device=x.device) < valid.unsqueeze(1)
        offsets = nested.offsets()  # type: ignore[attr-defined]

        def nest(tensor: Tensor) -> Tensor:
            return torch.nested.nested_tensor_from_jagged(tensor[steps], offsets)

        return nest(output) if self.return_sequences else output, hn, *map(nest, states)


def _run_for_states(cell: Any, sequences: Sequences) -> Any:
    """Run a cell through the operator for the states of all neurons; None as its ``_run``.

    Returns outputs, last state (with that of the memory) and states.
    """
    x, h0, lengths = sequences.x, sequences.h0, sequences.lengths
    half = x.dtype in HALF_DTYPES
    if half:  # so that what is computed of the states is rounded once
        sequences = sequences._replace(x=x.float(), h0=None if h0 is None else h0.float())
    result = cell._run(sequences._replace(return_sequences=True), all_neurons=True)
    if result is None:
        return None
    states, hn = result
    if sequences.return_sequences:
        output = zero_behind(cell._outputs(states), lengths)
    else:
        output = cell._outputs(hn[:, : states.shape[2]])
    if half and not torch.is_autocast_enabled(x.device.type):
        output, hn, states = output.to(x.dtype), hn.to(x.dtype), states.to(x.dtype)
    return output, hn, states


def zero_behind(outputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Return ``[B, T, .]`` with 0 behind the last valid step of each sample."""
    if lengths is None:
        return outputs
    steps = torch.arange(outputs.shape[1], device=outputs.device)
    return torch.where((steps < lengths.unsqueeze(1)).unsqueeze(2), outputs, 0)


def _jagged_lengths(name: str, nested: Tensor) -> Tensor:
    """Return the steps of each sample of a nested tensor whose axis 1 is that of time."""
    values: Any = nested
    if values._ragged_idx != 1 or values.lengths() is not None:
        raise ValueError(
            f"{name}: expected a contiguous nested tensor whose axis 1 is that of time, got shape "
            f"{list(nested.shape)}; call contiguous()"
        )
    return values.offsets().diff()


def _each(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a change to a state, if there is one, or to each of a pair."""
    if state is None:
        return None
    return tuple(change(h) for h in state) if isinstance(state, tuple) else change(state)
