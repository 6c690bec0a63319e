"""How precisely the sigmoids of synapses are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastltc._parameters import SIGMOID_PRECISIONS

_of_process = "highest"


def set_sigmoid_precision(precision: str) -> None:
    """Set how precisely LTC layers compute the sigmoids of their synapses, in this process.

    As ``torch.set_float32_matmul_precision``. It counts for float32 on a CPU with AVX2, AVX-512 or
    NEON; everything else, and every other function of a layer, is at ``"highest"`` always: float64,
    CUDA, derivatives beyond one backward pass, exported ONNX and C. A call takes what is set when
    its forward pass begins, and its gradients are those of the function that it computed, in
    whatever thread and under whatever setting the backward pass runs. Compiled code follows, too.

    Args:
        precision: ``"highest"``, the default: 4.5 units of the last place. ``"medium"``: a
            relative error of up to 4.5e-4 (1.4e-4 with AVX-512), for two thirds of the time of a
            forward pass; docs/numerics.md has what that does to trained networks.

    Raises:
        ValueError: if it is neither.

    Example:
        >>> import fastltc
        >>> fastltc.set_sigmoid_precision("medium")
        >>> fastltc.get_sigmoid_precision()
        'medium'
        >>> fastltc.set_sigmoid_precision("highest")
    """
    global _of_process
    _of_process = check_precision(precision)


def get_sigmoid_precision() -> str:
    """Return what :func:`set_sigmoid_precision` has set: ``"highest"`` or ``"medium"``."""
    return _of_process


@contextmanager
def sigmoid_precision(precision: str) -> Iterator[None]:
    """Set the precision for the length of a ``with``, for all threads of the process.

    Threads that want different ones set it by layer: ``layer.sigmoid_precision = "medium"``.

    Args:
        precision: as :func:`set_sigmoid_precision` takes it.

    Raises:
        ValueError: if it is neither ``"highest"`` nor ``"medium"``.

    Example:
        >>> import torch
        >>> import fastltc
        >>> layer, x = fastltc.LTC(4, 8), torch.randn(2, 3, 4)
        >>> with fastltc.sigmoid_precision("medium"):
        ...     quick, _ = layer(x)
        >>> bool((quick - layer(x)[0]).abs().max() < 1e-3)
        True
    """
    before = get_sigmoid_precision()
    set_sigmoid_precision(precision)
    try:
        yield
    finally:
        set_sigmoid_precision(before)


def check_precision(precision: str, name: str = "precision") -> str:
    """Return a precision; a ValueError is raised where there is none of that name."""
    if precision not in SIGMOID_PRECISIONS:
        raise ValueError(f"{name}: expected 'highest' or 'medium', got {precision!r}")
    return precision


def is_medium(of_layer: str | None) -> bool:
    """Whether a call is to have less precise sigmoids, by its layer or else by the process."""
    return (of_layer or _of_process) == "medium"
