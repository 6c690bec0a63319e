"""The CfC operators under PyTorch's subsystems: fake tensors, autograd, autocast, tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor

from cfc_cases import (
    CfcCase,
    operator_arguments,
    random_cfc,
    random_weights,
    raw_arguments,
    run_operator,
    run_reference,
)
from fastltc.ops import cfc
from fastltc.ops.errors import check_has_kernels
from ltc_cases import assert_all_close, change_tensors, leaves_of, with_gradients

CASES: dict[str, dict[str, Any]] = {
    "one cell": {"h0": False, "timespans": None, "density": None, "layer_sizes": (5,)},
    "wired": {"lengths": True, "timespans": "BTN", "time_major": True},
    "pure": {"mode": "pure", "timespans": None},
    "backbone": {"layer_sizes": (5,), "backbone_layers": 3, "dropout": 0.5, "mode": "no_gate"},
    "last step": {"return_sequences": False, "lengths": True},
    "mixed memory": {"memory": True, "lengths": True},
    "empty batch": {"batch": 0},
    "empty sequence": {"time": 0},
    "float32": {"dtype": torch.float32, "batch": 20},
}


def plain_case(name: str) -> CfcCase:
    """Make a case without NaN: opcheck compares with assert_close, to which NaN is not NaN."""
    case = random_cfc(poison=False, **CASES[name])
    if case.lengths is not None:
        for tensor in case.data.values():
            tensor.nan_to_num_()
    return case


@pytest.mark.parametrize("name", CASES)
def test_opcheck_of_the_forward(name: str) -> None:
    case = plain_case(name)
    torch.library.opcheck(
        torch.ops.fastltc.cfc_forward.default, raw_arguments(case, save_states=False)
    )
    torch.library.opcheck(
        torch.ops.fastltc.cfc_forward.default, leaves_of(raw_arguments(case, save_states=True))
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("timespans_grad", [True, False])
def test_opcheck_of_the_backward(name: str, timespans_grad: bool) -> None:
    arguments = raw_arguments(plain_case(name), save_states=True)
    output, hn, states = torch.ops.fastltc.cfc_forward(*arguments)
    grads = torch.randn_like(output), torch.randn_like(hn)
    torch.library.opcheck(
        torch.ops.fastltc.cfc_backward.default,
        (*grads, states, *arguments[:-1], timespans_grad),
    )


@pytest.mark.parametrize("name", CASES)
def test_meta_tensors_have_the_shapes_and_strides_of_real_ones(name: str) -> None:
    def check(real: Any, fake: Any) -> None:
        for r, f in zip(real, fake, strict=True):
            if isinstance(r, (list, tuple)):
                check(r, f)
            else:
                assert f.is_meta
                assert (f.shape, f.stride(), f.dtype) == (r.shape, r.stride(), r.dtype)

    for save_states in (True, False):
        arguments = raw_arguments(random_cfc(**CASES[name]), save_states)
        meta = change_tensors(arguments, lambda t: t.to("meta"))
        real = torch.ops.fastltc.cfc_forward(*arguments)
        check(real, torch.ops.fastltc.cfc_forward(*meta))
    arguments = raw_arguments(random_cfc(**CASES[name]), True)
    output, hn, states = torch.ops.fastltc.cfc_forward(*arguments)
    for timespans_grad in (True, False):
        backward = (output, hn, states, *arguments[:-1], timespans_grad)
        meta = change_tensors(backward, lambda t: t.to("meta"))
        check(torch.ops.fastltc.cfc_backward(*backward), torch.ops.fastltc.cfc_backward(*meta))


@pytest.mark.parametrize("name", CASES)
def test_the_registered_gradients_are_those_of_the_function(name: str) -> None:
    case = random_cfc(**CASES[name])
    weights = random_weights(case)

    def registered(case: CfcCase) -> tuple[Tensor, Tensor]:
        output, hn, states = torch.ops.fastltc.cfc_forward(*raw_arguments(case, True))
        assert not states.requires_grad
        return output, hn

    actual = with_gradients(registered, case, weights)
    expected = with_gradients(run_operator, case, weights)
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in actual)


SECOND_ORDER: dict[str, Callable[[CfcCase], Tensor]] = {
    "function": lambda case: run_operator(case)[0].sum(),
    "operator": lambda case: torch.ops.fastltc.cfc_forward(*raw_arguments(case, True))[0].sum(),
}


@pytest.mark.parametrize("kind", SECOND_ORDER)
def test_a_second_derivative_is_refused_clearly(kind: str) -> None:
    case = random_cfc(poison=False).requiring_grad()
    x, weight = case.data["x"], case.parameters["layer_0.ff1.weight"]
    (grad_x,) = torch.autograd.grad(SECOND_ORDER[kind](case), x, create_graph=True)
    (expected,) = torch.autograd.grad(run_reference(case)[0].sum(), x)
    assert_all_close({"first": grad_x.detach()}, {"first": expected})
    with pytest.raises(NotImplementedError, match="second derivative of the CfC layer"):
        torch.autograd.grad(grad_x.square().sum(), weight)


def test_gradients_without_saved_states_are_refused_clearly() -> None:
    case = random_cfc().requiring_grad()
    output, _, _ = torch.ops.fastltc.cfc_forward(*raw_arguments(case, save_states=False))
    with pytest.raises(RuntimeError, match="save_states=True"):
        output.sum().backward()


def test_gradients_only_where_they_are_asked_for() -> None:
    case = random_cfc()
    bias = case.parameters["layer_1.ff1.bias"].requires_grad_()
    output, _ = run_operator(case)
    output.sum().backward()
    assert bias.grad is not None
    assert case.data["x"].grad is None
    with torch.no_grad():
        assert not run_operator(case)[0].requires_grad
    bias.requires_grad_(False)
    assert not run_operator(case)[0].requires_grad


def test_no_states_are_kept_where_no_gradient_is_asked_for() -> None:
    case = random_cfc(64, 50, layer_sizes=(32,), dtype=torch.float32).requiring_grad()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda t: t):
        with torch.no_grad():
            run_operator(case)
        assert not kept
        run_operator(case)
        assert max(kept) == 64 * 32 * (51 + 50 * 4)


def test_tensors_changed_before_the_backward_are_noticed() -> None:
    case = random_cfc(poison=False).requiring_grad()
    output, _ = run_operator(case)
    with torch.no_grad():
        case.parameters["layer_1.ff1.bias"].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_backward_twice_with_a_retained_graph() -> None:
    case = random_cfc().requiring_grad()
    output, _ = run_operator(case)
    x = case.data["x"]
    first = torch.autograd.grad(output.sum(), x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(output.sum(), x)[0])


def test_activation_checkpointing() -> None:
    case = random_cfc(layer_sizes=(4,), backbone_layers=2, dropout=0.5)
    weights = random_weights(case)

    def checkpointed(case: CfcCase) -> tuple[Tensor, Tensor]:
        return torch.utils.checkpoint.checkpoint(run_operator, case, use_reentrant=False)

    actual = with_gradients(checkpointed, case, weights)
    assert_all_close(actual, with_gradients(run_operator, case, weights), 0.0)


@pytest.mark.parametrize("name", ["wired", "backbone"])
def test_torch_func_grad(name: str) -> None:
    case = random_cfc(**{**CASES[name], "lengths": False})
    first = next(iter(case.parameters))

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        changed = case.with_(x=x, parameters={**case.parameters, first: weight})
        output, hn = run_operator(changed)
        return output.square().sum() + hn.sum()

    actual = torch.func.grad(loss, argnums=(0, 1))(case.data["x"], case.parameters[first])
    leaves = case.requiring_grad()
    pair = leaves.data["x"], leaves.parameters[first]
    expected = torch.autograd.grad(loss(*pair), pair)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("which", ["data", "parameters", "both"])
@pytest.mark.parametrize("name", ["wired", "backbone"])
def test_half_types_are_stored_and_computed_in_float32(
    name: str, half: torch.dtype, which: str
) -> None:
    case = random_cfc(**CASES[name]).to(torch.float32)
    stored_case = case.to(half)
    if which in ("data", "both"):
        case = case.with_(**stored_case.data)
    if which in ("parameters", "both"):
        case = case.with_(parameters=stored_case.parameters, masks=stored_case.masks)
        case = case.with_(dropout=stored_case.dropout)
    weights = random_weights(case.to(torch.float32))
    stored = case.data["x"].dtype
    actual = with_gradients(run_operator, case, [w.to(stored) for w in weights])
    exact = case.to(torch.float32)
    expected = with_gradients(run_operator, exact, [w.to(stored).float() for w in weights])
    for name, wanted in expected.items():
        leaf = case.leaves.get(name.removeprefix("grad of "))
        dtype = stored if leaf is None else leaf.dtype
        assert actual[name].dtype == dtype, name
        assert torch.equal(actual[name], wanted.to(dtype)), name


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["function", "operator"])
def test_autocast_computes_and_returns_float32(half: torch.dtype, kind: str) -> None:
    case = random_cfc(5, dtype=torch.float32)

    def run(case: CfcCase) -> tuple[Tensor, Tensor]:
        if kind == "function":
            return run_operator(case)
        return torch.ops.fastltc.cfc_forward(*raw_arguments(case, True))[:2]

    def cast(case: CfcCase) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", half):
            return run(case)

    weights = random_weights(case)
    assert_all_close(with_gradients(cast, case, weights), with_gradients(run, case, weights), 0.0)

    mixed = case.with_(x=case.data["x"].to(half), h0=case.data["h0"].to(half))
    actual = with_gradients(cast, mixed, weights)
    expected = with_gradients(run, mixed.to(torch.float32), weights)
    for name, wanted in expected.items():
        dtype = half if name in ("grad of x", "grad of h0") else torch.float32
        assert actual[name].dtype == dtype, name
        assert torch.equal(actual[name], wanted.to(dtype)), name


def test_masks_of_another_dtype_are_converted() -> None:
    case = random_cfc()
    other = case.with_(masks=[mask.bool() for mask in case.masks])
    assert torch.equal(run_operator(other)[0], run_operator(case)[0])


@pytest.fixture
def compiler_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Compile anew: a cached graph would hide what the fake kernels say now."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", ["wired", "backbone"])
@pytest.mark.usefixtures("compiler_cache")
def test_compiled_with_any_batch_and_length(name: str, backend: str) -> None:
    options = random_cfc(**CASES[name]).options
    compiled = torch.compile(cfc, fullgraph=True, dynamic=True, backend=backend)

    def run(case: CfcCase) -> tuple[Tensor, Tensor]:
        return compiled(*operator_arguments(case), dropout=case.dropout, **options)

    for batch, time in ((3, 5), (7, 2), (2, 11)):
        case = random_cfc(**{**CASES[name], "batch": batch, "time": time})
        weights = random_weights(case)
        actual = with_gradients(run, case, weights)
        assert_all_close(actual, with_gradients(run_operator, case, weights), 1e-13)


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x of two axes": ({"x": torch.zeros(3, 4).double()}, ValueError, r"x: .*\[B, T, I\]"),
    "x with other features": (
        {"x": torch.zeros(3, 5, 9).double()},
        ValueError,
        r"masks\[0\]: expected shape \[n, K\] = \[5, 14\], got \[5, 9\]",
    ),
    "integer x": ({"x": torch.zeros(3, 5, 4, dtype=torch.int64)}, TypeError, "x: .*int64"),
    "h0 of another batch": (
        {"h0": torch.zeros(1, 10).double()},
        ValueError,
        r"h0: expected shape \[B, N\] = \[3, 10\], got \[1, 10\]",
    ),
    "h0 of another dtype": ({"h0": torch.zeros(3, 10)}, TypeError, "h0: .*float64.*float32"),
    "timespans per step only": (
        {"timespans": torch.ones(5).double()},
        ValueError,
        r"timespans: expected shape \[B, T\] = \[3, 5\], got \[5\]",
    ),
    "timespans of other neurons": (
        {"timespans": torch.ones(3, 5, 2).double()},
        ValueError,
        r"timespans: expected shape \[B, T, N\] = \[3, 5, 10\], got \[3, 5, 2\]",
    ),
    "a negative time step": (
        {"timespans": -torch.ones(3, 5).double()},
        ValueError,
        r"timespans: .*got -1.0 at \[0, 0\] \(15 of 15",
    ),
    "a time step that is not a number": (
        {"timespans": torch.tensor([[1.0, torch.nan, 1, 1, 1]]).double().expand(3, 5)},
        ValueError,
        r"timespans: .*got nan at \[0, 1\]",
    ),
    "too long": (
        {"lengths": torch.tensor([5, 6, 0])},
        ValueError,
        "lengths: expected values of 0 to T = 5, got 0 to 6",
    ),
    "float lengths": ({"lengths": torch.ones(3)}, TypeError, "lengths: expected int64, got .*32"),
    "no cell": ({"layer_sizes": []}, ValueError, r"layer_sizes: .* got \[\]"),
    "a cell without neurons": ({"layer_sizes": [5, 0, 2]}, ValueError, "layer_sizes: .*or more"),
    "other cells": (
        {"layer_sizes": [5, 3]},
        ValueError,
        "masks: expected none or one for each of 2 cells, got 3",
    ),
    "parameters of another mode": (
        {"mode": "pure"},
        ValueError,
        "parameters: expected 12 tensors with 3 cells, 0 backbone layers and mode 'pure', got 24",
    ),
    "a backbone with masks": (
        {"backbone_layers": 1},
        ValueError,
        "backbone_layers: .* got 1 with 3 cells and 3 masks",
    ),
    "dropout without a backbone": (
        {"dropout": torch.ones(1, 3, 5, 4).double()},
        ValueError,
        r"dropout: expected shape \[backbone_layers - 1, B, T, units\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("needs_grad", [False, True])
def test_bad_arguments(name: str, needs_grad: bool) -> None:
    changes, error, match = BAD[name]
    case = random_cfc(poison=False)
    if needs_grad:
        case.parameters["layer_1.ff1.bias"].requires_grad_()
    case = case.with_(**changes)
    with pytest.raises(RuntimeError):
        torch.ops.fastltc.cfc_forward(*raw_arguments(case, save_states=False))
    with pytest.raises(error, match=match):
        run_operator(case)


@pytest.mark.parametrize("needs_grad", [False, True])
def test_bad_parameters_are_named(needs_grad: bool) -> None:
    for options in ({}, {"layer_sizes": (4,), "backbone_layers": 2}, {"mode": "pure"}):
        case = random_cfc(poison=False, **options)
        for name, good in case.parameters.items():
            for bad, error, text in (
                (good[..., :-1], ValueError, r"expected shape \["),
                (good.float(), TypeError, "expected torch.float64"),
            ):
                changed = case.with_(parameters={**case.parameters, name: bad})
                changed.data["x"].requires_grad_(needs_grad)
                with pytest.raises(RuntimeError):
                    torch.ops.fastltc.cfc_forward(*raw_arguments(changed, False))
                short = name.partition(".")[2].removeprefix("0.").removeprefix("1.")
                with pytest.raises(error, match=rf"parameters\[\d+\] \(.*{short}\): {text}"):
                    run_operator(changed)


def test_unknown_names() -> None:
    case = random_cfc()
    with pytest.raises(ValueError, match=r"mode: expected one of .*, got 'impure'"):
        cfc(*operator_arguments(case), **{**case.options, "mode": "impure"})
    with pytest.raises(ValueError, match=r"activation: expected one of .*, got 'sin'"):
        cfc(*operator_arguments(case), **{**case.options, "activation": "sin"})


def test_tensors_on_another_device_say_what_to_do() -> None:
    case = random_cfc()
    meta_x = case.with_(x=case.data["x"].to("meta"))
    with pytest.raises(TypeError, match="expected a tensor on meta"):
        run_operator(meta_x)
    with pytest.raises(NotImplementedError, match=r"no meta kernels.*FASTLTC_CUDA"):
        check_has_kernels("cfc_forward", meta_x.data["x"])
