"""Layers and models that are saved to a folder with their arguments, or to the Hugging Face Hub.

Needs ``huggingface_hub``: ``pip install "fastltc[hub]"``; import it as ``fastltc.hub``.
"""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file
from typing_extensions import Self

from fastltc import nn as layers
from fastltc._files import open_regular, read_bytes
from fastltc.wirings import (
    NCP,
    AutoNCP,
    ConnectomeLike,
    DeepNCP,
    FullyConnected,
    Random,
    SmallWorld,
    Wiring,
)

try:
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
except ImportError:
    raise ImportError(
        'fastltc.hub: expected huggingface_hub, which is not installed; pip install "fastltc[hub]"'
    ) from None

__all__ = ["LTC", "CfC", "HubMixin", "decode_wiring", "encode_wiring"]

_DRAWN = {
    "units": "units",
    "output_dim": "output_dim",
    "sensory_sparsity": "_sensory_sparsity",
    "inhibitory": "_inhibitory",
    "seed": "_seed",
}
# Argument of a wiring -> attribute that keeps it. The seed of an NCP is kept nowhere; its synapses,
# like those of all, are in the configuration.
_WIRINGS: dict[type[Wiring], dict[str, str]] = {
    Wiring: {"units": "units"},
    FullyConnected: {
        "units": "units",
        "output_dim": "output_dim",
        "erev_init_seed": "_erev_init_seed",
        "self_connections": "self_connections",
    },
    Random: {
        "units": "units",
        "output_dim": "output_dim",
        "sparsity_level": "sparsity_level",
        "random_seed": "_random_seed",
    },
    NCP: {
        "inter_neurons": "_num_inter_neurons",
        "command_neurons": "_num_command_neurons",
        "motor_neurons": "_num_motor_neurons",
        "sensory_fanout": "_sensory_fanout",
        "inter_fanout": "_inter_fanout",
        "recurrent_command_synapses": "_recurrent_command_synapses",
        "motor_fanin": "_motor_fanin",
    },
    AutoNCP: {
        "units": "units",
        "output_size": "_output_size",
        "sparsity_level": "_sparsity_level",
        "seed": "_seed",
    },
    DeepNCP: {
        "inter_neurons": "_inter_neurons",
        "command_neurons": "_command_neurons",
        "motor_neurons": "_motor_neurons",
        "sparsity_level": "_sparsity_level",
        "seed": "_seed",
    },
    SmallWorld: {
        **_DRAWN,
        "neighbours": "_neighbours",
        "rewiring": "_rewiring",
    },
    ConnectomeLike: {**_DRAWN, "mean_degree": "_mean_degree"},
}
_NAMES = {kind.__name__: kind for kind in _WIRINGS}
_HUB_ARGUMENTS = ("revision", "cache_dir", "force_download", "local_files_only", "token")
_MATRICES = ("adjacency_matrix", "sensory_adjacency_matrix")
_SIGNS = "-0+"
_SIZES = ("units", "inter_neurons", "command_neurons", "motor_neurons")
_CONFIG_BYTES = 64 * 2**20
_CONFIG_NAME, _WEIGHTS_NAME = "config.json", "model.safetensors"

_CARD = """---
{{ card_data }}
---

# {{ name }}

{{ about }}

```python
# pip install "fastltc[hub]"
{{ load }}
```

It was saved by fastltc. `config.json` has the arguments of the class, with the synapses of its
wiring, `model.safetensors` the parameters.
"""


