"""Resets of a session within a run: the same as resetting between steps, and as the layers have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastltc.exporting import describe
from fastltc.runtime import Network, Session
from runtime_cases import make_layer, make_session

T = 6
KINDS = ("ltc", "ltc odd unfolds mixed", "wired mixed", "plain", "plain silu deep")


def started(session: Session) -> Session:
    session.run(np.random.default_rng(1).normal(size=(2, session.streams, session.input_size)))
    return session


@pytest.mark.parametrize("streams", [1, 3, 40])
@pytest.mark.parametrize("name", KINDS)
def test_a_run_with_resets_is_steps_and_resets(name: str, streams: int) -> None:
    network = Network(describe(make_layer(name)))
    random = np.random.default_rng()
    x = random.normal(size=(T, streams, network.input_size)).astype(np.float32)
    dt = random.uniform(0.1, 2, (T, streams)).astype(np.float32)
    resets = random.random((T, streams)) < 0.4
    resets[0, 0] = True
    sessions = [started(network.session(streams)) for _ in range(3)]
    expected = []
    for t in range(T):
        sessions[0].reset(np.flatnonzero(resets[t]))
        expected.append(sessions[0].step(x[t], dt[t]))
    np.testing.assert_array_equal(sessions[1].run(x, dt, resets=resets), expected)
    stepped = [sessions[2].step(x[t], dt[t], reset=resets[t]) for t in range(T)]
    np.testing.assert_array_equal(stepped, expected)
    for session in sessions[1:]:
        np.testing.assert_array_equal(session.get_state(), sessions[0].get_state())


@pytest.mark.parametrize("name", KINDS)
def test_they_are_those_of_the_layer(name: str) -> None:
    layer = make_layer(name)
    session = make_session(layer, 5)
    x, resets = torch.randn(T, 5, session.input_size), torch.rand(T, 5) < 0.4
    output, _ = layer(x.transpose(0, 1), resets=resets.T)
    got = session.run(x, resets=resets)
    np.testing.assert_allclose(got, output.detach().transpose(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("streams", [1, 4])
def test_one_flag_for_all_streams(network: Network, streams: int) -> None:
    x = np.random.default_rng(2).normal(size=(T, streams, network.input_size)).astype(np.float32)
    resets = np.arange(T) % 2 == 0
    session, other = started(network.session(streams)), started(network.session(streams))
    expected = session.run(x, resets=np.repeat(resets[:, None], streams, 1))
    for given in (resets, resets.tolist(), np.repeat(resets, 2)[::2]):
        started(other)
        np.testing.assert_array_equal(other.run(x, resets=given), expected)
    for flag in (True, np.True_, np.array(True), [True] * streams):
        started(other)
        np.testing.assert_array_equal(other.step(x[0], reset=flag), expected[0])
    for flag in (None, False, np.False_, np.zeros(streams, bool)):
        session.reset()
        other.reset()
        session.run(x[:2])
        other.run(x[:2])
        np.testing.assert_array_equal(other.step(x[2], reset=flag), session.step(x[2]))


def test_outputs_may_take_their_place(network: Network) -> None:
    streams, outputs = 8, network.output_size
    x = np.random.default_rng(3).normal(size=(T, streams, network.input_size)).astype(np.float32)
    expected = network.session(streams).run(x, resets=np.ones((T, streams), bool))
    memory = np.zeros((T, streams, outputs), np.float32)
    resets = memory.view(np.uint8).reshape(-1)[: T * streams].view(bool).reshape(T, streams)
    resets[:] = True
    got = network.session(streams).run(x, resets=resets, out=memory)
    np.testing.assert_array_equal(got, expected)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "of another length": (np.ones(T + 1, bool), ValueError, r"shape \[T\] or \[T, 3\], T = 6, got"),
    "of other streams": (np.ones((T, 2), bool), ValueError, r"resets: expected .*, got \[6, 2\]"),
    "one bool": (True, ValueError, "resets: expected .*, got one bool"),
    "numbers": (np.ones((T, 3)), TypeError, "resets: expected bool, got numpy.ndarray of dtype f"),
    "integers": ([1, 0] * 3, TypeError, "resets: expected bool, got list of dtype int64"),
    "a text": ("yes", TypeError, "resets: expected bool, got str"),
    "masked": (np.ma.masked_array(np.ones(T, bool)), TypeError, "resets: .*mask"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_they_cannot_be(network: Network, what: str) -> None:
    resets, error, text = BAD[what]
    session = started(network.session(3))
    state = session.get_state()
    with pytest.raises(error, match=text):
        session.run(np.zeros((T, 3, network.input_size), np.float32), resets=resets)
    np.testing.assert_array_equal(session.get_state(), state)


def test_what_that_of_a_step_cannot_be(network: Network) -> None:
    session, x = network.session(3), np.zeros((3, network.input_size), np.float32)
    for reset in (np.ones(2, bool), np.ones((1, 3), bool), []):
        with pytest.raises((ValueError, TypeError), match="reset: expected"):
            session.step(x, reset=reset)
    for strange in (1, 0.0, "a", np.ones(3), {}):
        with pytest.raises(TypeError, match="reset: expected bool"):
            session.step(x, reset=strange)
