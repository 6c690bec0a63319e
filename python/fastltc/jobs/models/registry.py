"""Models by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ...exporting.errors import ExportError
from ...exporting.state_dict import read_state_dict
from ...nn import LTCCell
from ..data.sets import KINDS
from ..options import COUNT, one_of
from .backbones import NAMES as BACKBONES
from .backbones import Backbone
from .conv_ncp import ConvNCP
from .dense import Dense
from .ensemble import Ensemble
from .goal import Goal
from .patches import Patches
from .probe import Probe
from .reservoir import Reservoir
from .sequence import Rows
from .series import Series


class _Entry:
    """A model: how it is made and which options and data it takes."""

    def __init__(self, model: Any, **fixed: Any) -> None:
        self.make: Callable[..., nn.Module] = partial(model, **fixed)
        # What a user may set.
        given = {"input_shape", "image_shape", "classes", "goal", *fixed}
        self.options = inspect.signature(model).parameters.keys() - given
        self.kinds: tuple[str, ...] = model.KINDS
        # Whether it answers more than the class of an input.
        self.takes_goal = "goal" in inspect.signature(model).parameters
        # Fitted at once, by a method of that name, and not by gradients.
        self.closed_form = hasattr(model, "fit")


MODELS = {
    "conv-ncp": _Entry(ConvNCP),
    "dense": _Entry(Dense),
    "rows-ltc": _Entry(Rows, cell="ltc"),
    "rows-cfc": _Entry(Rows, cell="cfc"),
    "series-ltc": _Entry(Series, cell="ltc"),
    "series-cfc": _Entry(Series, cell="cfc"),
    "series-lstm": _Entry(Series, cell="lstm"),
    "patches-ltc": _Entry(Patches, cell="ltc"),
    "patches-cfc": _Entry(Patches, cell="cfc"),
    "patches-lstm": _Entry(Patches, cell="lstm"),
    "reservoir": _Entry(Reservoir),
    "probe": _Entry(Probe),
    **{name: _Entry(Backbone, name=name) for name in BACKBONES},
}


# Of a backbone, at least.
_FEATURES = 512


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
    sigmoid_precision: str | None = None,
    goal: Goal | None = None,
    **options: Any,
) -> nn.Module:
    """Builds a model by its name, with parameters drawn from torch's global generator.

    Args:
        name: one of `MODELS`.
        input_shape: ``(C, H, W)`` of images, ``(T, I)`` of sequences, ``(I,)`` of vectors.
        classes: number of classes, or of targets.
        units: neurons; None for the model's default.
        members: how many such models to ask together (`Ensemble`); None or 1 for a single one.
        sigmoid_precision: of LTC, see `fastltc.set_sigmoid_precision`.
        goal: what is to be answered; None for a class, of a time series for every row.
        options: of that model; None stands for its default.

    Returns:
        A module that maps inputs (of sequences see `Series`) to logits or values.

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
    if goal is not None and entry.takes_goal:
        given["goal"] = goal
    elif goal is not None and goal.of_values:
        able = ", ".join(known for known, other in MODELS.items() if other.takes_goal)
        raise ValueError(f"model: {name} tells classes apart; for values of time series: {able}")
    count = 1 if members is None else members
    COUNT.check("members", count)
    made = [entry.make(input_shape, classes, **given) for _ in range(count)]
    model = made[0] if count == 1 else Ensemble(made)
    if sigmoid_precision is not None:
        cells = [module for module in model.modules() if isinstance(module, LTCCell)]
        if not cells:
            raise ValueError("sigmoid_precision: an option of LTC; leave it out")
        for cell in cells:
            cell.sigmoid_precision = sigmoid_precision
    return model


def least_values(
    name: str,
    input_shape: tuple[int, ...],
    classes: int,
    units: int | None = None,
    *,
    members: int | None = None,
    **options: Any,
) -> int:
    """How many values the state dict of a model has at least; arguments as of `build_model`.

    The products of sizes that decide how long `build_model` takes, and how much memory.

    Raises:
        ValueError: an unknown name.
    """
    taken = find_model(name).options
    # Of a row, where rows are read.
    width = input_shape[-1] * (input_shape[0] if len(input_shape) == 3 else 1)
    if name == "dense":
        least = 1024 * math.prod(input_shape) + 128 * classes
    elif name == "probe":
        least = classes * (_FEATURES if options.get("backbone") else math.prod(input_shape))
    elif "head" in taken and options.get("head") in (None, "linear"):
        # Of two classes there is one logit.
        least = _FEATURES * max(classes - 1, 1)
    else:
        usual = classes if name == "conv-ncp" or "head" in taken else 1
        neurons = usual if units is None else units
        seen = neurons
        if options.get("wiring") != "ncp":
            seen *= max(options.get("reads") or 1, 1)
        decoder = options.get("decoder") or 0
        least = _least_between(neurons, options)
        least += decoder * (seen + classes) if decoder else seen * classes
        if name.startswith(("rows", "series", "reservoir")):
            least += width * max(options.get("encoder") or 1, 1)
        elif name.startswith("patches"):
            least += max(options.get("patch") or 1, 1) * max(options.get("encoder") or 1, 1)
    return least * (members or 1)


def _least_between(neurons: int, options: dict[str, Any]) -> int:
    """Values from neurons to neurons, or to a backbone and from it to them."""
    layers = options.get("backbone_layers")
    if options.get("wiring") != "none" or layers == 0:
        return neurons * neurons
    units = options.get("backbone_units") or 128
    return int(units * (2 * neurons + units * ((layers or 1) - 1)))


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
    try:
        state = read_state_dict(path)
        model.load_state_dict({key.removeprefix("module."): v for key, v in state.items()})
    except FileNotFoundError:
        raise ValueError(f"weights: {path}: no such file") from None
    except OSError as error:
        raise ValueError(f"weights: {path}: {error.strerror}") from None
    except ExportError as error:
        raise ValueError(f"weights: {error}") from None
    except RuntimeError as error:
        raise ValueError(f"weights: {path}: {error}") from None