def encode_wiring(wiring: Wiring) -> dict[str, Any]:
    """Return a wiring as what JSON holds: its class, its arguments and its synapses.

    Args:
        wiring: a wiring of ``fastltc.wirings``, built or not. A row of a matrix is a text, a letter
            for each neuron: ``+`` excites it, ``-`` inhibits it, ``0`` is no synapse.

    Raises:
        TypeError: if it is of another class, which only its own code could make again.
        ValueError: if a synapse has another polarity than -1 or 1.

    Example:
        >>> from fastltc.hub import decode_wiring, encode_wiring
        >>> from fastltc.wirings import Wiring
        >>> wiring = Wiring(3)
        >>> wiring.add_synapse(0, 2, -1)
        >>> data = encode_wiring(wiring)
        >>> data["wiring"], data["adjacency_matrix"]
        ('Wiring', ['00-', '000', '000'])
        >>> int(decode_wiring(data).adjacency_matrix[0, 2])
        -1
    """
    arguments = _WIRINGS.get(type(wiring))
    if arguments is None:
        raise TypeError(
            f"wiring: expected one of {', '.join(_NAMES)} of fastltc.wirings, whose class is known "
            f"where it is loaded, got {type(wiring).__name__}"
        )
    data: dict[str, Any] = {"wiring": type(wiring).__name__}
    data |= {name: _plain(getattr(wiring, kept)) for name, kept in arguments.items()}
    for name in _MATRICES:
        matrix = getattr(wiring, name)
        if matrix is not None and not np.isin(matrix, (-1, 0, 1)).all():
            raise ValueError(f"{name}: expected polarities of -1, 0 or 1, got others")
        data[name] = (
            matrix
            if matrix is None
            else ["".join(_SIGNS[int(polarity) + 1] for polarity in row) for row in matrix]
        )
    outputs = None if wiring.output_dim is None else int(wiring.output_dim)
    return data | {"inputs": _plain(wiring.input_dim), "outputs": outputs}


def decode_wiring(data: dict[str, Any]) -> Wiring:
    """Return the wiring that :func:`encode_wiring` made ``data`` of.

    Raises:
        ValueError: if it is of another class or its synapses do not fit its size.
    """
    kind = _NAMES.get(data["wiring"])
    if kind is None:
        raise ValueError(f"wiring: expected one of {', '.join(_NAMES)}, got {data['wiring']!r}")
    _check_sizes(kind, data)
    wiring = kind(**{name: data[name] for name in _WIRINGS[kind]})
    if data["inputs"] is not None:
        wiring.build(data["inputs"])
    for name in _MATRICES:
        made = getattr(wiring, name)
        if made is None:
            continue
        rows = data[name]
        if {*"".join(rows)} - {*_SIGNS}:
            raise ValueError(f"{name}: expected letters of {_SIGNS}, got others")
        made[:] = [[_SIGNS.index(letter) - 1 for letter in row] for row in rows]
    wiring.output_dim = data["outputs"]
    return wiring


def _check_sizes(kind: type[Wiring], data: dict[str, Any]) -> None:
    """Compare the sizes that a wiring would be made of with the rows that are there."""
    stated: list[int] = []
    for name in _SIZES:
        if name in _WIRINGS[kind]:
            sizes = data[name] if isinstance(data[name], (list, tuple)) else [data[name]]
            if not all(type(size) is int for size in sizes):
                raise ValueError(f"{name}: expected numbers of neurons, got {data[name]!r:.40}")
            stated += sizes
    width = sum(stated)
    for name, count in zip(_MATRICES, (width, data["inputs"] or 0), strict=True):
        rows = data[name] or []
        if [len(row) for row in rows] != [width] * len(rows) or len(rows) != count:
            raise ValueError(f"{name}: expected {count} rows of {width} letters of {_SIGNS}")


