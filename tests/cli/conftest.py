from pathlib import Path

import pytest


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder, an empty cache, no network."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FASTLTC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTLTC_OFFLINE", "1")
    # Lines as they are, whatever terminal the tests run in.
    monkeypatch.setenv("COLUMNS", "200")
