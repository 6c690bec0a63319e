"""Many CfC layers of one shape, run side by side in one operator call."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastltc.nn.cfc import CfC
from fastltc.nn.cfc_cell import CfCCell
from fastltc.nn.changes import has_hooks
from fastltc.nn.closed_form import CellParts
from fastltc.nn.parallel_layers import ParallelLayers, check_agree, check_each, zero_behind
from fastltc.ops.sequence import Sequences

_MASK = "sparsity_mask"


class ParallelCfC(ParallelLayers[CfC]):
    r"""K independent CfC layers of one shape, run in one call.

    For ensembles, and for many small networks, as one per device or sensor: an operator call costs
    more than a step of such a network takes, and here they share one. Each layer has its own input,
    state and parameters; there is nothing between them. The results are those of the layers. On the
    CPU.

    The parameters are copies, stacked, with the names of :class:`CfC`: ``rnn_cell.ff1.weight`` is
    ``[K, N, ...]``, and so on. The masks of a wiring are the same for all, and not stacked.
    :meth:`layer` and :meth:`load_layer` take a layer out and put one in.

    Args:
        layers: K layers, at least one, that agree in sizes, wiring, options, dtype and device. None
            has ``mixed_memory``.

    Raises:
        TypeError: if one is no :class:`CfC`.
        ValueError: if there is none, or they do not agree, or one has mixed memory, or is not as it
            was made, as with a hook inside.

    Example:
        >>> import torch
        >>> from fastltc import CfC, ParallelCfC
        >>> nets = ParallelCfC([CfC(16, 32, proj_size=2) for _ in range(10)])
        >>> output, hn = nets(torch.randn(10, 1, 5, 16))
        >>> output.shape, hn.shape
        (torch.Size([10, 1, 5, 2]), torch.Size([10, 1, 32]))
    """

    def __init__(self, layers: Iterable[CfC]) -> None:
        super().__init__()
        nets = list(layers)
        self._check_alike(nets)
        first = nets[0]
        self.count = len(nets)
        self.batch_first = first.batch_first
        self.return_sequences = first.return_sequences
        self.sensory_size, self.state_size = first._inputs_and_neurons()
        proj_size = vars(first)["proj_size"]
        self.output_size = first.output_size if proj_size is None else proj_size
        self._of_operator = first.output_size
        # In a list, which hides it: its parameters are none of this module.
        self._as_layer = [copy.deepcopy(first)]
        self.rnn_cell = copy.deepcopy(first.rnn_cell)
        self.fc: Any = copy.deepcopy(first.fc)
        for owner, name, values in _stacks(self, nets):
            stack = torch.stack([value.detach() for value in values])
            owner._parameters[name] = nn.Parameter(stack, values[0].requires_grad)

    @property
    def _operator_outputs(self) -> int:
        return self._of_operator

    def _operator_parameters(self) -> tuple[Tensor, tuple[CellParts, list[Tensor]]]:
        made = self.rnn_cell._as_made()
        if made is None:
            raise ValueError("rnn_cell: expected it as it was made, got one that was changed since")
        return made[1][0], made

    def _run(
        self,
        sequences: Sequences,
        parameters: tuple[CellParts, list[Tensor]],
        all_neurons: bool,
    ) -> tuple[Tensor, Tensor]:
        return self.rnn_cell._run_operator(sequences, *parameters, all_neurons)

    def _outputs(self, states: Tensor, parameters: Any) -> Tensor:
        return self.rnn_cell._outputs(states)

    def _project(self, output: Tensor, lengths: Tensor | None) -> Tensor:
        if type(self.fc) is nn.Identity:
            return output
        weight, bias, dtype = self.fc.weight, self.fc.bias, output.dtype
        if not torch.is_autocast_enabled(output.device.type):
            output = output.to(weight.dtype)
        output = torch.einsum("k...m,kpm->k...p", output, weight)
        output = output + bias.view(self.count, *(1,) * (output.dim() - 2), -1)
        if not torch.is_autocast_enabled(output.device.type):
            output = output.to(dtype)
        return zero_behind(output, lengths)

    def _taken(self, index: int) -> CfC:
        layer = copy.deepcopy(self._as_layer[0]).train(self.training)
        for owner, name, (value,) in _stacks(self, [layer]):
            own = owner._parameters[name]
            value.data = own.detach()[index].clone()
            value.requires_grad_(own.requires_grad)
        return layer

    def _put(self, index: int, layer: CfC) -> None:
        for owner, name, (value,) in _stacks(self, [layer]):
            owner._parameters[name][index] = value

    @staticmethod
    def _check_alike(layers: Sequence[CfC]) -> None:
        check_each(layers, CfC)
        for k, layer in enumerate(layers):
            parts = layer.rnn_cell._find_parts()
            if isinstance(parts, str):
                raise ValueError(f"layers[{k}].rnn_cell: expected it as it is made, but {parts}")
            kind = type(layer.fc)
            if (kind is not nn.Identity and kind is not nn.Linear) or has_hooks(layer.fc):
                raise ValueError(f"layers[{k}].fc: expected it as it is made, got {layer.fc}")
        check_agree([_description(layer) for layer in layers])
        masks = [[p for n, p in layer.named_parameters() if n.endswith(_MASK)] for layer in layers]
        for k, own in enumerate(masks):
            if not all(map(torch.equal, own, masks[0])):
                raise ValueError(f"layers[{k}]: expected the wiring of layers[0], got another")


def _stacks(nets: nn.Module, layers: list[CfC]) -> Iterator[tuple[Any, str, list[Any]]]:
    """Return each module of ``nets`` that holds a stack, its name there, and those of layers."""
    for path, owner in nets.named_modules():
        for name, value in list(owner._parameters.items()):
            if value is not None and name != _MASK:
                yield (
                    owner,
                    name,
                    [layer.get_submodule(path)._parameters[name] for layer in layers],
                )


def _description(layer: CfC) -> dict[str, Any]:
    parts: Any = layer.rnn_cell._find_parts()
    inputs, neurons = layer._inputs_and_neurons()
    cells = [cell for cell in layer.modules() if isinstance(cell, CfCCell)]
    weights = {n: p for n, p in layer.named_parameters() if not n.endswith(_MASK)}
    return {
        "inputs": inputs,
        "neurons": neurons,
        "outputs": layer.output_size,
        "proj_size": vars(layer)["proj_size"],
        "modes": [cell.mode for cell in cells],
        "activation": parts.activation,
        "dropout": [dropout.p for dropout in parts.dropouts],
        "return_sequences": layer.return_sequences,
        "batch_first": layer.batch_first,
        "dtype": parts.linears[0].weight.dtype,
        "device": str(parts.linears[0].weight.device),
        "shapes": {name: list(p.shape) for name, p in weights.items()},
        "requires_grad": {name: p.requires_grad for name, p in weights.items()},
    }
