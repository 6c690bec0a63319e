"""Policies of RecurrentPPO on liquid layers: sequences in one call are what single steps are."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import fastltc
from fastltc import LTC, CfC
from fastltc.runtime import Session
from fastltc.wirings import AutoNCP, Random

pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")

from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.torch_layers import FlattenExtractor

from fastltc.rl import LiquidCnnPolicy, LiquidMultiInputPolicy, LiquidPolicy

OBSERVATIONS = spaces.Box(-1, 1, (3,), np.float32)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
LAYERS: dict[str, dict[str, Any]] = {
    "LTC": {"layer": LTC, "units": 7},
    "LTC, NCP, mixed memory": {
        "layer": LTC,
        "units": AutoNCP(11, 3),
        "layer_kwargs": {"mixed_memory": True},
    },
    "CfC": {"units": 6, "layer_kwargs": {"backbone_units": 9}, "timespans": 0.3},
    "CfC, NCP, mixed memory": {
        "layer": CfC,
        "units": AutoNCP(11, 3),
        "layer_kwargs": {"mixed_memory": True, "proj_size": 4},
    },
}
CRITICS: dict[str, dict[str, Any]] = {
    "own layer": {},
    "shared layer": {"shared_lstm": True, "enable_critic_lstm": False},
    "linear critic": {"enable_critic_lstm": False},
    "own features": {"share_features_extractor": False},
}


class Wide(FlattenExtractor):
    """Features in float64, whatever sb3 makes of observations before."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return super().forward(observations).double()


def make_policy(kind: type[LiquidPolicy] = LiquidPolicy, **arguments: Any) -> Any:
    arguments = {"net_arch": [5]} | arguments
    return kind(OBSERVATIONS, ACTIONS, lambda _: 1e-3, **arguments)


def random_states(policy: Any, batch: int) -> Any:
    shape = 2, 2, 1, batch, policy.lstm_actor.hidden_size
    pairs = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    # Of a critic without a layer of its own they are those of the actor.
    return pairs, RNNStates(tuple(pairs[0]), tuple(pairs[int(policy.enable_critic_lstm)]))


