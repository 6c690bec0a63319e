"""The memory cell that mixed memory puts before a liquid cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastltc.nn.changes import Watch, change, has_hooks, has_own_forward, own_forward


@own_forward
class LSTMCell(nn.Module):
    r"""One step of an LSTM whose forget gate has a constant offset of one.

    ::

        a, i, f, o = chunk(x W^T + b + h R^T)
        c' = c sigmoid(f + 1) + tanh(a) sigmoid(i)
        h' = tanh(c') sigmoid(o)

    Parameters, their initial values and the draws they take from the random generator are those
    of ``ncps.torch.lstm.LSTMCell``.

    Args:
        input_size: number of inputs, I.
        hidden_size: number of units, N.

    Example:
        >>> import torch
        >>> from fastltc.nn import LSTMCell
        >>> cell = LSTMCell(3, 4)
        >>> h, c = cell(torch.randn(2, 3), (torch.zeros(2, 4), torch.zeros(2, 4)))
        >>> h.shape, c.shape
        (torch.Size([2, 4]), torch.Size([2, 4]))

    Source: Lechner and Hasani, Learning Long-Term Dependencies in Irregularly-Sampled Time Series,
    2020 (arXiv:2006.04418).
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.input_map = nn.Linear(input_size, 4 * hidden_size, bias=True)
        self.recurrent_map = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.tanh = nn.Tanh()
        self.sigmoid = nn.Sigmoid()
        self._watch: Watch[bool] | None = None
        self.init_weights()

    def init_weights(self) -> None:
        """Draw initial values: Xavier and U(-0.1, 0.1) for the inputs, orthogonal for the state."""
        nn.init.xavier_uniform_(self.input_map.weight)
        nn.init.uniform_(self.input_map.bias, -0.1, 0.1)
        nn.init.orthogonal_(self.recurrent_map.weight)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.input_size}, {self.hidden_size}"

    def forward(self, inputs: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            inputs: ``[B, I]``.
            states: ``(h, c)``, each ``[B, N]``.

        Returns:
            The next ``(h, c)``.
        """
        h, c = states
        z = self.input_map(inputs) + self.recurrent_map(h)
        activation, input_gate, forget_gate, output_gate = z.chunk(4, 1)
        kept, added = self.sigmoid(forget_gate + 1.0), self.sigmoid(input_gate)
        c = c * kept + self.tanh(activation) * added
        return self.tanh(c) * self.sigmoid(output_gate), c


def memory_parameters(cell: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return what the operators take of a memory cell: weight, bias and recurrent weight.

    None if it does something else than :class:`LSTMCell`: it or one of its linear layers was
    replaced, wrapped or hooked, and has to be called.
    """
    if not isinstance(cell, LSTMCell) or not has_own_forward(cell) or has_hooks(cell):
        return None
    if torch.compiler.is_compiling():
        if memory_change(cell) is not None:
            return None
    elif cell._watch is None or not cell._watch.holds(cell):
        usual = memory_change(cell) is None
        cell._watch = Watch(cell, True) if usual else None
        if not usual:
            return None
    return cell.input_map.weight, cell.input_map.bias, cell.recurrent_map.weight


def memory_change(cell: Any, computed: bool = False) -> str | None:
    """Say why the modules of a memory cell have to be called, if the operators do not do the same.

    ``computed`` is that of :func:`fastltc.nn.changes.change`.
    """
    for name, kind in (
        ("input_map", nn.Linear),
        ("recurrent_map", nn.Linear),
        ("tanh", nn.Tanh),
        ("sigmoid", nn.Sigmoid),
    ):
        reason = change(name, getattr(cell, name), (kind,), computed)
        if reason is not None:
            return reason
    if cell.input_map.bias is None or cell.recurrent_map.bias is not None:
        return "its linear maps have other biases than they are made with"
    return None
