"""The networks that are timed, and the check that fastltc and ncps compute the same with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import ncps.torch
import torch
from ncps.wirings import AutoNCP, FullyConnected
from torch import Tensor, nn

import fastltc

# Only shows that everything runs.
QUICK = os.environ.get("FASTLTC_BENCH_QUICK", "") not in ("", "0")

UNFOLDS = 6
# Both compute in float32 with sums in another order; relative to the largest value of a tensor. The
# gradient of cm is what is left of much larger terms, because a capacitance does nothing to a
# settled neuron: in float32 ncps itself is 5e-5 away from its gradient in float64.
TOLERANCE = 1e-5
TOLERANCE_CM = 1e-3
# Of sigmoids of medium precision.
TOLERANCE_MEDIUM = 2e-2


@dataclass(frozen=True)
class Case:
    """A layer and the sizes of its input ``[B, T, I]``.

    ``make`` returns the layer of a package that has it under the name that ncps uses.
    """

    name: str
    make: Callable[[Any, int], Any]
    units: int
    inputs: int
    batch: int
    time: int

    def __str__(self) -> str:
        return f"{self.name}, I={self.inputs}, B={self.batch}, T={self.time}"

    def shortened(self) -> Case:
        """Return a case of few time steps for the quick mode, else the case itself."""
        return replace(self, time=min(self.time, 4)) if QUICK else self


def _case(*arguments: Any) -> Case:
    return Case(*arguments).shortened()


def _ltc(wiring: Callable[[], Any]) -> Callable[[Any, int], Any]:
    return lambda package, inputs: package.LTC(inputs, wiring(), ode_unfolds=UNFOLDS)


def _cfc(units: Callable[[], Any]) -> Callable[[Any, int], Any]:
    return lambda package, inputs: package.CfC(inputs, units())


def _mixed(kind: str) -> Callable[[Any, int], Any]:
    return lambda package, inputs: getattr(package, kind)(inputs, AutoNCP(19, 2), mixed_memory=True)


_NCP_19 = _ltc(lambda: AutoNCP(19, 2))
_CFC_NCP_19 = _cfc(lambda: AutoNCP(19, 2))

CASES = {
    "auto_ncp_19": _case("AutoNCP(19, 2)", _NCP_19, 19, 16, 128, 32),
    "auto_ncp_64": _case("AutoNCP(64, 8)", _ltc(lambda: AutoNCP(64, 8)), 64, 32, 32, 128),
    "fully_connected_64": _case(
        "FullyConnected(64)", _ltc(lambda: FullyConnected(64)), 64, 32, 64, 64
    ),
    "one_step": _case("AutoNCP(19, 2)", _NCP_19, 19, 16, 1, 1),
    "one_sequence": _case("AutoNCP(19, 2)", _NCP_19, 19, 16, 1, 32),
    "cfc_auto_ncp_19": _case("CfC, AutoNCP(19, 2)", _CFC_NCP_19, 19, 16, 128, 32),
    "cfc_auto_ncp_64": _case("CfC, AutoNCP(64, 8)", _cfc(lambda: AutoNCP(64, 8)), 64, 32, 32, 128),
    "cfc_64": _case("CfC, 64 units, backbone of 128", _cfc(lambda: 64), 64, 32, 64, 64),
    "mixed_auto_ncp_19": _case("mixed memory, AutoNCP(19, 2)", _mixed("LTC"), 19, 16, 128, 32),
    "cfc_mixed_auto_ncp_19": _case(
        "CfC, mixed memory, AutoNCP(19, 2)", _mixed("CfC"), 19, 16, 128, 32
    ),
    "cfc_one_step": _case("CfC, AutoNCP(19, 2)", _CFC_NCP_19, 19, 16, 1, 1),
    "streams_64": _case("AutoNCP(19, 2)", _NCP_19, 19, 16, 64, 1),
    "cfc_streams_64": _case("CfC, AutoNCP(19, 2)", _CFC_NCP_19, 19, 16, 64, 1),
}


class Layer:
    """A recurrent layer with data of its own, and the calls that are timed.

    Args:
        module: called as ``module(x)`` or ``module(x, hx)``; returns ``(output, state)``.
        x: ``[B, T, I]``.
    """

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        self.module = module
        # Ahead of such a layer there usually is another one, which wants the gradient.
        self.x = x.clone().requires_grad_()
        with torch.no_grad():
            output, self.hx = module(x)
        generator = torch.Generator().manual_seed(1)
        self.grad_output = torch.randn(output.shape, generator=generator).to(x.device)

    def training_step(self) -> None:
        """Forward and backward, with the gradients of the parameters and the input."""
        self.x.grad = None
        self.module.zero_grad(set_to_none=True)
        self.module(self.x)[0].backward(self.grad_output)

    def forward(self) -> None:
        """The whole call of the module, as in inference."""
        with torch.no_grad():
            self.module(self.x)

    def results(self) -> Iterator[tuple[str, Tensor]]:
        """Run once; return output, last state and all gradients, by name."""
        output, hn = self.module(self.x, self.hx)
        wanted = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        grads = torch.autograd.grad(output, [self.x, *wanted.values()], self.grad_output)
        yield "output", output.detach()
        for name, state in zip(("hn", "cn"), hn if isinstance(hn, tuple) else (hn,), strict=False):
            yield name, state.detach()
        for name, grad in zip(["x", *wanted], grads, strict=True):
            yield f"gradient of {name}", grad


class Layers:
    """fastltc, ncps and torch.nn.LSTM for one case, with the same input, on one device."""

    def __init__(self, case: Case, device: str = "cpu") -> None:
        self.case = case
        self._device = device
        torch.manual_seed(0)
        self._x = torch.randn(case.batch, case.time, case.inputs).to(device)
        self._ncps = case.make(ncps.torch, case.inputs).to(device)

    @cached_property
    def fastltc(self) -> Layer:
        module = self.case.make(fastltc, self.case.inputs).to(self._device)
        module.load_state_dict(self._ncps.state_dict())
        return Layer(module, self._x)

    @cached_property
    def ncps(self) -> Layer:
        return Layer(self._ncps, self._x)

    @cached_property
    def lstm(self) -> Layer:
        lstm = nn.LSTM(self.case.inputs, self.case.units, batch_first=True)
        return Layer(lstm.to(self._device), self._x)

    @property
    def evaluations(self) -> int:
        """Sigmoids of one forward."""
        module: Any = self.fastltc.module
        per_step = module.synapse_count * UNFOLDS + module.sensory_synapse_count
        return int(per_step) * self.case.batch * self.case.time

    def check(self, tolerance: float = TOLERANCE) -> float:
        """Compare fastltc with ncps; return the largest relative difference.

        Args:
            tolerance: of everything; of the gradient of cm at least `TOLERANCE_CM`.

        Raises:
            AssertionError: if a result differs by more than the tolerance, with its name.
        """
        worst = 0.0
        pairs = zip(self.fastltc.results(), self.ncps.results(), strict=True)
        for (name, ours), (their_name, theirs) in pairs:
            assert name == their_name
            error = float((ours - theirs).abs().max() / theirs.abs().max())
            allowed = max(tolerance, TOLERANCE_CM if name.endswith(".cm") else 0)
            # Also catches NaN.
            assert error <= allowed, f"{self.case}: {name} differs by {error:.1e} from ncps"
            worst = max(worst, error)
        return worst
