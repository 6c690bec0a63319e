"""Wirings, built for the number of inputs of a layer, and the sizes that come of them."""

from __future__ import annotations

from typing import Any

from ncps.wirings import Wiring


class WiringSizes:
    """The sizes of modules that run one wiring, ``_wiring``."""

    _wiring: Wiring

    @property
    def state_size(self) -> int:
        """Number of neurons, N."""
        return self._wiring.units

    @property
    def sensory_size(self) -> int:
        """Number of inputs, I."""
        return self._wiring.input_dim

    @property
    def motor_size(self) -> int:
        """Number of motor neurons, M."""
        return self._wiring.output_dim

    @property
    def output_size(self) -> int:
        """Number of outputs, M."""
        return self.motor_size

    def _inputs_and_neurons(self) -> tuple[int, int]:
        wiring = self._wiring
        return wiring.input_dim, wiring.units


def build_wiring(
    wiring: Any, in_features: int | None, name: str = "in_features", motors: bool = True
) -> Wiring:
    """Return the wiring, built for ``in_features`` inputs, which the caller calls ``name``.

    A wiring that is built already is used as it is. (Building it a second time, as ncps does, would
    add synapses to it.) ``motors`` is whether its number of outputs must be set.
    """
    if not isinstance(wiring, Wiring):
        raise TypeError(f"wiring: expected an ncps.wirings.Wiring, got {type(wiring).__name__}")
    if in_features is not None and in_features < 1:
        raise ValueError(f"{name}: expected 1 or more, got {in_features}")
    if not wiring.is_built():
        if in_features is None:
            raise ValueError(
                f"wiring: expected a wiring that is built, or {name}, got one whose number of "
                f"inputs is not known; pass {name} or call wiring.build({name})"
            )
        wiring.build(in_features)
    elif in_features is not None and wiring.input_dim != in_features:
        raise ValueError(
            f"{name}: expected {wiring.input_dim}, which the wiring is built for, got {in_features}"
        )
    if not motors:
        return wiring
    if wiring.output_dim is None:
        raise ValueError(
            "wiring: expected one with motor neurons, got one whose number of outputs is not set; "
            "call wiring.set_output_dim(...)"
        )
    if not 1 <= wiring.output_dim <= wiring.units:
        raise ValueError(
            f"wiring: expected 1 to {wiring.units} motor neurons, got {wiring.output_dim}"
        )
    return wiring
