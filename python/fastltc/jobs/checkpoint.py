"""What is in the file of a checkpoint, read as if a stranger had written it."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .data.images import MAX_PIXELS
from .errors import RunError

CHECKPOINT_FORMAT = 1
# Without these it is damaged; the others are younger.
ALWAYS = ("config", "classes", "positive", "image_shape", "epoch", "val", "model")


def unpack(packed: bytes, path: Path) -> dict[str, Any]:
    """The content of a file of `torch.save` that is a checkpoint; no code of it is run.

    Its fields have the types that they must have, and its tensors no more values than the file has.
    What is of no other size than that is loaded, so that memory and time follow the file's size.

    Raises:
        RunError: it is damaged, or no checkpoint; the text names ``path``.
    """
    import torch

    # What torch.save writes; older pickle files are not even opened.
    if not zipfile.is_zipfile(io.BytesIO(packed)):
        raise RunError(f"{path}: damaged checkpoint, not a file of torch.save")
    _check_members(packed, path)
    try:
        content = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)
    # torch.load raises OSError, KeyError, EOFError, RuntimeError, UnpicklingError and more.
    except Exception as error:
        # Not its text: torch's advises to load the file without the safeguard.
        raise RunError(
            f"{path}: damaged checkpoint, torch cannot load it ({type(error).__name__})"
        ) from None
    try:
        _check_fields(content, len(packed))
    except KeyError as error:
        raise RunError(f"{path}: damaged checkpoint: {error} is missing") from None
    # Of tensors of unusual layouts the sizes cannot be asked.
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise RunError(f"{path}: damaged checkpoint: {error}") from None
    return dict(content)


def _check_members(packed: bytes, path: Path) -> None:
    """Compares check sums, which torch.load ignores, and sizes: torch.save packs nothing."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as file:
            members = file.infolist()
            plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            fits = sum(member.file_size for member in members) <= len(packed)
            damaged = file.testzip() if plain and fits else None
    # Damaged headers raise BadZipFile, NotImplementedError, RuntimeError and others.
    except Exception as error:
        raise RunError(f"{path}: damaged checkpoint ({type(error).__name__})") from None
    if not (plain and fits):
        raise RunError(f"{path}: damaged checkpoint, not as torch.save packs it")
    if damaged is not None:
        raise RunError(f"{path}: damaged checkpoint, {damaged} has another check sum")


def _check_fields(content: Any, size: int) -> None:
    import torch

    if not isinstance(content, dict):
        raise TypeError(f"expected a dictionary, got {type(content).__name__}")
    if type(content["format"]) is not int or content["format"] != CHECKPOINT_FORMAT:
        expected = f"checkpoint format {CHECKPOINT_FORMAT} expected"
        raise ValueError(f"{expected}, got {_shown(content['format'])}")
    missing = next((name for name in ALWAYS if name not in content), None)
    if missing is not None:
        raise KeyError(missing)
    for name, (words, holds) in _FIELDS.items():
        if name in content and not holds(content[name]):
            raise TypeError(f"{name}: expected {words}, got {_shown(content[name])}")
    shape, classes = content["image_shape"], content["classes"]
    if bool(classes) == bool(content.get("targets", ())):
        raise ValueError("classes: expected names of either classes or targets")
    if not content.get("targets", ()) and content.get("horizon", 0):
        raise ValueError("horizon: expected targets to forecast")
    if math.prod(shape) > 3 * MAX_PIXELS:
        raise ValueError(f"image_shape: expected at most {3 * MAX_PIXELS:,} values, got {shape}")
    if content["positive"] is not None and not 0 <= content["positive"] < len(classes):
        raise ValueError(f"positive: expected one of {len(classes)}, got {content['positive']}")
    state = content["model"]
    strange = next((key for key, value in state.items() if not torch.is_tensor(value)), None)
    if strange is not None:
        raise TypeError(f"model: {_shown(strange)}: expected a tensor")
    # A tensor may be one number that is said to be there a billion times.
    held = sum(value.numel() * value.element_size() for value in state.values())
    if held > size:
        raise ValueError(f"model: {held:,} bytes of tensors in a file of {size:,}")


def check_size(content: Mapping[str, Any], least: int) -> None:
    """Makes sure that a model of at least ``least`` values may be made of the content.

    Raises:
        ValueError: its tensors have fewer.
    """
    held = sum(value.numel() for value in content["model"].values())
    if held < least:
        raise ValueError(
            f"a model of this configuration has at least {least:,} values, its tensors have "
            f"{held:,}"
        )


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) < 60 else f"{text[:60]}..."


def _is_int(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_strings(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(type(one) is str for one in value)


def _is_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(
        type(name) is str
        and isinstance(of, dict)
        and _is_int(of.get("n"))
        and type(of.get("digest")) is str
        for name, of in value.items()
    )


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and 1 <= len(value) <= 3
        and all(_is_int(one) and one > 0 for one in value)
    )


# What a field is, in words and as a condition.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "config": ("a dictionary", lambda value: isinstance(value, dict)),
    "classes": ("names", lambda value: _is_strings(value) and len(value) != 1),
    "positive": ("a number or None", lambda value: value is None or _is_int(value)),
    "image_shape": ("one to three sizes", _is_shape),
    "epoch": ("a number from 0", lambda value: _is_int(value) and value >= 0),
    "val": ("a dictionary", lambda value: isinstance(value, dict)),
    "model": ("a dictionary", lambda value: isinstance(value, dict)),
    "features": ("names", _is_strings),
    "time_unit": ("seconds from 0", lambda value: _is_number(value) and value >= 0),
    "targets": ("names", _is_strings),
    "horizon": ("a number from 0", lambda value: _is_int(value) and value >= 0),
    "known": ("names", _is_strings),
    **dict.fromkeys(
        ("multilabel", "per_step", "measured"),
        ("True or False", lambda value: type(value) is bool),
    ),
    "splits": ("sizes and digests", _is_digests),
    "training": ("a dictionary or None", lambda value: value is None or isinstance(value, dict)),
}
