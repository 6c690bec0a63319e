"""Time steps over the whole range of a float32, 0 included: as the reference in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ncps.wirings import AutoNCP

import fastltc
from fastltc.exporting import ExportError, describe
from runtime_cases import (
    TIME_STEP_LAYERS,
    TIME_STEPS,
    assert_agree,
    make_session,
    time_step_case,
    without_capacitance,
)


@pytest.mark.parametrize("name", TIME_STEP_LAYERS)
def test_every_time_step_of_one_stream_and_of_many(name: str) -> None:
    layer, x, dt, outputs, state = time_step_case(name)
    many = make_session(layer, x.shape[1])
    assert_agree(many.run(x, dt), outputs, 1e-5)
    assert_agree(many.get_state(), state, 1e-5)
    for stream in range(x.shape[1]):
        one = make_session(layer)
        assert_agree(one.run(x[:, stream], dt[:, stream]), outputs[:, stream], 1e-5)
        assert_agree(one.get_state()[0], state[stream], 1e-5)


@pytest.mark.parametrize("streams", [1, 5, 40])
def test_a_time_step_of_0_holds_an_ltc_to_the_bit(streams: int) -> None:
    layer = without_capacitance(
        fastltc.LTC(3, AutoNCP(19, 2), implicit_param_constraints=False, ode_unfolds=3)
    )
    session = make_session(layer, streams)
    state = torch.randn(streams, 19).numpy()
    session.set_state(state)
    dt = np.zeros(streams, np.float32)
    dt[1::2] = 0.5
    session.step(np.ones((streams, 3), np.float32), dt)
    np.testing.assert_array_equal(session.get_state()[::2], state[::2])
    assert (session.get_state()[1::2] != state[1::2]).all()


def test_a_potential_that_is_0_by_0_is_refused() -> None:
    layer = fastltc.LTC(3, AutoNCP(19, 2), implicit_param_constraints=False, epsilon=0.0)
    with torch.no_grad():
        layer.rnn_cell.cm[4] = layer.rnn_cell.gleak[4] = 0.0
    with pytest.raises(ExportError, match=r"layers\[0\]: .* 0 / 0, got all 0 at neuron 4"):
        describe(layer)
    with torch.no_grad():
        layer.rnn_cell.gleak[4] = 1e-30
    describe(layer)


@pytest.mark.filterwarnings("ignore:overflow")
def test_the_range_ends_where_float32_does() -> None:
    session = make_session(fastltc.CfC(3, AutoNCP(19, 2)))
    x = np.zeros(3, np.float32)
    most = float(np.finfo(np.float32).max)
    assert most == TIME_STEPS[-1]
    for dt in (most, np.float64(most), np.array([most]), int(most)):
        assert np.isfinite(session.step(x, dt)).all()
    for dt in (2 * most, np.float64(2 * most), np.array([2 * most]), int(2 * most)):
        with pytest.raises(ValueError, match=r"dt: .*at most 3\.40282e\+38, .*got 6"):
            session.step(x, dt)
