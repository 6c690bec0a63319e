"""Models of ncps whose modules are swapped in place, and ncps patched to make them so."""

from __future__ import annotations

import copy
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import ncps.torch
import pytest
import torch
from ncps.torch import LTC as ImportedLTC
from ncps.wirings import AutoNCP, FullyConnected, Wiring
from torch import Tensor, nn
from torch.func import functional_call

import fastltc
from fastltc import accelerate, patch_ncps
from fastltc.dropin import conversions, patch
from ncps_twins import WIRINGS, check_twins

I, N = 4, 12  # noqa: E741

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LTC": lambda: ncps.torch.LTC(I, AutoNCP(N, 2)),
    "LTC, mixed memory": lambda: ncps.torch.LTC(I, AutoNCP(N, 2), mixed_memory=True),
    "LTC, fully connected, no maps": lambda: ncps.torch.LTC(
        I, N, input_mapping=None, output_mapping="linear", implicit_param_constraints=False
    ),
    "CfC, wired": lambda: ncps.torch.CfC(I, AutoNCP(N, 2)),
    "CfC, wired, pure, mixed memory, projected": lambda: ncps.torch.CfC(
        I, AutoNCP(N, 2), proj_size=3, mode="pure", mixed_memory=True
    ),
    "CfC": lambda: ncps.torch.CfC(I, N),
    "CfC, deep backbone": lambda: ncps.torch.CfC(
        I,
        N,
        mode="no_gate",
        activation="gelu",
        backbone_layers=3,
        backbone_units=8,
        backbone_dropout=0.4,
    ),
    "CfC, no backbone": lambda: ncps.torch.CfC(I, N, backbone_layers=0),
}
CELLS: dict[str, Callable[[], nn.Module]] = {
    "LTCCell": lambda: ncps.torch.LTCCell(AutoNCP(N, 2), I),
    "LTCCell, softplus": lambda: ncps.torch.LTCCell(
        AutoNCP(N, 2), I, implicit_param_constraints=True
    ),
    "CfCCell": lambda: ncps.torch.CfCCell(I, N, backbone_activation="silu"),
    "WiredCfCCell": lambda: ncps.torch.WiredCfCCell(I, AutoNCP(N, 2)),
}


class Model(nn.Module):
    """Layers in a container of containers, as models have them."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"rnn": make(), "norm": nn.LayerNorm(I)})])
        self.head = nn.LazyLinear(1)
        self.eval()
        self(torch.zeros(1, 1, I))
        self.train()

    @property
    def rnn(self) -> Any:
        return self.blocks[0]["rnn"]

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.rnn(self.blocks[0]["norm"](x))
        return self.head(output)


def without_dropout(model: nn.Module) -> nn.Module:
    """Make the two comparable: they draw what they drop in another order."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return model


def losses(model: nn.Module, optimizer: Any, x: Tensor, steps: int) -> list[float]:
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layer", LAYERS)
def test_an_optimizer_made_before_goes_on(layer: str, dtype: torch.dtype, request: Any) -> None:
    if dtype == torch.float64:
        request.getfixturevalue("float64_default")
    x = torch.randn(6, 5, I, dtype=dtype)
    theirs = without_dropout(Model(LAYERS[layer]))
    swapped = copy.deepcopy(theirs)
    their_optimizer = torch.optim.Adam(theirs.parameters(), 0.01)
    optimizer = torch.optim.Adam(swapped.parameters(), 0.01)
    expected = losses(theirs, their_optimizer, x, 5)
    parameters = list(swapped.parameters())
    actual = losses(swapped, optimizer, x, 2)
    assert accelerate(swapped).swapped["blocks.0.rnn"]
    assert all(a is b for a, b in zip(swapped.parameters(), parameters, strict=True))
    actual += losses(swapped, optimizer, x, 3)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert actual == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert actual[4] != actual[1]


