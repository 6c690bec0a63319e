"""What values a model meets: from calibration data, run through the float model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import Session
from ..runtime.model import RECURRENT, Model
from .errors import ExportError
from .prepared import under

_MARGIN = 1.5  # for what the data did not show
_MOST_STEPS = 20_000


@dataclass(frozen=True)
class Calibration:
    """Observations of the kind that the device will see.

    Args:
        x: ``[T, S, I]``, of S streams.
        dt: ``[T, S]``, time steps in the model's unit.
        source: where they are from, for messages.
    """

    x: np.ndarray
    dt: np.ndarray
    source: str


def made_up(model: Model) -> Calibration:
    """Return observations where there are none: normal numbers, steps of about a unit."""
    random = np.random.default_rng(0)
    x = random.standard_normal((250, 4, model.input_size)).astype(np.float32)
    dt = random.uniform(0.5, 1.5, x.shape[:2]).astype(np.float32)
    return Calibration(x, dt, "made-up data (normal inputs, steps of 0.5 to 1.5)")


def read_calibration(model: Model, path: Path) -> Calibration:
    """Read observations from a file.

    Args:
        model: whose inputs they are.
        path: ``.npy`` with x ``[T, I]`` or ``[S, T, I]``; ``.npz`` with that as ``x``, and
            ``timespans`` ``[T]`` or ``[S, T]`` (default 1); or ``.csv``, a header, a column for
            each input in order, and one called ``dt`` if there are time steps.

    Raises:
        ExportError: (a ValueError) if it holds something else; the text names the fault.
        OSError: if it cannot be read.
    """
    try:
        if path.suffix == ".csv":
            x, dt = _read_csv(path)
        else:
            found: Any = np.load(path, allow_pickle=False)
            x, dt = (found, None) if isinstance(found, np.ndarray) else _of_archive(path, found)
    except ValueError as error:
        raise ExportError(f"calibration: {path}: {error}") from None
    if any(values is not None and values.dtype.kind not in "fiub" for values in (x, dt)):
        raise ExportError(f"calibration: {path}: expected numbers, got {x.dtype}")
    if x.ndim == 2:
        x, dt = x[None], None if dt is None else dt[None]
    if x.ndim != 3 or x.shape[2] != model.input_size or x.size == 0:
        raise ExportError(
            f"calibration: {path}: expected x of shape [T, I] or [S, T, I] with I = "
            f"{model.input_size}, got {list(x.shape)}"
        )
    dt = np.ones(x.shape[:2]) if dt is None else dt
    if dt.shape != x.shape[:2]:
        raise ExportError(
            f"calibration: {path}: expected timespans of shape {list(x.shape[:2])}, got "
            f"{list(dt.shape)}"
        )
    if not (np.isfinite(x).all() and np.isfinite(dt).all() and (dt >= 0).all()):
        raise ExportError(
            f"calibration: {path}: expected finite numbers, and no negative time step"
        )
    steps = max(1, _MOST_STEPS // len(x))
    x, dt = x[:_MOST_STEPS, :steps], dt[:_MOST_STEPS, :steps]
    return Calibration(_floats(x), _floats(dt), str(path))


def _floats(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.swapaxes(0, 1), np.float32)


def _of_archive(path: Path, archive: Any) -> tuple[np.ndarray, np.ndarray | None]:
    if "x" not in archive:
        raise ValueError(f"expected an array x, got {', '.join(archive) or 'none'}")
    return archive["x"], archive.get("timespans")


def _read_csv(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with path.open(encoding="utf-8") as file:
        names = [name.strip() for name in file.readline().split(",")]
        rows = np.loadtxt(file, delimiter=",", ndmin=2)
    if rows.shape[1] != len(names):
        raise ValueError(f"expected {len(names)} numbers a row, as its header, got {rows.shape[1]}")
    inputs = [index for index, name in enumerate(names) if name != "dt"]
    return rows[:, inputs], rows[:, names.index("dt")] if "dt" in names else None


@dataclass(frozen=True)
class Trace:
    """What the float model met.

    Args:
        outputs: ``[T, S, M]``.
        inputs: of each layer, ``[T S, I]``.
        states: of each layer h before and after every step, and c, or nothing: ``[T S, N]``.
    """

    outputs: np.ndarray
    inputs: list[np.ndarray]
    states: list[dict[str, np.ndarray]]


def trace(model: Model, data: Calibration) -> Trace:
    """Run the float model over calibration data."""
    session = Session(model, data.x.shape[1])
    before, after, outputs = [], [], []
    for x, dt in zip(data.x, data.dt, strict=True):
        before.append(session.get_state())
        outputs.append(session.step(x, dt).reshape(len(x), -1))
        after.append(session.get_state())
    old, new = (np.concatenate(part).astype(np.float64) for part in (before, after))
    value = data.x.reshape(-1, model.input_size).astype(np.float64)
    inputs: list[np.ndarray] = []
    states: list[dict[str, np.ndarray]] = []
    at = 0
    for index, layer in enumerate(model.layers):
        inputs.append(value)
        states.append({})
        parameters = model.parameters(index)
        if layer["type"] in RECURRENT:
            kept = slice(at, at + layer["units"])
            states[-1] = {"before": old[:, kept], "after": new[:, kept]}
            at += layer["units"]
            if layer["mixed_memory"]:
                states[-1]["c"] = new[:, at : at + layer["units"]]
                at += layer["units"]
            value = _output(layer, parameters, new[:, kept])
        elif layer["type"] == "linear":
            p = under(parameters, "")
            value = value @ p["weight"].T + p.get("bias", 0.0)
        else:
            value = function_of(layer["function"], value)
    return Trace(np.stack(outputs), inputs, states)


def _output(layer: dict[str, Any], parameters: dict[str, np.ndarray], h: np.ndarray) -> np.ndarray:
    if layer["type"] == "ltc":
        p = under(parameters, "rnn_cell.")
        return h[:, : layer["output_size"]] * p.get("output_w", 1.0) + p.get("output_b", 0.0)
    if layer["type"] == "wired_cfc":
        h = h[:, -layer["cells"][-1] :]
    if layer["proj_size"] is None:
        return h
    p = under(parameters, "fc.")
    return h @ p["weight"].T + p["bias"]


def function_of(name: str, x: np.ndarray) -> np.ndarray:
    """Return an activation of values ``[.., M]``, nearly: for ranges."""
    sigmoid = 1 / (1 + np.exp(-np.clip(x, -50, 50)))
    if name == "softmax":
        y = np.exp(x - x.max(-1, keepdims=True))
        return y / y.sum(-1, keepdims=True)
    results: dict[str, Any] = {
        "relu": np.maximum(x, 0),
        "tanh": np.tanh(x),
        "sigmoid": sigmoid,
        "silu": x * sigmoid,
        "gelu": x / (1 + np.exp(-np.clip(1.702 * x, -50, 50))),
        "lecun_tanh": 1.7159 * np.tanh(0.666 * x),
        "softplus": np.logaddexp(x, 0),
    }
    return results[name]


def seen(values: np.ndarray) -> float:
    """Return how large values may become of which these were seen."""
    return _MARGIN * float(np.abs(values).max(initial=0.0)) or 1.0
