"""Many LTC layers of one shape, run side by side in one operator call."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastltc._parameters import LTC_MASKS, LTC_PARAMETERS
from fastltc.nn.changes import compute_parameters
from fastltc.nn.ltc import LTC
from fastltc.nn.ltc_weights import LTCWeights
from fastltc.nn.parallel_layers import ParallelLayers, check_agree, check_each
from fastltc.ops.ltc import run_ltc
from fastltc.ops.sequence import Sequences
from fastltc.ops.synapses import SynapseCache, stacked_synapse_list

_OPTIONS = ("_ode_unfolds", "_epsilon", "_implicit_param_constraints")


class ParallelLTC(ParallelLayers[LTC], LTCWeights):
    r"""K independent LTC layers of one shape, run in one call.

    For many small networks, as one per device or sensor: an operator call costs more than a step
    of such a network takes, and here they share one. Each layer has its own input, state,
    parameters and wiring; there is nothing between them. The results are those of the layers.

    The parameters are copies, stacked: ``gleak`` is ``[K, N]``, ``sigma`` ``[K, N, N]``, and so on
    with the names of :class:`LTCCell`; the masks are buffers. :meth:`layer` and :meth:`load_layer`
    take one out and put one in.

    Args:
        layers: K layers, at least one, that agree in sizes, maps, options, dtype and device. Their
            wirings may differ. None has ``mixed_memory``.

    Raises:
        TypeError: if one is no :class:`LTC`.
        ValueError: if there is none, or they do not agree, or one has mixed memory.

    Example:
        >>> import torch
        >>> from fastltc import LTC, ParallelLTC
        >>> from fastltc.wirings import AutoNCP
        >>> nets = ParallelLTC([LTC(16, AutoNCP(19, 2)) for _ in range(10)])
        >>> output, hn = nets(torch.randn(10, 1, 32, 16))
        >>> output.shape, hn.shape
        (torch.Size([10, 1, 32, 2]), torch.Size([10, 1, 19]))
    """

    _ode_unfolds: int
    _epsilon: float

    def __init__(self, layers: Iterable[LTC]) -> None:
        super().__init__()
        nets = list(layers)
        self._check_alike(nets)
        cells = [net.rnn_cell for net in nets]
        self._wirings = [copy.deepcopy(net._wiring) for net in nets]
        self._mappings = cells[0]._input_mapping, cells[0]._output_mapping
        self.count = len(nets)
        self.batch_first = nets[0].batch_first
        self.return_sequences = nets[0].return_sequences
        self.state_size = nets[0].state_size
        self.sensory_size = nets[0].sensory_size
        self.output_size = nets[0].output_size
        for name in (*_OPTIONS, "_sigmoid_precision"):
            setattr(self, name, getattr(cells[0], name))
        for name in LTC_PARAMETERS:
            values: list[Any] = [getattr(cell, name, None) for cell in cells]
            if values[0] is None:
                self.register_parameter(name, None)
                continue
            for k, value in enumerate(values):
                if value.requires_grad != values[0].requires_grad:
                    raise ValueError(
                        f"layers[{k}].rnn_cell.{name}: expected requires_grad="
                        f"{values[0].requires_grad}, as layers[0] has, got {value.requires_grad}"
                    )
            stack = torch.stack([value.detach() for value in values])
            self.register_parameter(name, nn.Parameter(stack, values[0].requires_grad))
        for name in LTC_MASKS:
            masks = torch.stack([getattr(cell, name).detach() for cell in cells])
            self.register_buffer(name, masks)
        self._synapses, self._sensory_synapses = (
            SynapseCache(stacked_synapse_list(masks, name), name, stacked_synapse_list)
            for name, masks in self.named_buffers()
        )

    def _taken(self, index: int) -> LTC:
        # The values that a new layer draws are not used.
        with torch.random.fork_rng(devices=[]):
            layer = LTC(
                self.sensory_size,
                copy.deepcopy(self._wirings[index]),
                return_sequences=self.return_sequences,
                batch_first=self.batch_first,
                input_mapping=self._mappings[0],
                output_mapping=self._mappings[1],
                **{name[1:]: getattr(self, name) for name in _OPTIONS},
            ).to(self.sparsity_mask)
        layer.sigmoid_precision = self._sigmoid_precision
        layer.load_state_dict(
            {f"rnn_cell.{name}": value[index] for name, value in self.state_dict().items()}
        )
        for name in LTC_PARAMETERS:
            if self._parameters.get(name) is not None:
                getattr(layer.rnn_cell, name).requires_grad_(getattr(self, name).requires_grad)
        return layer

    def _put(self, index: int, layer: LTC) -> None:
        for name, value in layer.rnn_cell.state_dict().items():
            getattr(self, name)[index] = value
        self._wirings[index] = copy.deepcopy(layer._wiring)
        self.refresh_synapses()

    @staticmethod
    def _check_alike(layers: Sequence[LTC]) -> None:
        check_each(layers, LTC)
        for k, layer in enumerate(layers):
            reason = layer.rnn_cell._softplus_change()
            if reason is not None:
                raise ValueError(f"layers[{k}].rnn_cell: expected it as it is made, but {reason}")
            compute_parameters(layer.rnn_cell)
        check_agree([_description(layer) for layer in layers])

    def _operator_parameters(self) -> tuple[Tensor, list[Any]]:
        own = self._parameters
        try:
            found: list[Any] = [own[name] for name in LTC_PARAMETERS]
        except KeyError:  # parametrized
            found = [getattr(self, name) for name in LTC_PARAMETERS]
        return found[0], found

    def _run(
        self, sequences: Sequences, parameters: list[Any], all_neurons: bool
    ) -> tuple[Tensor, Tensor]:
        synapses, sensory_synapses = self._synapse_lists()
        if all_neurons:
            parameters = [*parameters[:-2], None, None]
        return run_ltc(
            sequences,
            parameters,
            synapses,
            sensory_synapses,
            self.state_size if all_neurons else self.output_size,
            self._ode_unfolds,
            self._epsilon,
            self._implicit_param_constraints,
            self._sigmoid_precision,
        )

    def _outputs(self, states: Tensor, parameters: list[Any]) -> Tensor:
        output_w, output_b = parameters[-2:]
        output = states[..., : self.output_size]
        shape = self.count, *(1,) * (states.dim() - 2), -1
        if output_w is not None:
            output = output * output_w.view(shape)
        return output if output_b is None else output + output_b.view(shape)

    def _synapse_lists(self) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling():
            # Reading a mask would break the graph.
            return self._synapses.synapses, self._sensory_synapses.synapses
        masks = self._buffers
        mask, sensory_mask = masks["sparsity_mask"], masks["sensory_sparsity_mask"]
        assert mask is not None
        assert sensory_mask is not None
        return (
            self._synapses.current(mask, None),
            self._sensory_synapses.current(sensory_mask, None),
        )


def _description(layer: LTC) -> dict[str, Any]:
    cell = layer.rnn_cell
    return {
        "inputs": layer.sensory_size,
        "neurons": layer.state_size,
        "outputs": layer.output_size,
        **{name[1:]: getattr(cell, name) for name in _OPTIONS},
        "sigmoid_precision": cell.sigmoid_precision,
        "return_sequences": layer.return_sequences,
        "batch_first": layer.batch_first,
        "maps": [name for name in LTC_PARAMETERS[11:] if getattr(cell, name, None) is not None],
        "dtype": cell.gleak.dtype,
        "device": str(cell.gleak.device),
    }
