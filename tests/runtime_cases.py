"""Networks for the runtime's tests, and how to run them by the module and by the reference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ncps.wirings import AutoNCP, FullyConnected, Random
from torch import Tensor, nn
from torch.nn import functional as F

import fastltc
from fastltc import reference
from fastltc.exporting import describe
from fastltc.runtime import Network, Session

Array = npt.NDArray[np.float32]
Layer = fastltc.LTC | fastltc.CfC


def ltc(inputs: int, units: Any, **options: Any) -> fastltc.LTC:
    """Make an LTC layer; without softplus, its parameters are made positive."""
    layer = fastltc.LTC(inputs, units, **options)
    for side in ("input", "output"):
        for letter in ("w", "b"):
            parameter = getattr(layer.rnn_cell, f"{side}_{letter}", None)
            if parameter is not None:
                nn.init.uniform_(parameter, 0.5, 1.5)
    return layer


def cfc(inputs: int, units: Any, **options: Any) -> fastltc.CfC:
    return fastltc.CfC(inputs, units, **options)


# Every option and every size at which the kernels take another path, at least once.
LAYERS: dict[str, Callable[[], Layer]] = {
    "ltc": lambda: ltc(16, AutoNCP(19, 2)),
    "ltc mixed": lambda: ltc(16, AutoNCP(19, 2), mixed_memory=True),
    "ltc linear maps": lambda: ltc(3, 19, input_mapping="linear", output_mapping="linear"),
    "ltc no maps": lambda: ltc(40, AutoNCP(31, 5), input_mapping=None, output_mapping=None),
    "ltc odd unfolds": lambda: ltc(5, 33, ode_unfolds=3, epsilon=1e-3),
    "ltc odd unfolds mixed": lambda: ltc(5, AutoNCP(33, 3), ode_unfolds=5, mixed_memory=True),
    "ltc no softplus": lambda: ltc(
        7, Random(31, 4, sparsity_level=0.7), implicit_param_constraints=False
    ),
    "ltc one neuron": lambda: ltc(1, 1, ode_unfolds=1),
    "ltc 70": lambda: ltc(33, AutoNCP(70, 8)),
    "wired": lambda: cfc(16, AutoNCP(19, 2)),
    "wired mixed": lambda: cfc(16, AutoNCP(19, 2), mixed_memory=True),
    "wired pure": lambda: cfc(5, AutoNCP(33, 3), mode="pure"),
    "wired no_gate mixed proj": lambda: cfc(
        3, AutoNCP(31, 4), mode="no_gate", mixed_memory=True, proj_size=5
    ),
    "wired one cell": lambda: cfc(4, FullyConnected(19)),
    "wired 70": lambda: cfc(33, AutoNCP(70, 8)),
    "plain": lambda: cfc(5, 19),
    "plain one": lambda: cfc(1, 1, backbone_units=1),
    "plain no backbone": lambda: cfc(7, 33, backbone_layers=0),
    "plain mixed pure": lambda: cfc(7, 31, mode="pure", mixed_memory=True, backbone_units=17),
    "plain no_gate": lambda: cfc(7, 19, mode="no_gate", activation="tanh", backbone_units=33),
    "plain silu deep": lambda: cfc(
        3, 17, activation="silu", backbone_layers=3, backbone_units=40, backbone_dropout=0.3
    ),
    "plain relu proj": lambda: cfc(9, 16, activation="relu", backbone_units=64, proj_size=1),
    "plain gelu mixed": lambda: cfc(9, 31, activation="gelu", mixed_memory=True),
}
STREAMS = (1, 3, 17, 64)

# The whole range of a float32.
TIME_STEPS = np.array(
    [0, 1e-45, 1e-40, 1.2e-38, 1e-35, 1e-30, 1e-29, 1e-20, 1e-6, 0.1, 1, 30, 1e4, 1e9, 1e20, 1e24,
     1e30, 1e38, 3.4e38, np.finfo(np.float32).max],
    np.float32,
)  # fmt: skip


def without_capacitance(layer: fastltc.LTC) -> fastltc.LTC:
    """Set cm to 0, as apply_weight_constraints does where training made it negative."""
    with torch.no_grad():
        layer.rnn_cell.cm[::3] = 0.0
    return layer


def _no_softplus(inputs: int, units: Any, **options: Any) -> fastltc.LTC:
    return ltc(inputs, units, implicit_param_constraints=False, **options)


def _steep(layer: fastltc.CfC) -> fastltc.CfC:
    """Make gates in time that a long time step takes out of the range of a float32."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if ".time_a." in name:
                parameter *= 100.0
    return layer


# All layers, LTCs of which driven and leaky neurons have no capacitance, and steep CfCs.
TIME_STEP_LAYERS: dict[str, Callable[[], Layer]] = {
    **{name: lambda name=name: make_layer(name) for name in LAYERS},  # type: ignore[misc]
    "cm 0": lambda: without_capacitance(_no_softplus(7, AutoNCP(31, 4))),
    "cm 0 full": lambda: without_capacitance(_no_softplus(3, FullyConnected(40), ode_unfolds=3)),
    "wired steep": lambda: _steep(cfc(5, AutoNCP(33, 3))),
    "plain steep mixed": lambda: _steep(cfc(5, 19, mode="no_gate", mixed_memory=True)),
    "cm 0 mixed": lambda: without_capacitance(_no_softplus(3, AutoNCP(19, 2), mixed_memory=True)),
}


