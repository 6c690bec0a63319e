"""Tests and benchmarks marked ``cuda``: skipped where they cannot run, with the reason."""

import functools
import os

import pytest
import torch


@functools.cache
def why_no_cuda() -> str:
    """Return why tests that need a GPU cannot run here, or an empty text."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    from fastltc import _extension

    _extension.load_operators()
    path, reason = _extension.load_cuda_operators()
    return "" if path is not None else reason


def require_cuda(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none, or fail it under FASTLTC_REQUIRE_CUDA=1."""
    if item.get_closest_marker("cuda") is None:
        return
    reason = why_no_cuda()
    if reason and os.environ.get("FASTLTC_REQUIRE_CUDA", "") not in ("", "0"):
        pytest.fail(f"FASTLTC_REQUIRE_CUDA is set, but {reason}")
    if reason:
        pytest.skip(reason)
