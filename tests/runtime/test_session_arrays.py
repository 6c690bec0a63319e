"""The arrays that a session takes, refuses and writes into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastltc.runtime import Network
from runtime_cases import after_some_steps, make_layer, make_session, random_sequence


def variants(x: np.ndarray) -> list[Any]:
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), np.float32)
    wide[..., ::2] = x
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    read_only = x.copy()
    read_only.flags.writeable = False
    return [
        x.astype(np.float64),
        x.astype(">f4"),
        wide[..., ::2],
        np.asfortranarray(x),
        unaligned,
        read_only,
        x.tolist(),
        torch.from_numpy(x),
        x.view(type("Sub", (np.ndarray,), {})),
        x.astype(np.longdouble),
        *([np.matrix(x)] if x.ndim == 2 else []),
    ]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("streams", [1, 3])
def test_other_arrays_are_converted(network: Network, streams: int) -> None:
    x = torch.randn(streams, 16).numpy()
    dt = np.full(streams, 0.25, np.float32)
    expected = network.session(streams).step(x, dt)
    for index, given in enumerate(variants(x)):
        session = network.session(streams)
        np.testing.assert_array_equal(session.step(given, 0.25), expected, err_msg=str(index))
        many = network.session(streams).run([given] if isinstance(given, list) else given[None])
        assert many.shape == (1, streams, 2)
    for given in [*variants(dt), np.float64(0.25), np.float32(0.25), np.array(0.25)]:
        np.testing.assert_array_equal(network.session(streams).step(x, given), expected)
    whole = network.session().step(np.ones(16, np.float32), 2.0)
    for given in (np.ones(16, bool), np.ones(16, np.int8), [1] * 16, [True] * 16):
        np.testing.assert_array_equal(network.session().step(given, 2), whole)


@pytest.mark.parametrize(
    "x",
    [
        None,
        "abc",
        ["a"] * 16,
        np.zeros(16, complex),
        np.full(16, None),
        {},
        object(),
        np.zeros(16, object),
        np.zeros(16, "f4,f4"),
        np.zeros(16, "m8[s]"),
        np.zeros(16, "S4"),
        np.zeros(16, [("x", "f4")]).view(np.recarray),
        [1j] * 16,
        np.array("2026", "M8[s]"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_holds_no_numbers_is_a_type_error(network: Network, x: Any) -> None:
    session = after_some_steps(network)
    state = session.get_state()
    for call in (session.step, session.run, session.set_state):
        with pytest.raises(TypeError, match=r"(x|xs|state): expected real numbers, got "):
            call(x)
    with pytest.raises(TypeError, match="dt: expected real numbers"):
        session.step(np.zeros(16), x)
    np.testing.assert_array_equal(session.get_state(), state)


class Quantity(np.ndarray):
    """An array with a unit, as several packages have them."""

    @property
    def unit(self) -> str:
        return "min"


class GivesMasked:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.ma.array(np.zeros(16, np.float32), mask=True)


@pytest.mark.filterwarnings("ignore:Warning. converting a masked element")
@pytest.mark.parametrize(
    ("x", "what"),
    [
        (
            np.ma.array(np.zeros(16, np.float32), mask=[True] + [False] * 15),
            "MaskedArray, whose mask",
        ),
        (np.ma.array(np.zeros(16, np.float32)), "MaskedArray, whose mask"),
        (np.ma.array(np.zeros(16, np.int16), mask=True), "MaskedArray, whose mask"),
        ([np.ma.array(np.zeros(16), mask=True)], "MaskedArray, whose mask"),
        ([0.0] * 15 + [np.ma.masked], "MaskedConstant, whose mask"),
        (np.ma.array(1.0, mask=True), "MaskedArray, whose mask"),
        (GivesMasked(), "MaskedArray, whose mask"),
        (np.zeros(16, np.float32).view(Quantity), "Quantity, whose unit"),
        ([[0.0], (np.array(0.0).view(Quantity),)], "Quantity, whose unit"),
    ],
)
def test_what_says_more_than_its_numbers_is_refused(network: Network, x: Any, what: str) -> None:
    session = after_some_steps(network)
    state = session.get_state()
    for name, call in (
        ("x", session.step),
        ("xs", session.run),
        ("state", session.set_state),
        ("dt", lambda dt: session.step(np.zeros(16), dt)),
        ("timespans", lambda timespans: session.run(np.zeros((1, 16)), timespans)),
    ):
        with pytest.raises(
            TypeError, match=rf"^{name}: expected numbers alone, got \S*{what} would"
        ):
            call(x)
    out = np.ma.array(np.zeros(2, np.float32), mask=True)
    with pytest.raises(TypeError, match="out: expected numbers alone, got MaskedArray"):
        session.step(np.zeros(16), out=out)
    np.testing.assert_array_equal(session.get_state(), state)
    assert not out.data.any()


def test_out_of_a_subclass_is_written(network: Network, tmp_path: Path) -> None:
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=2)
    x = np.ones(16, np.float32)
    assert network.session().step(x, out=out) is out
    np.testing.assert_array_equal(out, network.session().step(x))


ZEROS, NAN, INF = np.zeros, np.nan, np.inf


def holding(shape: tuple[int, ...], at: tuple[int, ...], value: float) -> np.ndarray:
    array = np.zeros(shape, np.float32)
    array[at] = value
    return array


BAD_STEPS = [
    ((ZEROS(15),), {}, r"x: expected shape \[16\] or \[1, 16\] for 1 stream, got \[15\]"),
    ((ZEROS((2, 16)),), {}, r"x: expected .* got \[2, 16\]"),
    ((ZEROS((1, 1, 16)),), {}, r"x: expected .* got \[1, 1, 16\]"),
    ((0.0,), {}, r"x: expected .* got \[\]"),
    ((holding((16,), (3,), NAN),), {}, r"x: expected finite numbers, got nan at \[3\]"),
    ((holding((1, 16), (0, 15), INF),), {}, r"x: expected finite numbers, got inf at \[0, 15\]"),
    ((holding((16,), (0,), -INF),), {}, r"x: expected finite numbers, got -inf at \[0\]"),
    (([1e300] * 16,), {}, r"x: .*finite numbers of at most 3\.40282e\+38, got 1e\+300 at \[0\]"),
    (([0] * 15 + [np.longdouble("1e999")],), {}, r"x: .* of at most .*, got 1e\+999 at \[15\]"),
    ((ZEROS(16), -0.5), {}, r"dt: .*not negative.* got -0\.5"),
    ((ZEROS(16), NAN), {}, "dt: .*got nan"),
    ((ZEROS(16), INF), {}, "dt: .*got inf"),
    ((ZEROS(16), 1e300), {}, r"dt: .*at most 3\.40282e\+38, in seconds, got 1e\+300"),
    ((ZEROS(16), [1e39]), {}, r"dt: .*at most .*, got 1e\+39"),
    ((ZEROS(16), np.float64(1e39)), {}, r"dt: .*at most .*, got 1e\+39"),
    ((ZEROS(16), -1e-300), {}, "dt: .*not negative.* got -1e-300"),
    ((ZEROS(16), 10**400), {}, "dt: .*got an integer of more than 300 digits"),
    ((ZEROS(16), -(10**400)), {}, "dt: .*got an integer of more than 300 digits"),
    ((ZEROS(16), [-1.0]), {}, "dt: .*got -1"),
    ((ZEROS(16), [NAN]), {}, "dt: .*got nan"),
    ((ZEROS(16), [1.0, 1.0]), {}, r"dt: expected a number or shape \[1\], got \[2\]"),
    ((ZEROS(16), [[1.0]]), {}, r"dt: expected a number or shape \[1\], got \[1, 1\]"),
    ((ZEROS(16),), {"out": ZEROS(3, np.float32)}, r"out: expected shape \[2\], got \[3\]"),
    ((ZEROS(16),), {"out": ZEROS((1, 2), np.float32)}, r"out: expected shape \[2\], got \[1, 2\]"),
    ((ZEROS((1, 16)),), {"out": ZEROS(2, np.float32)}, r"out: expected shape \[1, 2\], got \[2\]"),
    ((ZEROS(16),), {"out": ZEROS(4, np.float32)[::2]}, "out: expected a C-contiguous array"),
]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(("arguments", "keywords", "text"), BAD_STEPS)
def test_bad_steps_leave_the_state(
    network: Network, arguments: Any, keywords: Any, text: str
) -> None:
    session = after_some_steps(network)
    state = session.get_state()
    with pytest.raises(ValueError, match=text):
        session.step(*arguments, **keywords)
    np.testing.assert_array_equal(session.get_state(), state)
    twin = network.session()
    twin.set_state(state)
    x = torch.randn(16).numpy()
    np.testing.assert_array_equal(session.step(x, 0.5), twin.step(x, 0.5))


BAD_RUNS = [
    ((ZEROS((4, 2, 15)),), r"xs: expected shape \[T, 2, 16\] for 2 streams, got \[4, 2, 15\]"),
    ((ZEROS((4, 16)),), r"xs: .*got \[4, 16\]"),
    ((ZEROS(16),), r"xs: .*got \[16\]"),
    ((1.0,), r"xs: .*got \[\]"),
    ((holding((4, 2, 16), (3, 1, 15), NAN),), r"xs: .*got nan at \[3, 1, 15\]"),
    ((ZEROS((4, 2, 16)), [1, 1, 1]), r"timespans: expected .* T = 4, got \[3\]"),
    ((ZEROS((4, 2, 16)), ZEROS((4, 3))), r"timespans: .*got \[4, 3\]"),
    ((ZEROS((4, 2, 16)), [1, 1, 1, -1]), "timespans: .*got -1"),
    ((ZEROS((4, 2, 16)), holding((4, 2), (3, 1), NAN)), "timespans: .*got nan"),
    ((ZEROS((4, 2, 16)), -1), "timespans: .*got -1"),
    ((ZEROS((4, 2, 16)), 10**400), "timespans: .*got an integer of more than 300 digits"),
    ((ZEROS((4, 2, 16)), None, ZEROS((4, 2, 3), np.float32)), r"out: .*\[4, 2, 2\], got"),
    ((ZEROS((4, 2, 16)), None, ZEROS((3, 2, 2), np.float32)), r"out: .*\[4, 2, 2\], got"),
]


@pytest.mark.parametrize(("arguments", "text"), BAD_RUNS)
def test_bad_runs_leave_the_state(network: Network, arguments: Any, text: str) -> None:
    session = after_some_steps(network, 2)
    state = session.get_state()
    with pytest.raises(ValueError, match=text):
        session.run(*arguments)
    np.testing.assert_array_equal(session.get_state(), state)


BAD_STATES = [
    (ZEROS(18), r"state: expected shape \[1, 19\].*, got \[18\]"),
    (ZEROS((2, 19)), r"state: .*got \[2, 19\]"),
    (ZEROS((19, 1)), r"state: .*got \[19, 1\]"),
    (holding((1, 19), (0, 4), NAN), r"state: .*got nan at \[0, 4\]"),
    (holding((19,), (18,), INF), r"state: .*got inf at \[18\]"),
]


@pytest.mark.parametrize(("state", "text"), BAD_STATES)
def test_bad_states_leave_the_state(network: Network, state: Any, text: str) -> None:
    session = after_some_steps(network)
    before = session.get_state()
    with pytest.raises(ValueError, match=text):
        session.set_state(state)
    np.testing.assert_array_equal(session.get_state(), before)


def test_every_place_of_a_wrong_number_is_found(network: Network) -> None:
    # One in each lane of each register that checks.
    for streams in (1, 5):
        session = network.session(streams)
        for stream in range(streams):
            for index in range(16):
                for value in (NAN, INF, -INF):
                    x = holding((streams, 16), (stream, index), value)
                    with pytest.raises(ValueError, match=rf"at \[{stream}, {index}\]"):
                        session.step(x)
    for extreme in (np.finfo(np.float32).max, np.finfo(np.float32).tiny, 1e-45, -0.0):
        network.session().step(np.full(16, extreme, np.float32))
        network.session().step(np.full(16, -extreme, np.float32))


def test_out(network: Network) -> None:
    session, other = network.session(), network.session()
    x = torch.randn(4, 16).numpy()
    out = np.full(2, np.nan, np.float32)
    assert session.step(x[0], out=out) is out
    np.testing.assert_array_equal(out, other.step(x[0]))
    assert session.step(x[1], 0.5, out) is out
    np.testing.assert_array_equal(out, other.step(x[1], dt=0.5))
    rows = np.full((2, 2), np.nan, np.float32)
    assert session.run(x[2:], out=rows) is rows
    np.testing.assert_array_equal(rows, other.run(x[2:]))
    part = np.full((3, 2), np.nan, np.float32)
    session.step(x[0], out=part[1])
    assert np.isnan(part[[0, 2]]).all()
    np.testing.assert_array_equal(part[1], other.step(x[0]))
    assert session.step(x[0], out=None).shape == (2,)


@pytest.mark.parametrize("offset", [0, 1, 5, 6])
def test_out_may_overlap_the_time_steps(network: Network, offset: int) -> None:
    x = torch.randn(3, 16).numpy()
    dt = torch.rand(3).numpy()
    expected = network.session(3).step(x, dt)
    memory = np.zeros(12, np.float32)
    given, out = memory[offset : offset + 3], memory[2:8].reshape(3, 2)
    given[:] = dt
    assert network.session(3).step(x, given, out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("offset", [0, 3, 7, 13])
@pytest.mark.parametrize("shape", [(7,), (7, 3)])
def test_out_of_a_sequence_may_overlap_the_timespans(
    network: Network, shape: tuple[int, ...], offset: int
) -> None:
    xs = torch.randn(7, 3, 16).numpy()
    timespans = torch.rand(shape).numpy()
    expected = network.session(3).run(xs, timespans)
    memory = np.zeros(60, np.float32)
    given = memory[offset : offset + timespans.size].reshape(shape)
    given[...] = timespans
    out = memory[7:49].reshape(7, 3, 2)
    assert network.session(3).run(xs, given, out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("out", [[0.0, 0.0], 1.0, np.zeros(2), np.zeros(2, ">f4"), "out"])
def test_out_of_another_type(network: Network, out: Any) -> None:
    session = after_some_steps(network)
    state = session.get_state()
    with pytest.raises(TypeError, match="out: expected "):
        session.step(np.zeros(16, np.float32), out=out)
    np.testing.assert_array_equal(session.get_state(), state)


def test_out_that_cannot_be_written(network: Network) -> None:
    out = np.zeros(2, np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected a writeable array"):
        network.session().step(np.zeros(16, np.float32), out=out)
    assert not out.any()


@pytest.mark.parametrize("streams", [1, 40])
def test_out_may_overlap_the_input(streams: int) -> None:
    layer = make_layer("plain relu proj")  # 9 inputs, 1 output
    x, _ = random_sequence(6, streams, 9)
    expected = make_session(layer, streams).run(x)
    for shift in (0, 1, 5, 9 * streams):
        memory = np.zeros(9 * streams * 7 + 10, np.float32)
        given = memory[shift : shift + x.size].reshape(x.shape)
        given[:] = x
        out = memory[: 6 * streams].reshape(6, streams, 1)
        make_session(layer, streams).run(given, out=out)
        np.testing.assert_array_equal(out, expected)
    square = make_layer("plain")  # 5 inputs, 19 outputs
    wide, _ = random_sequence(1, streams, 5)
    memory = np.zeros(24 * streams, np.float32)
    given, out = memory[: 5 * streams].reshape(wide[0].shape), memory[: 19 * streams]
    given[:] = wide[0]
    expected = make_session(square, streams).step(wide[0])
    make_session(square, streams).step(given, out=out.reshape(streams, 19))
    np.testing.assert_array_equal(out.reshape(streams, 19), expected)
