"""Every example runs, in docstrings and on pages, and the tests that pages name are there."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import fastltc
from fastltc.wirings import AutoNCP

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Of a block that cannot run here, the first line says why.
NOT_RUN = "# not run here: "


def modules() -> Iterator[str]:
    """Find the modules whose docstrings have examples."""
    for module in pkgutil.walk_packages(fastltc.__path__, "fastltc."):
        found = importlib.util.find_spec(module.name)
        path = Path(str(found and found.origin))
        if path.suffix == ".py" and ">>> " in path.read_text(encoding="utf-8"):
            yield module.name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for an epoch: the run that examples of `fastltc.jobs` are about."""
    from fastltc.jobs import TrainConfig, train

    path = tmp_path_factory.mktemp("documentation") / "run"
    train(TrainConfig.for_data("digits", epochs=1, threads=1), path)
    return path


@pytest.mark.parametrize("name", [*modules()])
def test_examples_in_docstrings(name: str, folder: Path, request: pytest.FixtureRequest) -> None:
    from PIL import Image

    text = Path(str(importlib.import_module(name).__file__)).read_text(encoding="utf-8")
    fastltc.export(fastltc.LTC(16, AutoNCP(19, 2)), "model.safetensors")
    Image.new("L", (28, 28)).save("scan.png")
    if 'Run.open("run")' in text:
        (folder / "run").symlink_to(request.getfixturevalue("run"))
    threads = torch.get_num_threads()
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    torch.set_num_threads(threads)
    assert found.attempted > 0
    assert found.failed == 0
    assert "+SKIP" not in text


def blocks(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the Python blocks of a page, with their lines; notebooks are run with the site."""
    text = path.read_text(encoding="utf-8")
    if "\nkernelspec:" in text:
        return
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start(1)), found.group(1)


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [p for p in PAGES if [*blocks(p)]], ids=label)
def test_examples_on_pages(path: Path, folder: Path) -> None:
    names = {"__name__": "__main__"}
    threads = torch.get_num_threads()
    for line, block in blocks(path):
        if not block.startswith(NOT_RUN):
            # With the page's lines, so that an error shows where it is.
            exec(compile("\n" * line + block, str(path), "exec"), names)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "name", ["", "nn", "ops", "reference", "runtime", "exporting", "hub", "rl", "jobs"]
)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    module = importlib.import_module(f"fastltc.{name}".rstrip("."))
    pages = [p.read_text(encoding="utf-8") for p in (ROOT / "docs" / "reference").glob("*.rst")]
    lines = "\n".join(pages).splitlines()
    places = [line.split(":: ")[1] for line in lines if line.startswith(".. auto")]
    whole = f".. automodule:: {module.__name__}\n   :members:"
    if not any(whole in page for page in pages):
        known = {place.rpartition(".")[2] for place in places} | set(fastltc._SUBMODULES)
        assert {*module.__all__} - {"__version__"} <= known


def test_pages_hold_examples() -> None:
    counts = {label(path): len([*blocks(path)]) for path in PAGES}
    assert sum(counts.values()) > 30
    unrun = sum(block.startswith(NOT_RUN) for path in PAGES for _, block in blocks(path))
    assert unrun <= 2


@pytest.mark.parametrize(("page", "least"), [("compatibility", 10), ("drop-in", 20)])
def test_pages_name_tests_that_exist(page: str, least: int) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > least
    for path, function in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function in functions, f"{path} has no {function}"


def test_every_row_of_the_compatibility_table_names_a_test() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 25
    for row in rows:
        last = row.rstrip("| ").rpartition("|")[2].strip()
        assert last == "shown by" or last.startswith("`tests/"), f"no test is named in: {row}"
