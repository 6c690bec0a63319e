"""What nn.Module promises: moving, copying, saving, replacing parameters, hooks into them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import ncps.torch
import pytest
import torch
from ncps.wirings import AutoNCP, Random
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize, prune

import fastltc
from fastltc import LTC, LTCCell

I, N = 4, 12  # noqa: E741


def make(**options: Any) -> tuple[LTC, Tensor]:
    return LTC(I, AutoNCP(N, 2), **options), torch.randn(3, 5, I)


def other_masks(layer: nn.Module) -> dict[str, Tensor]:
    """Return the state of a layer with other masks and other parameters."""
    state = {name: value + 0.1 for name, value in layer.state_dict().items()}
    for name, value in state.items():
        if name.endswith("_mask"):
            state[name] = (torch.rand_like(value) < 0.5).to(value)
    return state


def with_state(layer: LTC, state: dict[str, Tensor]) -> LTC:
    new = LTC(I, AutoNCP(N, 2), mixed_memory=layer.use_mixed)
    new.load_state_dict(state)
    return new


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_deepcopy_and_pickle(mixed_memory: bool) -> None:
    layer, x = make(mixed_memory=mixed_memory)
    expected = layer(x)[0]  # and so every cache is filled
    state = other_masks(layer)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copied(x)[0], expected)
        copied.load_state_dict(state)
        assert torch.equal(copied(x)[0], with_state(layer, state)(x)[0])
        assert torch.equal(layer(x)[0], expected)
    edited = copy.deepcopy(layer)
    mask = layer.rnn_cell.sparsity_mask
    mask.data.copy_(1 - mask.data)
    assert torch.equal(edited(x)[0], expected)
    assert not torch.equal(layer(x)[0], expected)


def test_saving_whole_modules(tmp_path: Any) -> None:
    layer, x = make()
    expected = layer(x)[0]
    torch.save(layer, tmp_path / "layer.pt")
    assert torch.equal(torch.load(tmp_path / "layer.pt", weights_only=False)(x)[0], expected)


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_moving_to_another_dtype(dtype: torch.dtype, mixed_memory: bool) -> None:
    layer, x = make(mixed_memory=mixed_memory)
    layer(x)
    layer.to(dtype)
    assert all(p.dtype == dtype for p in layer.parameters())
    x = x.to(dtype)
    output, hn = layer(x)
    states = hn if mixed_memory else (hn,)
    assert output.dtype == dtype
    assert all(h.dtype == dtype for h in states)
    again, _ = layer(x, hn)
    assert again.dtype == dtype
    exact = copy.deepcopy(layer).double()
    error = (output.double() - exact(x.double())[0]).abs().max()
    # The liquid cell computes in float32 at least; the memory cell in the dtype itself.
    assert error <= (8 if mixed_memory else 1) * torch.finfo(dtype).eps + 1e-12
    output.float().sum().backward()
    assert all(p.grad.dtype == dtype for p in layer.parameters() if p.requires_grad)


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_half_and_float32_mix(mixed_memory: bool) -> None:
    layer, x = make(mixed_memory=mixed_memory)
    output, hn = layer(x.bfloat16())
    assert output.dtype == torch.bfloat16
    assert (hn[0] if mixed_memory else hn).dtype == torch.bfloat16
    torch.testing.assert_close(output, layer(x.bfloat16().float())[0].bfloat16())
    state = torch.zeros(3, N)
    state = (state, state) if mixed_memory else state
    assert layer(x.bfloat16(), state)[0].dtype == torch.bfloat16
    half_state = torch.zeros(3, N).half()
    half_state = (half_state, half_state) if mixed_memory else half_state
    assert torch.equal(layer(x, half_state)[0], layer(x, state)[0])
    layer.bfloat16()
    assert layer(x)[0].dtype == torch.float32


@pytest.mark.parametrize("given", ["tensor", "float"])
def test_time_steps_are_not_rounded_to_the_half_type_of_the_input(given: str) -> None:
    layer, x = make()
    x = x.bfloat16()
    timespans = torch.rand(3, 5) if given == "tensor" else 0.1003
    with torch.no_grad():
        expected, _ = layer(x.float(), timespans=timespans)
        assert torch.equal(layer(x, timespans=timespans)[0], expected.bfloat16())
        assert torch.equal(
            layer.rnn_cell(x[:, 0], torch.zeros(3, N), 0.1003)[0],
            layer.rnn_cell(x[:, 0].float(), torch.zeros(3, N), 0.1003)[0].bfloat16(),
        )
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x, timespans=timespans)[0], expected)


@pytest.mark.parametrize("mixed_memory", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype, mixed_memory: bool) -> None:
    layer, x = make(mixed_memory=mixed_memory)
    head = nn.Linear(I, I)
    with torch.autocast("cpu", dtype):
        features = head(x)
        output, hn = layer(features)
        again, _ = layer(features, hn)
    assert features.dtype == dtype
    assert output.dtype == again.dtype == torch.float32
    assert (hn[0] if mixed_memory else hn).dtype == torch.float32
    expected, _ = layer(features.float())
    if mixed_memory:  # whose linear maps run in half
        torch.testing.assert_close(output, expected, rtol=0.02, atol=0.02)
    else:
        assert torch.equal(output, expected)
    output.sum().backward()
    assert head.weight.grad.dtype == torch.float32
    assert torch.isfinite(head.weight.grad).all()


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_assigning_a_state_dict(mixed_memory: bool) -> None:
    layer, x = make(mixed_memory=mixed_memory)
    layer(x)
    state = other_masks(layer)
    layer.load_state_dict(state, assign=True)
    assert layer.rnn_cell.w.data_ptr() == state["rnn_cell.w"].data_ptr()
    assert torch.equal(layer(x)[0], with_state(layer, state)(x)[0])


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_making_a_layer_without_memory(mixed_memory: bool) -> None:
    layer, x = make(mixed_memory=mixed_memory)
    state = other_masks(layer)
    expected = with_state(layer, state)(x)[0]
    with torch.device("meta"):
        empty = LTC(I, AutoNCP(N, 2), mixed_memory=mixed_memory)
    assert all(p.is_meta for p in empty.parameters())
    assigned = copy.deepcopy(empty)
    assigned.load_state_dict(state, assign=True)
    assert torch.equal(assigned(x)[0], expected)
    empty.to_empty(device="cpu")
    empty.load_state_dict(state)
    assert torch.equal(empty(x)[0], expected)


def test_shapes_on_the_meta_device() -> None:
    layer, x = make()
    output, hn = layer.to("meta")(x.to("meta"))
    assert output.is_meta
    assert output.shape == (3, 5, 2)
    assert hn.shape == (3, N)
    # Compiled code takes the lists as they are, and so they move with the layer.
    moved = make()[0].to("meta")
    assert moved.rnn_cell._synapses.synapses.is_meta
    assert moved.rnn_cell._sensory_synapses.synapses.is_meta


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_functional_call(mixed_memory: bool) -> None:
    layer, x = make(mixed_memory=mixed_memory)
    before = layer(x)[0]
    state = other_masks(layer)
    with torch.no_grad():
        expected = with_state(layer, state)(x)[0]
        assert torch.equal(functional_call(layer, state, (x,))[0], expected)
    part = {"rnn_cell.w": state["rnn_cell.w"]}
    assert not torch.equal(functional_call(layer, part, (x,))[0], before)
    assert torch.equal(layer(x)[0], before)
    leaf = state["rnn_cell.w"].clone().requires_grad_()
    functional_call(layer, {"rnn_cell.w": leaf}, (x,))[0].sum().backward()
    assert leaf.grad is not None


@pytest.mark.parametrize("mixed_memory", [True, False])
def test_torch_func_grad_with_all_parameters(mixed_memory: bool) -> None:
    layer, x = make(mixed_memory=mixed_memory)

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


class Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


def test_parametrized_parameters() -> None:
    layer, x = make()
    state = layer.state_dict()
    doubled = {**state, "rnn_cell.w": 2 * state["rnn_cell.w"]}
    expected = with_state(layer, doubled)(x)[0]
    parametrize.register_parametrization(layer.rnn_cell, "w", Doubled())
    output = layer(x)[0]
    assert torch.equal(output, expected)
    output.sum().backward()
    assert layer.rnn_cell.parametrizations.w.original.grad is not None


@pytest.mark.parametrize("name", ["input_w", "input_b", "output_w", "output_b"])
def test_parametrized_and_pruned_maps(name: str) -> None:
    layer, x = make()
    with torch.no_grad():
        layer.rnn_cell.get_parameter(name).add_(1)
    expected = layer(x)[0]
    prune.identity(layer.rnn_cell, name)
    assert torch.equal(layer(x)[0], expected)
    prune.remove(layer.rnn_cell, name)
    state = layer.state_dict()
    doubled = {**state, f"rnn_cell.{name}": 2 * state[f"rnn_cell.{name}"]}
    expected = with_state(layer, doubled)(x)[0]
    parametrize.register_parametrization(layer.rnn_cell, name, Doubled())
    assert torch.equal(layer(x)[0], expected)


def test_a_layer_that_was_on_the_meta_device() -> None:
    layer, x = make()
    state, expected = copy.deepcopy(layer.state_dict()), layer(x)[0]
    layer.to("meta")(x.to("meta"))
    layer.to_empty(device="cpu")
    layer.load_state_dict(state)
    assert torch.equal(layer(x)[0], expected)


@pytest.mark.parametrize("frozen", [True, False])
def test_forward_mode_is_refused_not_lost(frozen: bool) -> None:
    layer, x = make()
    layer.requires_grad_(not frozen)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"jvp|forward"):
        torch.func.jvp(lambda x: layer(x)[0], (x,), (torch.ones_like(x),))


def test_pruned_parameters() -> None:
    layer, x = make()
    prune.random_unstructured(layer.rnn_cell, "erev", 0.5)
    pruned = {**make()[0].state_dict()}
    for name in pruned:
        pruned[name] = dict(layer.named_parameters()).get(name, pruned[name]).detach()
    pruned["rnn_cell.erev"] = layer.rnn_cell.erev.detach()
    assert torch.equal(layer(x)[0], with_state(layer, pruned)(x)[0])


def test_gradients_of_frozen_parameters_are_not_made() -> None:
    layer, x = make()
    layer.rnn_cell.w.requires_grad_(False)
    layer(x)[0].sum().backward()
    assert layer.rnn_cell.w.grad is None
    assert layer.rnn_cell.mu.grad is not None
    assert layer.rnn_cell.sparsity_mask.grad is None


def test_masks_that_were_unfrozen_get_no_gradient() -> None:
    layer, x = make()
    layer.requires_grad_()
    layer(x)[0].sum().backward()
    assert layer.rnn_cell.sparsity_mask.grad is None
    assert layer.rnn_cell.w.grad is not None


def test_inference_mode() -> None:
    layer, x = make()
    with torch.inference_mode():
        output, hn = layer(x)
        again, _ = layer(x, hn)
    assert output.is_inference()
    with torch.no_grad():
        assert torch.equal(output, layer(x)[0])
    layer(x)[0].sum().backward()
    assert again.shape == output.shape


def test_state_carried_from_call_to_call_is_one_sequence() -> None:
    layer, x = make()
    whole, last = layer(x)
    hn, pieces = None, []
    for t in range(x.shape[1]):
        output, hn = layer(x[:, t : t + 1], hn)
        pieces.append(output)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(hn, last)


def test_hooks_see_the_layer() -> None:
    layer, x = make()
    seen = []
    layer.register_forward_hook(lambda module, args, result: seen.append(result[0].shape))
    layer(x)
    assert seen == [(3, 5, 2)]


def test_shared_memory() -> None:
    layer, x = make()
    expected = layer(x)[0]
    layer.share_memory()
    assert torch.equal(layer(x)[0], expected)


def test_averaged_models_keep_the_masks() -> None:
    layer, x = make()
    averaged = torch.optim.swa_utils.AveragedModel(layer)
    for _ in range(3):
        with torch.no_grad():
            layer.rnn_cell.w.add_(0.1)
        averaged.update_parameters(layer)
    assert torch.equal(averaged.module.rnn_cell.sparsity_mask, layer.rnn_cell.sparsity_mask)
    averaged(x)


def test_weight_decay_leaves_the_masks_alone() -> None:
    layer, x = make()
    mask = layer.rnn_cell.sparsity_mask.clone()
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1, weight_decay=0.5)
    layer(x)[0].sum().backward()
    optimizer.step()
    assert torch.equal(layer.rnn_cell.sparsity_mask, mask)


def test_parameters_off_the_mask_do_not_matter() -> None:
    layer = LTC(I, Random(N, 2, sparsity_level=0.6))
    x = torch.randn(3, 5, I)
    expected = layer(x)[0]
    expected.sum().backward()
    cell = layer.rnn_cell
    expected_grad = cell.mu.grad.clone()
    layer.zero_grad()
    with torch.no_grad():
        for prefix, mask in (("", cell.sparsity_mask), ("sensory_", cell.sensory_sparsity_mask)):
            for name in ("sigma", "mu", "w", "erev"):
                getattr(cell, prefix + name)[mask == 0] = torch.nan
    output = layer(x)[0]
    assert torch.equal(output, expected)
    output.sum().backward()
    assert torch.equal(cell.mu.grad, expected_grad)
    assert (cell.mu.grad[cell.sparsity_mask == 0] == 0).all()
    assert (cell.sensory_w.grad[cell.sensory_sparsity_mask == 0] == 0).all()


def test_cells_and_layers_of_ncps_and_fastltc_stand_side_by_side() -> None:
    wiring = AutoNCP(N, 2)
    ours = LTCCell(wiring, I)
    theirs = ncps.torch.LTCCell(AutoNCP(N, 2), I)
    theirs.load_state_dict(ours.state_dict())
    x, h = torch.randn(3, I), torch.randn(3, N)
    torch.testing.assert_close(ours(x, h), theirs(x, h))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["LTC", "LTC with memory", "CfC", "wired CfC"])
def test_fully_sharded(kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By FSDP2, which takes the memory of parameters, masks included, away between calls."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    layer: Any = {
        "LTC": lambda: LTC(I, AutoNCP(N, 2)),
        "LTC with memory": lambda: LTC(I, N, mixed_memory=True),
        "CfC": lambda: fastltc.CfC(I, N, proj_size=2),
        "wired CfC": lambda: fastltc.CfC(I, AutoNCP(N, 2)),
    }[kind]()
    plain, x = copy.deepcopy(layer), torch.randn(3, 5, I)
    plain(x)
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
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
    finally:
        distributed.destroy_process_group()


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
