"""The library of CUDA kernels, as far as it can be looked at without a GPU."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest
import torch

from fastltc import _extension, info
from fastltc.ops.errors import check_has_kernels

BUILT = info.collect()["build"].get("cuda")
built_with_cuda = pytest.mark.skipif(not BUILT, reason="this build has no CUDA kernels")
ON_CUDA = types.SimpleNamespace(device=torch.device("cuda:0"))


@built_with_cuda
def test_it_loads_into_any_torch_and_registers_the_kernels() -> None:
    program = (
        "import torch\n"
        "from fastltc import _extension\n"
        "for name in ('_C', '_C_cuda'):\n"
        "    torch.ops.load_library(_extension.library_path(name))\n"
        "has = torch._C._dispatch_has_kernel_for_dispatch_key\n"
        "for name in ('ltc', 'cfc'):\n"
        "    assert has(f'fastltc::{name}_forward', 'CUDA'), name\n"
        "    assert has(f'fastltc::{name}_backward', 'CUDA'), name\n"
        "for name in ('masked_linear', 'masked_linear_backward'):\n"
        "    assert has('fastltc::' + name, 'CUDA'), name\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built with CUDA")
def test_it_is_not_loaded_into_a_torch_without_cuda() -> None:
    _extension.load_operators()
    path, reason = _extension.load_cuda_operators()
    assert path is None
    assert "built without CUDA" in reason
    assert reason in info.format_report()


def test_cuda_tensors_without_kernels_get_one_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "fastltc.ops.errors.load_cuda_operators", lambda: (None, "no _C_cuda.so here")
    )
    expected = r"cuda:0, .*not loaded: no _C_cuda.so here.*toolkit.*\.to\(\"cpu\"\)"
    with pytest.raises(RuntimeError, match=expected):
        check_has_kernels("ltc_forward", ON_CUDA)
    check_has_kernels("ltc_forward", torch.zeros(1))
