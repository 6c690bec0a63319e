"""Models and scripts that are written for ncps, run by fastltc without an edit.

A module of ncps is swapped by giving the object another class and completing what the new class
keeps beside the parameters. The object stays, and with it everything that refers to it: the
parameters an optimizer has, hooks, names, lists and attributes elsewhere, weak references, the
model itself. (A new module around the same parameters would have to be put into every place that
holds the old one, and not all of them can be found.)

The new class derives from that of fastltc and, behind it, from that of ncps. So ``isinstance``
holds for both, and the methods that only ncps has are still there.
"""

from __future__ import annotations

import functools
import inspect
import re
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import torch

# From where they are defined: what ncps.torch calls so may have been replaced.
from ncps.torch.cfc import CfC as NcpsCfC
from ncps.torch.cfc_cell import CfCCell as NcpsCfCCell
from ncps.torch.cfc_cell import LeCun as NcpsLeCun
from ncps.torch.lstm import LSTMCell as NcpsLSTMCell
from ncps.torch.ltc import LTC as NcpsLTC
from ncps.torch.ltc_cell import LTCCell as NcpsLTCCell
from ncps.torch.wired_cfc_cell import WiredCfCCell as NcpsWiredCfCCell
from ncps.wirings import Wiring
from torch import nn

from fastltc import nn as ours
from fastltc import verified
from fastltc.nn.changes import change, has_hooks, replaced_method, warn_once
from fastltc.ops.ltc import LTC_PARAMETERS
from fastltc.ops.synapses import RoundedMask, SynapseCache, mask_ones, synapse_list

__all__ = ["Patch", "SwapReport", "accelerate", "patch_ncps"]


class _LeftAloneError(ValueError):
    """Why a module stays as it is."""


class _Swapped:
    """What swapped modules have in common: ``type(module)(...)`` takes the arguments of ncps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        theirs = next(base for base in type(self).__mro__ if base in _SWAPS)
        made = theirs(*args, **kwargs)
        if type(made) is theirs:
            _apply(_plan(made))
        vars(self).update(vars(made))


# They carry the names of ncps, which representations show. Pickles name them by this module.
class LTC(_Swapped, ours.LTC, NcpsLTC):
    """``fastltc.LTC`` that ``ncps.torch.LTC`` has been swapped for."""


class LTCCell(_Swapped, ours.LTCCell, NcpsLTCCell):
    """``fastltc.LTCCell`` that ``ncps.torch.LTCCell`` has been swapped for."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if (
            callable(value)
            and inspect.isfunction(vars(NcpsLTCCell).get(name))
            and name != "forward"
        ):
            # What the forward of ncps calls, and that of fastltc does not.
            self.__dict__["forward"] = types.MethodType(NcpsLTCCell.forward, self)

    def _found_computed(self, names: list[str]) -> None:
        # Replicas of DataParallel have their parameters as attributes.
        if not hasattr(self, "_is_replica"):
            warn_once(
                self,
                f"{', '.join(names)} of an LTCCell is pruned, normalised or parametrized: it "
                "counts in fastltc, but would not in ncps, which goes on with the parameter as it "
                "was",
            )


class LSTMCell(_Swapped, ours.LSTMCell, NcpsLSTMCell):
    """``fastltc.nn.LSTMCell`` that the memory cell of a swapped layer has been swapped for."""


class CfC(_Swapped, ours.CfC, NcpsCfC):
    """``fastltc.CfC`` that ``ncps.torch.CfC`` has been swapped for."""


class CfCCell(_Swapped, ours.CfCCell, NcpsCfCCell):
    """``fastltc.CfCCell`` that ``ncps.torch.CfCCell`` has been swapped for."""


class WiredCfCCell(_Swapped, ours.WiredCfCCell, NcpsWiredCfCCell):
    """``fastltc.WiredCfCCell`` that ``ncps.torch.WiredCfCCell`` has been swapped for."""


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise _LeftAloneError(reason)


def _no_additions(module: Any) -> dict[str, Any]:
    return {}