class HubMixin(
    PyTorchModelHubMixin,  # type: ignore[misc, unused-ignore]
    library_name="fastltc",
    tags=["liquid-neural-network"],
    model_card_template=_CARD,
):
    """``huggingface_hub.PyTorchModelHubMixin`` for models whose arguments may be wirings.

    A class that derives from it, and then from ``torch.nn.Module``, has ``save_pretrained``,
    ``from_pretrained`` and ``push_to_hub``. Its arguments must be wirings or what JSON holds; they
    go to ``config.json``, with the synapses of the wirings as they are when the model is saved,
    and parameters in their dtype to ``model.safetensors``. Unlike that of ``huggingface_hub``,
    ``from_pretrained`` is strict: every parameter must be there, unless ``strict=False``.

    Raises:
        TypeError: by ``save_pretrained``, before it writes, if an argument is neither.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from fastltc import CfC
        >>> from fastltc.hub import HubMixin
        >>> from fastltc.wirings import AutoNCP, Wiring
        >>> class Gestures(HubMixin, torch.nn.Module):
        ...     def __init__(self, inputs: int, wiring: Wiring, classes: int = 4):
        ...         super().__init__()
        ...         self.rnn = CfC(inputs, wiring, return_sequences=False)
        ...         self.head = torch.nn.Linear(wiring.output_dim, classes)
        ...     def forward(self, x, timespans=None):
        ...         return self.head(self.rnn(x, timespans=timespans)[0])
        >>> model, x = Gestures(6, AutoNCP(32, 8)), torch.randn(2, 50, 6)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = model.save_pretrained(folder)
        ...     loaded = Gestures.from_pretrained(folder)
        Loading weights from local directory
        >>> torch.equal(loaded(x), model(x))
        True
    """

    _hub_arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Keep the arguments that JSON does not hold: a wiring is built, if at all, only later."""
        instance: Any = super().__new__(cls, *args, **kwargs)
        names = list(cls._hub_mixin_init_parameters)[1:]
        passed = dict(zip(names, args, strict=False)) | kwargs
        instance._hub_arguments = {
            name: value for name, value in passed.items() if not cls._is_jsonable(value)
        }
        return instance

    def save_pretrained(
        self, save_directory: str | Path, *, config: Any = None, **kwargs: Any
    ) -> str | None:
        """Write ``config.json``, ``model.safetensors`` and, if there is none, a model card.

        Args:
            save_directory: the folder, made if need be.
            config: what goes to ``config.json``; by default the arguments of the model.
            kwargs: see ``ModelHubMixin.save_pretrained`` of ``huggingface_hub``.

        Returns:
            The address of the commit with ``push_to_hub=True``, else None.

        Raises:
            TypeError: if an argument is neither a wiring nor what JSON holds.
        """
        if config is None:
            arguments = {name: _argument(name, v) for name, v in self._hub_arguments.items()}
            config = {**(self._hub_mixin_config or {}), **arguments}  # type: ignore[dict-item]
        return super().save_pretrained(save_directory, config=config, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Make the model that a folder or the Hub has, as ``huggingface_hub`` does.

        Raises:
            ValueError: if an :class:`LTC` or :class:`CfC` of this configuration has more values
                than its file, before it is made; or a wiring is not what its size says.
            OSError: if a file is missing, no regular one, or a configuration of more than 64 MiB.
        """
        config = Path(pretrained_model_name_or_path) / _CONFIG_NAME
        if config.exists():
            read_bytes(config, _CONFIG_BYTES)
        made: Self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        return made

    @classmethod
    def _from_pretrained(cls, *, model_id: str, strict: bool = True, **kwargs: Any) -> Any:
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        if Path(model_id).is_dir():
            weights = str(Path(model_id) / _WEIGHTS_NAME)
        else:
            weights = hf_hub_download(repo_id=model_id, filename=_WEIGHTS_NAME, **hub)
        arguments = {
            name: decode_wiring(value) if isinstance(value, dict) and "wiring" in value else value
            for name, value in kwargs.items()
        }
        open_regular(weights).close()
        with safe_open(weights, framework="numpy") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        held, least = sum(map(math.prod, shapes)), cls._least_values(arguments)
        if least > held:
            raise ValueError(
                f"{_CONFIG_NAME}: expected the arguments of a model of at most {held:,} values, as "
                f"many as {_WEIGHTS_NAME} has, got those of one of at least {least:,}"
            )
        return super()._from_pretrained(model_id=model_id, strict=strict, **arguments)

    @classmethod
    def _least_values(cls, arguments: dict[str, Any]) -> int:
        """How many values a model of these arguments has at least, found without making it."""
        return 0

    @classmethod
    def _load_as_safetensor(
        cls, model: Any, model_file: str, map_location: str, strict: bool
    ) -> Any:
        # Into the device asked for, and the dtype of the file, which else would be rounded.
        dtypes = {t.dtype for t in load_file(model_file).values() if t.is_floating_point()}
        model.to(device=map_location, dtype=dtypes.pop() if len(dtypes) == 1 else None)
        # Which huggingface_hub does from some version on.
        return super()._load_as_safetensor(model, model_file, map_location, strict).eval()

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """Return the card that ``save_pretrained`` writes: sizes, and how to load the model."""
        kind, module = type(self), inspect.getmodule(type(self))
        own = module is not None and module.__name__ == __name__
        count = sum(p.numel() for p in self.parameters() if p.requires_grad)  # type: ignore[attr-defined]
        known = {
            "name": kind.__name__,
            "about": f"A model of {count:,} trained parameters in PyTorch with liquid layers.",
            "load": (f"from fastltc.hub import {kind.__name__}\n\n" if own else "")
            + f'model = {kind.__name__}.from_pretrained("FOLDER or OWNER/NAME")',
        }
        return super().generate_model_card(*args, **(known | kwargs))


