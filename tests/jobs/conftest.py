"""What tests of training share: threads are set back, and pictures can be left out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from job_support import leave_out_pictures


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_pictures(monkeypatch)