def _ltc_cell_additions(cell: Any) -> dict[str, Any]:
    parameters = cell._parameters
    for name, parameter in vars(cell)["_params"].items():
        registered = parameters.get(name)
        # Of parameters without values ncps has nothing to compute, whichever they are.
        if registered is not parameter and not (registered is not None and registered.is_meta):
            raise _LeftAloneError(
                f"its _params[{name!r}], which ncps computes with, is not its parameter {name} "
                "(pruned, parametrized, or loaded with assign=True?)"
            )
    masks = ("sparsity_mask", "sensory_sparsity_mask")
    for name in (*LTC_PARAMETERS[:11], *masks):
        if name not in parameters:
            raise _LeftAloneError(f"it has no parameter {name}")
    for side in ("input", "output"):
        mapping = getattr(cell, f"_{side}_mapping")
        wanted = {f"{side}_w": mapping in ("affine", "linear"), f"{side}_b": mapping == "affine"}
        for name, used in wanted.items():
            if used != (parameters.get(name) is not None):
                raise _LeftAloneError(f"its _{side}_mapping {mapping!r} does not fit {name}")
    _refuse(ours.LTCCell._softplus_change(cell))
    wiring = cell._wiring
    if not 1 <= (wiring.output_dim or 0) <= wiring.units:
        raise _LeftAloneError(f"its wiring has {wiring.output_dim} motor neurons")
    if cell._ode_unfolds < 1:
        raise _LeftAloneError(f"it runs {cell._ode_unfolds} unfolds")
    additions: dict[str, Any] = {"_watch": None}
    adjacency = (wiring.adjacency_matrix, wiring.sensory_adjacency_matrix)
    for name, cache, matrix in zip(
        masks, ("_synapses", "_sensory_synapses"), adjacency, strict=True
    ):
        mask = parameters[name]
        if mask.requires_grad:
            raise _LeftAloneError(f"its {name} is trained")
        try:
            synapses = synapse_list(np.abs(matrix) if mask.is_meta else mask, name)
        except ValueError as error:
            raise _LeftAloneError(str(error)) from None
        additions[cache] = SynapseCache(synapses, name)
    return additions


def _cfc_additions(layer: Any) -> dict[str, Any]:
    wired = isinstance(layer.wiring_or_units, Wiring)
    inputs = layer.wiring.input_dim if wired else layer.input_size
    return {"wired_mode": wired, "_sizes": (inputs, layer.state_size)}


def _wired_cfc_cell_additions(cell: Any) -> dict[str, Any]:
    wiring = cell._wiring
    sizes = [len(wiring.get_neurons_of_layer(layer)) for layer in range(wiring.num_layers)]
    names = [f"layer_{layer}" for layer in range(wiring.num_layers)]
    if [cell._modules.get(name) for name in names] != cell._layers:
        raise _LeftAloneError("its _layers, which ncps computes with, are not its modules layer_*")
    return {"_sizes": sizes, "_names": names, "_watch": None}


ours.cfc_cell.ACTIVATION_MODULES["lecun_tanh"] += (NcpsLeCun,)


def _cfc_cell_additions(cell: Any) -> dict[str, Any]:
    mask = cell.sparsity_mask
    if mask is not None:
        if mask.requires_grad:
            raise _LeftAloneError("its sparsity_mask is trained")
        try:
            if not mask.is_meta:
                mask_ones(mask, "sparsity_mask")
        except ValueError as error:
            raise _LeftAloneError(str(error)) from None
    parts = ours.CfCCell._find_parts(cell)
    _refuse(parts if isinstance(parts, str) else None)
    return {"_rounded": RoundedMask("sparsity_mask"), "_watch": None}


def _lstm_cell_additions(cell: Any) -> dict[str, Any]:
    _refuse(ours.lstm_cell.memory_change(cell))
    return {"_watch": None}


@dataclass(frozen=True)
class _Swap:
    """How modules of a class are swapped."""

    ours: type
    operator: str | None
    """The operator it runs by: on a device that has none, modules are left alone."""
    parts: str = ""
    """Names of its cells, which are swapped with it (a regular expression)."""
    inner: Mapping[str, tuple[type, ...]] = field(default_factory=dict)
    """Other modules inside that are not a cell's own to look at: name and classes they may have."""
    dropped: tuple[str, ...] = ()
    """Entries of ``__dict__`` that are properties in fastltc."""
    additions: Callable[[Any], dict[str, Any]] = _no_additions
    """Returns the entries of ``__dict__`` that only fastltc has; may raise _LeftAloneError."""


_SWAPS: dict[type, _Swap] = {
    NcpsLTC: _Swap(LTC, None, parts="rnn_cell|lstm"),
    NcpsLTCCell: _Swap(
        LTCCell,
        "fastltc::ltc_forward",
        inner={"_clip": (nn.ReLU,)},
        dropped=("_params",),
        additions=_ltc_cell_additions,
    ),
    NcpsCfC: _Swap(
        CfC,
        None,
        parts="rnn_cell|lstm",
        inner={"fc": (nn.Identity, nn.Linear)},
        additions=_cfc_additions,
    ),
    NcpsWiredCfCCell: _Swap(
        WiredCfCCell,
        "fastltc::cfc_forward",
        parts=r"layer_\d+",
        dropped=("_layers",),
        additions=_wired_cfc_cell_additions,
    ),
    NcpsCfCCell: _Swap(
        CfCCell,
        "fastltc::cfc_forward",
        additions=_cfc_cell_additions,
    ),
    NcpsLSTMCell: _Swap(LSTMCell, None, additions=_lstm_cell_additions),
}

