from __future__ import annotations

import functools
import hashlib
import http.server
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastltc.jobs.data import SPLITS, DataError, DataOptions, load_data, medmnist
from fastltc.jobs.data.fetch import Published, obtain
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
    assert data.input_shape == (1, 28, 28)
    assert data.classes == ("malignant", "normal or benign")
    assert data.positive == 1
    assert data.source == str(path)
    with np.load(path) as archive:
        for name, split in data.splits.items():
            np.testing.assert_array_equal(split.inputs[:, 0], archive[f"{name}_images"])
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
    assert "https://zenodo.org/records/10519652/files/breastmnist.npz" in text
    assert medmnist.RECORDS["breastmnist"].checksum.replace(":", " ") in text
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
    with pytest.raises(
        DataError,
        match="expected sha256 3a22d2a4625e7dd8903f0f59030e81a3",
    ):
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
        ({"val_labels": np.full((78, 1), None, object)}, "holds Python objects"),
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
    assert record.url == "https://zenodo.org/records/10519652/files/breastmnist.npz?download=1"
    assert record.md5 == "750601b1f35ba3300ea97c75c52ff8f6"


def test_the_real_file() -> None:
    data = load_data("breastmnist", real_data("breastmnist.npz"))
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [546, 78, 156]
    # Of the 780 images of the source, 210 are malignant.
    labels = np.concatenate([split.labels for split in data.splits.values()])
    assert np.bincount(labels).tolist() == [210, 570]


def test_the_table_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its import makes a folder in the user's home.
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        import medmnist as package
    except ImportError as error:
        pytest.skip(f"medmnist cannot be imported: {error}")
    described = {name: entry for name, entry in package.INFO.items() if "3d" not in name}
    assert tuple(described) == medmnist.NAMES
    assert len(medmnist.RECORDS) == 4 * len(described)
    # Its comma would be one of predictions-SPLIT.csv's.
    described["breastmnist"]["label"]["1"] = "normal or benign"
    for base, entry in described.items():
        for suffix, side in (("", 28), ("_64", 64), ("_128", 128), ("_224", 224)):
            record = medmnist.RECORDS[base + suffix]
            assert record.url == entry[f"url{suffix}"]
            assert record.md5 == entry[f"MD5{suffix}"]
            assert record.side == side
            assert dict(enumerate(record.classes)) == {
                int(label): name for label, name in entry["label"].items()
            }
            assert record.channels == entry["n_channels"]
            assert dict(zip(SPLITS, record.sizes, strict=True)) == entry["n_samples"]
            assert record.multilabel == entry["task"].startswith("multi-label")
            assert record.positive == (1 if entry["task"] == "binary-class" else None)


@pytest.mark.parametrize("name", medmnist.NAMES)
@pytest.mark.parametrize("suffix", ["", "_64", "_128", "_224"])
def test_every_set_is_known_without_the_package(name: str, suffix: str) -> None:
    record = medmnist.RECORDS[name + suffix]
    assert f"{record.file_name}?download=1" in record.url
    with pytest.raises(
        DataError, match=rf"{name}{suffix}\.npz not found.*\n.*\n.*{_digest(record)}"
    ):
        load_data(name + suffix)


def test_larger_files_of_colours(tmp_path: Path) -> None:
    record = replace(medmnist.RECORDS["pathmnist_64"], sizes=(3, 2, 2))
    rng = np.random.default_rng(0)
    arrays = {}
    for split, size in zip(SPLITS, record.sizes, strict=True):
        arrays[f"{split}_images"] = rng.integers(0, 256, (size, 64, 64, 3)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(size) % 2).astype(np.uint8)[:, None]
    path = tmp_path / "pathmnist_64.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=f"expected .* {_digest(record)}"):
        load_data("pathmnist_64", tmp_path)
    splits = medmnist.read_npz(path, record)
    assert splits["train"].inputs.shape == (3, 3, 64, 64)
    np.testing.assert_array_equal(splits["val"].inputs[1, 2], arrays["val_images"][1, :, :, 2])


