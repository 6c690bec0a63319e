"""Model files: what is written is read, with its facts, in every version of the format."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import fastltc
from fastltc import runtime
from fastltc.exporting import describe
from fastltc.runtime.model import ModelFileError, check_model
from fastltc.runtime.model_file import (
    is_model_file,
    model_digest,
    read_model,
    write_model,
)
from model_files import DEEP, FACTS, description_of, facts_of, forge, refused, same, small_model


def test_what_is_written_is_read(path: Path) -> None:
    model = small_model()
    write_model(model, path, {"note": "an entry of one's own"})
    read = read_model(path)
    assert same(read, model)
    assert read.state_size == 7 * 2 + 6 + 3
    assert all(not tensor.flags.writeable for tensor in read.tensors.values())
    assert all(tensor.flags.c_contiguous for tensor in read.tensors.values())
    assert is_model_file(path)


def test_numbers_of_another_endianness_are_named(path: Path) -> None:
    model = small_model()
    swapped = {name: tensor.byteswap() for name, tensor in model.tensors.items()}
    forge(path, model, tensors=swapped, sha256=model_digest(model))
    refused(path, "its numbers are big-endian, expected little-endian ones")


def test_the_unit_of_time_and_names_are_read(path: Path) -> None:
    model = dataclasses.replace(small_model(), **FACTS)
    write_model(model, path, {"outputs": "an entry of one's own"})
    read = read_model(path)
    assert same(read, model)
    assert facts_of(read) == FACTS
    assert model_digest(read) == model_digest(model) != model_digest(small_model())
    session = runtime.Session.load(path)
    assert (session.time_unit, session.input_names, session.output_names) == tuple(FACTS.values())


def test_versions_of_the_format(path: Path) -> None:
    """What version 1 can say is written as such, for readers of that version."""
    plain: dict[str, Any] = {"time_unit": 1.0, "input_names": (), "output_names": ()}
    for model, metadata, version in (
        (small_model(), {}, "1"),
        (dataclasses.replace(small_model(), time_unit=0.02), {}, "2"),
        # What a version 1 would take for facts.
        (small_model(), {"time_unit": "60", "outputs": '["a", "b"]', "inputs": "none"}, "2"),
    ):
        write_model(model, path, metadata)
        with safe_open(path, "numpy") as file:
            assert file.metadata()["format_version"] == version
        assert facts_of(read_model(path)) == {**plain, "time_unit": model.time_unit}
    # Its files with and without the entries that `fastltc export` wrote from run folders.
    assert facts_of(read_model(forge(path, small_model()))) == plain
    names = {"inputs": '["x", "y"]', "outputs": '["on", "off"]'}
    forge(path, small_model(), time_unit="60.0", **names)
    assert facts_of(read_model(path)) == {
        "time_unit": 60.0, "input_names": ("x", "y"), "output_names": ("on", "off")
    }  # fmt: skip
    # Names that do not fit are those of another layer, or were no names.
    for entries in ({"outputs": '["on", "off"]'}, {"inputs": '["x"]'}, {"inputs": "of the arm"},
                    {"inputs": "[" * DEEP}, {"inputs": "[1, 2]"}, {"inputs": "{}"}):  # fmt: skip
        assert facts_of(read_model(forge(path, small_model(), **entries))) == plain
    for unit in ("0.0", "-1", "NaN", "a minute", "[1]", "1" * 5000, "true"):
        refused(forge(path, small_model(), time_unit=unit), "time_unit: ")


@pytest.mark.parametrize(("facts", "text"), [
    ({"time_unit": 0}, "time_unit: expected a number of seconds from 1e-30 to 1e30, got 0"),
    ({"time_unit": "60"}, "time_unit: expected a number of seconds .*, got '60'"),
    ({"time_unit": True}, "time_unit: expected a number of seconds .*, got True"),
    ({"time_unit": 1e31}, "time_unit: expected a number of seconds"),
    ({"input_names": ["a"]}, "input_names: expected 2 names or none, got 1"),
    ({"input_names": "ab"}, "input_names: expected a tuple of texts, got 'ab'"),
    ({"output_names": ["a", 1]}, "output_names: expected a tuple of texts"),
    ({"output_names": ["a", "b" * 1001]}, "output_names: expected at most 1000 characters"),
    ({"output_names": ["a", "\ud800"]}, "output_names: .* 1000 characters of Unicode"),
    ({"output_names": None}, "output_names: expected a tuple of texts, got None"),
])  # fmt: skip
def test_units_and_names_that_are_none(path: Path, facts: dict[str, Any], text: str) -> None:
    model = small_model()
    refused(forge(path, model, {**description_of(model), **facts}, format_version="2"), text)
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in facts.items()}
    with pytest.raises(ModelFileError, match=text):
        check_model(dataclasses.replace(model, **values))


def test_a_unit_in_a_file_of_version_1_is_no_key_of_it(path: Path) -> None:
    model = small_model()
    refused(forge(path, model, {**description_of(model), "time_unit": 60}), "unknown key 'time_un")


def test_a_potential_that_is_0_by_0_is_refused(path: Path) -> None:
    model = describe(fastltc.LTC(2, 3, implicit_param_constraints=False, epsilon=0.0))
    for key in ("cm", "gleak"):
        model.tensors[f"layers.0.rnn_cell.{key}"][1] = 0
    refused(forge(path, model), r"layers\[0\]: expected cm, .* got all 0 at neuron 1")


def test_a_forged_file_that_is_right_is_read(path: Path) -> None:
    model = small_model()
    assert same(read_model(forge(path, model)), model)


def test_writing_replaces_whole_files_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    write_model(model, path)
    before = path.read_bytes()
    model.tensors["layers.0.weight"][0, 0] = np.nan
    with pytest.raises(ModelFileError, match=r"layers\.0\.weight: expected finite .*, got nan"):
        write_model(model, path)
    model.tensors["layers.0.weight"][0, 0] = 0

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left on device: .*model\.safetensors"):
        write_model(model, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("metadata", "text"), [
    ({"format_version": "4"}, r"format_version 4 is newer than 3, the newest that fastltc"),
    ({"format_version": "0"}, "format_version: expected a number, got '0'"),
    ({"format_version": "1.5"}, r"format_version: expected a number, got '1\.5'"),
    ({"format_version": "\u0661"}, "format_version: expected a number"),
    ({"format_version": "9" * 5000}, "format_version: expected a number, got '999"),
    ({"format_version": None}, "format_version: expected a number, got ''"),
    ({"format": "pt"}, "not a model file: its metadata has format 'pt', expected 'fastltc.model'"),
    ({"format": None}, "not a model file"),
    ({"model": None}, "model: missing in the metadata"),
    ({"sha256": None}, "sha256: missing in the metadata"),
    ({"sha256": "0" * 64}, "does not match its sha256: damaged or tampered with"),
])  # fmt: skip
def test_metadata(path: Path, metadata: dict[str, str | None], text: str) -> None:
    refused(forge(path, small_model(), **metadata), text)


def test_reading_imports_no_torch(path: Path) -> None:
    write_model(small_model(), path)
    code = (
        "import sys; from fastltc.runtime.model_file import read_model; read_model(sys.argv[1]); "
        "print(sorted({'torch', 'ncps', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