@pytest.mark.parametrize("layer", LAYERS)
def test_everything_a_module_has_stays(layer: str) -> None:
    model = Model(LAYERS[layer])
    rnn = model.rnn
    rnn.note = ["kept"]
    rnn.register_buffer("steps", torch.zeros(1))
    rnn.extra = nn.Linear(1, 1)
    rnn.rnn_cell.eval()
    next(rnn.rnn_cell.parameters()).requires_grad_(False)
    reference = weakref.ref(rnn)
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    state = model.state_dict(keep_vars=True)
    training = {name: module.training for name, module in modules.items()}
    requires_grad = {name: parameter.requires_grad for name, parameter in parameters.items()}

    report = accelerate(model)

    assert report.swapped.keys() >= {"blocks.0.rnn", "blocks.0.rnn.rnn_cell"}
    assert not report.left_alone
    assert reference() is model.rnn is rnn
    for package in (fastltc, ncps.torch):
        for module in (rnn, rnn.rnn_cell):
            assert isinstance(module, getattr(package, type(module).__name__))
    assert rnn.note == ["kept"]
    for now, before in (
        (dict(model.named_modules()), modules),
        (dict(model.named_parameters()), parameters),
        (model.state_dict(keep_vars=True), state),
    ):
        assert list(now) == list(before)
        assert all(now[name] is before[name] for name in before)
    assert {name: module.training for name, module in model.named_modules()} == training
    assert {n: p.requires_grad for n, p in model.named_parameters()} == requires_grad


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_the_model_itself_may_be_a_module_of_ncps(name: str, float64_default: None) -> None:
    theirs = without_dropout((LAYERS | CELLS)[name]())
    swapped = copy.deepcopy(theirs)
    report = accelerate(swapped)
    assert report.swapped[""] == type(theirs).__name__ == type(swapped).__name__
    x = torch.randn(3, 5, I)
    if name in LAYERS:
        check_twins(theirs, swapped, x)
        check_twins(theirs, swapped, x, None, torch.rand(1, 5) + 0.1)
    else:
        check_twins(theirs, swapped, x[:, 0], torch.rand(3, N), 0.7)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_any_wiring(wiring: str, float64_default: None) -> None:
    theirs = ncps.torch.LTC(I, WIRINGS[wiring]())
    swapped = copy.deepcopy(theirs)
    accelerate(swapped)
    check_twins(theirs, swapped, torch.randn(3, 5, I))


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_nothing_is_missing_that_fastltc_sets_in_a_module(name: str) -> None:
    swapped = (LAYERS | CELLS)[name]()
    accelerate(swapped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ncps, "torch", fastltc)
        made = (LAYERS | CELLS)[name]()
    modules = dict(swapped.named_modules())
    for path, module in made.named_modules():
        if not isinstance(module, conversions.OUR_CLASSES):
            continue
        assert isinstance(modules[path], type(module))
        assert vars(module).keys() <= vars(modules[path]).keys(), path


def test_hooks_fire_as_before() -> None:
    model = Model(LAYERS["LTC"])
    rnn, calls = model.rnn, []
    rnn.register_forward_pre_hook(lambda *_: calls.append("before"))
    rnn.register_forward_hook(lambda *_: calls.append("after"))
    rnn.register_full_backward_hook(lambda *_: calls.append("gradient"))
    rnn.rnn_cell.register_forward_hook(lambda *_: calls.append("cell"))  # by ncps never called
    rnn.rnn_cell.w.register_hook(lambda grad: calls.append("w"))
    rnn.register_state_dict_post_hook(lambda *_: calls.append("state"))
    x = torch.randn(3, 5, I)

    def record() -> list[str]:
        calls.clear()
        model(x).sum().backward()
        model.state_dict()
        return sorted(calls)

    expected = record()
    accelerate(model)
    assert record() == expected
    assert set(expected) == {"before", "after", "gradient", "w", "state"}


class CustomLTC(ncps.torch.LTC):
    def forward(self, input: Tensor, hx: Any = None, timespans: Any = None) -> Any:
        output, hx = super().forward(input, hx, timespans)
        return output + 1, hx


