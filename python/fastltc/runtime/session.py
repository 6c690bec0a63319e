"""Networks and sessions: inference on streams of observations, without torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastltc import _extension
from fastltc.runtime.model import Model, check_model, unit_remark
from fastltc.runtime.model_file import read_model

if TYPE_CHECKING:
    from fastltc import _runtime
else:
    _runtime = _extension.load_runtime()


class Network(_runtime.Network):
    """A model whose parameters are prepared for inference, once for any number of sessions.

    Networks do not change, and any number of threads may use one at the same time.

    Args:
        model: a :class:`Model`, what :func:`read_model` returns.

    Raises:
        ValueError: if the model is not valid, see :func:`check_model`.
        TypeError: if it is no model.

    Attributes:
        input_size: number of inputs of a stream, I.
        output_size: number of outputs of a stream, M.
        state_size: numbers that a stream carries from step to step.
        time_unit: seconds that one unit of a time step is.

    Example:
        >>> from fastltc.runtime import load
        >>> network = load("model.safetensors")
        >>> left, right = network.session(), network.session()
    """

    __slots__ = ("_names",)

    def __init__(self, model: Model) -> None:
        if not isinstance(model, Model):
            raise TypeError(f"model: expected a Model, got {type(model).__name__}")
        check_model(model)
        super().__init__(
            model.input_size,
            model.layers,
            dict(model.tensors),
            model.time_unit,
            model.sigmoid_precision == "medium",
        )
        self._names = model.input_names, model.output_names

    @property
    def input_names(self) -> tuple[str, ...]:
        """A name for each input, or none at all."""
        return self._names[0]

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each output, of classes for example, or none at all."""
        return self._names[1]

    def session(self, streams: int = 1) -> Session:
        """Return a new session of this network; see :class:`Session`."""
        return Session(self, streams)

    def __repr__(self) -> str:
        return (
            f"Network({self.input_size} inputs, {self.output_size} outputs, "
            f"{self.state_size} state values{unit_remark(self.time_unit)})"
        )


class Session(_runtime.Session):
    """The state of one or many independent streams, and the steps through time.

    The equations are those of :func:`fastltc.reference.ltc` and :func:`fastltc.reference.cfc`;
    results agree with the torch modules to rounding. The state is zero at the start and stays
    inside, in float32.

    Arrays go in and come out as numpy's. float32, C-contiguous arrays are read in place, anything
    else of real numbers is converted first, which takes longer than a small network's step. No
    step allocates anything but its result, and with ``out`` not even that.

    A session may be used by one thread at a time, else it raises ``RuntimeError``; sessions of one
    network share its weights and may run in parallel threads. The interpreter lock is released
    during calls whose work takes more than about 3 us.

    Args:
        network: a :class:`Network`, or a :class:`Model` to make one of.
        streams: number of independent streams, S, which every call steps together.

    Raises:
        ValueError: if ``streams`` is less than 1 or the model is not valid.
        TypeError: if ``network`` is neither.

    Attributes:
        network: the network, with its weights.
        streams: how many there are, S.
        input_size: number of inputs of a stream, I.
        output_size: number of outputs of a stream, M.
        state_size: numbers that a stream carries from step to step: of each recurrent layer its
            h ``[N]`` and, with mixed memory, c ``[N]``.
        time_unit: seconds that one unit of a time step is.

    Example:
        >>> import numpy as np
        >>> from fastltc.runtime import Session
        >>> session = Session.load("model.safetensors")
        >>> y = session.step(np.zeros(16, np.float32), dt=0.02)

    Source: Hasani et al., Liquid Time-constant Networks, AAAI 2021; Closed-form continuous-time
    neural networks, Nature Machine Intelligence 2022.
    """

    __slots__ = ()

    def __new__(cls, network: Network | Model, streams: int = 1) -> Session:
        if isinstance(network, Model):
            network = Network(network)
        return super().__new__(cls, network, streams)

    @property
    def input_names(self) -> tuple[str, ...]:
        """A name for each input, or none at all."""
        return self.network.input_names

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each output, of classes for example, or none at all."""
        return self.network.output_names

    @classmethod
    def load(cls, path: str | os.PathLike[str], streams: int = 1) -> Session:
        """Return a session of the model in a file.

        Args:
            path: a file that :func:`fastltc.export` or ``fastltc export`` has written.
            streams: number of independent streams, S.

        Raises:
            ValueError: if the file is damaged, of a newer format version, or no model file; the
                text names what is wrong.
            OSError: if it cannot be read.
        """
        return cls(load(path), streams)


def load(path: str | os.PathLike[str]) -> Network:
    """Read a model file and prepare its network, for any number of sessions.

    Args:
        path: a file that :func:`fastltc.export` or ``fastltc export`` has written.

    Raises:
        ValueError: if the file is damaged, of a newer format version, or no model file; the text
            names what is wrong.
        OSError: if it cannot be read.

    Example:
        >>> from fastltc.runtime import load
        >>> sessions = [load("model.safetensors").session(streams=64)]
    """
    return Network(read_model(path))