def gradients(policy: Any, pairs: torch.Tensor, results: tuple[torch.Tensor, ...]) -> Any:
    parameters = [p for p in policy.parameters() if p.requires_grad]
    # Weights that differ from result to result and step to step.
    loss = sum(
        (r * torch.linspace(i + 1, i + 2, r.numel(), dtype=r.dtype).reshape(r.shape)).sum()
        for i, r in enumerate(results)
    )
    found = torch.autograd.grad(loss, [pairs, *parameters], allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("share", [0.0, 0.3], ids=["first steps only", "anywhere"])
def test_sequences_are_what_single_steps_are(layer: str, critic: str, share: float) -> None:
    policy = make_policy(features_extractor_class=Wide, **LAYERS[layer], **CRITICS[critic])
    policy.double()
    batch, steps = 5, 9
    pairs, states = random_states(policy, batch)
    observations = torch.rand(batch, steps, 3) * 2 - 1
    actions = torch.randn(batch, steps, 2, dtype=torch.float64)
    starts = torch.rand(batch, steps) < share
    starts[:, 0] = torch.tensor([True, False, True, False, False])
    starts[3] = False  # one that only goes on
    starts = starts.float()

    whole = policy.evaluate_actions(
        observations.flatten(0, 1), actions.flatten(0, 1), states, starts.flatten()
    )
    single: list[Any] = []
    carried = states
    for t in range(steps):
        step = observations[:, t], carried, starts[:, t]
        single.append(policy.evaluate_actions(step[0], actions[:, t], *step[1:]))
        torch.testing.assert_close(
            policy.predict_values(step[0], carried.vf, step[2]), single[-1][0]
        )
        _, _, _, carried = policy(*step)
    wanted = tuple(torch.stack(parts, 1).flatten(0, 1) for parts in zip(*single, strict=True))
    tight = {"rtol": 1e-10, "atol": 1e-10}
    for a, b in zip(whole, wanted, strict=True):
        torch.testing.assert_close(a, b, **tight)
    found = gradients(policy, pairs, whole)
    for a, b in zip(found, gradients(policy, pairs, wanted), strict=True):
        torch.testing.assert_close(a, b, **tight)
    assert found[0].abs().max() > 0

    # And the states after the last steps.
    _, last = policy.get_distribution(observations.flatten(0, 1), states.pi, starts.flatten())
    for a, b in zip(last, carried.pi, strict=True):
        torch.testing.assert_close(a, b, **tight)


@pytest.mark.parametrize("critic", ["own layer", "own features"])
@pytest.mark.parametrize("layer", LAYERS)
def test_actor_and_critic_beside_each_other(
    layer: str, critic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(features_extractor_class=Wide, **LAYERS[layer], **CRITICS[critic])
    policy.double()
    pairs, states = random_states(policy, 3)
    observations, starts = torch.rand(3 * 7, 3), (torch.rand(3 * 7) < 0.2).float()
    actions = torch.randn(3 * 7, 2, dtype=torch.float64)
    calls = []
    both = LiquidPolicy._process_both
    monkeypatch.setattr(LiquidPolicy, "_process_both", lambda *args: calls.append(1) or both(*args))
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found = policy.evaluate_actions(observations, actions, states, starts)
            results.append([*found, *gradients(policy, pairs, found)])
        assert len(calls) == (not policy.lstm_actor.use_mixed)
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)
        # With a hook it is called by itself.
        seen: list[Any] = []
        policy.lstm_critic.register_forward_hook(lambda *_: seen.append(1))
        policy.evaluate_actions(observations, actions, states, starts)
        assert seen == [1]
        assert len(calls) == (not policy.lstm_actor.use_mixed)
    finally:
        torch.set_num_threads(before)


def test_steps_are_those_of_the_layer() -> None:
    """What the comparison with single steps rests on, without the policy's own code."""
    policy = make_policy(features_extractor_class=Wide, units=7, timespans=0.4).double()
    x = torch.rand(4, 3)
    h = torch.randn(1, 4, 7, dtype=torch.float64)
    starts = torch.tensor([1.0, 0, 0, 1])
    distribution, (state, memory) = policy.get_distribution(x, (h, torch.ones_like(h)), starts)
    hx = h[0] * (1 - starts)[:, None]
    output, hn = policy.lstm_actor(x.double()[:, None], hx, torch.tensor(0.4))
    latent = policy.mlp_extractor.forward_actor(output[:, 0])
    torch.testing.assert_close(distribution.distribution.mean, policy.action_net(latent))
    torch.testing.assert_close(state[0], hn)
    assert torch.equal(memory, torch.ones_like(h))


@pytest.mark.parametrize("layer", LAYERS)
def test_predict_carries_the_state_until_an_episode_starts(layer: str) -> None:
    policy = make_policy(**LAYERS[layer], ortho_init=False)
    x = np.random.default_rng(0).uniform(-1, 1, (6, 2, 3)).astype(np.float32)
    state, given = None, []
    for t in range(6):
        action, state = policy.predict(x[t], state, np.array([t == 3, False]), deterministic=True)
        given.append(action)
    fresh, carried, wanted = None, None, []
    for t in range(6):
        if t == 3:
            fresh = None
        first, fresh = policy.predict(x[t, 0], fresh, deterministic=True)
        second, carried = policy.predict(x[t, 1], carried, deterministic=True)
        wanted.append([first, second])
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-6)
    without, _ = policy.predict(x.reshape(12, 3), None, deterministic=True)
    assert np.abs(without.reshape(6, 2, 2) - given).max() > 1e-4  # the state matters


class Episodes(gymnasium.Env[Any, Any]):
    """Nine steps of random observations, and then cut off; small actions are rewarded."""

    action_space = ACTIONS

    def __init__(self, kind: str = "box") -> None:
        self.observation_space: Any = OBSERVATIONS
        if kind == "image":
            self.observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)
        if kind == "dict":
            self.observation_space = spaces.Dict({"a": OBSERVATIONS, "b": spaces.Discrete(3)})

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        end = self.steps == 9
        return self.observation_space.sample(), -float(np.square(action).sum()), False, end, {}


