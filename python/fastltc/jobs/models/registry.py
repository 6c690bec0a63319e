"""Classifiers by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ...exporting.errors import ExportError
from ...exporting.state_dict import read_state_dict
from ..data.sets import KINDS
from ..options import COUNT, one_of
from .backbones import NAMES as BACKBONES
from .backbones import Backbone
from .conv_ncp import ConvNCP
from .dense import Dense
from .ensemble import Ensemble
from .probe import Probe
from .reservoir import Reservoir
from .sequence import Rows, Series


class _Entry:
    """A model: how it is made and which options and data it takes."""

    def __init__(self, model: Any, **fixed: Any) -> None:
        self.make: Callable[..., nn.Module] = partial(model, **fixed)
        # What a user may set.
        given = {"input_shape", "image_shape", "classes", *fixed}
        self.options = inspect.signature(model).parameters.keys() - given
        self.kinds: tuple[str, ...] = model.KINDS
        # Fitted at once, by a method of that name, and not by gradients.
        self.closed_form = hasattr(model, "fit")


MODELS = {
    "conv-ncp": _Entry(ConvNCP),
    "dense": _Entry(Dense),
    "rows-ltc": _Entry(Rows, cell="ltc"),
    "rows-cfc": _Entry(Rows, cell="cfc"),
    "series-ltc": _Entry(Series, cell="ltc"),
    "series-cfc": _Entry(Series, cell="cfc"),
    "reservoir": _Entry(Reservoir),
    "probe": _Entry(Probe),
    **{name: _Entry(Backbone, name=name) for name in BACKBONES},
}


def find_model(name: str) -> _Entry:
    """The entry of a model.

    Raises:
        ValueError: an unknown name.
    """
    one_of(MODELS).check("model", name)
    return MODELS[name]


def default_model(kind: str) -> str:
    """The model for a kind of data where none is asked for."""
    return {"images": "conv-ncp", "series": "series-ltc", "vectors": "probe"}[kind]


def build_model(
    name: str,
    input_shape: tuple[int, ...],
    classes: int,
    units: int | None = None,
    *,
    members: int | None = None,
    **options: Any,
) -> nn.Module:
    """Builds a classifier by its name, with parameters drawn from torch's global generator.

    Args:
        name: one of `MODELS`.
        input_shape: ``(C, H, W)`` of images, ``(T, I)`` of sequences, ``(I,)`` of vectors.
        classes: number of classes.
        units: neurons; None for the model's default.
        members: how many such models to ask together (`Ensemble`); None or 1 for a single one.
        options: of that model; None stands for its default.

    Returns:
        A module that maps inputs (and for sequences timespans) to logits.

    Raises:
        ValueError: an unknown name or option, data of another kind, or sizes that do not fit.

    Example:
        >>> trainable_parameters(build_model("conv-ncp", (1, 28, 28), 2, 19, cell="cfc"))
        263048
    """
    entry = find_model(name)
    kind = KINDS[len(input_shape)]
    if kind not in entry.kinds:
        fitting = [known for known, other in MODELS.items() if kind in other.kinds]
        raise ValueError(
            f"model: {name} takes {' or '.join(entry.kinds)}, got {kind}; "
            f"for {kind}: {', '.join(fitting)}"
        )
    given = {key: value for key, value in {"units": units, **options}.items() if value is not None}
    unknown = sorted(set(given) - entry.options)
    if unknown:
        known = ", ".join(sorted(entry.options)) or "none"
        raise ValueError(f"{unknown[0]}: no option of the model {name}, whose options are: {known}")
    count = 1 if members is None else members
    COUNT.check("members", count)
    made = [entry.make(input_shape, classes, **given) for _ in range(count)]
    return made[0] if count == 1 else Ensemble(made)


def trainable_parameters(module: nn.Module) -> int:
    """The number of scalars an optimizer would change."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Loads a state dict from a file, such as that of the public model with the same names.

    Args:
        model: takes the weights; masks of wirings come along.
        path: a file of ``torch.save`` (or ``.safetensors``): the state dict, or a dictionary that
            has it under ``model``, ``state_dict`` or ``model_state_dict``. Prefixes ``module.`` (of
            DataParallel) are left out.

    Raises:
        ValueError: the file is missing, damaged, or its tensors are not those of the model; the
            text names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"weights: {path}: no such file")
    try:
        state = read_state_dict(path)
        model.load_state_dict({key.removeprefix("module."): v for key, v in state.items()})
    except ExportError as error:
        raise ValueError(f"weights: {error}") from None
    except RuntimeError as error:
        raise ValueError(f"weights: {path}: {error}") from None
