"""Thirty small nets with fixed parameters, and all that is recorded of each.

Only here: were they those of other tests, a case added there would change what was recorded.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ncps.wirings import AutoNCP, FullyConnected, Random
from torch import Tensor, nn

from fastltc import LTC, CfC, _extension
from fastltc.exporting import describe
from fastltc.exporting.c_source import generate_c
from fastltc.exporting.onnx_graph import build_onnx
from fastltc.runtime import Session, read_model

HERE = Path(__file__).parent
MODELS = HERE / "models"
RECORD = HERE / "record.json"

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "ltc": lambda: LTC(5, AutoNCP(19, 2)),
    "ltc-maps": lambda: LTC(3, 19, input_mapping="linear", output_mapping=None),
    "ltc-dense": lambda: LTC(9, FullyConnected(13), ode_unfolds=4, epsilon=1e-3),
    "ltc-positive": lambda: LTC(
        4, Random(15, 3, sparsity_level=0.7), implicit_param_constraints=False
    ),
    "ltc-memory": lambda: LTC(4, AutoNCP(12, 2), mixed_memory=True),
    "ltc-memory-odd": lambda: LTC(3, AutoNCP(9, 3), mixed_memory=True, ode_unfolds=3),
    "ltc-one": lambda: LTC(1, 1, ode_unfolds=1),
    "ltc-wide": lambda: LTC(18, AutoNCP(37, 8)),
    "wired": lambda: CfC(5, AutoNCP(19, 2)),
    "wired-pure": lambda: CfC(3, AutoNCP(17, 3), mode="pure"),
    "wired-memory": lambda: CfC(4, AutoNCP(13, 2), mode="no_gate", mixed_memory=True),
    "wired-one-cell": lambda: CfC(4, FullyConnected(11)),
    "cfc": lambda: CfC(5, 11, backbone_units=16),
    "cfc-one": lambda: CfC(1, 1, backbone_units=1),
    "cfc-no-backbone": lambda: CfC(6, 17, backbone_layers=0),
    "cfc-pure": lambda: CfC(6, 13, mode="pure", mixed_memory=True, backbone_units=9),
    "cfc-no-gate": lambda: CfC(7, 9, mode="no_gate", activation="tanh", backbone_units=17),
    "cfc-deep": lambda: CfC(3, 8, activation="silu", backbone_layers=3, backbone_units=12),
    "cfc-relu": lambda: CfC(4, 16, activation="relu", backbone_units=8),
    "cfc-gelu": lambda: CfC(4, 15, activation="gelu", backbone_units=10, mixed_memory=True),
}
STACKS: dict[str, Callable[[], nn.Module]] = {
    "policy": lambda: nn.Sequential(
        nn.Linear(3, 6), nn.ReLU(), LTC(6, AutoNCP(12, 4)), nn.Linear(4, 3), nn.Softmax(dim=-1)
    ),
    "two-layers": lambda: nn.Sequential(
        nn.Tanh(), LTC(2, 7, mixed_memory=True), nn.Softplus(), CfC(7, 5, proj_size=3), nn.SiLU()
    ),
    "sensor": lambda: nn.Sequential(CfC(3, AutoNCP(11, 2), proj_size=4), nn.GELU(), nn.Sigmoid()),
}
BATCHES = ((1, 4), (5, 3), (9, 4), (16, 2), (33, 3))
DTYPES = (torch.float32, torch.float64)


def _fixed(name: str) -> np.random.RandomState:
    """Return numbers that no release of numpy or torch changes."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def _make(name: str) -> nn.Module:
    module = {**LAYERS, **STACKS}[name]()
    with torch.no_grad():
        for key, parameter in sorted(module.named_parameters()):
            if "sparsity_mask" in key:
                continue
            letter, shape = key.rpartition(".")[2], tuple(parameter.shape)
            draw = _fixed(f"{name} {key}").uniform(-1.0, 1.0, shape)
            if letter in ("w", "sensory_w", "cm", "gleak"):
                draw = 0.5 + 0.4 * draw
            elif letter in ("sigma", "sensory_sigma"):
                draw = 4.0 + draw
            elif letter == "weight":
                draw = draw / shape[1] ** 0.5
            parameter.copy_(torch.from_numpy(np.asarray(draw)))
    return module.eval()


