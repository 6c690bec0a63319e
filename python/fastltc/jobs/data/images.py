"""Image files as arrays of the shape that a model was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import open_regular

# Those that are images and nothing else: Pillow hands EPS to a program that runs what is in it,
# whatever the file is called.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP")
# Checked before a pixel is decoded: 8192x8192, more than a camera has, and a bound for the memory.
MAX_PIXELS = 1 << 26
# Rows are converted so many pixels at a time.
_STRIP = 1 << 18


def normalise(images: NDArray[np.generic]) -> NDArray[np.float32]:
    """Maps pixel values to ``[-1, 1]``, which is what the models are fed.

    ``y = (x - 0.5) / 0.5``, for training, evaluation and prediction alike.

    Args:
        images: any shape, float32 in ``[0, 1]`` or uint8 in 0 to 255.

    Returns:
        The same shape, float32.
    """
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255)
    return (images.astype(np.float32, copy=False) - np.float32(0.5)) / np.float32(0.5)


def is_grey(mode: str) -> bool:
    """Whether pictures of a mode of Pillow have no colours."""
    return mode in ("1", "L", "LA", "La") or mode[0] in "IF"


@contextmanager
def opened_picture(path: Path) -> Iterator[Any]:
    """An image file as a Pillow image, of which only the header is read.

    Raises:
        DataError: it is missing, not an image, damaged or too large, when it is opened or in the
            block; the text names it.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with open_regular(path) as file, _open(file) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise DataError(
                    f"{path}: too large an image: expected at most {MAX_PIXELS:,} pixels, got "
                    f"{width}x{height}"
                )
            yield opened
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: not an image of a known type; expected one of {', '.join(FORMATS)}"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: too large an image: {error}") from None
    except DataError:
        raise
    except OSError as error:
        text = error.strerror or error
        raise DataError(f"{path}: unreadable or damaged image: {text}") from None
    # Pillow's decoders raise SyntaxError, ValueError, struct.error and others on damaged files.
    except Exception as error:
        raise DataError(f"{path}: unreadable or damaged image: {error}") from None


def _open(file: BinaryIO) -> Any:
    from PIL import Image

    known = known_formats()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(file, formats=known)


def known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the installed Pillow reads."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_picture(path: Path) -> tuple[Any, int]:
    """A decoded image file, upright, as a Pillow image, and the number of its frames.

    Raises:
        DataError: it is missing, not an image, damaged or too large; the text names it.
    """
    from PIL import ImageOps

    with opened_picture(path) as opened:
        opened.load()
        return ImageOps.exif_transpose(opened), getattr(opened, "n_frames", 1)


def eight_bits(image: Any, path: Path) -> tuple[Any, list[str]]:
    """A picture without transparency (black shows through) and of eight bits a channel.

    Returns:
        A Pillow image that `in_mode` takes, and what was done to it, in words.

    Raises:
        DataError: 16-bit or float pixels are outside their range.
    """
    from PIL import Image

    steps = []
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image)
        limit = 1.0 if image.mode == "F" else 65535.0
        least, most = grey.min(), grey.max()
        # Every comparison with NaN is false.
        if not (least >= 0 and most <= limit):
            raise DataError(
                f"{path}: pixel values of mode {image.mode} must be within 0 and {limit:g}, "
                f"got {least:g} to {most:g}"
            )
        steps.append(f"mode {image.mode} scaled from 0..{limit:g}")
        scaled = (np.rint(rows * (255.0 / limit)).astype(np.uint8) for rows in in_doubles(grey))
        image = Image.fromarray(np.concatenate(list(scaled)))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        steps.append("transparency on black")
        image = in_mode(image, "RGBA", path)
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        image = image.convert("RGB")
    return image, steps


def in_doubles(pixels: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """The rows of a picture as float64, a few at a time: all of them would take much memory."""
    rows = max(1, _STRIP // max(1, pixels.shape[1]))
    for start in range(0, len(pixels), rows):
        yield pixels[start : start + rows].astype(np.float64)


def in_mode(image: Any, mode: str, path: Path) -> Any:
    """A Pillow image in another mode; the same one where it has it.

    Raises:
        DataError: Pillow has no way from the one to the other.
    """
    if image.mode == mode:
        return image
    try:
        # From LAB there is a way to RGB, and none to grey.
        return (image.convert("RGB") if image.mode == "LAB" else image).convert(mode)
    except (ValueError, OSError, ImportError) as error:
        raise DataError(
            f"{path}: mode {image.mode} cannot be made {mode}: {error}; save it in RGB or grey"
        ) from None


@dataclass(frozen=True)
class ImageFile:
    """An image file converted for a model.

    Args:
        path: the file.
        pixels: ``[C, H, W]``, float32 in ``[0, 1]``.
        conversion: what was done to it, in words; empty when nothing was.
    """

    path: Path
    pixels: NDArray[np.float32]
    conversion: str


def read_image(
    path: Path | str,
    image_shape: tuple[int, ...],
    *,
    invert: bool = False,
    grey_as_colour: bool = False,
) -> ImageFile:
    """Reads one image file and converts it to the shape that a model was trained on.

    In this order: the camera's orientation tag is applied; of several frames the first is taken;
    transparent pixels become black; 16-bit grey is scaled, not clipped; colour becomes grey
    (ITU-R 601 luma) for a model of one channel; the *whole* picture is resized (bicubic, with the
    low-pass filter that shrinking needs), so another aspect ratio is squeezed and nothing is
    cropped.

    Args:
        path: a file of one of `FORMATS`, whatever it is called, of at most `MAX_PIXELS`.
        image_shape: ``(C, H, W)`` with C of 1 or 3.
        invert: dark and light are exchanged after the conversion (the digits are light on dark).
        grey_as_colour: a grey picture for a model of three channels is given to all of them;
            without it that is an error, because a model of colours may not know what to make of
            it.

    Returns:
        The pixels and a description of what was done.

    Raises:
        DataError: the file is missing, not an image, damaged or too large, or grey where colour is
            expected; the text names it.

    Example:
        >>> from fastltc.jobs.data import read_image
        >>> read_image("scan.png", (1, 28, 28)).pixels.shape
        (1, 28, 28)
    """
    from PIL import Image

    path = Path(path)
    channels, height, width = image_shape
    if channels not in (1, 3):
        raise ValueError(f"image_shape: expected 1 or 3 channels, got {channels}")
    image, frames = open_picture(path)
    if channels == 3 and is_grey(image.mode) and not grey_as_colour:
        raise DataError(
            f"{path}: expected an image in colour, got a grey one (mode {image.mode}); "
            "`fastltc predict --grey-as-colour` (in training: --channels 3) gives grey to all "
            "three channels"
        )
    image, steps = eight_bits(image, path)
    if frames > 1:
        steps.insert(0, "first frame")
    mode = "L" if channels == 1 else "RGB"
    if image.mode not in (mode, "1"):
        steps.append("colour to grey" if mode == "L" else f"{image.mode} to RGB")
    image = in_mode(image, mode, path)
    if image.size != (width, height):
        squeezed = image.width * height != image.height * width
        steps.append(
            f"{image.width}x{image.height} to {width}x{height}"
            + (" (aspect ratio changed)" if squeezed else "")
        )
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255.0)
    pixels = pixels[None] if channels == 1 else np.moveaxis(pixels, -1, 0)
    if invert:
        steps.append("inverted")
        pixels = np.float32(1.0) - pixels
    return ImageFile(path, np.ascontiguousarray(pixels), ", ".join(steps))
