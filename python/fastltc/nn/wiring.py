"""Wirings as the operators read them: synapse lists, kept in step with the masks they list."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ncps.wirings import Wiring
from torch import Tensor

__all__ = ["SynapseCache", "build_wiring", "synapse_list"]

_UNCOUNTED = -1
"""The version of a tensor that was made in inference mode, where versions are not counted."""

_CHEAP_TO_COMPARE = 64 * 64
"""Masks of at most this many entries are compared at every call: it takes less than 1 us."""


def build_wiring(
    wiring: Any, in_features: int | None, name: str = "in_features", motors: bool = True
) -> Wiring:
    """Return the wiring, built for ``in_features`` inputs.

    A wiring that is built already is used as it is. (Building it a second time, as ncps does,
    would add synapses to it.)

    Args:
        wiring: ``ncps.wirings.Wiring``.
        in_features: number of inputs; None if the wiring is built.
        name: what the caller calls ``in_features``.
        motors: whether the number of outputs must be set.

    Raises:
        TypeError: if ``wiring`` is not a wiring.
        ValueError: if it is not built and ``in_features`` is None, if it is built for another
            number of inputs, or if its number of outputs is not set.
    """
    if not isinstance(wiring, Wiring):
        raise TypeError(f"wiring: expected an ncps.wirings.Wiring, got {type(wiring).__name__}")
    if in_features is not None and in_features < 1:
        raise ValueError(f"{name}: expected 1 or more, got {in_features}")
    if not wiring.is_built():
        if in_features is None:
            raise ValueError(
                f"wiring: expected a wiring that is built, or {name}, got one whose number of "
                f"inputs is not known; pass {name} or call wiring.build({name})"
            )
        wiring.build(in_features)
    elif in_features is not None and wiring.input_dim != in_features:
        raise ValueError(
            f"{name}: expected {wiring.input_dim}, which the wiring is built for, got {in_features}"
        )
    if not motors:
        return wiring
    if wiring.output_dim is None:
        raise ValueError(
            "wiring: expected one with motor neurons, got one whose number of outputs is not set; "
            "call wiring.set_output_dim(...)"
        )
    if not 1 <= wiring.output_dim <= wiring.units:
        raise ValueError(
            f"wiring: expected 1 to {wiring.units} motor neurons, got {wiring.output_dim}"
        )
    return wiring


def synapse_list(mask: Tensor | npt.NDArray[Any], name: str = "mask") -> Tensor:
    """List the synapses of a mask by postsynaptic neuron, as the operators read them.

    The list is that of the compressed sparse columns of the mask::

        list[j] .. list[j + 1]      where the synapses of neuron j begin and end, j = 0 .. N
        list[N + 1 + s]             presynaptic neuron (or input) of synapse s, ascending per j

    Args:
        mask: ``[pre, post]``, any dtype, 0 or 1.
        name: what to call it in errors.

    Returns:
        int32 tensor of ``N + 1 + (number of synapses)`` entries on the device of the mask.

    Raises:
        ValueError: if the mask is not a matrix or an entry is neither 0 nor 1.

    Example:
        >>> import torch
        >>> from fastltc.nn import synapse_list
        >>> synapse_list(torch.tensor([[0, 1], [1, 1]])).tolist()
        [0, 1, 3, 1, 0, 1]
    """
    if isinstance(mask, Tensor):
        device = mask.device
        # Half types have no numpy counterpart, and 0 and 1 are exact in any.
        with _plain_tensors():
            entries = _unwrapped(mask).detach().to("cpu", torch.float64).numpy()
    else:
        device = torch.device("cpu")
        entries = np.asarray(mask)
    if entries.ndim != 2:
        raise ValueError(f"{name}: expected shape [pre, post], got {list(entries.shape)}")
    connected = entries == 1
    strange = np.argwhere(~(connected | (entries == 0)))
    if len(strange):
        pre, post = strange[0]
        raise ValueError(
            f"{name}: expected 0 or 1 everywhere, got {entries[pre, post]} at [{pre}, {post}] "
            f"({len(strange)} of {entries.size} entries are neither)"
        )
    pointers = np.concatenate([[0], connected.sum(0).cumsum()])
    presynaptic = np.nonzero(connected.T)[1]
    synapses = np.concatenate([pointers, presynaptic]).astype(np.int32)
    with _plain_tensors():
        return torch.from_numpy(synapses).to(device)


class SynapseCache:
    """The synapse list of a mask, made anew when the mask has changed.

    A change is noticed by the identity, address and version of the tensor. An in-place edit
    through ``mask.data`` changes none of them, so the values are compared too, where that costs
    little beside the call itself; see :meth:`current`.

    Args:
        synapses: the list to begin with.
        name: what to call the mask in errors.
    """

    def __init__(self, synapses: Tensor, name: str) -> None:
        self.synapses = synapses
        self._name = name
        self._mask: Tensor | None = None
        self._version = self._address = 0
        # The memory of the mask. Holding it also keeps its address from being used again.
        self._memory: npt.NDArray[np.uint8] | None = None
        self._copy = b""
        self._before_meta: Tensor | None = None

    def __reduce__(self) -> tuple[type[SynapseCache], tuple[Tensor, str]]:
        """Leave the mask behind when copied or pickled: the copy belongs to another one."""
        return SynapseCache, (self.synapses, self._name)

    def current(self, mask: Tensor, thorough: bool) -> Tensor:
        """Return the synapse list of ``mask``.

        Args:
            mask: ``[pre, post]``, 0 or 1.
            thorough: whether to compare the values of a large mask also (of more than 4096
                entries; those of a small one always are). Only masks on the CPU are compared.

        Raises:
            ValueError: if the mask has changed and an entry is neither 0 nor 1.
        """
        if mask is self._mask and mask.data_ptr() == self._address:
            try:
                version = mask._version
            except RuntimeError:
                version = _UNCOUNTED
            memory = self._memory
            if version == self._version and (
                memory is None
                or (memory.size > _CHEAP_TO_COMPARE and not thorough)
                or memory.tobytes() == self._copy
            ):
                return self.synapses
        return self.refresh(mask)

    def refresh(self, mask: Tensor) -> Tensor:
        """Make the list anew, whether the mask seems to have changed or not, and return it."""
        if mask.is_meta:
            # There is nothing to read; the list of the wiring holds until there is.
            self.move(mask.device)
            return self.synapses
        self.synapses = synapse_list(mask, self._name)
        mask = _unwrapped(mask)
        self._version = _UNCOUNTED if mask.is_inference() else mask._version
        self._mask, self._address = mask, mask.data_ptr()
        self._memory, self._copy = None, b""
        if mask.device.type == "cpu":
            bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
            with _plain_tensors():
                self._memory = mask.detach().view(bits[mask.element_size()]).numpy()
            self._copy = self._memory.tobytes()
        return self.synapses

    def move(self, device: torch.device) -> None:
        """Move the list to a device; the next call of :meth:`current` reads the mask again."""
        if self.synapses.device != device:
            with _plain_tensors():
                if device.type == "meta":
                    # The way back has nothing to read: to_empty() leaves the mask without values.
                    self._before_meta = self.synapses
                elif self.synapses.is_meta and self._before_meta is not None:
                    self.synapses = self._before_meta
                self.synapses = self.synapses.to(device)
        self._mask = None


@contextlib.contextmanager
def _plain_tensors() -> Iterator[None]:
    """Make tensors that serve everywhere, also inside inference mode or ``torch.func.grad``."""
    with torch._C._DisableFuncTorch(), torch.inference_mode(False):
        yield


def _unwrapped(mask: Tensor) -> Tensor:
    """Return the tensor that holds the values, inside ``torch.func.grad`` and its like."""
    while torch._C._functorch.is_functorch_wrapped_tensor(mask):
        mask = torch._C._functorch.get_unwrapped(mask)
    return mask
