"""Several models of one kind that are asked together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..options import AT_LEAST_2


class Ensemble(nn.Module):
    """The mean of the logits, or values, of several models, which are trained side by side.

    ``logits = mean of member(x) over the members``, so the probabilities are the normalised
    geometric mean of theirs. Each member is trained on a loss of its own (`each`), as if it were
    alone: it is their different mistakes that the mean takes out, and a loss of the mean would let
    them make the same.

    Args:
        members: at least 2 models that take the same inputs.

    Returns:
        ``forward(*inputs)``: the logits, in the shape of a member's.

    Raises:
        ValueError: fewer than two members, or members that are not trained by gradients.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        AT_LEAST_2.check("members", len(members))
        if hasattr(members[0], "fit"):
            raise ValueError("members: a model in closed form has no use for several")
        self.members = nn.ModuleList(members)
        self.about = f"{len(members)} times {getattr(members[0], 'about', 'the model')}"

    @property
    def wiring(self) -> Any:
        """The wiring of the first member; None where it has none."""
        return getattr(self.members[0], "wiring", None)

    @property
    def answers(self) -> Any:
        """The scales of the targets; None for classes."""
        return getattr(self.members[0], "answers", None)

    def fit_scales(self, inputs: Tensor, **beside: Tensor) -> None:
        """Passes the training inputs on to members that take scales from them."""
        for member in self.members:
            fit: Any = getattr(member, "fit_scales", None)
            if fit is not None:
                fit(inputs, **beside)

    def fit_answers(self, *training: Any) -> None:
        """Passes the training targets on, of which the members take the scales."""
        for member in self.members:
            fit: Any = member.fit_answers
            fit(*training)

    def each(self, *inputs: Tensor) -> list[Tensor]:
        """The logits of each member."""
        return [member(*inputs) for member in self.members]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the mean of the members' logits."""
        return torch.stack(self.each(*inputs)).mean(dim=0)
