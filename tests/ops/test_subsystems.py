"""The operators of all cells under PyTorch's subsystems: fake tensors, autograd, compilers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor

from layers import (
    Case,
    CfcCase,
    Draw,
    LtcCase,
    assert_all_close,
    assert_same_bits,
    backward_arguments,
    change_tensors,
    every_kind,
    few_kinds,
    plainly,
    random_weights,
    raw_arguments,
    run_operator,
    run_raw,
    with_gradients,
)


def leaves_of(arguments: Any) -> Any:
    return change_tensors(
        arguments, lambda t: t.detach().requires_grad_() if t.is_floating_point() else t
    )


@every_kind
def test_opcheck_of_the_forward(draw: Draw) -> None:
    # Without NaN: opcheck compares with assert_close, to which NaN is not NaN.
    case = draw(poison=False)
    if case.lengths is not None:
        # It compares the saved states too, which are not written behind the longest sample.
        case.lengths[0] = 5
        for tensor in case.data.values():
            tensor.nan_to_num_()
    forward = case.forward.default
    torch.library.opcheck(forward, raw_arguments(case, save_states=False))
    torch.library.opcheck(forward, leaves_of(raw_arguments(case, save_states=True)))


@every_kind
@pytest.mark.parametrize("timespans_grad", [True, False])
def test_opcheck_of_the_backward(draw: Draw, timespans_grad: bool) -> None:
    case = draw(poison=False)
    if case.lengths is not None:
        for tensor in case.data.values():
            tensor.nan_to_num_()
    output, hn, states = run_raw(case)
    grads = torch.randn_like(output), torch.randn_like(hn)
    arguments = backward_arguments(case, grads, states, timespans_grad)
    torch.library.opcheck(case.backward.default, arguments)


def check_meta(op: Any, arguments: tuple[Any, ...]) -> None:
    """Compare shapes, strides and types of what comes out of meta tensors and of real ones."""

    def compare(real: Any, fake: Any) -> None:
        for r, f in zip(real, fake, strict=True):
            if isinstance(r, (list, tuple)):
                compare(r, f)
            else:
                assert f.is_meta
                assert (f.shape, f.stride(), f.dtype) == (r.shape, r.stride(), r.dtype)

    compare(op(*arguments), op(*change_tensors(arguments, lambda t: t.to("meta"))))


@every_kind
def test_meta_tensors_have_the_shapes_and_strides_of_real_ones(draw: Draw) -> None:
    for save_states in (True, False):
        case = draw()
        check_meta(case.forward, raw_arguments(case, save_states))


@every_kind
@pytest.mark.parametrize("timespans_grad", [True, False])
def test_meta_gradients_have_the_shapes_and_strides_of_real_ones(
    draw: Draw, timespans_grad: bool
) -> None:
    case = draw()
    *outputs, states = run_raw(case)
    check_meta(case.backward, backward_arguments(case, outputs, states, timespans_grad))


def run_registered(case: Case) -> tuple[Tensor, Tensor]:
    output, hn, states = run_raw(case)
    assert not states.requires_grad
    return output, hn


RUNS: dict[str, Callable[[Case], tuple[Tensor, Tensor]]] = {
    "function": run_operator,
    "operator": run_registered,
}


@every_kind
def test_the_registered_gradients_are_those_of_the_function(draw: Draw) -> None:
    case = draw()
    weights = random_weights(case)
    expected = with_gradients(run_operator, case, weights)
    assert_same_bits(with_gradients(run_registered, case, weights), expected)


@plainly
def test_gradients_without_saved_states_are_refused_clearly(draw: Draw) -> None:
    output, _, _ = run_raw(draw().requiring_grad(), save_states=False)
    with pytest.raises(RuntimeError, match="save_states=True"):
        output.sum().backward()


@plainly
def test_gradients_only_where_they_are_asked_for(draw: Draw) -> None:
    case = draw()
    parameter = case.parameters[case.some_parameter].requires_grad_()
    output, _ = run_operator(case)
    output.sum().backward()
    assert parameter.grad is not None
    assert case.data["x"].grad is None
    with torch.no_grad():
        assert not run_operator(case)[0].requires_grad
    parameter.requires_grad_(False)
    assert not run_operator(case)[0].requires_grad


@pytest.mark.parametrize(
    ("draw", "states"),
    [
        (Draw(LtcCase, {"neurons": 64, "density": 0.1}), 64 * 64 * 51),
        (Draw(CfcCase, {"layer_sizes": (32,)}), 64 * 32 * (51 + 50 * 4)),
    ],
    ids=["LTC", "CfC"],
)
def test_no_states_are_kept_where_no_gradient_is_asked_for(draw: Draw, states: int) -> None:
    case = draw(64, 50, dtype=torch.float32).requiring_grad()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda t: t):
        with torch.no_grad():
            run_operator(case)
        assert not kept
        run_operator(case)
        assert max(kept) == states


@plainly
def test_tensors_changed_before_the_backward_are_noticed(draw: Draw) -> None:
    case = draw(poison=False).requiring_grad()
    output, _ = run_operator(case)
    with torch.no_grad():
        case.parameters[case.some_parameter].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@plainly
def test_backward_twice_with_a_retained_graph(draw: Draw) -> None:
    case = draw().requiring_grad()
    output, _ = run_operator(case)
    x = case.data["x"]
    first = torch.autograd.grad(output.sum(), x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(output.sum(), x)[0])


@few_kinds
def test_activation_checkpointing(draw: Draw) -> None:
    case = draw()
    weights = random_weights(case)

    def checkpointed(case: Case) -> tuple[Tensor, Tensor]:
        return torch.utils.checkpoint.checkpoint(run_operator, case, use_reentrant=False)

    actual = with_gradients(checkpointed, case, weights)
    assert_all_close(actual, with_gradients(run_operator, case, weights), 0.0)


@few_kinds
def test_torch_func_grad(draw: Draw) -> None:
    case = draw(lengths=False)
    names = ("x", case.some_parameter, next(iter(case.parameters)))

    def loss(*values: Tensor) -> Tensor:
        output, hn = run_operator(case.with_(**dict(zip(names, values, strict=True))))
        return output.square().sum() + hn.sum()

    actual = torch.func.grad(loss, argnums=(0, 1, 2))(*(case.leaves[name] for name in names))
    leaves = case.requiring_grad().leaves
    used = [leaves[name] for name in names]
    expected = torch.autograd.grad(loss(*used), used)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("which", ["data", "parameters", "both"])
@few_kinds
def test_half_types_are_stored_and_computed_in_float32(
    draw: Draw, which: str, half: torch.dtype
) -> None:
    case = draw(5, dtype=torch.float32)
    narrow = case.to(half)
    if which in ("data", "both"):
        case = case.with_(**narrow.data)
    if which in ("parameters", "both"):
        case = case.with_(**narrow.parameters, masks=narrow.masks, dropout=narrow.dropout)
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
@pytest.mark.parametrize("kind", RUNS)
@plainly
def test_autocast_computes_and_returns_float32(draw: Draw, kind: str, half: torch.dtype) -> None:
    case = draw(5, dtype=torch.float32)
    run = RUNS[kind]

    def cast(case: Case) -> tuple[Tensor, Tensor]:
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


@plainly
def test_autocast_leaves_float64_alone(draw: Draw) -> None:
    case = draw()
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = run_operator(case)
    assert output.dtype == torch.float64
    assert torch.equal(output, run_operator(case)[0])


def test_masks_of_another_dtype_are_converted() -> None:
    case = CfcCase.random()
    other = case.with_(masks=[mask.bool() for mask in case.masks])
    assert torch.equal(run_operator(other)[0], run_operator(case)[0])


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@few_kinds
@pytest.mark.usefixtures("compiler_cache")
def test_compiled_with_any_batch_and_length(draw: Draw, backend: str) -> None:
    compiled = torch.compile(draw.cell.function, fullgraph=True, dynamic=True, backend=backend)

    def run(case: Case) -> tuple[Tensor, Tensor]:
        return compiled(*case.arguments(), **case.keywords())

    for batch, time in ((3, 5), (7, 2), (2, 11)):
        case = draw(batch=batch, time=time)
        weights = random_weights(case)
        actual = with_gradients(run, case, weights)
        assert_all_close(actual, with_gradients(run_operator, case, weights), 1e-13)
