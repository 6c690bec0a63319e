"""A closed-form continuous-time layer over a sequence, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fastltc.reference.sequence import run_sequence

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "lecun_tanh": lambda x: 1.7159 * torch.tanh(0.666 * x),
    "silu": F.silu,
    "relu": F.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
}


def cfc(
    x: Tensor,
    h0: Tensor | None = None,
    timespans: Tensor | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    *,
    reset_to_zero: bool = False,
    parameters: Sequence[Tensor],
    masks: Sequence[Tensor] = (),
    layer_sizes: Sequence[int],
    backbone_layers: int = 0,
    mode: str = "default",
    activation: str = "lecun_tanh",
    dropout: Tensor | None = None,
    memory: Sequence[Tensor] | None = None,
    output_size: int | None = None,
    return_sequences: bool = True,
) -> tuple[Tensor, Tensor]:
    r"""Run a closed-form continuous-time (CfC) layer over a batch of sequences.

    A plain layer is one cell, whose input may pass a backbone of dense layers. A wired one is a
    chain of cells without backbone, one per layer of the wiring: the new state of each is the
    input of the next. A cell with input ``x`` and state ``h`` does, per time step ``dt``::

        z  = [x, h]                    or  z = act(... act([x, h] V1^T + c1) ...)
        F1 = tanh(z (W1 mask)^T + b1)      F2 = tanh(z (W2 mask)^T + b2)
        r  = sigmoid((z Wa^T + ba) dt + (z Wb^T + bb))
        default:  h' = F1 (1 - r) + r F2
        no_gate:  h' = F1 + r F2
        pure:     f = z (W1 mask)^T + b1 ;  h' = A - A exp(-dt (|w_tau| + |f|)) f

    A time step of 0 does not hold the state: the gate is then ``sigmoid`` of its constant part.
    Time steps above the root of the largest number count as that root.

    Args:
        x: inputs, ``[B, T, I]``, floating point.
        h0: initial state, ``[B, N]`` with N neurons in all, in the order of the layers; zeros by
            default.
        timespans: time since the last step, ``[B, T]`` or, one per neuron, ``[B, T, N]``, in
            seconds, not negative; 1 by default.
        lengths: valid steps of each sample, ``[B]``, integer, 0 to T; T by default. From
            ``t = lengths[b]`` on the state is held and the output is 0; what stands there in
            ``x`` and ``timespans`` does not matter.
        resets: steps before which a sample's state is set to ``h0``, ``[B, T]``, bool; none by
            default. What comes before such a step has no part in what follows.
        reset_to_zero: set it to zeros instead.
        parameters: first, for each backbone layer, weight ``[units, in]`` and bias ``[units]``;
            then, for each cell of n neurons, weight ``[n, K]`` and bias ``[n]`` of ``ff1``,
            ``ff2``, ``time_a`` and ``time_b``; with mode ``"pure"`` instead weight and bias of
            ``ff1``, then ``w_tau`` and ``A``, each ``[1, n]``. K is the number of inputs of the
            cell plus n, or the units of the backbone.
        masks: none, or for each cell which weights of ``ff1`` and ``ff2`` exist, ``[n, K]``, 0 or
            1. The others are not used and their gradient is exactly 0.
        layer_sizes: neurons of each cell.
        backbone_layers: number of backbone layers; only with one cell.
        mode: ``"default"``, ``"no_gate"`` or ``"pure"``.
        activation: of the backbone: ``"lecun_tanh"`` (``1.7159 tanh(0.666 x)``), ``"silu"``,
            ``"relu"``, ``"tanh"`` or ``"gelu"``.
        dropout: what the activations of all backbone layers but the first are multiplied with,
            ``[backbone_layers - 1, B, T, units]``: 0 or ``1 / (1 - p)``; nothing by default.
        memory: weight, bias and recurrent weight of the memory cell of mixed memory, see
            :func:`fastltc.reference.memory_cell`; none by default. The state is then ``[B, 2 N]``:
            that of the liquid cell and behind it the memory. The same holds for ``hn``.
        output_size: M, the number of neurons, the last ones, whose state is the output; by default
            those of the last cell, ``layer_sizes[-1]``.
        return_sequences: return the output of every step, or only that of the last valid one.

    Returns:
        ``(output, hn)``: ``[B, T, M]`` (or ``[B, M]``), and the state after the last valid step,
        ``[B, N]``. Both are differentiable any number of times.

    Example:
        >>> import torch
        >>> from fastltc.reference import cfc
        >>> weights = [torch.randn(3, 2 + 3) if i % 2 == 0 else torch.zeros(3) for i in range(8)]
        >>> output, hn = cfc(torch.randn(4, 5, 2), parameters=weights, layer_sizes=[3])
        >>> output.shape, hn.shape
        (torch.Size([4, 5, 3]), torch.Size([4, 3]))

    Source: Hasani et al., Closed-form continuous-time neural networks, Nature Machine
    Intelligence 2022 (arXiv:2106.13898).
    """
    neurons = sum(layer_sizes)
    motors = layer_sizes[-1] if output_size is None else output_size
    act = _ACTIVATIONS[activation]
    backbone = parameters[: 2 * backbone_layers]
    per_cell = 4 if mode == "pure" else 8
    cells = [
        list(parameters[start : start + per_cell])
        for start in range(len(backbone), len(parameters), per_cell)
    ]
    # Selecting before use, not multiplying, keeps whatever stands in the weights of missing
    # synapses out of the results and out of the gradients.
    for cell, mask in zip(cells, masks, strict=False):
        for weight in (0,) if mode == "pure" else (0, 2):
            cell[weight] = cell[weight].masked_fill(mask == 0, 0)

    def run_cell(cell: list[Tensor], z: Tensor, dt: Tensor) -> Tensor:
        if mode == "pure":
            weight, bias, w_tau, a = cell
            f = F.linear(z, weight, bias)
            return a - a * torch.exp(-dt * (w_tau.abs() + f.abs())) * f
        f1, f2 = (torch.tanh(F.linear(z, *cell[i : i + 2])) for i in (0, 2))
        rate, offset = (F.linear(z, *cell[i : i + 2]) for i in (4, 6))
        r = torch.sigmoid(rate * dt + offset)
        return f1 + r * f2 if mode == "no_gate" else f1 * (1 - r) + r * f2

    def step(t: int, signal: Tensor, v: Tensor, dt: Tensor) -> Tensor:
        after = []
        sizes = list(layer_sizes)
        spans = dt.expand(-1, neurons).split(sizes, 1)
        for cell, own, span in zip(cells, v.split(sizes, 1), spans, strict=True):
            z = torch.cat([signal, own], 1)
            for layer in range(backbone_layers):
                z = act(F.linear(z, *backbone[2 * layer : 2 * layer + 2]))
                if dropout is not None and layer > 0:
                    z = z * dropout[layer - 1, :, t]
            signal = run_cell(cell, z, span)
            after.append(signal)
        return torch.cat(after, 1)

    return run_sequence(
        *(step, lambda h: h[:, neurons - motors :], x, h0, timespans, lengths, resets),
        *(reset_to_zero, memory, return_sequences, neurons),
    )
