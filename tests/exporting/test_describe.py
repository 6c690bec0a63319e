"""What a model file holds of a torch module, and what cannot be exported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import ncps.torch
import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP, FullyConnected
from safetensors import safe_open
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

import export_cases
import fastltc
from fastltc import runtime
from fastltc.exporting import ExportError, describe
from fastltc.exporting.descriptions import assemble
from fastltc.jobs.models import build_model
from fastltc.runtime import check_model, read_model
from fastltc.runtime.model import _KEYS, ACTIVATIONS


@pytest.mark.parametrize("name", export_cases.MODELS)
def test_a_file_holds_what_describe_says(name: str, tmp_path: Path) -> None:
    module = export_cases.make(name)
    written = fastltc.export(module, tmp_path / "model.safetensors")
    read = read_model(tmp_path / "model.safetensors")
    assert read.layers == written.layers
    assert read.tensors.keys() == written.tensors.keys()
    for key, tensor in written.tensors.items():
        assert read.tensors[key].dtype == np.float32
        assert np.array_equal(read.tensors[key], tensor), key
    assert list(tmp_path.iterdir()) == [tmp_path / "model.safetensors"]


@pytest.mark.parametrize("name", ["ltc of ncps", "wired cfc of ncps", "cfc, pure, no backbone"])
def test_tensors_are_those_of_the_state_dict(name: str) -> None:
    module = export_cases.make(name)
    model = describe(module)
    state = module.state_dict()
    assert model.parameters(0).keys() == state.keys()
    for key, tensor in state.items():
        assert np.array_equal(model.parameters(0)[key], tensor.numpy()), key


def test_modules_of_ncps_are_not_changed() -> None:
    module = nn.Sequential(ncps.torch.LTC(3, AutoNCP(9, 2)))
    describe(module)
    assert type(module[0]) is ncps.torch.LTC


def test_metadata_for_people(tmp_path: Path) -> None:
    module = [fastltc.LTC(4, AutoNCP(9, 2)), nn.Linear(2, 1)]
    fastltc.export(module, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "fastltc.model"
    assert metadata["fastltc"] == fastltc.__version__
    wiring, nothing = json.loads(metadata["wiring"])
    assert wiring["class"] == "AutoNCP"
    assert wiring["neurons"][:2] == ["motor", "motor"]
    assert {"inter", "command"} <= set(wiring["neurons"])
    assert len(wiring["neurons"]) == 9
    assert nothing is None


def test_the_result_of_an_export_is_short(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = fastltc.export(fastltc.LTC(16, AutoNCP(19, 2)), path)
    assert repr(model) == "Model(ltc, 16 inputs, 2 outputs, 19 state values, 2,753 parameters)"
    stack = [fastltc.CfC(3, 100), nn.Tanh(), nn.Linear(100, 2)]
    model = fastltc.export(stack, path, time_unit=0.02, output_names=["a", "b"])
    # 128 units of a backbone read 103 values, 100 neurons by four heads, and two logits.
    parameters = 128 * 104 + 4 * 100 * 129 + 2 * 101
    assert repr(model) == (
        "Model(cfc + activation + linear, 3 inputs, 2 outputs, 100 state values, "
        f"{parameters:,} parameters, time steps in units of 0.02 s)"
    )


def test_units_and_names_of_numpy() -> None:
    names = np.array(["a", "b", "c"])
    model = describe(fastltc.CfC(3, 3), time_unit=np.float64(60), input_names=names,
                     output_names=list(names))  # fmt: skip
    assert model.time_unit == 60
    assert model.input_names == model.output_names == ("a", "b", "c")
    check_model(model)


def test_units_and_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    layer = fastltc.CfC(3, 4)
    wrong: dict[str, Any]
    for wrong, text in (
        ({"time_unit": 0.0}, "time_unit: expected a number of seconds"),
        ({"time_unit": "60"}, "time_unit: expected a number of seconds"),
        ({"input_names": ["a"]}, "input_names: expected 3 names or none, got 1"),
        ({"input_names": "abc"}, "input_names: expected a tuple of texts, got 'abc'"),
        ({"output_names": [1, 2, 3, 4]}, "output_names: expected a tuple of texts"),
    ):
        with pytest.raises(ExportError, match=text):
            describe(layer, **wrong)
        with pytest.raises(ExportError, match=text):
            fastltc.export(layer, tmp_path / "model.safetensors", **wrong)
    assert not list(tmp_path.iterdir())


def test_numbers_are_rounded_to_float32() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        module = fastltc.CfC(3, 4).to(dtype)
        model = describe(module)
        weight = module.rnn_cell.ff1.weight.detach().float().numpy()
        assert np.array_equal(model.tensors["layers.0.rnn_cell.ff1.weight"], weight)


def test_what_is_computed_with_is_exported_of_pruned_and_parametrized_modules() -> None:
    layer = fastltc.CfC(3, 4, backbone_layers=0)
    prune.l1_unstructured(layer.rnn_cell.ff1, "weight", 0.5)
    weight_norm(layer.rnn_cell.ff2)
    tensors = describe(layer).parameters(0)
    for key, linear in (("ff1", layer.rnn_cell.ff1), ("ff2", layer.rnn_cell.ff2)):
        assert np.array_equal(tensors[f"rnn_cell.{key}.weight"], linear.weight.detach().numpy())


def test_the_mask_of_a_plain_cell_is_applied() -> None:
    mask = (np.random.default_rng(0).random((3 + 4, 4)) < 0.5).astype(np.float32)
    cell = fastltc.CfCCell(3, 4, backbone_layers=0, backbone_units=0, sparsity_mask=mask)
    weight = describe(cell).tensors["layers.0.rnn_cell.ff2.weight"]
    assert (weight[mask.T == 0] == 0).all()
    assert (weight[mask.T == 1] != 0).all()


def test_the_mask_of_a_masked_linear_layer_is_applied() -> None:
    mask = torch.rand(4, 3) < 0.5
    layer = fastltc.MaskedLinear(3, 4, mask)
    tensors = describe([layer, fastltc.CfC(4, 2)]).parameters(0)
    assert np.array_equal(tensors["weight"], torch.where(mask, layer.weight, 0).detach().numpy())
    assert np.array_equal(tensors["bias"], layer.bias.detach().numpy())


def test_numbers_of_synapses_that_do_not_exist_do_not_matter() -> None:
    layer = fastltc.LTC(3, AutoNCP(9, 2))
    with torch.no_grad():
        layer.rnn_cell.mu[layer.rnn_cell.sparsity_mask == 0] = torch.nan
    describe(layer)
    with torch.no_grad():
        layer.rnn_cell.mu[layer.rnn_cell.sparsity_mask == 1] = torch.nan
    with pytest.raises(ExportError, match=r"layers\.0\.rnn_cell\.mu: expected finite numbers"):
        describe(layer)


@pytest.mark.parametrize("cell", [
    lambda: fastltc.LTCCell(AutoNCP(9, 2), 3),
    lambda: fastltc.WiredCfCCell(3, AutoNCP(9, 2)),
    lambda: fastltc.CfCCell(3, 4),
    lambda: ncps.torch.LTCCell(AutoNCP(9, 2), 3),
])  # fmt: skip
def test_a_cell_by_itself(cell: Any) -> None:
    model = describe(cell())
    assert model.input_size == 3
    assert model.layers[0]["mixed_memory"] is False


def test_return_sequences_and_batch_first_do_not_matter_for_single_steps() -> None:
    layer = fastltc.LTC(3, AutoNCP(9, 2), return_sequences=False, batch_first=False)
    assert describe([layer, nn.Linear(2, 1)]).output_size == 1


def test_a_module_that_runs_twice() -> None:
    shared = nn.Linear(4, 4)
    model = describe(nn.Sequential(shared, nn.Tanh(), fastltc.CfC(4, 4), shared))
    assert [layer["type"] for layer in model.layers] == ["linear", "activation", "cfc", "linear"]


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrapped_modules(wrap: Any) -> None:
    layer = fastltc.CfC(3, 4)
    assert describe([nn.Linear(2, 3), wrap(layer)]).layers[1:] == describe(layer).layers
    assert describe(wrap(layer)).layers == describe(layer).layers


class Policy(nn.Module):
    """A forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 1)
        self.rnn = fastltc.LTC(5, AutoNCP(9, 2))
        self.encoder = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(torch.relu(self.encoder(x)))[0])


