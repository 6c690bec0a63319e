"""The model file: what a trained model is without torch. Reads, checks and writes it.

A file is in the safetensors format. Its metadata holds ``format`` (``"fastltc.model"``),
``format_version``, ``fastltc`` (the version that wrote it), ``model`` (JSON, the layers in the
order in which they run, the unit of time and the names of inputs and outputs) and ``sha256``; its
tensors are the parameters, float32, by the names that they have in the state dict of the layer,
with ``layers.<i>.`` before them. docs/export.md describes all of it.

A file is read as if a stranger had written it. Sizes are compared with each other before a tensor
is read, so that no forged size makes anything allocate more than the file is long.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .._files import NotRegularError, open_regular, write_bytes
from .._version import own_version
from .model import (
    Model,
    ModelFileError,
    check_facts,
    check_keys,
    check_layers,
    check_model,
    check_names,
    check_shape,
    shown,
)

FORMAT = "fastltc.model"
FORMAT_VERSION = 3
# What later versions added to the description: since when, and what it is by default. A file is
# written as of the first version that has what it says, for readers of that version; those of
# version 1 would call any unit seconds.
_FACTS: dict[str, tuple[int, Any]] = {
    "time_unit": (2, 1.0),
    "input_names": (2, ()),
    "output_names": (2, ()),
    "sigmoid_precision": (3, "highest"),
}
# Version 1 had it in entries for people, where it came from a run folder.
_FACTS_OF_VERSION_1 = {"time_unit": "time_unit", "inputs": "input_names", "outputs": "output_names"}

# Far above what any model of this kind needs; they bound what a forged file can ask for.
_MAX_HEADER = 4 << 20
_MAX_BYTES = 1 << 31
_MAX_INTEGER_DIGITS = 20


def read_model(path: str | os.PathLike[str]) -> Model:
    """Read and check a model file.

    Args:
        path: a file that :func:`fastltc.export` or ``fastltc export`` has written.

    Returns:
        The model; its arrays are float32, C-contiguous and read-only.

    Raises:
        ModelFileError: (a ValueError) if the file is truncated, tampered with, of a newer format
            version, or describes a model that cannot be; the text names file and fault.
        OSError: if it cannot be opened.

    Example:
        >>> from fastltc.runtime.model_file import read_model
        >>> model = read_model("model.safetensors")
        >>> model.layers[0]["type"]
        'ltc'
    """
    path = Path(path)
    _check_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            return _read(file)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None
    except SafetensorError as error:
        raise ModelFileError(f"{path}: truncated or damaged safetensors file: {error}") from None


def is_model_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is of the safetensors format and says that it is a model of fastltc."""
    try:
        _check_file(Path(path))
        with safe_open(Path(path), framework="numpy") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (ModelFileError, SafetensorError, OSError):
        return False


