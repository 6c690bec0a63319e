from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastltc.jobs.data import DataError, read_image

GREY = (1, 8, 8)
COLOUR = (3, 8, 8)


def ramp(dtype: type = np.uint8, top: int = 255) -> np.ndarray:
    return np.linspace(0, top, 64).round().astype(dtype).reshape(8, 8)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def test_a_fitting_image_is_taken_as_it_is(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", ramp()), GREY)
    np.testing.assert_array_equal(image.pixels, ramp()[None].astype(np.float32) / np.float32(255))
    assert image.pixels.dtype == np.float32
    assert image.conversion == ""


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "F"])
def test_grey_for_a_colour_model_is_an_error(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tiff"
    Image.new(mode, (8, 8)).save(path)
    with pytest.raises(DataError, match=f"{path}: expected an image in colour, got a grey one"):
        read_image(path, COLOUR)


def test_grey_for_a_colour_model_by_request(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", ramp()), COLOUR, grey_as_colour=True)
    assert image.pixels.shape == (3, 8, 8)
    for channel in image.pixels:
        np.testing.assert_array_equal(channel, ramp().astype(np.float32) / np.float32(255))
    assert image.conversion == "L to RGB"


def test_colour_keeps_its_channels(tmp_path: Path) -> None:
    colour = np.stack([ramp(), ramp().T, np.zeros_like(ramp())], axis=-1)
    image = read_image(save(tmp_path / "a.png", colour), COLOUR)
    np.testing.assert_allclose(image.pixels, np.moveaxis(colour, -1, 0) / 255, atol=1e-7)
    assert image.conversion == ""


def test_colour_for_a_grey_model_is_weighted(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    image = read_image(save(tmp_path / "a.png", red), GREY)
    np.testing.assert_allclose(image.pixels, 0.299, atol=1 / 255)
    assert image.conversion == "colour to grey"


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", ramp(np.uint16, 65535)), GREY)
    np.testing.assert_allclose(image.pixels[0], ramp(np.uint16, 65535) / 65535, atol=1 / 500)
    assert "0..65535" in image.conversion


def test_float_pixels_beyond_one_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", np.full((8, 8), 2.0, np.float32))
    with pytest.raises(DataError, match=r"a.tiff: pixel values of mode F must be within 0 and 1"):
        read_image(path, GREY)


def test_transparent_pixels_become_black(tmp_path: Path) -> None:
    colour = np.full((8, 8, 4), 255, np.uint8)
    colour[:4, :, 3] = 0
    image = read_image(save(tmp_path / "a.png", colour), GREY)
    assert image.pixels[0, :4].max() == 0.0
    assert image.pixels[0, 4:].min() == 1.0
    assert "transparency on black" in image.conversion


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(tmp_path / "a.gif", transparency=0)
    assert read_image(tmp_path / "a.gif", GREY).pixels.max() == 0.0


@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_a_picture_in_lab(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    # Lightness from 0 to 255, and no colour (a and b of zero).
    lab = np.stack([ramp(), np.zeros_like(ramp()), np.zeros_like(ramp())], -1)
    Image.frombytes("LAB", (8, 8), lab.tobytes()).save(tmp_path / "a.tiff")
    pixels = read_image(tmp_path / "a.tiff", shape).pixels
    assert pixels.shape == shape
    assert pixels[:, 0, 0].max() < 0.05
    assert pixels[:, -1, -1].min() > 0.95


def test_a_mode_without_a_way_to_grey_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))

    def convert(image: Image.Image, mode: str) -> Image.Image:
        raise ValueError("conversion not supported")

    monkeypatch.setattr(Image.Image, "convert", convert)
    with pytest.raises(DataError, match=r"a.png: mode RGB cannot be made L: conversion not supp"):
        read_image(path, GREY)


def test_black_and_white(tmp_path: Path) -> None:
    bits = ramp() > 128
    Image.fromarray(bits).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", GREY)
    np.testing.assert_array_equal(image.pixels[0], bits.astype(np.float32))


def test_another_aspect_ratio_is_squeezed_and_said(tmp_path: Path) -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 30:] = 255
    image = read_image(save(tmp_path / "a.png", wide), GREY)
    assert image.conversion == "60x20 to 8x8 (aspect ratio changed)"
    # Nothing is cropped: both halves are still halves.
    assert image.pixels[0, :, :3].max() < 0.1
    assert image.pixels[0, :, 5:].min() > 0.9


def test_shrinking_filters_first(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[::2] = 255
    image = read_image(save(tmp_path / "a.png", stripes), GREY)
    np.testing.assert_allclose(image.pixels, 0.5, atol=0.05)


def test_the_orientation_tag_is_applied(tmp_path: Path) -> None:
    picture = Image.fromarray(ramp())
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png", GREY)
    np.testing.assert_allclose(image.pixels[0], ramp()[::-1, ::-1] / 255, atol=1e-6)


def test_of_an_animation_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (255, 0)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    image = read_image(tmp_path / "a.gif", GREY)
    assert image.pixels.min() == 1.0
    assert "first frame" in image.conversion


def test_invert(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", ramp())
    straight, inverted = read_image(path, GREY), read_image(path, GREY, invert=True)
    np.testing.assert_allclose(inverted.pixels, 1 - straight.pixels, atol=1e-7)
    assert inverted.conversion == "inverted"


def test_the_channels_of_the_model_must_be_one_or_three(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1 or 3 channels, got 4"):
        read_image(save(tmp_path / "a.png", ramp()), (4, 8, 8))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.png: no such file"):
        read_image(tmp_path / "absent.png", GREY)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a regular file, got a folder"):
        read_image(tmp_path, GREY)


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DataError, match=r"a.png: not an image of a known type"):
        read_image(tmp_path / "a.png", GREY)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tiff", "bmp"])
def test_a_truncated_image(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    path = save(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"a.{suffix}: .*(damaged|not an image)"):
        read_image(path, GREY)


def test_an_image_that_unpacks_to_far_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", np.zeros((100, 100), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"a.png: too large an image"):
        read_image(path, GREY)
