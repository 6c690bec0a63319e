"""The reference of LTC is the meaning of the layer, so it is held against ncps and the maths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastltc import reference
from fastltc.ops import LTC_PARAMETERS
from layers import LtcCase, assert_all_close, run_reference
from ncps_twins import WIRINGS, check_twins, twins


class ReferenceLayer(nn.Module):
    """The reference with the parameters of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.rnn_cell = layer.rnn_cell
        self.options = {
            "output_size": layer.motor_size,
            "ode_unfolds": layer.rnn_cell._ode_unfolds,
            "epsilon": layer.rnn_cell._epsilon,
            "softplus": layer.rnn_cell._implicit_param_constraints,
            "return_sequences": layer.return_sequences,
        }

    def forward(
        self, x: Tensor, h0: Tensor | None = None, timespans: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        cell = self.rnn_cell
        parameters = {name: getattr(cell, name, None) for name in LTC_PARAMETERS}
        masks = {"mask": cell.sparsity_mask, "sensory_mask": cell.sensory_sparsity_mask}
        return reference.ltc(x, h0, timespans, **parameters, **masks, **self.options)


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_outputs_and_gradients_are_those_of_ncps(wiring: str, softplus: bool) -> None:
    theirs, ours = twins(WIRINGS[wiring], 5, implicit_param_constraints=softplus)
    x, h0 = torch.randn(3, 4, 5).double(), torch.rand(3, ours.state_size).double()
    check_twins(theirs, ReferenceLayer(ours), x, h0)


@pytest.mark.parametrize("unfolds", [1, 3])
@pytest.mark.parametrize("mapping", ["affine", "linear", None])
def test_maps_and_unfolds_are_those_of_ncps(mapping: str | None, unfolds: int) -> None:
    options = {"input_mapping": mapping, "output_mapping": mapping, "ode_unfolds": unfolds}
    theirs, ours = twins(WIRINGS["auto ncp"], 5, return_sequences=False, epsilon=0.01, **options)
    check_twins(theirs, ReferenceLayer(ours), torch.randn(2, 3, 5).double())


def test_time_steps_per_neuron_are_those_of_ncps() -> None:
    theirs, ours = twins(WIRINGS["random"], 5)
    h0, timespans = torch.rand(3, 31).double(), torch.rand(3, 4, 31).double() + 0.01
    check_twins(theirs, ReferenceLayer(ours), torch.randn(3, 4, 5).double(), h0, timespans)


def test_time_steps_per_sample_are_those_of_ncps_on_one_sample() -> None:
    # ncps has the wrong shapes for more than one.
    theirs, ours = twins(WIRINGS["random"], 5)
    for _ in range(3):
        h0, timespans = torch.rand(1, 31).double(), torch.rand(1, 4).double() + 0.01
        check_twins(theirs, ReferenceLayer(ours), torch.randn(1, 4, 5).double(), h0, timespans)


def test_a_time_step_of_zero_holds_the_state() -> None:
    case = LtcCase.random(time=3)
    case = case.with_(timespans=torch.zeros_like(case.data["timespans"]))
    _, hn = run_reference(case)
    assert_all_close({"hn": hn}, {"hn": case.data["h0"]}, 1e-14)


def test_the_gradient_at_a_time_step_of_zero_is_the_slope() -> None:
    case = LtcCase.random(batch=1, time=1)
    weights = torch.randn(1, case.neurons).double()

    def value(dt: float) -> Tensor:
        return (
            run_reference(case.with_(timespans=torch.tensor([[dt]]).double()))[1] * weights
        ).sum()

    dt = torch.zeros(1, 1).double().requires_grad_()
    _, hn = run_reference(case.with_(timespans=dt))
    (gradient,) = torch.autograd.grad((hn * weights).sum(), dt)
    # One-sided: a negative time step has no meaning, but the formula has a value there.
    slope = (value(1e-5) - value(-1e-5)) / 2e-5
    assert gradient.item() == pytest.approx(slope.item(), rel=1e-6, abs=1e-6)
