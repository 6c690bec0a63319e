"""One step of a cell, and a sequence step by step where no operator runs all of it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, strided

from fastltc.nn.checks import check_dense, check_input_kind, check_state
from fastltc.nn.timespans import cell_timespans
from fastltc.ops.errors import check_lengths_and_timespans, check_timespan_values
from fastltc.ops.sequence import Sequences


def run_step(
    cell: Any, input: Any, state: Any, elapsed_time: Any, names: tuple[str, str, str]
) -> tuple[Tensor, Tensor]:
    """Check the arguments of a cell and run one time step.

    Args:
        cell: has ``_run`` and ``_inputs_and_neurons``.
        input: ``[B, I]``.
        state: ``[B, N]``.
        elapsed_time: see :func:`cell_timespans`.
        names: what the caller calls these three.

    Returns:
        ``(output, state)``: ``[B, M]`` and the next state, ``[B, N]``.
    """
    input_name, state_name, time_name = names
    if not isinstance(input, Tensor):
        raise TypeError(f"{input_name}: expected a tensor, got {type(input).__name__}")
    if input.layout is not strided:
        check_dense(input_name, input)
    inputs, neurons = cell._inputs_and_neurons()
    if input.dim() != 2 or input.shape[1] != inputs:
        raise ValueError(
            f"{input_name}: expected shape [B, I] with I = {inputs}, got {list(input.shape)}"
        )
    batch = input.shape[0]
    h0 = check_state(state_name, state, (batch, neurons), input)
    timespans = cell_timespans(elapsed_time, batch, neurons, input, time_name)
    try:
        result: tuple[Tensor, Tensor] = cell._run(
            Sequences(input.unsqueeze(1), h0, timespans, return_sequences=False)
        )
    except ValueError:
        if isinstance(elapsed_time, Tensor):
            check_timespan_values(time_name, elapsed_time)
        raise
    return result


def some_weight(module: nn.Module) -> Tensor | None:
    """Return a parameter whose dtype and device the input must have, if there is one.

    None are those that are somewhere else until a hook brings them, or of integers.
    """
    for name, parameter in module.named_parameters():
        usual = parameter.is_floating_point() and not parameter.is_meta
        if usual and not name.endswith("sparsity_mask"):
            return parameter
    return None


def run_steps(
    step: Callable[[Tensor, Any, Tensor | None], tuple[Tensor, Any]],
    sequences: Sequences,
    state: tuple[Tensor, ...],
    readout: Callable[[Tensor], Tensor] | None,
    weight: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run a cell step by step, with lengths, time steps and resets as the operators take them.

    Args:
        step: runs one step: takes ``[B, I]``, the state and the time steps, ``[B, 1]`` or
            ``[B, N]`` or None, and returns the output, ``[B, M]``, and the next state.
        sequences: those that are run; ``h0`` and ``memory`` are left to ``state`` and ``step``.
        state: initial state, one or more tensors with the samples in front, that of the liquid
            cell first.
        readout: the output that goes with a state of the liquid cell; None if it is not known,
            in which case there must be a step, and samples without one have an output of 0.
        weight: one of the parameters of what is run, if it has any: steps are run in its dtype.

    Returns:
        The outputs, ``[B, T, M]`` or ``[B, M]``, and the last state.

    Raises:
        ValueError: if a length or a time step is out of its range, or a step is missing.
        TypeError: if the input does not fit the parameters.
    """
    x, _, timespans, lengths, _, return_sequences, time_major, resets, to_zero = sequences
    if weight is not None and (x.dtype != weight.dtype or x.device != weight.device):
        check_input_kind(x, weight)
        dtype, own = x.dtype, weight.dtype
        state = tuple(h.to(own) for h in state)
        output, state = run_steps(step, sequences._replace(x=x.to(own)), state, readout, None)
        if torch.is_autocast_enabled(x.device.type):
            return output, state
        return output.to(dtype), tuple(h.to(dtype) for h in state)
    _, time, _ = x.shape
    if time == 0 and readout is None:
        raise ValueError("input: expected T of 1 or more with a cell of one's own, got T = 0")
    if not torch.compiler.is_compiling():
        check_lengths_and_timespans(lengths, timespans, time)
    valid, first = None, tuple(map(torch.zeros_like, state)) if to_zero else state
    if lengths is not None:
        valid = (torch.arange(time, device=x.device) < lengths.unsqueeze(1)).unsqueeze(2)
        # Padding may hold anything, and no gradient may meet it.
        x = torch.where(valid, x, 0)
        if timespans is not None:
            shaped = valid if timespans.dim() == 3 else valid.squeeze(2)
            timespans = torch.where(shaped, timespans, 0)
    if timespans is not None and timespans.dim() == 2:
        timespans = timespans.unsqueeze(2)
    outputs: list[Tensor] = []
    last: Any = 0
    for t in range(time):
        if resets is not None:
            anew = resets[:, t : t + 1] if valid is None else resets[:, t : t + 1] & valid[:, t]
            state = tuple(torch.where(anew, h0, h) for h0, h in zip(first, state, strict=True))
        y, new = step(x[:, t], state, None if timespans is None else timespans[:, t])
        if valid is None:
            state, last = new, y
        else:
            now = valid[:, t]
            state = tuple(torch.where(now, n, old) for n, old in zip(new, state, strict=True))
            last = torch.where(now, y, last)
            y = torch.where(now, y, 0)
        outputs.append(y)
    if not return_sequences:
        return last if readout is None else readout(state[0]), state
    if not outputs:
        assert readout is not None
        return readout(state[0]).unsqueeze(1)[:, :0], state
    if time_major:
        return torch.stack(outputs, 0).transpose(0, 1), state
    return torch.stack(outputs, 1), state
