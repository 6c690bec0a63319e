"""How a session is made, what it returns, and how long it and its network live."""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import pickle
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastltc
from fastltc import runtime
from fastltc.exporting import describe
from fastltc.runtime import Network, Session
from runtime_cases import after_some_steps, make_layer, make_session

pytestmark = pytest.mark.kernels


def test_sizes(network: Network) -> None:
    session = network.session(3)
    for sized in (network, session):
        assert (sized.input_size, sized.output_size, sized.state_size) == (16, 2, 19)
    assert session.streams == 3
    assert session.network is network
    mixed = make_session(make_layer("wired mixed"))
    assert mixed.state_size == 2 * 19
    assert repr(session) == "Session(16 inputs, 2 outputs, 19 state values, 3 streams)"
    assert repr(network) == "Network(16 inputs, 2 outputs, 19 state values)"


def test_ways_to_make_one(tmp_path: Path) -> None:
    layer = make_layer("wired")
    path = tmp_path / "model.safetensors"
    fastltc.export(layer, path)
    x = torch.randn(16).numpy()
    model = runtime.read_model(path)
    expected = Session(Network(model)).step(x)
    for session in (
        Session.load(path),
        Session.load(str(path), streams=1),
        runtime.load(path).session(),
        Session(model),
        Session(network=runtime.load(path), streams=1),
    ):
        assert isinstance(session, Session)
        np.testing.assert_array_equal(session.step(x), expected)
    assert Session.load(path, 5).streams == 5


@pytest.mark.parametrize("streams", [1, 3, 40])
def test_shapes(network: Network, streams: int) -> None:
    session = network.session(streams)
    assert session.step(np.zeros((streams, 16), np.float32)).shape == (streams, 2)
    assert session.run(np.zeros((7, streams, 16), np.float32)).shape == (7, streams, 2)
    assert session.run(np.zeros((0, streams, 16), np.float32)).shape == (0, streams, 2)
    assert session.get_state().shape == (streams, 19)
    if streams == 1:
        assert session.step(np.zeros(16, np.float32)).shape == (2,)
        assert session.run(np.zeros((7, 16), np.float32)).shape == (7, 2)
    assert session.step(np.zeros((streams, 16), np.float32)).dtype == np.float32


def test_results_are_new_arrays(network: Network) -> None:
    session = network.session()
    x = np.ones(16, np.float32)
    first = session.step(x)
    kept = first.copy()
    second = session.step(-x)
    assert second is not first
    np.testing.assert_array_equal(first, kept)
    state = session.get_state()
    state[:] = 7
    assert (session.get_state() != 7).all()


