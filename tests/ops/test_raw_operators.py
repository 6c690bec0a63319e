"""What the operators refuse that the functions above them never pass on, and what they say."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from fastltc.ops import mask_entries
from layers import Case, CfcCase, Draw, LtcCase, backward_arguments, plainly, raw_arguments, run_raw

MOST = 2**31 // 64 - 1  # neurons, features, unfolds or layers
ONE = torch.zeros(1, dtype=torch.float64)


def refused(case: Case, text: str, **changed: Any) -> None:
    with pytest.raises(RuntimeError, match=re.escape(text)):
        run_raw(case, save_states=False, **changed)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"parameters": []}, "parameters: expected 15 tensors, got 0"),
        ({"x": ONE.expand(1, 1, MOST + 1)}, f"x: expected at most {MOST} features, got {MOST + 1}"),
        ({"cm": torch.tensor(0.5).double()}, "output_size: expected 1 to the number of neurons, 0"),
        ({"cm": ONE.expand(MOST + 1)}, f"cm: expected at most {MOST} neurons, got {MOST + 1}"),
        (
            {"cm": ONE.expand(2**13, 2**12), "x": ONE.expand(1, 1, 2**13)},
            f"cm: expected at most {MOST} neurons, got {2**25}",
        ),
    ],
)
def test_ltc(changed: dict[str, Any], text: str) -> None:
    parts = LtcCase.random(poison=False, h0=False, timespans=None)
    given = {name: value for name, value in changed.items() if name not in parts.parameters}
    refused(parts.with_(**{k: v for k, v in changed.items() if k not in given}), text, **given)


WIDE = ONE.expand(MOST, 1, 1)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"mode": 3}, "mode: expected 0, 1 or 2, got 3"),
        ({"mode": -1}, "mode: expected 0, 1 or 2, got -1"),
        ({"activation": 5}, "activation: expected 0 to 4, got 5"),
        ({"activation": -1}, "activation: expected 0 to 4, got -1"),
        ({"parameters": []}, "backbone_layers: expected at most as many as there are parameters"),
        ({"output_size": 0}, "output_size: expected 1 to 5 neurons, got 0"),
        ({"backbone_layers": -1}, "backbone_layers: expected 0, or more with one cell and no"),
        (
            {"layer_sizes": [MOST] * 200, "parameters": [WIDE], "x": ONE.expand(1, 1, MOST)},
            f"parameters: expected fewer layers, got {MOST}",
        ),
        (
            {"parameters": [ONE.expand(MOST + 1, 9)] * 12},
            f"parameters: expected at most {MOST} backbone units, got {MOST + 1}",
        ),
        ({"parameters": [ONE] * 12}, "parameters[0] (backbone 0 weight): expected shape [0, 9]"),
    ],
)
def test_cfc(changed: dict[str, Any], text: str) -> None:
    case = CfcCase.random(
        poison=False, h0=False, timespans=None, density=None, layer_sizes=(5,), backbone_layers=2
    )
    refused(case, text, **changed)


@pytest.mark.parametrize("return_sequences", [True, False])
@plainly
def test_gradients_of_other_shapes(draw: Draw, return_sequences: bool) -> None:
    case = draw(poison=False, return_sequences=return_sequences)
    output, hn, states = run_raw(case)
    for grads, name in (((output[:1], None), "grad_output"), ((None, hn[:1]), "grad_hn")):
        with pytest.raises(RuntimeError, match=rf"{name}: expected shape \[B, "):
            case.backward(*backward_arguments(case, grads, states, False))


def of_the_cpu(op: Any, *arguments: Any) -> Any:
    """Call the kernels of the CPU, whatever devices the tensors are on."""
    return op.default.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *arguments)


@plainly
def test_tensors_of_which_some_are_elsewhere(draw: Draw) -> None:
    case = draw(poison=False, lengths=True, resets=True)
    elsewhere = [("h0", {}), ("timespans", {}), (case.some_parameter, {})]
    elsewhere += [("lengths", {"lengths": case.lengths}), ("resets", {"resets": case.resets})]
    for name, own in elsewhere:
        good = {**case.data, **case.parameters, **own}[name]
        bad = case.with_(**{name: good.to("meta")})
        message = r"expected a tensor on cpu, where .*, got one on another device"
        with pytest.raises(RuntimeError, match=message):
            of_the_cpu(case.forward, *raw_arguments(bad, False))


@plainly
def test_dtypes_without_a_name(draw: Draw) -> None:
    case = draw(poison=False)
    refused(case, "at most 64 bits, got another dtype", x=case.data["x"].to(torch.uint16))


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.5, "-0.5"), (-2.0, "-2.0"), (-1e-5, "-1e-05"), (-1e16, "-1e+16"), (-torch.inf, "-inf")],
)
def test_numbers_are_written_as_python_does(value: float, text: str) -> None:
    case = LtcCase.random(poison=False, timespans="BT")
    refused(case, f"got {text} at [0, 0]", timespans=torch.full((3, 5), value, dtype=torch.float64))


def test_masked_products() -> None:
    x, weight = torch.zeros(3, 6), torch.zeros(5, 6)
    entries = mask_entries(torch.ones(5, 6))

    def wrong(message: str, x: Tensor, weight: Tensor, entries: Tensor) -> None:
        with pytest.raises(RuntimeError, match=message):
            torch.ops.fastltc.masked_linear(x, weight, None, entries)

    wrong(r"x: expected shape \[B, I\], got \[6\]", x[0], weight, entries)
    wrong("entries: expected 13 pointers", x, weight, entries[:12])
    wrong("entries: expected the first column pointer to be 0", x, weight, entries + 1)
    by_input = entries.clone()
    by_input[6 + 30] = 1
    wrong("entries: by inputs: expected the first column pointer", x, weight, by_input)
    below = entries.clone()
    below[-2] = -1
    wrong(r"entries: expected the place of output 3 and input 5 .*, got -1", x, weight, below)
    with pytest.raises(RuntimeError, match=r"grad_output: expected shape \[B, O\] = \[3, 5\]"):
        torch.ops.fastltc.masked_linear_backward(x, x, weight, entries, False)


def test_a_list_that_was_good_is_looked_at_again() -> None:
    x, weight = torch.randn(4, 6), torch.randn(5, 6)
    call = torch.ops.fastltc.masked_linear
    # More of them than are remembered.
    for _ in range(70):
        mask = torch.rand(5, 6) < 0.5
        entries = mask_entries(mask)
        for _ in range(2):
            torch.testing.assert_close(call(x, weight, None, entries), x @ (weight * mask).T)
    entries = mask_entries(torch.ones(5, 6))
    call(x, weight, None, entries)
    with pytest.raises(RuntimeError, match="entries: expected the last column pointer to be"):
        call(torch.randn(4, 5), torch.randn(6, 5), None, entries)
    entries.data[-1] = 7
    with pytest.raises(RuntimeError, match="entries: expected the place of output 4 and input 5"):
        call(x, weight, None, entries)
