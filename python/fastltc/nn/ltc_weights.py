"""What one LTC cell and several stacked ones share: constrained parameters, and lists of masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from fastltc._parameters import LTC_TABLE
from fastltc.ops.precision import check_precision
from fastltc.ops.synapses import SynapseCache


class LTCWeights(nn.Module):
    """Base of the modules that hold parameters of LTC; not for users."""

    sparsity_mask: Tensor
    sensory_sparsity_mask: Tensor
    _synapses: SynapseCache
    _sensory_synapses: SynapseCache
    _implicit_param_constraints: bool
    _sigmoid_precision: str | None = None

    @property
    def sigmoid_precision(self) -> str | None:
        """How precisely sigmoids of synapses are computed, ``"highest"`` or ``"medium"``.

        None, as at first: what :func:`fastltc.set_sigmoid_precision` has set.
        """
        return self._sigmoid_precision

    @sigmoid_precision.setter
    def sigmoid_precision(self, precision: str | None) -> None:
        """Set it; a ValueError is raised where there is none of that name."""
        if precision is not None:
            check_precision(precision, "sigmoid_precision")
        self._sigmoid_precision = precision

    def apply_weight_constraints(self) -> None:
        """Clip ``w``, ``sensory_w``, ``cm`` and ``gleak`` at 0; nothing where a softplus does it.

        Call it after each step of the optimizer if ``implicit_param_constraints`` is False.
        """
        if not self._implicit_param_constraints:
            for row in LTC_TABLE:
                if row.positive:
                    getattr(self, row.name).data.clamp_(min=0)

    def refresh_synapses(self) -> None:
        """Read the masks again, as is needed after an edit in place through ``.data``.

        Raises:
            ValueError: if an entry of a mask is neither 0 nor 1.
        """
        self._synapses.refresh(self.sparsity_mask)
        self._sensory_synapses.refresh(self.sensory_sparsity_mask)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.refresh_synapses()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._synapses.move(self.sparsity_mask.device)
        self._sensory_synapses.move(self.sensory_sparsity_mask.device)
        return self
