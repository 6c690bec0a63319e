"""Derivatives beyond one backward pass, and batches of torch.vmap, against the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from layers import (
    Case,
    Draw,
    assert_all_close,
    every_kind,
    few_kinds,
    named,
    plainly,
    random_weights,
    run_operator,
    run_raw,
    run_reference,
)

Run = Callable[[Case], tuple[Tensor, Tensor]]

RUNS: dict[str, Run] = {
    "function": run_operator,
    "operator": lambda case: run_raw(case)[:2],
}


def leaves_of(case: Case) -> dict[str, Tensor]:
    return {name: leaf for name, leaf in case.leaves.items() if leaf is not None}


def on_leaves(run: Run, case: Case) -> Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]:
    """Return the run as a function of the tensors that have gradients."""
    return lambda leaves: run(case.with_(**leaves))


def penalty(run: Run, case: Case, weights: Sequence[Tensor], order: int) -> dict[str, Tensor]:
    """Return the gradients of what gradients of gradients sum up to."""
    case = case.requiring_grad()
    leaves = leaves_of(case)
    total = sum((y * g).sum() for y, g in zip(run(case), weights, strict=True))
    for _ in range(order - 1):
        grads = torch.autograd.grad(
            total, list(leaves.values()), create_graph=True, materialize_grads=True
        )
        # The sine of thousands would be that of their rounding.
        total = sum((grad / grad.detach().norm().clamp(min=1)).sin().sum() for grad in grads)
    grads = torch.autograd.grad(
        total, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, grads, strict=True))


@pytest.mark.parametrize("kind", RUNS)
@every_kind
def test_second_derivatives_are_those_of_the_reference(draw: Draw, kind: str) -> None:
    case = draw().to(torch.float64)
    weights = random_weights(case)
    expected = penalty(run_reference, case, weights, 2)
    assert_all_close(penalty(RUNS[kind], case, weights, 2), expected)


@pytest.mark.parametrize("kind", RUNS)
@plainly
def test_third_derivatives_are_those_of_the_reference(draw: Draw, kind: str) -> None:
    case = draw(2, 3).to(torch.float64)
    weights = random_weights(case)
    expected = penalty(run_reference, case, weights, 3)
    assert_all_close(penalty(RUNS[kind], case, weights, 3), expected)


@plainly
def test_second_derivatives_where_some_results_are_not_used(draw: Draw) -> None:
    case = draw().to(torch.float64)
    output, hn = random_weights(case)
    for weights in ((output, 0 * hn), (0 * output, hn)):
        used = 0 if weights[0].any() else 1

        def part(run: Run, used: int = used) -> Run:
            def only(case: Case) -> Any:
                results = run(case)
                return tuple(y if k == used else y.detach() for k, y in enumerate(results))

            return only

        expected = penalty(part(run_reference), case, weights, 2)
        assert_all_close(penalty(part(run_operator), case, weights, 2), expected)


@few_kinds
def test_forward_mode(draw: Draw) -> None:
    case = draw().to(torch.float64)
    leaves = leaves_of(case)
    tangents = {name: torch.randn_like(leaf) for name, leaf in leaves.items()}
    moved = {
        run: torch.func.jvp(on_leaves(run, case), (leaves,), (tangents,))
        for run in (run_operator, run_reference)
    }
    for got, expected in zip(moved[run_operator], moved[run_reference], strict=True):
        assert_all_close(named(got), named(expected))


@few_kinds
def test_dual_tensors(draw: Draw) -> None:
    case = draw().to(torch.float64)
    leaves = leaves_of(case)
    tangents = {name: torch.randn_like(leaf) for name, leaf in leaves.items()}
    _, expected = torch.func.jvp(on_leaves(run_reference, case), (leaves,), (tangents,))
    with torch.autograd.forward_ad.dual_level():
        dual = {n: torch.autograd.forward_ad.make_dual(t, tangents[n]) for n, t in leaves.items()}
        results = run_operator(case.with_(**dual))
        got = [torch.autograd.forward_ad.unpack_dual(y).tangent for y in results]
    assert_all_close(named(got), named(expected))


@few_kinds
def test_jacobians_and_hessians(draw: Draw) -> None:
    case = draw(1, 3, poison=False).to(torch.float64)
    weight, _ = random_weights(case)

    def outputs(run: Run) -> Callable[[Tensor], Tensor]:
        return lambda x: run(case.with_(x=x))[0]

    def scalar(run: Run) -> Callable[[Tensor], Tensor]:
        return lambda x: (outputs(run)(x) * weight).sum()

    x = case.data["x"]
    jacobian = torch.func.jacrev(outputs(run_reference))(x)
    hessian = torch.func.hessian(scalar(run_reference))(x)
    jacobians = {
        "jacrev": torch.func.jacrev(outputs(run_operator))(x),
        "jacfwd": torch.func.jacfwd(outputs(run_operator))(x),
        "one by one": torch.autograd.functional.jacobian(outputs(run_operator), x),
        "vectorized": torch.autograd.functional.jacobian(outputs(run_operator), x, vectorize=True),
    }
    assert_all_close(jacobians, dict.fromkeys(jacobians, jacobian))
    hessians = {
        "hessian": torch.func.hessian(scalar(run_operator))(x),
        "jacrev of jacrev": torch.func.jacrev(torch.func.jacrev(scalar(run_operator)))(x),
        "one by one": torch.autograd.functional.hessian(scalar(run_operator), x),
        "vectorized": torch.autograd.functional.hessian(scalar(run_operator), x, vectorize=True),
    }
    assert_all_close(hessians, dict.fromkeys(hessians, hessian))


def entries_of(
    case: Case, names: set[str], count: int = 3
) -> tuple[dict[str, Any], list[Any], dict[str, int | None]]:
    """Return leaves with ``count`` entries of those named, the leaves of each, and the axes."""
    leaves = leaves_of(case)
    stacked = {
        name: torch.stack([leaf + 0.01 * k for k in range(count)]) if name in names else leaf
        for name, leaf in leaves.items()
    }
    each = [{n: t[k] if n in names else t for n, t in stacked.items()} for k in range(count)]
    return stacked, each, {name: 0 if name in names else None for name in leaves}


def some_leaves(case: Case, what: str) -> set[str]:
    leaves = set(leaves_of(case))
    data = {name for name in case.data if name in leaves}
    return {"input": {"x"}, "data": data, "parameters": leaves - data, "all": leaves}[what]


@pytest.mark.parametrize("what", ["input", "data", "parameters", "all"])
@few_kinds
def test_vmap(draw: Draw, what: str) -> None:
    case = draw().to(torch.float64)
    names = some_leaves(case, what)
    stacked, each, dims = entries_of(case, names)
    got = torch.func.vmap(on_leaves(run_operator, case), (dims,))(stacked)
    results = [run_reference(case.with_(**leaves)) for leaves in each]
    expected = [torch.stack(entries) for entries in zip(*results, strict=True)]
    assert_all_close(named(got), named(expected))


@pytest.mark.parametrize("what", ["input", "data", "parameters", "all"])
@few_kinds
def test_gradients_of_vmap_and_vmap_of_gradients(draw: Draw, what: str) -> None:
    case = draw().to(torch.float64)
    names = some_leaves(case, what)
    stacked, each, dims = entries_of(case, names)
    weights = random_weights(case)

    def loss(run: Run) -> Callable[[dict[str, Tensor]], Tensor]:
        def of(leaves: dict[str, Tensor]) -> Tensor:
            results = run(case.with_(**leaves))
            total: Any = sum((y * g).sum() for y, g in zip(results, weights, strict=True))
            return total

        return of

    grads = [torch.func.grad(loss(run_reference))(leaves) for leaves in each]
    of_each = {name: torch.stack([grad[name] for grad in grads]) for name in stacked}
    got = torch.func.vmap(torch.func.grad(loss(run_operator)), (dims,))(stacked)
    assert_all_close(got, of_each)

    def total(leaves: dict[str, Tensor]) -> Tensor:
        return torch.func.vmap(loss(run_operator), (dims,))(leaves).sum()

    expected = {n: grad if n in names else grad.sum(0) for n, grad in of_each.items()}
    assert_all_close(torch.func.grad(total)(stacked), expected)
    plain = {name: leaf.detach().requires_grad_() for name, leaf in stacked.items()}
    total(plain).backward()
    assert_all_close({n: leaf.grad for n, leaf in plain.items()}, expected)


@plainly
def test_batched_gradients(draw: Draw) -> None:
    case = draw().to(torch.float64).requiring_grad()
    leaves = leaves_of(case)
    output, hn = run_operator(case)
    weights = [torch.randn(3, *y.shape, dtype=y.dtype) for y in (output, hn)]
    got = torch.autograd.grad(
        (output, hn), list(leaves.values()), weights, is_grads_batched=True, retain_graph=True
    )
    for k in range(3):
        expected = torch.autograd.grad(
            *((output, hn), list(leaves.values()), [w[k] for w in weights]), retain_graph=True
        )
        entry = dict(zip(leaves, (grad[k] for grad in got), strict=True))
        assert_all_close(entry, dict(zip(leaves, expected, strict=True)))
