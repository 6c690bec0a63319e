"""Files of data that somebody has made to do harm: what they ask for is refused in one line."""

from __future__ import annotations

import io
import os
import stat
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli_support import fails, invoke
from fastltc.jobs.data import DataError, load_data, read_image
from fastltc.jobs.data.array_files import open_npz
from fastltc.jobs.data.images import FORMATS, MAX_PIXELS, eight_bits
from fastltc.jobs.data.tables import read_table
from job_support import write_images

GREY = (1, 8, 8)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def png_header(width: int, height: int, depth: int = 16) -> bytes:
    """A PNG file that claims a size, with hardly anything in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rows + chunk(b"IEND", b"")


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in Ghostscript's place; the path that it leaves a mark at where it is run."""
    mark, program = tmp_path / "was-run", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return mark


@pytest.mark.parametrize("name", ["a.png", "a.eps"])
def test_postscript_reaches_no_interpreter(tmp_path: Path, ghostscript: Path, name: str) -> None:
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(DataError, match=f"{name}: not an image of a known type; expected one of"):
        read_image(tmp_path / name, GREY)
    assert not ghostscript.exists()


@pytest.mark.parametrize("source", ["folder", "csv", "audit"])
def test_postscript_in_a_data_set(tmp_path: Path, ghostscript: Path, source: str) -> None:
    data = tmp_path / "data"
    for split in ("train", "test"):
        write_images(data / split, {"a": 12, "b": 12})
    (data / "train" / "a" / "0.png").write_bytes(EPS)
    if source == "audit":
        fails(invoke("audit", data), "not an image of a known type")
    else:
        names = sorted(path.relative_to(data) for path in data.rglob("*.png"))
        rows = [f"{name},{name.parts[1]},{name.parts[0]}" for name in names]
        (data / "list.csv").write_text("\n".join(["file,label,split", *rows]))
        place = data / "list.csv" if source == "csv" else data
        if source == "folder":
            (data / "list.csv").unlink()
        with pytest.raises(DataError, match=r"0.png: not an image of a known type"):
            load_data(f"{source}:{place}")
    assert not ghostscript.exists()


def test_the_endings_of_images_are_those_of_the_known_formats(tmp_path: Path) -> None:
    from fastltc.jobs.data.image_files import image_suffixes

    assert {".png", ".jpg", ".tiff", ".gif", ".bmp", ".webp"} <= image_suffixes()
    assert not {".eps", ".ps", ".pdf", ".wmf", ".fits", ".h5"} & image_suffixes()
    assert "EPS" not in FORMATS


@pytest.mark.parametrize("side", [8193, 13_300, 60_000])
def test_an_image_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_header(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"a.png: too large an image") as raised:
            read_image(path, GREY)
    assert side > 9000 or f"{MAX_PIXELS:,} pixels, got {side}x{side}" in str(raised.value)