def write_model(
    model: Model, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Check a model and write it, whole or not at all.

    Args:
        model: what to write.
        path: the file; one that is there is replaced once the new one is complete.
        metadata: further entries of the file's metadata, which the reader ignores.

    Raises:
        ModelFileError: (a ValueError) if the model is not valid, see :func:`check_model`.
        OSError: if it cannot be written; what was there before is still there.
    """
    check_model(model)
    description = _description(model)
    # Entries of those names would be read as facts in a file of version 1.
    least = 2 if _FACTS_OF_VERSION_1.keys() & (metadata or {}).keys() else 1
    version = max([least, *(_FACTS[key][0] for key in _facts(model))])
    entries = {
        **(metadata or {}),
        "format": FORMAT,
        "format_version": str(version),
        "fastltc": own_version() or "unknown",
        "model": description,
        "sha256": _digest(description, model.tensors),
    }
    write_bytes(Path(path), save(dict(model.tensors), entries))


def model_digest(model: Model) -> str:
    """Return the ``sha256`` that the file of a model has."""
    return _digest(_description(model), model.tensors)


def _description(model: Model) -> str:
    sizes = {"input_size": model.input_size, "output_size": model.output_size}
    return json.dumps({**sizes, "layers": model.layers, **_facts(model)}, allow_nan=False)


def _facts(model: Model) -> dict[str, Any]:
    """Return what there is to say of a model besides its layers."""
    values = ((key, getattr(model, key), default) for key, (_, default) in _FACTS.items())
    return {key: value for key, value, default in values if value != default}


def _check_file(path: Path) -> None:
    """Check what the library does not: that it is a file, and how long the header claims to be."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
    except NotRegularError as error:
        raise ModelFileError(f"{path}: {error.strerror}") from None
    if len(start) < 8:
        raise ModelFileError(f"{path}: truncated: {len(start)} bytes are no model file")
    if size > _MAX_BYTES:
        raise ModelFileError(f"{path}: {size} bytes, expected at most {_MAX_BYTES}")
    header, most = int.from_bytes(start, "little"), min(_MAX_HEADER, size - 8)
    if header > most:
        raise ModelFileError(
            f"{path}: truncated or not a safetensors file: its header claims {header} bytes, "
            f"expected at most {most}"
        )


def _read(file: Any) -> Model:
    metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise ModelFileError(
            f"not a model file: its metadata has format {shown(metadata.get('format'))}, expected "
            f"{FORMAT!r}; `fastltc export` makes model files from run folders and state dicts"
        )
    version = metadata.get("format_version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 9 and int(version) > 0):
        raise ModelFileError(f"format_version: expected a number, got {shown(version)}")
    if int(version) > FORMAT_VERSION:
        raise ModelFileError(
            f"format_version {version} is newer than {FORMAT_VERSION}, the newest that fastltc "
            f"{own_version() or 'unknown'} reads; written by fastltc "
            f"{shown(metadata.get('fastltc'))}"
        )
    for key in ("model", "sha256"):
        if key not in metadata:
            raise ModelFileError(f"{key}: missing in the metadata")
    description = _parse(metadata["model"], "model")
    if not isinstance(description, dict):
        raise ModelFileError(f"model: expected a JSON object, got {shown(description)}")
    facts = {
        key: description.pop(key)
        for key, (since, _) in _FACTS.items()
        if int(version) >= since and key in description
    }
    check_keys("model", description, ("input_size", "output_size", "layers"))
    shapes = check_layers(**description)
    if int(version) == 1:
        facts = _facts_of_version_1(metadata, description)
    facts = {key: tuple(v) if isinstance(v, list) else v for key, v in facts.items()}
    check_facts(Model(**description, tensors={}, **facts))
    check_names(shapes, file.keys())
    for name, shape in shapes.items():
        kept = file.get_slice(name)
        if kept.get_dtype() != "F32":
            raise ModelFileError(f"{name}: expected dtype F32, got {kept.get_dtype()}")
        check_shape(name, tuple(kept.get_shape()), shape)
    tensors = {name: np.ascontiguousarray(file.get_tensor(name)) for name in shapes}
    if _digest(metadata["model"], tensors) != metadata["sha256"]:
        swapped = {name: tensor.byteswap() for name, tensor in tensors.items()}
        if _digest(metadata["model"], swapped) == metadata["sha256"]:
            raise ModelFileError(
                "its numbers are big-endian, expected little-endian ones, as safetensors has them"
            )
        raise ModelFileError("the content does not match its sha256: damaged or tampered with")
    model = Model(**description, tensors=tensors, **facts)
    check_model(model)
    for tensor in tensors.values():
        tensor.flags.writeable = False
    return model


def _facts_of_version_1(
    metadata: Mapping[str, str], description: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the unit, and those names that fit: the entries could hold any text."""
    facts: dict[str, Any] = {}
    for entry, key in _FACTS_OF_VERSION_1.items():
        # Those of a layer of a larger model were written with the outputs' names of the model.
        if entry not in metadata or (entry == "outputs" and "inputs" not in metadata):
            continue
        try:
            value = _parse(metadata[entry], entry)
            fact: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value}
            check_facts(Model(**description, tensors={}, **fact))
        except ModelFileError:
            # Without its unit a model is of no use.
            if key == "time_unit":
                raise
            continue
        facts |= fact
    return facts


def _parse(text: str, name: str) -> Any:
    def integer(digits: str) -> int:
        # Reading long integers takes a time that grows with the square of their length.
        if len(digits) > _MAX_INTEGER_DIGITS:
            raise ModelFileError(f"{name}: an integer has {len(digits)} digits")
        return int(digits)

    def constant(text: str) -> float:
        raise ModelFileError(f"{name}: {text} is not JSON")

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ModelFileError(f"{name}: an object has a key twice")
        return found

    try:
        return json.loads(
            text, parse_int=integer, parse_constant=constant, object_pairs_hook=object_of
        )
    except json.JSONDecodeError as error:
        raise ModelFileError(f"{name}: damaged JSON: {error}") from None
    except RecursionError:
        raise ModelFileError(f"{name}: JSON that is nested too deeply") from None


def _digest(description: str, tensors: Mapping[str, np.ndarray]) -> str:
    # With OpenSSL behind it, some milliseconds to import.
    import hashlib

    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name], dtype="<f4").data)
    return digest.hexdigest()