@pytest.mark.parametrize(
    ("kind", "policy"),
    [("box", LiquidPolicy), ("image", LiquidCnnPolicy), ("dict", LiquidMultiInputPolicy)],
)
def test_learns_saves_and_loads(kind: str, policy: type[LiquidPolicy], tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"units": AutoNCP(12, 4), "net_arch": []}
    if kind == "image":
        arguments["features_extractor_kwargs"] = {"features_dim": 8}
    env = Episodes(kind)
    model = RecurrentPPO(
        policy, env, n_steps=32, batch_size=32, n_epochs=2, policy_kwargs=arguments, seed=1
    )
    before = {name: p.clone() for name, p in model.policy.named_parameters()}
    model.learn(64)
    changed = {n for n, p in model.policy.named_parameters() if not torch.equal(p, before[n])}
    assert {n for n in changed if n.startswith("lstm_actor.rnn_cell")}
    assert {n for n in changed if n.startswith("lstm_critic.rnn_cell")}
    assert arguments["units"].input_dim is None  # which belongs to the caller

    model.save(tmp_path / "model")
    loaded = RecurrentPPO.load(tmp_path / "model", env=Episodes(kind))
    model.policy.save(tmp_path / "policy")
    alone = policy.load(tmp_path / "policy", device="cpu")
    observation, state = env.reset(seed=5)[0], None
    for _ in range(3):
        action, following = model.predict(observation, state, deterministic=True)
        for other in (loaded, alone):
            same, _ = other.predict(observation, state, deterministic=True)
            assert np.array_equal(action, same)
        state = following
    loaded.learn(32)


@pytest.mark.parametrize("layer", LAYERS)
def test_an_exported_actor_acts_alike(layer: str, tmp_path: Path) -> None:
    policy = make_policy(**LAYERS[layer], ortho_init=False)
    parts = [policy.lstm_actor, *policy.mlp_extractor.policy_net, policy.action_net]
    fastltc.export(parts, tmp_path / "actor.safetensors")
    session = Session.load(tmp_path / "actor.safetensors")
    state = None
    for x in np.random.default_rng(0).uniform(-0.5, 0.5, (6, 3)).astype(np.float32):
        action, state = policy.predict(x, state, deterministic=True)
        np.testing.assert_allclose(session.step(x, policy.timespans), action, atol=1e-5)


def test_settings_are_saved_with_the_policy() -> None:
    arguments = {**LAYERS["CfC, NCP, mixed memory"], **CRITICS["own features"], "timespans": 0.5}
    policy, file = make_policy(**arguments), io.BytesIO()
    policy.save(file)
    file.seek(0)
    loaded = LiquidPolicy.load(file, device="cpu")  # type: ignore[arg-type]
    for name in ("layer", "timespans", "layer_kwargs", "share_features_extractor"):
        assert getattr(loaded, name) == getattr(policy, name)


def test_actor_and_critic_have_one_wiring_and_parameters_of_their_own() -> None:
    policy = make_policy(layer=LTC, units=Random(20, 6, sparsity_level=0.5))
    actor, critic = policy.lstm_actor.rnn_cell, policy.lstm_critic.rnn_cell
    assert torch.equal(actor.sparsity_mask, critic.sparsity_mask)
    assert torch.equal(actor.sensory_sparsity_mask, critic.sensory_sparsity_mask)
    assert not torch.equal(actor.w, critic.w)
    assert policy.value_net.in_features == 5
    optimized = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in policy.parameters()}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"layer": torch.nn.LSTM}, TypeError, "layer: expected fastltc.CfC or fastltc.LTC, got"),
        ({"layer": "ltc"}, TypeError, "layer: expected fastltc.CfC or fastltc.LTC, got 'ltc'"),
        ({"units": "many"}, TypeError, "units: expected an ncps.wirings.Wiring or a number"),
        ({"lstm_hidden_size": 8}, TypeError, "lstm_hidden_size: expected units in its place"),
        ({"n_lstm_layers": 2}, TypeError, "n_lstm_layers: expected one layer in its place"),
        ({"lstm_kwargs": {}}, TypeError, "lstm_kwargs: expected layer_kwargs in its place"),
        ({"shared_lstm": True}, ValueError, "shared_lstm: expected False with enable_critic_lstm"),
        (
            {**CRITICS["shared layer"], **CRITICS["own features"]},
            ValueError,
            "shared_lstm: expected False with share_features_extractor=False",
        ),
        ({"layer_kwargs": {"batch_first": False}}, TypeError, "batch_first"),
        ({"layer_kwargs": {"mode": "none"}, "layer": CfC}, ValueError, "mode: expected"),
        ({"unit": 8}, TypeError, "unit"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        make_policy(**arguments)


def test_time_that_runs_backwards_is_refused_at_the_first_step() -> None:
    with pytest.raises(ValueError, match="timespans: expected"):
        make_policy(timespans=-1.0).predict(np.zeros(3, np.float32))


def test_without_sb3_contrib_the_extra_is_named() -> None:
    program = "import sys; sys.modules['sb3_contrib'] = None; import fastltc; import fastltc.rl"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'pip install "fastltc[rl]"' in done.stderr