class CustomCell(ncps.torch.LTCCell):
    def _sigmoid(self, v_pre: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
        return super()._sigmoid(v_pre, mu, 2 * sigma)


def custom_cell(layer: Any) -> None:
    layer.rnn_cell.__class__ = CustomCell


def replaced_forward(layer: Any) -> None:
    forward = layer.forward
    layer.forward = lambda *arguments: (forward(*arguments)[0] + 1, None)


def replaced_sigmoid(layer: Any) -> None:
    layer.rnn_cell._sigmoid = lambda v, mu, sigma: torch.tanh(v.unsqueeze(-1) * sigma)


def replaced_function(layer: Any) -> None:
    layer.rnn_cell.make_positive_fn = nn.ReLU()


def steeper_function(layer: Any) -> None:
    layer.rnn_cell.make_positive_fn = nn.Softplus(beta=2)


def replaced_memory(layer: Any) -> None:
    layer.lstm.tanh = nn.Hardtanh()


def hook_in_the_memory(layer: Any) -> None:
    layer.lstm.input_map.register_forward_hook(lambda m, i, output: output * 2)


def hook_on_the_memory(layer: Any) -> None:
    layer.lstm.register_forward_hook(lambda m, i, output: (output[0] * 2, output[1]))


def hook_in_the_cell(layer: Any) -> None:
    layer.rnn_cell.make_positive_fn.register_forward_hook(lambda m, i, output: output * 2)


def trained_mask(layer: Any) -> None:
    layer.rnn_cell.sparsity_mask.requires_grad_()


def other_activation(layer: Any) -> None:
    layer.rnn_cell.backbone[1] = nn.ELU()


def other_gelu(layer: Any) -> None:
    layer.rnn_cell.backbone[1] = nn.GELU(approximate="tanh")


def longer_backbone(layer: Any) -> None:
    layer.rnn_cell.backbone.append(nn.Tanh())


def hook_in_the_backbone(layer: Any) -> None:
    layer.rnn_cell.backbone[0].register_forward_hook(lambda m, i, output: output * 2)


def other_projection(layer: Any) -> None:
    layer.fc = nn.Softmax(-1)


def hook_on_the_projection(layer: Any) -> None:
    layer.fc.register_forward_hook(lambda m, i, output: output * 2)


def other_wired_cell(layer: Any) -> None:
    layer.rnn_cell._layers[0] = copy.deepcopy(layer.rnn_cell._layers[0])
    layer.rnn_cell._layers[0].ff1.weight.data += 1


def trained_wired_mask(layer: Any) -> None:
    layer.rnn_cell.layer_1.sparsity_mask.requires_grad_()


def fractional_wired_mask(layer: Any) -> None:
    layer.rnn_cell.layer_1.sparsity_mask.data *= 0.5


def fractional_mask(layer: Any) -> None:
    layer.rnn_cell.sparsity_mask.data *= 0.5


def assigned_state(layer: Any) -> None:
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)


def no_map(layer: Any) -> None:
    layer.rnn_cell._input_mapping = None


CHANGES = {
    custom_cell: "its rnn_cell is of the class CustomCell",
    replaced_forward: "its method forward has been replaced",
    replaced_sigmoid: "of its rnn_cell: its method _sigmoid has been replaced",
    replaced_function: "of its rnn_cell: its make_positive_fn is of the class ReLU",
    steeper_function: "of its rnn_cell: its make_positive_fn is Softplus(beta=2",
    replaced_memory: "of its lstm: its tanh is of the class Hardtanh",
    hook_in_the_memory: "of its lstm: its input_map has a hook",
    hook_on_the_memory: "its lstm has a hook",
    hook_in_the_cell: "of its rnn_cell: its make_positive_fn has a hook",
    trained_mask: "of its rnn_cell: its sparsity_mask is trained",
    fractional_mask: "of its rnn_cell: sparsity_mask: expected 0 or 1",
    assigned_state: "of its rnn_cell: its _params['gleak'], which ncps computes with, is not",
    no_map: "of its rnn_cell: its _input_mapping None does not fit input_w",
}


CFC_CHANGES = {
    other_activation: "of its rnn_cell: its backbone[1] is of the class ELU",
    other_gelu: "of its rnn_cell: its backbone[1] is approximate",
    longer_backbone: "of its rnn_cell: its backbone has other modules than it is made with",
    hook_in_the_backbone: "of its rnn_cell: its backbone has a hook",
    other_projection: "its fc is of the class Softmax",
    hook_on_the_projection: "its fc has a hook",
    other_wired_cell: "of its rnn_cell: its _layers, which ncps computes with, are not",
    trained_wired_mask: "of its rnn_cell: of its layer_1: its sparsity_mask is trained",
    fractional_wired_mask: "of its layer_1: sparsity_mask: expected 0 or 1",
}


