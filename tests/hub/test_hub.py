"""Models saved to a folder and loaded from it: the same to the bit, with their wirings."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncps.torch
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fastltc
from fastltc.wirings import (
    NCP,
    AutoNCP,
    ConnectomeLike,
    DeepNCP,
    FullyConnected,
    Random,
    SmallWorld,
    Wiring,
)

hub: Any = pytest.importorskip("fastltc.hub", exc_type=ImportError)

FILES = {"README.md", "config.json", "model.safetensors"}


def ring() -> Wiring:
    wiring = Wiring(5)
    for neuron in range(5):
        wiring.add_synapse(neuron, (neuron + 1) % 5, 1 if neuron % 2 else -1)
    wiring.set_output_dim(2)
    wiring.build(3)
    wiring.add_sensory_synapse(0, 3, 1)
    return wiring


def changed() -> Wiring:
    wiring = AutoNCP(12, 2, seed=3)
    wiring.build(3)
    wiring.adjacency_matrix[4, :] = 0
    wiring.adjacency_matrix[4, 1] = -1
    return wiring


WIRINGS: dict[str, Callable[[], Wiring]] = {
    "ring": ring,
    "changed": changed,
    "fully connected": lambda: FullyConnected(6, 2, self_connections=False),
    "random": lambda: Random(7, 3, sparsity_level=0.4, random_seed=5),
    "ncp": lambda: NCP(6, 4, 2, 3, 2, 3, 2, seed=9),
    "auto ncp": lambda: AutoNCP(np.int64(14), 3, sparsity_level=0.6, seed=4),
    "deep": lambda: DeepNCP([6, 5], 4, 2, 0.4, seed=4),
    "small world": lambda: SmallWorld(9, 2, neighbours=2, rewiring=0.3),
    "connectome-like": lambda: ConnectomeLike(12, 2, 4, sensory_sparsity=0.5, inhibitory=0.3),
}


def same_wiring(a: Wiring, b: Wiring) -> bool:
    kinds = [[w.get_type_of_neuron(n) for n in range(w.units)] for w in (a, b)]
    layers = [[list(w.get_neurons_of_layer(k)) for k in range(w.num_layers)] for w in (a, b)]
    return (
        type(a) is type(b)
        and (a.adjacency_matrix == b.adjacency_matrix).all()
        and (a.sensory_adjacency_matrix == b.sensory_adjacency_matrix).all()
        and (a.input_dim, a.output_dim, a.units) == (b.input_dim, b.output_dim, b.units)
        and kinds[0] == kinds[1]
        and layers[0] == layers[1]
    )


def outputs(model: Any, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    x, dt = torch.randn(4, 9, 3, dtype=dtype), torch.rand(4, 9, dtype=dtype)
    output, state = model(x, timespans=dt)
    return [output, *(state if isinstance(state, tuple) else [state])]


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("kind", ["LTC", "CfC"])
def test_a_layer_comes_back_to_the_bit(kind: str, wiring: str, tmp_path: Path) -> None:
    layer = getattr(hub, kind)(3, WIRINGS[wiring](), mixed_memory=True)
    layer.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == FILES
    loaded = getattr(hub, kind).from_pretrained(tmp_path)
    assert type(loaded) is type(layer)
    assert not loaded.training
    assert same_wiring(loaded.wiring_or_units, layer.wiring_or_units)
    for a, b in zip(outputs(loaded), outputs(layer), strict=True):
        assert torch.equal(a, b)
    # What was loaded can be saved again, as the same.
    (again := tmp_path / "again").mkdir()
    loaded.save_pretrained(again)
    for name in FILES:
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


def test_arguments_and_float64_are_kept(tmp_path: Path) -> None:
    options = {"proj_size": 4, "mode": "no_gate", "backbone_layers": 2, "activation": "gelu"}
    layer = hub.CfC(3, units=np.int64(8), return_sequences=False, **options).double()
    layer.save_pretrained(tmp_path)
    loaded = hub.CfC.from_pretrained(tmp_path)
    assert not loaded.return_sequences
    assert loaded.rnn_cell.mode == "no_gate"
    for a, b in zip(outputs(loaded, torch.float64), outputs(layer, torch.float64), strict=True):
        assert a.dtype == torch.float64
        assert torch.equal(a, b)
    assert json.loads((tmp_path / "config.json").read_text())["units"] == 8


class Gestures(hub.HubMixin, torch.nn.Module):
    """A model of one's own: a wiring among its arguments, built by the layer that takes it."""

    def __init__(self, inputs: int, wiring: Wiring, classes: int = 4, other: Any = None) -> None:
        super().__init__()
        self.rnn = fastltc.CfC(inputs, wiring)
        self.head = torch.nn.Linear(wiring.output_dim, classes)

    def forward(self, x: torch.Tensor, timespans: torch.Tensor) -> tuple[Any, Any]:
        output, state = self.rnn(x, timespans=timespans)
        return self.head(output), state


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    model = Gestures(3, wiring=AutoNCP(12, 3), classes=5)
    model.save_pretrained(tmp_path)
    loaded = Gestures.from_pretrained(tmp_path)
    for a, b in zip(outputs(loaded), outputs(model), strict=True):
        assert torch.equal(a, b)
    card = (tmp_path / "README.md").read_text()
    assert "library_name: fastltc" in card
    assert "Gestures.from_pretrained" in card
    assert "from fastltc.hub" not in card


