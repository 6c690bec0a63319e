"""Whether the modules inside a cell still do what their classes say.

The operators read the parameters of a cell and do not call the modules that hold them. Whoever puts
something in between (a hook, another class, a parametrization, ...) expects it to take part, and so
such a cell has to be run through its modules instead. A cell asks at every call; :class:`Watch`
makes that cheap.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.nn.modules import module as _torch_module
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fastltc._extension import load_runtime

_Value = TypeVar("_Value")
_Cell = TypeVar("_Cell", bound=nn.Module)

_unchanged = load_runtime().unchanged

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(vars(_torch_module)[f"_global{name}"] for name in _HOOKS)
"""Hooks on all modules."""

_SETTINGS = {
    nn.GELU: ("approximate",),
    nn.SiLU: ("inplace",),
    nn.ReLU: ("inplace",),
    nn.Softplus: ("beta", "threshold"),
}
"""What decides besides the class what a module computes."""

_COMPUTE_WEIGHTS = prune.BasePruningMethod, SpectralNorm, WeightNorm
"""Hooks that compute a weight from other parameters before a call."""


def change(
    name: str, module: Any, kinds: tuple[type[nn.Module], ...], computed: bool = False
) -> str | None:
    """Say why a module that an operator does not call has to be called; None if it need not be.

    Its class has to be one of ``kinds``, which do what the operator does instead; no subclass of
    them may do. ``computed`` is whether a ``weight`` will do that torch computes from other
    parameters, by a parametrization or a hook of :func:`compute_parameters`: for who reads it once.
    """
    kind = type(module)
    if computed and parametrize.is_parametrized(module):
        kind = kind.__mro__[1]
    if kind not in kinds:
        return f"its {name} is of the class {kind.__qualname__}"
    replaced = replaced_method(module)
    if replaced is not None:
        return f"the method {replaced} of its {name} has been replaced"
    if any(GLOBAL_HOOKS) and not computed:
        return "a hook on all modules is registered"
    for inner in module.modules():
        if has_hooks(inner) and not (computed and _only_computes(inner)):
            return f"its {name} has a hook"
    if isinstance(module, nn.Linear) and not computed:
        for weight in ("weight", "bias"):
            # Of a replica of DataParallel they are attributes.
            if weight not in module._parameters and weight not in vars(module):
                return f"the {weight} of its {name} is no parameter of it"
    return None


def replaced_method(module: nn.Module) -> str | None:
    """Return the name of a method of its class that an attribute of the module hides, if any."""
    kind = type(module)
    # By the names of the class: torch.compile of torch 2.10 cannot go through those of a module.
    for name in dir(kind):
        if name in module.__dict__ and inspect.isfunction(getattr(kind, name)):
            return name
    return None


_forwards: set[Callable[..., Any]] = set()


def own_forward(kind: type[_Cell]) -> type[_Cell]:
    """Remember the ``forward`` of a class of cells; a decorator."""
    _forwards.add(kind.forward)
    return kind


def has_own_forward(cell: Any) -> bool:
    """Whether a cell may be run by its ``_run``, since nobody has put another ``forward`` there."""
    return type(cell).forward in _forwards and "forward" not in cell.__dict__


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has a hook of its own."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _only_computes(module: nn.Module) -> bool:
    hooks = module._forward_pre_hooks.values()
    others = module._forward_hooks or module._backward_hooks or module._backward_pre_hooks
    return not others and all(isinstance(hook, _COMPUTE_WEIGHTS) for hook in hooks)


def compute_parameters(module: nn.Module, spectral: bool = True) -> None:
    """Compute the weights that hooks compute before a call, of a module that is not called.

    ``torch.nn.utils.prune``, ``weight_norm`` and the older ``spectral_norm`` (unless ``spectral``
    is False) leave such hooks.
    """
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, _COMPUTE_WEIGHTS) and (spectral or not isinstance(hook, SpectralNorm)):
            hook(module, None)


def watched(cell: Any, found: _Value | str) -> _Value | None:
    """Keep what was found out about a cell for its next call, in its ``_watch``, and return it.

    A text is why its modules have to be called: it is warned of once, and the result is None.
    """
    compiling = torch.compiler.is_compiling()
    if not isinstance(found, str):
        if not compiling:
            cell._watch = Watch(cell, found)
        return found
    if not compiling:
        cell._watch = None
        warn_of_steps(cell, found)
    return None


def warn_of_steps(module: nn.Module, reason: str) -> None:
    """Warn, once for each reason, that a module is run step by step."""
    warn_once(
        module,
        f"{type(module).__name__} runs step by step through its modules, as ncps does, which is "
        f"slow: {reason}",
    )


def warn_once(module: nn.Module, text: str) -> None:
    """Warn, if it has not been said of this module before."""
    # The set is shared by the replicas of DataParallel, which live for one call.
    warned: set[str] = vars(module).setdefault("_warned", set())
    if text not in warned:
        warned.add(text)
        warnings.warn(text, stacklevel=3)


class Watch(Generic[_Value]):
    """What was found out about a cell, and whether it may still be so.

    What is left out is what nobody does by accident: a dictionary of hooks that is itself replaced
    by another.
    """

    __slots__ = ("_root", "_seen", "value")

    def __init__(self, root: nn.Module, value: _Value) -> None:
        self.value = value
        self._root = root._modules
        modules = list(root.modules())
        inner = tuple(modules[1:])
        containers = tuple(m._modules for m in modules if m._modules)
        # See csrc/runtime/unchanged.cpp.
        self._seen = (
            (*GLOBAL_HOOKS, *(getattr(m, name) for m in inner for name in _HOOKS)),
            inner,
            tuple(map(type, inner)),
            tuple(map(vars, inner)),
            "forward",
            containers,
            tuple(tuple(children.values()) for children in containers),
            tuple(
                (vars(m), name, getattr(m, name))
                for m in modules
                for name in ("mode", *_SETTINGS.get(type(m), ()))
                if name in vars(m)
            ),
        )

    def holds(self, root: nn.Module) -> bool:
        """Whether nothing that was looked at has changed."""
        return root._modules is self._root and _unchanged(self._seen)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """A copy of the cell looks for itself."""
        return type(None), ()
