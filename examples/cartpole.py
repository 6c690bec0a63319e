"""Trains a recurrent policy by RecurrentPPO: a pole on a cart, whose velocities are hidden.

    pip install "fastltc[rl]"
    python examples/cartpole.py [--policy lstm] [--seed 0] [--steps 40000]

From positions alone no single observation says which way the pole falls: the policy must remember.
The return of an episode is the number of steps, at most 500, that the pole stays up. ``--policy
lstm`` trains sb3-contrib's own policy instead, with as many units, on as many steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from fastltc import CfC
from fastltc.rl import LiquidPolicy

# Each with the learning rate, of a few, by which it did best from another seed.
POLICIES: dict[str, tuple[Any, float, dict[str, Any]]] = {
    "liquid": (LiquidPolicy, 0.002, {"layer": CfC, "units": 32}),
    "lstm": ("MlpLstmPolicy", 0.004, {"lstm_hidden_size": 32}),
}


class Positions(gymnasium.ObservationWrapper):
    """Shows where the cart is and how the pole leans, 1 where an episode ends."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[[0, 2]] / np.float32([2.4, 0.2095])


def train(policy: str, seed: int, steps: int, report: Callable[[int, float], None]) -> list[float]:
    """Train, report mean returns on the way, and return those of 50 episodes after it."""
    kind, rate, arguments = POLICIES[policy]
    envs = make_vec_env("CartPole-v1", 16, seed=seed, wrapper_class=Positions)
    model = RecurrentPPO(
        kind,
        envs,
        learning_rate=rate,
        n_steps=64,
        batch_size=1024,
        policy_kwargs={"net_arch": [32], **arguments},
        seed=seed,
        device="cpu",
    )
    for part in range(0, steps, 4000):
        model.learn(min(4000, steps - part), reset_num_timesteps=part == 0)
        report(model.num_timesteps, np.mean([found["r"] for found in model.ep_info_buffer]))
    envs.seed(1000 + seed)
    returns, _ = evaluate_policy(model, envs, n_eval_episodes=50, return_episode_rewards=True)
    return [float(found) for found in returns]


def main() -> None:
    """Train, and print the returns on the way and at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policy", choices=POLICIES, default="liquid")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)

    def report(steps: int, mean: float) -> None:
        print(f"{steps:7} steps: mean return {mean:.0f} of 500", flush=True)

    returns = train(options.policy, options.seed, options.steps, report)
    print(f"after training: mean return {np.mean(returns):.0f} over {len(returns)} episodes")


if __name__ == "__main__":
    main()
