"""What a user puts into a layer takes part, as it does in ncps."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import ncps.torch
import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

import fastltc
from fastltc._extension import load_runtime

INPUTS, B, T = 3, 4, 5

KINDS: dict[str, Callable[[Any], Any]] = {
    "CfC": lambda module: module.CfC(INPUTS, 8, proj_size=2, backbone_units=6, backbone_layers=2),
    "pure": lambda module: module.CfC(INPUTS, 8, mode="pure", activation="gelu", backbone_units=6),
    "no gate": lambda module: module.CfC(
        INPUTS, 8, mode="no_gate", mixed_memory=True, backbone_units=6
    ),
    "wired": lambda module: module.CfC(INPUTS, AutoNCP(9, 2, seed=3), mixed_memory=True),
    "wired pure": lambda module: module.CfC(
        INPUTS, AutoNCP(9, 2, seed=3), mode="pure", proj_size=3
    ),
    "LTC": lambda module: module.LTC(INPUTS, AutoNCP(9, 2, seed=3)),
    "LTC, mixed memory": lambda module: module.LTC(INPUTS, 5, mixed_memory=True),
}


class LowRank(nn.Linear):
    """A linear layer and a product of two narrow ones, as adapters have them."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.load_state_dict(linear.state_dict())
        self.down = nn.Parameter(0.3 * torch.randn(2, linear.in_features))
        self.up = nn.Parameter(0.3 * torch.randn(linear.out_features, 2))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + input @ self.down.T @ self.up.T


class Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


