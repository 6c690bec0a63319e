"""Forecasts of each target from its own past, which a liquid layer reads several rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...nn import Impute
from ..options import ABOVE_0, COUNT, FROM_0, SHARE
from . import parts
from .answers import Answers
from .goal import Goal
from .padding import last_rows, valid_values
from .parts import WIRING_SEED
from .sequence import Layer, LiquidReadout


class Patches(LiquidReadout):
    """Forecasts each target from its own past, several rows to a step of the liquid layer.

    ``forecast = last + deviation * readout(liquid(encoder(patches of (past - last))))``: every
    target goes through the same weights as a sequence of its own, told as the difference to its
    last value, so that neither the others nor where the series has drifted to can be learnt by
    heart. A step of the layer is a patch of so many rows, and its time step the mean of theirs; one
    that the first rows do not fill has the first value in front, at no time. All steps of the
    horizon are answered at once. What was not measured is the last value that was, or the mean
    before there is one.

    Args:
        input_shape: ``(T, I)``; any T works later.
        classes: number of targets.
        units: neurons.
        cell: ``"ltc"``, ``"cfc"``, or ``"lstm"`` for ``torch.nn.LSTM``.
        patch: rows that are read at once.
        encoder: features that a patch is mapped to, with tanh; 0 for the patch itself, None for as
            many as neurons.
        wiring: ``"full"`` or ``"random"``, or ``"none"``: a CfC without one, which has a backbone.
        timestep: time from one patch to the next for the layer; None for what the data says.
        dropout: share of the encoder's features, and of the state, that is left out in training.
        sparsity, wiring_seed, mixed_memory: see `Rows`.
        unfolds, conductances, backbone_units, backbone_layers: see `Series`.
        goal: what is to be answered.

    Returns:
        ``forward(rows, timespans, lengths, measured, future)``, as that of `Series`: ``[B, H, K]``,
        of quantiles with one more axis.

    Raises:
        ValueError: sizes that do not fit, or a goal that is no forecast of the inputs themselves.

    Source: that targets share weights, and patches: Nie et al., A Time Series is Worth 64 Words:
    Long-term Forecasting with Transformers (ICLR 2023); the last value subtracted: Zeng et al., Are
    Transformers Effective for Time Series Forecasting? (AAAI 2023).
    """

    KINDS = ("series",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        units: int = 64,
        *,
        cell: str = "cfc",
        patch: int = 12,
        encoder: int | None = None,
        wiring: str | None = None,
        sparsity: float = 0.5,
        wiring_seed: int = WIRING_SEED,
        mixed_memory: bool = False,
        unfolds: int | None = None,
        conductances: str | None = None,
        backbone_units: int | None = None,
        backbone_layers: int | None = None,
        timestep: float | None = None,
        dropout: float = 0.0,
        goal: Goal | None = None,
    ) -> None:
        goal = Goal(outputs=classes) if goal is None else goal
        _check_goal(goal, input_shape[-1])
        COUNT.check("patch", patch)
        SHARE.check("dropout", dropout)
        if encoder is not None:
            FROM_0.check("encoder", encoder)
        if timestep is not None:
            ABOVE_0.check("timestep", timestep)
        wiring = wiring or ("none" if cell == "cfc" else "full")
        if wiring == "ncp":
            raise ValueError("wiring: the readout sees all neurons; expected random, full or none")
        features = units if encoder is None else encoder
        levels = max(len(goal.quantiles), 1)
        super().__init__(
            features or patch,
            goal.horizon * levels,
            Layer(
                *(cell, units, wiring, sparsity, wiring_seed, 1.0, mixed_memory),
                *(unfolds, conductances, backbone_units, backbone_layers),
            ),
            known=goal.horizon * goal.known,
            classes=False,
            return_sequences=False,
        )
        self.goal, self.patch, self.timestep = goal, patch, timestep
        self.encoder = nn.Sequential()
        if features:
            self.encoder.extend([nn.Linear(patch, features), nn.Tanh(), nn.Dropout(dropout)])
        self.dropout = nn.Dropout(dropout)
        self.fill = Impute(classes, "forward", add_mask=False) if goal.masked else None
        self.answers = Answers(classes, difference=True)
        if goal.known:
            self.known_scale = parts.Standardise(goal.known)

    @torch.no_grad()
    def fit_scales(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        measured: Tensor | None = None,
        future: Tensor | None = None,
        timespans: Tensor | None = None,
    ) -> None:
        """Takes the means of training rows ``[n, T, I]``, and the scale of what is known."""
        if self.fill is not None:
            valid = valid_values(inputs, lengths, measured)
            mean, _ = parts.mean_and_deviation(inputs, valid)
            self.fill.mean.copy_(mean[list(self.goal.own)])
        if future is not None:
            self.known_scale.fit(future)

    def fit_answers(
        self,
        labels: Tensor,
        inputs: Tensor,
        lengths: Tensor | None = None,
        measured: Tensor | None = None,
    ) -> None:
        """Takes the scales of training targets; the arguments are those of `forward`."""
        last = last_rows(inputs[..., list(self.goal.own)], lengths).unsqueeze(1)
        self.answers.fit(labels, last.expand(labels.shape))
        valid = valid_values(inputs, lengths, measured)
        self.answers.fit_naive(labels, inputs, self.goal.own, valid)

    def forward(
        self,
        rows: Tensor,
        timespans: Tensor | None = None,
        lengths: Tensor | None = None,
        measured: Tensor | None = None,
        future: Tensor | None = None,
    ) -> Tensor:
        """Return values; see the class."""
        own = rows[..., list(self.goal.own)]
        if self.fill is not None:
            there = torch.ones_like(rows, dtype=torch.bool) if measured is None else measured
            own = self.fill(own, there[..., list(self.goal.own)], timespans, lengths)
        batch, _, targets = own.shape
        last = last_rows(own, lengths).unsqueeze(1)
        places, patches = self._places(own, lengths)
        within = places.clamp(min=0)
        past = torch.gather(own, 1, within.unsqueeze(2).expand(-1, -1, targets))
        # A sequence of patches for every target.
        past = ((past - last) / self.answers.unit).transpose(1, 2)
        past = past.reshape(batch * targets, -(-rows.shape[1] // self.patch), self.patch)
        spans: Tensor | float | None = self.timestep
        if timespans is not None and self.timestep is None:
            elapsed = torch.where(places < 0, 0, timespans.gather(1, within))
            elapsed = elapsed.unflatten(1, (-1, self.patch)).mean(dim=2)
            spans = elapsed.repeat_interleave(targets, dim=0)
        count = None if lengths is None else patches.repeat_interleave(targets)
        state, _ = self.rnn(self.encoder(past), timespans=spans, lengths=count)
        seen = self.dropout(state)
        if future is not None:
            known = self.known_scale(future).flatten(1).repeat_interleave(targets, dim=0)
            seen = torch.cat([seen, known], dim=-1)
        levels = max(len(self.goal.quantiles), 1)
        readout = self.logits(seen).view(batch, targets, self.goal.horizon, levels).transpose(1, 2)
        values = self.answers(readout, last)
        return values if self.goal.quantiles else values.squeeze(-1)

    def _places(self, rows: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows of the patches, ``[B, P * patch]``, below 0 before the first; how many, ``[B]``."""
        steps = rows.shape[1]
        count = torch.full((len(rows),), steps, device=rows.device) if lengths is None else lengths
        patches = (count + self.patch - 1) // self.patch
        places = torch.arange(-(-steps // self.patch) * self.patch, device=rows.device)
        places = places - (patches * self.patch - count).unsqueeze(1)
        return places.clamp(max=steps - 1), patches

    def export_layers(self) -> list[nn.Module]:
        """Raises ValueError: it reads several rows at a time."""
        raise ValueError(
            "model: patches-* read several rows at a time, less the last one, which a model that "
            "goes row by row cannot; train series-* for that"
        )


def _check_goal(goal: Goal, features: int) -> None:
    """Makes sure that a forecast of the inputs themselves is asked for."""
    if not goal.horizon:
        raise ValueError(
            f"model: patches-* forecast, and the task is {goal.in_words}; give --horizon, or train "
            "series-*"
        )
    if -1 in goal.own:
        raise ValueError(
            "model: patches-* read the past of the targets; expected them among the inputs"
        )
    if {*range(features)} - {*goal.own, *goal.given}:
        raise ValueError(
            "model: patches-* read nothing but the targets and what is known in advance; leave "
            "other inputs out, forecast them as well, or train series-*"
        )
