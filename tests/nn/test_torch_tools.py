"""What tools of PyTorch do with a model that has these layers in it."""

from __future__ import annotations

import copy
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ncps.torch
import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import fastltc
from fastltc import LTC, CfC, CfCCell, LTCCell, MaskedLinear, ParallelLTC, WiredCfCCell

F, I, N = 3, 4, 12  # noqa: E741

LAYERS = {
    "LTC": lambda: LTC(I, AutoNCP(N, 2)),
    "LTC with memory": lambda: LTC(I, N, mixed_memory=True),
    "CfC": lambda: CfC(I, N, proj_size=2, mixed_memory=True),
    "wired CfC": lambda: CfC(I, AutoNCP(N, 2)),
}
over_layers = pytest.mark.parametrize("kind", LAYERS)


class Model(nn.Module):
    """An encoder, a layer and a head."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.encoder, self.layer = nn.Linear(F, I), layer
        self.head = nn.Linear(getattr(layer, "proj_size", None) or layer.output_size, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.encoder(x))[0])


def loaded(program: Any) -> Any:
    file = io.BytesIO()
    torch.jit.save(program, file)
    file.seek(0)
    return torch.jit.load(file)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@over_layers
def test_a_traced_model_takes_any_batch_and_time(kind: str) -> None:
    model = Model(LAYERS[kind]()).double().eval()
    traced = loaded(torch.jit.trace(model, torch.randn(2, 4, F).double()))
    frozen = torch.jit.freeze(traced.eval())
    for batch, time in ((3, 7), (1, 1)):
        x = torch.randn(batch, time, F).double()
        for program in (traced, frozen):
            torch.testing.assert_close(program(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_saved_programs_need_the_operators_alone(tmp_path: Path) -> None:
    model, x = Model(LAYERS["wired CfC"]()).double().eval(), torch.randn(2, 4, F).double()
    torch.jit.save(torch.jit.trace(model, x), tmp_path / "model.pt")
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    torch.save((x, model(x).detach()), tmp_path / "data.pt")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import torch, fastltc.ops\n"
            "x, expected = torch.load('data.pt')\n"
            "for module in torch.jit.load('model.pt'), torch.export.load('model.pt2').module():\n"
            "    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)\n",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


CELLS = {
    "LTCCell": lambda: LTCCell(AutoNCP(N, 2), I),
    "CfCCell": lambda: CfCCell(I, N),
    "WiredCfCCell": lambda: WiredCfCCell(I, AutoNCP(N, 2)),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", CELLS)
def test_a_traced_cell_takes_any_batch(name: str) -> None:
    cell: Any = CELLS[name]().double()

    def arguments(batch: int) -> tuple[Tensor, ...]:
        shapes = (batch, I), (batch, N), (batch, 1)
        return tuple(torch.rand(shape).double() for shape in shapes)

    traced = loaded(torch.jit.trace(cell, arguments(2)))
    given = arguments(5)
    torch.testing.assert_close(traced(*given), cell(*given), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_a_package_of_aotinductor(tmp_path: Path, compiler_cache: None) -> None:
    # Their lists of tensors are empty and full.
    model = fastltc.Sequential(LAYERS["LTC"](), CfC(2, 6, mixed_memory=True)).eval()
    dims = {0: Dim("batch", max=64), 1: Dim("time", max=64)}
    with torch.no_grad():
        program = torch.export.export(model, (torch.randn(2, 6, I),), dynamic_shapes=(dims,))
    package = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "model.pt2")
    )
    run = torch._inductor.aoti_load_package(package)
    for batch, time in ((3, 9), (5, 2)):
        x = torch.randn(batch, time, I)
        torch.testing.assert_close(run(x)[0], model(x)[0])


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this torch has no gloo",
)
def test_two_processes_and_workers(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "scripts" / "torch_processes.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "store")],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # Older versions of Gloo say things in between.
    said = re.findall("DataLoader|DDP|FSDP2|shared memory", done.stdout)
    assert said == ["DataLoader", "DDP", "FSDP2", "shared memory"]


@pytest.mark.parametrize("reentrant", [False, True])
@over_layers
def test_checkpointed_activations(kind: str, reentrant: bool) -> None:
    model = Model(LAYERS[kind]()).double()
    x = torch.randn(3, 5, F).double().requires_grad_()
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(model(x).square().sum(), trained)
    checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
    for parameter, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-12)


@over_layers
def test_an_exponential_average_is_that_of_the_parameters(kind: str) -> None:
    model = LAYERS[kind]()
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average)
    averaged.update_parameters(model)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    averaged.update_parameters(model)
    expected = copy.deepcopy(model)
    expected.load_state_dict(
        {name: before[name].lerp(value, 0.1) for name, value in model.state_dict().items()}
    )
    x = torch.randn(3, 5, I)
    torch.testing.assert_close(averaged(x)[0], expected(x)[0])


@pytest.mark.filterwarnings("ignore:.*runs step by step")
@pytest.mark.parametrize("kind", ["LTC", "CfC"])
def test_flops_are_those_of_ncps(kind: str) -> None:
    counts = []
    for package in (ncps.torch, fastltc):
        layer, x = getattr(package, kind)(I, AutoNCP(N, 2)), torch.randn(2, 5, I)
        with FlopCounterMode(display=False) as counter:
            layer(x)[0].sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


def test_accelerate_prepares_a_model() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = Model(LAYERS["LTC"]())
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    model, optimizer = accelerator.prepare(model, optimizer)
    x, losses = torch.randn(8, 5, F), []
    for _ in range(5):
        with accelerator.accumulate(model):
            loss = (model(x) - 1).square().mean()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.filterwarnings("ignore")
def test_torchao_quantizes_what_ncps_lets_it() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    for kind in ("LTC", "LTC with memory", "CfC"):
        model = Model(LAYERS[kind]()).eval()
        quantized, wanted = copy.deepcopy(model), copy.deepcopy(model)
        quantization.quantize_(quantized, quantization.Int8WeightOnlyConfig())
        with torch.no_grad():
            for name, parameter in quantized.named_parameters():
                if hasattr(parameter, "dequantize") and type(parameter) is not nn.Parameter:
                    wanted.get_parameter(name).copy_(parameter.dequantize())
        x = torch.randn(3, 5, F)
        with torch.no_grad():
            torch.testing.assert_close(quantized(x), wanted(x), rtol=1e-4, atol=1e-5)
            assert not torch.allclose(quantized(x), model(x), rtol=1e-6, atol=1e-7)
    wired = CfC(I, AutoNCP(N, 2)).eval()
    quantization.quantize_(wired, quantization.Int8WeightOnlyConfig())
    with pytest.raises(TypeError, match="ff1: expected a weight that a mask can be put on"):
        wired(torch.randn(3, 5, I))


@pytest.mark.filterwarnings("ignore::UserWarning")
@over_layers
def test_jagged_sequences(kind: str) -> None:
    layer: Any = LAYERS[kind]().double()
    parts = [torch.randn(time, I).double().requires_grad_() for time in (3, 0, 5)]
    spans = [torch.rand(len(part)).double() for part in parts]
    resets = [torch.rand(len(part)) < 0.4 for part in parts]
    x, dt, anew = (
        torch.nested.as_nested_tensor(p, layout=torch.jagged) for p in (parts, spans, resets)
    )
    output, hn = layer(x, None, dt, resets=anew)
    assert (output + output).shape == output.shape
    expected, states = zip(
        *(layer(p, None, s, resets=r) for p, s, r in zip(parts, spans, resets, strict=True)),
        strict=True,
    )
    torch.testing.assert_close(output.values(), torch.cat(expected), rtol=1e-12, atol=1e-12)
    for state, alone in zip(
        hn if layer.use_mixed else (hn,),
        zip(*states, strict=True) if layer.use_mixed else (states,),
        strict=True,
    ):
        torch.testing.assert_close(state, torch.stack(list(alone)), rtol=1e-12, atol=1e-12)
    actual = torch.autograd.grad(output.values().square().sum(), parts[::2])
    wanted = torch.autograd.grad(torch.cat(expected).square().sum(), parts[::2])
    torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)
    padded = torch.nested.to_padded_tensor(dt, 0.0)
    layer.return_sequences = False
    torch.testing.assert_close(layer(x, None, padded, resets=anew)[0][2], output[2][-1])
    masked = MaskedLinear(I, N, torch.rand(N, I) < 0.5).double()
    torch.testing.assert_close(masked(x).values(), masked(torch.cat(parts)))


def nested(*lengths: int, width: int = I, layout: torch.layout = torch.jagged) -> Tensor:
    return torch.nested.nested_tensor([torch.rand(n, width) for n in lengths], layout=layout)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_jagged_sequences_that_do_not_fit() -> None:
    layer, x = LAYERS["LTC"](), nested(3, 5)
    for given, more, message in (
        (nested(3, 5, width=I + 1), {}, r"input: .*\[B, T, I\] with I = 4 features"),
        (x.transpose(1, 2), {}, "input: expected a contiguous nested tensor whose axis 1"),
        (x, {"lengths": [1, 2]}, "lengths: expected None with a nested tensor"),
        (x, {"timespans": nested(4, 5, width=1)}, "timespans: expected as many steps"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(given, **more)
    with pytest.raises(ValueError, match="input: expected batch_first=True with a nested"):
        LTC(I, N, batch_first=False)(x)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_layouts_are_refused_by_name() -> None:
    layer, x, h = LAYERS["LTC"](), torch.rand(2, 5, I), torch.rand(2, N)
    sparse = "expected a dense tensor, got one of the layout torch.sparse_coo; give"
    strided = nested(3, 5, layout=torch.strided)
    calls: dict[str, Any] = {
        f"input: {sparse} input.to_dense": lambda: layer(x.to_sparse()),
        "input: .*torch.sparse_csr": lambda: layer(x[0].to_sparse_csr()),
        "input: .* a nested one; give torch.nested.to_padded_tensor": lambda: layer(strided),
        f"hx: {sparse}": lambda: layer(x, h.to_sparse()),
        f"timespans: {sparse}": lambda: layer(x, None, torch.ones(2, 5).to_sparse()),
        f"lengths: {sparse}": lambda: layer(x, lengths=torch.ones(2).long().to_sparse()),
        f"inputs: {sparse}": lambda: layer.rnn_cell(x[:, 0].to_sparse(), h),
        f"states: {sparse}": lambda: layer.rnn_cell(x[:, 0], h.to_sparse()),
        f"input: {sparse} input": lambda: ParallelLTC([layer] * 2)(torch.stack([x, x]).to_sparse()),
        "input: .* a nested one": lambda: fastltc.Bidirectional(layer, layer)(nested(3, 5)),
    }
    masked = MaskedLinear(I, N, torch.rand(N, I) < 0.5)
    calls["input: .*sparse_coo"] = lambda: masked(x.to_sparse())
    for message, call in calls.items():
        with pytest.raises(TypeError, match=message):
            call()