class SaysWhatItRuns(Policy):
    def export_layers(self) -> list[nn.Module]:
        return [self.encoder, nn.ReLU(), self.rnn, self.head]


def test_a_module_says_what_it_runs() -> None:
    kinds = [layer["type"] for layer in describe(SaysWhatItRuns()).layers]
    assert kinds == ["linear", "activation", "ltc", "linear"]
    with pytest.raises(ExportError, match=r"module \(Policy\): cannot be exported"):
        describe(Policy())


@pytest.mark.parametrize("cell", ["ltc", "cfc"])
@pytest.mark.parametrize("wiring", ["full", "ncp"])
def test_the_models_for_series_and_rows(cell: str, wiring: str) -> None:
    x, timespans = torch.randn(1, 30, 4) * 5 + 20, torch.rand(1, 30)
    series = build_model(f"series-{cell}", (30, 4), 3, 12, wiring=wiring)
    series.fit_scales(x)
    wanted = series(x, timespans)[0].detach()
    got = runtime.Session(describe(series)).run(x[0].numpy(), timespans[0].numpy())
    assert export_cases.difference(got, wanted) < 5e-6
    options = {"wiring": wiring, "reads": 1, "timestep": 0.3}
    rows = build_model(f"rows-{cell}", (1, 8, 8), 3, 12, **options)
    image = torch.randn(1, 1, 8, 8)
    got = runtime.Session(describe(rows)).run(image[0, 0].numpy(), 0.3)[-1:]
    assert export_cases.difference(got, rows(image).detach()) < 5e-6


