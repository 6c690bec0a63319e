"""Trains a recurrent policy by RecurrentPPO: a pole on a cart, whose velocities are hidden.

    pip install "fastltc[rl]"
    python examples/cartpole.py [--policy lstm] [--seed 0] [--steps 60000]

From positions alone no single observation says which way the pole falls: the policy must remember.
The return of an episode is the number of steps, at most 500, that the pole stays up. `--policy
lstm` trains sb3-contrib's own policy instead, with as many units, on the same steps.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import gymnasium
import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from fastltc import LTC, CfC
from fastltc.rl import LiquidPolicy
from fastltc.wirings import AutoNCP

UNITS = 32
LIQUID = {"layer": CfC, "units": UNITS}
POLICIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "cfc": (LiquidPolicy, {"layer": CfC, "units": UNITS}),
    "cfcncp": (LiquidPolicy, {"layer": CfC, "units": AutoNCP(UNITS, 8)}),
    "ltc": (LiquidPolicy, {"layer": LTC, "units": UNITS}),
    "ltcncp": (LiquidPolicy, {"layer": LTC, "units": AutoNCP(UNITS, 8)}),
    "lstm": ("MlpLstmPolicy", {"lstm_hidden_size": UNITS}),
}


class Positions(gymnasium.ObservationWrapper):
    """Shows where the cart is and how the pole leans, as parts of what ends an episode."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-2.5, 2.5, (2,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[[0, 2]] / np.float32([2.4, 0.21])


def main() -> None:
    """Train, and print returns on the way and at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policy", choices=POLICIES, default="liquid")
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--ts", type=float, default=1)
    options = parser.parse_args()

    torch.set_num_threads(1)
    policy, arguments = POLICIES[options.policy]
    if policy is LiquidPolicy: arguments["timespans"]=options.ts
    envs = make_vec_env("CartPole-v1", 16, seed=options.seed, wrapper_class=Positions)
    model = RecurrentPPO(
        policy,
        envs,
        learning_rate=options.lr,
        n_steps=64,
        batch_size=options.batch,
        n_epochs=options.epochs,
        policy_kwargs={"net_arch": [32], **arguments},
        seed=options.seed,
        device="cpu",
    )
    start = time.process_time()
    for part in range(10):
        model.learn(options.steps // 10, reset_num_timesteps=part == 0)
        returns = [episode["r"] for episode in model.ep_info_buffer or []]
        print(f"{model.num_timesteps:7} steps: return {np.mean(returns):.0f} of 500", flush=True)
    mean, deviation = evaluate_policy(model, envs, n_eval_episodes=32)
    print(f"{options}after training: {mean:.1f} +- {deviation:.1f}, {time.process_time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
