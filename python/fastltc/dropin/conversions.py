"""What it takes to make a module of ncps one of fastltc.

A module of ncps is swapped by giving the object another class and completing what the new class
keeps beside the parameters. The object stays, and with it everything that refers to it: the
parameters an optimizer has, hooks, names, lists and attributes elsewhere, weak references, the
model itself. (A new module around the same parameters would have to be put into every place that
holds the old one, and not all of them can be found.)

The new class derives from that of fastltc and, behind it, from that of ncps. So ``isinstance``
holds for both, and the methods that only ncps has are still there.
"""

from __future__ import annotations

import inspect
import re
import types
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
from fastltc._parameters import LTC_MASKS, LTC_PARAMETERS
from fastltc.dropin import verified
from fastltc.nn.changes import change, has_hooks, replaced_method, warn_once
from fastltc.ops.synapses import RoundedMask, SynapseCache, mask_ones, synapse_list


class LeftAloneError(ValueError):
    """Why a module stays as it is."""


class _Swapped:
    """What swapped modules have in common: ``type(module)(...)`` takes the arguments of ncps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        theirs = next(base for base in type(self).__mro__ if base in SWAPS)
        made = theirs(*args, **kwargs)
        if type(made) is theirs:
            apply_plan(plan_swap(made))
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
        raise LeftAloneError(reason)


def _ltc_cell_additions(cell: Any) -> dict[str, Any]:
    parameters = cell._parameters
    for name, parameter in vars(cell)["_params"].items():
        registered = parameters.get(name)
        # Of parameters without values ncps has nothing to compute, whichever they are.
        if registered is not parameter and not (registered is not None and registered.is_meta):
            raise LeftAloneError(
                f"its _params[{name!r}], which ncps computes with, is not its parameter {name} "
                "(pruned, parametrized, or loaded with assign=True?)"
            )
    for name in (*LTC_PARAMETERS[:11], *LTC_MASKS):
        if name not in parameters:
            raise LeftAloneError(f"it has no parameter {name}")
    for side in ("input", "output"):
        mapping = getattr(cell, f"_{side}_mapping")
        wanted = {f"{side}_w": mapping in ("affine", "linear"), f"{side}_b": mapping == "affine"}
        for name, used in wanted.items():
            if used != (parameters.get(name) is not None):
                raise LeftAloneError(f"its _{side}_mapping {mapping!r} does not fit {name}")
    _refuse(ours.LTCCell._softplus_change(cell))
    wiring = cell._wiring
    if not 1 <= (wiring.output_dim or 0) <= wiring.units:
        raise LeftAloneError(f"its wiring has {wiring.output_dim} motor neurons")
    if cell._ode_unfolds < 1:
        raise LeftAloneError(f"it runs {cell._ode_unfolds} unfolds")
    additions: dict[str, Any] = {"_watch": None}
    adjacency = (wiring.adjacency_matrix, wiring.sensory_adjacency_matrix)
    for name, cache, matrix in zip(
        LTC_MASKS, ("_synapses", "_sensory_synapses"), adjacency, strict=True
    ):
        mask = parameters[name]
        if mask.requires_grad:
            raise LeftAloneError(f"its {name} is trained")
        try:
            synapses = synapse_list(np.abs(matrix) if mask.is_meta else mask, name)
        except ValueError as error:
            raise LeftAloneError(str(error)) from None
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
        raise LeftAloneError("its _layers, which ncps computes with, are not its modules layer_*")
    return {"_sizes": sizes, "_names": names, "_watch": None}


ours.cfc_cell.ACTIVATION_MODULES["lecun_tanh"] += (NcpsLeCun,)


def _cfc_cell_additions(cell: Any) -> dict[str, Any]:
    mask = cell.sparsity_mask
    if mask is not None:
        if mask.requires_grad:
            raise LeftAloneError("its sparsity_mask is trained")
        try:
            if not mask.is_meta:
                mask_ones(mask, "sparsity_mask")
        except ValueError as error:
            raise LeftAloneError(str(error)) from None
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
    additions: Callable[[Any], dict[str, Any]] = lambda module: {}
    """Returns the entries of ``__dict__`` that only fastltc has; may raise LeftAloneError."""


SWAPS: dict[type, _Swap] = {
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
    NcpsCfCCell: _Swap(CfCCell, "fastltc::cfc_forward", additions=_cfc_cell_additions),
    NcpsLSTMCell: _Swap(LSTMCell, None, additions=_lstm_cell_additions),
}

NCPS_CLASSES: tuple[Any, ...] = (NcpsLTC, NcpsLTCCell, NcpsCfC, NcpsCfCCell, NcpsWiredCfCCell)
OUR_CLASSES = tuple(getattr(ours, swap.ours.__name__) for swap in SWAPS.values())

Plan = list[tuple[Any, _Swap, dict[str, Any]]]


def plan_swap(module: Any) -> Plan:
    """Return what swapping a module and its cells takes.

    LeftAloneError says that it is of a subclass, that it or its class has been changed so that
    fastltc would compute something else or not call what has been added, or that it is on a device
    without kernels.
    """
    theirs = type(module)
    swap = SWAPS.get(theirs)
    if swap is None:
        base = next(base for base in theirs.__mro__ if base in NCPS_CLASSES)
        raise LeftAloneError(
            f"{theirs.__qualname__}, a subclass of ncps.torch.{base.__name__}, may compute "
            "something else"
        )
    _refuse(verified.difference(theirs))
    replaced = replaced_method(module)
    if replaced is not None:
        raise LeftAloneError(f"its method {replaced} has been replaced")
    plan: Plan = []
    for name, child in module._modules.items():
        if re.fullmatch(swap.parts, name):
            if type(child) not in SWAPS and not isinstance(child, OUR_CLASSES):
                raise LeftAloneError(f"its {name} is of the class {type(child).__qualname__}")
            # ncps calls the memory cell itself, but of the others only their forward.
            if name == "lstm" and has_hooks(child):
                raise LeftAloneError("its lstm has a hook")
            if isinstance(child, OUR_CLASSES):
                continue
            try:
                plan += plan_swap(child)
            except LeftAloneError as reason:
                raise LeftAloneError(f"of its {name}: {reason}") from None
        elif name in swap.inner:
            _refuse(change(name, child, swap.inner[name]))
    if swap.operator is not None:
        for parameter in module.parameters():
            device = parameter.device.type
            key = torch._C._dispatch_key_for_device(device)
            has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
            if not parameter.is_meta and not has_kernel(swap.operator, key):
                raise LeftAloneError(f"it is on {device}, for which fastltc has no kernels")
    plan.append((module, swap, swap.additions(module)))
    return plan


def apply_plan(plan: Plan) -> None:
    """Do the swaps of a plan."""
    for module, swap, additions in plan:
        entries: dict[str, Any] = module.__dict__
        for name in swap.dropped:
            entries.pop(name, None)
        entries.update(additions)
        object.__setattr__(module, "__class__", swap.ours)


def is_candidate(module: nn.Module | None) -> TypeGuard[nn.Module]:
    """Tell whether a module is one of ncps that was not swapped yet."""
    return isinstance(module, NCPS_CLASSES) and not isinstance(module, OUR_CLASSES)


def cells_of(module: nn.Module) -> Iterator[nn.Module]:
    """Find the cells of a layer that is left alone."""
    swap = next(SWAPS[base] for base in type(module).__mro__ if base in SWAPS)
    for name, child in module._modules.items():
        if re.fullmatch(swap.parts, name) and is_candidate(child):
            yield child
            yield from cells_of(child)
