"""The torch device a name stands for."""

from __future__ import annotations

import torch

from .errors import DeviceError


def find_device(name: str) -> torch.device:
    """Looks a device up, and makes sure that it works here.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...

    Raises:
        DeviceError: the name means nothing to torch, or the device is not there.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    # Builds of torch without a backend raise AssertionError, NotImplementedError and others.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeviceError(f"device: {name!r} cannot be used here: {reason}") from None
    return device
