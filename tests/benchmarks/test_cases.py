import os

import pytest
import torch
from torch import nn

from cases import CASES, Layers
from worker import peak_memory

ONE_STEP = CASES["one_step"]


def test_evaluations_are_those_of_the_masks() -> None:
    layers = Layers(ONE_STEP)
    cell = layers.fastltc.module.rnn_cell
    synapses, sensory = cell.sparsity_mask.count_nonzero(), cell.sensory_sparsity_mask.sum()
    assert layers.evaluations == 6 * synapses + sensory


def test_layers_agree() -> None:
    assert 0 <= Layers(ONE_STEP).check() < 1e-3


@pytest.mark.parametrize("name", ["sensory_mu", "output_b", "cm"])
def test_a_difference_is_found(name: str) -> None:
    layers = Layers(ONE_STEP)
    with torch.no_grad():
        getattr(layers.fastltc.module.rnn_cell, name).add_(1e-2)
    with pytest.raises(AssertionError, match=r"differs by .* from ncps"):
        layers.check()


def test_nan_is_found() -> None:
    layers = Layers(ONE_STEP)
    with torch.no_grad():
        layers.fastltc.module.rnn_cell.output_b.fill_(torch.nan)
    with pytest.raises(AssertionError, match="output differs by nan"):
        layers.check()


def test_a_training_step_leaves_fresh_gradients() -> None:
    layer = Layers(ONE_STEP).fastltc
    layer.training_step()
    parameters = [layer.x, *(p for p in layer.module.parameters() if p.requires_grad)]
    first = [p.grad for p in parameters]
    layer.training_step()
    for parameter, grad in zip(parameters, first, strict=True):
        assert grad is not None
        torch.testing.assert_close(parameter.grad, grad, rtol=0, atol=0)


class Hungry:
    """Stands for a layer whose step takes 64 MiB, and gives them back."""

    def __init__(self) -> None:
        self.module = nn.Identity()
        self.x = torch.zeros(2, 3, 4)
        self.grad_output = torch.zeros(2, 3, 1)
        self.steps: list[torch.Size] = []

    def training_step(self) -> None:
        self.steps.append(self.x.shape)
        for _ in range(2):
            torch.ones(16, 2**20)


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK),
    reason="the peak of resident memory can only be reset on Linux",
)
def test_peak_memory_sees_what_is_freed_again() -> None:
    layer = Hungry()
    peak = peak_memory(layer)  # type: ignore[arg-type]
    assert layer.steps == [torch.Size([2, 1, 4]), torch.Size([2, 3, 4])]
    # The kernel counts pages per core and adds them up in batches.
    assert 63 < peak / 2**20 < 68