def test_sets_of_several_labels_are_read_as_such(tmp_path: Path) -> None:
    record = replace(medmnist.RECORDS["chestmnist"], sizes=(3, 2, 2))
    arrays = {}
    for split, size in zip(SPLITS, record.sizes, strict=True):
        arrays[f"{split}_images"] = np.zeros((size, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.ones((size, 14), np.uint8)
    np.savez(tmp_path / "some.npz", **arrays)
    assert medmnist.read_npz(tmp_path / "some.npz", record)["train"].labels.shape == (3, 14)


def _digest(record: medmnist.Record) -> str:
    return record.checksum.partition(":")[2]


@pytest.mark.parametrize("name", ["breastmnist", "retinamnist"])
def test_the_sha256_is_that_of_a_file_with_the_published_md5(name: str) -> None:
    content = real_data(f"{name}.npz").read_bytes()
    record = medmnist.RECORDS[name]
    assert hashlib.md5(content, usedforsecurity=False).hexdigest() == record.md5
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == record.checksum


def test_a_download_without_end_is_broken_off(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    monkeypatch.delenv("FASTLTC_OFFLINE")
    (server[0] / "long").write_bytes(bytes(1 << 20))
    published = Published("long", f"{server[1]}/long", None, most=1 << 18)
    with pytest.raises(DataError, match="gave another file: expected at most 262,144 bytes"):
        obtain(published, DataOptions())
    assert list(cache.iterdir()) == []


def test_processes_that_want_one_file_bring_it_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTLTC_OFFLINE")
    content = os.urandom(1 << 20)
    asked = []

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for start in range(0, len(content), 1 << 18):
                self.wfile.write(content[start : start + (1 << 18)])
                time.sleep(0.1)

        def log_message(self, *arguments: object) -> None:
            pass

    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_address[1]}/some"
        published = Published("some", address, checksum)
        # Locks are of open files, so that threads stand for processes.
        found: list[Path] = []
        want = [
            threading.Thread(target=lambda: found.append(obtain(published, DataOptions())))
            for _ in range(3)
        ]
        for thread in want:
            thread.start()
        for thread in want:
            thread.join()
        running.shutdown()
    assert found == [cache / "some"] * 3
    assert (cache / "some").read_bytes() == content
    assert asked == ["/some"]
    assert [path.name for path in cache.iterdir()] == ["some"]


def test_a_download_goes_on_where_it_broke_off(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTLTC_OFFLINE")
    path = write_medmnist(tmp_path / "breastmnist.npz")
    content = path.read_bytes()
    half = len(content) // 2
    asked: list[str | None] = []

    class Breaking(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range"))
            start = int(self.headers["Range"][6:-1]) if self.headers.get("Range") else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            # The first answer stops in the middle.
            self.wfile.write(content[start:] if start else content[:half])

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        publish(monkeypatch, path, f"http://127.0.0.1:{running.server_address[1]}/breastmnist.npz")
        with pytest.raises(DataError, match=r"Downloading .* failed"):
            load_data("breastmnist")
        assert not (cache / "breastmnist.npz").exists()
        load_data("breastmnist")
        running.shutdown()
    assert asked[0] is None
    # Of what the first answer brought, at most the last chunk comes again.
    assert asked[1] is not None
    assert half - (1 << 16) <= int(asked[1].removeprefix("bytes=").removesuffix("-")) <= half
    assert (cache / "breastmnist.npz").read_bytes() == content
    assert [file.name for file in cache.iterdir()] == ["breastmnist.npz"]


def test_the_real_retinamnist() -> None:
    data = load_data("retinamnist", real_data("retinamnist.npz"))
    assert data.input_shape == (3, 28, 28)
    assert np.bincount(data.splits["test"].labels).tolist() == [174, 46, 92, 68, 20]