@pytest.mark.parametrize("change", {**CHANGES, **CFC_CHANGES}, ids=lambda change: change.__name__)
def test_what_fastltc_would_not_follow_is_left_alone(change: Callable[[Any], None]) -> None:
    if change in CHANGES:
        mixed = "memory" in change.__name__
        model = nn.Sequential(ncps.torch.LTC(I, AutoNCP(N, 2), mixed_memory=mixed))
    elif "wired" in change.__name__:
        model = nn.Sequential(ncps.torch.CfC(I, AutoNCP(N, 2)))
    else:
        model = nn.Sequential(ncps.torch.CfC(I, N))
    change(model[0])
    x = torch.randn(3, 5, I)
    expected, classes = model(x)[0], [type(module) for module in model.modules()]
    report = accelerate(model)
    assert {**CHANGES, **CFC_CHANGES}[change] in report.left_alone["0"]
    assert not report.swapped
    assert [type(module) for module in model.modules()] == classes
    assert torch.equal(model(x)[0], expected)


def test_subclasses_are_left_alone_with_their_cells() -> None:
    model = nn.Sequential(CustomLTC(I, AutoNCP(N, 2)))
    model[0].extra = ncps.torch.LTC(I, 5)
    model.cell = CustomCell(FullyConnected(3), 2)
    x = torch.randn(3, 5, I)
    expected = model[0](x)[0]
    report = accelerate(model)
    assert "CustomLTC, a subclass of ncps.torch.LTC, may" in report.left_alone["0"]
    assert "a part of 0, which is left alone" in report.left_alone["0.rnn_cell"]
    assert "CustomCell, a subclass of ncps.torch.LTCCell" in report.left_alone["cell"]
    assert report.swapped == {"0.extra": "LTC", "0.extra.rnn_cell": "LTCCell"}
    assert type(model[0]) is CustomLTC
    assert type(model[0].rnn_cell) is ncps.torch.LTCCell
    assert type(model.cell) is CustomCell
    assert torch.equal(model[0](x)[0], expected)


def test_cells_of_cells_are_left_alone_with_a_subclass() -> None:
    class CustomCfC(ncps.torch.CfC):
        pass

    model = CustomCfC(I, AutoNCP(N, 2))
    report = accelerate(model)
    cells = [f"rnn_cell{layer}" for layer in ("", ".layer_0", ".layer_1", ".layer_2")]
    assert "CustomCfC, a subclass of ncps.torch.CfC" in report.left_alone[""]
    for cell in cells:
        assert report.left_alone[cell] == "a part of the model, which is left alone"
    assert not report.swapped
    assert type(model.rnn_cell.layer_0) is ncps.torch.CfCCell


def test_modules_on_a_device_without_kernels_are_left_alone(monkeypatch: Any) -> None:
    kernels = torch._C._dispatch_has_kernel_for_dispatch_key
    asked = []

    def no_kernels(operator: str, key: str) -> bool:
        asked.append((operator, key, kernels(operator, key)))
        return False

    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", no_kernels)
    report = accelerate(LAYERS["LTC"]())
    assert report.left_alone["rnn_cell"] == "it is on cpu, for which fastltc has no kernels"
    assert set(asked) == {("fastltc::ltc_forward", "CPU", True)}


def test_shared_modules_stay_shared() -> None:
    model = nn.Module()
    model.first = ncps.torch.LTC(I, AutoNCP(N, 2))
    model.again = model.first
    model.cell = model.first.rnn_cell
    model.other = ncps.torch.LTC(I, AutoNCP(N, 2))
    model.other.rnn_cell = model.cell
    report = accelerate(model)
    assert not report.left_alone
    assert len(report.swapped) == 7
    assert model.first is model.again
    assert model.first.rnn_cell is model.cell is model.other.rnn_cell
    x = torch.randn(3, 5, I)
    assert torch.equal(model.first(x)[0], model.other(x)[0])


@pytest.mark.parametrize("first", ["swapped", "left"])
def test_a_cell_shared_with_a_layer_that_is_left_alone(first: str) -> None:
    layers = {"swapped": ncps.torch.LTC(I, 5), "left": CustomLTC(I, 5)}
    layers["swapped"].rnn_cell = layers["left"].rnn_cell
    order = [first, *(layers.keys() - {first})]
    model = nn.ModuleDict({name: layers[name] for name in order})
    report = accelerate(model)
    assert not report.swapped
    assert "shares a cell with left" in report.left_alone["swapped"]
    assert type(model["left"].rnn_cell) is ncps.torch.LTCCell


