"""Layers on a GPU: whether they are right and repeatable, how long a step takes, and what of it.

python tools/gpu_smoke.py CASE            a line of JSON, for tools/gpu_check.py
python tools/gpu_smoke.py --once CASE ... forward and backward once, compared with the CPU
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from ncps.wirings import AutoNCP, FullyConnected
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import fastltc


@dataclass(frozen=True)
class Case:
    """A layer of so many inputs, and a batch of so many steps."""

    layer: Callable[[int], nn.Module]
    inputs: int
    batch: int
    steps: int


def _ltc(neurons: int, **options: Any) -> Callable[[int], nn.Module]:
    return lambda inputs: fastltc.LTC(inputs, FullyConnected(neurons), **options)


def _ncp(layer: type[nn.Module], **options: Any) -> Callable[[int], nn.Module]:
    return lambda inputs: layer(inputs, AutoNCP(19, 2), **options)


def _cfc(units: int, backbone: int) -> Callable[[int], nn.Module]:
    return lambda inputs: fastltc.CfC(
        inputs, units, backbone_layers=1, backbone_units=backbone, backbone_dropout=0.0
    )


CASES = {
    "ltc-ncp19": Case(_ncp(fastltc.LTC), 16, 128, 32),
    "ltc-fc64": Case(_ltc(64), 32, 64, 256),
    # With clusters of 8 blocks, 256 samples need 16 of them at once and 240 need 15: if the first
    # takes twice as long, 16 do not fit.
    "ltc-fc256": Case(_ltc(256), 64, 256, 128),
    "ltc-fc256-b240": Case(_ltc(256), 64, 240, 128),
    "ltc-mixed": Case(_ncp(fastltc.LTC, mixed_memory=True), 16, 128, 32),
    "cfc-ncp19": Case(_ncp(fastltc.CfC), 16, 128, 32),
    "cfc-64": Case(_cfc(64, 128), 32, 128, 64),
    "small-warp": Case(_ncp(fastltc.LTC), 3, 3, 3),
    "small-block": Case(_ltc(40), 3, 2, 2),
    "small-cluster": Case(_ltc(70), 3, 5, 2),
    "small-tiled": Case(lambda inputs: fastltc.LTC(inputs, AutoNCP(600, 4)), 3, 2, 2),
    "small-mixed": Case(_ncp(fastltc.LTC, mixed_memory=True), 3, 3, 3),
    "small-cfc-warp": Case(_ncp(fastltc.CfC), 3, 3, 3),
    "small-cfc-block": Case(_cfc(20, 12), 3, 5, 3),
}


class Trial:
    """A case on the GPU and on the CPU, with the same parameters."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.case = case
        self.layers = {"cpu": case.layer(case.inputs)}
        torch.manual_seed(0)
        self.layers["cuda"] = case.layer(case.inputs).cuda()
        self.layers["cuda"].load_state_dict(self.layers["cpu"].state_dict())
        self.x = torch.randn(case.batch, case.steps, case.inputs)
        self.on_gpu = self.x.cuda()

    def step(self, device: str, x: Tensor) -> list[Tensor]:
        """Return the output and all gradients of a forward and a backward pass."""
        layer = self.layers[device]
        x = x.detach().requires_grad_()
        y = layer(x)[0]
        leaves = [x, *(p for p in layer.parameters() if p.requires_grad)]
        gradients = torch.autograd.grad(y, leaves, torch.ones_like(y), allow_unused=True)
        return [y.detach(), *(g for g in gradients if g is not None)]

    def error(self) -> float:
        """Return the largest difference from the CPU, over the largest value of its tensor."""
        few = self.x[: min(4, self.case.batch), : min(8, self.case.steps)]
        found, wanted = self.step("cuda", few.cuda()), self.step("cpu", few)
        errors = [
            float((a.cpu() - b).abs().max() / b.abs().max().clamp_min(1e-6))
            for a, b in zip(found, wanted, strict=True)
        ]
        return max(errors) if all(e == e for e in errors) else float("nan")

    def learn(self, name: str) -> dict[str, object]:
        """Return all that a case tells."""
        first = self.step("cuda", self.on_gpu)
        same = all(
            torch.equal(a, b)
            for _ in range(3)
            for a, b in zip(self.step("cuda", self.on_gpu), first, strict=True)
        )
        torch.cuda.synchronize()
        times = []
        for _ in range(20):
            start = time.perf_counter()
            self.step("cuda", self.on_gpu)
            torch.cuda.synchronize()
            times.append(1000 * (time.perf_counter() - start))
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            for _ in range(5):
                self.step("cuda", self.on_gpu)
            torch.cuda.synchronize()
        kernels = {
            event.key[:80]: [round(event.device_time_total / 5, 2), event.count / 5]
            for event in sorted(recorded.key_averages(), key=lambda e: -e.device_time_total)
        }
        return {
            "case": name,
            "device": torch.cuda.get_device_name(),
            "multiprocessors": torch.cuda.get_device_properties(0).multi_processor_count,
            "torch": torch.__version__,
            "fastltc": fastltc.__version__,
            "error": self.error(),
            "bits": "same bits" if same else "OTHER BITS",
            "ms": sorted(times)[len(times) // 2],
            "nodes": round(sum(count for _, count in kernels.values())),
            "kernels_us_and_times": kernels,
        }


def main() -> None:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--once", action="store_true")
    given = parser.parse_args()
    wrong = []
    for name in given.cases:
        trial = Trial(CASES[name])
        learnt: dict[str, Any] = {"error": trial.error()} if given.once else trial.learn(name)
        print(json.dumps(learnt) if not given.once else f"{name}: {learnt}", flush=True)
        # Sums of thousands of terms in float32, with another exponential.
        if not learnt["error"] < 2e-3 or learnt.get("bits") == "OTHER BITS":
            wrong.append(name)
    if wrong:
        sys.exit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
