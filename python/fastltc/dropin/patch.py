"""Makes ncps construct the modules of fastltc."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from fastltc.dropin.conversions import NCPS_CLASSES, LeftAloneError, apply_plan, plan_swap

__all__ = ["Patch", "patch_ncps"]


class Patch:
    """A patch that is in force from its making until :meth:`undo`; see :func:`fastltc.patch_ncps`.

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
    for theirs in NCPS_CLASSES:
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
        plan = plan_swap(module)
    except LeftAloneError as reason:
        for patch in _active:
            patch.left_alone[str(reason)] += 1
        return
    apply_plan(plan)
    for patch in _active:
        patch.swapped[type(module).__name__] += 1
