"""Mixed memory in the operators, held against the reference."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cfc_cases
import ltc_cases
from cfc_cases import random_cfc
from fastltc.ops import CFC_MODES, cfc, ltc
from ltc_cases import operator_arguments, random_case

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
    ltc_cases.check_against_reference(random_case(*size, **options))
    ltc_cases.check_against_reference(
        random_case(*size, 33, 5, h0=False, return_sequences=False, maps="", **options)
    )


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_cfc(size: tuple[int, int, int], lengths: bool, mode: str) -> None:
    options: dict[str, Any] = {"memory": True, "lengths": lengths, "mode": mode}
    cfc_cases.check_against_reference(random_cfc(*size, (7, 3, 1), **options))
    cfc_cases.check_against_reference(
        random_cfc(
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
    ltc_cases.check_against_reference(
        random_case(batch, time, inputs, neurons, 1, memory=True, **options)
    )


def test_the_state_may_have_any_strides() -> None:
    case = random_case(memory=True)
    h0 = case.data["h0"]
    for strided in (h0.t().contiguous().t(), h0.repeat_interleave(2, -1)[..., ::2]):
        ltc_cases.check_against_reference(case.with_(h0=strided))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    case = random_case(memory=True, dtype=dtype, lengths=True)
    output, hn = ltc_cases.run_operator(case)
    wide_output, wide_hn = ltc_cases.run_operator(case.to(torch.float32))
    assert output.dtype == hn.dtype == dtype
    assert torch.equal(output, wide_output.to(dtype))
    assert torch.equal(hn, wide_hn.to(dtype))
    narrow = random_cfc(memory=True, dtype=dtype)
    output, _ = cfc_cases.run_operator(narrow)
    wide_output, _ = cfc_cases.run_operator(narrow.to(torch.float32))
    assert torch.equal(output, wide_output.to(dtype))


def test_float32_is_close_to_float64() -> None:
    for case, run in (
        (random_case(40, 9, memory=True, poison=False), ltc_cases.run_operator),
        (random_cfc(40, 9, memory=True), cfc_cases.run_operator),
    ):
        for narrow, wide in zip(run(case.to(torch.float32)), run(case), strict=True):
            torch.testing.assert_close(narrow.double(), wide, rtol=0, atol=2e-5)


def test_what_does_not_fit_is_named() -> None:
    case = random_case(memory=True)
    good = list(case.memory.values())
    batch, _, inputs = case.data["x"].shape
    neurons = case.mask.shape[0]
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
            ltc(*operator_arguments(case), **case.options, memory=memory)
    with pytest.raises(TypeError, match=re.escape("memory[2]: expected torch.float64")):
        ltc(*operator_arguments(case), **case.options, memory=[*good[:2], good[2].float()])
    narrow = case.with_(h0=case.data["h0"][:, :neurons])
    with pytest.raises(ValueError, match=re.escape(f"[B, 2 N] = [{batch}, {2 * neurons}], got")):
        ltc_cases.run_operator(narrow)
    other = random_cfc(memory=True)
    memory = list(other.memory.values())
    with pytest.raises(ValueError, match=re.escape("memory[0]: expected shape [4 N, I]")):
        cfc(*cfc_cases.operator_arguments(other), **other.options, memory=[memory[2], *memory[1:]])
    arguments = list(cfc_cases.raw_arguments(other, save_states=False))
    arguments[5] = memory[:2]
    with pytest.raises(RuntimeError, match="memory: expected three tensors, got 2"):
        torch.ops.fastltc.cfc_forward(*arguments)
