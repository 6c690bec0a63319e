"""The liquid time-constant cell: parameters, and one step."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastltc._parameters import LTC_MASKS, LTC_PARAMETERS, LTC_TABLE
from fastltc.nn.changes import Watch, change, own_forward
from fastltc.nn.checks import check_input_kind
from fastltc.nn.ltc_weights import LTCWeights
from fastltc.nn.steps import run_step
from fastltc.nn.wiring import WiringSizes, build_wiring
from fastltc.ops.ltc import run_ltc
from fastltc.ops.sequence import Sequences
from fastltc.ops.synapses import THOROUGH_FROM, SynapseCache, synapse_list

_read_all = itemgetter(*LTC_PARAMETERS)
_OUTPUT_MAP = LTC_PARAMETERS.index("output_w")
_NO_MAP = (None, False, "", "none", "identity")


@own_forward
class LTCCell(WiringSizes, LTCWeights):
    r"""A liquid time-constant (LTC) cell, which runs one time step.

    The equation is that of :func:`fastltc.reference.ltc`. The class takes the place of
    ``ncps.torch.LTCCell``: the arguments, the names, shapes, initial values and random draws of
    the parameters, and the keys of the state dict are the same, and checkpoints load both ways.

    Parameters (``I`` inputs, ``N`` neurons, ``M`` motor neurons): ``gleak``, ``vleak``, ``cm``
    ``[N]``; ``sigma``, ``mu``, ``w``, ``erev`` ``[N, N]``; ``sensory_sigma``, ``sensory_mu``,
    ``sensory_w``, ``sensory_erev`` ``[I, N]``; ``input_w``, ``input_b`` ``[I]``; ``output_w``,
    ``output_b`` ``[M]``; and, frozen, ``sparsity_mask`` ``[N, N]`` and ``sensory_sparsity_mask``
    ``[I, N]``, which are 0 or 1. The masks decide which synapses are computed, also when a
    checkpoint brings others than the wiring has. Changes of a mask are noticed at the next call,
    with two exceptions, for which :meth:`refresh_synapses` is there: an in-place edit through
    ``mask.data`` of a mask with more than 4096 entries is noticed at the next call of 32 samples
    or more, or on a GPU not at all; and compiled code follows ``load_state_dict``, not edits.

    Parameters that are parametrized, pruned or normalised (``torch.nn.utils``) are computed once a
    call, also where the cell is part of a layer, which ncps would not do: it goes on with the
    parameters as they were.

    Args:
        wiring: ``ncps.wirings.Wiring``; used as it is if it is built.
        in_features: I; may be None if the wiring is built.
        input_mapping: ``"affine"``, ``"linear"`` (no offset) or None.
        output_mapping: the same for the output.
        ode_unfolds: U, solver steps per time step.
        epsilon: added to the denominator.
        implicit_param_constraints: keep conductances and capacitances positive by a softplus; if
            False, call :meth:`apply_weight_constraints` after each step of the optimizer.

    Raises:
        TypeError: if ``wiring`` is not a wiring.
        ValueError: if the wiring is not built, is built for another number of inputs or has no
            motor neurons; if a mapping is unknown or ``ode_unfolds`` is less than 1.

    Example:
        >>> import torch
        >>> from fastltc.nn import LTCCell
        >>> from fastltc.wirings import AutoNCP
        >>> cell = LTCCell(AutoNCP(19, 2), in_features=16)
        >>> output, state = cell(torch.randn(4, 16), torch.zeros(4, 19), elapsed_time=0.1)
        >>> output.shape, state.shape
        (torch.Size([4, 2]), torch.Size([4, 19]))

    Source: Hasani et al., Liquid Time-constant Networks, AAAI 2021; Lechner et al., Neural circuit
    policies, Nature Machine Intelligence 2020.
    """

    gleak: Tensor

    def __init__(
        self,
        wiring: Any,
        in_features: int | None = None,
        input_mapping: str | None = "affine",
        output_mapping: str | None = "affine",
        ode_unfolds: int = 6,
        epsilon: float = 1e-8,
        implicit_param_constraints: bool = False,
    ) -> None:
        super().__init__()
        for name, mapping in (("input_mapping", input_mapping), ("output_mapping", output_mapping)):
            if mapping not in ("affine", "linear", *_NO_MAP):
                raise ValueError(f"{name}: expected 'affine', 'linear' or None, got {mapping!r}")
        if ode_unfolds < 1:
            raise ValueError(f"ode_unfolds: expected 1 or more, got {ode_unfolds}")
        self._wiring = build_wiring(wiring, in_features)
        self.make_positive_fn = nn.Softplus() if implicit_param_constraints else nn.Identity()
        self._implicit_param_constraints = implicit_param_constraints
        self._init_ranges = {row.name: row.drawn for row in LTC_TABLE if row.drawn}
        self._input_mapping = input_mapping
        self._output_mapping = output_mapping
        self._ode_unfolds = ode_unfolds
        self._epsilon = epsilon
        self._watch: Watch[bool] | None = None
        self._allocate_parameters()

    def _allocate_parameters(self) -> None:
        # The order of the draws is that of ncps, so that the same seed gives the same values.
        neurons, inputs = self.state_size, self.sensory_size
        shapes = {"N": (neurons,), "NN": (neurons, neurons), "IN": (inputs, neurons)}
        wiring = self._wiring
        reversal = {
            "erev": wiring.erev_initializer,
            "sensory_erev": wiring.sensory_erev_initializer,
        }

        def draw(name: str, shape: tuple[int, ...]) -> None:
            low, high = self._init_ranges[name]
            self.register_parameter(name, nn.Parameter(torch.rand(shape) * (high - low) + low))

        def constant(name: str, values: Any, requires_grad: bool = True) -> None:
            tensor = torch.tensor(values, dtype=torch.get_default_dtype())
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=requires_grad))

        for row in LTC_TABLE:
            if row.name in reversal:
                constant(row.name, reversal[row.name]())
            elif row.shape in shapes:
                draw(row.name, shapes[row.shape])
        caches = []
        matrices = wiring.adjacency_matrix, wiring.sensory_adjacency_matrix
        for name, matrix in zip(LTC_MASKS, matrices, strict=True):
            mask = np.abs(matrix)
            constant(name, mask, requires_grad=False)
            caches.append(SynapseCache(synapse_list(mask, name), name))
        self._synapses, self._sensory_synapses = caches
        for side, mapping, size in (
            ("input", self._input_mapping, inputs),
            ("output", self._output_mapping, self.motor_size),
        ):
            if mapping in ("affine", "linear"):
                constant(f"{side}_w", np.ones(size))
            if mapping == "affine":
                constant(f"{side}_b", np.zeros(size))

    @property
    def synapse_count(self) -> int:
        """Number of synapses between neurons, by the mask."""
        return self._synapse_lists(thorough=True)[0].shape[0] - (self.state_size + 1)

    @property
    def sensory_synapse_count(self) -> int:
        """Number of synapses from inputs to neurons, by the mask."""
        return self._synapse_lists(thorough=True)[1].shape[0] - (self.state_size + 1)

    @property
    def _params(self) -> dict[str, nn.Parameter | None]:
        # Scripts written for ncps look parameters up here.
        return self._parameters

    def __repr__(self) -> str:
        """Return it in one line, unless there is something else inside than usual."""
        if self._softplus_change() is not None:
            return super().__repr__()
        return f"{self._get_name()}({self.extra_repr()})"

    def extra_repr(self) -> str:
        """Return the sizes."""
        first = self.state_size + 1  # the pointers of the lists
        counts = (c.synapses.shape[0] - first for c in (self._synapses, self._sensory_synapses))
        return (
            "{}, {}, output_size={}, synapses={}, sensory_synapses={}, ode_unfolds={}, "
            "implicit_param_constraints={}"
        ).format(
            *(self.sensory_size, self.state_size, self.motor_size, *counts),
            *(self._ode_unfolds, self._implicit_param_constraints),
        )

    def forward(
        self, inputs: Tensor, states: Tensor, elapsed_time: Tensor | float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Run one time step.

        Args:
            inputs: ``[B, I]``, dtype and device of the parameters (half types: see
                :func:`fastltc.ops.ltc`).
            states: membrane potentials, ``[B, N]``.
            elapsed_time: time since the last step, any unit, not negative: a number, a tensor of
                one element, ``(B,)``, ``(B, 1)`` or, one per neuron, ``(B, N)`` or ``(1, N)``.
                0 holds the state.

        Returns:
            ``(output, state)``: ``[B, M]`` and the next state, ``[B, N]``.

        Raises:
            ValueError: if a shape is wrong, or a time step is negative or not finite
                (``RuntimeError`` in compiled code).
            TypeError: if a dtype or a device is wrong.
        """
        return run_step(self, inputs, states, elapsed_time, ("inputs", "states", "elapsed_time"))

    def _run(self, sequences: Sequences, all_neurons: bool = False) -> tuple[Tensor, Tensor]:
        """Run ``[B, T, I]`` inputs of the right shape through the operator.

        With ``all_neurons`` the outputs are the states of all neurons, see :meth:`_outputs`.
        """
        compiling = torch.compiler.is_compiling()
        parameters = self._operator_parameters(compiling)
        watch = self._watch
        if not compiling and watch is not None and watch.holds(self):
            softplus: bool | None = watch.value
        else:
            softplus = self._look_for_softplus(compiling)
        if softplus is None:
            parameters, softplus = self._made_positive(parameters), False
        weight, x = parameters[0], sequences.x
        assert weight is not None
        if x.dtype != weight.dtype or x.device != weight.device:
            check_input_kind(x, weight)
        wiring = self._wiring
        outputs = wiring.output_dim
        if all_neurons:
            parameters, outputs = (*parameters[:_OUTPUT_MAP], None, None), wiring.units
        synapses, sensory_synapses = self._synapse_lists(
            x.numel() >= THOROUGH_FROM * wiring.input_dim, compiling
        )
        return run_ltc(
            sequences,
            parameters,
            synapses,
            sensory_synapses,
            outputs,
            self._ode_unfolds,
            self._epsilon,
            softplus,
            self._sigmoid_precision,
        )

    def _operator_parameters(self, compiling: bool = False) -> tuple[Tensor | None, ...]:
        # nn.Module looks attributes up in three dictionaries, which for all parameters together
        # takes as long as the operator takes for one step.
        if not compiling:
            try:
                return _read_all(self._parameters)
            except KeyError:  # a map that there is not, or what torch computes from others
                pass
        found = {name: getattr(self, name, None) for name in LTC_PARAMETERS}
        computed = [n for n, v in found.items() if v is not None and n not in self._parameters]
        if computed:
            self._found_computed(computed)
        return tuple(found.values())

    def _found_computed(self, names: list[str]) -> None:
        """Take note of parameters that torch computes from others; for swapped cells."""

    def _find_softplus(self) -> bool | str:
        """Return whether the operator is to take softpluses, or why it cannot do it at all."""
        function: Any = self.make_positive_fn
        reason = change("make_positive_fn", function, (nn.Softplus, nn.Identity))
        if reason is not None:
            return reason
        softplus = type(function) is nn.Softplus
        if softplus and (function.beta, function.threshold) != (1, 20):
            return f"its make_positive_fn is {function}"
        return softplus

    def _softplus_change(self) -> str | None:
        """Say in what ``make_positive_fn`` is other than the cell's arguments have it, if it is."""
        found = LTCCell._find_softplus(self)
        if isinstance(found, str):
            return found
        usual = found == self._implicit_param_constraints
        return None if usual else f"its make_positive_fn is {self.make_positive_fn}"

    def _look_for_softplus(self, compiling: bool) -> bool | None:
        found = self._find_softplus()
        softplus = None if isinstance(found, str) else found
        if not compiling:
            self._watch = None if softplus is None else Watch(self, softplus)
        return softplus

    def _made_positive(self, parameters: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Return the parameters as the equation has them, by another ``make_positive_fn``."""
        return tuple(
            self.make_positive_fn(value) if row.positive else value
            for row, value in zip(LTC_TABLE, parameters, strict=True)
        )

    def _outputs(self, states: Tensor) -> Tensor:
        """Return the outputs that go with states, ``[..., N]``."""
        y = states[..., : self._wiring.output_dim]
        for name, apply in (("output_w", torch.mul), ("output_b", torch.add)):
            value = getattr(self, name, None)
            y = y if value is None else apply(y, value)
        return y

    def _synapse_lists(self, thorough: bool, compiling: bool = False) -> tuple[Tensor, Tensor]:
        if compiling:
            # Reading a mask would break the graph.
            return self._synapses.synapses, self._sensory_synapses.synapses
        p = self._parameters
        mask = p.get("sparsity_mask")
        sensory_mask = p.get("sensory_sparsity_mask")
        return (
            self._synapses.current(self.sparsity_mask if mask is None else mask, thorough),
            self._sensory_synapses.current(
                self.sensory_sparsity_mask if sensory_mask is None else sensory_mask, thorough
            ),
        )
