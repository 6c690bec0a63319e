"""What may be done to the parameters of an LTC cell, one by one."""

from __future__ import annotations

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from fastltc import LTC

I, N = 4, 12  # noqa: E741


def make() -> tuple[LTC, Tensor]:
    return LTC(I, AutoNCP(N, 2)), torch.randn(3, 5, I)


def with_state(state: dict[str, Tensor]) -> LTC:
    layer = LTC(I, AutoNCP(N, 2))
    layer.load_state_dict(state)
    return layer


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


class Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


def test_parametrized_parameters() -> None:
    layer, x = make()
    state = layer.state_dict()
    doubled = {**state, "rnn_cell.w": 2 * state["rnn_cell.w"]}
    expected = with_state(doubled)(x)[0]
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
    expected = with_state(doubled)(x)[0]
    parametrize.register_parametrization(layer.rnn_cell, name, Doubled())
    assert torch.equal(layer(x)[0], expected)


def test_pruned_parameters() -> None:
    layer, x = make()
    prune.random_unstructured(layer.rnn_cell, "erev", 0.5)
    pruned = {**make()[0].state_dict()}
    for name in pruned:
        pruned[name] = dict(layer.named_parameters()).get(name, pruned[name]).detach()
    pruned["rnn_cell.erev"] = layer.rnn_cell.erev.detach()
    assert torch.equal(layer(x)[0], with_state(pruned)(x)[0])


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
