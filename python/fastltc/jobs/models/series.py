"""Liquid layers that read time series: classes or values, of every row, of all, or ahead."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..._parameters import IMPUTE_METHODS
from ...nn import Impute
from ..options import ABOVE_0, FROM_0, SHARE, one_of
from . import parts
from .answers import Answers
from .goal import Goal
from .padding import inside, last_rows, mean_over_rows, valid_values
from .parts import WIRING_SEED
from .sequence import Layer, LiquidReadout

FORECASTS = ("direct", "recursive")
POOLS = ("last", "last-and-mean")


class Series(LiquidReadout):
    """Answers for time series by a liquid layer that is given the time steps.

    ``answer[t] = readout(liquid(encoder(standardised rows), timespans)[t])``: of every row, or of
    the last one of a sequence. Rows that were measured in part are filled in by `fastltc.Impute`,
    and the layer reads what was measured and how long ago beside them, standardised as they are.
    Values are standardised within the model and come out in their own units (`Answers`).

    A forecast is ``direct``, all its steps at once from the state after the last row and what is
    known of these steps, or ``recursive``: a step from the state and what is known of it, which the
    layer then reads as the next row, one unit of time later; it is trained as it answers.

    The scales are those of the training rows (`fit_scales`, `fit_answers`) and part of the state
    dict.

    Args:
        input_shape: ``(T, I)``; any T works later.
        classes: number of classes, or of targets.
        units: neurons.
        cell: ``"ltc"``, ``"cfc"``, or ``"lstm"`` for ``torch.nn.LSTM``, which reads the time steps
            as one more input.
        wiring: as of `Rows`, or ``"none"``: a CfC without one, which has a backbone.
        sparsity, wiring_seed, gain, mixed_memory: see `Rows`.
        unfolds: solver steps of an LTC in a time step; 6 by default.
        conductances: ``"as-ncps"``, or ``"fan-in"`` for `fastltc.nn.init_by_fan_in`; of an LTC.
        backbone_units, backbone_layers: of a CfC without wiring.
        timestep: time from one row to the next for the layer, whatever the data says.
        clip: deviations from the mean that what is read is held within.
        pool: of an answer to the whole sequence or of a forecast, what is read of the states:
            ``"last"``, or ``"last-and-mean"`` for their mean over time beside the last.
        time_input: the layer reads the time step, standardised, as the last feature of a row.
        encoder: features that a row is mapped to first, with tanh; 0 for the row itself.
        decoder: neurons (silu) between what the readout sees, to which the row itself is added (its
            features of the encoder), and the answer; 0 for none.
        dropout: share of the encoder's features, and of what the readout sees, that is left out in
            training.
        impute: ``"forward"``, ``"mean"`` or ``"decay"``, see `fastltc.Impute`.
        forecast: ``"direct"`` or ``"recursive"``.
        difference: values are told as the difference to the last one of their target.
        goal: what is to be answered; None for the class of every row.

    Returns:
        ``forward(rows, timespans, lengths, measured, future)``: rows ``[B, T, I]``, timespans
        ``[B, T]`` in the unit of the data set (None for 1), lengths ``[B]``, measured
        ``[B, T, I]``, future ``[B, H, F]``; logits ``[B, classes]`` or values ``[B, K]``, for every
        row ``[B, T, .]``, of a forecast ``[B, H, K]``; of quantiles with one more axis.

    Raises:
        ValueError: sizes that do not fit, or an option that the goal has no use for.
    """

    KINDS = ("series",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        units: int = 32,
        *,
        cell: str = "ltc",
        wiring: str = "full",
        sparsity: float = 0.5,
        wiring_seed: int = WIRING_SEED,
        gain: float = 5.0,
        mixed_memory: bool = False,
        unfolds: int | None = None,
        conductances: str | None = None,
        backbone_units: int | None = None,
        backbone_layers: int | None = None,
        timestep: float | None = None,
        time_input: bool = False,
        clip: float | None = None,
        pool: str | None = None,
        encoder: int = 0,
        decoder: int = 0,
        dropout: float = 0.0,
        impute: str | None = None,
        forecast: str | None = None,
        difference: bool = False,
        goal: Goal | None = None,
    ) -> None:
        goal = Goal(outputs=classes) if goal is None else goal
        FROM_0.check("encoder", encoder)
        FROM_0.check("decoder", decoder)
        SHARE.check("dropout", dropout)
        for name, positive in (("timestep", timestep), ("clip", clip)):
            if positive is not None:
                ABOVE_0.check(name, positive)
        features = input_shape[-1]
        _check_goal(goal, features, wiring, dropout, impute, forecast, difference)
        if cell == "lstm":
            for name, given in (("timestep", timestep), ("time_input", time_input or None)):
                if given is not None:
                    raise ValueError(f"{name}: an LSTM reads the time steps; leave the option out")
        if wiring == "ncp" and decoder:
            raise ValueError(
                "decoder: the motor neurons of an ncp wiring are the answer; expected 0"
            )
        if pool is not None:
            one_of(POOLS).check("pool", pool)
        self.mean_too = pool == "last-and-mean"
        if self.mean_too and (goal.per_step or forecast == "recursive" or wiring == "ncp"):
            raise ValueError(
                "pool: last-and-mean is of a linear readout of whole sequences; expected last"
            )
        self.recursive = forecast == "recursive"
        self.clip = clip
        self.timestep = timestep
        self.time_input = time_input
        self.decoder = decoder
        read = features * (3 if goal.masked else 1) + time_input
        steps = 1 if self.recursive else max(goal.horizon, 1)
        known = steps * goal.known
        outputs = classes * (steps * max(len(goal.quantiles), 1) if goal.of_values else 1)
        layer = Layer(
            *(cell, units, wiring, sparsity, wiring_seed, gain, mixed_memory),
            *(unfolds, conductances, backbone_units, backbone_layers),
        )
        super().__init__(
            encoder or read,
            outputs,
            layer,
            reads=2 if self.mean_too else 1,
            known=known + (encoder or read if decoder else 0),
            decoder=decoder,
            classes=not goal.of_values,
            return_sequences=goal.per_step or self.mean_too,
        )
        self.goal = goal
        self.steps = steps
        self.scale = parts.Standardise(read)
        self.encoder = nn.Sequential()
        if encoder:
            self.encoder.extend([nn.Linear(read, encoder), nn.Tanh(), nn.Dropout(dropout)])
        self.dropout = nn.Dropout(dropout)
        self.fill: Impute | None = None
        if goal.masked:
            self.fill = Impute(features, impute or "forward", add_mask=True, add_elapsed=True)
        self.answers: Answers | None = None
        if goal.of_values:
            self.answers = Answers(classes, difference=difference)
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
        """Takes mean and deviation of training rows ``[n, T, I]``, of what was measured of them."""
        valid = valid_values(inputs, lengths, measured)
        if self.fill is not None:
            self.fill.mean.copy_(parts.mean_and_deviation(inputs, valid)[0])
        read = self._read(inputs, timespans, lengths, measured)
        if valid is not None:
            # What is told of every row, whatever of it was measured.
            told = read[..., inputs.shape[-1] :]
            every = torch.ones_like(told, dtype=torch.bool)
            valid = torch.cat([valid, every if lengths is None else inside(told, lengths)], dim=-1)
        self.scale.fit(read, valid)
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
        assert self.answers is not None
        base = self._base(inputs, lengths)
        if base is not None and self.goal.horizon:
            before = base.unsqueeze(1)
            base = (
                torch.cat([before, labels[:, :-1]], dim=1)
                if self.recursive
                else before.expand(labels.shape)
            )
        self.answers.fit(labels, base)
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
        """Return logits or values; see the class."""
        x = self.encoder(self._scaled(self._read(rows, timespans, lengths, measured)))
        spans = timespans if self.timestep is None else self.timestep
        output, state = self.rnn(x, timespans=spans, lengths=lengths)
        if self.mean_too:
            output = torch.cat(
                [last_rows(output, lengths), mean_over_rows(output, lengths)], dim=-1
            )
        if self.decoder:
            beside = x if self.goal.per_step else last_rows(x, lengths)
            output = torch.cat([output, beside], dim=-1)
        known = None if future is None else self.known_scale(future)
        if self.answers is None:
            return self.logits(self.dropout(output))
        base = self._base(rows, lengths)
        if self.recursive:
            return self._roll_out(output, state, base, rows, future, known)
        readout = self._readout(output, None if known is None else known.flatten(1))
        if self.goal.horizon:
            readout = readout.unflatten(-2, (self.goal.horizon, -1))
            base = None if base is None else base.unsqueeze(1)
        return self._shaped(self.answers(readout, base))

    def _read(
        self,
        rows: Tensor,
        timespans: Tensor | None,
        lengths: Tensor | None,
        measured: Tensor | None,
    ) -> Tensor:
        """What is read of rows ``[B, T, I]``, in its own units."""
        if self.fill is not None:
            if measured is None:
                measured = torch.ones_like(rows, dtype=torch.bool)
            rows = self.fill(rows, measured, timespans, lengths)
        if not self.time_input:
            return rows
        spans = rows.new_ones(rows.shape[:-1]) if timespans is None else timespans
        return torch.cat([rows, spans.unsqueeze(-1).to(rows.dtype)], dim=-1)

    def _scaled(self, read: Tensor) -> Tensor:
        scaled = cast(Tensor, self.scale(read))
        return scaled if self.clip is None else scaled.clamp(-self.clip, self.clip)

    def _readout(self, output: Tensor, known: Tensor | None) -> Tensor:
        """What the readout gives: ``[..., steps K, Q]``."""
        seen = self.dropout(output)
        seen = seen if known is None else torch.cat([seen, known], dim=-1)
        return self.logits(seen).unflatten(-1, (-1, max(len(self.goal.quantiles), 1)))

    def _shaped(self, values: Tensor) -> Tensor:
        return values if self.goal.quantiles else values.squeeze(-1)

    def _base(self, rows: Tensor, lengths: Tensor | None) -> Tensor | None:
        """What differences are to: the targets in the row, or in the last one."""
        assert self.answers is not None
        if not self.answers.difference:
            return None
        own = rows[..., list(self.goal.own)]
        if self.goal.per_step:
            return own
        return last_rows(own, lengths)

    def _roll_out(
        self,
        output: Tensor,
        state: Any,
        base: Tensor | None,
        rows: Tensor,
        future: Tensor | None,
        known: Tensor | None,
    ) -> Tensor:
        """Forecasts step by step; each is the row that is read next."""
        assert self.answers is not None
        made = []
        for step in range(self.goal.horizon):
            values = self.answers(
                self._readout(output, None if known is None else known[:, step]), base
            )
            made.append(values)
            if step == self.goal.horizon - 1:
                break
            # Of quantiles the one that is nearest to the median.
            value = values[..., self.middle]
            base = None if base is None else value
            row = rows.new_empty(len(rows), rows.shape[-1])
            row[:, list(self.goal.own)] = value
            if future is not None:
                row[:, list(self.goal.given)] = future[:, step]
            # All of it is there, one unit of time after the row before.
            ones = row.new_ones(len(row), len(self.scale.mean) - row.shape[-1])
            x = self.encoder(self._scaled(torch.cat([row, ones], dim=-1)))
            output, state = self.rnn(x.unsqueeze(1), state, timespans=self.timestep)
            if self.decoder:
                output = torch.cat([output, x], dim=-1)
        return self._shaped(torch.stack(made, dim=1))

    @property
    def middle(self) -> int:
        """The place of the quantile that is nearest to the median."""
        return middle_of(self.goal.quantiles)

    def export_layers(self) -> list[nn.Module]:
        """What runs at every time step, see `fastltc.exporting.describe`.

        Rows that were measured in part are filled in before: the inputs are then the outputs of
        ``fastltc.runtime.Impute(**model.fill.settings())``. With ``time_input`` the time step is
        the last input of a row.
        """
        if self.answers is not None and self.answers.difference:
            raise ValueError(
                "difference: an answer is the last value and a difference, and a chain of layers "
                "cannot add the two; train with --no-difference"
            )
        if self.goal.known:
            raise ValueError(
                "known: the readout sees features of the steps to come, which a model that goes "
                "row by row is not given"
            )
        if self.decoder:
            raise ValueError(
                "decoder: it sees the row beside the state, and a chain of layers cannot add the "
                "two; train without"
            )
        if self.mean_too:
            raise ValueError(
                "pool: the readout sees the mean over all rows, which a model that goes row by row "
                "does not have; train with --pool last"
            )
        layers: list[nn.Module] = [self.scale]
        if self.clip is not None:
            layers += parts.clamp(len(self.scale.mean), self.clip)
        layers += [*self.encoder, *super().export_layers()]
        if self.answers is not None:
            each = self.steps, max(len(self.goal.quantiles), 1)
            scales = (
                one.view(1, -1, 1).expand(each[0], -1, each[1]).reshape(-1)
                for one in (self.answers.deviation, self.answers.mean)
            )
            layers.append(parts.diagonal(*scales))
        return layers


def middle_of(quantiles: tuple[float, ...]) -> int:
    """The place of the quantile that is nearest to the median; 0 without any."""
    return min(range(len(quantiles)), key=lambda place: abs(quantiles[place] - 0.5), default=0)


def _check_goal(
    goal: Goal,
    features: int,
    wiring: str,
    dropout: float,
    impute: str | None,
    forecast: str | None,
    difference: bool,
) -> None:
    """Makes sure that no option is given that the goal has no use for."""
    if impute is not None:
        one_of(IMPUTE_METHODS).check("impute", impute)
        if not goal.masked:
            raise ValueError("impute: all of the data was measured; leave the option out")
    if wiring == "ncp" and dropout:
        raise ValueError("dropout: the motor neurons of an ncp wiring are the answer; expected 0")
    if wiring == "ncp" and goal.known:
        raise ValueError(
            "wiring: the motor neurons of an ncp wiring cannot see what is known in advance; "
            "expected random or full"
        )
    if difference and (not goal.of_values or -1 in goal.own):
        raise ValueError(
            "difference: needs targets whose last value is among the inputs; "
            + ("the data has classes" if not goal.of_values else "a target is not")
        )
    if forecast is None:
        return
    one_of(FORECASTS).check("forecast", forecast)
    if not goal.horizon:
        raise ValueError(f"forecast: no option of {goal.in_words}; leave it out")
    if forecast == "recursive" and {*range(features)} - {*goal.own, *goal.given}:
        raise ValueError(
            "forecast: recursive needs every input to be a target or known in advance, to make the "
            "next row of; expected direct"
        )
    if forecast == "recursive" and -1 in (*goal.own, *goal.given):
        raise ValueError(
            "forecast: recursive needs targets, and what is known in advance, among the inputs; "
            "expected direct"
        )