@pytest.mark.parametrize(
    ("arguments", "keywords", "text"),
    [
        ((), {}, r"step\(\) lacks the argument 'x'"),
        ((), {"dt": 1.0}, r"step\(\) lacks the argument 'x'"),
        ((np.zeros(16), 1.0, None, None, 3), {}, r"step\(\) takes at most 4 arguments, got 5"),
        ((np.zeros(16),), {"timespans": 1.0}, r"step\(\) has no argument 'timespans'"),
        ((np.zeros(16), 1.0), {"dt": 1.0}, r"step\(\) got 'dt' twice"),
    ],
)
def test_wrong_calls(network: Network, arguments: Any, keywords: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        network.session().step(*arguments, **keywords)


def test_keywords(network: Network) -> None:
    x = torch.randn(16).numpy()
    expected = network.session().step(x, 0.5)
    out = np.zeros(2, np.float32)
    np.testing.assert_array_equal(network.session().step(dt=0.5, out=out, x=x), expected)
    np.testing.assert_array_equal(network.session().run(timespans=0.5, xs=x[None])[0], expected)


@pytest.mark.parametrize("streams", [3, 40])
def test_single_streams_can_be_reset(network: Network, streams: int) -> None:
    session = after_some_steps(network, streams)
    state = session.get_state()
    session.reset(1)
    state[1] = 0
    np.testing.assert_array_equal(session.get_state(), state)
    session.reset(streams=np.array([-1, 0]))
    state[[0, -1]] = 0
    np.testing.assert_array_equal(session.get_state(), state)
    session.reset([])
    np.testing.assert_array_equal(session.get_state(), state)
    for bad in (streams, -streams - 1, [0, streams], 2**70):
        with pytest.raises(IndexError):
            session.reset(bad)
    # As the bool of numpy 2.2 and earlier, which is an index.
    old = type("numpy.bool", (), {"__index__": lambda self: 1})()
    for strange in (1.0, [0.5], "a", True, np.True_, old, [True], np.ones(streams, bool)):
        with pytest.raises(TypeError):
            session.reset(strange)
    np.testing.assert_array_equal(session.get_state(), state)
    session.reset(None)
    assert not session.get_state().any()


@pytest.mark.parametrize("streams", [0, -1, 2**40])
def test_impossible_numbers_of_streams(network: Network, streams: int) -> None:
    with pytest.raises(ValueError, match=r"streams: expected 1 to \d+, got"):
        network.session(streams)


def test_no_network(network: Network) -> None:
    for wrong in (None, "model.safetensors", network.session()):
        with pytest.raises(TypeError, match="network: expected a Network"):
            Session(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="model: expected a Model"):
            Network(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Session(network, 1.5)  # type: ignore[arg-type]


def test_a_network_that_is_not_initialized() -> None:
    network = Network.__new__(Network)
    for use in (
        lambda: network.input_size,
        lambda: network.output_size,
        lambda: network.state_size,
        network.session,
        lambda: Session(network),
        lambda: repr(network),
    ):
        with pytest.raises(TypeError, match="expected an initialized Network"):
            use()
    Network.__init__(network, describe(make_layer("ltc")))
    assert network.session().input_size == 16


def test_a_model_that_is_not_valid(network: Network) -> None:
    model = describe(make_layer("wired"))
    model.tensors["layers.0.rnn_cell.layer_1.ff2.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"layers\.0\.rnn_cell\.layer_1\.ff2\.bias"):
        Network(model)


def test_the_library_checks_sizes_by_itself() -> None:
    from fastltc import _runtime

    for name in ("ltc mixed", "wired mixed", "plain mixed pure", "wired no_gate mixed proj"):
        model = describe(make_layer(name))
        for key, tensor in model.tensors.items():
            for wrong in (tensor[..., :-1], np.zeros((0, 0, 0), np.float32), tensor.astype(float)):
                with pytest.raises(ValueError, match=key.replace(".", r"\.")):
                    _runtime.Network(model.input_size, model.layers, {**model.tensors, key: wrong})
            rest = {other: t for other, t in model.tensors.items() if other != key}
            with pytest.raises(ValueError, match=f"{key}: this tensor is missing"):
                _runtime.Network(model.input_size, model.layers, rest)
        for key in model.layers[0]:
            layer = {other: value for other, value in model.layers[0].items() if other != key}
            with pytest.raises(ValueError, match=rf"layers\[0\]\.{key}: missing"):
                _runtime.Network(model.input_size, [layer], model.tensors)
        with pytest.raises(ValueError, match="input_size"):
            _runtime.Network(model.input_size + 1, model.layers, model.tensors)
    with pytest.raises(ValueError, match="layers: expected at least one"):
        _runtime.Network(3, [], {})


def test_a_masked_parameter_is_refused() -> None:
    from fastltc import _runtime

    model = describe(make_layer("ltc"))
    key = "layers.0.rnn_cell.cm"
    model.tensors[key] = np.ma.array(model.tensors[key], mask=True)
    with pytest.raises(ValueError, match=f"{key}: expected a plain numpy array, got MaskedArray"):
        Network(model)
    with pytest.raises(ValueError, match=f"{key}: expected a C-contiguous float32 array without"):
        _runtime.Network(model.input_size, model.layers, model.tensors)


def test_memory_of_more_than_64_bits_is_an_error() -> None:
    """Sizes that each are possible: 2^24 streams of a network that is wide all the way."""
    from fastltc import _runtime

    wide, layers = 1 << 24, 1 << 16
    layer = describe(make_layer("ltc one neuron")).layers
    tensors = describe(make_layer("ltc one neuron")).tensors
    tensors["layers.1.weight"] = np.zeros((wide, 1), np.float32)
    linear = {"type": "linear", "input_size": 1, "output_size": wide, "bias": False}
    functions = [{"type": "activation", "function": "relu"}] * layers
    network = _runtime.Network(1, [*layer, linear, *functions], tensors)
    with pytest.raises(MemoryError):
        _runtime.Session(network, 1 << 24)


@pytest.mark.parametrize("unit", [0.0, -1.0, np.nan, np.inf])
def test_a_unit_of_time_that_is_none(unit: float) -> None:
    model = describe(make_layer("ltc"))
    with pytest.raises(ValueError, match=r"time_unit: expected .* seconds from 1e-30 to 1e30"):
        Network(dataclasses.replace(model, time_unit=unit))


def test_the_unit_of_time_and_names() -> None:
    model = describe(
        make_layer("ltc"),
        time_unit=60,
        input_names=[f"sensor {i}" for i in range(16)],
        output_names=("left", "right"),
    )
    network = Network(model)
    session = network.session()
    for one in (network, session):
        assert one.time_unit == 60.0
        assert one.input_names[15] == "sensor 15"
        assert one.output_names == ("left", "right")
        assert repr(one).endswith("time steps in units of 60 s)")
    for wrong in (-1.0, np.nan, [np.nan], np.float32(-1), 1e300, 10**400):
        with pytest.raises(ValueError, match=r"dt: .*, in units of 60 s, got"):
            session.step(np.zeros(16), wrong)
    with pytest.raises(ValueError, match=r"timespans: .*, in units of 60 s, got"):
        session.run(np.zeros((1, 16)), -1)
    plain = Network(describe(make_layer("ltc"))).session()
    assert (plain.time_unit, plain.input_names, plain.output_names) == (1.0, (), ())


def test_sessions_do_not_copy(network: Network) -> None:
    session = network.session()
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            copying(session)


def test_the_network_lives_as_long_as_its_sessions() -> None:
    network = Network(describe(make_layer("ltc")))
    session, x = network.session(), torch.randn(16).numpy()
    expected = network.session().step(x)
    del network
    gc.collect()
    np.testing.assert_array_equal(session.step(x), expected)


def test_nothing_leaks(network: Network) -> None:
    class Sub(Session):
        pass

    session = Sub(network)
    gone = weakref.ref(session)
    x, out = np.zeros(16, np.float32), np.zeros(2, np.float32)
    before = [sys.getrefcount(o) for o in (x, out, network, np.dtype(np.float32))]
    for _ in range(1000):
        session.step(x)
        session.step(x, 0.5, out)
        session.step(x.tolist(), [0.5])
        with pytest.raises(ValueError, match="dt"):
            session.step(x, -1.0, out)
        network.session()
    after = [sys.getrefcount(o) for o in (x, out, network, np.dtype(np.float32))]
    assert all(abs(a - b) < 20 for a, b in zip(before, after, strict=True))
    del session
    gc.collect()
    assert gone() is None


def test_methods_are_documented() -> None:
    for method in ("step", "run", "reset", "get_state", "set_state", "load"):
        documentation = inspect.getdoc(getattr(Session, method))
        assert len(documentation or "") > 40
    assert str(inspect.signature(Session.step)) == "(self, /, x, dt=1.0, out=None, reset=None)"
    assert str(inspect.signature(Session.run)) == (
        "(self, /, xs, timespans=None, out=None, resets=None)"
    )