def test_the_limit_holds_where_pillows_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "a.png").write_bytes(png_header(60_000, 60_000))
    with pytest.raises(DataError, match="expected at most 67,108,864 pixels, got 60000x60000"):
        read_image(tmp_path / "a.png", GREY)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_deep_pixels_are_converted_a_few_rows_at_a_time(kind: type) -> None:
    top = 1 if kind is np.float32 else 65535
    rng = np.random.default_rng(0)
    pixels = (rng.random((3000, 1001)) * top).astype(kind)
    image = Image.fromarray(pixels)
    tracemalloc.start()
    converted, _ = eight_bits(image, Path("a.png"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(converted, np.rint(pixels.astype(float) * (255 / top)))
    # Of a pixel, what Pillow gives (at most twice) and one byte twice; float64 would be 8 more.
    assert peak < pixels.size * (2 * pixels.itemsize + 2) + (12 << 20)


def test_what_is_no_file_is_said_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    for path, found in ((pipe, "a pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")):
        expected = f"{path}: .*expected a regular file, got {found}"
        with pytest.raises(DataError, match=expected):
            read_image(path, GREY)
        with pytest.raises(DataError, match=expected):
            read_table(path)
        with pytest.raises(DataError, match=expected):
            open_npz(path)
        fails(invoke("train", "--config", path), f"expected a regular file, got {found}")
        fails(invoke("train", "--weights", path), f"expected a regular file, got {found}")


def npy(shape: str, descr: str = "'<f4'", content: bytes = b"") -> bytes:
    """An array in NumPy's format with any header."""
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(f"({1 << 42},)"), "17,592,186,044,416 bytes, got 0"),
        (npy(f"({1 << 62}, {1 << 62})"), "bytes, got 0"),
        (npy("(-1,)"), "got 0"),
        (npy("(4,)", content=bytes(12)), "are 16 bytes, got 12"),
        (npy("(4,)", content=bytes(20)), "are 16 bytes, got 20"),
        (npy("(1,)", "'|O'", b"\x80\x04N."), "holds Python objects"),
        (npy("(1,)", "[('a', '|O')]", b"\x80\x04N."), "holds Python objects"),
        (npy("'many'"), "not a readable .npz file"),
        (npy("(1,)", "'?!'"), "not a readable .npz file"),
        (npy("(" * 3000 + ")" * 3000), "not a readable .npz file"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "version"),
        (b"text", "not a readable .npz file"),
        (b"", "not a readable .npz file"),
    ],
)
def test_headers_of_arrays_are_compared_with_what_is_there(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as raised:
        open_npz(npz(tmp_path / "a.npz", x=content, y=npy("(1,)", "'<i8'", bytes(8))))
    assert str(raised.value).startswith(f"{tmp_path / 'a.npz'}: ")
    assert "\n" not in str(raised.value)


def test_an_archive_that_unpacks_to_far_too_much(tmp_path: Path) -> None:
    """2 MB that are 2 GB of zeros: refused by what the archive says of itself."""
    path = tmp_path / "a.npz"
    count = (2 << 30) // 4
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for part in range(8):
            name = f"x{part}.npy"
            file.writestr(name, npy(f"({count // 8},)"))
    # Made as it is written: packing two gigabytes takes too long for a test.
    content = bytearray(path.read_bytes())
    place = 0
    while (place := content.find(b"PK\x01\x02", place)) >= 0:
        content[place + 24 : place + 28] = struct.pack("<I", count // 2)
        place += 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="unpack to 2,147,483,648, expected at most 1,073,741,824"):
        open_npz(path)


@pytest.mark.parametrize("kind", ["<U3", "S3", "M8[s]", "complex64", "V8"])
@pytest.mark.parametrize("name", ["x", "y", "timespans"])
def test_arrays_of_other_kinds(tmp_path: Path, kind: str, name: str) -> None:
    arrays = {"x": np.zeros((9, 4, 2)), "y": np.zeros((9, 4), int), "timespans": np.ones((9, 4))}
    arrays[name] = np.zeros(arrays[name].shape, kind)
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=f"a.npz: {name}: expected an array of numbers, got"):
        load_data(f"npz:{tmp_path / 'a.npz'}")


@pytest.mark.parametrize("label", [1 << 16, 1 << 40, (1 << 64) - 1])
def test_a_label_makes_no_classes_without_end(tmp_path: Path, label: int) -> None:
    labels = np.array([0, 1, label], np.uint64)
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=labels)
    with pytest.raises(DataError, match=f"expected classes from 0 below 65536, got 0 to {label}"):
        load_data(f"npz:{tmp_path / 'a.npz'}")


def test_scalars_and_images_without_pixels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.float32(1), y=np.arange(3))
    with pytest.raises(DataError, match=r"x: expected an array of numbers, got .* shape \(\)"):
        load_data(f"npz:{tmp_path / 'a.npz'}")
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 0, 4), np.uint8), y=np.arange(3))
    with pytest.raises(DataError, match="x: expected pixels, got none"):
        load_data(f"npz:{tmp_path / 'a.npz'}")


def test_a_packed_file_of_mnist_is_not_unpacked_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    from fastltc.jobs.data.mnist import _idx
    from fastltc.jobs.data.options import DataOptions

    monkeypatch.setenv("FASTLTC_CACHE", str(tmp_path / "none"))
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write(bytes(64 << 20))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(packed.getvalue())
    tracemalloc.start()
    with pytest.raises(DataError, match="expected sha256"):
        _idx("test_labels", DataOptions(data_root=tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
