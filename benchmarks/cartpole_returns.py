"""Trains both policies of examples/cartpole.py from several seeds and writes what they reach.

    python benchmarks/cartpole_returns.py benchmarks/results/rl/cartpole.json [--seeds 5]

One thread. The file is written after each training; those that are in it are not run again. The
LSTM is called once for a minibatch, in which episodes start at first steps only: this computes what
sb3-contrib does step by step, in less time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy

import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from cartpole import POLICIES, train


class QuickLstmPolicy(RecurrentActorCriticPolicy):
    """The policy of sb3-contrib, with one call of the LSTM for sequences."""

    @staticmethod
    def _process_sequence(features: Any, states: Any, episode_starts: Any, lstm: Any) -> Any:
        batch = states[0].shape[1]
        starts = episode_starts.reshape(batch, -1)
        assert not starts[:, 1:].any()
        x = features.reshape(batch, -1, lstm.input_size).transpose(0, 1)
        output, states = lstm(x, tuple((1 - starts[:, 0]).view(1, -1, 1) * h for h in states))
        return output.transpose(0, 1).flatten(0, 1), states


POLICIES["lstm"] = (QuickLstmPolicy, *POLICIES["lstm"][1:])


def run(policy: str, seed: int, steps: int) -> dict[str, Any]:
    log: list[tuple[int, float]] = []
    returns = train(policy, seed, steps, lambda done, mean: log.append((done, round(mean, 2))))
    return {"policy": policy, "seed": seed, "log": log, "returns": returns}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and deviation over seeds of a policy's mean returns."""
    found = {
        "after_training": [statistics.fmean(run["returns"]) for run in runs],
        "in_training": [statistics.fmean(mean for _, mean in run["log"]) for run in runs],
    }
    spreads = {
        name: {"mean": statistics.fmean(values), "std": statistics.stdev(values)}
        for name, values in found.items()
        if len(values) > 1
    }
    return {"seeds": len(runs), **spreads}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = json.loads(options.path.read_text())["runs"] if options.path.exists() else []
    for seed in range(options.seeds):
        for policy in POLICIES:
            if any((run["policy"], run["seed"]) == (policy, seed) for run in runs):
                continue
            runs.append(run(policy, seed, options.steps))
            data = {
                "steps": options.steps,
                **{kind: summary([r for r in runs if r["policy"] == kind]) for kind in POLICIES},
                "machine": machine.describe(),
                "runs": runs,
            }
            options.path.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
