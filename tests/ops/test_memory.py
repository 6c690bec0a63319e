"""Mixed memory in the operators, held against the reference."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastltc.ops import CFC_MODES, cfc, ltc
from layers import (
    CfcCase,
    Draw,
    LtcCase,
    check_against_reference,
    plainly,
    run_operator,
    run_raw,
)

SIZES = [  # batch, time, inputs
    (1, 1, 1),
    (1, 5, 3),
    (3, 0, 2),
    (0, 3, 2),
    (17, 4, 5),
    (33, 2, 31),
    (64, 3, 2),
    (70, 35, 1),
]


@pytest.mark.parametrize("timespans", [None, "BT", "BTN"])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ltc(size: tuple[int, int, int], lengths: bool, timespans: str | None) -> None:
    options: dict[str, Any] = {"memory": True, "lengths": lengths, "timespans": timespans}
    check_against_reference(LtcCase.random(*size, **options))
    check_against_reference(
        LtcCase.random(*size, 33, 5, h0=False, return_sequences=False, maps="", **options)
    )


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_cfc(size: tuple[int, int, int], lengths: bool, mode: str) -> None:
    options: dict[str, Any] = {"memory": True, "lengths": lengths, "mode": mode}
    check_against_reference(CfcCase.random(*size, (7, 3, 1), **options))
    check_against_reference(
        CfcCase.random(
            *size, (6,), backbone_layers=2, dropout=0.5, timespans=None, time_major=True, **options
        )
    )


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(0, 40),
    time=st.integers(0, 6),
    inputs=st.integers(1, 9),
    neurons=st.integers(1, 40),
    density=st.floats(0, 1),
    timespans=st.sampled_from([None, "BT", "BTN"]),
    lengths=st.booleans(),
    h0=st.booleans(),
    return_sequences=st.booleans(),
)
def test_ltc_of_any_size(batch: int, time: int, inputs: int, neurons: int, **options: Any) -> None:
    check_against_reference(LtcCase.random(batch, time, inputs, neurons, 1, memory=True, **options))


def test_the_state_may_have_any_strides() -> None:
    case = LtcCase.random(memory=True)
    h0 = case.data["h0"]
    for strided in (h0.t().contiguous().t(), h0.repeat_interleave(2, -1)[..., ::2]):
        check_against_reference(case.with_(h0=strided))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@plainly
def test_half_types_are_computed_in_float32(draw: Draw, dtype: torch.dtype) -> None:
    case = draw(memory=True, dtype=dtype, lengths=True)
    wide = run_operator(case.to(torch.float32))
    for narrow, expected in zip(run_operator(case), wide, strict=True):
        assert narrow.dtype == dtype
        assert torch.equal(narrow, expected.to(dtype))


@plainly
def test_float32_is_close_to_float64(draw: Draw) -> None:
    case = draw(40, 9, memory=True)
    narrow = run_operator(case.to(torch.float32))
    for got, wide in zip(narrow, run_operator(case), strict=True):
        torch.testing.assert_close(got.double(), wide, rtol=0, atol=2e-5)


def test_what_does_not_fit_is_named() -> None:
    case = LtcCase.random(memory=True)
    good = list(case.memory.values())
    batch, _, inputs = case.data["x"].shape
    neurons = case.neurons
    wrong: dict[str, tuple[list[Any], str]] = {
        "count": (good[:2], "memory: expected three tensors, got 2"),
        "shape": (
            [good[0][:, 1:], *good[1:]],
            f"memory[0]: expected shape [4 N, I] = [{4 * neurons}, {inputs}], got",
        ),
        "bias": ([good[0], good[1][1:], good[2]], "memory[1]: expected shape [4 N]"),
    }
    for memory, text in wrong.values():
        with pytest.raises(ValueError, match=re.escape(text)):
            ltc(*case.arguments(), **case.options, memory=memory)
    with pytest.raises(TypeError, match=re.escape("memory[2]: expected torch.float64")):
        ltc(*case.arguments(), **case.options, memory=[*good[:2], good[2].float()])
    narrow = case.with_(h0=case.data["h0"][:, :neurons])
    with pytest.raises(ValueError, match=re.escape(f"[B, 2 N] = [{batch}, {2 * neurons}], got")):
        run_operator(narrow)
    other = CfcCase.random(memory=True)
    memory = list(other.memory.values())
    with pytest.raises(ValueError, match=re.escape("memory[0]: expected shape [4 N, I]")):
        cfc(*other.arguments(), **other.options, memory=[memory[2], *memory[1:]])
    with pytest.raises(RuntimeError, match="memory: expected three tensors, got 2"):
        run_raw(other, save_states=False, memory=memory[:2])
