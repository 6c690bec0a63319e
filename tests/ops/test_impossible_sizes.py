"""Sizes whose product no integer holds, given to the operators directly.

A count that wraps around is a small allocation, and the kernels would write past it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ltc_cases import random_case, raw_arguments

# Without lengths and time steps, so that only x says how long a sequence is.
PLAIN: dict[str, Any] = {"poison": False, "h0": False, "timespans": None}
OUTPUT_SIZE, ODE_UNFOLDS = -7, -6  # of raw_arguments


def ltc_arguments(**changed: Any) -> list[Any]:
    case = random_case(**PLAIN, return_sequences=False)
    arguments = list(raw_arguments(case, save_states=True))
    assert arguments[ODE_UNFOLDS] == case.options["ode_unfolds"]
    if "ode_unfolds" in changed:
        arguments[ODE_UNFOLDS] = changed["ode_unfolds"]
    if "time" in changed:
        batch, _, inputs = arguments[0].shape
        arguments[0] = arguments[0][:, :1].expand(batch, changed["time"], inputs)
    return arguments


@pytest.mark.parametrize("ode_unfolds", [2**32, 2**62, 2**63 - 1])
def test_ltc_with_too_many_unfolds(ode_unfolds: int) -> None:
    with pytest.raises(RuntimeError, match=r"ode_unfolds: expected at most \d+, got \d+"):
        torch.ops.fastltc.ltc_forward(*ltc_arguments(ode_unfolds=ode_unfolds))


@pytest.mark.parametrize("time", [2**57, 2**58])
def test_ltc_over_too_many_expanded_steps(time: int) -> None:
    with pytest.raises(RuntimeError, match=r"x: expected .* states can be counted"):
        torch.ops.fastltc.ltc_forward(*ltc_arguments(time=time))


def cfc_arguments(time: int, backbone_layers: int) -> tuple[Any, ...]:
    x = torch.randn(4, 1, 2).expand(4, time, 2)
    weights = [t for _ in range(4) for t in (torch.randn(8, 10), torch.randn(8))]
    # Six tensors are what 2 * backbone_layers + 8 wraps around to.
    weights = weights[:6] if backbone_layers else weights
    return (
        *(x, None, None, None, weights, [], [], None, [8], backbone_layers, 0, 0),
        *(False, False, True),
    )


@pytest.mark.parametrize("output_size", [0, -1, 8])
def test_ltc_with_too_few_or_too_many_outputs(output_size: int) -> None:
    arguments = ltc_arguments()
    arguments[OUTPUT_SIZE] = output_size
    neurons = arguments[4][0].numel()
    with pytest.raises(RuntimeError, match=f"expected 1 to .* {neurons}, got {output_size}"):
        torch.ops.fastltc.ltc_forward(*arguments)


@pytest.mark.parametrize("neurons", [0, -1, 2**31, 2**62])
def test_cfc_with_too_few_or_too_many_neurons(neurons: int) -> None:
    arguments = list(cfc_arguments(3, 0))
    arguments[8] = [neurons]
    message = rf"layer_sizes: expected (sizes of 1 or|at most \d+ neurons) \w+, got \[{neurons}\]"
    with pytest.raises(RuntimeError, match=message):
        torch.ops.fastltc.cfc_forward(*arguments)


def test_cfc_with_too_many_backbone_layers() -> None:
    with pytest.raises(RuntimeError, match=f"backbone_layers: expected .*, got {2**63 - 1}"):
        torch.ops.fastltc.cfc_forward(*cfc_arguments(3, 2**63 - 1))


def test_cfc_over_too_many_expanded_steps() -> None:
    with pytest.raises(RuntimeError, match=r"x: expected .* states can be counted"):
        torch.ops.fastltc.cfc_forward(*cfc_arguments(2**57, 0))