def test_an_argument_that_json_does_not_hold_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    model = Gestures(3, AutoNCP(12, 3), other=torch.nn.ReLU())
    with pytest.raises(TypeError, match=r"other: expected a wiring or what JSON holds.*got ReLU"):
        model.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    model.save_pretrained(tmp_path, config={"inputs": 3})
    assert json.loads((tmp_path / "config.json").read_text()) == {"inputs": 3}


def test_parameters_of_ncps_are_loaded(tmp_path: Path) -> None:
    hub.LTC(3, AutoNCP(12, 2)).save_pretrained(tmp_path)
    theirs = ncps.torch.LTC(3, AutoNCP(12, 2))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    x = torch.randn(2, 5, 3)
    found, wanted = hub.LTC.from_pretrained(tmp_path)(x)[0], theirs(x)[0]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_missing_parameters_are_an_error(tmp_path: Path) -> None:
    hub.LTC(3, 4).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["rnn_cell.gleak"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="gleak"):
        hub.LTC.from_pretrained(tmp_path)
    hub.LTC.from_pretrained(tmp_path, strict=False)


def test_is_a_layer_like_any_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = hub.LTC(3, AutoNCP(12, 2))
    torch.manual_seed(0)
    plain = fastltc.LTC(3, AutoNCP(12, 2))
    assert isinstance(layer, fastltc.LTC)
    assert list(layer.state_dict()) == list(plain.state_dict())
    wanted = outputs(plain)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for other in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), compiled):
        for a, b in zip(outputs(other), wanted, strict=True):
            assert torch.equal(a, b)
    pickle.loads(pickle.dumps(layer)).save_pretrained(tmp_path)
    assert same_wiring(hub.LTC.from_pretrained(tmp_path)._wiring, layer._wiring)
    fastltc.export(layer, tmp_path / "exported.safetensors")


def test_wirings_of_other_classes_are_refused() -> None:
    class Own(AutoNCP):
        pass

    with pytest.raises(TypeError, match=r"wiring: expected one of .*AutoNCP.*got Own"):
        hub.encode_wiring(Own(12, 2))
    wiring = Wiring(2)
    wiring.adjacency_matrix[0, 1] = 2
    with pytest.raises(ValueError, match="adjacency_matrix: expected polarities"):
        hub.encode_wiring(wiring)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("wiring", "os.system", "wiring: expected one of"),
        ("adjacency_matrix", ["+" * 12] * 11, "adjacency_matrix: expected 12 rows of 12"),
        ("sensory_adjacency_matrix", ["+" * 11] * 3, "expected 3 rows of 12"),
        ("adjacency_matrix", ["?" * 12] * 12, "letters of -0+"),
        ("units", 10**9, "adjacency_matrix: expected 1000000000 rows"),
        ("units", "12", "units: expected numbers of neurons, got '12'"),
        ("inputs", 10**9, "sensory_adjacency_matrix: expected 1000000000 rows of 12"),
        ("adjacency_matrix", [""] * 12, "adjacency_matrix: expected 12 rows of 12"),
    ],
)
def test_damaged_wirings_are_refused(key: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("+", r"\+")):
        hub.decode_wiring(hub.encode_wiring(changed()) | {key: value})


@pytest.mark.parametrize(
    ("kind", "arguments", "forged"),
    [
        ("LTC", {"units": 5}, {"units": 10**6}),
        ("LTC", {"units": AutoNCP(12, 2)}, {"input_size": 10**9}),
        ("CfC", {"units": 5}, {"units": 10**9}),
        ("CfC", {"units": 5}, {"backbone_units": 10**9}),
        ("CfC", {"units": 5}, {"backbone_layers": 10**9}),
        ("CfC", {"units": 5, "backbone_layers": 0}, {"input_size": 10**9}),
        ("CfC", {"units": 5, "proj_size": 2}, {"proj_size": 10**9}),
        ("CfC", {"units": AutoNCP(12, 2), "proj_size": 2}, {"proj_size": 10**9}),
    ],
)
def test_a_forged_size_costs_no_memory(
    kind: str, arguments: Any, forged: dict[str, Any], tmp_path: Path
) -> None:
    getattr(hub, kind)(3, **arguments).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | forged))
    code = (
        "import resource, sys, fastltc.hub as hub\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try: hub.{kind}.from_pretrained(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    *_, error, megabytes = done.stdout.splitlines()
    assert "config.json: expected the arguments of a model of at most" in error
    assert int(megabytes) < 64


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for name, limit in (
        ("config.json", False),
        ("model.safetensors", False),
        ("config.json", True),
    ):
        folder = tmp_path / f"{name}-{limit}"
        hub.LTC(3, 4).save_pretrained(folder)
        if limit:
            with (folder / name).open("r+b") as file:
                file.truncate(64 * 2**20 + 1)
        else:
            (folder / name).unlink()
            os.mkfifo(folder / name)
        with pytest.raises(
            OSError, match="at most 67,108,864 bytes" if limit else "a regular file"
        ):
            hub.LTC.from_pretrained(folder)


def test_says_what_to_install() -> None:
    code = "import sys; sys.modules['huggingface_hub'] = None; import fastltc.nn, fastltc.hub"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: fastltc.hub: expected huggingface_hub, which is not installed; "
        'pip install "fastltc[hub]"'
    )


def test_the_package_itself_does_not_need_it() -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None; from fastltc import *; LTC(3, 4)\n"
        "assert 'fastltc.hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
