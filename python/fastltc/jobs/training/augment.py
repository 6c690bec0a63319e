"""Augmentation of training images, by kornia."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..config import TrainConfig
from ..errors import ConfigError
from ..evaluation.feed import Augment


def make_augment(config: TrainConfig, shape: tuple[int, ...]) -> Augment | None:
    """What a configuration asks to be done to training images; None for nothing.

    Draws come from torch's global generator, so a resumed run goes on with the same ones. The
    crop needs no kornia.

    Raises:
        ConfigError: kornia is needed and is not installed or broken, or the inputs are no images.
    """
    shear = config.augment_shear
    affine = config.augment_scale or config.augment_shift or config.augment_rotate or shear
    light = config.augment_brightness, config.augment_contrast
    wanted = affine or config.augment_flip or config.augment_colour or any(light)
    if not wanted and config.augment_crop is None:
        return None
    if len(shape) != 3:
        raise ConfigError("augment: only images can be augmented")
    steps: list[Any] = []
    kornia: Any = _kornia() if wanted else None
    if affine:
        steps.append(
            kornia.RandomAffine(
                degrees=config.augment_rotate,
                translate=(config.augment_shift, config.augment_shift),
                scale=(1 - config.augment_scale, 1 + config.augment_scale),
                shear=shear or None,
                # Black corners would tell which images were turned.
                padding_mode="border",
                p=config.augment_affine_p,
            )
        )
    if config.augment_flip:
        steps.append(kornia.RandomHorizontalFlip(p=0.5))
    if config.augment_crop is not None:
        steps.append(partial(_crop, config.augment_crop))
    if config.augment_colour:
        if shape[0] != 3:
            raise ConfigError("augment_colour: expected images in colour, got grey ones")
        limit = config.augment_colour
        steps.append(kornia.RandomRGBShift(limit, limit, limit, p=config.augment_colour_p))
    if any(light) and shape[0] == 3:
        steps.append(kornia.ColorJiggle(*light, p=config.augment_light_p))
    elif any(light):
        steps.append(partial(_light, *light, config.augment_light_p))

    def augment(images: Tensor) -> Tensor:
        if len(images) == 0:
            # The share of one of several processes; kornia and a stack need an image.
            side = config.augment_crop
            return images if side is None else images[..., :side, :side]
        for step in steps:
            images = step(images)
        return images.clamp(0, 1)

    return augment


def _kornia() -> Any:
    try:
        import kornia.augmentation
    # A broken torchvision, or kornia for another torch, raises RuntimeError and others.
    except (ImportError, RuntimeError, AttributeError) as error:
        raise ConfigError(
            f"augment: kornia is needed and cannot be imported ({error}): "
            "pip install 'fastltc[vision]'"
        ) from None
    return kornia.augmentation


def _crop(side: int, images: Tensor) -> Tensor:
    """A random square of each image. Of equal size for all, so indexing does it."""
    places = [torch.randint(size - side + 1, (len(images),)).tolist() for size in images.shape[2:]]
    crops = [
        image[:, top : top + side, left : left + side]
        for image, top, left in zip(images, *places, strict=True)
    ]
    return torch.stack(crops)


def _light(brightness: float, contrast: float, p: float, images: Tensor) -> Tensor:
    """Brightness and contrast of grey images, for which kornia's jitter wants three channels."""
    draws = 2 * torch.rand(2, len(images), 1, 1, 1, device=images.device) - 1
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < p
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    changed = (images - mean) * (1 + contrast * draws[0]) + mean
    changed = changed * (1 + brightness * draws[1])
    return torch.where(chosen, changed, images)
