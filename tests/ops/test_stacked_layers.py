"""Layers beside each other in one call, held against the reference of each by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastltc.ops import stacked_synapse_list
from layers import (
    Case,
    CfcCase,
    Draw,
    assert_all_close,
    change_tensors,
    draws,
    over,
    run_reference,
)
from layers.case import by_schema, poisoned

KINDS = {
    name: draw
    for name, draw in draws("kinds").items()
    if not draw.options.get("memory") and draw.options.get("dtype") != torch.float32
}
every_kind = over(KINDS)
# As many as fill a register in part, in whole, and more than one, of any instruction set; with
# batches for which networks are the lanes, and for which they run one after another.
COUNTS_AND_BATCHES = [(1, 3), (2, 1), (3, 40), (8, 1), (17, 2)]


def draw_layers(draw: Draw, count: int, **options: Any) -> list[Case]:
    """Draw layers that share time, and masks where the cell wants it; absent weights are NaN."""
    cases = [draw(**options, poison=False) for _ in range(count)]
    first = cases[0]
    for case in cases[1:]:
        case.lengths, case.resets = first.lengths, first.resets
        if isinstance(case, CfcCase):
            case.masks = first.masks
        spans = first.data["timespans"]
        if spans is not None and spans.dim() == 2:
            case.data["timespans"] = spans
        if case.lengths is not None:
            behind = torch.arange(case.data["x"].shape[1]) >= case.lengths[:, None]
            for name in ("x", "timespans"):
                if case.data[name] is not None:
                    case.data[name].nan_to_num_()[behind] = torch.nan
    return [poisoned(case) for case in cases]


def beside(cases: list[Case]) -> Case:
    """Return the case of all layers; what it calls masks are the lists, if there are any."""
    first = cases[0]

    def joined(name: str) -> Any:
        tensor = first.data[name]
        if tensor is None or (name == "timespans" and tensor.dim() == 2):
            return tensor
        return torch.cat([case.data[name] for case in cases], -1)

    parameters = {
        name: None if t is None else torch.stack([case.parameters[name] for case in cases])
        for name, t in first.parameters.items()
    }
    factors = None
    if first.dropout is not None:
        factors = torch.cat([case.dropout for case in cases], -1)
    data = {name: joined(name) for name in first.data}
    return first.with_(data=data, parameters=parameters, dropout=factors)


def raw_values(cases: list[Case]) -> dict[str, Any]:
    """Return what is special of a raw operator's arguments."""
    case = beside(cases)
    if isinstance(case, CfcCase):
        return case.raw()
    names = ("synapses", "sensory_synapses")
    lists = {
        name: stacked_synapse_list(torch.stack([c.masks[k] for c in cases]))
        for k, name in enumerate(names)
    }
    own = cases[0].raw() | lists
    return own | {"parameters": [t for t in case.parameters.values() if t is not None]}


def forward_arguments(cases: list[Case], save_states: bool) -> tuple[Any, ...]:
    case = beside(cases)
    return by_schema(case.forward, case, save_states=save_states, **raw_values(cases))


def backward_arguments(cases: list[Case], *given: Any, timespans_grad: bool) -> tuple[Any, ...]:
    case = beside(cases)
    values = dict(zip(("grad_output", "grad_hn", "states"), given, strict=True))
    values |= {"timespans_grad": timespans_grad}
    return by_schema(case.backward, case, **values, **raw_values(cases))


def of_reference(cases: list[Case], weights: Any) -> dict[str, Any]:
    """Run the reference of each; return results and gradients as one call has them."""
    grads: list[dict[str, Tensor]] = []
    outputs, states = [], []
    count = len(cases)
    for k, case in enumerate(cases):
        case = case.requiring_grad()
        output, hn = run_reference(case)
        leaves = {n: t for n, t in case.leaves.items() if t is not None}
        own = [w.chunk(count, -1)[k] for w in weights]
        used = [(y, w) for y, w in zip((output, hn), own, strict=True) if y.requires_grad]
        found = torch.autograd.grad(
            [y for y, _ in used] or [leaves["x"].sum() * 0],
            list(leaves.values()),
            [w for _, w in used] or None,
            allow_unused=True,
            materialize_grads=True,
        )
        grads.append(dict(zip(leaves, found, strict=True)))
        outputs.append(output.detach())
        states.append(hn.detach())
    first = cases[0]
    joined = {"output": torch.cat(outputs, -1), "hn": torch.cat(states, -1)}
    for name in grads[0]:
        every = [g[name] for g in grads]
        if name in first.parameters:
            joined[name] = torch.stack(every)
        elif name == "timespans" and first.data[name].dim() == 2:
            joined[name] = torch.stack(every).sum(0)
        else:
            joined[name] = torch.cat(every, -1)
    return joined


def of_operator(cases: list[Case], weights: Any, timespans_grad: bool = True) -> dict[str, Any]:
    case = beside(cases)
    output, hn, states = case.forward(*forward_arguments(cases, True))
    arguments = backward_arguments(cases, *weights, states, timespans_grad=timespans_grad)
    grad_x, grad_h0, grad_spans, parameters, _ = case.backward(*arguments)
    named = {"x": grad_x, "h0": grad_h0, "timespans": grad_spans}
    results = {n: g for n, g in named.items() if case.data[n] is not None}
    present = [n for n, t in case.parameters.items() if t is not None]
    return {"output": output, "hn": hn} | results | dict(zip(present, parameters, strict=True))


def random_weights(cases: list[Case]) -> tuple[Tensor, Tensor]:
    output, hn, _ = cases[0].forward(*forward_arguments(cases, False))
    return torch.randn_like(output), torch.randn_like(hn)