def test_stacks_of_fastltc() -> None:
    inner = fastltc.Sequential(fastltc.CfC(4, 4), nn.Dropout(0.5))
    stack = fastltc.Sequential(nn.Linear(3, 4), inner, fastltc.LTC(4, AutoNCP(9, 2))).eval()
    x, timespans = torch.randn(1, 20, 3), torch.rand(1, 20)
    wanted, _ = stack(x, timespans=timespans)
    got = runtime.Session(describe(stack)).run(x[0].numpy(), timespans[0].numpy())
    assert export_cases.difference(got, wanted[0].detach()) < 2e-6


class Chain(nn.Module):
    """Layers that may hand tuples to each other."""

    def __init__(self, layers: list[nn.Module], residual: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            y = layer(x)
            y = y[0] if isinstance(y, tuple) else y
            x = x + y if self.residual else y
        return x


def test_a_chain_of_layers_is_checked_by_running_it() -> None:
    layers = [
        nn.Linear(3, 4),
        fastltc.CfC(4, 4),
        fastltc.LTC(4, FullyConnected(4)),
        nn.Linear(4, 4),
    ]
    assert len(describe(Chain(layers)).layers) == 4
    with pytest.raises(ExportError, match=r"Chain\): does something else than run its layers"):
        describe(Chain([*layers[1:], nn.Linear(4, 4)], residual=True))


class Louder(fastltc.LTC):
    def forward(self, *arguments: Any, **options: Any) -> Any:
        output, hn = super().forward(*arguments, **options)
        return 2 * output, hn


class LouderOfNcps(ncps.torch.LTC):
    pass


@pytest.mark.parametrize(("module", "text"), [
    (lambda: [fastltc.CfC(3, 4), nn.BatchNorm1d(4)], r"1 \(BatchNorm1d\): cannot be exported"),
    (lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 4))), r"0\.1 \(LSTM\)"),
    (lambda: [fastltc.Bidirectional(fastltc.CfC(3, 4), fastltc.CfC(3, 4))],
     r"0 \(Bidirectional\): cannot be exported, because it needs what comes later; its forward"),
    (lambda: fastltc.ParallelLTC([fastltc.LTC(3, 4)]), "because it is many networks; each of"),
    (lambda: fastltc.ParallelCfC([fastltc.CfC(3, 4)]), "because it is many networks; each of"),
    (lambda: nn.Linear(3, 4), "expected at least one of ltc, wired_cfc, cfc"),
    (lambda: [nn.Linear(3, 4), fastltc.CfC(5, 4)], r"layers\[1\]\.input_size: expected 4.*got 5"),
    (lambda: Louder(3, AutoNCP(9, 2)), "Louder.*has a forward of its own"),
    (lambda: LouderOfNcps(3, AutoNCP(9, 2)), "LouderOfNcps.*a subclass of ncps"),
    (lambda: [fastltc.CfC(3, 4), nn.GELU(approximate="tanh")], "approximate='none', got 'tanh'"),
    (lambda: [fastltc.CfC(3, 4), nn.Softmax(dim=1)], "expected dim=-1, the features, got 1"),
    (lambda: [fastltc.CfC(3, 4), nn.Softplus(beta=2)], "expected beta=1, threshold=20, got 2"),
    (lambda: [fastltc.CfC(3, 4, return_sequences=False), fastltc.CfC(4, 4)],
     r"1: reads sequences, but 0 before it has return_sequences=False"),
    (lambda: [fastltc.CfC(3, 4, batch_first=False), fastltc.CfC(4, 4)], "1: batch_first=True"),
    (lambda: fastltc.CfC(3, 4).to("meta"), "expected a floating-point tensor with values"),
    (lambda: 3, "expected a torch.nn.Module or a list of them, got int"),
    (list, "nothing to export"),
])  # fmt: skip
def test_what_cannot_be_exported_is_named(module: Any, text: str) -> None:
    with pytest.raises(ExportError, match=text):
        describe(module())


