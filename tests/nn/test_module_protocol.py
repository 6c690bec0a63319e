"""What nn.Module promises: moving, copying, saving, replacing parameters, hooks into them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import ncps.torch
import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from torch.func import functional_call

import fastltc
from fastltc import LTC, CfC
from layers.modules import (
    Kind,
    masked_parameters,
    other_state,
    over_kinds,
    some_weight,
    wired_kinds,
)

I, N = 4, 12  # noqa: E741


def make(kind: Kind, **options: Any) -> tuple[Any, Tensor]:
    return kind(I, N, **options), torch.randn(3, 5, I)


def with_state(kind: Kind, state: dict[str, Tensor]) -> Any:
    layer = kind(I, N)
    layer.load_state_dict(state)
    return layer


def state_of(layer: Any, hn: Any) -> tuple[Tensor, ...]:
    return hn if layer.use_mixed else (hn,)


@over_kinds()
def test_deepcopy_pickle_and_saving(kind: Kind, tmp_path: Any) -> None:
    layer, x = make(kind)
    expected = layer(x)[0]  # and so every cache is filled
    state = other_state(layer)
    torch.save(layer, tmp_path / "layer.pt")
    loaded = torch.load(tmp_path / "layer.pt", weights_only=False)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert torch.equal(copied(x)[0], expected)
        copied.load_state_dict(state)
        assert torch.equal(copied(x)[0], with_state(kind, state)(x)[0])
        assert torch.equal(layer(x)[0], expected)


@over_kinds("LTC", "LTC, mixed", "CfC, wired")
def test_a_copy_keeps_its_masks(kind: Kind) -> None:
    layer, x = make(kind)
    expected = layer(x)[0]
    edited = copy.deepcopy(layer)
    for _, mask in masked_parameters(layer)[:1]:
        mask.data.copy_(1 - mask.data)
    assert torch.equal(edited(x)[0], expected)
    assert not torch.equal(layer(x)[0], expected)


@over_kinds()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_moving_to_another_dtype(kind: Kind, dtype: torch.dtype) -> None:
    layer, x = make(kind)
    layer(x)
    layer.to(dtype)
    assert all(p.dtype == dtype for p in layer.parameters())
    x = x.to(dtype)
    output, hn = layer(x)
    assert output.dtype == dtype
    assert all(h.dtype == dtype for h in state_of(layer, hn))
    assert layer(x, hn)[0].dtype == dtype
    exact, _ = copy.deepcopy(layer).double()(x.double())
    error = (output.double() - exact).abs().max()
    # The liquid cell computes in float32 at least; the memory cell and the projection in the
    # dtype itself.
    allowed = torch.finfo(dtype).eps * (1 if kind.cell == "LTC" and not layer.use_mixed else 8)
    assert error <= allowed * (1 if kind.cell == "LTC" else exact.abs().max().clamp(min=1))
    output.float().sum().backward()
    assert all(p.grad.dtype == dtype for p in layer.parameters() if p.requires_grad)


@over_kinds()
def test_half_and_float32_mix(kind: Kind) -> None:
    layer, x = make(kind)
    half = x.bfloat16()
    output, hn = layer(half)
    assert output.dtype == torch.bfloat16
    assert state_of(layer, hn)[0].dtype == torch.bfloat16
    allowed = {} if kind.cell == "LTC" else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(output, layer(half.float())[0].bfloat16(), **allowed)
    zero = torch.zeros(3, N)
    state, half_state = ((h, h) if layer.use_mixed else h for h in (zero, zero.half()))
    assert layer(half, state)[0].dtype == torch.bfloat16
    assert torch.equal(layer(x, half_state)[0], layer(x, state)[0])
    assert layer.bfloat16()(x)[0].dtype == torch.float32


@over_kinds()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(kind: Kind, dtype: torch.dtype) -> None:
    layer, x = make(kind)
    head = nn.Linear(I, I)
    with torch.autocast("cpu", dtype):
        features = head(x)
        output, hn = layer(features)
        again, _ = layer(features, hn)
    assert features.dtype == dtype
    # The projection is an nn.Linear, which autocast runs in half, as the maps of a memory cell.
    projected = getattr(layer, "proj_size", None) is not None
    assert output.dtype == again.dtype == (dtype if projected else torch.float32)
    assert state_of(layer, hn)[0].dtype == torch.float32
    expected, _ = layer(features.float())
    if layer.use_mixed or projected:
        torch.testing.assert_close(output.float(), expected, rtol=0.02, atol=0.02)
    else:
        assert torch.equal(output, expected)
    output.float().sum().backward()
    assert head.weight.grad.dtype == torch.float32
    assert torch.isfinite(head.weight.grad).all()


@over_kinds()
def test_assigning_a_state_dict(kind: Kind) -> None:
    layer, x = make(kind)
    layer(x)
    state = other_state(layer)
    layer.load_state_dict(state, assign=True)
    name = some_weight(layer)
    assert layer.get_parameter(name).data_ptr() == state[name].data_ptr()
    assert torch.equal(layer(x)[0], with_state(kind, state)(x)[0])


@over_kinds()
def test_making_a_layer_without_memory(kind: Kind) -> None:
    layer, x = make(kind)
    state = other_state(layer)
    expected = with_state(kind, state)(x)[0]
    with torch.device("meta"):
        empty = kind(I, N)
    assert all(p.is_meta for p in empty.parameters())
    assigned = copy.deepcopy(empty)
    assigned.load_state_dict(state, assign=True)
    assert torch.equal(assigned(x)[0], expected)
    empty.to_empty(device="cpu")
    empty.load_state_dict(state)
    assert torch.equal(empty(x)[0], expected)


@wired_kinds
def test_shapes_on_the_meta_device(kind: Kind) -> None:
    layer, x = make(kind)
    real, _ = layer(x)
    output, hn = layer.to("meta")(x.to("meta"))
    assert output.is_meta
    assert output.shape == real.shape
    assert hn.shape == (3, N)


def test_lists_of_synapses_move_with_a_layer() -> None:
    # Compiled code takes the lists as they are.
    moved = LTC(I, AutoNCP(N, 2)).to("meta")
    assert moved.rnn_cell._synapses.synapses.is_meta
    assert moved.rnn_cell._sensory_synapses.synapses.is_meta


@over_kinds()
def test_functional_call(kind: Kind) -> None:
    layer, x = make(kind)
    before = layer(x)[0]
    state = other_state(layer)
    with torch.no_grad():
        expected = with_state(kind, state)(x)[0]
        assert torch.equal(functional_call(layer, state, (x,))[0], expected)
    name = some_weight(layer)
    assert not torch.equal(functional_call(layer, {name: state[name]}, (x,))[0], before)
    assert torch.equal(layer(x)[0], before)
    leaf = state[name].clone().requires_grad_()
    functional_call(layer, {name: leaf}, (x,))[0].sum().backward()
    assert leaf.grad is not None


@over_kinds()
def test_torch_func_grad_with_all_parameters(kind: Kind) -> None:
    layer, x = make(kind)

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, parameters, (x,))[0].square().sum()

    parameters = dict(layer.named_parameters())
    grads = torch.func.grad(loss)({n: p.detach() for n, p in parameters.items()}, x)
    layer(x)[0].square().sum().backward()
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            torch.testing.assert_close(grads[name], parameter.grad)
        else:
            assert (grads[name] == 0).all(), "masks are not differentiated"


@wired_kinds
def test_a_layer_that_was_on_the_meta_device(kind: Kind) -> None:
    layer, x = make(kind)
    state, expected = copy.deepcopy(layer.state_dict()), layer(x)[0]
    layer.to("meta")(x.to("meta"))
    layer.to_empty(device="cpu")
    layer.load_state_dict(state)
    assert torch.equal(layer(x)[0], expected)


@wired_kinds
def test_gradients_of_frozen_parameters_are_not_made(kind: Kind) -> None:
    layer, x = make(kind)
    (frozen, mask), (other, _), *_ = masked_parameters(layer)
    frozen.requires_grad_(False)
    layer(x)[0].sum().backward()
    assert frozen.grad is None
    assert other.grad is not None
    assert mask.grad is None


@wired_kinds
def test_masks_that_were_unfrozen_get_no_gradient(kind: Kind) -> None:
    layer, x = make(kind)
    layer.requires_grad_()
    layer(x)[0].sum().backward()
    for parameter, mask in masked_parameters(layer):
        assert mask.grad is None
        assert parameter.grad is not None


@over_kinds()
def test_inference_mode(kind: Kind) -> None:
    layer, x = make(kind)
    layer.eval()
    with torch.inference_mode():
        output, hn = layer(x)
        again, _ = layer(x, hn)
        assert kind(I, N)(x)[0].shape == again.shape == output.shape
    assert output.is_inference()
    with torch.no_grad():
        assert torch.equal(output, layer(x)[0])
    layer(x)[0].sum().backward()


@over_kinds()
def test_state_carried_from_call_to_call_is_one_sequence(kind: Kind) -> None:
    layer, x = make(kind)
    x = x.double()
    whole, last = layer.double()(x)
    hn, pieces = None, []
    for t in range(x.shape[1]):
        output, hn = layer(x[:, t : t + 1], hn)
        pieces.append(output)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(hn, last)


def test_hooks_see_the_layer_and_its_projection() -> None:
    layer, x = CfC(I, AutoNCP(N, 2), proj_size=3), torch.randn(3, 5, I)
    seen: list[torch.Size] = []
    layer.register_forward_hook(lambda module, args, result: seen.append(result[0].shape))
    layer.fc.register_forward_hook(lambda module, args, result: seen.append(args[0].shape))
    layer(x)
    assert seen == [*[(3, 2)] * 5, (3, 5, 3)], "the projection at each step, as in ncps"


@wired_kinds
def test_parameters_off_the_mask_do_not_matter(kind: Kind) -> None:
    layer, x = make(kind)
    expected = layer(x)[0]
    expected.sum().backward()
    masked = masked_parameters(layer)
    expected_grads = [parameter.grad.clone() for parameter, _ in masked]
    layer.zero_grad()
    assert any((mask == 0).any() for _, mask in masked)
    with torch.no_grad():
        for k, (parameter, mask) in enumerate(masked):
            parameter[mask == 0] = (torch.nan, torch.inf)[k % 2]
    output = layer(x)[0]
    assert torch.equal(output, expected)
    output.sum().backward()
    for (parameter, mask), gradient in zip(masked, expected_grads, strict=True):
        assert torch.equal(parameter.grad, gradient)
        assert (parameter.grad[mask == 0] == 0).all()


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("name", ["LTCCell", "CfCCell"])
def test_cells_of_ncps_and_fastltc_stand_side_by_side(name: str) -> None:
    sizes = (AutoNCP(N, 2), I) if name == "LTCCell" else (I, N)
    ours, theirs = (getattr(package, name)(*sizes) for package in (fastltc, ncps.torch))
    theirs.load_state_dict(ours.state_dict())
    x, h = torch.randn(3, I), torch.randn(3, N)
    torch.testing.assert_close(ours(x, h, 1.0), theirs(x, h, 1.0))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("kind", ["LTC", "LTC with memory", "CfC", "wired CfC"])
def test_fully_sharded(kind: str) -> None:
    """By FSDP2, which takes the memory of parameters, masks included, away between calls."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layer: Any = {
        "LTC": lambda: LTC(I, AutoNCP(N, 2)),
        "LTC with memory": lambda: LTC(I, N, mixed_memory=True),
        "CfC": lambda: fastltc.CfC(I, N, proj_size=2),
        "wired CfC": lambda: fastltc.CfC(I, AutoNCP(N, 2)),
    }[kind]()
    plain, x = copy.deepcopy(layer), torch.randn(3, 5, I)
    plain(x)
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    results = []
    for module in (plain, layer):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        outputs = []
        for _ in range(3):
            optimizer.zero_grad()
            output, _ = module(x)
            output.square().sum().backward()
            optimizer.step()
            outputs.append(output.detach())
        results.append(torch.stack(outputs))
    torch.testing.assert_close(*results)
    assert not torch.allclose(results[0][0], results[0][2])


def test_representations_are_short_and_have_the_sizes() -> None:
    layer = LTC(16, AutoNCP(19, 2, seed=1))
    cell = layer.rnn_cell
    lines = repr(layer).splitlines()
    assert len(lines) == 4
    assert lines[1].strip() == "16, 19, output_size=2"
    assert (
        f"synapses={cell.synapse_count}, sensory_synapses={cell.sensory_synapse_count}" in lines[2]
    )
    cell.make_positive_fn = torch.nn.ELU()
    assert "ELU(alpha=1.0)" in repr(layer)
    wired = repr(fastltc.CfC(16, AutoNCP(19, 2), proj_size=3, mode="pure"))
    assert "16, 19, output_size=2, proj_size=3" in wired
    assert "(layer_0): CfCCell(16, 11, mode='pure', masked)" in wired
    assert "backbone_units=7, activation='gelu'" in repr(
        fastltc.CfCCell(3, 4, backbone_activation="gelu", backbone_units=7)
    )
    assert (
        repr(fastltc.ParallelLTC([LTC(3, 4)] * 2)) == "ParallelLTC(2 layers, 3, 4, output_size=4)"
    )
    assert repr(layer.to("meta"))