_NCPS: tuple[Any, ...] = (NcpsLTC, NcpsLTCCell, NcpsCfC, NcpsCfCCell, NcpsWiredCfCCell)
_OURS = (
    ours.LTC,
    ours.LTCCell,
    ours.CfC,
    ours.CfCCell,
    ours.WiredCfCCell,
    ours.LSTMCell,
)

_Plan = list[tuple[Any, _Swap, dict[str, Any]]]


def _plan(module: Any) -> _Plan:
    """Return what swapping a module and its cells takes.

    Raises:
        _LeftAloneError: if it is of a subclass, it or its class has been changed so that fastltc
            would compute something else or not call what has been added, or it is on a device
            without kernels.
    """
    theirs = type(module)
    swap = _SWAPS.get(theirs)
    if swap is None:
        base = next(base for base in theirs.__mro__ if base in _NCPS)
        raise _LeftAloneError(
            f"{theirs.__qualname__}, a subclass of ncps.torch.{base.__name__}, may compute "
            "something else"
        )
    _refuse(verified.difference(theirs))
    replaced = replaced_method(module)
    if replaced is not None:
        raise _LeftAloneError(f"its method {replaced} has been replaced")
    plan: _Plan = []
    for name, child in module._modules.items():
        if re.fullmatch(swap.parts, name):
            if type(child) not in _SWAPS and not isinstance(child, _OURS):
                raise _LeftAloneError(f"its {name} is of the class {type(child).__qualname__}")
            # ncps calls the memory cell itself, but of the others only their forward.
            if name == "lstm" and has_hooks(child):
                raise _LeftAloneError("its lstm has a hook")
            if isinstance(child, _OURS):
                continue
            try:
                plan += _plan(child)
            except _LeftAloneError as reason:
                raise _LeftAloneError(f"of its {name}: {reason}") from None
        elif name in swap.inner:
            _refuse(change(name, child, swap.inner[name]))
    if swap.operator is not None:
        for parameter in module.parameters():
            device = parameter.device.type
            key = torch._C._dispatch_key_for_device(device)
            has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
            if not parameter.is_meta and not has_kernel(swap.operator, key):
                raise _LeftAloneError(f"it is on {device}, for which fastltc has no kernels")
    plan.append((module, swap, swap.additions(module)))
    return plan


def _apply(plan: _Plan) -> None:
    for module, swap, additions in plan:
        entries: dict[str, Any] = module.__dict__
        for name in swap.dropped:
            entries.pop(name, None)
        entries.update(additions)
        object.__setattr__(module, "__class__", swap.ours)


def _is_candidate(module: nn.Module | None) -> TypeGuard[nn.Module]:
    return isinstance(module, _NCPS) and not isinstance(module, _OURS)


def _cells(module: nn.Module) -> Iterator[nn.Module]:
    """Find the cells of a layer that is left alone."""
    swap = next(_SWAPS[base] for base in type(module).__mro__ if base in _SWAPS)
    for name, child in module._modules.items():
        if re.fullmatch(swap.parts, name) and _is_candidate(child):
            yield child
            yield from _cells(child)


@dataclass(frozen=True)
class SwapReport:
    """What :func:`accelerate` did.

    Attributes:
        swapped: name of each module in the model (as in ``named_modules``; ``""`` is the model
            itself) that was swapped, and its class. A shared module has several names.
        left_alone: name of each module of ncps that was not, and why.
    """

    swapped: Mapping[str, str]
    left_alone: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} modules of ncps swapped, {len(self.left_alone)} left alone"]
        lines += [f"  {name or '(model)'}: {kind}" for name, kind in self.swapped.items()]
        lines += [
            f"  {name or '(model)'} left alone: {why}" for name, why in self.left_alone.items()
        ]
        return "\n".join(lines)