def _case(name: str, number: int, dtype: torch.dtype) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    """Return a layer, its inputs and what else it is called with; each number is another kind."""
    layer: Any = _make(name).to(dtype)
    batch, time = BATCHES[number % len(BATCHES)]
    fixed = _fixed(f"{name} inputs")
    x = torch.from_numpy(fixed.standard_normal((batch, time, layer.input_size))).to(dtype)
    steps = torch.from_numpy(fixed.uniform(0.1, 2.0, (batch, time, layer.state_size))).to(dtype)
    options: dict[str, Any] = {}
    if number % 4:
        timespans = (steps[:, :, 0], steps[:, :1, 0].expand(batch, time), steps)[number % 4 - 1]
        options["timespans"] = timespans.detach().requires_grad_()
    if number % 3 == 1:
        options["lengths"] = torch.arange(batch) % (time + 1)
    layer.return_sequences = number % 5 != 2
    return layer, x.requires_grad_(), options


def _run(name: str, number: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield outputs, states and all gradients of one layer."""
    layer, x, options = _case(name, number, dtype)
    output, state = layer(x, **options)
    results = [output, *(state if isinstance(state, tuple) else (state,))]
    weights = [
        torch.from_numpy(_fixed(f"{name} {r.shape}").standard_normal(r.shape)).to(dtype)
        for r in results
    ]
    leaves = {"x": x} | {k: v for k, v in options.items() if v.requires_grad}
    leaves |= {k: p for k, p in sorted(layer.named_parameters()) if p.requires_grad}
    grads = torch.autograd.grad(results, list(leaves.values()), weights, allow_unused=True)
    yield from zip(("output", "state", "memory"), results, strict=False)
    for key, grad in zip(leaves, grads, strict=True):
        if grad is not None:
            yield f"gradient of {key}", grad
    with torch.no_grad():
        yield "output without gradient", layer(x, **options)[0]


def _session(name: str, streams: int) -> np.ndarray:
    """Run the model of the recorded file without torch."""
    session = Session.load(MODELS / f"{name}.safetensors", streams)
    fixed = _fixed(f"{name} {streams} streams")
    x = fixed.standard_normal((6, streams, session.input_size)).astype(np.float32)
    steps = fixed.uniform(0.0, 2.0, (6, streams)).astype(np.float32)
    return np.concatenate([session.run(x, steps).ravel(), session.get_state().ravel()])


def _digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()[:24]


def _summary(name: str, values: np.ndarray) -> list[float]:
    """Return two sums, of other weights each, and the sum of magnitudes that bounds them."""
    flat = values.ravel().astype(np.float64)
    weights = _fixed(name).uniform(0.5, 1.5, (2, flat.size))
    return [*(weights @ flat).tolist(), float(np.abs(flat).sum())]


def compute() -> dict[str, Any]:
    """Return digests and summaries of everything that this process's instruction set computes."""
    torch.set_num_threads(1)
    bits: dict[str, str] = {}
    summaries: dict[str, list[float]] = {}
    for number, name in enumerate(LAYERS):
        for kind, dtype in ((number, DTYPES[0]), (number, DTYPES[1]), (number + 7, DTYPES[1])):
            case = f"{name}, {str(dtype)[6:]}, case {kind}"
            results = [(key, t.detach().contiguous().numpy()) for key, t in _run(name, kind, dtype)]
            bits[case] = _digest(values.tobytes() for _, values in results)
            summaries |= {f"{case}, {key}": _summary(key, values) for key, values in results}
    for name in (*LAYERS, *STACKS):
        for streams in (1, 9):
            case = f"{name}, session of {streams}"
            results = _session(name, streams)
            bits[case] = _digest([results.tobytes()])
            summaries[case] = _summary(case, results)
    return {"bits": bits, "summaries": summaries}


def environment() -> str:
    """Name what bits depend on besides this project's code.

    The compiler chooses which multiplications and additions become one; a few parameters pass
    through the C library; processors differ in the estimate that AVX-512 divides floats with.
    """
    runtime = _extension.load_runtime()
    instruction_set = runtime.cpu_info()["chosen"]
    parts = [instruction_set, runtime.build_info()["compiler"], *platform.libc_ver()]
    if instruction_set == "avx512":
        cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        parts.append(next(w for w in cpus.split() if w in ("GenuineIntel", "AuthenticAMD")))
    return ", ".join(parts)


def exports(name: str) -> dict[str, str]:
    """Return a digest of what is written of one net in each format."""
    model = describe(_make(name), time_unit=60)
    source = generate_c(model, "golden")
    graph = build_onnx(model).graph.SerializeToString(deterministic=True)
    return {
        "parameters": _digest(model.tensors[key].tobytes() for key in sorted(model.tensors)),
        "C": _digest([source.header.encode(), source.source.encode()]),
        "ONNX": _digest([graph]),
    }


def model_of(name: str) -> nn.Module:
    return _make(name)


def recorded_model(name: str) -> Any:
    return read_model(MODELS / f"{name}.safetensors")


if __name__ == "__main__":
    json.dump({"environment": environment(), **compute()}, sys.stdout)
