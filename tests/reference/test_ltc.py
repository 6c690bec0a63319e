"""The reference is the meaning of the layer, so it is held against ncps and against the maths."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from fastltc import reference
from fastltc.ops import LTC_PARAMETERS
from ltc_cases import assert_all_close, random_case, random_weights, run_reference, with_gradients
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


def test_samples_are_independent() -> None:
    case = random_case(batch=4)
    output, hn = run_reference(case)
    for b in range(4):
        one = case.with_(**{name: tensor[b : b + 1] for name, tensor in case.data.items()})
        alone = run_reference(one)
        assert_all_close(
            {"output": alone[0][0], "hn": alone[1][0]}, {"output": output[b], "hn": hn[b]}
        )


def test_a_time_step_of_zero_holds_the_state() -> None:
    case = random_case(time=3)
    case = case.with_(timespans=torch.zeros_like(case.data["timespans"]))
    _, hn = run_reference(case)
    assert_all_close({"hn": hn}, {"hn": case.data["h0"]}, 1e-14)


def test_the_gradient_at_a_time_step_of_zero_is_the_slope() -> None:
    case = random_case(batch=1, time=1)
    weights = torch.randn(1, case.mask.shape[0]).double()

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


def test_lengths_cut_each_sample_off() -> None:
    case = random_case(batch=5, time=6, lengths=True)
    case.lengths[:3] = torch.tensor([0, 6, 1])
    case.data["x"].nan_to_num_()
    case.data["timespans"].nan_to_num_()
    output, hn = run_reference(case)
    last, _ = run_reference(case.with_(return_sequences=False))
    for b, length in enumerate(case.lengths.tolist()):
        one = case.with_(
            lengths=None,
            x=case.data["x"][b : b + 1, :length],
            timespans=case.data["timespans"][b : b + 1, :length],
            h0=case.data["h0"][b : b + 1],
        )
        alone = run_reference(one)
        assert_all_close(
            {"output": output[b, :length], "hn": hn[b], "last": last[b]},
            {
                "output": alone[0][0],
                "hn": alone[1][0],
                "last": run_reference(one.with_(return_sequences=False))[0][0],
            },
        )
        assert (output[b, length:] == 0).all()


def test_what_stands_behind_the_lengths_or_off_the_mask_does_not_matter() -> None:
    case = random_case(batch=5, time=6, lengths=True, poison=True, density=0.4)
    weights = random_weights(case)
    results = with_gradients(run_reference, case, weights)
    assert all(torch.isfinite(value).all() for value in results.values())
    behind = torch.arange(6) >= case.lengths[:, None]
    assert (results["grad of x"][behind] == 0).all()
    assert (results["grad of timespans"][behind] == 0).all()
    for name in ("w", "erev", "mu", "sigma"):
        assert (results[f"grad of {name}"][case.mask == 0] == 0).all()


@pytest.mark.parametrize(("batch", "time"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_an_empty_batch_and_an_empty_sequence(
    batch: int, time: int, return_sequences: bool
) -> None:
    case = random_case(batch=batch, time=time, return_sequences=return_sequences)
    output, hn = run_reference(case)
    assert output.shape == ((batch, time, 2) if return_sequences else (batch, 2))
    assert torch.equal(hn, case.data["h0"])
    if not return_sequences:
        expected = hn[:, :2] * case.parameters["output_w"] + case.parameters["output_b"]
        assert torch.equal(output, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_dtype(dtype: torch.dtype) -> None:
    case = random_case(poison=False).to(dtype)
    output, hn = run_reference(case)
    assert output.dtype == hn.dtype == dtype
    expected, _ = run_reference(case.to(torch.float64))
    error = (output.double() - expected).abs().max()
    assert error < 50 * torch.finfo(dtype).eps


def test_gradients_and_second_derivatives() -> None:
    case = random_case(batch=2, time=2, inputs=2, neurons=3, motors=1, poison=False, ode_unfolds=2)
    case.data["timespans"] += 0.1
    leaves = case.requiring_grad().leaves

    def function(*values: Tensor) -> tuple[Tensor, Tensor]:
        return run_reference(case.with_(**dict(zip(leaves, values, strict=True))))

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(function, tuple(leaves.values()))


def test_the_reference_needs_no_extension() -> None:
    code = (
        "import sys, torch, fastltc.reference as reference\n"
        "assert 'fastltc._extension' not in sys.modules, 'the loader is imported'\n"
        "assert not hasattr(torch.ops.fastltc, 'ltc_forward'), 'the operators are loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
