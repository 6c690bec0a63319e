"""Which layers a module runs, and in which order."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastltc.dropin.accelerate import accelerate
from fastltc.dropin.conversions import NCPS_CLASSES, OUR_CLASSES
from fastltc.exporting.errors import ExportError
from fastltc.nn import LTC, CfC, MaskedLinear, Sequential


def title_of(path: str, module: Any) -> str:
    """Return what errors call a module."""
    return f"{path or 'module'} ({type(module).__name__})"


def leaves_of(module: Any, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Find the layers of a module in the order in which they run, with their paths.

    An ExportError says that that cannot be told.
    """
    kind = type(module)
    inner = _wrapped(module)
    if inner is not None:
        yield from leaves_of(inner, path)
        return
    if isinstance(module, (list, tuple, nn.ModuleList)):
        children: Any = enumerate(module)
    elif callable(getattr(module, "export_layers", None)):
        try:
            layers = list(module.export_layers())
        except ValueError as error:
            raise ExportError(f"{title_of(path, module)}: {error}") from None
        children = [(f"export_layers()[{i}]", m) for i, m in enumerate(layers)]
        for child, layer in children:
            if not isinstance(layer, nn.Module):
                raise ExportError(
                    f"{title_of(path, module)}: {child}: expected a torch.nn.Module, got "
                    f"{type(layer).__name__}"
                )
    elif isinstance(module, nn.Sequential) and kind.forward in (
        nn.Sequential.forward,
        Sequential.forward,
    ):
        children = module._modules.items()
    elif isinstance(module, NCPS_CLASSES) and not isinstance(module, OUR_CLASSES):
        yield path, _as_ours(path, module)
        return
    elif _is_chain(module):
        _check_chain(path, module)
        children = ((f"layers.{name}", m) for name, m in module.layers._modules.items())
    else:
        yield path, module
        return
    for name, child in children:
        yield from leaves_of(child, f"{path}.{name}" if path else str(name))


def _wrapped(module: Any) -> nn.Module | None:
    """Return what torch.compile or a data-parallel wrapper has wrapped."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return module.module
    # Not isinstance: the class is in torch._dynamo, which takes seconds to import.
    if type(module).__name__ == "OptimizedModule":
        return module._orig_mod
    return None


def _as_ours(path: str, module: nn.Module) -> nn.Module:
    """Return a copy of a module of ncps that is swapped for that of fastltc."""
    twin = copy.deepcopy(module).cpu()
    report = accelerate(twin)
    for name, reason in report.left_alone.items():
        raise ExportError(f"{title_of(path, module)}: {name}{': ' if name else ''}{reason}")
    return twin


def _is_chain(module: nn.Module) -> bool:
    if isinstance(module, OUR_CLASSES) or not isinstance(
        getattr(module, "layers", None), (nn.ModuleList, nn.Sequential)
    ):
        return False
    inside = {id(tensor) for tensor in [*module.layers.parameters(), *module.layers.buffers()]}  # type: ignore[union-attr]
    return all(id(tensor) in inside for tensor in [*module.parameters(), *module.buffers()])


def _check_chain(path: str, module: Any) -> None:
    """Check by running it that a module runs its layers in order."""
    title = title_of(path, module)
    advice = "give it a method export_layers() that returns what it runs"
    twin = copy.deepcopy(module).cpu().float().eval()
    leaves = [leaf for _, leaf in leaves_of(twin.layers, "")]
    width = next(
        (
            leaf.input_size if isinstance(leaf, (LTC, CfC)) else leaf.in_features
            for leaf in leaves
            if isinstance(leaf, (nn.Linear, MaskedLinear, LTC, CfC))
        ),
        None,
    )
    if width is None:
        raise ExportError(f"{title}: its layers hold no LTC or CfC; {advice}")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 3, width, generator=generator)
    with torch.no_grad():
        try:
            got = twin(x)
            wanted: Any = x
            for leaf in leaves:
                wanted = leaf(wanted)
                wanted = wanted[0] if isinstance(wanted, tuple) else wanted
        except Exception as error:
            raise ExportError(
                f"{title}: cannot be run on an input of {width} features ({error}); {advice}"
            ) from error
    got = got[0] if isinstance(got, tuple) else got
    if (
        not isinstance(got, Tensor)
        or got.shape != wanted.shape
        or not torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)
    ):
        raise ExportError(
            f"{title}: does something else than run its layers one after the other; {advice}"
        )
