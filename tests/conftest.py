"""Fresh random inputs for every run, and a way to have the same ones again."""

import os
import random
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

from cuda_marker import require_cuda

_SEED = int(os.environ.get("FASTLTC_TEST_SEED") or int.from_bytes(os.urandom(4), "little"))


# tools/check_arm.sh: an emulator is slow, which is not the tests' fault.
hypothesis.settings.register_profile(
    "emulation", suppress_health_check=[hypothesis.HealthCheck.too_slow]
)


def pytest_report_header() -> str:
    return f"random inputs: FASTLTC_TEST_SEED={_SEED}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    require_cuda(item)


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> None:
    """Let Ctrl-C interrupt, as from a terminal.

    A shell starts its background jobs with the signal ignored, which Python and the programs that
    the tests start would keep to.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """Seed every generator; a failing test shows how to repeat it."""
    seed = (_SEED + zlib.crc32(request.node.nodeid.encode())) % 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # for the code under test, not for new draws
    torch.manual_seed(seed)
    print(f"repeat with FASTLTC_TEST_SEED={_SEED}")
    return seed


@pytest.fixture
def float64_default() -> object:
    """Make float64 the default dtype, so that ncps computes in it from the start."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def compiler_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compile anew: a cached graph would hide what the fake kernels say now."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


@pytest.fixture
def process_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """This process as the only one of a group.

    The group goes after what the test made on it. DistributedDataParallel drops its share of the
    group with Python's lock held; were that the last one, it would wait for a thread of gloo, which
    may wait for the lock.
    """
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()
