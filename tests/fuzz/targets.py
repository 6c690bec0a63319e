"""What reads hostile input, each as a function of bytes that returns or raises what it may.

``fuzz.py`` looks for bytes that make one do anything else; ``test_corpus.py`` replays those kept.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastltc.exporting.c_source import generate_c
from fastltc.jobs.config import TrainConfig, read_toml
from fastltc.jobs.data import load_data
from fastltc.jobs.data.arrays import open_npz
from fastltc.jobs.data.tables import read_table
from fastltc.jobs.errors import ConfigError, DataError
from fastltc.runtime import Network, Session
from fastltc.runtime.model import (
    ACTIVATIONS,
    CFC_ACTIVATIONS,
    Model,
    ModelFileError,
    check_layers,
    check_model,
)
from fastltc.runtime.model_file import read_model

# Of one process; in memory where there is such a folder.
_FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
_MOST_VALUES = 20_000


def _file(name: str, data: bytes) -> Path:
    path = _FOLDER / name
    path.write_bytes(data)
    return path


def model_file(data: bytes) -> None:
    """Read a model file, and step what it describes."""
    try:
        model = read_model(_file("model.safetensors", data))
    except ModelFileError:
        return
    _step(Network(model), model)


def _step(network: Network, model: Model) -> None:
    for streams in (1, 3):
        session = Session(network, streams)
        x = np.ones((streams, model.input_size), np.float32)
        out = session.step(x if streams > 1 else x[0])
        assert out.shape[-1] == model.output_size


def _chosen(data: bytes) -> dict[str, Any]:
    """Make a description whose every value a byte chooses, most of them possible."""
    tape = iter(data)

    def one_of(*values: Any) -> Any:
        byte = next(tape, 0)
        wrong = (0, -1, 1 << 40, None, "x", [], True, 0.5, 1e400)
        return wrong[byte % len(wrong)] if byte > 250 else values[byte % len(values)]

    def size() -> Any:
        return one_of(1, 2, 3, 5, 8, 17, 33)

    width = inputs = size()
    layers: list[dict[str, Any]] = []
    for _ in range(next(tape, 0) % 5 + 1):
        kind = one_of("ltc", "wired_cfc", "cfc", "linear", "activation")
        layer: dict[str, Any] = {"type": kind, "input_size": width}
        recurrent = {"units": size(), "mixed_memory": one_of(False, True)}
        if kind == "activation":
            layer = {"type": kind, "function": one_of(*ACTIVATIONS)}
        elif kind == "linear":
            layer |= {"output_size": size(), "bias": one_of(False, True)}
        elif kind == "ltc":
            maps = [one_of("affine", "linear", None) for _ in range(2)]
            layer |= recurrent | {
                "output_size": one_of(1, 2, recurrent["units"]),
                "ode_unfolds": one_of(1, 2, 6),
                "epsilon": one_of(1e-8, 0, 1, 0.5),
                "implicit_param_constraints": one_of(False, True),
                "input_mapping": maps[0],
                "output_mapping": maps[1],
            }
        else:
            layer |= recurrent | {"mode": one_of("default", "pure", "no_gate")}
            last = layer["units"]
            if kind == "wired_cfc":
                layer["cells"] = [size() for _ in range(next(tape, 0) % 3 + 1)]
                last = layer["cells"][-1]
                with contextlib.suppress(TypeError):
                    layer["units"] = one_of(sum(layer["cells"]))
            else:
                depth = one_of(0, 1, 2)
                layer["activation"] = one_of(*CFC_ACTIVATIONS)
                layer["backbone_layers"] = depth
                layer["backbone_units"] = 0 if depth == 0 else size()
            layer["proj_size"] = one_of(None, 1, 4)
            layer["output_size"] = one_of(layer["proj_size"] or last)
        layers.append(layer)
        width = layer.get("output_size", width)
    return {"input_size": inputs, "output_size": one_of(width), "layers": layers}


def _described(data: bytes) -> Model | None:
    """Make the model that a JSON text or a choice of values describes, parameters by its sizes."""
    try:
        text = json.loads(data) if data.startswith(b"{") else _chosen(data)
        facts = {
            key: text[key] for key in ("time_unit", "input_names", "output_names") if key in text
        }
        sizes = text["input_size"], text["output_size"], text["layers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # what read_model makes of such texts is tested by its own target
    names = facts.get("input_names"), facts.get("output_names")
    if not all(name is None or isinstance(name, list) for name in names):
        return None
    try:
        shapes = check_layers(*sizes)
        if sum(int(np.prod(shape)) for shape in shapes.values()) > _MOST_VALUES:
            return None
        random = np.random.default_rng(0)
        tensors = {
            name: (random.random(shape) < len(data) % 7 / 6).astype(np.float32)
            if "mask" in name
            else random.random(shape, np.float32)
            for name, shape in shapes.items()
        }
        for key in ("input_names", "output_names"):
            if key in facts:
                facts[key] = tuple(facts[key])
        model = Model(*sizes, tensors, **facts)
        check_model(model)
    except ModelFileError:
        return None
    if sum(layer.get("ode_unfolds", 0) for layer in model.layers) > 100:
        return None  # takes its time, as it was asked to
    return model


def network(data: bytes) -> None:
    """Make a network of a description, and step it."""
    model = _described(data)
    if model is not None:
        _step(Network(model), model)


def c_source(data: bytes) -> None:
    """Write a description as C."""
    model = _described(data)
    if model is not None:
        source = generate_c(model)
        for text in (source.source, source.header):
            assert text.isascii()
            assert "nan" not in text
            assert "inf" not in text.replace("infinite", "")


def table(data: bytes) -> None:
    """Read a CSV file: as a table, as a time series and as a list of images."""
    path = _file("table.csv", data)
    for read in (
        lambda: read_table(path),
        lambda: load_data(f"csv:{path}", time_column="t", window=2, offline=True),
        lambda: load_data(f"csv:{path}", offline=True),
    ):
        _may_refuse(read)


def toml(data: bytes) -> None:
    """Read a TOML file and make a configuration of it."""
    path = _file("options.toml", data)
    _may_refuse(lambda: TrainConfig.from_dict(read_toml(path)))


def npz(data: bytes) -> None:
    """Read an npz file: its arrays, and as a data set.

    Bytes that are no archive are packed as one, which no check sum then protects: the name of an
    array, a line break, its file, and two line breaks before the next.
    """
    path = _file("arrays.npz", data)
    if not data.startswith(b"PK"):
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
            warnings.simplefilter("ignore")  # of names that stand twice
            for member in data.split(b"\n\n\n")[:16]:
                name, _, content = member.partition(b"\n")
                name = name.partition(b"\0")[0] or b"nameless.npy"  # as zip archives end names
                archive.writestr(name.decode("latin-1"), content)
    _may_refuse(lambda: open_npz(path))
    _may_refuse(lambda: load_data(f"npz:{path}", offline=True))


def _may_refuse(read: Callable[[], Any]) -> None:
    try:
        read()
    except (DataError, ConfigError):
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    "model_file": model_file,
    "network": network,
    "c_source": c_source,
    "table": table,
    "toml": toml,
    "npz": npz,
}
