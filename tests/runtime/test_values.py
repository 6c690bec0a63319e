"""Sessions compute what the torch modules and the reference in float64 do."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP
from torch import nn

import fastltc
from fastltc.runtime import Session
from runtime_cases import (
    LAYERS,
    STREAMS,
    assert_agree,
    make_layer,
    make_session,
    random_sequence,
    run_module,
    run_reference,
    tolerance,
)

pytestmark = pytest.mark.kernels


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_state_are_those_of_module_and_reference(name: str, streams: int) -> None:
    layer = make_layer(name)
    x, dt = random_sequence(40, streams, layer.input_size)
    session = make_session(layer, streams)
    outputs, state = session.run(x, dt), session.get_state()
    allowed = tolerance(layer, x, dt)
    for run in (run_module, run_reference):
        expected, expected_state = run(layer, x, dt)
        assert_agree(outputs, expected, allowed)
        assert_agree(state, expected_state, allowed)


@pytest.mark.parametrize("streams", [1, 17])
@pytest.mark.parametrize("name", ["ltc", "ltc mixed", "ltc odd unfolds", "wired", "plain"])
def test_steps_are_those_of_a_run(name: str, streams: int) -> None:
    layer = make_layer(name)
    x, dt = random_sequence(20, streams, layer.input_size)
    by_run, by_step = make_session(layer, streams), make_session(layer, streams)
    outputs = by_run.run(x, dt)
    for x_t, dt_t, expected in zip(x, dt, outputs, strict=True):
        np.testing.assert_array_equal(by_step.step(x_t, dt_t), expected)
    np.testing.assert_array_equal(by_step.get_state(), by_run.get_state())


@pytest.mark.parametrize("streams", [1, 5])
@pytest.mark.parametrize("name", ["ltc", "ltc mixed", "wired", "wired mixed", "plain"])
def test_ten_thousand_steps_do_not_drift_from_the_module(name: str, streams: int) -> None:
    layer = make_layer(name)
    x, dt = random_sequence(10_000, streams, layer.input_size)
    session = make_session(layer, streams)
    outputs = session.run(x, dt)
    expected, state = run_module(layer, x, dt)
    allowed = tolerance(layer, x, dt)
    assert_agree(outputs, expected, allowed)
    assert_agree(session.get_state(), state, allowed)
    # No worse at the end than at the beginning: only rounding.
    differences = np.abs(outputs - expected).max((1, 2))
    assert differences[-2000:].max() <= 3 * differences[:2000].max() + 1e-7


@pytest.mark.parametrize("name", ["ltc", "ltc mixed", "wired", "plain"])
def test_streams_are_independent(name: str) -> None:
    layer = make_layer(name)
    x, dt = random_sequence(15, 33, layer.input_size)
    together = make_session(layer, 33)
    outputs = together.run(x, dt)
    allowed = tolerance(layer, x, dt)
    for stream in (0, 15, 16, 32):
        alone = make_session(layer)
        # By other kernels, so not to the bit.
        assert_agree(alone.run(x[:, stream], dt[:, stream]), outputs[:, stream], allowed)
    x[:, 7] = 100.0
    together.reset()
    others = np.arange(33) != 7
    np.testing.assert_array_equal(together.run(x, dt)[:, others], outputs[:, others])


@pytest.mark.parametrize(
    ("name", "holds"),
    [("ltc", True), ("ltc mixed", False), ("wired", False), ("wired pure", False)],
)
def test_a_time_step_of_zero_holds_the_state_of_an_ltc(name: str, holds: bool) -> None:
    layer = make_layer(name)
    x, dt = random_sequence(5, 1, layer.input_size)
    session = make_session(layer)
    session.run(x, dt)
    state = session.get_state()
    session.step(x[0], 0.0)
    if holds:
        assert_agree(session.get_state(), state)
    else:
        assert np.abs(session.get_state() - state).max() > 1e-3


def test_time_steps_default_to_one() -> None:
    layer = make_layer("wired")
    x, _ = random_sequence(5, 2, layer.input_size)
    session, other = make_session(layer, 2), make_session(layer, 2)
    ones = np.ones((5, 2), np.float32)
    expected = session.run(x, ones)
    np.testing.assert_array_equal(other.run(x), expected)
    for timespans in (1.0, ones[:, 0], 1):
        other.reset()
        np.testing.assert_array_equal(other.run(x, timespans), expected)
    other.reset()
    for x_t, y in zip(x, expected, strict=True):
        np.testing.assert_array_equal(other.step(x_t), y)


ACTIVATIONS = [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.GELU(), nn.Softplus()]


@pytest.mark.parametrize("streams", [1, 17])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, nn.Softmax(-1)], ids=str)
def test_stacks_with_linear_layers_and_activations(activation: nn.Module, streams: int) -> None:
    first, second = fastltc.CfC(8, AutoNCP(12, 3), proj_size=5), fastltc.LTC(7, AutoNCP(9, 2))
    before, between, last = nn.Linear(4, 8, bias=False), nn.Linear(5, 7), nn.Linear(2, 19)
    stack = nn.Sequential(before, activation, first, between, activation, second, last, activation)
    x, dt = random_sequence(20, streams, 4)
    session = make_session(stack, streams)
    assert (session.input_size, session.output_size, session.state_size) == (4, 19, 12 + 9)
    outputs, state = session.run(x, dt), session.get_state()

    def run(dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
        modules = copy.deepcopy(stack).to(dtype)
        value = torch.from_numpy(x).to(dtype).transpose(0, 1)
        timespans = torch.from_numpy(dt).to(dtype).transpose(0, 1)
        states = []
        for module in modules:
            if isinstance(module, fastltc.CfC | fastltc.LTC):
                value, hn = module(value, timespans=timespans)
                states.append(hn)
            else:
                value = module(value)
        return value.transpose(0, 1).numpy(), torch.cat(states, 1).numpy()

    with torch.no_grad():
        for dtype in (torch.float32, torch.float64):
            expected, expected_state = run(dtype)
            assert_agree(outputs, expected)
            assert_agree(state, expected_state)


def test_an_activation_may_come_first() -> None:
    layer = make_layer("ltc one neuron")
    x, dt = random_sequence(10, 1, 1)
    session = make_session(nn.Sequential(nn.ReLU(), layer))
    expected, _ = run_module(layer, np.maximum(x, 0), dt)
    assert_agree(session.run(x, dt), expected)


def test_many_layers_of_one_kind() -> None:
    layers = [fastltc.LTC(6, AutoNCP(10, 6), mixed_memory=n % 2 == 1) for n in range(3)]
    x, dt = random_sequence(12, 4, 6)
    session = make_session(nn.Sequential(*layers), 4)
    assert session.state_size == 10 + 20 + 10
    expected, states = x, []
    for layer in layers:
        expected, state = run_module(layer, expected, dt)
        states.append(state)
    assert_agree(session.run(x, dt), expected)
    assert_agree(session.get_state(), np.concatenate(states, 1))


def test_masked_parameters_do_not_matter() -> None:
    # ncps and fastltc keep values there, and a file may hold any.
    for name, layer in (("ltc", make_layer("ltc")), ("wired", make_layer("wired"))):
        x, dt = random_sequence(10, 1, layer.input_size)
        expected = make_session(layer).run(x, dt)
        with torch.no_grad():
            if name == "ltc":
                cell = layer.rnn_cell
                for prefix in ("", "sensory_"):
                    missing = getattr(cell, f"{prefix}sparsity_mask") == 0
                    for parameter in ("w", "mu", "sigma", "erev"):
                        getattr(cell, prefix + parameter)[missing] = 1e9
            else:
                for cell in layer.rnn_cell._layers:
                    for head in (cell.ff1, cell.ff2):
                        head.weight[cell.sparsity_mask == 0] = 1e9
        np.testing.assert_array_equal(make_session(layer).run(x, dt), expected)


def test_a_state_continues_in_another_session() -> None:
    layer = make_layer("wired mixed")
    x, dt = random_sequence(20, 6, layer.input_size)
    whole = make_session(layer, 6)
    expected = whole.run(x, dt)
    first, second = make_session(layer, 6), make_session(layer, 6)
    first.run(x[:9], dt[:9])
    second.set_state(first.get_state())
    np.testing.assert_array_equal(second.run(x[9:], dt[9:]), expected[9:])
    # One stream of many alone.
    lone: Session = make_session(layer)
    lone.set_state(first.get_state()[4])
    assert_agree(lone.run(x[9:, 4], dt[9:, 4]), expected[9:, 4])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("streams", [1, 3, 33])
def test_any_state_comes_back(name: str, streams: int) -> None:
    session = make_session(make_layer(name), streams)
    assert not session.get_state().any()
    state = torch.randn(streams, session.state_size).numpy()
    session.set_state(state)
    np.testing.assert_array_equal(session.get_state(), state)
    session.reset()
    assert not session.get_state().any()
