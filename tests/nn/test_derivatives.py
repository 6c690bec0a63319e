"""Derivatives of the modules beyond one backward pass, against ncps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn

import fastltc
from fastltc.ops import batching
from layers import assert_all_close
from ncps_twins import twins

KINDS: dict[str, dict[str, Any]] = {
    "LTC": {"units": lambda: AutoNCP(9, 2)},
    "LTC, mixed memory": {"units": lambda: AutoNCP(9, 2), "mixed_memory": True},
    "LTCCell": {"units": lambda: AutoNCP(9, 2), "kind": "LTCCell"},
    "CfC, wired": {"units": lambda: AutoNCP(9, 2), "kind": "CfC"},
    "CfC, backbone": {"units": 5, "kind": "CfC", "backbone_units": 6, "backbone_layers": 2},
    "CfC, pure": {"units": 5, "kind": "CfC", "mode": "pure"},
    "CfC, mixed memory": {"units": 5, "kind": "CfC", "mixed_memory": True},
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)


def pair_of(options: dict[str, Any]) -> tuple[list[nn.Module], list[Callable[[Tensor], Tensor]]]:
    """Return the twins, and each as a function of its input alone."""
    pair = list(twins(inputs=3, **options))
    if options.get("kind") == "LTCCell":
        state = torch.randn(2, 9, dtype=torch.float64)
    elif options.get("mixed_memory"):
        # ncps makes its own in float32.
        state = tuple(torch.randn(2, 2, pair[0].state_size, dtype=torch.float64))
    else:
        state = None
    return pair, [lambda x, m=m: m(x, state)[0] for m in pair]


def random_input(options: dict[str, Any]) -> Tensor:
    return torch.randn(*((2, 3) if options.get("kind") == "LTCCell" else (2, 4, 3))).double()


@every_kind
def test_a_gradient_penalty_is_that_of_ncps(options: dict[str, Any]) -> None:
    modules, runs = pair_of(options)
    x, results = random_input(options), []
    for module, run in zip(modules, runs, strict=True):
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(run(leaf).sin().sum(), leaf, create_graph=True)
        (grad.square().sum(1).sqrt() - 1).square().mean().backward()
        grads = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        results.append({"x": leaf.grad, **grads})
    theirs, ours = results
    # ncps leaves out what has no influence on the gradient; here that is 0.
    for name in ours.keys() - theirs.keys():
        assert not ours.pop(name).any()
    assert_all_close(ours, theirs)


@every_kind
def test_hessians_and_forward_mode_are_those_of_ncps(options: dict[str, Any]) -> None:
    _, (theirs, ours) = pair_of(options)
    x = random_input(options)
    tangent = torch.randn_like(x)

    def results(run: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        def scalar(x: Tensor) -> Tensor:
            return run(x).sin().sum()

        _, moved = torch.func.jvp(run, (x,), (tangent,))
        hessian = torch.autograd.functional.hessian(scalar, x)
        return {"jvp": moved, "jacfwd": torch.func.jacfwd(run)(x), "hessian": hessian}

    assert_all_close(results(ours), results(theirs))
    again = torch.func.hessian(lambda x: ours(x).sin().sum())(x)
    assert_all_close({"hessian": again}, {"hessian": results(theirs)["hessian"]})


@every_kind
def test_a_step_of_maml_is_that_of_ncps(options: dict[str, Any]) -> None:
    modules, runs = pair_of(options)
    x, results = random_input(options), []
    for module, run in zip(modules, runs, strict=True):
        weights = [p for p in module.parameters() if p.requires_grad]
        names = [n for n, p in module.named_parameters() if p.requires_grad]
        inner = torch.autograd.grad(
            run(x).square().mean(), weights, create_graph=True, materialize_grads=True
        )
        first = [w.detach().clone() for w in weights]
        # ncps reads its parameters from a dictionary of its own, so they are changed in place.
        loss = sum((g * (w - 0.1 * g)).sum() for g, w in zip(inner, first, strict=True))
        grads = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        results.append(dict(zip(names, grads, strict=True)))
    theirs, ours = results
    assert_all_close(ours, theirs)


STACKED: dict[str, Callable[[], nn.Module]] = {
    "LTC": lambda: fastltc.LTC(3, AutoNCP(9, 2, seed=3)),
    "LTC, mixed memory": lambda: fastltc.LTC(3, AutoNCP(9, 2, seed=3), mixed_memory=True),
    "CfC, wired": lambda: fastltc.CfC(3, AutoNCP(9, 2, seed=3)),
    "CfC, backbone": lambda: fastltc.CfC(3, 5, backbone_units=6, backbone_layers=2),
    "masked linear": lambda: fastltc.MaskedLinear(3, 3, torch.eye(3)),
}


def output_of(result: Any) -> Tensor:
    output: Tensor = result if isinstance(result, Tensor) else result[0]
    return output


@pytest.mark.parametrize("make", STACKED.values(), ids=STACKED)
def test_an_ensemble_by_vmap_is_its_layers(make: Callable[[], nn.Module]) -> None:
    layers = [make().double() for _ in range(3)]
    state = torch.func.stack_module_state(layers)
    x = torch.randn(2, 4, 3, dtype=torch.float64)

    def run(parameters: Any, buffers: Any) -> Tensor:
        return output_of(torch.func.functional_call(layers[0], (parameters, buffers), (x,)))

    got = torch.func.vmap(run)(*state)
    assert_all_close({"": got}, {"": torch.stack([output_of(layer(x)) for layer in layers])})

    def loss(parameters: Any, buffers: Any) -> Tensor:
        return run(parameters, buffers).sin().sum()

    grads = torch.func.vmap(torch.func.grad(loss))(*state)
    for k, layer in enumerate(layers):
        output_of(layer(x)).sin().sum().backward()
        expected = {n: p.grad for n, p in layer.named_parameters() if p.grad is not None}
        assert_all_close({name: grads[name][k] for name in expected}, expected)


def test_an_ensemble_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise AssertionError("entries run one by one")

    monkeypatch.setattr(batching, "one_by_one", fail)
    for kind in ("LTC", "CfC, wired", "CfC, backbone"):
        test_an_ensemble_by_vmap_is_its_layers(STACKED[kind])
    with pytest.raises(AssertionError, match="one by one"):
        test_an_ensemble_by_vmap_is_its_layers(STACKED["LTC, mixed memory"])


def test_vmap_within_vmap() -> None:
    layers = [fastltc.LTC(3, AutoNCP(9, 2, seed=3)).double() for _ in range(3)]
    state = torch.func.stack_module_state(layers)
    x = torch.randn(4, 2, 5, 3, dtype=torch.float64)

    def run(state: Any, x: Tensor) -> Tensor:
        return output_of(torch.func.functional_call(layers[0], state, (x,)))

    each = torch.func.vmap(torch.func.vmap(run, (None, 0)), (0, None))
    expected = torch.stack([torch.stack([output_of(layer(s)) for s in x]) for layer in layers])
    with torch.no_grad():
        assert_all_close({"": each(state, x)}, {"": expected.detach()})
    assert_all_close({"": each(state, x).detach()}, {"": expected.detach()})


def test_an_ensemble_of_layers_beside_each_other() -> None:
    layers = [
        fastltc.ParallelLTC([fastltc.LTC(3, AutoNCP(9, 2, seed=3)).double() for _ in range(2)])
        for _ in range(3)
    ]
    state = torch.func.stack_module_state(layers)
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    got = torch.func.vmap(
        lambda *state: output_of(torch.func.functional_call(layers[0], state, (x,)))
    )(*state)
    assert_all_close({"": got}, {"": torch.stack([output_of(layer(x)) for layer in layers])})


def test_an_ensemble_of_several_wirings_is_refused() -> None:
    layers = [fastltc.LTC(3, AutoNCP(9, 2, seed=seed)) for seed in (1, 2)]
    state = torch.func.stack_module_state(layers)
    x = torch.randn(2, 4, 3)
    with pytest.raises(ValueError, match=r"sparsity_mask: expected the same mask .*ParallelLTC"):
        torch.func.vmap(lambda *s: torch.func.functional_call(layers[0], s, (x,))[0])(*state)


@pytest.mark.parametrize("make", STACKED.values(), ids=STACKED)
def test_gradients_of_each_sample(make: Callable[[], nn.Module]) -> None:
    layer = make().double()
    parameters = {n: p.detach() for n, p in layer.named_parameters()}
    x = torch.randn(4, 5, 3, dtype=torch.float64)

    def loss(parameters: Any, x: Tensor) -> Tensor:
        output = output_of(torch.func.functional_call(layer, parameters, (x.unsqueeze(0),)))
        return output.sin().sum()

    grads = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for k, sample in enumerate(x):
        layer.zero_grad()
        output_of(layer(sample.unsqueeze(0))).sin().sum().backward()
        expected = {n: p.grad for n, p in layer.named_parameters() if p.grad is not None}
        assert_all_close({name: grads[name][k] for name in expected}, expected)