@pytest.mark.parametrize("layer", LAYERS)
def test_copies_and_pickles_of_swapped_modules(layer: str) -> None:
    model = Model(LAYERS[layer])
    accelerate(model)
    model.eval()
    x = torch.randn(3, 5, I)
    expected = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for copied in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert type(copied.rnn) is type(model.rnn) is getattr(conversions, layer.split(",")[0])
        assert torch.equal(copied(x), expected)
        with torch.no_grad():
            for parameter in copied.rnn.rnn_cell.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1)
                else:
                    parameter.zero_()
        assert not torch.equal(copied(x), expected)
        assert torch.equal(model(x), expected)


def other_state(layer: nn.Module) -> dict[str, Tensor]:
    """Return a state with other masks and other parameters."""
    state = {n: v + 0.1 * torch.rand_like(v) for n, v in layer.state_dict().items()}
    for name, value in state.items():
        if name.endswith("_mask"):
            state[name] = (torch.rand_like(value) < 0.5).to(value)
    return state


@pytest.mark.parametrize("layer", LAYERS)
def test_state_dicts_load_both_ways(layer: str, float64_default: None) -> None:
    x = torch.randn(3, 2, I)
    for source, target in ((0, 1), (1, 0), (1, 1)):
        pair = [LAYERS[layer](), LAYERS[layer]()]
        for module, swap in zip(pair, (source, target), strict=True):
            if swap:
                accelerate(module)
                module(x)  # and so its synapse lists are in use
        saved, loaded = map(without_dropout, pair)
        saved.load_state_dict(other_state(saved), strict=True)
        file = io.BytesIO()
        torch.save(saved.state_dict(), file)
        file.seek(0)
        loaded.load_state_dict(torch.load(file, weights_only=True), strict=True)
        check_twins(saved, loaded, x)


@pytest.mark.usefixtures("float64_default")
def test_pickles_made_of_ncps_keep_loading() -> None:
    x = torch.randn(3, 5, I)
    layer = LAYERS["LTC, mixed memory"]()
    pickled = pickle.dumps(layer)
    expected = layer(x)[0]
    accelerate(layer)  # the class must not change for the pickle
    with patch_ncps():
        loaded = pickle.loads(pickled)
    assert type(loaded) is ncps.torch.LTC
    assert torch.equal(loaded(x)[0], expected)
    assert accelerate(loaded).swapped.keys() == {"", "rnn_cell"}
    torch.testing.assert_close(loaded(x)[0], expected)


@pytest.mark.usefixtures("float64_default")
def test_functional_call_and_assigned_states() -> None:
    layer = LAYERS["LTC"]()
    accelerate(layer)
    x = torch.randn(3, 5, I)
    state = other_state(layer)
    expected = functional_call(layer, state, x)[0]
    assert not torch.equal(layer(x)[0], expected)
    layer.load_state_dict(state, assign=True)
    torch.testing.assert_close(layer(x)[0], expected)
    assert layer.rnn_cell._params["w"] is layer.rnn_cell.w


@pytest.mark.usefixtures("float64_default")
def test_inside_wrappers() -> None:
    x = torch.randn(3, 5, I)
    for wrap in (nn.DataParallel, torch.optim.swa_utils.AveragedModel):
        wrapped = wrap(Model(LAYERS["LTC"]))
        expected = wrapped(x)
        assert "module.blocks.0.rnn" in accelerate(wrapped).swapped
        torch.testing.assert_close(wrapped(x), expected)


def test_replicas_as_data_parallel_makes_them() -> None:
    layer = LAYERS["LTC"]()
    accelerate(layer)
    x = torch.randn(3, 5, I)
    replica, cell = layer._replicate_for_data_parallel(), layer.rnn_cell
    replica._modules["rnn_cell"] = copied = cell._replicate_for_data_parallel()
    for name, parameter in cell.named_parameters():
        setattr(copied, name, parameter * 1)
    assert torch.equal(replica(x)[0], layer(x)[0])


@pytest.mark.usefixtures("float64_default", "process_group")
def test_inside_distributed_data_parallel() -> None:
    wrapped = nn.parallel.DistributedDataParallel(Model(LAYERS["LTC"]))
    x = torch.randn(3, 5, I)
    wrapped(x).sum().backward()
    expected = {name: p.grad for name, p in wrapped.named_parameters() if p.requires_grad}
    wrapped.zero_grad()
    assert "module.blocks.0.rnn" in accelerate(wrapped).swapped
    wrapped(x).sum().backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(wrapped.get_parameter(name).grad, gradient)


