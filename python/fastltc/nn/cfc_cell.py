"""The closed-form continuous-time cell: parameters, and one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastltc.nn.checks import check_input_kind, check_state
from fastltc.nn.timespans import cell_timespans
from fastltc.ops.cfc import CFC_ACTIVATIONS, CFC_MODES, cfc
from fastltc.ops.checks import check_mask_values, check_timespan_values

__all__ = ["CfCCell", "LeCun"]


class LeCun(nn.Module):
    """``1.7159 tanh(0.666 x)``, the activation of LeCun et al., Efficient BackProp, 1998."""

    def forward(self, x: Tensor) -> Tensor:
        """Return it of a tensor of any shape."""
        return 1.7159 * torch.tanh(0.666 * x)


_ACTIVATION_MODULES: dict[str, type[nn.Module]] = {
    "lecun_tanh": LeCun,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}


class CfCCell(nn.Module):
    r"""A closed-form continuous-time (CfC) cell, which runs one time step.

    The equation is that of :func:`fastltc.reference.cfc`. The class takes the place of
    ``ncps.torch.CfCCell``: the arguments, the names, shapes, initial values and random draws of
    the parameters, and the keys of the state dict are the same, and checkpoints load both ways.

    Parameters (``I`` inputs, ``N`` neurons, K inputs of the heads, which are the units of the
    backbone, or ``I + N`` without one): ``backbone.*``; ``ff1``, ``ff2``, ``time_a`` and
    ``time_b``, each with ``weight`` ``[N, K]`` and ``bias`` ``[N]``; with mode ``"pure"`` instead
    of the last three ``w_tau`` and ``A``, ``[1, N]``; and, frozen, ``sparsity_mask`` ``[N, K]``,
    which is 0 or 1, if there is one. The operator reads the parameters of the submodules; it does
    not call them, so hooks on them do not run.

    Args:
        input_size: number of inputs, I.
        hidden_size: number of neurons, N.
        mode: ``"default"``, ``"pure"`` (the closed-form solution itself) or ``"no_gate"``.
        backbone_activation: ``"lecun_tanh"``, ``"silu"``, ``"relu"``, ``"tanh"`` or ``"gelu"``.
        backbone_units: units of each backbone layer.
        backbone_layers: number of dense layers before the heads; may be 0.
        backbone_dropout: probability with which an activation of the backbone layers after the
            first is dropped in training, anew at every step.
        sparsity_mask: which weights of ``ff1`` and ``ff2`` exist, ``[K, N]``, 0 or not 0 up to
            its sign; all by default.

    Raises:
        ValueError: if a mode or activation is unknown, a size is out of its range, or an entry of
            the mask is none of -1, 0 and 1.

    Example:
        >>> import torch
        >>> from fastltc import CfCCell
        >>> cell = CfCCell(16, 32)
        >>> output, state = cell(torch.randn(4, 16), torch.zeros(4, 32), 0.1)
        >>> output.shape, state.shape
        (torch.Size([4, 32]), torch.Size([4, 32]))

    Source: Hasani et al., Closed-form continuous-time neural networks, Nature Machine
    Intelligence 2022 (arXiv:2106.13898).
    """

    sparsity_mask: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        mode: str = "default",
        backbone_activation: str = "lecun_tanh",
        backbone_units: int = 128,
        backbone_layers: int = 1,
        backbone_dropout: float = 0.0,
        sparsity_mask: Any = None,
    ) -> None:
        super().__init__()
        if mode not in CFC_MODES:
            raise ValueError(f"mode: expected one of {', '.join(CFC_MODES)}, got {mode!r}")
        if backbone_activation not in CFC_ACTIVATIONS:
            raise ValueError(
                f"backbone_activation: expected one of {', '.join(CFC_ACTIVATIONS)}, got "
                f"{backbone_activation!r}"
            )
        for name, size, least in (
            ("input_size", input_size, 1),
            ("hidden_size", hidden_size, 1),
            ("backbone_layers", backbone_layers, 0),
            ("backbone_units", backbone_units, 1 if backbone_layers else 0),
        ):
            if size < least:
                raise ValueError(f"{name}: expected {least} or more, got {size}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.mode = mode
        self.backbone_layers = backbone_layers
        self._activation = backbone_activation
        inputs = backbone_units if backbone_layers > 0 else input_size + hidden_size
        self._checked_mask = 0, 0  # identity and version
        self.sparsity_mask = self._mask_parameter(sparsity_mask, (inputs, hidden_size))
        # What follows draws from the random generator in the order of ncps, so that the same seed
        # gives the same values.
        self.backbone = None
        self._dense: list[str] = []  # keys in the backbone
        self._dropouts: list[str] = []
        if backbone_layers > 0:
            self.backbone = self._make_backbone(
                input_size + hidden_size, backbone_units, backbone_dropout
            )
        self.tanh = nn.Tanh()
        self.sigmoid = nn.Sigmoid()
        self.ff1 = nn.Linear(inputs, hidden_size)
        if mode == "pure":
            self.w_tau = nn.Parameter(torch.zeros(1, hidden_size))
            self.A = nn.Parameter(torch.ones(1, hidden_size))
        else:
            self.ff2 = nn.Linear(inputs, hidden_size)
            self.time_a = nn.Linear(inputs, hidden_size)
            self.time_b = nn.Linear(inputs, hidden_size)
        self.init_weights()

    @staticmethod
    def _mask_parameter(mask: Any, shape: tuple[int, int]) -> nn.Parameter | None:
        if mask is None:
            return None
        values = np.abs(np.asarray(mask)).astype(np.float32)
        if values.shape != shape:
            raise ValueError(
                f"sparsity_mask: expected shape [K, N] = {list(shape)}, got {list(values.shape)}"
            )
        check_mask_values("sparsity_mask", torch.from_numpy(values))
        # torch.tensor follows torch.device("meta"), from_numpy does not.
        return nn.Parameter(torch.tensor(values.T.copy()), requires_grad=False)

    def _make_backbone(self, inputs: int, units: int, dropout: float) -> nn.Sequential:
        activation = _ACTIVATION_MODULES[self._activation]
        layers: list[nn.Module] = []
        for layer in range(self.backbone_layers):
            self._dense.append(str(len(layers)))
            layers += [nn.Linear(units if layer else inputs, units), activation()]
            # As in ncps, the first layer has none.
            if layer and dropout > 0.0:
                self._dropouts.append(str(len(layers)))
                layers.append(nn.Dropout(dropout))
        return nn.Sequential(*layers)

    def init_weights(self) -> None:
        """Draw every trained matrix, ``w_tau`` and ``A`` included, by Xavier's rule."""
        for parameter in self.parameters():
            if parameter.dim() == 2 and parameter.requires_grad:
                nn.init.xavier_uniform_(parameter)

    def forward(self, input: Tensor, hx: Tensor, ts: Tensor | float) -> tuple[Tensor, Tensor]:
        """Run one time step.

        Args:
            input: ``[B, I]``, dtype and device of the parameters (half types: see
                :func:`fastltc.ops.cfc`).
            hx: state, ``[B, N]``.
            ts: time since the last step in seconds, not negative: a number, a tensor of one
                element, ``(B,)``, ``(B, 1)`` or, one per neuron, ``(B, N)`` or ``(1, N)``.

        Returns:
            The next state, ``[B, N]``, twice: as output and as state.

        Raises:
            ValueError: if a shape is wrong, or a time step is negative or not finite
                (``RuntimeError`` in compiled code).
            TypeError: if a dtype or a device is wrong.
        """
        _, state = run_step(self, input, hx, ts, "ts", self.input_size, self.hidden_size)
        return state, state

    def _run(
        self,
        x: Tensor,
        h0: Tensor | None,
        timespans: Tensor | None,
        lengths: Tensor | None = None,
        return_sequences: bool = True,
        time_major: bool = False,
        memory: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run ``[B, T, I]`` inputs of the right shape through the operator."""
        parameters = self._operator_parameters()
        weight = parameters[0]
        if x.dtype != weight.dtype or x.device != weight.device:
            check_input_kind(x, weight)
        mask = self._mask()
        masks = []
        if mask is not None and self.backbone_layers > 0:
            # The operator has no masks behind a backbone; this spares it one for a rare case.
            for i in (-4,) if self.mode == "pure" else (-8, -6):
                parameters[i] = torch.where(mask != 0, parameters[i], 0)
        elif mask is not None:
            masks = [mask]
        return cfc(
            *(x, h0, timespans, lengths, parameters, masks, [self.hidden_size]),
            *(self.backbone_layers, self.mode, self._activation),
            self._dropout_factors(x) if self._dropouts else None,
            *(return_sequences, time_major, memory),
        )

    def _mask(self) -> Tensor | None:
        """Return the mask, if there is one, whose entries are 0 and 1."""
        mask: Tensor | None = self._parameters.get("sparsity_mask")
        if mask is None:
            mask = self.sparsity_mask
            if mask is None:
                return None
        if torch.compiler.is_compiling():
            return mask
        try:
            seen = id(mask), mask._version
        except RuntimeError:  # made in inference mode, where versions are not counted
            seen = 0, -1
        if seen != self._checked_mask or not seen[0]:
            if not mask.is_meta:
                check_mask_values("sparsity_mask", mask)
            self._checked_mask = seen
        return mask

    def _operator_parameters(self) -> list[Tensor]:
        # nn.Module looks attributes up in three dictionaries, which for all parameters together
        # takes as long as the operator takes for one step.
        m: Any = self._modules
        found: list[Any] = []
        try:
            for key in self._dense:
                p = m["backbone"]._modules[key]._parameters
                found += p["weight"], p["bias"]
            f1 = m["ff1"]._parameters
            if self.mode == "pure":
                p = self._parameters
                found += f1["weight"], f1["bias"], p["w_tau"], p["A"]
            else:
                f2, a = m["ff2"]._parameters, m["time_a"]._parameters
                b = m["time_b"]._parameters
                found += f1["weight"], f1["bias"], f2["weight"], f2["bias"]
                found += a["weight"], a["bias"], b["weight"], b["bias"]
            return found
        except KeyError:  # parametrized or pruned
            pass
        backbone: Any = self.backbone
        found = [getattr(backbone._modules[k], n) for k in self._dense for n in ("weight", "bias")]
        if self.mode == "pure":
            return [*found, self.ff1.weight, self.ff1.bias, self.w_tau, self.A]
        heads = self.ff1, self.ff2, self.time_a, self.time_b
        return found + [getattr(head, name) for head in heads for name in ("weight", "bias")]

    def _dropout_factors(self, x: Tensor) -> Tensor | None:
        """Draw the factors of every dropout layer for a whole sequence."""
        assert self.backbone is not None
        layers: list[Any] = [self.backbone._modules[key] for key in self._dropouts]
        rates = [layer.p if layer.training else 0.0 for layer in layers]
        if not any(rates):
            return None
        batch, time, _ = x.shape
        dense: Any = self.backbone._modules[self._dense[0]]
        dtype = dense.weight.dtype
        ones = x.new_ones(len(layers), batch, time, dense.out_features, dtype=dtype)
        if len(set(rates)) == 1:
            return F.dropout(ones, rates[0])
        return torch.stack(
            [F.dropout(o, rate) for o, rate in zip(ones.unbind(), rates, strict=True)]
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._mask()  # refuses a strange one


def run_step(
    cell: Any,
    input: Tensor,
    hx: Tensor,
    ts: Tensor | float,
    ts_name: str,
    inputs: int,
    neurons: int,
) -> tuple[Tensor, Tensor]:
    """Check the arguments of a cell and run one time step.

    Args:
        cell: has ``_run``.
        input: ``[B, I]``.
        hx: ``[B, N]``.
        ts: see :meth:`CfCCell.forward`.
        ts_name: what the caller calls it.
        inputs: I.
        neurons: N.

    Returns:
        ``(output, state)``: ``[B, M]`` and the next state, ``[B, N]``.
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"input: expected a tensor, got {type(input).__name__}")
    if input.dim() != 2 or input.shape[1] != inputs:
        raise ValueError(f"input: expected shape [B, I] with I = {inputs}, got {list(input.shape)}")
    batch = input.shape[0]
    state = check_state("hx", hx, (batch, neurons), input)
    timespans = cell_timespans(ts, batch, neurons, input, ts_name)
    try:
        result: tuple[Tensor, Tensor] = cell._run(
            input.unsqueeze(1), state, timespans, return_sequences=False
        )
    except ValueError:
        if isinstance(ts, Tensor):
            check_timespan_values(ts_name, ts)
        raise
    return result