def test_a_changed_layer_of_ncps_is_not_exported() -> None:
    layer = ncps.torch.LTC(3, AutoNCP(9, 2))
    layer.rnn_cell.make_positive_fn = nn.ReLU()
    with pytest.raises(ExportError, match="make_positive_fn"):
        describe([layer])


def test_the_documentation_has_every_type_key_and_function() -> None:
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    for kind, keys in _KEYS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{kind}` |"))
        assert set(re.findall(r"`(\w+)`", row)) >= set(keys)
    for function in ACTIVATIONS:
        assert f"`{function}`" in text


def test_an_activation_alone_is_nothing() -> None:
    with pytest.raises(ExportError, match="nothing to export"):
        assemble([])


def test_why_a_module_cannot_say_its_layers_is_told() -> None:
    class Late(nn.Module):
        def export_layers(self) -> list[nn.Module]:
            raise ValueError("stride: it looks ahead")

    with pytest.raises(ExportError, match=r"0 \(Late\): stride: it looks ahead"):
        describe([Late()])


class Scaled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def scaled(layer: Any) -> None:
    layer.rnn_cell.ff1 = Scaled(7, 4)


def replaced(layer: Any) -> None:
    layer.rnn_cell.forward = lambda *args: args[:2]


REFUSED: dict[str, tuple[Any, str]] = {
    "another class": (scaled, "its ff1 is of the class Scaled"),
    "a hook": (
        lambda layer: layer.rnn_cell.time_a.register_forward_hook(lambda *_: None),
        "its time_a has a hook",
    ),
    "a hook in the memory": (
        lambda layer: layer.lstm.tanh.register_forward_hook(lambda *_: None),
        "its tanh has a hook",
    ),
    "another forward": (replaced, "its rnn_cell, a CfCCell, has a forward of its own"),
    "another projection": (
        lambda layer: setattr(layer, "fc", nn.Sequential(nn.Linear(4, 2))),
        "its fc is of the class Sequential",
    ),
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_layer_with_something_put_in_is_refused(change: str) -> None:
    layer = fastltc.CfC(3, 4, backbone_layers=0, mixed_memory=True, proj_size=2)
    apply, message = REFUSED[change]
    apply(layer)
    with pytest.raises(ExportError, match=message):
        describe(layer)


@pytest.mark.parametrize("kind", ["LTC", "CfC", "wired CfC"])
def test_weights_that_torch_computes_are_exported_as_computed(kind: str, tmp_path: Path) -> None:
    layer = getattr(fastltc, kind.removeprefix("wired "))(
        3, 5 if kind == "CfC" else AutoNCP(9, 2), mixed_memory=True
    )
    cell = layer.rnn_cell
    if kind == "LTC":
        prune.l1_unstructured(cell, "w", 0.5)
    else:
        first = cell if kind == "CfC" else cell.layer_1
        prune.l1_unstructured(first.ff1, "weight", 0.5)
        weight_norm(first.time_a)
    prune.l1_unstructured(layer.lstm.input_map, "weight", 0.5)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith("_orig"):
                parameter *= 2  # what was computed before does not hold any more
    layer.eval()
    fastltc.export(layer, tmp_path / "model.safetensors")
    x = torch.randn(1, 1, 3)
    with torch.no_grad():
        expected = layer(x)[0][0]
    session = runtime.Session.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(session.step(x[0].numpy(), 1.0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["LTC", "CfC"])
def test_masks_of_averaged_checkpoints_are_exported_as_ones(kind: str, tmp_path: Path) -> None:
    layer = getattr(fastltc, kind)(3, AutoNCP(9, 2))
    state = layer.state_dict()
    layer.load_state_dict(
        {key: sum(0.1 * value for _ in range(10)) for key, value in state.items()}
    )
    fastltc.export(layer, tmp_path / "model.safetensors")
    tensors = read_model(tmp_path / "model.safetensors").tensors
    masks = [value for key, value in tensors.items() if key.endswith("mask")]
    assert masks
    assert all(np.isin(mask, (0, 1)).all() for mask in masks)
