"""Recurrent policies for ``RecurrentPPO`` of sb3-contrib, on liquid layers.

Needs ``sb3-contrib``: ``pip install "fastltc[rl]"``; import it as ``fastltc.rl``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fastltc.nn import CfC
from fastltc.nn.changes import has_hooks
from fastltc.nn.sequence_layer import SequenceLayer

try:
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.torch_layers import (
        BaseFeaturesExtractor,
        CombinedExtractor,
        FlattenExtractor,
        NatureCNN,
    )
except ImportError:
    raise ImportError(
        'fastltc.rl: expected sb3-contrib, which is not installed; pip install "fastltc[rl]"'
    ) from None

__all__ = ["LiquidCnnPolicy", "LiquidMultiInputPolicy", "LiquidPolicy"]

_SAMPLES_OF_A_THREAD = 16
"""Up to so many run on one thread, in the widest registers."""

# Arguments of RecurrentActorCriticPolicy -> what there is in their place.
_OF_THE_LSTM = {
    "lstm_hidden_size": "units",
    "n_lstm_layers": "one layer",
    "lstm_kwargs": "layer_kwargs",
}


class LiquidPolicy(RecurrentActorCriticPolicy):
    """The policy of ``sb3_contrib.RecurrentPPO`` with liquid layers in the place of its LSTMs.

    It takes the place of ``sb3_contrib.ppo_recurrent.MlpLstmPolicy``: observations are flattened,
    go through a layer, and from its outputs through the networks of ``net_arch`` to actions and
    values. A minibatch of sequences is one call of a layer, forward and backward, wherever episodes
    begin, which the policy of sb3-contrib steps through. Actor and critic have the same wiring and
    parameters of their own.

    Args:
        observation_space: of the environment; given by ``RecurrentPPO``, as the next two.
        action_space: of the environment.
        lr_schedule: learning rate by the part of the training that is left, from 1 to 0.
        layer: ``fastltc.CfC`` or ``fastltc.LTC``, or a class derived from one.
        units: number of neurons, N, or an ``ncps.wirings.Wiring``, which is copied.
        timespans: time between two steps of the environment, any unit, 1 by default.
        shared_lstm: the critic reads the outputs of the actor's layer, and sends no gradient into
            it. Needs ``enable_critic_lstm=False``.
        enable_critic_lstm: the critic has a layer of its own; without and not shared, it has a
            linear map.
        layer_kwargs: further arguments of the layer, as ``{"mixed_memory": True}``.
        kwargs: those of ``stable_baselines3.common.policies.ActorCriticPolicy``, as ``net_arch``.

    Raises:
        TypeError: if ``layer`` is another class, an argument is one of an LSTM, or ``layer_kwargs``
            has one that the policy sets.
        ValueError: if the arguments of the critic do not go together, or the layer refuses its own.

    Example:
        >>> from sb3_contrib import RecurrentPPO
        >>> from fastltc import LTC
        >>> from fastltc.rl import LiquidPolicy
        >>> from fastltc.wirings import AutoNCP
        >>> model = RecurrentPPO(
        ...     LiquidPolicy,
        ...     "CartPole-v1",
        ...     n_steps=64,
        ...     policy_kwargs={"layer": LTC, "units": AutoNCP(19, 4), "net_arch": []},
        ... )
        >>> _ = model.learn(128)
        >>> observations = model.get_env().reset()
        >>> actions, state = model.predict(observations, state=None)
        >>> actions, state = model.predict(observations, state, episode_start=[False])
        >>> actions.shape, state[0].shape  # one layer, one environment, 19 neurons
        ((1,), (1, 1, 19))

    Source: Schulman et al., Proximal policy optimization algorithms, arXiv:1707.06347; the layers'
    own are named there.
    """

    _default_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        lr_schedule: Callable[[float], float],
        *,
        layer: type[SequenceLayer] = CfC,
        units: Any = 64,
        timespans: float = 1.0,
        shared_lstm: bool = False,
        enable_critic_lstm: bool = True,
        layer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not (isinstance(layer, type) and issubclass(layer, SequenceLayer)):
            raise TypeError(f"layer: expected fastltc.CfC or fastltc.LTC, got {layer!r}")
        for name in _OF_THE_LSTM.keys() & kwargs:
            raise TypeError(f"{name}: expected {_OF_THE_LSTM[name]} in its place")
        if shared_lstm and enable_critic_lstm:
            raise ValueError(
                "shared_lstm: expected False with enable_critic_lstm, by which the critic has a "
                "layer of its own, got True"
            )
        if shared_lstm and not kwargs.get("share_features_extractor", True):
            raise ValueError(
                "shared_lstm: expected False with share_features_extractor=False, got True"
            )
        self.layer, self.units, self.timespans = layer, units, timespans
        self.shared_lstm, self.enable_critic_lstm = shared_lstm, enable_critic_lstm
        self.layer_kwargs = layer_kwargs or {}
        kwargs.setdefault("features_extractor_class", self._default_extractor)
        if kwargs.get("optimizer_class", torch.optim.Adam) is torch.optim.Adam:
            # As sb3 has it, in one kernel: a layer has a dozen parameters more than an LSTM, and
            # the loop over all of them takes a quarter of an update.
            kwargs.setdefault("optimizer_kwargs", {"eps": 1e-5, "fused": True})
        # Not that of the class in between, which makes LSTMs.
        ActorCriticPolicy.__init__(self, observation_space, action_space, lr_schedule, **kwargs)

    def _build_mlp_extractor(self) -> None:
        """Make the layers, and the networks behind them; the optimizer comes after."""
        units = copy.deepcopy(self.units)  # A layer builds its wiring: that of one environment.
        self.lstm_actor: Any = self._make_layer(units)
        self.lstm_critic = self._make_layer(units) if self.enable_critic_lstm else None
        neurons, outputs = self.lstm_actor.hidden_size, self.lstm_actor.output_size
        self.lstm_output_dim = vars(self.lstm_actor).get("proj_size") or outputs
        self.lstm_hidden_state_shape = (1, 1, neurons)
        own = self.shared_lstm or self.enable_critic_lstm
        self.critic = None if own else nn.Linear(self.features_dim, self.lstm_output_dim)
        super()._build_mlp_extractor()

    def _make_layer(self, units: Any) -> Any:
        layer: Any = self.layer(
            self.features_dim, units, batch_first=True, return_sequences=True, **self.layer_kwargs
        )
        # By these names of an LSTM RecurrentPPO asks for the shape of the state.
        layer.num_layers, layer.hidden_size = 1, layer.state_size
        return layer

    def _process_sequence(  # type: ignore[override]
        self,
        features: Tensor,
        lstm_states: tuple[Tensor, Tensor],
        episode_starts: Tensor,
        lstm: Any,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run a layer over sequences of equal length, with the states zero where episodes start.

        Args:
            features: ``[B * T, I]``, sample by sample.
            lstm_states: state and memory, ``[1, B, N]`` each. What has no memory hands the second
                on as it is: sb3-contrib keeps a pair.
            episode_starts: ``[B * T]``, not 0 where an episode starts.
            lstm: the layer, of the actor or the critic.

        Returns:
            The outputs, ``[B * T, M]``, and the states after the last steps.
        """
        return self._run_layer(features, lstm_states, episode_starts, lstm, lstm)

    def _run_layer(
        self,
        features: Tensor,
        lstm_states: tuple[Tensor, Tensor],
        episode_starts: Tensor,
        lstm: Any,
        call: Callable[..., Any],
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, mixed = lstm_states[0].shape[1], lstm.use_mixed
        output, hn = call(
            features.reshape(batch, -1, lstm.input_size),
            (lstm_states[0][0], lstm_states[1][0]) if mixed else lstm_states[0][0],
            self.timespans,
            resets=episode_starts.reshape(batch, -1) != 0,
            reset_to_zero=True,
        )
        h, c = hn if mixed else (hn, lstm_states[1][0])
        return output.flatten(0, 1), (h.unsqueeze(0), c.unsqueeze(0))

    def evaluate_actions(  # type: ignore[override]
        self, obs: Any, actions: Tensor, lstm_states: Any, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Any]:
        """Return values, log-probabilities and entropies, as sb3-contrib's policy does.

        Where a minibatch is few sequences and there are threads, actor and critic run beside each
        other, forward and backward.

        Args:
            obs: observations, ``[B * T, ...]``, sequence by sequence.
            actions: those taken, ``[B * T, ...]``.
            lstm_states: states before the first steps, of actor and critic.
            episode_starts: ``[B * T]``, not 0 where an episode starts.
        """
        if not self._has_threads_to_spare(lstm_states.pi[0].shape[1]):
            return super().evaluate_actions(obs, actions, lstm_states, episode_starts)
        features: Any = self.extract_features(obs)
        pair = (features, features) if self.share_features_extractor else features
        latent_pi, latent_vf = self._process_both(pair, lstm_states, episode_starts)
        latent_pi = self.mlp_extractor.forward_actor(latent_pi)
        values = self.value_net(self.mlp_extractor.forward_critic(latent_vf))
        distribution = self._get_action_dist_from_latent(latent_pi)
        return values, distribution.log_prob(actions), distribution.entropy()

    def _has_threads_to_spare(self, batch: int) -> bool:
        """Whether to run both layers in one call, which is a thread for each.

        A layer by itself takes a thread for every sixteen samples. Two that are not alike, as one
        with a hook, run one after another.
        """
        actor, critic = self.lstm_actor, self.lstm_critic
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        if critic is None or threads == 1 or batch > _SAMPLES_OF_A_THREAD or actor.use_mixed:
            return False
        modules = [list(layer.modules()) for layer in (actor, critic)]
        if [type(m) for m in modules[0]] != [type(m) for m in modules[1]] or any(
            has_hooks(m) or "forward" in vars(m) for m in modules[0] + modules[1]
        ):
            return False
        own, others = (dict(layer.named_parameters()) for layer in (actor, critic))
        return own.keys() == others.keys() and all(
            torch.equal(p, others[n]) for n, p in own.items() if n.endswith("sparsity_mask")
        )

    def _process_both(
        self, features: tuple[Tensor, Tensor], lstm_states: Any, episode_starts: Tensor
    ) -> Tensor:
        """Do what :meth:`_process_sequence` does for actor and critic, ``[2, B * T, M]``."""
        layer, other = self.lstm_actor, self.lstm_critic
        assert other is not None
        critic = dict(other.named_parameters())
        stacks = {
            name: torch.stack((parameter, critic[name]))
            for name, parameter in layer.named_parameters()
            if not name.endswith("sparsity_mask")
        }

        def run(parameters: dict[str, Tensor], x: Tensor, h: Tensor, c: Tensor) -> Tensor:
            def call(*args: Any, **kwargs: Any) -> Any:
                return functional_call(layer, parameters, args, kwargs)

            return self._run_layer(x, (h, c), episode_starts, layer, call)[0]

        h, c = map(torch.stack, zip(lstm_states.pi, lstm_states.vf, strict=True))
        return vmap(run, randomness="different")(stacks, torch.stack(features), h, c)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("layer", "units", "timespans", "shared_lstm", "enable_critic_lstm", "layer_kwargs")
        shared = {"share_features_extractor": self.share_features_extractor}
        own = {name: getattr(self, name) for name in names}
        return super()._get_constructor_parameters() | shared | own


class LiquidCnnPolicy(LiquidPolicy):
    """A :class:`LiquidPolicy` of images, which go through sb3's ``NatureCNN`` first."""

    _default_extractor = NatureCNN


class LiquidMultiInputPolicy(LiquidPolicy):
    """A :class:`LiquidPolicy` of observations that are a dictionary."""

    _default_extractor = CombinedExtractor
