"""What wirings that are drawn from a seed have in common."""

from __future__ import annotations

from typing import Any

from ncps.wirings import Wiring
from typing_extensions import Self

from fastltc.wirings.checks import check_count


class SeededWiring(Wiring):
    """A wiring whose arguments say all of it, and whose inputs are connected when it is built."""

    def _connect_inputs(self, input_dim: int) -> None:
        """Draw the synapses of so many inputs, the same for the same number."""
        raise NotImplementedError

    def build(self, input_dim: int) -> None:
        """Draw the synapses of so many inputs; once."""
        if self.is_built():
            super().build(input_dim)  # which refuses another number
            return
        check_count("input_dim", input_dim)
        super().build(input_dim)
        self._connect_inputs(input_dim)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the wiring of these arguments."""
        return cls(**config)
