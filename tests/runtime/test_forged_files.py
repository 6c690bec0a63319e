"""What is damaged or forged in a model file is refused by its name."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastltc
from fastltc import runtime
from fastltc.exporting import describe
from fastltc.runtime.model import Model, ModelFileError, check_model, tensor_shapes
from fastltc.runtime.model_file import (
    is_model_file,
    read_model,
    write_model,
)
from model_files import DEEP, FACTS, description_of, facts_of, forge, refused, same, small_model


@pytest.mark.parametrize(("description", "text"), [
    ("[" * DEEP + "]" * DEEP, "model: JSON that is nested too deeply"),
    ('{"layers":' * DEEP + "1" + "}" * DEEP, "model: JSON that is nested too deeply"),
    ("[" * DEEP, "model: "),
    ("", "model: damaged JSON"),
    ('{"input_size": 1,', "model: damaged JSON"),
    ("[]", r"model: expected a JSON object, got \[\]"),
    ('{"input_size": NaN}', "model: NaN is not JSON"),
    ('{"input_size": -Infinity}', "model: -Infinity is not JSON"),
    ('{"input_size": 1, "input_size": 2}', "model: an object has a key twice"),
    ('{"input_size": ' + "1" * 1_000_000 + "}", "model: an integer has 1000000 digits"),
    ('{"input_size": 1, "output_size": 1}', r"model\.layers: missing"),
    ('{"input_size": 1, "output_size": 1, "layers": [], "x": 1}', "model: unknown key 'x'"),
    ('{"input_size": 1, "output_size": 1, "layers": []}', "layers: expected a list of 1 to 256"),
    ('{"input_size": 1e400, "output_size": 1, "layers": [1]}', "input_size: expected an integer"),
    ('{"input_size": 1, "output_size": 1, "layers": [1]}', r"layers\[0\]: expected an object"),
    ('{"input_size": 1, "output_size": 1, "layers": [' + "{}," * 300 + "{}]}", "1 to 256 layers"),
])  # fmt: skip
def test_json_of_all_kinds(path: Path, description: str, text: str) -> None:
    refused(forge(path, small_model(), description), text)


def change(layer: int, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(description: dict[str, Any]) -> None:
        description["layers"][layer][key] = value

    return apply


@pytest.mark.parametrize(("apply", "text"), [
    (change(1, "type", "gru"), r"layers\[1\]\.type: expected one of ltc, .*, got 'gru'"),
    (change(1, "type", ["ltc"]), r"layers\[1\]\.type: expected one of"),
    (change(1, "units", 2**31), r"layers\[1\]\.units: expected an integer from 1 to 1048576"),
    (change(1, "units", 1_000_000), r"layers: 90000\d+ parameters, expected at most 536870912"),
    (change(1, "units", 8), r"rnn_cell\.gleak: expected shape \[8\], got \[7\]"),
    (change(1, "units", 7.0), r"units: expected an integer .*, got 7\.0"),
    (change(1, "units", True), "units: expected an integer .*, got True"),
    (change(1, "units", 0), "units: expected an integer"),
    (change(1, "output_size", 8), r"layers\[1\]\.output_size: expected at most units = 7, got 8"),
    (change(1, "ode_unfolds", 10**9), "ode_unfolds: expected an integer from 1 to 4096"),
    (change(1, "epsilon", -1), "epsilon: expected a number from 0 to 1, got -1"),
    (change(1, "epsilon", 1e300), "epsilon: expected a number from 0 to 1"),
    (change(1, "epsilon", "1"), "epsilon: expected a number from 0 to 1"),
    (change(1, "input_mapping", "cubic"), 'one of "affine", "linear", null, got \'cubic\''),
    (change(1, "implicit_param_constraints", 1), "expected one of true, false, got 1"),
    (change(1, "colour", 1), r"layers\[1\]: unknown key 'colour'"),
    (change(1, "mixed_memory", False), r"'layers\.1\.lstm.*: unknown tensor"),
    (change(2, "cells", [6]), r"layers\[2\]\.output_size: expected 6, got 1"),
    (change(2, "cells", []), "cells: expected a list of 1 to 256 sizes"),
    (change(2, "cells", [1] * 300), "cells: expected a list of 1 to 256 sizes"),
    (change(2, "cells", [2, 3, -1]), "cells: expected a list"),
    (change(2, "cells", [2, 3, 2]), "cells: expected sizes whose sum is units = 6, got 7"),
    (change(2, "mode", "fast"), 'mode: expected one of "default", "pure", "no_gate"'),
    (change(2, "proj_size", 0), "proj_size: expected an integer from 1 to 1048576, or null, got 0"),
    (change(3, "function", "exec"), "function: expected one of"),
    (change(4, "backbone_layers", 0), "backbone_units: expected 0 without backbone layers"),
    (change(4, "backbone_layers", 3), r"backbone\.2\.weight: this tensor is missing"),
    (change(4, "input_size", 2), r"layers\[4\]\.input_size: expected 1, .* got 2"),
    (change(4, "activation", {"a": 1}), "activation: expected one of"),
])  # fmt: skip
def test_layers(path: Path, apply: Callable[[dict[str, Any]], None], text: str) -> None:
    model = small_model()
    description = description_of(model)
    apply(description)
    refused(forge(path, model, description), text)


def without_key(description: dict[str, Any]) -> None:
    del description["layers"][1]["epsilon"]


def only_linear(description: dict[str, Any]) -> None:
    description["layers"] = description["layers"][:1]
    description["output_size"] = 3


@pytest.mark.parametrize(("apply", "text"), [
    (without_key, r"layers\[1\]\.epsilon: missing"),
    (only_linear, "layers: expected at least one of ltc, wired_cfc, cfc"),
    (lambda d: d.update(output_size=5), "output_size: expected 2 as the layers give, got 5"),
    (lambda d: d.update(input_size=5), r"layers\[0\]\.input_size: expected 5, .* takes, got 2"),
])  # fmt: skip
def test_models(path: Path, apply: Callable[[dict[str, Any]], None], text: str) -> None:
    model = small_model()
    description = description_of(model)
    apply(description)
    refused(forge(path, model, description), text)


KEY = "layers.1.rnn_cell.mu"
MASK = "layers.1.rnn_cell.sparsity_mask"


def put(tensors: dict[str, np.ndarray], key: str, value: float) -> dict[str, np.ndarray]:
    changed = tensors[key].copy()
    changed.flat[3] = value
    return {**tensors, key: changed}


@pytest.mark.parametrize(("apply", "text"), [
    (lambda t: put(t, KEY, math.nan), rf"{KEY}: expected finite numbers, got nan"),
    (lambda t: put(t, KEY, -math.inf), rf"{KEY}: expected finite numbers, got -inf"),
    (lambda t: put(t, MASK, 0.5), rf"{MASK}: expected 0 and 1 only, got 0\.5"),
    (lambda t: put(t, MASK, -1), rf"{MASK}: expected 0 and 1 only, got -1"),
    (lambda t: {**t, KEY: t[KEY].astype(np.float64)}, rf"{KEY}: expected dtype F32, got F64"),
    (lambda t: {**t, KEY: t[KEY].astype(np.int8)}, rf"{KEY}: expected dtype F32, got I8"),
    (lambda t: {**t, KEY: t[KEY].astype(np.float16)}, rf"{KEY}: expected dtype F32, got F16"),
    (lambda t: {**t, KEY: t[KEY].reshape(-1)}, rf"{KEY}: expected shape \[7, 7\], got \[49\]"),
    (lambda t: {**t, KEY: t[KEY][:0]}, rf"{KEY}: expected shape \[7, 7\], got \[0, 7\]"),
    (lambda t: {k: v for k, v in t.items() if k != KEY}, rf"{KEY}: this tensor is missing"),
    (lambda t: {**t, "a" * 500: t[KEY]}, r"'aaa.*\.\.\.: unknown tensor"),
    (lambda t: {}, r"layers\.0\.weight: this tensor is missing"),
])  # fmt: skip
def test_tensors(path: Path, apply: Callable[[Any], Any], text: str) -> None:
    model = small_model()
    refused(forge(path, model, tensors=apply(model.tensors)), text)


@pytest.mark.parametrize("value", [np.zeros((7, 7)), np.zeros((7, 14), np.float32)[:, ::2], [1]])
def test_models_that_are_not_from_a_file_are_checked_too(value: Any) -> None:
    model = small_model()
    check_model(model)
    model.tensors[KEY] = value
    with pytest.raises(ModelFileError, match=rf"{KEY}: expected"):
        check_model(model)


def test_every_truncation_is_refused(path: Path) -> None:
    write_model(describe(fastltc.CfC(1, 1, backbone_layers=0)), path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match="truncated"):
            read_model(path)
    path.write_bytes(content + b"\0")
    refused(path, "truncated or damaged")


def test_every_flipped_bit_is_refused_or_harmless(path: Path) -> None:
    layer = fastltc.CfC(1, 1, backbone_layers=0)
    model = describe(layer, time_unit=60, input_names=["a"], output_names=["b"])
    write_model(model, path)
    content = path.read_bytes()
    harmless = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << random.randrange(8)
        path.write_bytes(changed)
        try:
            read = read_model(path)
        except ModelFileError:
            continue
        # The version that wrote it is for people.
        assert same(read, model)
        assert facts_of(read) == facts_of(model)
        harmless += 1
    assert harmless < 60


@pytest.mark.parametrize("claimed", [0, 1, 2**20, 2**31, 2**40, 2**63, 2**64 - 1])
def test_header_sizes(path: Path, claimed: int) -> None:
    write_model(small_model(), path)
    path.write_bytes(claimed.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(path, "truncated or")


def test_a_huge_header_is_not_read(path: Path) -> None:
    with open(path, "wb") as file:
        file.write((1 << 30).to_bytes(8, "little"))
        file.truncate((1 << 30) + 8)
    refused(path, "its header claims 1073741824 bytes, expected at most 4194304")
    with open(path, "r+b") as file:
        file.truncate(1 << 33)
    refused(path, "8589934592 bytes, expected at most 2147483648")


FORGED_OFFSETS = [
    {"shape": [2**40, 2**40], "data_offsets": [0, 4]},
    {"shape": [2**62], "data_offsets": [0, 2**64 - 1]},
    {"shape": [7, 7], "data_offsets": [0, 2**40]},
    {"shape": [7, 7], "data_offsets": [196, 0]},
    {"shape": [-1], "data_offsets": [0, 4]},
    {"shape": [], "data_offsets": [0, 4]},
]


@pytest.mark.parametrize("entry", FORGED_OFFSETS)
def test_forged_sizes_of_tensors(path: Path, entry: dict[str, Any]) -> None:
    write_model(small_model(), path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[KEY] = {"dtype": "F32", **entry}
    forged = json.dumps(header).encode()
    path.write_bytes(len(forged).to_bytes(8, "little") + forged + content[8 + length :])
    refused(path, "damaged|expected shape")


def test_things_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_model(tmp_path / "none")
    refused(tmp_path, "expected a regular file")
    assert not is_model_file(tmp_path)
    assert not is_model_file(tmp_path / "none")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    refused(pipe, "expected a regular file")
    refused(Path("/dev/zero"), "expected a regular file")


def test_a_forged_file_takes_no_memory(tmp_path: Path) -> None:
    """Files of 1.5 GB that are all hole: what is claimed in them is not allocated."""
    model = small_model()
    paths = []
    for index, claimed in enumerate((10, 1 << 20)):
        path = forge(tmp_path / f"{index}", model)
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        last = max(entry["data_offsets"][1] for k, entry in header.items() if k != "__metadata__")
        rest = 1_500_000_000
        header["z" * claimed] = {
            "dtype": "F32",
            "shape": [rest // 4],
            "data_offsets": [last, last + rest],
        }
        forged = json.dumps(header).encode()
        path.write_bytes(len(forged).to_bytes(8, "little") + forged + content[8 + length :])
        with open(path, "r+b") as file:
            file.truncate(8 + len(forged) + last + rest)
        paths.append(str(path))
    code = """
        import resource, sys
        from fastltc.runtime.model_file import read_model
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sys.argv[1:]:
            try:
                read_model(path)
            except ValueError as error:
                print(str(error)[-60:])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    *messages, grown = done.stdout.split("\n")[:-1]
    assert all("unknown tensor" in message for message in messages)
    assert len(messages) == 2
    assert int(grown) < 100_000  # kB


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2, 3, 6, 7, 49, 4096, 2**31])
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["ltc", "cfc", "wired_cfc", "linear", "activation", "pure", "affine"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        found += places(inner, (*at, key))
    return found


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_descriptions_that_hypothesis_changes(path: Path, data: st.DataObject) -> None:
    model = small_model()
    description: Any = description_of(model)
    for _ in range(data.draw(st.integers(1, 3))):
        *where, last = data.draw(st.sampled_from(places(description)))
        target = description
        for key in where:
            target = target[key]
        action = data.draw(st.sampled_from(["set", "remove", "add"]))
        if action == "set":
            target[last] = data.draw(JSON)
        elif action == "remove":
            del target[last]
        elif isinstance(target, dict):
            target[data.draw(st.text(max_size=5))] = data.draw(JSON)
        else:
            target.append(data.draw(JSON))
        if not places(description):
            break
    forge(path, model, json.dumps(description))
    try:
        read = read_model(path)
    except ModelFileError:
        return
    check_is_sound(read)


def check_is_sound(model: Model) -> None:
    """What has been read is a model whose tensors fit its layers, and can be run."""
    check_model(model)
    for index, layer in enumerate(model.layers):
        shapes = {key: tensor.shape for key, tensor in model.parameters(index).items()}
        assert shapes == tensor_shapes(layer)
    runtime.Session(model).step(np.zeros(model.input_size, dtype=np.float32), 0.5)


def mutated(content: bytes, model: Model, path: Path) -> bytes:
    """Return a file with some damage, half of them signed again."""
    kind = random.randrange(8)
    changed = bytearray(content)
    length = int.from_bytes(content[:8], "little")
    if kind == 0:  # bits anywhere
        for _ in range(random.randint(1, 20)):
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    elif kind == 1:  # bits of the header
        for _ in range(random.randint(1, 5)):
            changed[random.randrange(8 + length)] ^= 1 << random.randrange(8)
    elif kind == 2:
        del changed[random.randrange(len(changed)) :]
    elif kind == 3:  # a part that is missing, or there twice
        start, end = sorted(random.sample(range(len(changed) + 1), 2))
        changed[start:end] = b"" if random.random() < 0.5 else 2 * bytes(changed[start:end])
    elif kind == 4:  # noise
        start = random.randrange(len(changed))
        noise = random.randbytes(random.randint(1, 40))
        changed[start : start + len(noise)] = noise
    elif kind == 5:  # numbers of the header
        header = bytes(changed[8 : 8 + length])
        digits = [i for i, byte in enumerate(header) if chr(byte).isdigit()]
        at = random.choice(digits)
        number = str(random.choice([0, 1, 7, 255, 2**31, 2**32, 2**63, 2**64, 10**30])).encode()
        header = header[:at] + number + header[at + 1 :]
        if random.random() < 0.5:
            header = header[:length].ljust(length)
        changed = bytearray(len(header).to_bytes(8, "little") + header + content[8 + length :])
    elif kind == 6:  # the description, signed
        description: Any = description_of(model)
        for _ in range(random.randint(1, 3)):
            *where, last = random.choice(places(description))
            target = description
            for key in where:
                target = target[key]
            target[last] = random.choice(
                [None, True, 0, 1, 2, 3, 5, 6, 7, 2**20, 0.5, -1, "ltc", "cfc", "pure", [], {}]
            )
        changed = bytearray(forge(path, model, description).read_bytes())
    else:  # the tensors, signed
        key = random.choice(list(model.tensors))
        tensor = model.tensors[key].copy()
        bits = tensor.reshape(-1).view(np.uint32)
        bits[random.randrange(len(bits))] = random.randrange(1 << 32)
        if random.random() < 0.2:
            tensor = tensor.reshape(-1)[: random.randrange(tensor.size + 1)]
        changed = bytearray(forge(path, model, tensors={**model.tensors, key: tensor}).read_bytes())
    return bytes(changed)


def fuzz(path: Path, seconds: float) -> None:
    model = dataclasses.replace(small_model(), **FACTS)
    write_model(model, path)
    content = path.read_bytes()
    end = time.monotonic() + seconds
    count = read_well = 0
    while time.monotonic() < end or count < 200:
        path.write_bytes(mutated(content, model, path))
        start = time.perf_counter()
        try:
            read = read_model(path)
        except ModelFileError:
            pass
        except BaseException:
            print(f"saved: {path.rename(path.with_name('failing.safetensors'))}")
            raise
        else:
            with np.errstate(all="ignore"):
                check_is_sound(read)
            read_well += 1
        assert time.perf_counter() - start < 5
        count += 1
    print(f"{count} files, {read_well} of them valid")
    assert 0 < read_well < count


def test_fuzzed_files(path: Path) -> None:
    fuzz(path, 2)


@pytest.mark.slow
@pytest.mark.skipif(
    "FASTLTC_FUZZ_SECONDS" not in os.environ, reason="set FASTLTC_FUZZ_SECONDS, 300 say"
)
def test_fuzzed_files_for_long(path: Path) -> None:
    fuzz(path, float(os.environ["FASTLTC_FUZZ_SECONDS"]))
