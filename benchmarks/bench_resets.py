"""A rollout of many episodes in one call, against the loops that it takes the place of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ncps.torch
import pytest
import torch
from ncps.wirings import AutoNCP
from torch import Tensor

import fastltc
from cases import QUICK, TOLERANCE, TOLERANCE_CM
from figures import Figure, Spread
from interleave import Contestant

ENVIRONMENTS, STEPS, EPISODES, INPUTS = 64, 4 if QUICK else 128, 2 if QUICK else 20, 16
KINDS = ("LTC", "CfC")


class Rollout:
    """Observations of many environments, where episodes begin, and the ways to run over them."""

    def __init__(self, kind: str) -> None:
        torch.manual_seed(0)
        self.theirs = getattr(ncps.torch, kind)(INPUTS, AutoNCP(19, 2))
        self.layer = getattr(fastltc, kind)(INPUTS, AutoNCP(19, 2))
        self.layer.load_state_dict(self.theirs.state_dict())
        self.x = torch.randn(ENVIRONMENTS, STEPS, INPUTS, requires_grad=True)
        self.resets = torch.zeros(ENVIRONMENTS, STEPS, dtype=torch.bool)
        for sample in self.resets:
            sample[torch.randperm(STEPS - 1)[: EPISODES - 1] + 1] = True
        self.grad = torch.randn(ENVIRONMENTS, STEPS, 2)

    def in_one_call(self) -> Tensor:
        return self.layer(self.x, resets=self.resets)[0]

    def without_resets(self) -> Tensor:
        return self.layer(self.x)[0]

    def step_by_step(self, layer: Any) -> Tensor:
        """Run as in a loop over an environment: a call for each step, and the state masked."""
        outputs, hx = [], self.x.new_zeros(ENVIRONMENTS, 19)
        for t in range(STEPS):
            hx = torch.where(self.resets[:, t, None], 0.0, hx)
            output, hx = layer(self.x[:, t : t + 1], hx)
            outputs.append(output)
        return torch.cat(outputs, 1)

    def training_step(self, run: Callable[[], Tensor], layer: Any) -> Callable[[], None]:
        def step() -> None:
            layer.zero_grad()
            self.x.grad = None
            run().backward(self.grad)

        return step

    def ways(self) -> dict[str, Callable[[], None]]:
        """Return a training step of each way."""
        layer, theirs = self.layer, self.theirs
        return {
            "fastltc": self.training_step(self.in_one_call, layer),
            "ncps": self.training_step(lambda: self.step_by_step(theirs), theirs),
            "steps": self.training_step(lambda: self.step_by_step(layer), layer),
            "without": self.training_step(self.without_resets, layer),
        }

    def check(self) -> float:
        """Compare outputs and gradients of the one call with those of the loops."""
        ways, found = self.ways(), {}
        for name, run, layer in (
            ("fastltc", self.in_one_call, self.layer),
            ("steps", lambda: self.step_by_step(self.layer), self.layer),
            ("ncps", lambda: self.step_by_step(self.theirs), self.theirs),
        ):
            ways[name]()
            learned = [p for p in layer.named_parameters() if p[1].requires_grad]
            assert self.x.grad is not None
            found[name] = {
                "output": run().detach(),
                "x": self.x.grad.clone(),
                **{key: parameter.grad.clone() for key, parameter in learned},
            }
        worst = 0.0
        for name in ("steps", "ncps"):
            for key, wanted in found[name].items():
                error = float((found["fastltc"][key] - wanted).abs().max() / wanted.abs().max())
                assert error <= (TOLERANCE_CM if key.endswith(".cm") else TOLERANCE), (name, key)
                worst = max(worst, error)
        return worst


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_of_episodes(
    kind: str,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    rollout = Rollout(kind)
    error = rollout.check()
    times = interleave(
        [Contestant(name, way, threads) for name, way in rollout.ways().items()], seconds=20.0
    )
    figures = [
        Figure("fastltc", "{} ms", Spread.of([1e3 * s for s in times.seconds["fastltc"]])),
        Figure("ncps", "{} x ncps, step by step", times.ratio("ncps", "fastltc"), at_least=20),
        Figure("other", "{} x fastltc, step by step", times.ratio("steps", "fastltc")),
        Figure("other", "{} x without resets", times.ratio("fastltc", "without"), at_most=1.05),
    ]
    case = (
        f"{kind}, AutoNCP(19, 2), I={INPUTS}, B={ENVIRONMENTS}, T={STEPS}, {EPISODES} episodes each"
    )
    record_times(case, "forward + backward with resets", times, figures, error)
