"""State dicts of layers, with the options they do not hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import ncps.torch
import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP
from safetensors.torch import save_file
from torch import nn

import export_cases
import fastltc
from fastltc.exporting import ExportError, describe
from fastltc.exporting.descriptions import assemble
from fastltc.exporting.state_dict import describe_state_dict, find_layers, read_state_dict
from fastltc.runtime import Model


def check_same(actual: Model, wanted: Model) -> None:
    assert actual.layers == wanted.layers
    assert actual.tensors.keys() == wanted.tensors.keys()
    for key, tensor in wanted.tensors.items():
        assert np.array_equal(actual.tensors[key], tensor), key


OPTIONS: dict[str, dict[str, Any]] = {
    "ltc, no maps": {"output_size": 5, "ode_unfolds": 3, "epsilon": 1e-3},
    "ltc, no softplus": {"implicit_param_constraints": False},
    "wired cfc of ncps": {"mode": "no_gate"},
    "cfc, deep": {"mode": "no_gate", "activation": "gelu"},
    "cfc of ncps": {"activation": "silu"},
    "cfc, relu": {"activation": "relu"},
    "cfc, tanh": {"activation": "tanh"},
}
SINGLE = [n for n in export_cases.MODELS if n not in ("stack", "activations around", "sequential")]


@pytest.mark.parametrize("name", SINGLE)
def test_the_model_of_the_module(name: str) -> None:
    module = export_cases.make(name)
    part = describe_state_dict(module.state_dict(), **OPTIONS.get(name, {}))
    check_same(assemble([part]), describe(module))


@pytest.mark.parametrize("cell", [
    lambda: fastltc.LTCCell(AutoNCP(9, 2), 3),
    lambda: fastltc.WiredCfCCell(3, AutoNCP(9, 2)),
    lambda: fastltc.CfCCell(3, 4, backbone_layers=0, backbone_units=0,
                            sparsity_mask=np.eye(7, 4)),
])  # fmt: skip
def test_a_cell_by_itself(cell: Any) -> None:
    module = cell()
    check_same(assemble([describe_state_dict(module.state_dict())]), describe(module))


@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {"model": state, "epoch": 3},
    lambda state: {"state_dict": state},
])  # fmt: skip
def test_files_of_torch_save(wrap: Any, tmp_path: Path) -> None:
    module = ncps.torch.CfC(3, AutoNCP(9, 2))
    torch.save(wrap(module.state_dict()), tmp_path / "a.pt")
    check_same(
        assemble([describe_state_dict(read_state_dict(tmp_path / "a.pt"))]), describe(module)
    )


def test_safetensors_files(tmp_path: Path) -> None:
    module = fastltc.LTC(3, AutoNCP(9, 2))
    save_file(module.state_dict(), tmp_path / "a.safetensors")
    state = read_state_dict(tmp_path / "a.safetensors")
    check_same(assemble([describe_state_dict(state)]), describe(module))


def test_a_layer_of_a_larger_model() -> None:
    model = nn.ModuleDict({
        "head": nn.Linear(3, 4),
        "first": fastltc.LTC(4, AutoNCP(9, 2)),
        "second": nn.Sequential(fastltc.CfC(2, AutoNCP(9, 2))),
        "cell": fastltc.WiredCfCCell(2, AutoNCP(9, 2)),
    })  # fmt: skip
    state = model.state_dict()
    assert find_layers(state) == {"first": "ltc", "second.0": "wired_cfc", "cell": "wired_cfc"}
    for name in ("first", "second.0", "cell"):
        part = describe_state_dict(state, name)
        check_same(assemble([part]), describe(model.get_submodule(name)))
    with pytest.raises(ExportError, match=r"holds 3 liquid layers: 'first', 'second\.0', 'cell'"):
        describe_state_dict(state)
    with pytest.raises(ExportError, match=r"layer: expected one of .*, got 'head'"):
        describe_state_dict(state, "head")
    with pytest.raises(ExportError, match=r"more than its liquid layer 'first', head\.weight for"):
        describe_state_dict({k: v for k, v in state.items() if k.startswith(("first", "head"))})


def without(state: dict[str, torch.Tensor], *keys: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if key not in keys}


def test_what_does_not_fit_is_named() -> None:
    ltc = fastltc.LTC(3, AutoNCP(9, 2)).state_dict()
    bare = fastltc.LTC(3, AutoNCP(9, 2), output_mapping=None).state_dict()
    pure = fastltc.CfC(3, 4, mode="pure").state_dict()
    with pytest.raises(ExportError, match="holds 0 liquid layers"):
        describe_state_dict(nn.Linear(3, 4).state_dict())
    with pytest.raises(ExportError, match=r"rnn_cell\.vleak is missing"):
        describe_state_dict(without(ltc, "rnn_cell.vleak"))
    with pytest.raises(ExportError, match=r"sensory_sparsity_mask.* is missing"):
        describe_state_dict(without(ltc, "rnn_cell.sensory_sparsity_mask"))
    with pytest.raises(ExportError, match=r"rnn_cell\.extra is no parameter of .* type ltc"):
        describe_state_dict({**ltc, "rnn_cell.extra": torch.zeros(1)})
    with pytest.raises(ExportError, match="output_size: needed"):
        describe_state_dict(bare)
    with pytest.raises(ExportError, match="output_size: expected 2, as state dict has, got 3"):
        describe_state_dict(ltc, output_size=3)
    with pytest.raises(ExportError, match="mode: state dict has the parameters of the mode pure"):
        describe_state_dict(pure, mode="default")
    with pytest.raises(ExportError, match=r"sigma: expected shape \[9, 9\], got \[9, 8\]"):
        assemble([describe_state_dict({**ltc, "rnn_cell.sigma": torch.zeros(9, 8)})])
    with pytest.raises(ExportError, match="activation: expected one of"):
        assemble([describe_state_dict(fastltc.CfC(3, 4).state_dict(), activation="swish")])


class Evil:
    def __reduce__(self) -> Any:
        return (Path("/nonexistent").touch, ())


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(FileNotFoundError):
        read_state_dict(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ExportError, match=r"a\.pt: neither a file of torch\.save nor"):
        read_state_dict(path)
    torch.save({"a": Evil()}, path)
    with pytest.raises(ExportError, match=r"a\.pt: torch cannot load it without running code"):
        read_state_dict(path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ExportError, match=r"save the state dict: torch\.save\(model\.state_dict"):
        read_state_dict(path)
    torch.save({"a": 1}, path)
    with pytest.raises(ExportError, match="holds no tensors"):
        read_state_dict(path)
    torch.save([1], path)
    with pytest.raises(ExportError, match="expected a state dict, got list"):
        read_state_dict(path)
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with pytest.raises(ExportError, match="damaged safetensors file"):
        read_state_dict(path)
