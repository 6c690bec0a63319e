"""The precision of sigmoids: what it changes, what it does not, and who may say so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastltc
from fastltc import LTC, LTCCell, ParallelLTC, _extension
from fastltc.runtime import load
from fastltc.runtime.model_file import read_model
from fastltc.wirings import AutoNCP, FullyConnected
from layers import LtcCase, assert_same_bits, random_weights, run_operator, with_gradients
from layers.case import run_reference

HAS_MEDIUM = _extension.load_runtime().cpu_info()["chosen"] != "baseline"


@pytest.fixture(autouse=True)
def _highest_again() -> Iterator[None]:
    yield
    fastltc.set_sigmoid_precision("highest")


def run(layer: Any, x: Tensor) -> list[Tensor]:
    """Return the output, the state and all gradients."""
    x = x.clone().requires_grad_()
    output, state = layer(x)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(output.square().sum() + state.sum(), [x, *parameters])
    return [output.detach(), state.detach(), *gradients]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.kernels
@pytest.mark.parametrize("batch", [1, 3, 20, 70])
@pytest.mark.parametrize("kind", LtcCase.kinds)
def test_values_and_gradients_are_near_those_of_the_equation(kind: str, batch: int) -> None:
    options = {**LtcCase.kinds[kind], "dtype": torch.float32}
    options.setdefault("batch", batch)
    case = LtcCase.random(**options)
    weights = random_weights(case)
    wanted = with_gradients(run_reference, case.to(torch.float64), weights)
    case.options["sigmoid_precision"] = "medium"
    found = with_gradients(run_operator, case, weights)
    # As a whole: a single one may be the small rest of large ones.
    for names in ({"output", "hn"}, found.keys() - {"output", "hn"}):
        error = sum((found[name] - wanted[name]).double().square().sum() for name in names)
        size = sum(wanted[name].double().square().sum() for name in names)
        assert error**0.5 <= 2e-3 * size**0.5 + 1e-6


@pytest.mark.kernels
def test_is_another_function_of_floats_alone() -> None:
    for dtype in (torch.float32, torch.float64):
        layer, x = LTC(5, AutoNCP(19, 2)).to(dtype), torch.randn(20, 6, 5, dtype=dtype)
        highest = run(layer, x)
        fastltc.set_sigmoid_precision("medium")
        changes = HAS_MEDIUM and dtype == torch.float32
        assert same(run(layer, x), highest) != changes
        fastltc.set_sigmoid_precision("highest")
        assert same(run(layer, x), highest)


@pytest.mark.kernels
@pytest.mark.parametrize("batch", [3, 40])
def test_gradients_are_those_of_the_function_that_was_computed(batch: int) -> None:
    layer, x = LTC(5, FullyConnected(33, 3)), torch.randn(batch, 6, 5)
    layer.sigmoid_precision = "medium"
    wanted = run(layer, x)
    layer.sigmoid_precision = None
    with fastltc.sigmoid_precision("medium"):
        output, _ = layer(x)
    (outside,) = torch.autograd.grad(output.sum(), [layer.rnn_cell.mu])
    with fastltc.sigmoid_precision("medium"):
        output, _ = layer(x)
        (inside,) = torch.autograd.grad(output.sum(), [layer.rnn_cell.mu])
    assert torch.equal(outside, inside)
    assert torch.equal(output, wanted[0])


@pytest.mark.kernels
@pytest.mark.parametrize("batch", [1, 5, 40])
def test_bits_do_not_depend_on_threads_and_values_not_on_the_rest_of_the_batch(batch: int) -> None:
    layer, x = LTC(5, AutoNCP(19, 2)), torch.randn(2 * batch, 6, 5)
    layer.sigmoid_precision = "medium"
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = layer(x)[0]
        torch.set_num_threads(3)
        assert torch.equal(layer(x)[0], alone)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(layer(x[batch:])[0], alone[batch:], rtol=2e-3, atol=2e-3)


def test_a_layer_goes_before_the_process() -> None:
    layer, x = LTC(5, AutoNCP(19, 2)), torch.randn(20, 6, 5)
    highest = run(layer, x)
    fastltc.set_sigmoid_precision("medium")
    medium = run(layer, x)
    layer.sigmoid_precision = "highest"
    assert same(run(layer, x), highest)
    fastltc.set_sigmoid_precision("highest")
    layer.rnn_cell.sigmoid_precision = "medium"
    assert layer.sigmoid_precision == "medium"
    assert same(run(layer, x), medium)


def test_the_context_ends_in_any_case() -> None:
    def fail() -> None:
        with fastltc.sigmoid_precision("medium"):
            assert fastltc.get_sigmoid_precision() == "medium"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert fastltc.get_sigmoid_precision() == "highest"


@pytest.mark.parametrize("precision", ["high", "", None, 1])
def test_refuses_other_names(precision: Any) -> None:
    layer, case = LTC(5, 4), LtcCase.random()
    with pytest.raises(ValueError, match="precision: expected 'highest' or 'medium', got"):
        fastltc.set_sigmoid_precision(precision)
    with (
        pytest.raises(ValueError, match=r"^precision: expected"),
        fastltc.sigmoid_precision(precision),
    ):
        pass
    assert fastltc.get_sigmoid_precision() == "highest"
    if precision is None:
        return
    with pytest.raises(ValueError, match="sigmoid_precision: expected 'highest' or 'medium'"):
        layer.sigmoid_precision = precision
    assert layer.sigmoid_precision is None
    case.options["sigmoid_precision"] = precision
    with pytest.raises(ValueError, match="sigmoid_precision: expected"):
        run_operator(case)


def test_compiled_code_follows() -> None:
    layer, x = LTC(5, AutoNCP(19, 2)), torch.randn(20, 6, 5)
    highest = run(layer, x)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert same(run(compiled, x), highest)
    with fastltc.sigmoid_precision("medium"):
        medium = run(layer, x)
        assert same(run(compiled, x), medium)
    assert same(run(compiled, x), highest)
    layer.sigmoid_precision = "medium"
    assert same(run(compiled, x), medium)


def test_transforms_and_parallel_layers() -> None:
    layers = [LTC(5, AutoNCP(19, 2)) for _ in range(3)]
    for layer in layers:
        layer.sigmoid_precision = "medium"
    nets, x = ParallelLTC(layers), torch.randn(3, 20, 6, 5)
    assert nets.sigmoid_precision == "medium"
    assert nets.layer(1).sigmoid_precision == "medium"
    alone = torch.stack([layer(own)[0] for layer, own in zip(layers, x, strict=True)])
    torch.testing.assert_close(nets(x)[0], alone, rtol=1e-3, atol=1e-3)
    mapped = torch.func.vmap(lambda v: layers[0](v[None])[0][0])(x[0])
    torch.testing.assert_close(mapped, alone[0], rtol=1e-4, atol=1e-4)
    layers[1].sigmoid_precision = None
    with pytest.raises(ValueError, match="sigmoid_precision"):
        ParallelLTC(layers)


def test_threads_set_it_at_once() -> None:
    layer, x = LTC(5, AutoNCP(19, 2)), torch.randn(20, 6, 5)
    possible, found = [run(layer, x)], []
    with fastltc.sigmoid_precision("medium"):
        possible.append(run(layer, x))

    def work(precision: str) -> None:
        for _ in range(50):
            fastltc.set_sigmoid_precision(precision)
            found.append(run(layer, x))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("highest", "medium") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 200
    assert all(any(same(each, one) for one in possible) for each in found)


@pytest.mark.kernels
@pytest.mark.parametrize("streams", [1, 40])
def test_sessions_have_that_of_the_model(tmp_path: Path, streams: int) -> None:
    layer, shape = LTC(5, AutoNCP(19, 2)), (6, 5) if streams == 1 else (6, streams, 5)
    xs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    files = {}
    for precision in (None, "highest", "medium"):
        layer.sigmoid_precision = precision
        files[precision] = tmp_path / f"{precision}.safetensors"
        fastltc.export(layer, files[precision])
        assert read_model(files[precision]).sigmoid_precision == (precision or "highest")
    # The default is written as it ever was, for readers of those versions.
    assert b'"format_version":"1"' in files[None].read_bytes()
    assert b'"format_version":"3"' in files["medium"].read_bytes()

    def answers(precision: str) -> np.ndarray:
        return load(files[precision]).session(streams).run(xs)

    assert (answers("medium") != answers("highest")).any() == HAS_MEDIUM
    np.testing.assert_allclose(answers("medium"), answers("highest"), rtol=2e-3, atol=2e-3)


def test_of_several_layers_an_export_has_the_most_precise() -> None:
    layers = [LTC(5, 4), LTC(4, 3)]
    layers[0].sigmoid_precision = "medium"
    assert fastltc.exporting.describe(layers).sigmoid_precision == "highest"
    layers[1].sigmoid_precision = "medium"
    assert fastltc.exporting.describe(layers).sigmoid_precision == "medium"


def test_a_cell_by_itself() -> None:
    cell = LTCCell(AutoNCP(19, 2), in_features=5)
    x, state = torch.randn(20, 5), torch.rand(20, 19)
    highest = cell(x, state)[1]
    cell.sigmoid_precision = "medium"
    assert (not torch.equal(cell(x, state)[1], highest)) == HAS_MEDIUM
    with torch.no_grad():
        torch.testing.assert_close(cell(x, state)[1], highest, rtol=2e-3, atol=2e-3)


def test_second_derivatives_are_those_of_the_equation() -> None:
    layer = LTC(5, AutoNCP(19, 2))
    x = torch.randn(20, 6, 5, requires_grad=True)
    found = []
    for precision in ("highest", "medium"):
        layer.sigmoid_precision = precision
        (slope,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.sum(), layer.rnn_cell.mu)[0])
    assert torch.equal(*found)


def test_float64_has_the_same_bits_at_any_precision() -> None:
    case = LtcCase.random(dtype=torch.float64, poison=False)
    weights = random_weights(case)
    highest = with_gradients(run_operator, case, weights)
    case.options["sigmoid_precision"] = "medium"
    assert_same_bits(with_gradients(run_operator, case, weights), highest)
