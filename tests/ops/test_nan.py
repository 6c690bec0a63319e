"""Where a NaN in the input goes, as docs/kernels.md says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastltc.ops import CFC_MODES
from layers import CfcCase, LtcCase, run_operator


def with_nan(x: Tensor) -> Tensor:
    x = x.clone()
    x[1, 0, 0] = torch.nan
    return x


def reached(case: LtcCase) -> Tensor:
    """Return which neurons synapses lead to from the first input, over any number of them."""
    found = case.masks[1][0].bool()
    for _ in range(len(found)):
        found = found | (case.masks[0][found] != 0).any(0)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("batch", [2, 3, 20])
def test_batch_lanes_pass_it_along_synapses_and_post_lanes_at_least(
    batch: int, gradients: bool, dtype: torch.dtype
) -> None:
    partly = False
    for density in (0.02, 0.04, 0.06, 0.08, 0.1, 0.5) * 3:
        case = LtcCase.random(batch, 6, neurons=23, density=density, dtype=dtype)
        bad = case.with_(x=with_nan(case.data["x"]))
        case, bad = (c.requiring_grad() if gradients else c for c in (case, bad))
        _, clean = run_operator(case)
        _, hn = run_operator(bad)
        others = torch.arange(batch) != 1
        assert torch.equal(hn[others], clean[others])
        expected = reached(case)
        partly = partly or bool(expected.any() and not expected.all())
        if gradients or batch == 20:
            assert torch.equal(hn[1].isnan(), expected)
            assert torch.equal(hn[1][~expected], clean[1][~expected])
        else:
            assert hn[1].isnan()[expected].all()
    assert partly


@pytest.mark.parametrize("mode", CFC_MODES)
@pytest.mark.parametrize("batch", [2, 20])
def test_cfc_passes_it_to_all_neurons(batch: int, mode: str) -> None:
    case = CfcCase.random(batch, 3, density=0.2, mode=mode)
    _, clean = run_operator(case)
    _, hn = run_operator(case.with_(x=with_nan(case.data["x"])))
    others = torch.arange(batch) != 1
    assert torch.equal(hn[others], clean[others])
    assert hn[1].isnan().all()
