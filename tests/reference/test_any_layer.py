"""What the reference of any cell does with samples, lengths, masks, dtypes and derivatives."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from layers import (
    Case,
    Draw,
    assert_all_close,
    every_cell,
    every_equation,
    named,
    plainly,
    random_weights,
    run_reference,
    with_gradients,
)


@pytest.mark.parametrize("timespans", ["BT", "BTN"])
@every_equation
def test_samples_are_independent(draw: Draw, timespans: str) -> None:
    case = draw(batch=4, timespans=timespans)
    output, hn = run_reference(case)
    for b in range(4):
        one = case.with_(**{name: tensor[b : b + 1] for name, tensor in case.data.items()})
        alone, alone_hn = run_reference(one)
        assert_all_close(named((alone[0], alone_hn[0])), named((output[b], hn[b])))


@every_equation
def test_lengths_cut_each_sample_off(draw: Draw) -> None:
    case = draw(batch=5, time=6, lengths=True)
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
        alone, alone_hn = run_reference(one)
        alone_last, _ = run_reference(one.with_(return_sequences=False))
        assert_all_close(
            {"output": output[b, :length], "hn": hn[b], "last": last[b]},
            {"output": alone[0], "hn": alone_hn[0], "last": alone_last[0]},
        )
        assert (output[b, length:] == 0).all()


@every_equation
def test_what_stands_behind_the_lengths_or_off_the_mask_does_not_matter(draw: Draw) -> None:
    case = draw(batch=5, time=6, lengths=True, density=0.4)
    results = with_gradients(run_reference, case, random_weights(case))
    assert all(torch.isfinite(value).all() for value in results.values())
    behind = torch.arange(6) >= case.lengths[:, None]
    assert (results["grad of x"][behind] == 0).all()
    assert (results["grad of timespans"][behind] == 0).all()
    assert case.masked()
    for name, mask in case.masked().items():
        assert (results[f"grad of {name}"][mask == 0] == 0).all(), name


@pytest.mark.parametrize(("batch", "time"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("return_sequences", [True, False])
@plainly
def test_an_empty_batch_and_an_empty_sequence(
    draw: Draw, return_sequences: bool, batch: int, time: int
) -> None:
    case = draw(batch=batch, time=time, return_sequences=return_sequences)
    output, hn = run_reference(case)
    assert output.shape == ((batch, time, 2) if return_sequences else (batch, 2))
    assert torch.equal(hn, case.data["h0"])
    if not return_sequences:
        assert torch.equal(output, case.output_of(hn))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@plainly
def test_any_dtype(draw: Draw, dtype: torch.dtype) -> None:
    case = draw(poison=False).to(dtype)
    output, hn = run_reference(case)
    assert output.dtype == hn.dtype == dtype
    expected, _ = run_reference(case.to(torch.float64))
    assert (output.double() - expected).abs().max() < 50 * torch.finfo(dtype).eps


@every_equation
def test_gradients_and_second_derivatives(draw: Draw) -> None:
    case = draw(2, 2, 2, **draw.cell.tiny, poison=False)
    case.data["timespans"] += 0.1
    leaves = case.requiring_grad().leaves

    def function(*values: Tensor) -> tuple[Tensor, Tensor]:
        return run_reference(case.with_(**dict(zip(leaves, values, strict=True))))

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))
    assert torch.autograd.gradgradcheck(function, tuple(leaves.values()))


@every_cell
def test_the_reference_needs_no_extension(cell: type[Case]) -> None:
    code = (
        "import sys, torch, fastltc.reference as reference\n"
        "assert 'fastltc._extension' not in sys.modules, 'the loader is imported'\n"
        f"assert not hasattr(torch.ops.fastltc, '{cell.operator}_forward'), 'they are loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
