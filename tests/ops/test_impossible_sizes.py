"""Sizes whose product no integer holds, given to the operators directly.

A count that wraps around is a small allocation, and the kernels would write past it.
"""

from __future__ import annotations

from typing import Any

import pytest

from layers import Case, CfcCase, Draw, LtcCase, every_layout, run_raw

# Without lengths and time steps, so that only x says how long a sequence is.
PLAIN: dict[str, Any] = {"poison": False, "h0": False, "timespans": None}


def call(case: Case, **changed: Any) -> None:
    run_raw(case.with_(return_sequences=False), **changed)


@pytest.mark.parametrize("ode_unfolds", [2**32, 2**62, 2**63 - 1])
def test_ltc_with_too_many_unfolds(ode_unfolds: int) -> None:
    with pytest.raises(RuntimeError, match=r"ode_unfolds: expected at most \d+, got \d+"):
        call(LtcCase.random(**PLAIN), ode_unfolds=ode_unfolds)


def test_ltc_with_as_many_unfolds_as_may_be() -> None:
    most = (2**31 - 1) // 64
    case = LtcCase.random(**PLAIN, time=0)
    call(case, ode_unfolds=most)
    with pytest.raises(RuntimeError, match=rf"expected at most {most}, got {most + 1}"):
        call(case, ode_unfolds=most + 1)


@pytest.mark.parametrize("time", [2**57, 2**58])
@every_layout
def test_too_many_expanded_steps(draw: Draw, time: int) -> None:
    case = draw(**PLAIN)
    x = case.data["x"][:, :1]
    with pytest.raises(RuntimeError, match=r"x: expected .* states can be counted"):
        call(case, x=x.expand(-1, time, -1))


@pytest.mark.parametrize("output_size", [0, -1, 8])
def test_ltc_with_too_few_or_too_many_outputs(output_size: int) -> None:
    case = LtcCase.random(**PLAIN)
    with pytest.raises(RuntimeError, match=f"expected 1 to .* {case.neurons}, got {output_size}"):
        call(case, output_size=output_size)


@pytest.mark.parametrize("neurons", [0, -1, 2**31, 2**62])
def test_cfc_with_too_few_or_too_many_neurons(neurons: int) -> None:
    case = CfcCase.random(**PLAIN, layer_sizes=(8,), density=None)
    message = rf"layer_sizes: expected (sizes of 1 or|at most \d+ neurons) \w+, got \[{neurons}\]"
    with pytest.raises(RuntimeError, match=message):
        call(case, layer_sizes=[neurons])


def test_cfc_with_too_many_backbone_layers() -> None:
    case = CfcCase.random(**PLAIN, layer_sizes=(8,), density=None)
    parameters = list(case.parameters.values())
    # Six tensors are what 2 * backbone_layers + 8 wraps around to.
    with pytest.raises(RuntimeError, match=f"backbone_layers: expected .*, got {2**63 - 1}"):
        call(case, parameters=parameters[:6], backbone_layers=2**63 - 1)
