"""A network, and a place for a model file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastltc.exporting import describe
from fastltc.runtime import Network
from runtime_cases import make_layer


@pytest.fixture
def network() -> Network:
    return Network(describe(make_layer("ltc")))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"
