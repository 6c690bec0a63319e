"""Masks as the operators read them: lists of their ones, kept in step with the masks."""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

_UNCOUNTED = -1
"""The version of a tensor that was made in inference mode, where versions are not counted."""

_CHECKED: dict[int, tuple[weakref.ref[Tensor], weakref.ref[Tensor], int, int]] = {}
"""By the address of a list of entries: itself, the mask that it is of, and the versions of both."""

_REPEATED: Any = WeakTensorKeyDictionary()
"""What :func:`repeat_synapses` last made of a list: its version and how, and the result."""

THOROUGH_FROM = 32
"""The work of this many steps times samples dwarfs a comparison of a mask of any size."""

_CHEAP_TO_COMPARE = 64 * 64
"""Masks of at most this many entries are compared at every call: it takes less than 1 us."""


def synapse_list(mask: Tensor | npt.NDArray[Any], name: str = "mask") -> Tensor:
    """List the synapses of a mask by postsynaptic neuron, as the operators read them.

    The list is that of the compressed sparse columns of the mask::

        list[j] .. list[j + 1]      where the synapses of neuron j begin and end, j = 0 .. N
        list[N + 1 + s]             presynaptic neuron (or input) of synapse s, ascending per j

    Args:
        mask: ``[pre, post]``, any dtype, 0 or 1 up to rounding.
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
    device = mask.device if isinstance(mask, Tensor) else torch.device("cpu")
    if mask.ndim != 2:
        raise ValueError(f"{name}: expected shape [pre, post], got {list(mask.shape)}")
    with plain_tensors():
        connected = mask_ones(mask, name).numpy()
    pointers = np.concatenate([[0], connected.sum(0).cumsum()])
    presynaptic = np.nonzero(connected.T)[1]
    synapses = np.concatenate([pointers, presynaptic]).astype(np.int32)
    with plain_tensors():
        return torch.from_numpy(synapses).to(device)


def repeat_synapses(synapses: Tensor, rows: int, columns: int, count: int) -> Tensor:
    """Return the list of so many ``[rows, columns]`` masks on a diagonal, given that of one."""
    own, dims = _unwrapped_stack(synapses)
    wanted = _version(own), rows, columns, count
    # Before anything that takes time.
    known = None if dims else _REPEATED.get(own)
    if known is not None and known[0] == wanted:
        return known[1]
    with plain_tensors():
        own = _common(own, dims, "synapses")
        size = own.shape[0] - columns - 1
        net = torch.arange(count, dtype=own.dtype, device=own.device).unsqueeze(1)
        pointers, presynaptic = own[:columns] + net * size, own[columns + 1 :] + net * rows
        end = own.new_full((1,), count * size)
        repeated = torch.cat([pointers.flatten(), end, presynaptic.flatten()])
        _REPEATED[own] = wanted, repeated
        return repeated


def synapse_mask(synapses: Tensor, rows: int, columns: int) -> Tensor:
    """Return the mask, ``[rows, columns]``, that :func:`synapse_list` lists the synapses of."""
    with plain_tensors():
        synapses = _unwrapped(synapses, "synapses").long()
        pointers, presynaptic = synapses[: columns + 1], synapses[columns + 1 :]
        of = torch.arange(columns, device=synapses.device).repeat_interleave(pointers.diff())
        mask = torch.zeros(rows, columns, dtype=torch.bool, device=synapses.device)
        mask[presynaptic, of] = True
        return mask


_ROUNDING = {torch.bfloat16: 2**-6, torch.float16: 2**-8, torch.float64: 2**-16}
"""How far a one may be off, by the coarsest dtype that holds all entries of the mask."""


def mask_ones(mask: Tensor | npt.NDArray[Any], name: str) -> Tensor:
    """Find the ones of a mask whose entries are 0 or 1 up to rounding: bool, on the CPU.

    Averages of checkpoints (of clients, of the last epochs, of a student and its teacher) leave
    masks of 0 and, say, 1.0000001: four units in the last place of a half type are allowed, where
    the mask was stored in one, and 1.5e-5 else. That is far less than one of many averaged masks
    takes away from a one, or puts in the place of a zero, where it differs from the others. A
    ValueError names an entry that is neither.
    """
    if isinstance(mask, Tensor):
        entries = _unwrapped(mask, name).detach().to("cpu", torch.float64)
    else:
        entries = torch.from_numpy(np.asarray(mask, dtype=np.float64))
    ones = entries == 1
    if not (ones | (entries == 0)).all():
        ones = (entries - 1).abs() <= _rounding(entries)
        strange = ~(ones | (entries.abs() <= _ROUNDING[torch.float64]))
        if strange.any():
            where = [int(i) for i in strange.nonzero()[0]]
            raise ValueError(
                f"{name}: expected 0 or 1 everywhere, got {entries[tuple(where)].item()} at "
                f"{where} ({int(strange.sum())} of {strange.numel()} entries are neither)"
            )
    return ones


def _rounding(entries: Tensor) -> float:
    for dtype, rounding in _ROUNDING.items():
        if (entries.to(dtype).double() == entries).all():
            return rounding
    return 0.0  # NaN


def stacked_synapse_list(masks: Tensor, name: str = "masks") -> Tensor:
    """List the synapses of several layers beside each other, which have none between them.

    Args:
        masks: ``[K, pre, post]``, any dtype, 0 or 1.
        name: what to call them in errors.

    Returns:
        As :func:`synapse_list` makes it from the ``[K pre, K post]`` matrix with the masks on its
        diagonal.

    Raises:
        ValueError: if an entry is neither 0 nor 1.

    Example:
        >>> import torch
        >>> from fastltc.ops import stacked_synapse_list
        >>> stacked_synapse_list(torch.ones(2, 1, 1)).tolist()
        [0, 1, 2, 0, 1]
    """
    _, rows, columns = masks.shape
    lists = [synapse_list(mask, f"{name}[{k}]") for k, mask in enumerate(masks)]
    return _stacked(lists, rows, columns)


def _stacked(lists: list[Tensor], rows: int, columns: int) -> Tensor:
    """Return the list of ``[rows, columns]`` masks on a diagonal, given that of each."""
    with plain_tensors():
        degrees = [synapses[: columns + 1].diff() for synapses in lists]
        pointers = lists[0].new_zeros(len(lists) * columns + 1)
        pointers[1:] = torch.cat(degrees).cumsum(0)
        return torch.cat([pointers, *(s[columns + 1 :] + k * rows for k, s in enumerate(lists))])


def mask_entries(mask: Tensor, name: str = "mask") -> Tensor:
    """List the ones of a mask by output and by input, as the operator reads them.

    ::

        O + 1 pointers          where the entries of each output begin, and the end of the last
        input of each entry     ascending for each output
        I + 1 pointers          the same by inputs
        output of each entry    ascending for each input
        place of each entry     of this second order in the first

    Args:
        mask: ``[O, I]``, any dtype, 0 or 1.
        name: what to call it in errors.

    Returns:
        int32, ``O + I + 2 + 3 (number of ones)`` integers, on the device of the mask.

    Raises:
        ValueError: if the mask is not a matrix or an entry is neither 0 nor 1.

    Example:
        >>> import torch
        >>> from fastltc.ops import mask_entries
        >>> mask_entries(torch.tensor([[0, 1], [1, 1]])).tolist()
        [0, 1, 3, 1, 0, 1, 0, 1, 3, 1, 0, 1, 1, 0, 2]
    """
    entries = _mask_entries(mask, name)
    _remember(entries, mask)
    return entries


def _mask_entries(mask: Tensor, name: str) -> Tensor:
    # Its columns are the outputs of the transposed mask.
    by_output = synapse_list(mask.t() if mask.dim() == 2 else mask, name)
    with plain_tensors():
        outputs, inputs = mask.shape
        pointers, index = by_output[: outputs + 1], by_output[outputs + 1 :]
        place = index.argsort(stable=True)
        of_output = torch.arange(outputs, device=index.device).repeat_interleave(pointers.diff())
        first = index.new_zeros(inputs + 1)
        first[1:] = index.bincount(minlength=inputs).cumsum(0)
        return torch.cat([by_output, first, of_output[place].int(), place.int()])


def _version(tensor: Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:
        return _UNCOUNTED


def _remember(entries: Tensor, mask: Tensor) -> None:
    key = id(entries)
    gone = weakref.ref(entries, lambda _: _CHECKED.pop(key, None))
    _CHECKED[key] = gone, weakref.ref(mask), _version(entries), _version(mask)


def check_entries(entries: Tensor, mask: Tensor) -> None:
    """Raise ValueError if a list of entries is not that of a mask.

    Lists are compared once; afterwards identity and versions are. Only plain tensors on the CPU are
    looked at.
    """
    known = _CHECKED.get(id(entries))
    if (
        known is not None
        and (known[0]() is entries and known[2] == _version(entries))
        and (known[1]() is mask and known[3] == _version(mask))
    ):
        return
    if _is_special(entries) or _is_special(mask) or not (entries.is_cpu and mask.is_cpu):
        return
    if mask.dim() != 2:
        return
    if entries.dtype != torch.int32 or not torch.equal(_mask_entries(mask, "mask"), entries):
        raise ValueError(
            f"entries: expected mask_entries(mask) of this {list(mask.shape)} mask, got another"
        )
    _remember(entries, mask)


class SynapseCache:
    """The synapse list of a mask, made anew by ``make`` when the mask has changed.

    A change is noticed by the identity, address and version of the tensor. An in-place edit through
    ``mask.data`` changes none of them, so the values are compared too, where that costs little
    beside the call itself; see :meth:`current`. Errors call the mask ``name``.
    """

    def __init__(
        self, synapses: Tensor, name: str, make: Callable[[Tensor, str], Tensor] = synapse_list
    ) -> None:
        self.synapses = synapses
        self._name = name
        self._make = make
        self._mask: Tensor | None = None
        self._version = self._address = 0
        self._large = False
        self._stride: tuple[int, ...] = ()
        # The memory of the mask, to be read where the mask still is at that address only.
        self._memory: Any = None
        self._copy = b""
        self._before_meta: Tensor | None = None
        self._of_stack: tuple[list[int], SynapseCache] | None = None

    def __reduce__(self) -> tuple[type[SynapseCache], tuple[Any, ...]]:
        """Leave the mask behind when copied or pickled: the copy belongs to another one."""
        return SynapseCache, (self.synapses, self._name, self._make)

    def current(self, mask: Tensor, thorough: bool | None) -> Tensor:
        """Return the synapse list of ``mask``, whose entries are 0 or 1.

        ``thorough`` is whether to compare the values of a large mask also (of more than 4096
        entries; those of a small one always are). None: compare none. Only masks on the CPU are
        compared.
        """
        if (
            mask is self._mask
            and mask.data_ptr() == self._address
            and (not thorough or mask.stride() == self._stride)
        ):
            try:
                version = mask._version
            except RuntimeError:
                version = _UNCOUNTED
            memory = self._memory
            if version == self._version and (
                memory is None
                or (thorough is None and version != _UNCOUNTED)
                or (self._large and not thorough)
                or memory.raw == self._copy
            ):
                return self.synapses
        stack, dims = _unwrapped_stack(mask)
        if not dims or _is_special(stack):
            return self.refresh(mask)
        # Of layers stacked by torch.vmap, whose tensor stays where each call wraps it anew.
        if self._of_stack is None or self._of_stack[0] != dims:
            name, make = self._name, self._make

            def make_of_stack(stack: Tensor, _: str) -> Tensor:
                return make(_common(stack, dims, name), name)

            self._of_stack = dims, SynapseCache(torch.empty(0), name, make_of_stack)
        return self._of_stack[1].current(stack, thorough)

    def refresh(self, mask: Tensor) -> Tensor:
        """Make the list anew, whether the mask seems to have changed or not, and return it."""
        if mask.is_meta:
            # There is nothing to read; the list of the wiring holds until there is.
            self.move(mask.device)
            return self.synapses
        if _is_special(mask):
            # A shard, say, of which the whole comes with the next call.
            self._mask = None
            return self.synapses
        with plain_tensors():
            mask = _unwrapped(mask, self._name)
            self.synapses = self._make(mask, self._name)
            self._version = _version(mask)
            self._mask, self._address, self._stride = mask, mask.data_ptr(), mask.stride()
            self._memory, self._copy = None, b""
            # Not by numpy(), which makes the memory one that FSDP cannot take away.
            if mask.device.type == "cpu" and mask.numel():
                pairs = zip(mask.shape, mask.stride(), strict=True)
                span = 1 + sum((size - 1) * stride for size, stride in pairs)
                memory_type = ctypes.c_char * (span * mask.element_size())
                self._memory = memory_type.from_address(self._address)
                self._copy = self._memory.raw
                self._large = span > _CHEAP_TO_COMPARE
        return self.synapses

    def move(self, device: torch.device) -> None:
        """Move the list to a device; the next call of :meth:`current` reads the mask again."""
        if self.synapses.device != device:
            with plain_tensors():
                if device.type == "meta":
                    # The way back has nothing to read: to_empty() leaves the mask without values.
                    self._before_meta = self.synapses
                elif self.synapses.is_meta and self._before_meta is not None:
                    self.synapses = self._before_meta
                self.synapses = self.synapses.to(device)
        self._mask = None


class RoundedMask(SynapseCache):
    """A mask as the operators take it that read masks: exactly 0 where it is 0 up to rounding."""

    def __init__(self, name: str) -> None:
        super().__init__(torch.empty(0), name, _round_mask)

    def __reduce__(self) -> tuple[type[RoundedMask], tuple[Any, ...]]:
        """Leave the mask behind when copied or pickled: the copy belongs to another one."""
        return RoundedMask, (self._name,)

    def refresh(self, mask: Tensor) -> Tensor:
        """Look at the mask, and return it or what to take in its place."""
        return mask if mask.is_meta or _is_special(mask) else super().refresh(mask)


def _round_mask(mask: Tensor, name: str) -> Tensor:
    ones, plain = mask_ones(mask, name), _unwrapped(mask, name).detach()
    return plain if torch.equal(ones, (plain != 0).cpu()) else ones.to(plain)


def _is_special(mask: Tensor) -> bool:
    return type(mask) not in (Tensor, torch.nn.Parameter)


@contextlib.contextmanager
def plain_tensors() -> Iterator[None]:
    """Make tensors that serve everywhere, also inside inference mode or ``torch.func.grad``.

    For ``torch.jit.trace`` they are constants.
    """
    tracing = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        with (
            torch._C._DisableFuncTorch(),
            torch.inference_mode(False),
            _disable_current_modes(),
        ):
            yield
    finally:
        torch._C._set_tracing_state(tracing)  # type: ignore[attr-defined]


def _unwrapped(mask: Tensor, name: str) -> Tensor:
    """Return the tensor that holds the values, inside ``torch.func.grad`` and its like.

    Layers that ``torch.vmap`` stacks have one wiring.
    """
    return _common(*_unwrapped_stack(mask), name)


def _unwrapped_stack(mask: Tensor) -> tuple[Tensor, list[int]]:
    """Return the tensor that holds the values of all entries, and the axes of these."""
    functorch = torch._C._functorch
    dims: list[int] = []
    while functorch.is_functorch_wrapped_tensor(mask):
        if functorch.is_batchedtensor(mask):
            dims.append(functorch.maybe_get_bdim(mask))
        mask = functorch.get_unwrapped(mask)
    return mask, dims


def _common(mask: Tensor, dims: list[int], name: str) -> Tensor:
    for dim in reversed(dims):
        others, mask = mask, mask.select(dim, 0)
        if not (others == mask.unsqueeze(dim)).all():
            raise ValueError(
                f"{name}: expected the same mask in all entries of torch.vmap, got several; "
                "fastltc.ParallelLTC runs LTC layers of different wirings in one call"
            )
    return mask