class LTC(HubMixin, layers.LTC):
    """An :class:`fastltc.LTC` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    Arguments, parameters and results are those of :class:`fastltc.LTC`, the rest is that of
    :class:`HubMixin`.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from fastltc.hub import LTC
        >>> from fastltc.wirings import AutoNCP
        >>> layer = LTC(16, AutoNCP(19, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = layer.save_pretrained(folder)
        ...     loaded = LTC.from_pretrained(folder)
        Loading weights from local directory
        >>> x = torch.randn(4, 32, 16)
        >>> torch.equal(loaded(x)[0], layer(x)[0])
        True
    """

    @classmethod
    def _least_values(cls, arguments: dict[str, Any]) -> int:
        inputs, neurons = _positive(arguments, "input_size"), _neurons(arguments)
        return neurons * (neurons + inputs)


class CfC(HubMixin, layers.CfC):
    """A :class:`fastltc.CfC` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    Arguments, parameters and results are those of :class:`fastltc.CfC`, the rest is that of
    :class:`HubMixin`.

    Example:
        >>> import tempfile
        >>> from fastltc.hub import CfC
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = CfC(16, 24, proj_size=2).save_pretrained(folder)
        ...     loaded = CfC.from_pretrained(folder)
        Loading weights from local directory
        >>> loaded.fc
        Linear(in_features=24, out_features=2, bias=True)
    """

    @classmethod
    def _least_values(cls, arguments: dict[str, Any]) -> int:
        inputs, neurons = _positive(arguments, "input_size"), _neurons(arguments)
        least = neurons * _positive(arguments, "proj_size")
        if isinstance(arguments.get("units"), Wiring):
            return least
        if arguments.get("backbone_layers") == 0:
            return least + neurons * (inputs + neurons)
        width = max(_positive(arguments, "backbone_units"), 1)
        deeper = max(_positive(arguments, "backbone_layers") - 1, 0)
        return least + width * (inputs + 2 * neurons) + deeper * width * (width + 1)


def _positive(arguments: dict[str, Any], name: str) -> int:
    """A size among the arguments, 0 if it is not there; what is no number is refused later."""
    value = arguments.get(name)
    return max(value, 0) if isinstance(value, int) else 0


def _neurons(arguments: dict[str, Any]) -> int:
    units = arguments.get("units")
    return int(units.units) if isinstance(units, Wiring) else _positive(arguments, "units")


def _argument(name: str, value: Any) -> Any:
    if isinstance(value, Wiring):
        return encode_wiring(value)
    if isinstance(value, np.generic):
        return _plain(value)
    raise TypeError(
        f"{name}: expected a wiring or what JSON holds, which config.json can keep, got "
        f"{type(value).__name__}"
    )


def _plain(value: Any) -> Any:
    """Return a Python number for one of numpy."""
    return value.item() if isinstance(value, np.generic) else value
