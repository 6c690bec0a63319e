from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastltc.data import DataError, load_data, medmnist
from job_support import publish, real_data, write_medmnist


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network unless a test asks for it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FASTLTC_CACHE", str(folder))
    monkeypatch.setenv("FASTLTC_OFFLINE", "1")
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_reads_the_splits_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_medmnist(tmp_path / "breastmnist.npz")
    publish(monkeypatch, path)
    data = load_data("breastmnist", tmp_path)
    assert data.image_shape == (1, 28, 28)
    assert data.classes == ("malignant", "normal or benign")
    assert data.positive == 1
    assert data.source == str(path)
    with np.load(path) as archive:
        for name, split in data.splits.items():
            expected = archive[f"{name}_images"].astype(np.float32) / np.float32(255)
            np.testing.assert_array_equal(split.images[:, 0], expected)
            np.testing.assert_array_equal(split.labels, archive[f"{name}_labels"][:, 0])


def test_the_data_root_may_be_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_medmnist(tmp_path / "renamed.npz")
    publish(monkeypatch, path)
    assert load_data("breastmnist", path).source == str(path)


def test_the_cache_is_looked_in(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    publish(monkeypatch, write_medmnist(cache / "breastmnist.npz"))
    assert load_data("breastmnist").source == str(cache / "breastmnist.npz")
    assert load_data("breastmnist", tmp_path).source == str(cache / "breastmnist.npz")


def test_a_missing_file_offline_says_where_it_was_looked_for(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError) as raised:
        load_data("breastmnist", tmp_path)
    text = str(raised.value)
    assert str(tmp_path / "breastmnist.npz") in text
    assert str(cache / "breastmnist.npz") in text
    assert "https://zenodo.org/record/6496656/files/breastmnist.npz" in text
    assert "750601b1f35ba3300ea97c75c52ff8f6" in text
    assert "--data-root" in text
    assert not cache.exists()


def test_offline_by_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    monkeypatch.delenv("FASTLTC_OFFLINE")
    folder, url = server
    path = write_medmnist(folder / "breastmnist.npz")
    publish(monkeypatch, path, f"{url}/breastmnist.npz")
    with pytest.raises(DataError, match="Downloading is switched off"):
        load_data("breastmnist", tmp_path, offline=True)


def test_a_mistyped_data_root_is_no_reason_to_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data root .*nowhere does not exist"):
        load_data("breastmnist", tmp_path / "nowhere")


def test_a_data_root_that_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"notes.txt: expected a folder or an .npz file"):
        load_data("breastmnist", tmp_path / "notes.txt")


def test_downloads_into_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    monkeypatch.delenv("FASTLTC_OFFLINE")
    folder, url = server
    path = write_medmnist(folder / "breastmnist.npz")
    publish(monkeypatch, path, f"{url}/breastmnist.npz")
    seen: list[tuple[int, int]] = []
    data = load_data("breastmnist", tmp_path, progress=lambda *counts: seen.append(counts))
    assert data.source == str(cache / "breastmnist.npz")
    assert (cache / "breastmnist.npz").read_bytes() == path.read_bytes()
    size = path.stat().st_size
    assert seen[0][1] == size
    assert max(received for received, _ in seen) == size
    path.unlink()
    assert load_data("breastmnist").source == data.source


def test_a_download_of_something_else_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    monkeypatch.delenv("FASTLTC_OFFLINE")
    folder, url = server
    publish(monkeypatch, write_medmnist(tmp_path / "breastmnist.npz"), f"{url}/breastmnist.npz")
    (folder / "breastmnist.npz").write_bytes(b"<html>moved</html>")
    with pytest.raises(DataError, match=r"gave another file"):
        load_data("breastmnist")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/breastmnist.npz", "{url}/absent.npz"])
def test_a_failed_download_says_what_to_do(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: tuple[Path, str],
    address: str,
) -> None:
    monkeypatch.delenv("FASTLTC_OFFLINE")
    address = address.format(url=server[1])
    publish(monkeypatch, write_medmnist(tmp_path / "elsewhere.npz"), address)
    with pytest.raises(DataError) as raised:
        load_data("breastmnist", tmp_path)
    text = str(raised.value)
    assert f"Downloading {address} failed" in text
    assert str(tmp_path / "breastmnist.npz") in text
    assert "--data-root" in text
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_truncated_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_medmnist(tmp_path / "breastmnist.npz")
    publish(monkeypatch, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"breastmnist.npz: damaged.*md5.*5,000 bytes"):
        load_data("breastmnist", tmp_path)


def test_another_version_of_the_file(tmp_path: Path) -> None:
    write_medmnist(tmp_path / "breastmnist.npz")
    with pytest.raises(DataError, match="expected md5 750601b1f35ba3300ea97c75c52ff8f6, got"):
        load_data("breastmnist", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": None}, "array 'val_labels' is missing; the file has: train_images"),
        (
            {"test_images": np.zeros((156, 64, 64), np.uint8)},
            r"test_images: expected uint8 of shape \(156, 28, 28, 1\), got uint8 of shape",
        ),
        ({"val_images": np.zeros((78, 28, 28), np.float32)}, "val_images: .*got float32"),
        ({"val_labels": np.zeros((78,), np.uint8)}, r"val_labels: .*shape \(78,\)"),
        ({"train_labels": np.full((546, 1), 2, np.uint8)}, "train_labels: expected 0 to 1, got 2"),
        ({"val_labels": np.full((78, 1), None, object)}, "Object arrays cannot be loaded"),
    ],
)
def test_a_file_with_other_content(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, np.ndarray | None],
    message: str,
) -> None:
    path = write_medmnist(tmp_path / "breastmnist.npz", **changes)
    publish(monkeypatch, path)
    with pytest.raises(DataError, match=message) as raised:
        load_data("breastmnist", tmp_path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    path = tmp_path / "breastmnist.npz"
    path.write_bytes(content)
    publish(monkeypatch, path)
    with pytest.raises(DataError, match="not a readable"):
        load_data("breastmnist", tmp_path)


def test_a_single_array_is_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "breastmnist.npz"
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    publish(monkeypatch, path)
    with pytest.raises(DataError, match="not a readable"):
        load_data("breastmnist", tmp_path)


def test_the_published_record() -> None:
    record = medmnist.RECORDS["breastmnist"]
    assert record.url == "https://zenodo.org/record/6496656/files/breastmnist.npz?download=1"
    assert record.md5 == "750601b1f35ba3300ea97c75c52ff8f6"


def test_the_real_file() -> None:
    data = load_data("breastmnist", real_data("breastmnist.npz"))
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [546, 78, 156]
    # Of the 780 images of the source, 210 are malignant.
    labels = np.concatenate([split.labels for split in data.splits.values()])
    assert np.bincount(labels).tolist() == [210, 570]
