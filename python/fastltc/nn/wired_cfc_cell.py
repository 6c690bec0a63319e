"""The wired closed-form continuous-time cell: a chain of masked cells, and one step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastltc.nn.cfc_cell import CfCCell
from fastltc.nn.changes import has_own_forward, own_forward
from fastltc.nn.closed_form import CellParts, ClosedForm, read_linears
from fastltc.nn.steps import run_step
from fastltc.nn.wiring import WiringSizes, build_wiring
from fastltc.ops.cfc import run_cfc
from fastltc.ops.sequence import Sequences
from fastltc.ops.synapses import THOROUGH_FROM


@own_forward
class WiredCfCCell(WiringSizes, ClosedForm):
    r"""A closed-form continuous-time (CfC) cell along a wiring, which runs one time step.

    The equation is that of :func:`fastltc.reference.cfc`: one cell per layer of the wiring (of an
    NCP: inter, command and motor neurons), and the new state of each is the input of the next.
    The wiring masks ``ff1`` and ``ff2`` from one layer to the next; within a layer, and in
    ``time_a`` and ``time_b``, everything is connected. The class takes the place of
    ``ncps.torch.WiredCfCCell``: the arguments, the names, shapes, initial values and random draws
    of the parameters, and the keys of the state dict are the same, and checkpoints load both ways.

    The cells are ``layer_0``, ``layer_1`` and so on, see :class:`CfCCell`. The operator reads
    their parameters, see there for what happens where that would make a difference; hooks on the
    cells themselves do not run, as in ncps. Their masks decide which synapses are computed, also
    when a checkpoint brings others than the wiring has.

    Args:
        input_size: number of inputs, I; may be None if the wiring is built.
        wiring: ``ncps.wirings.Wiring``; used as it is if it is built.
        mode: ``"default"``, ``"pure"`` or ``"no_gate"``.

    Raises:
        TypeError: if ``wiring`` is not a wiring.
        ValueError: if the wiring is not built or is built for another number of inputs, or if the
            mode is unknown.

    Example:
        >>> import torch
        >>> from fastltc import WiredCfCCell
        >>> from fastltc.wirings import AutoNCP
        >>> cell = WiredCfCCell(16, AutoNCP(19, 2))
        >>> output, state = cell(torch.randn(4, 16), torch.zeros(4, 19), 0.1)
        >>> output.shape, state.shape
        (torch.Size([4, 2]), torch.Size([4, 19]))

    Source: Hasani et al., Closed-form continuous-time neural networks, Nature Machine
    Intelligence 2022 (arXiv:2106.13898).
    """

    def __init__(self, input_size: int | None, wiring: Any, mode: str = "default") -> None:
        super().__init__()
        self._wiring = wiring = build_wiring(wiring, input_size, "input_size", motors=False)
        neurons = [wiring.get_neurons_of_layer(layer) for layer in range(wiring.num_layers)]
        self._sizes = [len(layer) for layer in neurons]
        self._names = [f"layer_{layer}" for layer in range(len(neurons))]
        features = wiring.input_dim
        for index, (name, layer) in enumerate(zip(self._names, neurons, strict=True)):
            if index == 0:
                incoming = wiring.sensory_adjacency_matrix[:, layer]
            else:
                incoming = wiring.adjacency_matrix[np.ix_(neurons[index - 1], layer)]
            recurrent = np.ones((len(layer), len(layer)))
            cell = CfCCell(
                features,
                len(layer),
                mode,
                backbone_activation="lecun_tanh",
                backbone_units=0,
                backbone_layers=0,
                backbone_dropout=0.0,
                sparsity_mask=np.concatenate([incoming, recurrent]),
            )
            self.register_module(name, cell)
            features = len(layer)

    @property
    def _layers(self) -> list[CfCCell]:
        # Scripts written for ncps look the cells up here.
        return [getattr(self, name) for name in self._names]

    @property
    def layer_sizes(self) -> list[int]:
        """Number of neurons of each layer."""
        return list(self._sizes)

    @property
    def num_layers(self) -> int:
        """Number of layers of the wiring."""
        return self._wiring.num_layers

    @property
    def synapse_count(self) -> int:
        """Number of synapses between neurons, by the wiring."""
        return np.sum(np.abs(self._wiring.adjacency_matrix))

    @property
    def sensory_synapse_count(self) -> int:
        """Number of synapses from inputs to neurons, by the wiring."""
        return np.sum(np.abs(self._wiring.sensory_adjacency_matrix))

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.sensory_size}, {self.state_size}, output_size={self._sizes[-1]}"

    def forward(
        self, input: Tensor, hx: Tensor, timespans: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """Run one time step.

        Args:
            input: ``[B, I]``, dtype and device of the parameters (half types: see
                :func:`fastltc.ops.cfc`).
            hx: state, ``[B, N]``, the neurons in the order of the layers.
            timespans: time since the last step, any unit, not negative: a number, a tensor of
                one element, ``(B,)``, ``(B, 1)`` or, one per neuron in the order of the state,
                ``(B, N)`` or ``(1, N)``.

        Returns:
            ``(output, state)``: the new state of the last layer, ``[B, M]``, and of all of them,
            ``[B, N]``.

        Raises:
            ValueError: if a shape is wrong, or a time step is negative or not finite
                (``RuntimeError`` in compiled code).
            TypeError: if a dtype or a device is wrong.
        """
        return run_step(self, input, hx, timespans, ("input", "hx", "timespans"))

    def _run_operator(
        self,
        sequences: Sequences,
        parts: CellParts,
        parameters: list[Tensor],
        all_neurons: bool = False,
    ) -> tuple[Tensor, Tensor] | None:
        compiling = torch.compiler.is_compiling()
        x = sequences.x
        # A comparison of sizes would be a guard of compiled code.
        thorough = not compiling and x.numel() >= THOROUGH_FROM * x.shape[2]
        masks: list[Tensor] = []
        for name in self._names:
            cell: Any = self._modules[name]
            mask = cell._parameters.get("sparsity_mask")
            if mask is None:
                mask = cell._mask()
            elif not compiling:
                mask = cell._rounded.current(mask, thorough or None)
            if mask is None:  # taken away since
                return None
            masks.append(mask)
        return run_cfc(
            *(sequences, parameters, masks, self._sizes, 0, cell.mode, parts.activation),
            output_size=sum(self._sizes) if all_neurons else None,
        )

    def _operator_parameters(self, parts: CellParts) -> list[Tensor] | None:
        found = read_linears(parts.linears)
        if found is None or len(found) > 2 * len(self._names):
            return found
        # In mode "pure" a cell has one linear layer and two parameters.
        mixed: list[Any] = []
        for name, weight, bias in zip(self._names, found[::2], found[1::2], strict=True):
            cell: Any = self._modules[name]
            mixed += weight, bias, cell.w_tau, cell.A
        return mixed

    def _find_parts(self, computed: bool = False) -> CellParts | str:
        linears: list[Any] = []
        modes = set()
        for name in self._names:
            cell: Any = self._modules[name]
            if not has_own_forward(cell) or not isinstance(cell, CfCCell):
                return f"its {name} is of the class {type(cell).__qualname__}, or changed"
            if cell.backbone_layers > 0 or cell._mask() is None:
                return f"its {name} is not one of a wiring"
            modes.add(cell.mode)
            parts = cell._find_parts(computed)
            if isinstance(parts, str):
                return f"of its {name}: {parts}"
            linears += parts.linears
        if len(modes) > 1:
            return "its cells have several modes"
        return CellParts(tuple(linears), (), "lecun_tanh")

    def _step(self, x: Tensor, h: Tensor, dt: Tensor | None) -> tuple[Tensor, Tensor]:
        per_neuron = dt is not None and dt.shape[1] != 1
        new = []
        first = 0
        for name, before in zip(self._names, h.split(self._sizes, 1), strict=True):
            ts = dt if dt is None or not per_neuron else dt[:, first : first + before.shape[1]]
            first += before.shape[1]
            cell: Any = self._modules[name]
            if has_own_forward(cell):
                x, _ = cell._step(x, before, ts)
            else:
                x, _ = cell.forward(x, before, 1.0 if ts is None else ts)
            new.append(x)
        return x, torch.cat(new, 1)

    def _outputs(self, states: Tensor) -> Tensor:
        return states[..., states.shape[-1] - self._sizes[-1] :]
