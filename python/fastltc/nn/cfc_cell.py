"""The closed-form continuous-time cell: parameters, and one step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastltc._parameters import CFC_ACTIVATIONS, CFC_HEADS, CFC_MODES
from fastltc.nn.changes import change, compute_parameters, own_forward
from fastltc.nn.closed_form import CellParts, ClosedForm, read_linears
from fastltc.nn.steps import run_step
from fastltc.ops.cfc import run_cfc
from fastltc.ops.sequence import Sequences
from fastltc.ops.synapses import THOROUGH_FROM, RoundedMask, mask_ones


class LeCun(nn.Module):
    """``1.7159 tanh(0.666 x)``, the activation of LeCun et al., Efficient BackProp, 1998."""

    def __init__(self) -> None:
        super().__init__()
        self.tanh = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        """Return it of a tensor of any shape."""
        return 1.7159 * self.tanh(0.666 * x)


ACTIVATION_MODULES: dict[str, tuple[type[nn.Module], ...]] = {
    "lecun_tanh": (LeCun,),
    "silu": (nn.SiLU,),
    "relu": (nn.ReLU,),
    "tanh": (nn.Tanh,),
    "gelu": (nn.GELU,),
}
"""Classes of each activation: the first is that of a new cell."""


@own_forward
class CfCCell(ClosedForm):
    r"""A closed-form continuous-time (CfC) cell, which runs one time step.

    The equation is that of :func:`fastltc.reference.cfc`. The class takes the place of
    ``ncps.torch.CfCCell``: the arguments, the names, shapes, initial values and random draws of
    the parameters, and the keys of the state dict are the same, and checkpoints load both ways.

    Parameters (``I`` inputs, ``N`` neurons, K inputs of the heads, which are the units of the
    backbone, or ``I + N`` without one): ``backbone.*``; ``ff1``, ``ff2``, ``time_a`` and
    ``time_b``, each with ``weight`` ``[N, K]`` and ``bias`` ``[N]``; with mode ``"pure"`` instead
    of the last three ``w_tau`` and ``A``, ``[1, N]``; and, frozen, ``sparsity_mask`` ``[N, K]``,
    which is 0 or 1, if there is one.

    The operator reads the parameters of the submodules and does not call them. Where that would
    make a difference (one has a hook, is of another class, is parametrized, ...) the cell is run
    step by step through them, as ncps does, which is slow, and a warning says why. Code that was
    compiled before such a change does not follow it.

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
        inputs = backbone_units if backbone_layers > 0 else input_size + hidden_size
        self._rounded = RoundedMask("sparsity_mask")
        self.sparsity_mask = self._mask_parameter(sparsity_mask, (inputs, hidden_size))
        # What follows draws from the random generator in the order of ncps, so that the same seed
        # gives the same values.
        self.backbone = None
        if backbone_layers > 0:
            self.backbone = _make_backbone(
                *(input_size + hidden_size, backbone_units, backbone_layers),
                *(ACTIVATION_MODULES[backbone_activation][0], backbone_dropout),
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
        mask_ones(values, "sparsity_mask")
        # torch.tensor follows torch.device("meta"), from_numpy does not.
        return nn.Parameter(torch.tensor(values.T.copy()), requires_grad=False)

    def init_weights(self) -> None:
        """Draw every trained matrix, ``w_tau`` and ``A`` included, by Xavier's rule."""
        for parameter in self.parameters():
            if parameter.dim() == 2 and parameter.requires_grad:
                nn.init.xavier_uniform_(parameter)

    def __repr__(self) -> str:
        """Return it in one line, unless there is something else inside than usual."""
        if isinstance(self._find_parts(), str):
            return super().__repr__()
        return f"{self._get_name()}({self.extra_repr()})"

    def extra_repr(self) -> str:
        """Return the sizes."""
        text = f"{self.input_size}, {self.hidden_size}, mode={self.mode!r}"
        parts = self._find_parts()
        if self.backbone_layers > 0 and not isinstance(parts, str):
            text += (
                f", backbone_layers={self.backbone_layers}, "
                f"backbone_units={parts.linears[0].out_features}, activation={parts.activation!r}"
            )
        return text if self._parameters.get("sparsity_mask") is None else f"{text}, masked"

    def forward(self, input: Tensor, hx: Tensor, ts: Tensor | float) -> tuple[Tensor, Tensor]:
        """Run one time step.

        Args:
            input: ``[B, I]``, dtype and device of the parameters (half types: see
                :func:`fastltc.ops.cfc`).
            hx: state, ``[B, N]``.
            ts: time since the last step, any unit, not negative: a number, a tensor of one
                element, ``(B,)``, ``(B, 1)`` or, one per neuron, ``(B, N)`` or ``(1, N)``.

        Returns:
            The next state, ``[B, N]``, twice: as output and as state.

        Raises:
            ValueError: if a shape is wrong, or a time step is negative or not finite
                (``RuntimeError`` in compiled code).
            TypeError: if a dtype or a device is wrong.
        """
        _, state = run_step(self, input, hx, ts, ("input", "hx", "ts"))
        return state, state

    def _inputs_and_neurons(self) -> tuple[int, int]:
        return self.input_size, self.hidden_size

    def _run_operator(
        self,
        sequences: Sequences,
        parts: CellParts,
        parameters: list[Tensor],
        all_neurons: bool = False,
    ) -> tuple[Tensor, Tensor]:
        x = sequences.x
        # Compiled code does not use the comparison, which therefore is no guard of it.
        mask = self._mask(x.numel() >= THOROUGH_FROM * self.input_size)
        masks = []
        if mask is not None and self.backbone_layers > 0:
            # The operator has no masks behind a backbone; this spares it one for a rare case.
            for i in (-4,) if self.mode == "pure" else (-8, -6):
                parameters[i] = torch.where(mask != 0, parameters[i], 0)
        elif mask is not None:
            masks = [mask]
        return run_cfc(
            sequences,
            parameters,
            masks,
            [self.hidden_size],
            self.backbone_layers,
            self.mode,
            parts.activation,
            self._dropout_factors(x, parts) if parts.dropouts else None,
        )

    def _find_parts(self, computed: bool = False) -> CellParts | str:
        linears: list[Any] = []
        dropouts: list[Any] = []
        activation = "lecun_tanh"
        heads = CFC_HEADS[:1] if self.mode == "pure" else CFC_HEADS
        wanted: list[tuple[str, Any, tuple[type[nn.Module], ...]]] = []
        if self.backbone_layers > 0:
            backbone: Any = self.backbone
            reason = change("backbone", backbone, (nn.Sequential,), computed)
            if reason is not None:
                return reason
            modules = list(backbone)
            activation = next(
                (
                    name
                    for name, kinds in ACTIVATION_MODULES.items()
                    if len(modules) > 1 and type(modules[1]) in kinds
                ),
                activation,
            )
            has_dropout = any(type(module) is nn.Dropout for module in modules)
            kinds: list[tuple[type[nn.Module], ...]] = []
            for layer in range(self.backbone_layers):
                kinds += (nn.Linear,), ACTIVATION_MODULES[activation]
                if layer and has_dropout:
                    kinds.append((nn.Dropout,))
            if len(kinds) != len(modules):
                return "its backbone has other modules than it is made with"
            for i, (module, kind) in enumerate(zip(modules, kinds, strict=True)):
                wanted.append((f"backbone[{i}]", module, kind))
                if activation == "lecun_tanh" and type(module) in kind and module._modules:
                    inside: Any = module._modules
                    wanted.append((f"backbone[{i}].tanh", inside["tanh"], (nn.Tanh,)))
        own: Any = self._modules
        wanted += [(head, own.get(head), (nn.Linear,)) for head in heads]
        if self.mode != "pure":
            wanted += ("tanh", own["tanh"], (nn.Tanh,)), ("sigmoid", own["sigmoid"], (nn.Sigmoid,))
        for name, module, kind in wanted:
            reason = change(name, module, kind, computed)
            if reason is not None:
                return reason
            if type(module) is nn.GELU and module.approximate != "none":
                return f"its {name} is approximate"
            if isinstance(module, nn.Linear):
                if module.bias is None:
                    return f"its {name} has no bias"
                linears.append(module)
            elif isinstance(module, nn.Dropout):
                dropouts.append(module)
        if len({linear.out_features for linear in linears[: -len(heads)]}) > 1:
            return "the layers of its backbone have different widths"
        return CellParts(tuple(linears), tuple(dropouts), activation)

    def _step(self, x: Tensor, h: Tensor, dt: Tensor | None) -> tuple[Tensor, Tensor]:
        z = torch.cat([x, h], 1)
        if self.backbone_layers > 0:
            z = self.backbone(z)  # type: ignore[misc]  # there is one
        ts: Any = 1.0 if dt is None else dt
        f1 = self._masked_head("ff1", z)
        if self.mode == "pure":
            # As in ncps; it differs from the reference in rounding only.
            h = self.A - self.A * torch.exp(-ts * (self.w_tau.abs() + f1.abs())) * f1
            return h, h
        f1, f2 = self.tanh(f1), self.tanh(self._masked_head("ff2", z))
        gate = self.sigmoid(self.time_a(z) * ts + self.time_b(z))
        h = f1 + gate * f2 if self.mode == "no_gate" else f1 * (1.0 - gate) + gate * f2
        return h, h

    def _masked_head(self, name: str, z: Tensor) -> Tensor:
        head: Any = self._modules[name]
        mask = self._mask(thorough=False)
        if mask is None:
            return head(z)
        # ncps reads the weight and does not call the module, so a weight that a hook should
        # compute is that of the last call, the graph of which may be gone. (The weight that the
        # older spectral_norm leaves has none.)
        compute_parameters(head, spectral=False)
        weight = head.weight
        if not isinstance(weight, Tensor):
            raise TypeError(
                f"{name}: expected a module with a weight, which the mask needs, got "
                f"{type(head).__name__}"
            )
        try:
            masked = torch.where(mask != 0, weight, 0)
        except NotImplementedError:
            raise TypeError(
                f"{name}: expected a weight that a mask can be put on, got "
                f"{type(weight).__name__}; leave ff1 and ff2 out (of torchao's quantize_, by its "
                "filter_fn)"
            ) from None
        return F.linear(z, masked, head.bias)

    def _mask(self, thorough: bool = True) -> Tensor | None:
        """Return the mask, if there is one, whose entries are 0 and 1; see SynapseCache.current."""
        mask: Tensor | None = self._parameters.get("sparsity_mask")
        if mask is None:
            mask = self.sparsity_mask
            if mask is None:
                return None
        if torch.compiler.is_compiling():
            return mask
        return self._rounded.current(mask, True if thorough else None)

    def _operator_parameters(self, parts: CellParts) -> list[Tensor] | None:
        found = read_linears(parts.linears)
        if found is not None and self.mode == "pure":
            found += self.w_tau, self.A
        return found

    def _dropout_factors(self, x: Tensor, parts: CellParts) -> Tensor | None:
        """Draw the factors of every dropout layer for a whole sequence."""
        layers = parts.dropouts
        rates = [layer.p if layer.training else 0.0 for layer in layers]
        if not any(rates):
            return None
        batch, time, _ = x.shape
        bias = parts.linears[0].bias  # [units], or of layers beside each other [K, units]
        ones = x.new_ones(len(layers), batch, time, bias.numel(), dtype=bias.dtype)
        if len(set(rates)) == 1:
            return F.dropout(ones, rates[0])
        return torch.stack(
            [F.dropout(o, rate) for o, rate in zip(ones.unbind(), rates, strict=True)]
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        mask = self._mask()  # refuses a strange one
        own: Any = self.sparsity_mask
        if mask is not None and mask.data_ptr() != own.data_ptr():
            # Compiled code takes the mask as it is.
            with torch.no_grad():
                own.copy_(mask)


def _make_backbone(
    inputs: int, units: int, layers: int, activation: type[nn.Module], dropout: float
) -> nn.Sequential:
    modules: list[nn.Module] = []
    for layer in range(layers):
        modules += [nn.Linear(units if layer else inputs, units), activation()]
        # As in ncps, the first layer has none.
        if layer and dropout > 0.0:
            modules.append(nn.Dropout(dropout))
    return nn.Sequential(*modules)
