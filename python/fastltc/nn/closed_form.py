"""What both cells of CfC share: how their modules are read and run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastltc.nn.changes import Watch, watched
from fastltc.nn.checks import check_input_kind
from fastltc.nn.steps import run_steps, some_weight
from fastltc.ops.sequence import Sequences


@dataclass(frozen=True)
class CellParts:
    """The modules of a :class:`CfCCell`, as the operator reads them."""

    linears: tuple[Any, ...]
    """The dense layers of the backbone, then the heads."""
    dropouts: tuple[Any, ...]
    """Those of the backbone layers after the first: one each, or none."""
    activation: str


class ClosedForm(nn.Module):
    """Base of the cells of CfC; not for users.

    The operator reads the parameters of the modules inside, as long as they are those that the
    cell is made with; else they are called step by step.
    """

    _inputs_and_neurons: Callable[[], tuple[int, int]]
    """I and N."""
    _find_parts: Callable[..., CellParts | str]
    """The modules inside, or why they have to be called; ``computed`` is that of `change`."""
    _operator_parameters: Callable[[CellParts], list[Tensor] | None]
    """The parameters; None if one is not there any more."""
    _run_operator: Callable[..., tuple[Tensor, Tensor] | None]
    """Runs the operator; None if the modules have to be called after all."""
    _step: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
    """Runs a step through the modules, as ncps does; its time step is ``[B, 1]`` or ``[B, N]``."""

    def __init__(self) -> None:
        super().__init__()
        self._watch: Watch[CellParts] | None = None

    def _outputs(self, states: Tensor) -> Tensor:
        """Return the outputs that go with states, ``[..., N]``."""
        return states

    def _run(self, sequences: Sequences, all_neurons: bool = False) -> Any:
        """Run inputs of the right shape through the operator.

        With ``all_neurons`` the outputs are the states of all neurons, see :meth:`_outputs`.
        Returns None where a memory cell would have to be run with the modules step by step.
        """
        made = self._as_made()
        if made is not None:
            x, weight = sequences.x, made[1][0]
            if x.dtype != weight.dtype or x.device != weight.device:
                check_input_kind(x, weight)
            result = self._run_operator(sequences, *made, all_neurons)
            if result is not None:
                return result
        return None if sequences.memory else self._run_modules(sequences, all_neurons)

    def _as_made(self) -> tuple[CellParts, list[Tensor]] | None:
        """Return what the operator reads of the modules; None if they have to be called."""
        if not torch.compiler.is_compiling():
            watch = self._watch
            if watch is not None and watch.holds(self):
                parameters = self._operator_parameters(watch.value)
                if parameters is not None:
                    return watch.value, parameters
        parts = watched(self, self._find_parts())
        parameters = None if parts is None else self._operator_parameters(parts)
        return None if parts is None or parameters is None else (parts, parameters)

    def _run_modules(self, sequences: Sequences, all_neurons: bool) -> tuple[Tensor, Tensor]:
        def step(x: Tensor, state: Any, dt: Tensor | None) -> tuple[Tensor, tuple[Tensor]]:
            output, h = self._step(x, state[0], dt)
            return h if all_neurons else output, (h,)

        x, h0 = sequences.x, sequences.h0
        if h0 is None:
            h0 = x.new_zeros(x.shape[0], self._inputs_and_neurons()[1])
        readout = _itself if all_neurons else self._outputs
        output, (h,) = run_steps(step, sequences, (h0,), readout, some_weight(self))
        return output, h


def _itself(states: Tensor) -> Tensor:
    return states


def read_linears(linears: Sequence[Any]) -> list[Any] | None:
    """Return the weight and bias of each linear layer; None if one is not there any more."""
    # nn.Module looks attributes up in three dictionaries, which for all parameters together takes
    # as long as the operator takes for one step.
    found: list[Any] = []
    for linear in linears:
        p = linear._parameters
        weight, bias = p.get("weight"), p.get("bias")
        if weight is None or bias is None:
            # Replicas of DataParallel, and some that compute weights, have them as attributes.
            own = vars(linear)
            weight, bias = own.get("weight", weight), own.get("bias", bias)
            if weight is None or bias is None:
                return None
        found += weight, bias
    return found
