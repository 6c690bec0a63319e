"""An update of RecurrentPPO with a liquid policy, against that with the LSTM of sb3-contrib."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from ncps.wirings import AutoNCP

import fastltc
from cases import QUICK, TOLERANCE
from figures import Figure, Spread
from interleave import Contestant

pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import DummyVecEnv

from fastltc.rl import LiquidPolicy

UNITS, ENVIRONMENTS, STEPS, BATCH = 64, 8, 16 if QUICK else 128, 256
LAYERS = {"LTC": fastltc.LTC, "CfC": fastltc.CfC}


class Episodes(gymnasium.Env[Any, Any]):
    """Random observations, in episodes of so many steps; it begins in the middle of one."""

    observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: int, steps: int) -> None:
        self.length, self.steps = length, steps

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        end = self.steps % self.length == 0
        return self.observation_space.sample(), 1.0, end, False, {}


def after_a_rollout(policy: Any, length: int, arguments: dict[str, Any]) -> Any:
    """Return a model with a rollout to learn from, again and again: it learns at a rate of 0."""
    steps = range(0, length, length // ENVIRONMENTS)[:ENVIRONMENTS]
    model = RecurrentPPO(
        policy,
        DummyVecEnv([functools.partial(Episodes, length, start) for start in steps]),
        learning_rate=0.0,
        n_steps=STEPS,
        batch_size=BATCH,
        n_epochs=1,
        policy_kwargs=arguments,
        seed=0,
        device="cpu",
    )
    # Episodes of all environments begin with the first rollout.
    return model.learn(2 * ENVIRONMENTS * STEPS)


def check(model: Any) -> float:
    """Compare the log-probabilities of a minibatch in one call with those of the rollout."""
    batch = next(model.rollout_buffer.get(BATCH))
    _, found, _ = model.policy.evaluate_actions(
        batch.observations, batch.actions.long().flatten(), batch.lstm_states, batch.episode_starts
    )
    valid = batch.mask > 0
    found, wanted = found.detach()[valid], batch.old_log_prob[valid]
    error = float((found - wanted).abs().max() / wanted.abs().max())
    assert error <= TOLERANCE
    return error


@pytest.mark.parametrize("length", [20, 200, 1000, 10**9])
@pytest.mark.parametrize("kind", LAYERS)
def test_update_of_recurrent_ppo(
    kind: str,
    length: int,
    interleave: Callable[..., Any],
    record_times: Callable[..., None],
    threads: int,
) -> None:
    units = AutoNCP(UNITS, UNITS // 4)
    liquid = after_a_rollout(LiquidPolicy, length, {"layer": LAYERS[kind], "units": units})
    lstm = after_a_rollout("MlpLstmPolicy", length, {"lstm_hidden_size": UNITS})
    error = check(liquid)
    times = interleave(
        [Contestant("fastltc", liquid.train, threads), Contestant("lstm", lstm.train, threads)]
    )
    figures = [
        Figure("fastltc", "{} ms", Spread.of([1e3 * s for s in times.seconds["fastltc"]])),
        Figure("LSTM", "{} of the LSTM's", times.ratio("fastltc", "lstm"), at_most=1.0),
    ]
    episodes = f"episodes of {length} steps" if length < 10**9 else "no end of an episode"
    case = f"{kind}, {units.units} neurons, NCP, {ENVIRONMENTS} environments, {episodes}"
    record_times(case, "update of RecurrentPPO", times, figures, error)
