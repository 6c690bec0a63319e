"""What GitHub reads: the citation and the forms of issues."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_citation_has_what_its_format_asks_for() -> None:
    citation = load(ROOT / "CITATION.cff")
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "Apache-2.0"
    assert citation["authors"]
    for paper in citation["references"]:
        assert paper.keys() >= {"type", "title", "authors", "year", "doi"}
        assert re.fullmatch(r"10\.\d{4,}/\S+", paper["doi"])
        assert all(a.keys() == {"family-names", "given-names"} for a in paper["authors"])
    # The version is in pyproject.toml alone.
    assert "version" not in citation


def test_there_is_a_form_for_errors_wishes_and_numbers() -> None:
    assert [form.stem for form in FORMS] == ["bug", "feature", "numerics"]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_a_form_has_what_its_format_asks_for(form: Path) -> None:
    content = load(form)
    assert content.keys() == {"name", "description", "labels", "body"}
    fields = [part for part in content["body"] if part["type"] != "markdown"]
    assert {part["type"] for part in fields} == {"textarea"}
    ids = [part["id"] for part in fields]
    assert len(set(ids)) == len(ids)
    assert all(part["attributes"]["label"] for part in fields)
    assert any(part.get("validations", {}).get("required") for part in fields)


@pytest.mark.parametrize(
    "path",
    [*FORMS, *(ROOT / name for name in ("SECURITY.md", ".github/pull_request_template.md"))],
    ids=lambda path: path.name,
)
def test_files_that_they_name_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:docs|tests)/[\w/]+\.\w+|\b[A-Z]{6,}\.md", text):
        assert (ROOT / name).is_file(), name