def test_compiled_without_a_graph_break() -> None:
    layer = LAYERS["LTC"]()
    accelerate(layer)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    x = torch.randn(3, 5, I)
    assert torch.equal(compiled(x)[0], layer(x)[0])


@pytest.mark.usefixtures("float64_default")
def test_on_the_meta_device() -> None:
    with torch.device("meta"):
        layer = ncps.torch.LTC(I, AutoNCP(N, 2)).to("meta")
    assert not accelerate(layer).left_alone
    theirs = LAYERS["LTC"]()
    layer.load_state_dict(theirs.state_dict(), assign=True)
    x = torch.randn(3, 5, I)
    torch.testing.assert_close(layer(x)[0], theirs(x)[0])


@pytest.mark.usefixtures("float64_default")
def test_methods_that_only_ncps_has_are_still_there() -> None:
    cell = CELLS["LTCCell"]()
    swapped = copy.deepcopy(cell)
    accelerate(swapped)
    x = torch.randn(3, I)
    assert torch.equal(swapped._map_inputs(x), cell._map_inputs(x))
    state = torch.rand(3, N)
    expected = cell._ode_solver(x, state, 1.0)
    torch.testing.assert_close(swapped._ode_solver(x, state, 1.0), expected)


@pytest.mark.parametrize("patched", [False, True])
def test_the_class_of_a_swapped_module_makes_more_of_them(patched: bool) -> None:
    layer = LAYERS["LTC, mixed memory"]()
    accelerate(layer)
    wiring = AutoNCP(N, 2)
    wiring.build(I)
    torch.manual_seed(3)
    if patched:
        with patch_ncps():
            made = type(layer)(I, FullyConnected(5), mixed_memory=True)
    else:
        made = type(layer)(I, FullyConnected(5), mixed_memory=True)
    torch.manual_seed(3)
    expected = ncps.torch.LTC(I, made._wiring, mixed_memory=True)
    assert type(made) is type(layer)
    assert made(torch.randn(2, 3, I))[0].shape == (2, 3, 5)
    assert torch.equal(made.lstm.input_map.weight, expected.lstm.input_map.weight)


def test_reports() -> None:
    model = nn.Sequential(ncps.torch.LTC(3, 8), CustomLTC(3, 8))
    lines = str(accelerate(model)).splitlines()
    assert lines[:3] == [
        "2 modules of ncps swapped, 2 left alone",
        "  0: LTC",
        "  0.rnn_cell: LTCCell",
    ]
    assert lines[3].startswith("  1 left alone: CustomLTC, a subclass of ncps.torch.LTC, may")
    again = accelerate(model)
    assert not again.swapped
    assert again.left_alone.keys() == {"1", "1.rnn_cell"}
    assert str(accelerate(nn.Linear(1, 1))) == "0 modules of ncps swapped, 0 left alone"
    assert not accelerate(nn.Sequential(fastltc.LTC(3, 8))).swapped


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got list"):
        accelerate([ncps.torch.LTC(3, 8)])


# patch_ncps


@pytest.fixture(autouse=True)
def nothing_stays_patched() -> Any:
    constructors = [theirs.__init__ for theirs in conversions.NCPS_CLASSES]
    yield
    assert [theirs.__init__ for theirs in conversions.NCPS_CLASSES] == constructors
    assert not patch._active


def is_swapped(module: nn.Module) -> bool:
    return isinstance(module, conversions.OUR_CLASSES)


@pytest.mark.parametrize("name", [*LAYERS, *CELLS])
def test_patched_ncps_draws_what_it_draws_otherwise(name: str) -> None:
    make = (LAYERS | CELLS)[name]
    torch.manual_seed(5)
    theirs, next_draw = make(), torch.rand(3)
    torch.manual_seed(5)
    with patch_ncps() as patch:
        swapped = make()
    assert torch.equal(torch.rand(3), next_draw)
    assert is_swapped(swapped)
    assert patch.swapped == {type(theirs).__name__: 1}
    expected = theirs.state_dict()
    assert list(swapped.state_dict()) == list(expected)
    # FullyConnected draws its polarities from numpy.
    assert all(
        torch.equal(value, expected[key])
        for key, value in swapped.state_dict().items()
        if "erev" not in key or "Auto" in name
    )


