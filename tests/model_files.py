"""A small model, files forged of it, and what is asked of reading one."""

from __future__ import annotations

import copy
import functools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ncps.wirings import AutoNCP
from safetensors.numpy import save
from torch import nn

import fastltc
from fastltc.exporting import describe
from fastltc.runtime.model import Model, ModelFileError
from fastltc.runtime.model_file import (
    _digest,
    read_model,
)

DEEP = 100_000


@functools.cache
def _small_model() -> Model:
    return describe(
        [
            nn.Linear(2, 3),
            fastltc.LTC(3, AutoNCP(7, 2), mixed_memory=True),
            fastltc.CfC(2, AutoNCP(6, 1)),
            nn.Tanh(),
            fastltc.CfC(1, 3, proj_size=2, backbone_units=4, mode="pure"),
        ]
    )


def small_model() -> Model:
    """Make a small model with a layer of each kind, which the caller may change."""
    return copy.deepcopy(_small_model())


def description_of(model: Model) -> dict[str, Any]:
    sizes = {"input_size": model.input_size, "output_size": model.output_size}
    return copy.deepcopy({**sizes, "layers": model.layers})


def forge(
    path: Path,
    model: Model,
    /,
    description: Any = None,
    tensors: dict[str, np.ndarray] | None = None,
    **metadata: str | None,
) -> Path:
    """Write a file as somebody would who knows how to sign it.

    ``description`` may be text instead of JSON values; metadata that is None is left out.
    """
    description = description_of(model) if description is None else description
    text = description if isinstance(description, str) else json.dumps(description)
    tensors = model.tensors if tensors is None else tensors
    entries: dict[str, str | None] = {
        "format": "fastltc.model",
        "format_version": "1",
        "fastltc": "0",
        "model": text,
        "sha256": _digest(text, {k: t for k, t in tensors.items() if t.dtype == np.float32}),
        **metadata,
    }
    path.write_bytes(save(tensors, {k: v for k, v in entries.items() if v is not None}))
    return path


def refused(path: Path, text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ModelFileError, match=text) as caught:
        read_model(path)
    assert isinstance(caught.value, ValueError)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 500
    assert time.perf_counter() - start < 5


def same(one: Model, other: Model) -> bool:
    return (
        description_of(one) == description_of(other)
        and one.tensors.keys() == other.tensors.keys()
        and all(np.array_equal(tensor, other.tensors[key]) for key, tensor in one.tensors.items())
    )


FACTS: dict[str, Any] = {
    "time_unit": 60.0, "input_names": ("a", "\u00e9t\u00e9"), "output_names": ("on", "off")
}  # fmt: skip


def facts_of(model: Model) -> dict[str, Any]:
    return {key: getattr(model, key) for key in FACTS}
