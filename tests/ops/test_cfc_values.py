"""Values and gradients of the CfC operators, held against the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cfc_cases import (
    CfcCase,
    check_against_reference,
    random_cfc,
    random_weights,
    raw_arguments,
    run_operator,
    run_reference,
)
from fastltc.ops import CFC_ACTIVATIONS, CFC_MODES
from ltc_cases import assert_all_close, with_gradients

SIZES: list[tuple[int, int, int, tuple[int, ...]]] = [  # batch, time, inputs, layers
    (1, 1, 1, (1,)),
    (2, 1, 3, (2, 1)),
    (1, 7, 2, (7,)),
    (7, 2, 5, (17, 31, 3)),
    (29, 3, 1, (33,)),
    (33, 2, 33, (1, 4, 2)),
    (16, 4, 8, (8, 8)),
    (65, 1, 2, (11, 6, 2)),
    (3, 33, 4, (5, 1)),
    (2, 2, 3, (70, 9)),
    (2, 2, 3, (3, 2, 4, 1)),
]


def check_values(case: CfcCase) -> None:
    """Compare the outputs with the reference, in float64."""
    actual, expected = run_operator(case), run_reference(case)
    names = ("output", "hn")
    assert_all_close(dict(zip(names, actual, strict=True)), dict(zip(names, expected, strict=True)))


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_odd_sizes_of_wired_layers(size: tuple[Any, ...], mode: str) -> None:
    case = random_cfc(*size, mode=mode)
    check_against_reference(case)
    check_values(case)


@pytest.mark.parametrize("activation", CFC_ACTIVATIONS)
@pytest.mark.parametrize(("layers", "units"), [(0, 1), (1, 1), (1, 19), (2, 16), (3, 33)])
def test_backbones(layers: int, units: int, activation: str) -> None:
    cells = ((5, 4, 3, 7), (33, 2, 1, 18), (1, 3, 17, 1))
    for mode, (batch, time, inputs, neurons) in zip(CFC_MODES, cells, strict=True):
        options = {"mode": mode, "activation": activation, "density": None}
        case = random_cfc(
            batch, time, inputs, (neurons,), backbone_layers=layers, units=units, **options
        )
        check_against_reference(case)
        check_values(case)


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("layers", [2, 4])
def test_dropout_factors(layers: int, mode: str) -> None:
    for batch in (3, 19):
        case = random_cfc(
            *(batch, 5, 4, (6,)),
            mode=mode,
            backbone_layers=layers,
            dropout=0.4,
            lengths=True,
            activation="silu",
        )
        check_against_reference(case)
        check_values(case)
    transposed = case.dropout.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    check_against_reference(case.with_(dropout=transposed))


@pytest.mark.parametrize("density", [None, 0.0, 0.1, 1.0])
@pytest.mark.parametrize("timespans", [None, "BT", "BTN"])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("mode", CFC_MODES)
def test_densities_time_steps_and_lengths(
    mode: str, density: float | None, timespans: str | None, lengths: bool
) -> None:
    for batch in (1, 19):
        options = {"mode": mode, "density": density, "timespans": timespans, "lengths": lengths}
        case = random_cfc(batch, **options)
        check_against_reference(case)
        check_values(case)


@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("time_major", [True, False])
@pytest.mark.parametrize("backbone_layers", [0, 2])
def test_layouts(backbone_layers: int, time_major: bool, return_sequences: bool) -> None:
    case = random_cfc(
        layer_sizes=(6,),
        backbone_layers=backbone_layers,
        time_major=time_major,
        return_sequences=return_sequences,
        h0=False,
        lengths=True,
    )
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
@pytest.mark.parametrize(("timespans", "backbone_layers"), [("BT", 0), ("BTN", 0), ("BTN", 1)])
def test_strides_of_the_data(stride: str, batch: int, timespans: str, backbone_layers: int) -> None:
    case = random_cfc(
        batch, 5, layer_sizes=(6,), timespans=timespans, backbone_layers=backbone_layers
    )
    strided = case.with_(**{name: STRIDES[stride](t) for name, t in case.data.items()})
    check_against_reference(strided)


@pytest.mark.parametrize("stride", ["transposed", "every other", "with an offset"])
def test_strides_of_the_parameters_and_masks(stride: str) -> None:
    case = random_cfc(poison=False)

    def change(tensor: Tensor) -> Tensor:
        return STRIDES["every other" if tensor.dim() == 1 else stride](tensor)

    parameters = {name: change(t) for name, t in case.parameters.items()}
    check_against_reference(
        case.with_(parameters=parameters, masks=[change(m) for m in case.masks])
    )


@pytest.mark.parametrize("stride", ["transposed", "every other", "expanded over everything"])
def test_strides_of_the_incoming_gradient(stride: str) -> None:
    case = random_cfc()
    weights = tuple(STRIDES[stride](w) for w in random_weights(case))
    actual = with_gradients(run_operator, case, weights)
    assert_all_close(actual, with_gradients(run_reference, case, weights))


@pytest.mark.parametrize("used", [0, 1])
def test_gradient_of_one_output_alone(used: int) -> None:
    case = random_cfc().requiring_grad()
    named = {name: leaf for name, leaf in case.leaves.items() if leaf is not None}
    weight = random_weights(case)[used]

    def grads(run: Any) -> dict[str, Tensor]:
        found = torch.autograd.grad(
            run(case)[used], list(named.values()), weight, allow_unused=True, materialize_grads=True
        )
        return dict(zip(named, found, strict=True))

    assert_all_close(grads(run_operator), grads(run_reference))


@pytest.mark.parametrize(("batch", "time"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("backbone_layers", [0, 2])
def test_an_empty_batch_and_an_empty_sequence(
    batch: int, time: int, return_sequences: bool, backbone_layers: int
) -> None:
    for lengths in (False, True):
        options = {"return_sequences": return_sequences, "lengths": lengths}
        check_against_reference(
            random_cfc(batch, time, layer_sizes=(4,), backbone_layers=backbone_layers, **options)
        )


@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("backbone_layers", [0, 2])
def test_float32_to_rounding(mode: str, batch: int, backbone_layers: int) -> None:
    sizes = (20,) if backbone_layers else (12, 6, 2)
    case = random_cfc(
        batch, 6, 5, sizes, mode=mode, backbone_layers=backbone_layers, dtype=torch.float32
    )
    weights = random_weights(case)
    actual = with_gradients(run_operator, case, weights)
    inference = dict(zip(("output", "hn"), run_operator(case), strict=True))
    exact = with_gradients(run_reference, case.to(torch.float64), [w.double() for w in weights])
    # How far PyTorch's own float32 is off, also with data that differ in the last place: what the
    # layer makes of that is no fault of the kernels.
    eps = torch.finfo(torch.float32).eps
    nudged = [case, *(case.map(lambda t: t + t * eps * torch.randn_like(t)) for _ in range(3))]
    rounded = [with_gradients(run_reference, other, weights) for other in nudged]
    for name, wanted in exact.items():
        # The gradients of parameters are sums over all steps, whose terms may cancel.
        terms = batch * 6 if name.startswith(("grad of layer", "grad of backbone")) else 1
        scale = max(terms**0.5, wanted.abs().max().item())
        ours = max(
            (result[name] - wanted).abs().max().item() / scale
            for result in (actual, inference)
            if name in result
        )
        torchs = max((r[name] - wanted).abs().max().item() / scale for r in rounded)
        assert actual[name].dtype == torch.float32
        assert ours <= 4 * torchs + 1e-6, f"{name}: {ours:.2e}, PyTorch {torchs:.2e}"


@pytest.mark.parametrize("mode", CFC_MODES)
def test_large_arguments_saturate(mode: str) -> None:
    for dtype in (torch.float32, torch.float64):
        case = random_cfc(20, 3, poison=False, mode=mode, dtype=dtype)
        case = case.with_(
            parameters={
                n: t * 1e3 if n.endswith("weight") else t for n, t in case.parameters.items()
            }
        )
        weights = random_weights(case)
        actual = with_gradients(run_operator, case, weights)
        assert all(torch.isfinite(value).all() for value in actual.values())
        if dtype == torch.float64 and mode != "pure":
            # What is saturated has no gradient; in pure mode only time steps of 0 have one, and
            # it is as large as its rounding.
            expected = with_gradients(run_reference, case, weights)
            for name in ("output", "hn"):
                assert_all_close({name: actual[name]}, {name: expected[name]})


@pytest.mark.parametrize("backbone_layers", [0, 2])
def test_the_same_call_gives_the_same_bits(backbone_layers: int) -> None:
    case = random_cfc(
        *(70, 4, 5, (17,)), backbone_layers=backbone_layers, lengths=True, dtype=torch.float32
    )
    weights = random_weights(case)
    first = with_gradients(run_operator, case, weights)
    for _ in range(3):
        again = with_gradients(run_operator, case, weights)
        assert all(torch.equal(again[name], value) for name, value in first.items())


def test_inputs_are_left_as_they_are() -> None:
    case = random_cfc(20, 4, lengths=True)
    before = [t.clone() for t in (*case.leaves.values(), *case.masks)]
    with_gradients(run_operator, case, random_weights(case))
    for kept, now in zip(before, (*case.leaves.values(), *case.masks), strict=True):
        assert torch.equal(kept.nan_to_num(), now.nan_to_num())


@pytest.mark.parametrize("batch", [1, 3, 20])
@pytest.mark.parametrize("backbone_layers", [0, 2])
def test_saved_states_change_rounding_at_most(batch: int, backbone_layers: int) -> None:
    case = random_cfc(batch, 4, layer_sizes=(5,), lengths=True, backbone_layers=backbone_layers)
    with torch.no_grad():
        kept = torch.ops.fastltc.cfc_forward(*raw_arguments(case, save_states=True))
        lost = torch.ops.fastltc.cfc_forward(*raw_arguments(case, save_states=False))
    for actual, expected in zip(lost[:2], kept[:2], strict=True):
        assert_all_close({"": actual}, {"": expected}, 1e-13)
    assert lost[2].numel() == 0


def test_threads_change_rounding_at_most() -> None:
    case = random_cfc(70, 3, 5, (17, 5, 3))
    weights = random_weights(case)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(with_gradients(run_operator, case, weights))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert_all_close(other, results[0], 1e-13)


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("backbone_layers", [0, 2])
def test_gradcheck(mode: str, backbone_layers: int) -> None:
    sizes = (3,) if backbone_layers else (2, 2, 1)
    options = {"backbone_layers": backbone_layers, "dropout": 0.5, "units": 3}
    case = random_cfc(2, 2, 2, sizes, poison=False, mode=mode, **options)
    case.data["timespans"] += 0.1
    leaves = case.requiring_grad().leaves

    def function(*values: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(leaves, values, strict=True))
        data = {name: named.pop(name) for name in case.data}
        return run_operator(case.with_(**data, parameters=named))

    def registered(*values: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(leaves, values, strict=True))
        data = {name: named.pop(name) for name in case.data}
        changed = case.with_(**data, parameters=named)
        return torch.ops.fastltc.cfc_forward(*raw_arguments(changed, True))[:2]

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))
    assert torch.autograd.gradcheck(registered, tuple(leaves.values()))


sizes = st.integers(1, 12)


@st.composite
def cases(draw: Any) -> CfcCase:
    backbone_layers = draw(st.integers(0, 3))
    layers = 1 if backbone_layers else draw(st.integers(1, 4))
    options = {
        "mode": draw(st.sampled_from(CFC_MODES)),
        "activation": draw(st.sampled_from(CFC_ACTIVATIONS)),
        "backbone_layers": backbone_layers,
        "units": draw(st.integers(1, 40)),
        "dropout": draw(st.sampled_from([0.0, 0.5])),
        "density": draw(st.sampled_from([None, 0.0, 0.2, 0.7, 1.0])),
        "h0": draw(st.booleans()),
        "timespans": draw(st.sampled_from([None, "BT", "BTN"])),
        "lengths": draw(st.booleans()),
        "time_major": draw(st.booleans()),
        "return_sequences": draw(st.booleans()),
    }
    batch = draw(st.one_of(sizes, st.integers(13, 70)))
    layer_sizes = draw(st.lists(sizes, min_size=layers, max_size=layers))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    return random_cfc(batch, draw(st.integers(0, 6)), draw(sizes), layer_sizes, **options)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_any_layer_agrees_with_the_reference(case: CfcCase) -> None:
    check_against_reference(case)
    with torch.no_grad():
        check_values(case)


@settings(max_examples=25, deadline=None)
@given(cases(), st.data())
def test_a_sequence_can_be_cut_anywhere(case: CfcCase, data: Any) -> None:
    case = case.with_(return_sequences=True, lengths=None)
    case.data["x"].nan_to_num_()
    dt = case.data["timespans"]
    if dt is not None:
        dt.nan_to_num_()
    cut = data.draw(st.integers(0, case.data["x"].shape[1]))
    whole = run_operator(case)

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
    assert_all_close(
        {"output": torch.cat([first, second], 1), "hn": hn},
        {"output": whole[0], "hn": whole[1]},
        1e-12,
    )


@settings(max_examples=25, deadline=None)
@given(cases())
def test_samples_are_independent(case: CfcCase) -> None:
    order = torch.randperm(case.data["x"].shape[0])
    shuffled = case.with_(
        lengths=None if case.lengths is None else case.lengths[order],
        dropout=None if case.dropout is None else case.dropout[:, order],
        **{name: None if t is None else t[order] for name, t in case.data.items()},
    )
    output, hn = run_operator(case)
    actual = run_operator(shuffled)
    assert_all_close(
        {"output": actual[0], "hn": actual[1]}, {"output": output[order], "hn": hn[order]}, 1e-12
    )