@pytest.mark.usefixtures("float64_default")
def test_a_wiring_used_twice_gives_the_layers_ncps_makes_of_it() -> None:
    layers = []
    for patched in (False, True):
        wiring = AutoNCP(N, 2)
        if patched:
            with patch_ncps():
                layers.append([ncps.torch.LTC(I, wiring) for _ in range(2)])
        else:
            layers.append([ncps.torch.LTC(I, wiring) for _ in range(2)])
    for theirs, swapped in zip(*layers, strict=True):
        swapped.load_state_dict({**theirs.state_dict(), **swapped.state_dict()})
        for name in ("sparsity_mask", "sensory_sparsity_mask", "erev"):
            expected = getattr(theirs.rnn_cell, name)
            assert torch.equal(getattr(swapped.rnn_cell, name), expected)
        theirs.load_state_dict(swapped.state_dict())
        x = torch.randn(3, 5, I)
        torch.testing.assert_close(swapped(x)[0], theirs(x)[0])


def test_names_imported_before_are_patched_too() -> None:
    with patch_ncps():
        layer = ImportedLTC(I, 5)
    assert is_swapped(layer)
    assert is_swapped(layer.rnn_cell)
    assert isinstance(layer, ImportedLTC)
    assert not is_swapped(ImportedLTC(I, 5))


def test_a_plain_call_holds_until_undone() -> None:
    patch = patch_ncps()
    try:
        assert is_swapped(ncps.torch.LTC(I, 5))
    finally:
        patch.undo()
    patch.undo()
    assert not is_swapped(ncps.torch.LTC(I, 5))


@pytest.mark.parametrize("first", [0, 1])
def test_patches_nest_in_any_order(first: int) -> None:
    patches = [patch_ncps(), patch_ncps()]
    patches.pop(first).undo()
    assert is_swapped(ncps.torch.LTC(I, 5))
    patches.pop().undo()
    assert not is_swapped(ncps.torch.LTC(I, 5))
    with patch_ncps(), patch_ncps():
        pass


def test_an_exception_ends_the_patch() -> None:
    with pytest.raises(KeyError), patch_ncps():
        raise KeyError
    assert not is_swapped(ncps.torch.LTC(I, 5))


def test_an_exception_in_the_making_spoils_nothing() -> None:
    with patch_ncps() as patch:
        with pytest.raises(ValueError, match="Unknown number of input features"):
            ncps.torch.LTCCell(AutoNCP(N, 2))
        with pytest.raises(TypeError):
            ncps.torch.LTC()
        assert is_swapped(ncps.torch.LTC(I, 5))
    assert patch.swapped == {"LTC": 1}


def test_a_patch_by_somebody_else_on_top_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    with patch_ncps():
        below = ncps.torch.LTC.__init__

        def on_top(self: Any, *args: Any, **kwargs: Any) -> None:
            below(self, *args, **kwargs)
            made.append(self)

        monkeypatch.setattr(ncps.torch.LTC, "__init__", on_top)
        assert is_swapped(ncps.torch.LTC(I, 5))
    assert ncps.torch.LTC.__init__ is on_top
    assert not is_swapped(ncps.torch.LTC(I, 5))
    assert len(made) == 2
    monkeypatch.undo()
    ncps.torch.LTC.__init__ = below.__wrapped__


def test_subclasses_made_under_the_patch_are_left_alone() -> None:
    with patch_ncps() as patch:

        class Late(ncps.torch.LTC):
            def __init__(self) -> None:
                super().__init__(I, AutoNCP(N, 2))
                self.extra = ncps.torch.LTC(I, 5)

        late, custom = Late(), CustomCell(FullyConnected(3), 2)
    assert type(late) is Late
    assert type(late.rnn_cell) is ncps.torch.LTCCell
    assert is_swapped(late.extra)
    assert type(custom) is CustomCell
    assert patch.swapped == {"LTC": 1}
    assert len(patch.left_alone) == 2
    assert "1 x left alone: " in str(patch)
    assert "Late, a subclass of ncps.torch.LTC" in str(patch)
    late(torch.randn(2, 3, I))


def test_a_wiring_without_motor_neurons_is_left_to_ncps() -> None:
    with patch_ncps() as patch:
        cell = ncps.torch.LTCCell(Wiring(5), 3, output_mapping=None)
    assert type(cell) is ncps.torch.LTCCell
    assert patch.left_alone == {"its wiring has None motor neurons": 1}
    assert str(patch) == "1 x left alone: its wiring has None motor neurons"
