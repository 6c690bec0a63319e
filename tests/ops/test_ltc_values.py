"""Values and gradients of the LTC operators, held against the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastltc.nn import synapse_list
from fastltc.ops import ltc
from ltc_cases import (
    Case,
    assert_all_close,
    check_against_reference,
    operator_arguments,
    random_case,
    random_weights,
    raw_arguments,
    run_operator,
    run_reference,
    with_gradients,
)

SIZES = [  # batch, time, inputs, neurons, motors
    (1, 1, 1, 1, 1),
    (2, 1, 3, 2, 1),
    (1, 7, 2, 7, 7),
    (7, 2, 5, 31, 3),
    (29, 3, 1, 33, 33),
    (33, 2, 33, 7, 2),
    (16, 4, 8, 16, 4),
    (65, 1, 2, 19, 2),
    (3, 33, 4, 5, 1),
    (2, 2, 3, 70, 9),
]


def check_values(case: Case) -> None:
    """Compare the outputs with the reference, in float64."""
    actual, expected = run_operator(case), run_reference(case)
    names = ("output", "hn")
    assert_all_close(dict(zip(names, actual, strict=True)), dict(zip(names, expected, strict=True)))


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_odd_sizes(size: tuple[int, ...], softplus: bool) -> None:
    case = random_case(*size, softplus=softplus)
    check_against_reference(case)
    check_values(case)


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("neurons", [1, 2, 7, 8, 16, 17, 31, 32, 33, 64, 65, 130])
def test_inference_on_few_samples(neurons: int, density: float) -> None:
    for batch in (1, 2, 5):
        for timespans, lengths in ((None, False), ("BT", True), ("BTN", True)):
            case = random_case(
                batch, 3, 5, neurons, 1, density=density, timespans=timespans, lengths=lengths
            )
            check_values(case)


@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("timespans", [None, "BT", "BTN"])
@pytest.mark.parametrize("lengths", [False, True])
def test_densities_time_steps_and_lengths(
    density: float, timespans: str | None, lengths: bool
) -> None:
    for batch in (2, 19):
        check_against_reference(
            random_case(batch, 5, density=density, timespans=timespans, lengths=lengths)
        )


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("time_major", [True, False])
@pytest.mark.parametrize("maps", ["", "i", "iIoO", "o", "IO"])
def test_maps_and_layouts(maps: str, time_major: bool, return_sequences: bool) -> None:
    case = random_case(
        maps=maps, time_major=time_major, return_sequences=return_sequences, h0=False, lengths=True
    )
    check_against_reference(case)
    output, _ = run_operator(case)
    if return_sequences:
        assert (output.transpose(0, 1) if time_major else output).is_contiguous()


@pytest.mark.parametrize("unfolds", [1, 2, 7])
@pytest.mark.parametrize("epsilon", [0.0, 1e-8, 0.5])
def test_unfolds_and_epsilon(unfolds: int, epsilon: float) -> None:
    check_against_reference(random_case(ode_unfolds=unfolds, epsilon=epsilon))


@pytest.mark.parametrize("batch", [2, 40])
def test_a_dense_layer_with_many_synapses(batch: int) -> None:
    check_against_reference(random_case(batch, 2, 5, 61, 4, density=1.0, ode_unfolds=3))


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
def test_strides_of_the_data(stride: str, batch: int, timespans: str) -> None:
    case = random_case(batch, 5, timespans=timespans)
    strided = case.with_(**{name: STRIDES[stride](t) for name, t in case.data.items()})
    check_against_reference(strided)


@pytest.mark.parametrize("stride", ["transposed", "every other", "with an offset"])
def test_strides_of_the_parameters(stride: str) -> None:
    case = random_case(poison=False, density=1.0)
    changes = {
        name: STRIDES["every other" if t.dim() == 1 else stride](t)
        for name, t in case.parameters.items()
    }
    check_against_reference(case.with_(**changes))


@pytest.mark.parametrize("stride", ["transposed", "every other", "expanded over everything"])
def test_strides_of_the_incoming_gradient(stride: str) -> None:
    case = random_case()
    weights = tuple(STRIDES[stride](w) for w in random_weights(case))
    actual = with_gradients(run_operator, case, weights)
    assert_all_close(actual, with_gradients(run_reference, case, weights))


@pytest.mark.parametrize("used", [0, 1])
def test_gradient_of_one_output_alone(used: int) -> None:
    case = random_case().requiring_grad()
    leaves = [leaf for leaf in case.leaves.values() if leaf is not None]
    weight = random_weights(case)[used]
    names = [name for name, leaf in case.leaves.items() if leaf is not None]

    def grads(run: Any) -> dict[str, Tensor]:
        found = torch.autograd.grad(
            run(case)[used], leaves, weight, allow_unused=True, materialize_grads=True
        )
        return dict(zip(names, found, strict=True))

    assert_all_close(grads(run_operator), grads(run_reference))


@pytest.mark.parametrize(("batch", "time"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_an_empty_batch_and_an_empty_sequence(
    batch: int, time: int, return_sequences: bool
) -> None:
    for lengths in (False, True):
        check_against_reference(
            random_case(batch, time, return_sequences=return_sequences, lengths=lengths)
        )


@pytest.mark.parametrize("batch", [1, 3, 40])
def test_float32_to_rounding(batch: int) -> None:
    case = random_case(batch, 6, 5, 20, 3, dtype=torch.float32)
    weights = random_weights(case)
    actual = with_gradients(run_operator, case, weights)
    inference = dict(zip(("output", "hn"), run_operator(case), strict=True))
    rounded = with_gradients(run_reference, case, weights)
    exact = with_gradients(run_reference, case.to(torch.float64), [w.double() for w in weights])
    for name, wanted in exact.items():
        scale = max(1.0, wanted.abs().max().item())
        ours = max(
            (result[name] - wanted).abs().max().item() / scale
            for result in (actual, inference)
            if name in result
        )
        torchs = (rounded[name] - wanted).abs().max().item() / scale
        assert actual[name].dtype == torch.float32
        # As exact as PyTorch's own float32, up to the luck of single roundings.
        assert ours <= 4 * torchs + 1e-6, f"{name}: {ours:.2e}, PyTorch {torchs:.2e}"


def test_extreme_arguments_of_the_sigmoid_saturate() -> None:
    for dtype in (torch.float32, torch.float64):
        # Each further unfold multiplies rounding by the slopes, in the reference as well.
        for time, unfolds in ((3, 6), (1, 1)):
            case = random_case(20, time, poison=False, dtype=dtype, ode_unfolds=unfolds)
            case = case.with_(
                sigma=case.parameters["sigma"] * 1e4,
                sensory_sigma=case.parameters["sensory_sigma"] * 1e4,
            )
            weights = random_weights(case)
            actual = with_gradients(run_operator, case, weights)
            assert all(torch.isfinite(value).all() for value in actual.values())
            if dtype == torch.float64 and unfolds == 1:
                assert_all_close(actual, with_gradients(run_reference, case, weights))


def test_softplus_is_linear_above_its_threshold() -> None:
    case = random_case()
    for name in ("cm", "gleak"):
        case.parameters[name][:4] = torch.tensor([19.999, 20.0, 20.001, 45.0])
    case.parameters["w"].copy_(torch.where(case.mask == 1, 20.5, torch.nan))
    check_against_reference(case)


def test_the_same_call_gives_the_same_bits() -> None:
    case = random_case(70, 4, 5, 33, 3, lengths=True, dtype=torch.float32)
    weights = random_weights(case)
    first = with_gradients(run_operator, case, weights)
    for _ in range(3):
        again = with_gradients(run_operator, case, weights)
        assert all(torch.equal(again[name], value) for name, value in first.items())


def test_inputs_are_left_as_they_are() -> None:
    case = random_case(20, 4, lengths=True, poison=False)
    before = [t.clone() for t in case.leaves.values()]
    with_gradients(run_operator, case, random_weights(case))
    for kept, now in zip(before, case.leaves.values(), strict=True):
        assert torch.equal(kept.nan_to_num(), now.nan_to_num())


@pytest.mark.parametrize("batch", [1, 3, 20])
def test_saved_states_change_rounding_at_most(batch: int) -> None:
    # Small batches without gradients have kernels of their own.
    case = random_case(batch, 4, lengths=True)
    with torch.no_grad():
        kept = torch.ops.fastltc.ltc_forward(*raw_arguments(case, save_states=True))
        lost = torch.ops.fastltc.ltc_forward(*raw_arguments(case, save_states=False))
    for actual, expected in zip(lost[:2], kept[:2], strict=True):
        assert_all_close({"": actual}, {"": expected}, 1e-13)
    assert lost[2].numel() == 0


sizes = st.integers(1, 12)


@st.composite
def cases(draw: Any) -> Case:
    neurons = draw(sizes)
    options = {
        "density": draw(st.sampled_from([0.0, 0.2, 0.7, 1.0])),
        "h0": draw(st.booleans()),
        "timespans": draw(st.sampled_from([None, "BT", "BTN"])),
        "lengths": draw(st.booleans()),
        "softplus": draw(st.booleans()),
        "time_major": draw(st.booleans()),
        "return_sequences": draw(st.booleans()),
        "ode_unfolds": draw(st.integers(1, 7)),
        "maps": "".join(draw(st.sets(st.sampled_from("iIoO")))),
    }
    batch = draw(st.one_of(sizes, st.integers(13, 70)))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    motors = draw(st.integers(1, neurons))
    return random_case(batch, draw(st.integers(0, 6)), draw(sizes), neurons, motors, **options)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_any_layer_agrees_with_the_reference(case: Case) -> None:
    check_against_reference(case)
    with torch.no_grad():  # other kernels
        check_values(case)


@settings(max_examples=25, deadline=None)
@given(cases(), st.data())
def test_a_sequence_can_be_cut_anywhere(case: Case, data: Any) -> None:
    case = case.with_(return_sequences=True, lengths=None)
    case.data["x"].nan_to_num_()
    dt = case.data["timespans"]
    if dt is not None:
        dt.nan_to_num_()
    cut = data.draw(st.integers(0, case.data["x"].shape[1]))
    whole = run_operator(case)

    def piece(part: slice, h0: Tensor | None) -> tuple[Tensor, Tensor]:
        steps = None if dt is None else dt[:, part]
        return run_operator(case.with_(x=case.data["x"][:, part], timespans=steps, h0=h0))

    first, h = piece(slice(0, cut), case.data["h0"])
    second, hn = piece(slice(cut, None), h)
    assert_all_close(
        {"output": torch.cat([first, second], 1), "hn": hn},
        {"output": whole[0], "hn": whole[1]},
        1e-13,
    )


@settings(max_examples=25, deadline=None)
@given(cases())
def test_samples_are_independent(case: Case) -> None:
    order = torch.randperm(case.data["x"].shape[0])
    shuffled = case.with_(
        lengths=None if case.lengths is None else case.lengths[order],
        **{name: None if t is None else t[order] for name, t in case.data.items()},
    )
    output, hn = run_operator(case)
    actual = run_operator(shuffled)
    assert_all_close(
        {"output": actual[0], "hn": actual[1]}, {"output": output[order], "hn": hn[order]}, 1e-13
    )


def test_gradcheck() -> None:
    case = random_case(batch=2, time=3, inputs=2, neurons=4, motors=2, poison=False, density=0.6)
    case.data["timespans"] += 0.1
    leaves = case.requiring_grad().leaves

    def function(*values: Tensor) -> tuple[Tensor, Tensor]:
        return run_operator(case.with_(**dict(zip(leaves, values, strict=True))))

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))
    synapses = synapse_list(case.mask), synapse_list(case.sensory_mask)

    def registered(*values: Tensor) -> tuple[Tensor, Tensor]:
        options = raw_arguments(case, save_states=True)[-8:]
        x, h0, timespans, *parameters = values
        return torch.ops.fastltc.ltc_forward(
            x, h0, timespans, None, parameters, [], *synapses, *options
        )[:2]

    assert torch.autograd.gradcheck(registered, tuple(leaves.values()))


def test_threads_change_rounding_at_most() -> None:
    case = random_case(70, 3, 5, 19, 3)
    weights = random_weights(case)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(with_gradients(run_operator, case, weights))
    finally:
        torch.set_num_threads(threads)
    for name in ("output", "hn", "grad of x", "grad of h0", "grad of timespans"):
        assert all(torch.equal(other[name], results[0][name]) for other in results), name
    for other in results[1:]:
        assert_all_close(other, results[0], 1e-13)


def test_the_function_takes_what_the_class_passes() -> None:
    case = random_case()
    arguments = operator_arguments(case)
    positional = ltc(*arguments, *(case.options[n] for n in ("output_size", "ode_unfolds")))
    assert torch.equal(positional[0], run_operator(case)[0])
