"""Attributions add up, and are those of Captum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastltc import CfC
from fastltc.inspect import attribute, draw_attribution
from fastltc.jobs.models import build_model

B, T, I = 3, 6, 4  # noqa: E741


class Classifier(nn.Module):
    """A layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = CfC(I, 7, return_sequences=False).double()
        self.head = nn.Linear(7, 3).double()

    def forward(self, x: Tensor, timespans: Any = None) -> Tensor:
        """Return logits."""
        return self.head(self.rnn(x, timespans=timespans)[0])


def test_integrated_gradients_add_up_to_what_they_explain() -> None:
    model, x = Classifier(), torch.randn(B, T, I).double()
    start = torch.randn(1, T, I).double()
    target, timespans = [2, 0, 1], torch.rand(B, T).double()
    found = attribute(model, x, target, baseline=start, steps=200, timespans=timespans)
    change = model(x, timespans) - model(start.expand_as(x), timespans)
    expected = change.gather(1, torch.tensor(target)[:, None])[:, 0]
    torch.testing.assert_close(found.sum((1, 2)), expected, rtol=1e-3, atol=1e-4)
    rows = attribute(model, x, target, baseline=start, steps=200, axis=1, timespans=timespans)
    torch.testing.assert_close(rows, found.sum(2))
    assert all(p.grad is None for p in model.parameters())


def test_they_are_those_of_captum() -> None:
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    model, x = Classifier(), torch.randn(B, T, I).double()
    target = torch.tensor([2, 0, 1])
    theirs = captum.IntegratedGradients(model).attribute(
        x, target=target, n_steps=8, method="riemann_middle"
    )
    torch.testing.assert_close(attribute(model, x, target, steps=8), theirs, rtol=0, atol=1e-10)
    theirs = captum.InputXGradient(model).attribute(x.clone().requires_grad_(), target=target)
    ours = attribute(model, x, target, method="gradient_x_input")
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-10)


def test_rows_of_an_image_that_a_classifier_reads() -> None:
    model = build_model("rows-cfc", (1, 28, 28), 4).eval()
    images = torch.rand(2, 1, 28, 28)
    images[:, :, 10:] = 0
    rows = attribute(model, images, target=1, steps=4, axis=2)
    assert rows.shape == (2, 28)
    assert (rows[:, 10:] == 0).all()
    assert (rows[:, :10] != 0).any()
    assert draw_attribution(images[0], rows[0], title="a class")[1:4] == b"PNG"
    with pytest.raises(ValueError, match=r"attribution: .* got \[27\] for \[1, 28, 28\]"):
        draw_attribution(images[0], rows[0, 1:])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "saliency"}, ValueError, "method: expected one of integrated_gradients"),
        ({"steps": 0}, ValueError, "steps: expected 1 or more, got 0"),
        ({"axis": 3}, ValueError, "axis: expected 1 to 2, got 3"),
        ({"target": 3}, IndexError, "target: expected outputs of 0 to 2, got 3 to 3"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attribute(Classifier(), torch.zeros(B, T, I).double(), **{"target": 0, **options})


def test_outputs_of_every_step_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model: expected outputs of shape \[B, M\].*\[3, 6, 5\]"):
        attribute(CfC(I, 5), torch.zeros(B, T, I), 0)
