"""What is saved in the tests of failing and killed saves: a first state, then a second over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastltc._files import write_all
from fastltc.exporting.c_source import write_c
from fastltc.runtime.model import Model, check_layers
from fastltc.runtime.model_file import model_digest, read_model, write_model


def _model(number: int) -> Model:
    layer: dict[str, Any] = {
        "type": "cfc", "input_size": 2, "units": 3, "output_size": 3, "mixed_memory": False,
        "mode": "pure", "activation": "lecun_tanh", "backbone_layers": 0, "backbone_units": 0,
        "proj_size": None,
    }  # fmt: skip
    shapes = check_layers(2, 3, [layer])
    tensors = {name: np.full(shape, number, np.float32) for name, shape in shapes.items()}
    return Model(2, 3, [layer], tensors)


def _model_file(folder: Path, number: int) -> None:
    write_model(_model(number), folder / "model.safetensors")


def _c(folder: Path, number: int) -> None:
    write_c(_model(number), folder)


def _set(folder: Path, number: int) -> None:
    """Write two files over two, with a third that is new or goes."""
    texts = {name: f"{name} {number}".encode() * 3000 for name in ("best", "last")}
    if number == 2:
        texts["new"] = b"2"
    write_all({folder / name: text for name, text in texts.items()}, [folder / "picture"])
    if number == 1:
        (folder / "picture").write_bytes(b"of 1")


SAVES: dict[str, Callable[[Path, int], None]] = {"model": _model_file, "c": _c, "set": _set}


def state(folder: Path) -> dict[str, str]:
    """Return what the files say that have a name of their own, which must be whole."""
    found = {}
    for path in folder.iterdir():
        if path.suffix == ".safetensors":  # its header has no order
            found[path.name] = model_digest(read_model(path))
        elif not path.name.startswith("."):
            found[path.name] = path.read_text()
    return found