class DropConnect(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return nn.functional.dropout(value, 0.5)


def heads(layer: Any) -> list[nn.Linear]:
    """The linear layers to change: of each cell one that every mode has and, if any, another."""
    cells = [m for m in layer.rnn_cell.modules() if hasattr(m, "ff1")]
    found = [cell.ff1 for cell in cells] + [c.time_b for c in cells if hasattr(c, "time_b")]
    return found + [m for c in cells[:1] if c.backbone for m in c.backbone if hasattr(m, "weight")]


def replace(layer: Any, old: nn.Module, new: nn.Module) -> None:
    for module in layer.modules():
        for name, child in list(module._modules.items()):
            if child is old:
                setattr(module, name, new)


def each(change: Callable[[nn.Linear], Any]) -> Callable[[Any], None]:
    def apply(layer: Any) -> None:
        for linear in heads(layer):
            change(linear)

    return apply


def low_rank(layer: Any) -> None:
    for linear in heads(layer):
        replace(layer, linear, LowRank(linear).double())


def replaced_forward(linear: Any) -> None:
    linear.forward = lambda input: 0.5 * nn.functional.linear(input, linear.weight, linear.bias)


def activations(layer: Any) -> None:
    cell = next(m for m in layer.modules() if hasattr(m, "ff1"))
    cell.tanh = nn.Hardtanh()
    cell.sigmoid = nn.Hardsigmoid()
    if cell.backbone:
        cell.backbone[1] = nn.SELU()


def normalised_backbone(layer: Any) -> None:
    cell = next(m for m in layer.modules() if hasattr(m, "ff1"))
    if cell.backbone:
        cell.backbone.append(nn.LayerNorm(6).double())
    else:
        cell.time_a = nn.Sequential(cell.time_a, nn.LayerNorm(cell.hidden_size).double())


def hooked_activations(layer: Any) -> None:
    cell = next(m for m in layer.modules() if hasattr(m, "ff1"))
    for module in (cell.tanh, cell.sigmoid, *(cell.backbone or ())):
        module.register_forward_hook(lambda module, args, result: 0.9 * result)


def other_projection(layer: Any) -> None:
    layer.fc = nn.Sequential(
        nn.Linear(layer.output_size, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU()
    ).double()


CHANGES: dict[str, Callable[[Any], None]] = {
    "low rank": low_rank,
    "spectral norm": each(parametrizations.spectral_norm),
    "old spectral norm": each(spectral_norm),
    "weight norm": each(parametrizations.weight_norm),
    "old weight norm": each(lambda m: warning_free(weight_norm, m)),
    "pruned": each(lambda m: prune.l1_unstructured(m, "weight", 0.4)),
    "parametrized": each(lambda m: parametrize.register_parametrization(m, "bias", Doubled())),
    "drop connect": each(
        lambda m: parametrize.register_parametrization(m, "weight", DropConnect())
    ),
    "forward hook": each(lambda m: m.register_forward_hook(lambda m, args, result: 2 * result)),
    "forward pre-hook": each(lambda m: m.register_forward_pre_hook(lambda m, args: 0.5 * args[0])),
    "backward hook": each(
        lambda m: m.register_full_backward_hook(
            lambda m, gx, gy: (None if gx[0] is None else 3 * gx[0],)
        )
    ),
    "backward pre-hook": each(
        lambda m: m.register_full_backward_pre_hook(lambda m, gy: (3 * gy[0],))
    ),
    "replaced forward": each(replaced_forward),
    "no bias": each(lambda m: setattr(m, "bias", None)),
    "activations": activations,
    "hooked activations": hooked_activations,
    "layer norm": normalised_backbone,
    "projection": other_projection,
}


def warning_free(function: Callable[..., Any], *arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


def positive_hook(cell: Any) -> None:
    cell.make_positive_fn.register_forward_hook(lambda module, args, result: 1.5 * result)


def positive_function(cell: Any) -> None:
    cell.make_positive_fn = nn.ELU(0.5)


def other_softplus(cell: Any) -> None:
    cell.make_positive_fn.beta = 3.0


LTC_CHANGES: dict[str, Callable[[Any], None]] = {
    "spectral norm": lambda cell: parametrizations.spectral_norm(cell, "w"),
    "old spectral norm": lambda cell: spectral_norm(cell, "w"),
    "weight norm": lambda cell: parametrizations.weight_norm(cell, "sensory_w"),
    "old weight norm": lambda cell: warning_free(weight_norm, cell, "sensory_w"),
    "pruned": lambda cell: prune.l1_unstructured(cell, "w", 0.4),
    "pruned map": lambda cell: prune.l1_unstructured(cell, "input_w", 1),
    "parametrized": lambda cell: parametrize.register_parametrization(cell, "cm", Doubled()),
    "positive hook": positive_hook,
    "positive function": positive_function,
    "softplus": other_softplus,
}

# A wired cell of mode "pure" has no activations and no gates.
CASES = [
    (kind, name)
    for kind in KINDS
    for name in (LTC_CHANGES if "LTC" in kind else CHANGES)
    if kind != "wired pure" or name not in ("activations", "hooked activations", "layer norm")
]


class LiveParameters(dict[str, Tensor]):
    """The ``_params`` of ncps, if it followed what torch puts in the place of a parameter."""

    def __init__(self, cell: nn.Module) -> None:
        self.cell = cell

    def __missing__(self, name: str) -> Tensor:
        # Once a call: see recompute.
        self[name] = value = getattr(self.cell, name)
        return value


def change(layer: Any, name: str) -> None:
    torch.manual_seed(1)
    if "LTC" in type(layer).__name__:
        LTC_CHANGES[name](layer.rnn_cell)
    else:
        CHANGES[name](layer)


def follow(layer: Any) -> Any:
    """Have ncps follow what it takes no notice of, or fails with in the second step."""
    cells = [m for m in layer.modules() if isinstance(m, ncps.torch.LTCCell)]
    for cell in cells:
        cell._params = LiveParameters(cell)
    masked = [cell for cell in layer.modules() if getattr(cell, "sparsity_mask", None) is not None]
    linears = [linear for c in masked for n, linear in c.named_children() if n in ("ff1", "ff2")]

    def recompute(module: nn.Module, args: Any) -> None:
        for cell in cells:
            cell._params.clear()
        for inner in (*cells, *linears):
            for hook in list(inner._forward_pre_hooks.values()):
                if isinstance(hook, (prune.BasePruningMethod, WeightNorm)) or (
                    isinstance(hook, SpectralNorm) and inner in cells
                ):
                    hook(inner, None)

    layer.register_forward_pre_hook(recompute)
    return layer


def train(layer: Any, x: Tensor, steps: int = 3) -> list[Tensor]:
    """Return the outputs of some training steps, the gradients and the values they end with."""
    optimizer = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.05)
    results = []
    n = layer.state_size
    hx: Any = torch.zeros(B, n, dtype=x.dtype)
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        output, hn = layer(x, (hx, hx) if layer.use_mixed else hx)
        (output.square().sum() + sum(h.sum() for h in (hn if layer.use_mixed else [hn]))).backward()
        results += [output.detach().clone()]
        optimizer.step()
    named = sorted(layer.named_parameters())
    results += [p.grad for _, p in named if p.grad is not None]
    return results + [p.detach() for _, p in named]


def pair(kind: str) -> tuple[Any, Any, Tensor]:
    """Return a layer of ncps, one of fastltc with its values, and an input, in float64."""
    torch.manual_seed(0)
    theirs, ours = KINDS[kind](ncps.torch).double(), KINDS[kind](fastltc).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, torch.randn(B, T, INPUTS, dtype=torch.float64)


def compare(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-10)


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """The warning of the slow way has a test of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*runs step by step through its modules")
        warnings.filterwarnings("ignore", ".*it counts in fastltc, but would not in ncps")
        yield


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("way", ["fastltc", "accelerated", "made under the patch", "late"])
def test_a_changed_layer_trains_as_in_ncps(kind: str, name: str, way: str) -> None:
    theirs, ours, x = pair(kind)
    if way == "accelerated":
        ours = copy.deepcopy(theirs)
        fastltc.accelerate(ours)
    elif way == "made under the patch":
        with fastltc.patch_ncps() as patch:
            ours = KINDS[kind](ncps.torch).double()
        assert patch.swapped
        ours.load_state_dict(theirs.state_dict())
    elif way == "late":  # after a call of the layer as it was
        ours(x)
    change(theirs, name)
    change(ours, name)
    expected = train(follow(theirs), x)
    compare(train(ours, x), expected)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_layer_that_was_changed_before_is_left_alone(kind: str, name: str) -> None:
    layer, _, _ = pair(kind)
    change(layer, name)
    report = fastltc.accelerate(nn.ModuleList([layer]))
    assert "0" in report.left_alone
    assert type(layer) in (ncps.torch.CfC, ncps.torch.LTC)


@pytest.mark.parametrize("kind", ["CfC", "pure", "no gate"])
def test_a_quantized_layer(kind: str) -> None:
    theirs, ours, x = pair(kind)
    theirs, ours, x = theirs.float().eval(), ours.float().eval(), x.float()
    accelerated = copy.deepcopy(theirs)
    fastltc.accelerate(accelerated)
    quantized = [
        warning_free(torch.ao.quantization.quantize_dynamic, layer, {nn.Linear})
        for layer in (theirs, ours, accelerated)
    ]
    expected, *others = (layer(x)[0] for layer in quantized)
    for output in others:
        torch.testing.assert_close(output, expected)
    assert not torch.allclose(expected, ours(x)[0], rtol=1e-6, atol=1e-7)


def test_a_quantized_head_under_a_mask_is_refused_clearly() -> None:
    _, ours, x = pair("wired")
    quantized = warning_free(
        torch.ao.quantization.quantize_dynamic, ours.float().eval(), {nn.Linear}
    )
    with pytest.raises(TypeError, match="ff1: expected a module with a weight"):
        quantized(x.float())


@pytest.mark.parametrize("kind", ["CfC", "no gate", "wired", "wired pure"])
def test_what_a_changed_layer_takes_is_what_others_take(kind: str) -> None:
    """Lengths, packed sequences, time steps, layouts and empty inputs, against one plain layer."""
    _, plain, x = pair(kind)
    changed = copy.deepcopy(plain)
    for linear in heads(changed):  # a hook that changes nothing
        linear.register_forward_hook(lambda module, args, result: None)
    dt, lengths = torch.rand(B, T, dtype=x.dtype), torch.tensor([3, 0, T, 1])
    neurons = torch.rand(B, T, plain.state_size, dtype=x.dtype)
    packed = nn.utils.rnn.pack_padded_sequence(
        x, torch.tensor([3, 1, T, 1]), batch_first=True, enforce_sorted=False
    )
    calls: list[tuple[Any, dict[str, Any]]] = [
        (x, {}),
        (x, {"timespans": dt}),
        (x, {"timespans": neurons}),
        (x, {"timespans": 0.3, "lengths": lengths}),
        (x, {"timespans": dt, "lengths": lengths}),
        (packed, {}),
        (packed, {"timespans": dt}),
        (x[0], {"timespans": dt[0]}),
        (x[:0], {}),
        (x[:, :0], {}),
        (x[:, :1], {}),
        (x[:, :1], {"timespans": neurons[:, :1]}),
    ]
    for sequences in (True, False):
        for batch_first in (True, False):
            for input, options in calls:
                turned = not batch_first and isinstance(input, Tensor) and input.dim() == 3
                if turned:
                    input = input.transpose(0, 1)
                spans = options.get("timespans")
                if isinstance(spans, Tensor) and not batch_first and spans.dim() > 1:
                    options = {**options, "timespans": spans.transpose(0, 1)}
                results = []
                for layer in (plain, changed):
                    layer.return_sequences, layer.batch_first = sequences, batch_first
                    output, hn = layer(input, **options)
                    results.append((getattr(output, "data", output), *hn))
                torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_a_bad_time_step_or_length_is_refused() -> None:
    _, layer, x = pair("CfC")
    layer.rnn_cell.ff1.register_forward_hook(lambda module, args, result: None)
    with pytest.raises(ValueError, match="timespans: expected"):
        layer(x, timespans=-torch.ones(B, T))
    with pytest.raises(ValueError, match="lengths: expected"):
        layer(x, lengths=torch.tensor([1, 2, 3, T + 1]))
    with pytest.raises(TypeError, match=r"input: expected torch\.float64"):
        layer(x.float())


def test_the_slow_way_warns_once_and_ends_with_its_reason() -> None:
    _, layer, x = pair("wired pure")
    fast = layer(x)[0]
    handle = layer.rnn_cell.layer_0.ff1.register_forward_hook(lambda module, args, result: None)
    with pytest.warns(UserWarning, match="WiredCfCCell runs step by step .* its ff1 has a hook"):
        layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)
        handle.remove()
        assert torch.equal(layer(x)[0], fast)


def test_a_pruned_parameter_of_a_swapped_cell_warns_once() -> None:
    layer, _, x = pair("LTC")
    fastltc.accelerate(layer)
    prune.l1_unstructured(layer.rnn_cell, "w", 0.5)
    with pytest.warns(UserWarning, match="w of an LTCCell is pruned, .* would not in ncps"):
        layer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(x)


def test_a_hook_on_all_modules_sees_those_inside_a_cell() -> None:
    _, layer, x = pair("CfC")
    layer(x)
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, result: seen.append(module)
    )
    try:
        layer(x)
    finally:
        handle.remove()
    assert seen.count(layer.rnn_cell.ff1) == T
    seen.clear()
    layer(x)
    assert not seen


def test_copies_look_for_themselves() -> None:
    _, layer, x = pair("CfC")
    expected = layer(x)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):
        assert torch.equal(other(x)[0], expected)
        handle = other.rnn_cell.ff1.register_forward_hook(lambda module, args, result: 2 * result)
        assert not torch.allclose(other(x)[0], expected)
        handle.remove()
    assert torch.equal(layer(x)[0], expected)


class Sum(nn.Module):
    """A cell of one's own."""

    def __init__(self, inputs: int, neurons: int) -> None:
        super().__init__()
        self.map = nn.Linear(inputs, neurons)

    def forward(self, input: Tensor, hx: Tensor, ts: Any) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.map(input)) * ts + 0.5 * hx
        return h[:, :2], h


@pytest.mark.parametrize("kind", ["CfC", "LTC", "LTC, mixed memory"])
def test_a_cell_of_ones_own_is_called(kind: str) -> None:
    theirs, ours, x = pair(kind)
    cell = Sum(INPUTS, theirs.state_size).double()
    for layer in (theirs, ours):
        layer.rnn_cell = copy.deepcopy(cell)
        if hasattr(layer, "fc"):
            layer.fc = nn.Identity()
    compare(train(ours, x), train(theirs, x))
    ours(x, lengths=torch.tensor([0, 1, 2, T]))
    ours.return_sequences = False
    with pytest.raises(ValueError, match="input: expected T of 1 or more"):
        ours(x[:, :0])


@pytest.mark.parametrize("kind", ["CfC", "wired", "LTC"])
def test_another_forward_of_a_cell_is_called(kind: str) -> None:
    theirs, ours, x = pair(kind)
    for layer in (theirs, ours):
        plain = layer.rnn_cell.forward

        def forward(*args: Any, plain: Any = plain) -> Any:
            output, state = plain(*args)
            return 2 * output, state

        layer.rnn_cell.forward = forward
    compare(train(ours, x), train(theirs, x))
    _, other, _ = pair(kind)
    other.load_state_dict(ours.state_dict())
    base = type(other.rnn_cell)

    class Mine(base):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any) -> Any:
            output, state = super().forward(*args)
            return 2 * output, state

    other.rnn_cell.__class__ = Mine
    torch.testing.assert_close(other(x), ours(x))


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "drop connect"])
def test_a_loaded_state_counts_after_a_change(name: str) -> None:
    """A weight that was computed once must not stay."""
    _, layer, x = pair("wired")
    change(layer, name)
    layer(x)
    layer.eval()
    before = layer(x)[0]
    state = {k: v if "mask" in k else v + 0.1 for k, v in layer.state_dict().items()}
    layer.load_state_dict(state)
    assert not torch.allclose(layer(x)[0], before)


