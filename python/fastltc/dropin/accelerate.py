"""Swaps the modules of ncps in a model that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from fastltc.dropin.conversions import (
    LeftAloneError,
    Plan,
    apply_plan,
    cells_of,
    is_candidate,
    plan_swap,
)

__all__ = ["SwapReport", "accelerate"]


@dataclass(frozen=True)
class SwapReport:
    """What :func:`fastltc.accelerate` did.

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
        if is_candidate(module):
            names.setdefault(module, []).append(name)
    plans: dict[nn.Module, Plan] = {}
    refused: dict[nn.Module, str] = {}
    for module in names:
        try:
            plans[module] = plan_swap(module)
        except LeftAloneError as reason:
            refused[module] = str(reason)
    # The code of a layer that is left alone may rely on anything in its cells, and so a layer
    # that shares such a cell cannot be swapped either.
    waiting = list(refused)
    while waiting:
        layer = waiting.pop()
        held = set(cells_of(layer))
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
        apply_plan([step for step in plan if type(step[0]) is not step[1].ours])
    return SwapReport(
        swapped={n: type(module).__name__ for module in plans for n in names[module]},
        left_alone={
            n: refused[module] for module in names if module in refused for n in names[module]
        },
    )
