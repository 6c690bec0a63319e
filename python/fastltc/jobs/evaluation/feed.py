"""Examples of a split as the tensors that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import Split, windows

# Rows or images that are evaluated at once.
CHUNK = 512

Augment = Callable[[Tensor], Tensor]


class Feed:
    """A split on a device.

    Images are in ``[-1, 1]`` when a model sees them (``y = (x - 0.5) / 0.5``); whatever else is as
    it was.

    Args:
        split: the examples.
        device: where the model is.
        crop: side of the square that is cut out of the middle of images; None for all.
        mirror: whether the answer on an image is the mean over it and its mirror image.
    """

    def __init__(
        self, split: Split, device: torch.device, crop: int | None = None, *, mirror: bool = False
    ) -> None:

        def tensor(array: Any) -> Any:
            if isinstance(array, windows.Windows) and array.nbytes > windows.IN_MEMORY:
                return _Drawn(array, device)
            # Writable and in this byte order, whatever it was read from.
            return torch.from_numpy(np.array(array)).to(device)

        self.split, self.device = split, device
        self.inputs, self.labels = tensor(split.inputs), tensor(split.labels)
        self.timespans = None if split.timespans is None else tensor(split.timespans)
        self.lengths = None if split.lengths is None else tensor(split.lengths)
        self.measured = None if split.measured is None else tensor(split.measured)
        self.future = None if split.future is None else tensor(split.future)
        self.crop = crop
        self.mirror = mirror

    def __len__(self) -> int:
        return len(self.inputs)

    def sample(self) -> Feed:
        """All of it or, where it is drawn as it is asked for, as much as fits into the memory.

        Of the whole length, evenly spaced.
        """
        if not any(isinstance(one, _Drawn) for one in (self.inputs, self.labels)):
            return self
        size = max(self.split.inputs.nbytes, self.split.labels.nbytes)
        most = max(len(self) * windows.IN_MEMORY // size, 1)
        places = np.linspace(0, len(self) - 1, most).astype(np.int64)
        return Feed(self.split.take(places), self.device, self.crop, mirror=self.mirror)

    def take(self, index: Tensor | slice, augment: Augment | None = None) -> tuple[Any, ...]:
        """What the model is called with: the inputs, and what a time series has besides.

        Timespans, lengths, what was measured and the future, up to the last that there is.

        ``augment`` gets images in ``[0, 1]``, in place of the crop of the middle.
        """
        inputs = self.inputs[index]
        if inputs.ndim == 4:
            images = inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs
            if augment is not None:
                images = augment(images)
            elif self.crop is not None:
                images = _middle(images, self.crop)
            inputs = (images - 0.5) / 0.5
        beside = [self.timespans, self.lengths, self.measured, self.future]
        while beside and beside[-1] is None:
            beside.pop()
        return (inputs, *(None if one is None else one[index] for one in beside))

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
        """All examples in order, and their labels."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.take(part), self.labels[part]


class _Drawn:
    """Windows of rows as a tensor of those that are asked for."""

    def __init__(self, drawn: windows.Windows, device: torch.device) -> None:
        self.windows, self.device = drawn, device

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        places = index.cpu().numpy() if isinstance(index, Tensor) else index
        return torch.from_numpy(self.windows[places]).to(self.device)


def _middle(images: Tensor, side: int) -> Tensor:
    top = (images.shape[-2] - side) // 2
    left = (images.shape[-1] - side) // 2
    return images[..., top : top + side, left : left + side]
