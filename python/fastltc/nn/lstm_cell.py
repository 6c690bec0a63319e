"""The memory cell that mixed memory puts before a liquid cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LSTMCell", "memory_parameters"]


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
        self.init_weights()

    def init_weights(self) -> None:
        """Draw initial values: Xavier and U(-0.1, 0.1) for the inputs, orthogonal for the state."""
        nn.init.xavier_uniform_(self.input_map.weight)
        nn.init.uniform_(self.input_map.bias, -0.1, 0.1)
        nn.init.orthogonal_(self.recurrent_map.weight)

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
        kept, added = torch.sigmoid(forget_gate + 1.0), torch.sigmoid(input_gate)
        c = c * kept + torch.tanh(activation) * added
        return torch.tanh(c) * torch.sigmoid(output_gate), c


def memory_parameters(cell: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return what the operators take of a memory cell: weight, bias and recurrent weight.

    Args:
        cell: the layer's ``lstm``.

    Returns:
        None if it does something else than :class:`LSTMCell`: it or one of its linear layers was
        replaced, wrapped or hooked, and has to be called.
    """
    if not _is_plain(cell, LSTMCell):
        return None
    maps = cell.input_map, cell.recurrent_map
    if not all(_is_plain(linear, nn.Linear) for linear in maps):
        return None
    bias = maps[0].bias
    if bias is None or maps[1].bias is not None:
        return None
    return maps[0].weight, bias, maps[1].weight


def _is_plain(module: Any, kind: type[nn.Module]) -> bool:
    # Subclasses do the same as long as they do it by the same method: that of swapped cells, say.
    if not isinstance(module, kind) or type(module).forward is not kind.forward:
        return False
    hooks = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    return "forward" not in vars(module) and not any(getattr(module, name) for name in hooks)