class Twice(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class TwiceCalled(nn.Linear):
    def __call__(self, input: Tensor) -> Tensor:
        return 2 * super().__call__(input)


def inside_an_activation(layer: Any) -> None:
    layer.rnn_cell.backbone[1].tanh = nn.Hardtanh()


def inner_forward(layer: Any) -> None:
    layer.rnn_cell.backbone[1].tanh.forward = nn.functional.softsign


def another_class(layer: Any) -> None:
    layer.rnn_cell.ff1.__class__ = Twice


def another_call(layer: Any) -> None:
    layer.rnn_cell.ff1.__class__ = TwiceCalled


def another_order(layer: Any) -> None:
    modules = layer.rnn_cell.backbone._modules
    modules["1"] = modules.pop("1")
    modules["0"] = modules.pop("0")
    modules["2"] = modules.pop("2")
    modules["3"] = modules.pop("3")


def weights_as_attributes(layer: Any) -> None:
    linear = layer.rnn_cell.ff1
    weight = 2 * linear.weight.detach()
    del linear.weight
    linear.weight = weight


def other_widths(layer: Any) -> None:
    backbone = layer.rnn_cell.backbone
    torch.manual_seed(3)
    backbone[0] = nn.Linear(backbone[0].in_features, 4).double()
    backbone[2] = nn.Linear(4, 6).double()


def forward_for_an_attribute(layer: Any) -> None:
    linear = layer.rnn_cell.ff1
    linear.tag = 1
    layer(torch.zeros(1, 1, INPUTS, dtype=linear.weight.dtype), torch.zeros(1, 8).double())
    del linear.tag
    linear.forward = lambda input: nn.functional.linear(input, linear.weight)


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize(
    "apply",
    [
        inside_an_activation,
        inner_forward,
        another_class,
        another_call,
        another_order,
        weights_as_attributes,
        other_widths,
        forward_for_an_attribute,
    ],
)
def test_what_is_hard_to_see_is_seen(apply: Callable[[Any], None], warm: bool) -> None:
    theirs, ours, x = pair("CfC")
    hx = torch.zeros(B, 8, dtype=x.dtype)
    if warm:
        ours(x, hx)
    for layer in (theirs, ours):
        apply(layer)
    torch.testing.assert_close(ours(x, hx)[0], theirs(x, hx)[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["CfC", "wired"])
def test_a_hook_on_all_modules_sees_the_projection_at_each_step(kind: str) -> None:
    theirs, ours, x = pair(kind)
    n = theirs.state_size
    hx: Any = torch.zeros(B, n, dtype=x.dtype)
    state = (hx, hx) if theirs.use_mixed else hx
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, result: 2 * result if module in (theirs.fc, ours.fc) else None
    )
    try:
        torch.testing.assert_close(ours(x, state)[0], theirs(x, state)[0], rtol=1e-10, atol=1e-10)
    finally:
        handle.remove()


def test_helpers_of_ncps_that_are_replaced_after_the_swap_are_called() -> None:
    theirs, _, x = pair("LTC")
    ours = copy.deepcopy(theirs)
    fastltc.accelerate(ours)
    ours(x)
    for layer in (theirs, ours):
        cell = layer.rnn_cell
        cell._map_outputs = lambda state: 3 * state[:, :2]
    hx = torch.zeros(B, 9, dtype=x.dtype)
    torch.testing.assert_close(ours(x, hx)[0], theirs(x, hx)[0], rtol=1e-10, atol=1e-10)


def test_settings_of_a_cell_may_change() -> None:
    for kind, name, value in (
        ("wired", "mode", "no_gate"),
        ("wired", "sparsity_mask", None),
        ("LTC", "_implicit_param_constraints", False),
    ):
        theirs, ours, x = pair(kind)
        hx: Any = torch.zeros(B, 9, dtype=x.dtype)
        state = (hx, hx) if theirs.use_mixed else hx
        ours(x, state)
        for layer in (theirs, ours):
            cell = layer.rnn_cell if kind == "LTC" else layer.rnn_cell.layer_1
            setattr(cell, name, value)
        torch.testing.assert_close(
            ours(x, state)[0], theirs(x, state)[0], rtol=1e-10, atol=1e-10, msg=name
        )


def test_a_warning_is_given_once_for_each_reason() -> None:
    _, layer, x = pair("CfC")
    cell = layer.rnn_cell
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            for linear in (cell.ff1, cell.ff2):
                handle = linear.register_forward_hook(lambda module, args, result: None)
                layer(x)
                handle.remove()
    assert len(caught) == 2
    for kind in ("LTC", "LTC, mixed memory"):
        _, layer, x = pair(kind)
        if layer.use_mixed:
            layer.lstm.tanh = nn.Hardtanh()
        else:
            layer.rnn_cell.forward = layer.rnn_cell.forward
        with pytest.warns(UserWarning, match="LTC runs step by step"):
            layer(x)


def test_a_layer_can_be_copied_after_a_functional_call() -> None:
    _, layer, x = pair("wired")
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,))[0].sum()

    torch.func.grad(loss)(parameters)
    torch.testing.assert_close(copy.deepcopy(layer)(x), layer(x))


def test_a_fresh_layer_is_traced_by_make_fx() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    theirs, _, x = pair("LTC")
    fastltc.accelerate(theirs)
    with torch.no_grad():
        graph = make_fx(lambda x: theirs(x)[0])(x)
        torch.testing.assert_close(graph(x), theirs(x)[0])


@pytest.mark.parametrize(
    "seen",
    [None, (), (1,) * 8, ((), (1,), (), (), "forward", (), (), ()), ((1,), *((),) * 7)],
)
def test_the_compiled_look_refuses_what_it_cannot_read(seen: Any) -> None:
    with pytest.raises(TypeError, match="seen: expected the tuple"):
        load_runtime().unchanged(seen)