@pytest.mark.parametrize(("count", "batch"), COUNTS_AND_BATCHES)
@every_kind
def test_values_and_gradients(draw: Draw, count: int, batch: int) -> None:
    if "batch" in draw.options:
        batch = 0
    cases = draw_layers(draw, count, batch=batch)
    weights = random_weights(cases)
    expected = of_reference(cases, weights)
    got = of_operator(cases, weights)
    tolerance = 1e-9 if draw.cell.sums_cancel else 1e-10
    assert_all_close(got, expected, tolerance)
    output, hn, states = cases[0].forward(*forward_arguments(cases, False))
    assert states.numel() == 0
    assert_all_close(
        {"output": output, "hn": hn}, {n: expected[n] for n in ("output", "hn")}, tolerance
    )


@pytest.mark.parametrize("threads", [1, 2, 5])
@over({name: Draw(cell) for name, cell in {d.cell.cell: d.cell for d in KINDS.values()}.items()})
def test_threads_share_networks_or_samples(draw: Draw, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        for count, batch in ((40, 2), (3, 33), (70, 40)):
            # As much work as wakes threads.
            cases = draw_layers(draw, count, batch=batch, time=40)
            weights = random_weights(cases)
            torch.set_num_threads(1)
            expected = of_operator(cases, weights)
            torch.set_num_threads(threads)
            assert_all_close(of_operator(cases, weights), expected, 1e-9)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@over(
    {name: KINDS[name] for name in KINDS if name.endswith(("pure", "maps", "wired", "last step"))}
)
def test_layers_of_odd_sizes(draw: Draw, dtype: torch.dtype) -> None:
    for batch, time, inputs in ((1, 3, 1), (2, 40, 17)):
        cases = draw_layers(draw, 5, batch=batch, time=time, inputs=inputs)
        weights = random_weights(cases)
        expected = of_reference(cases, weights)
        own = [case.to(dtype) for case in cases]
        got = of_operator(own, [w.to(dtype) for w in weights])
        tolerance = 1e-9 if dtype == torch.float64 else 2e-3
        assert_all_close({n: t.double() for n, t in got.items()}, expected, tolerance)


@over({name: KINDS[name] for name in ("LTC resets", "CfC wired", "CfC backbone")})
def test_opcheck(draw: Draw) -> None:
    cases = draw_layers(draw, 3)
    for case in cases:
        for tensor in (*case.data.values(), *case.parameters.values()):
            if tensor is not None:
                tensor.nan_to_num_()
    case = cases[0]
    if case.lengths is not None and case.lengths.numel():
        case.lengths.clamp_(min=1)
    forward = forward_arguments(cases, True)
    torch.library.opcheck(case.forward.default, forward_arguments(cases, False))
    leaves = change_tensors(forward, lambda t: t.requires_grad_() if t.is_floating_point() else t)
    torch.library.opcheck(case.forward.default, leaves)
    output, hn, states = case.forward(*change_tensors(forward, lambda t: t.detach()))
    grads = torch.randn_like(output), torch.randn_like(hn)
    for timespans_grad in (True, False):
        arguments = backward_arguments(cases, *grads, states, timespans_grad=timespans_grad)
        torch.library.opcheck(
            case.backward.default, change_tensors(arguments, lambda t: t.detach())
        )


@pytest.mark.parametrize("timespans", [None, "BT", "BTN"])
@over({d.cell.cell: Draw(d.cell, d.cell.tiny) for d in KINDS.values()})
def test_gradcheck(draw: Draw, timespans: str | None) -> None:
    cases = draw_layers(draw, 3, batch=2, time=3, inputs=2, timespans=timespans)
    case, values = beside(cases), raw_values(cases)
    present = [n for n, t in case.parameters.items() if t is not None]
    leaves = {n: t for n, t in case.leaves.items() if t is not None}
    leaves = {n: t.nan_to_num() for n, t in leaves.items()}
    if timespans is not None:
        leaves["timespans"] += 0.1
    leaves = {n: t.requires_grad_() for n, t in leaves.items()}

    def run(*tensors: Tensor) -> Any:
        moved = dict(zip(leaves, tensors, strict=True))
        parameters = [moved[name] for name in present]
        data = {n: moved.get(n) for n in case.data}
        arguments = by_schema(
            case.forward, case, **{**values, **data, "parameters": parameters}, save_states=True
        )
        return case.forward(*arguments)[:2]

    assert torch.autograd.gradcheck(run, tuple(leaves.values()))


def test_impossible_stacks_are_refused() -> None:
    case = CfcCase.random()
    arguments = list(forward_arguments([case, case], False))
    names = [a.name for a in case.forward.default._schema.arguments]
    x, parameters = names.index("x"), names.index("parameters")
    wrong = list(arguments)
    wrong[x] = arguments[x][..., :-1]
    with pytest.raises(RuntimeError, match="x: expected a multiple of 2 features"):
        case.forward(*wrong)
    wrong = list(arguments)
    wrong[parameters] = [arguments[parameters][0], *(p[0] for p in arguments[parameters][1:])]
    with pytest.raises(RuntimeError, match=r"parameters\[1\] .* expected shape \[2, 5\]"):
        case.forward(*wrong)
    wrong = list(arguments)
    wrong[names.index("memory")] = list(CfcCase.random(memory=True).memory.values())
    with pytest.raises(RuntimeError, match="memory: expected None for several layers"):
        case.forward(*wrong)
    empty = [p[:0] for p in arguments[parameters]]
    with pytest.raises(RuntimeError, match=r"expected 1 to .* layers, got 0"):
        case.forward(*arguments[:parameters], empty, *arguments[parameters + 1 :])
