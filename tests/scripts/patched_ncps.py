"""Ways in which users change what the classes of ncps compute, and a script that goes through them.

The script prints what patched layers compute, to the last bit, and makes one of each unpatched.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import ncps.torch
import torch
from ncps.torch import cfc, cfc_cell, lstm, ltc, ltc_cell, wired_cfc_cell
from ncps.wirings import AutoNCP
from torch import Tensor, nn

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LTC": lambda: ncps.torch.LTC(3, AutoNCP(9, 2), mixed_memory=True),
    "CfC": lambda: ncps.torch.CfC(3, 5, mixed_memory=True),
    "wired CfC": lambda: ncps.torch.CfC(3, AutoNCP(9, 2), mode="pure"),
}


class Doubled:
    """Stands for a module like torch.nn.functional, and doubles what one function returns."""

    def __init__(self, module: Any, name: str) -> None:
        self.__dict__.update(vars(module))
        self.__dict__[name] = doubled(getattr(module, name))


def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function as decorators do, and double what it returns."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return tuple(2 * part for part in result) if isinstance(result, tuple) else 2 * result

    return wrapper


@contextmanager
def assigned(owner: Any, name: str, value: Any, added: bool = False) -> Iterator[None]:
    """Set an attribute, and set the old one, or none, at the end."""
    before = None if added else vars(owner).get(name, getattr(owner, name))
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name) if added else setattr(owner, name, before)


def replaced(owner: Any, name: str) -> Callable[[], Any]:
    return lambda: assigned(owner, name, doubled(getattr(owner, name)))


def other_code(self: Any, x: Tensor) -> Tensor:
    return 1.7159 * self.tanh(0.667 * x)


class OtherLeCun(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class OtherCell(ltc_cell.LTCCell):
    def _sigmoid(self, v_pre: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
        return 2 * super()._sigmoid(v_pre, mu, sigma)


class OtherMemory(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.map = nn.Linear(input_size, hidden_size)

    def forward(self, inputs: Tensor, states: Any) -> Any:
        return states[0] + self.map(inputs), states[1]


class Mixin:
    def __call__(self, *arguments: Any) -> Any:
        return doubled(super().__call__)(*arguments)  # type: ignore[misc]


# What is patched: the layer that it changes, the reason given for that, and the patch.
PATCHES: dict[str, tuple[str, str, Callable[[], AbstractContextManager[Any]]]] = {
    **{
        f"{kind.__name__}.{name}": (layer, f"{kind.__name__}.{name} is not", replaced(kind, name))
        for layer, kind, name in (
            ("LTC", ltc.LTC, "forward"),
            ("LTC", ltc_cell.LTCCell, "forward"),
            ("LTC", ltc_cell.LTCCell, "_ode_solver"),
            ("LTC", ltc_cell.LTCCell, "_sigmoid"),
            ("LTC", ltc_cell.LTCCell, "_map_inputs"),
            ("LTC", lstm.LSTMCell, "forward"),
            ("CfC", cfc.CfC, "forward"),
            ("CfC", cfc_cell.CfCCell, "forward"),
            ("CfC", cfc_cell.LeCun, "forward"),
            ("CfC", lstm.LSTMCell, "forward"),
            ("wired CfC", wired_cfc_cell.WiredCfCCell, "forward"),
            ("wired CfC", cfc_cell.CfCCell, "forward"),
        )
    },
    "another constant": (
        "CfC",
        "LeCun.forward is not",
        lambda: assigned(cfc_cell.LeCun.forward, "__code__", other_code.__code__),
    ),
    "a default": (
        "LTC",
        "LTCCell.forward is not",
        lambda: assigned(ltc_cell.LTCCell.forward, "__defaults__", (0.5,)),
    ),
    "other globals": (
        "wired CfC",
        "CfCCell.forward is not",
        lambda: assigned(
            cfc_cell.CfCCell,
            "forward",
            types.FunctionType(
                cfc_cell.CfCCell.forward.__code__,
                {**vars(cfc_cell), "F": Doubled(cfc_cell.F, "linear")},
            ),
        ),
    ),
    "a property": (
        "LTC",
        "LTCCell.motor_size is not",
        lambda: assigned(ltc_cell.LTCCell, "motor_size", property(lambda self: 2)),
    ),
    "a property's kind": (
        "LTC",
        "LTCCell.motor_size is not",
        lambda: assigned(ltc_cell.LTCCell, "motor_size", 2),
    ),
    "an attribute over a submodule": (
        "CfC",
        "CfCCell.sigmoid is not in",
        lambda: assigned(cfc_cell.CfCCell, "sigmoid", torch.sin, added=True),
    ),
    "a method of nn.Module": (
        "LTC",
        "LSTMCell.__call__ is not in",
        lambda: assigned(lstm.LSTMCell, "__call__", doubled(nn.Module.__call__), added=True),
    ),
    "a base": (
        "CfC",
        "LSTMCell is not that",
        lambda: assigned(lstm.LSTMCell, "__bases__", (Mixin, nn.Module)),
    ),
    "LeCun of the module": (
        "CfC",
        "ncps.torch.cfc_cell.LeCun is not",
        lambda: assigned(cfc_cell, "LeCun", OtherLeCun),
    ),
    "LTCCell of the module": (
        "LTC",
        "its rnn_cell is of the class OtherCell",
        lambda: assigned(ltc, "LTCCell", OtherCell),
    ),
    "LSTMCell of the module": (
        "CfC",
        "its lstm is of the class OtherMemory",
        lambda: assigned(cfc, "LSTMCell", OtherMemory),
    ),
    "torch of the module": (
        "LTC",
        "ncps.torch.ltc_cell.torch is not",
        lambda: assigned(ltc_cell, "torch", Doubled(torch, "sigmoid")),
    ),
    "functions of the module": (
        "wired CfC",
        "ncps.torch.cfc_cell.F is not",
        lambda: assigned(cfc_cell, "F", Doubled(cfc_cell.F, "linear")),
    ),
    "a function of builtins": (
        "LTC",
        "ncps.torch.ltc_cell.range is not",
        lambda: assigned(ltc_cell, "range", lambda n: [0] * (n // 2), added=True),
    ),
    "a function of torch": ("LTC", "torch.sigmoid, which", replaced(torch, "sigmoid")),
    "another function of torch": (
        "LTC",
        "torch.sigmoid, which",
        lambda: assigned(torch, "sigmoid", torch.tanh),
    ),
    "a module of torch": ("CfC", "torch.nn.Tanh, which", replaced(nn.Tanh, "forward")),
}


def computed(layer: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(5)
    return layer(torch.randn(2, 4, 3, generator=generator))[0]


def main() -> None:
    for name, (layer, _, patched) in PATCHES.items():
        with patched():
            torch.manual_seed(7)
            print(name, layer, computed(LAYERS[layer]()).tolist())
    for layer in LAYERS.values():
        layer()


if __name__ == "__main__":
    main()
