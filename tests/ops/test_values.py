"""Values and gradients of the operators of all cells, held against the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from layers import (
    Case,
    Draw,
    assert_all_close,
    assert_same_bits,
    cases,
    check_against_reference,
    check_values,
    every_call,
    every_cell,
    every_equation_and_layout,
    every_layout,
    named,
    over_equations_and,
    plainly,
    random_weights,
    run_operator,
    run_raw,
    run_reference,
    with_gradients,
)

pytestmark = pytest.mark.kernels


@over_equations_and("sizes", "sizes")
def test_odd_sizes(draw: Draw, sizes: tuple[Any, ...]) -> None:
    case = draw(*sizes)
    check_against_reference(case)
    check_values(case)


@over_equations_and("density", "densities")
@pytest.mark.parametrize("timespans", [None, "BT", "BTN"])
@pytest.mark.parametrize("lengths", [False, True])
def test_densities_time_steps_and_lengths(
    draw: Draw, density: float | None, timespans: str | None, lengths: bool
) -> None:
    for batch in (1, 2, 19):
        case = draw(batch, density=density, timespans=timespans, lengths=lengths)
        check_against_reference(case)
        check_values(case)


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("time_major", [True, False])
@every_call
def test_layouts_of_the_output(draw: Draw, time_major: bool, return_sequences: bool) -> None:
    options = {"time_major": time_major, "return_sequences": return_sequences}
    case = draw(h0=False, lengths=True, **options)
    check_against_reference(case)
    output, _ = run_operator(case)
    if return_sequences:
        assert (output.transpose(0, 1) if time_major else output).is_contiguous()


STRIDES: dict[str, Any] = {
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "last axis first": lambda t: t.movedim(-1, 0).contiguous().movedim(0, -1),
    "every other": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "with an offset": lambda t: torch.cat([torch.full_like(t[:1], torch.nan), t])[1:],
    "expanded over samples": lambda t: t[:1].expand(t.shape),
    "expanded over the last axis": lambda t: t[..., :1].expand(t.shape),
    "expanded over everything": lambda t: t.flatten()[-1].expand(t.shape),
}


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("batch", [3, 17])
@pytest.mark.parametrize("timespans", ["BT", "BTN"])
@every_layout
def test_strides_of_the_data(draw: Draw, timespans: str, batch: int, stride: str) -> None:
    case = draw(batch, 5, timespans=timespans)
    strided = case.with_(**{name: STRIDES[stride](t) for name, t in case.data.items()})
    check_against_reference(strided)


@pytest.mark.parametrize("stride", ["transposed", "every other", "with an offset"])
@plainly
def test_strides_of_the_parameters_and_masks(draw: Draw, stride: str) -> None:
    case = draw(poison=False)

    def change(tensor: Tensor) -> Tensor:
        return STRIDES["every other" if tensor.dim() == 1 else stride](tensor)

    parameters = {name: change(t) for name, t in case.parameters.items()}
    check_against_reference(case.with_(**parameters, masks=[change(m) for m in case.masks]))


@pytest.mark.parametrize("stride", ["transposed", "every other", "expanded over everything"])
@plainly
def test_strides_of_the_incoming_gradient(draw: Draw, stride: str) -> None:
    case = draw()
    weights = tuple(STRIDES[stride](w) for w in random_weights(case))
    actual = with_gradients(run_operator, case, weights)
    assert_all_close(actual, with_gradients(run_reference, case, weights))


@pytest.mark.parametrize("used", [0, 1])
@plainly
def test_gradient_of_one_output_alone(draw: Draw, used: int) -> None:
    case = draw().requiring_grad()
    leaves = {name: leaf for name, leaf in case.leaves.items() if leaf is not None}
    weight = random_weights(case)[used]

    def grads(run: Any) -> dict[str, Tensor]:
        found = torch.autograd.grad(
            run(case)[used],
            list(leaves.values()),
            weight,
            allow_unused=True,
            materialize_grads=True,
        )
        return dict(zip(leaves, found, strict=True))

    assert_all_close(grads(run_operator), grads(run_reference))


@pytest.mark.parametrize(("batch", "time"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("return_sequences", [True, False])
@every_layout
def test_an_empty_batch_and_an_empty_sequence(
    draw: Draw, return_sequences: bool, batch: int, time: int
) -> None:
    for lengths in (False, True):
        check_against_reference(
            draw(batch, time, return_sequences=return_sequences, lengths=lengths)
        )


@pytest.mark.parametrize("batch", [1, 3, 40])
@every_equation_and_layout
def test_float32_to_rounding(draw: Draw, batch: int) -> None:
    case = draw.wide(batch, 6, 5, dtype=torch.float32)
    weights = random_weights(case)
    actual = with_gradients(run_operator, case, weights)
    inference = named(run_operator(case))
    exact = with_gradients(run_reference, case.to(torch.float64), [w.double() for w in weights])
    # How far PyTorch's own float32 is off, also with data that differ in the last place: what the
    # layer makes of that is no fault of the kernels.
    eps = torch.finfo(torch.float32).eps
    nudged = [case.map(lambda t: t + t * eps * torch.randn_like(t)) for _ in range(3)]
    others = nudged if draw.cell.sums_cancel else []
    rounded = [with_gradients(run_reference, other, weights) for other in (case, *others)]
    for name, wanted in exact.items():
        # The gradients of parameters are sums over all steps.
        summed = draw.cell.sums_cancel and name.removeprefix("grad of ") in case.parameters
        terms = batch * 6 if summed else 1
        scale = max(terms**0.5, wanted.abs().max().item())
        ours = max(
            (result[name] - wanted).abs().max().item() / scale
            for result in (actual, inference)
            if name in result
        )
        torchs = max((r[name] - wanted).abs().max().item() / scale for r in rounded)
        assert actual[name].dtype == torch.float32
        # As exact as PyTorch's own float32, up to the luck of single roundings.
        assert ours <= 4 * torchs + 1e-6, f"{name}: {ours:.2e}, PyTorch {torchs:.2e}"


@every_layout
def test_the_same_call_gives_the_same_bits(draw: Draw) -> None:
    case = draw.wide(70, 4, 5, lengths=True, dtype=torch.float32)
    weights = random_weights(case)
    first = with_gradients(run_operator, case, weights)
    for _ in range(3):
        assert_same_bits(with_gradients(run_operator, case, weights), first)


@plainly
def test_inputs_are_left_as_they_are(draw: Draw) -> None:
    case = draw(20, 4, lengths=True)
    before = [t.clone() for t in (*case.leaves.values(), *case.masks)]
    with_gradients(run_operator, case, random_weights(case))
    for kept, now in zip(before, (*case.leaves.values(), *case.masks), strict=True):
        assert torch.equal(kept.nan_to_num(), now.nan_to_num())


@pytest.mark.parametrize("batch", [1, 3, 20])
@every_layout
def test_saved_states_change_rounding_at_most(draw: Draw, batch: int) -> None:
    # Small batches without gradients have kernels of their own.
    case = draw(batch, 4, lengths=True)
    with torch.no_grad():
        *kept, _ = run_raw(case, save_states=True)
        *lost, states = run_raw(case, save_states=False)
    assert_all_close(named(lost), named(kept), 1e-13)
    assert states.numel() == 0


def over_threads(case: Case) -> list[dict[str, Tensor]]:
    """Return the results of one, two and three threads."""
    weights = random_weights(case)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(with_gradients(run_operator, case, weights))
    finally:
        torch.set_num_threads(threads)
    return results


@plainly
def test_threads_change_rounding_at_most(draw: Draw) -> None:
    first, *others = over_threads(draw.wide(70, 3, 5))
    for other in others:
        assert_all_close(other, first, 1e-13)
        for name in draw.cell.thread_proof:
            assert torch.equal(other[name], first[name]), name


@pytest.mark.parametrize("registered", [False, True], ids=["function", "operator"])
@every_equation_and_layout
def test_gradcheck(draw: Draw, registered: bool) -> None:
    case = draw(2, 2, 2, **draw.cell.tiny, poison=False)
    case.data["timespans"] += 0.1
    leaves = case.requiring_grad().leaves

    def run(*values: Tensor) -> tuple[Tensor, Tensor]:
        changed = case.with_(**dict(zip(leaves, values, strict=True)))
        return run_raw(changed)[:2] if registered else run_operator(changed)

    assert torch.autograd.gradcheck(run, tuple(leaves.values()))


@settings(max_examples=60, deadline=None)
@given(st.data())
@every_cell
def test_any_layer_agrees_with_the_reference(cell: type[Case], data: Any) -> None:
    case = data.draw(cases(cell))
    check_against_reference(case)
    with torch.no_grad():  # other kernels
        check_values(case)


@settings(max_examples=25, deadline=None)
@given(st.data())
@every_cell
def test_a_sequence_can_be_cut_anywhere(cell: type[Case], data: Any) -> None:
    case = data.draw(cases(cell)).with_(return_sequences=True, lengths=None, resets=None)
    case.data["x"].nan_to_num_()
    dt = case.data["timespans"]
    if dt is not None:
        dt.nan_to_num_()
    cut = data.draw(st.integers(0, case.data["x"].shape[1]))

    def piece(part: slice, h0: Tensor | None) -> tuple[Tensor, Tensor]:
        changes = {
            "x": case.data["x"][:, part],
            "timespans": None if dt is None else dt[:, part],
            "dropout": None if case.dropout is None else case.dropout[:, :, part],
            "h0": h0,
        }
        return run_operator(case.with_(**changes))

    first, h = piece(slice(0, cut), case.data["h0"])
    second, hn = piece(slice(cut, None), h)
    whole = named(run_operator(case))
    assert_all_close(named((torch.cat([first, second], 1), hn)), whole, cell.rounding)


@settings(max_examples=25, deadline=None)
@given(st.data())
@every_cell
def test_samples_are_independent(cell: type[Case], data: Any) -> None:
    case = data.draw(cases(cell))
    order = torch.randperm(case.data["x"].shape[0])
    shuffled = case.with_(
        lengths=None if case.lengths is None else case.lengths[order],
        resets=None if case.resets is None else case.resets[order],
        dropout=None if case.dropout is None else case.dropout[:, order],
        **{name: None if t is None else t[order] for name, t in case.data.items()},
    )
    output, hn = run_operator(case)
    actual = named(run_operator(shuffled))
    assert_all_close(actual, named((output[order], hn[order])), cell.rounding)
