"""Refusals of the operators, as errors of the function that was called.

The operators check everything themselves, before they touch memory, and raise ``RuntimeError``,
the text of which says what kind of error it is. A call that succeeds pays nothing for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from fastltc._extension import load_cuda_operators

_KINDS: dict[str, type[Exception]] = {"ValueError": ValueError, "TypeError": TypeError}
# As csrc/torch/checks.h and check_same_device have them.
_REFUSED = re.compile(r"fastltc::\w+: (ValueError|TypeError): (.*)", re.DOTALL)
# As torch has it, where an argument is nothing that the schema knows.
_NO_TENSOR = re.compile(r".*Expected a value of type '.*Tensor.*' for argument '(\w+)' but instead")


def reraise(
    error: Exception,
    arguments: Iterable[Any],
    operator: Any,
    x: Tensor,
    parameters: Sequence[str] = (),
) -> NoReturn:
    """Raise the error of an operator as one of the function that called it.

    A refused shape or value is a ValueError; a dtype, a device or what is not a tensor a TypeError.
    Without CUDA kernels it is a RuntimeError, without any for the device a NotImplementedError.
    ``parameters`` are names of the operator's first parameters, if they have any.
    """
    if isinstance(error, NotImplementedError):
        check_has_kernels(operator._schema.name.partition("::")[2], x)
    refused = _REFUSED.match(str(error))
    if refused is not None:
        raise _KINDS[refused[1]](refused[2]) from None
    no_tensor = _NO_TENSOR.match(str(error))
    if no_tensor is not None:
        for argument, name, value in _named(operator, arguments, parameters):
            if argument == no_tensor[1] and not isinstance(value, Tensor):
                kind = type(value).__name__
                raise TypeError(f"{name}: expected a tensor, got {kind}") from None
    raise error


def _named(
    operator: Any, arguments: Iterable[Any], parameters: Sequence[str]
) -> Iterable[tuple[str, str, Any]]:
    """Yield the arguments of an operator, those in lists one by one: name, its own name, value."""
    for argument, value in zip(operator._schema.arguments, arguments, strict=False):
        if str(argument.type).startswith("List") and isinstance(value, (list, tuple)):
            names = parameters if argument.name == "parameters" else ()
            for k, entry in enumerate(value):
                own = names[k] if k < len(names) else f"{argument.name}[{k}]"
                yield argument.name, own, entry
        else:
            yield argument.name, argument.name, value


def check_same_device(
    operator: Any, x: Tensor, arguments: Iterable[Any], parameters: Sequence[str] = ()
) -> None:
    """Raise RuntimeError if a tensor is on another device than ``x``, as the operators do.

    For fake kernels: they also answer when only some tensors are on the meta device, and would
    return real tensors that nobody has written.
    """
    for _, name, value in _named(operator, arguments, parameters):
        if isinstance(value, Tensor) and value.device != x.device:
            raise RuntimeError(
                f"{operator._schema.name}: TypeError: {name}: expected a tensor on {x.device}, "
                f"where the first argument is, got one on {value.device}"
            )


def check_has_kernels(function: str, x: Tensor) -> None:
    """Raise an error with the remedy if there are no kernels for the device of ``x``."""
    if x.device.type == "cuda":
        path, reason = load_cuda_operators()
        if path is None:
            raise RuntimeError(
                f"{function}: x is on {x.device}, but the CUDA kernels are not loaded: {reason}. "
                "Install fastltc where there is a CUDA toolkit (`fastltc info` says whether it "
                'found one), or move the module and its inputs to the CPU with .to("cpu")'
            )
    elif x.device.type != "cpu":
        raise NotImplementedError(
            f"fastltc: no {x.device.type} kernels for tensors on {x.device}; move the module and "
            "its input to the CPU, or install a fastltc built with FASTLTC_CUDA=ON (`fastltc "
            "info` says what this one has)"
        )


def check_timespan_values(name: str, timespans: Tensor) -> None:
    """Raise ValueError if a time step is negative, infinite or NaN."""
    bad = torch.logical_not((timespans >= 0) & torch.isfinite(timespans))
    if bad.any():
        where = [int(i) for i in bad.nonzero()[0]]
        value = timespans[tuple(where)].item()
        raise ValueError(
            f"{name}: expected finite time steps of 0 or more, got {value} at {where} "
            f"({int(bad.sum())} of {bad.numel()} are not)"
        )


def check_lengths_and_timespans(
    lengths: Tensor | None, timespans: Tensor | None, time: int
) -> None:
    """Raise ValueError if a length, or a time step within the lengths, is out of its range."""
    if lengths is not None and lengths.numel():
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or high > time:
            raise ValueError(f"lengths: expected values of 0 to T = {time}, got {low} to {high}")
    if timespans is None:
        return
    if lengths is not None:
        valid = torch.arange(time, device=timespans.device) < lengths.unsqueeze(-1)
        valid = valid if timespans.dim() == 2 else valid.unsqueeze(-1)
        timespans = torch.where(valid, timespans, 0)
    check_timespan_values("timespans", timespans)