def accelerate(model: nn.Module) -> SwapReport:
    """Swap the ncps layers and cells in a model for those of fastltc, in place.

    Modules and parameters are the same objects afterwards, so an optimizer made before still
    works; hooks, names, buffers, training flags and attributes stay, shared modules stay shared,
    and ``isinstance(module, ncps.torch.LTC)`` still holds. The model may itself be a module of
    ncps. A second call finds nothing left to do.

    Left alone are subclasses of the classes of ncps, classes that were patched or are of another
    release of ncps, modules that were changed in a way that fastltc would not follow (hooks on
    modules inside a layer, replaced methods or functions, trained masks), modules on a device
    without kernels, and the cells of layers that are left alone. What fastltc does differently is
    in docs/compatibility.md and docs/drop-in.md.

    Args:
        model: any module; its ``named_modules`` are looked through.

    Returns:
        Which modules were swapped, and which left alone and why.

    Raises:
        TypeError: if ``model`` is not a module.

    Example:
        >>> import ncps.torch, torch
        >>> from fastltc import accelerate
        >>> model = torch.nn.Sequential(ncps.torch.LTC(3, 8))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> print(accelerate(model))
        2 modules of ncps swapped, 0 left alone
          0: LTC
          0.rnn_cell: LTCCell
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if _is_candidate(module):
            names.setdefault(module, []).append(name)
    plans: dict[nn.Module, _Plan] = {}
    refused: dict[nn.Module, str] = {}
    for module in names:
        try:
            plans[module] = _plan(module)
        except _LeftAloneError as reason:
            refused[module] = str(reason)
    # The code of a layer that is left alone may rely on anything in its cells, and so a layer
    # that shares such a cell cannot be swapped either.
    waiting = list(refused)
    while waiting:
        layer = waiting.pop()
        held = set(_cells(layer))
        for module, plan in list(plans.items()):
            if any(part in held for part, _, _ in plan):
                refused[module] = (
                    f"a part of {names[layer][0] or 'the model'}, which is left alone"
                    if module in held
                    else f"it shares a cell with {names[layer][0]}, which is left alone"
                )
                del plans[module]
                waiting.append(module)
    for plan in plans.values():
        # A cell stands in the plan of its layer too.
        _apply([step for step in plan if type(step[0]) is not step[1].ours])
    return SwapReport(
        swapped={n: type(module).__name__ for module in plans for n in names[module]},
        left_alone={
            n: refused[module] for module in names if module in refused for n in names[module]
        },
    )


class Patch:
    """A patch that is in force from its making until :meth:`undo`; see :func:`patch_ncps`.

    Attributes:
        swapped: how many modules of each class of ncps were made and swapped meanwhile.
        left_alone: how many were left alone, for each reason.
    """

    def __init__(self) -> None:
        self.swapped: Counter[str] = Counter()
        self.left_alone: Counter[str] = Counter()
        with _patching:
            if not _active:
                _install()
            _active.append(self)

    def undo(self) -> None:
        """End this patch. A second call does nothing, and other patches stay in force."""
        with _patching:
            if self in _active:
                _active.remove(self)
                if not _active:
                    _uninstall()

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def __str__(self) -> str:
        lines = [f"{n} x {kind} of ncps swapped" for kind, n in sorted(self.swapped.items())]
        lines += [f"{n} x left alone: {why}" for why, n in sorted(self.left_alone.items())]
        return "\n".join(lines) or "no module of ncps was made"


def patch_ncps() -> Patch:
    """Make ncps construct the modules of fastltc, until the patch is undone.

    What constructs ``ncps.torch.LTC`` and its like, under whatever name it was imported and
    whenever, gets a module that ncps has initialized and that was then swapped as by
    :func:`accelerate`: it has the parameters ncps gives it for a seed, and the random generators
    are left as ncps leaves them. What :func:`accelerate` leaves alone is left alone here, too:
    subclasses, and classes that somebody else has patched. The patch holds for all threads.

    Returns:
        The patch, which is in force already. Call its ``undo()``, or use it as a context
        manager, to end it. Patches nest: the last one undone restores ncps.

    Example:
        >>> import ncps.torch
        >>> from fastltc import LTC, patch_ncps
        >>> with patch_ncps():
        ...     layer = ncps.torch.LTC(3, 8)
        >>> isinstance(layer, LTC), isinstance(ncps.torch.LTC(3, 8), LTC)
        (True, False)
    """
    return Patch()


_patching = threading.RLock()
_active: list[Patch] = []
_originals: dict[Any, tuple[Any, Any]] = {}
"""For each patched class its own ``__init__`` and the one put in its place."""
_making = threading.local()


def _install() -> None:
    for theirs in _NCPS:
        original = theirs.__init__
        replacement = _swapping(original)
        _originals[theirs] = original, replacement
        theirs.__init__ = replacement


def _uninstall() -> None:
    for theirs, (original, replacement) in _originals.items():
        # Somebody else may have patched it after us; then ours stays below, and does nothing.
        if theirs.__init__ is replacement:
            theirs.__init__ = original
    _originals.clear()


def _swapping(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        # The cells of a layer wait for it: they stay as they are if it is left alone.
        depth = getattr(_making, "depth", 0)
        _making.depth = depth + 1
        try:
            original(self, *args, **kwargs)
        finally:
            _making.depth = depth
        if depth == 0 and _active:
            _swap_made(self)

    return __init__


def _swap_made(module: Any) -> None:
    try:
        plan = _plan(module)
    except _LeftAloneError as reason:
        for patch in _active:
            patch.left_alone[str(reason)] += 1
        return
    _apply(plan)
    for patch in _active:
        patch.swapped[type(module).__name__] += 1