def time_step_case(name: str) -> tuple[Layer, Array, Array, Any, Any]:
    """Return a layer, inputs [2, S, I], time steps [2, S], outputs and state in float64.

    The first time steps are ordinary ones, so that there is a state for the others.
    """
    # Always the same: a gate in time that is 0 to rounding is any number times a long time step.
    torch.manual_seed(0)
    layer = TIME_STEP_LAYERS[name]()
    x, dt = random_sequence(2, len(TIME_STEPS), layer.input_size)
    dt[0], dt[1] = 0.7, TIME_STEPS
    exact = copy.deepcopy(layer).double()
    outputs, state = run_reference(exact, x, dt)
    return layer, x, dt, outputs, state


def make_layer(name: str) -> Layer:
    layer = LAYERS[name]()
    for parameter in layer.parameters():
        # Weights that are zero at first would hide a mistake in their place.
        if parameter.requires_grad and not parameter.any():
            nn.init.uniform_(parameter, -0.5, 0.5)
        # At their initial size the weights of a small plain cell can be where rounding errors grow
        # from step to step, also those of torch against float64.
        if name.startswith("plain"):
            parameter.data *= 0.5
    return layer.eval()


def make_session(module: nn.Module, streams: int = 1) -> Session:
    return Network(describe(module)).session(streams)


def random_sequence(steps: int, streams: int, inputs: int) -> tuple[Array, Array]:
    """Return inputs and time steps, some of them 0."""
    x = torch.randn(steps, streams, inputs)
    dt = torch.rand(steps, streams) * 2
    dt[torch.rand(steps, streams) < 0.05] = 0.0
    return x.numpy(), dt.numpy()


def _flat(state: Any) -> Tensor:
    return torch.cat(state, 1) if isinstance(state, tuple) else state


def run_module(layer: Layer, x: Array, dt: Array) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Run the torch module; return outputs ``[T, S, M]`` and the state ``[S, state_size]``."""
    dtype = next(layer.parameters()).dtype
    inputs, timespans = (torch.from_numpy(a).to(dtype).transpose(0, 1) for a in (x, dt))
    with torch.no_grad():
        output, state = layer(inputs, timespans=timespans)
    return output.transpose(0, 1).numpy(), _flat(state).numpy()


def tolerance(layer: Layer, x: Array, dt: Array) -> float:
    """Return 1e-6 and what rounding to float32 does to the torch module itself.

    Steep synapses and large weights can make a rounding error grow from step to step, whoever
    makes it.
    """
    exact = run_module(copy.deepcopy(layer).double(), x, dt)
    pairs = zip(run_module(layer, x, dt), exact, strict=True)
    return 1e-6 + max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs)


def run_reference(
    layer: Layer, x: Array, dt: Array
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Do the same in plain torch and float64."""
    layer = copy.deepcopy(layer).double()
    state_size = layer.state_size
    h = torch.zeros(x.shape[1], state_size, dtype=torch.float64)
    c = torch.zeros_like(h)
    outputs = []
    with torch.no_grad():
        for x_t, dt_t in zip(
            torch.from_numpy(x).double(), torch.from_numpy(dt).double(), strict=True
        ):
            if layer.use_mixed:
                z = F.linear(x_t, layer.lstm.input_map.weight, layer.lstm.input_map.bias)
                z = z + F.linear(h, layer.lstm.recurrent_map.weight)
                a, i, f, o = z.chunk(4, 1)
                c = c * torch.sigmoid(f + 1) + torch.tanh(a) * torch.sigmoid(i)
                h = torch.tanh(c) * torch.sigmoid(o)
            step = _ltc_step if isinstance(layer, fastltc.LTC) else _cfc_step
            y, h = step(layer, x_t.unsqueeze(1), h, dt_t.unsqueeze(1))
            outputs.append(y)
    state = torch.cat([h, c], 1) if layer.use_mixed else h
    return torch.stack(outputs).numpy(), state.numpy()


def _ltc_step(layer: Any, x: Tensor, h: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    cell = layer.rnn_cell
    parameters = dict(cell.named_parameters())
    mask, sensory_mask = (parameters.pop(f"{p}sparsity_mask") for p in ("", "sensory_"))
    return reference.ltc(
        *(x, h, dt),
        **parameters,
        mask=mask,
        sensory_mask=sensory_mask,
        output_size=layer.output_size,
        ode_unfolds=cell._ode_unfolds,
        epsilon=cell._epsilon,
        softplus=cell._implicit_param_constraints,
        return_sequences=False,
    )


def _cfc_step(layer: Any, x: Tensor, h: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    cells = layer.rnn_cell._layers if layer.wired_mode else [layer.rnn_cell]
    parameters = [p for cell in cells for p in cell._operator_parameters(cell._find_parts())]
    masks = [cell.sparsity_mask for cell in cells] if layer.wired_mode else []
    y, h = reference.cfc(
        *(x, h, dt),
        parameters=parameters,
        masks=masks,
        layer_sizes=[cell.hidden_size for cell in cells],
        backbone_layers=cells[0].backbone_layers,
        mode=cells[0].mode,
        activation=cells[0]._find_parts().activation,
        return_sequences=False,
    )
    return layer.fc(y), h


def assert_agree(actual: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Compare, relative to the largest entry (at least 1)."""
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    worst = np.abs(actual - expected).max(initial=0.0)
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    assert worst <= tolerance * scale, f"differs by {worst:.3g} of {scale:.3g}"


def after_some_steps(network: Network, streams: int = 1) -> Session:
    session = network.session(streams)
    session.run(*random_sequence(3, streams, network.input_size))
    return session
