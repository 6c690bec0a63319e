"""Many LTC layers of one shape, run side by side in one operator call."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn, strided

from fastltc._parameters import LTC_MASKS, LTC_PARAMETERS
from fastltc.nn.changes import compute_parameters, has_own_forward
from fastltc.nn.checks import check_dense, check_input_kind, check_state
from fastltc.nn.ltc import LTC
from fastltc.nn.ltc_weights import LTCWeights
from fastltc.nn.resets import layer_resets
from fastltc.nn.timespans import layer_lengths, layer_timespans, timespans_like
from fastltc.ops.errors import check_timespan_values
from fastltc.ops.ltc import ltc
from fastltc.ops.sequence import HALF_DTYPES
from fastltc.ops.synapses import SynapseCache, stacked_synapse_list

_OPTIONS = ("_ode_unfolds", "_epsilon", "_implicit_param_constraints")


class ParallelLTC(LTCWeights):
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
        _check_alike(nets)
        cells = [net.rnn_cell for net in nets]
        self._wirings = [copy.deepcopy(net._wiring) for net in nets]
        self._mappings = cells[0]._input_mapping, cells[0]._output_mapping
        self.batch_first = nets[0].batch_first
        self.return_sequences = nets[0].return_sequences
        self.state_size = nets[0].state_size
        self.sensory_size = nets[0].sensory_size
        self.output_size = nets[0].output_size
        for name in _OPTIONS:
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

    @property
    def count(self) -> int:
        """Number of layers, K."""
        return self.sparsity_mask.shape[0]

    def extra_repr(self) -> str:
        """Return the sizes."""
        return (
            f"{self.count} layers, {self.sensory_size}, {self.state_size}, "
            f"output_size={self.output_size}"
        )

    def __len__(self) -> int:
        return self.count

    def layer(self, index: int) -> LTC:
        """Return a copy of one layer, as a layer of its own.

        Args:
            index: which, 0 to K - 1.

        Raises:
            IndexError: if there is no such layer.
        """
        index = range(self.count)[index]
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
        layer.load_state_dict(
            {f"rnn_cell.{name}": value[index] for name, value in self.state_dict().items()}
        )
        for name in LTC_PARAMETERS:
            if self._parameters.get(name) is not None:
                getattr(layer.rnn_cell, name).requires_grad_(getattr(self, name).requires_grad)
        return layer

    def load_layer(self, index: int, layer: LTC) -> None:
        """Put the parameters and masks of a layer in the place of another.

        Args:
            index: which, 0 to K - 1.
            layer: one that agrees with the others.

        Raises:
            IndexError: if there is no such layer.
            TypeError: as on construction.
            ValueError: as on construction.
        """
        index = range(self.count)[index]
        _check_alike([self.layer(index), layer])
        with torch.no_grad():
            for name, value in layer.rnn_cell.state_dict().items():
                getattr(self, name)[index] = value
        self._wirings[index] = copy.deepcopy(layer._wiring)
        self.refresh_synapses()

    @overload
    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        timespans: Tensor | float | None = None,
        lengths: Tensor | list[int] | None = None,
        resets: Tensor | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: Literal[False] = False,
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        timespans: Tensor | float | None = None,
        lengths: Tensor | list[int] | None = None,
        resets: Tensor | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: bool,
    ) -> tuple[Tensor, ...]: ...

    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        timespans: Tensor | float | None = None,
        lengths: Tensor | list[int] | None = None,
        resets: Tensor | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: bool = False,
    ) -> tuple[Tensor, ...]:
        """Run a batch of sequences through each layer.

        Args:
            input: ``[K, B, T, I]``, dtype and device of the parameters (half types: see
                :func:`fastltc.ops.ltc`). B and T may be 0.
            hx: initial states, ``[K, B, N]``; zeros by default.
            timespans: time since the last step, any unit, not negative, 1 by default: a number,
                ``(B, T)`` for all layers, ``(K, B, T)``, or ``(K, B, T, N)``, one per neuron; each
                axis may be 1 for all alike. 0 holds the state.
            lengths: valid steps of each sample, B integers from 0 to T, for all layers; T by
                default. From ``t = lengths[b]`` on the state is held and the output is 0.
            resets: steps before which the states of a sample are set to ``hx`` again, ``[B, T]``,
                bool, for all layers; none by default.
            reset_to_zero: have resets set states to zeros; ``hx`` is those before the first step.
            return_states: return the states of all neurons in every step, too.

        Returns:
            ``(output, hn)``: ``[K, B, T, M]``, or ``[K, B, M]`` without ``return_sequences``; and
            the states after the last valid step, ``[K, B, N]``. With ``return_states`` there are,
            third, those after each step, ``[K, B, T, N]``, 0 behind the lengths.

        Raises:
            ValueError: if a shape or a length is wrong, or a time step is negative or not finite
                (``RuntimeError`` in compiled code).
            TypeError: if a dtype or a device is wrong.
        """
        own = self._parameters
        try:
            parameters = [own[name] for name in LTC_PARAMETERS]
        except KeyError:  # parametrized
            parameters = [getattr(self, name) for name in LTC_PARAMETERS]
        gleak = parameters[0]
        assert gleak is not None
        count, neurons = gleak.shape
        if input.layout is not strided:
            check_dense("input", input)
        shape = input.shape
        if len(shape) != 4 or shape[0] != count or shape[3] != self.sensory_size:
            raise ValueError(
                f"input: expected shape [K, B, T, I] with K = {count} layers and I = "
                f"{self.sensory_size} features, got {list(shape)}"
            )
        _, batch, time, _ = shape
        if input.dtype != gleak.dtype or input.device != gleak.device:
            check_input_kind(input, gleak)
        if hx is not None:
            hx = check_state("hx", hx, (count, batch, neurons), input)
            hx = (hx if batch == 1 else hx.transpose(0, 1)).reshape(batch, count * neurons)
        spans = None if timespans is None else self._timespans(timespans, input)
        if lengths is not None:
            lengths = layer_lengths(lengths, batch, True, input.device)
        if resets is not None:
            resets = layer_resets(resets, batch, time, True, True, input.device)
        synapses, sensory_synapses = self._synapse_lists()
        # One observation per layer, as a device streams them, is not worth a permutation.
        single = batch == 1 and time == 1
        x = input if single else input.permute(1, 2, 0, 3)
        whole = self.return_sequences
        maps = parameters[-2:]
        if return_states:
            # All neurons are outputs; half types are rounded once, behind the maps.
            x, hx = _widened(x), _widened(hx)
            parameters, outputs, whole = [*parameters[:-2], None, None], neurons, True
        else:
            outputs = self.output_size
        try:
            output, hn = ltc(
                x.reshape(batch, time, count * shape[3]),
                hx,
                spans,
                lengths,
                parameters,
                synapses,
                sensory_synapses,
                outputs,
                self._ode_unfolds,
                self._epsilon,
                self._implicit_param_constraints,
                whole,
                resets=resets,
                reset_to_zero=reset_to_zero,
            )
        except ValueError:
            if isinstance(timespans, Tensor):
                check_timespan_values("timespans", timespans)
            raise
        if batch == 1:
            hn = hn.view(count, 1, neurons)
        else:
            hn = hn.view(batch, count, neurons).transpose(0, 1)
        if not whole:
            return output.view(batch, count, outputs).transpose(0, 1), hn
        if single:
            output = output.view(count, 1, 1, outputs)
        else:
            output = output.view(batch, time, count, outputs).permute(2, 0, 1, 3)
        if not return_states:
            return output, hn
        states, narrow = output, input.dtype
        if self.return_sequences:
            output = self._outputs(states, maps, (count, 1, 1, -1))
            if lengths is not None:
                valid = torch.arange(time, device=x.device) < lengths.unsqueeze(1)
                output = torch.where(valid.unsqueeze(2), output, 0)
        else:
            output = self._outputs(hn, maps, (count, 1, -1))
        if torch.is_autocast_enabled(x.device.type):
            return output, hn, states
        return output.to(narrow), hn.to(narrow), states.to(narrow)

    def _outputs(
        self, states: Tensor, maps: Sequence[Tensor | None], shape: tuple[int, ...]
    ) -> Tensor:
        """Return the outputs that go with states, ``[K, ..., N]``."""
        output_w, output_b = maps
        output = states[..., : self.output_size]
        if output_w is not None:
            output = output * output_w.view(shape)
        return output if output_b is None else output + output_b.view(shape)

    def _timespans(self, timespans: Tensor | float, like: Tensor) -> Tensor | None:
        """Return them as ``[B, T]``, or as ``[B, T, K N]`` where they differ between layers."""
        count, batch, time, _ = like.shape
        if not isinstance(timespans, Tensor):
            return layer_timespans(timespans, batch, time, self.state_size, True, True, like)
        spans = timespans_like("timespans", timespans, like)
        wanted = (count, batch, time, self.state_size)
        if spans.dim() == 0:
            return spans.expand(batch, time)
        shape = wanted[1:3] if spans.dim() == 2 else wanted[: spans.dim()]
        if not 2 <= spans.dim() <= 4 or any(
            given != 1 and given != size for given, size in zip(spans.shape, shape, strict=True)
        ):
            raise ValueError(
                "timespans: expected a number or shape (B, T), (K, B, T) or (K, B, T, N) = "
                f"{list(wanted)}, got {list(timespans.shape)}"
            )
        if spans.dim() == 2:
            return spans.expand(batch, time)
        spans = (spans if spans.dim() == 4 else spans.unsqueeze(3)).expand(wanted)
        return spans.permute(1, 2, 0, 3).reshape(batch, time, count * self.state_size)

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


def _widened(tensor: Any) -> Any:
    return tensor.float() if tensor is not None and tensor.dtype in HALF_DTYPES else tensor


def _check_alike(layers: list[LTC]) -> None:
    """Raise if the layers cannot be run in one call, or do something else by themselves."""
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    for k, layer in enumerate(layers):
        if not isinstance(layer, LTC):
            raise TypeError(f"layers[{k}]: expected a fastltc.LTC, got {type(layer).__name__}")
        if layer.use_mixed:
            raise ValueError(f"layers[{k}]: expected mixed_memory=False, got True")
        if not has_own_forward(layer.rnn_cell):
            raise ValueError(f"layers[{k}]: expected the usual rnn_cell, got one of one's own")
        reason = layer.rnn_cell._softplus_change()
        if reason is not None:
            raise ValueError(f"layers[{k}].rnn_cell: expected it as it is made, but {reason}")
        compute_parameters(layer.rnn_cell)
    for k, layer in enumerate(layers[1:], 1):
        wanted = _description(layers[0])
        for what, ours in _description(layer).items():
            theirs = wanted[what]
            if ours != theirs:
                raise ValueError(
                    f"layers[{k}]: expected {what} of {theirs}, as layers[0] has, got {ours}"
                )


def _description(layer: LTC) -> dict[str, Any]:
    cell = layer.rnn_cell
    return {
        "inputs": layer.sensory_size,
        "neurons": layer.state_size,
        "outputs": layer.output_size,
        **{name[1:]: getattr(cell, name) for name in _OPTIONS},
        "return_sequences": layer.return_sequences,
        "batch_first": layer.batch_first,
        "maps": [name for name in LTC_PARAMETERS[11:] if getattr(cell, name, None) is not None],
        "dtype": cell.gleak.dtype,
        "device": str(cell.gleak.device),
    }
