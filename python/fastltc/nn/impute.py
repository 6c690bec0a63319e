"""Values for entries of a sequence that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastltc._parameters import IMPUTE_METHODS
from fastltc.nn.resets import layer_resets
from fastltc.nn.timespans import layer_lengths, layer_timespans
from fastltc.ops.errors import check_lengths_and_timespans


class Impute(nn.Module):
    r"""Fills in what is missing in a sequence, before a layer reads it.

    With ``m`` the mask (1: observed), ``x'`` the last observed value of a feature (the mean before
    there is one) and ``d`` the time since it was observed, entry by entry::

        "mean":     m x + (1 - m) mean
        "forward":  m x + (1 - m) x'
        "decay":    m x + (1 - m) (g x' + (1 - g) mean)     g = exp(-max(0, rate d + offset))

    ``"decay"`` is that of the inputs of GRU-D: a value is carried on, and goes back to the mean the
    longer ago it was observed; ``rate`` and ``offset``, one of each per feature, are learned.
    All of a sequence is computed at once.

    The mask and the time since the last observation may stand behind the values as further
    features: the mask is what the CfC of the paper's PhysioNet experiment reads, both are what
    GRU-D's baselines read.

    Args:
        features: I, number of features.
        method: ``"forward"``, ``"mean"`` or ``"decay"``.
        mean: of each feature over the training data, ``[I]`` or one number for all; 0 by default,
            which is right for standardised features.
        learn_mean: make the mean a parameter.
        add_mask: append the mask, I more features.
        add_elapsed: append the time since the last observation before this step, I more features,
            in the unit of the time steps: 0 in the first step, and since the first step where
            nothing has been observed yet.
        batch_first: the input is ``[B, T, I]``, else ``[T, B, I]``.

    Raises:
        ValueError: if the number of features is less than 1, the method is unknown or the mean has
            another shape.

    Attributes:
        output_size: number of features that come out: I, 2 I or 3 I.

    Example:
        >>> import torch
        >>> from fastltc import CfC
        >>> from fastltc.nn import Impute
        >>> impute = Impute(3, "decay", add_mask=True)
        >>> layer = CfC(impute.output_size, 8)
        >>> x, timespans = torch.randn(4, 20, 3), torch.rand(4, 20)
        >>> x[torch.rand_like(x) < 0.3] = float("nan")
        >>> output, hn = layer(impute(x, timespans=timespans), timespans=timespans)
        >>> bool(output.isfinite().all())
        True

    Source: Che et al., Recurrent Neural Networks for Multivariate Time Series with Missing Values,
    Scientific Reports 2018 (GRU-D); Hasani et al., Closed-form
    continuous-time neural networks, Nature Machine Intelligence 2022, whose code gives the
    PhysioNet model 2 x 41 inputs.
    """

    mean: Tensor

    def __init__(
        self,
        features: int,
        method: str = "forward",
        *,
        mean: Tensor | Sequence[float] | float = 0.0,
        learn_mean: bool = False,
        add_mask: bool = False,
        add_elapsed: bool = False,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"features: expected 1 or more, got {features}")
        if method not in IMPUTE_METHODS:
            raise ValueError(f"method: expected one of {', '.join(IMPUTE_METHODS)}, got {method!r}")
        values = torch.as_tensor(mean, dtype=torch.get_default_dtype()).detach().clone()
        if values.shape not in ((), (features,)):
            raise ValueError(
                f"mean: expected a number or shape [I] = [{features}], got {list(values.shape)}"
            )
        if not values.isfinite().all():
            raise ValueError("mean: expected finite numbers, got others")
        self.features = features
        self.method = method
        self.add_mask = add_mask
        self.add_elapsed = add_elapsed
        self.batch_first = batch_first
        values = values.expand(features).clone()
        if learn_mean:
            self.mean = nn.Parameter(values)
        else:
            self.register_buffer("mean", values)
        if method == "decay":
            # Not 0, where the maximum has no gradient that would change it.
            self.decay_rate = nn.Parameter(torch.ones(features))
            self.decay_offset = nn.Parameter(torch.zeros(features))

    @property
    def output_size(self) -> int:
        """Number of features that come out."""
        return self.features * (1 + self.add_mask + self.add_elapsed)

    def extra_repr(self) -> str:
        """Return the sizes and options."""
        options = [f"{self.features}, {self.method!r}"]
        for name in ("add_mask", "add_elapsed"):
            if getattr(self, name):
                options.append(f"{name}=True")
        if isinstance(self.mean, nn.Parameter):
            options.append("learn_mean=True")
        if not self.batch_first:
            options.append("batch_first=False")
        return ", ".join(options)

    def settings(self) -> dict[str, Any]:
        """Return what :class:`fastltc.runtime.Impute` takes, as JSON could hold it."""
        found: dict[str, Any] = {
            "features": self.features,
            "method": self.method,
            "mean": self.mean.tolist(),
            "add_mask": self.add_mask,
            "add_elapsed": self.add_elapsed,
        }
        if self.method == "decay":
            found |= {
                "decay_rate": self.decay_rate.tolist(),
                "decay_offset": self.decay_offset.tolist(),
            }
        return found

    def forward(
        self,
        input: Tensor,
        mask: Tensor | None = None,
        timespans: Tensor | float | None = None,
        lengths: Tensor | list[int] | int | None = None,
        resets: Tensor | None = None,
    ) -> Tensor:
        """Fill in what is missing.

        Args:
            input: ``[B, T, I]`` (``[T, B, I]`` with ``batch_first=False``), or ``[T, I]`` for one
                sequence. What is missing may hold anything.
            mask: which entries were observed, of the shape of the input, booleans or numbers of 0
                and 1; by default those that are not NaN.
            timespans: time since the last step, in the layout of the input, not negative, 1 by
                default, as layers take it, but one for each step: a number, ``(B, T)`` or
                ``(B, T, 1)``. That of the first step is not read.
            lengths: valid steps of each sample, T by default. Behind them the output is 0.
            resets: steps with which another episode begins, ``[B, T]`` in the layout of the input,
                bool: nothing is carried from before them, and they are first steps.

        Returns:
            ``[B, T, output_size]`` in the layout of the input: the values, then the mask, then
            the time since the last observation. Differentiable by the observed values, the time
            steps, the mean and the decay; no gradient goes to what is missing.

        Raises:
            ValueError: if a shape is wrong, a mask has other numbers, or a time step is negative
                or not finite.
            TypeError: if it is no tensor of floating-point numbers.
        """
        if isinstance(input, PackedSequence):
            raise TypeError(
                "input: expected a tensor, got a PackedSequence; fill it in before it is packed"
            )
        if not isinstance(input, Tensor) or not input.is_floating_point():
            kind = input.dtype if isinstance(input, Tensor) else type(input).__name__
            raise TypeError(f"input: expected a tensor of floating-point numbers, got {kind}")
        if input.dim() not in (2, 3) or input.shape[-1] != self.features:
            axes = "[B, T, I]" if self.batch_first else "[T, B, I]"
            raise ValueError(
                f"input: expected shape {axes} or [T, I] with I = {self.features} features, got "
                f"{list(input.shape)}"
            )
        seen = _observed(input, mask)
        batched = input.dim() == 3
        turned = batched and not self.batch_first
        x = input if batched else input.unsqueeze(0)
        seen = seen if batched else seen.unsqueeze(0)
        if turned:
            x, seen = x.transpose(0, 1), seen.transpose(0, 1)
        batch, time, _ = x.shape
        spans = layer_timespans(timespans, batch, time, 1, self.batch_first, batched, x)
        steps = layer_lengths(lengths, batch, batched, x.device)
        if resets is not None:
            resets = layer_resets(resets, batch, time, self.batch_first, batched, x.device)
        if not torch.compiler.is_compiling():
            check_lengths_and_timespans(steps, spans, time)
        valid = None
        if steps is not None:
            valid = (torch.arange(time, device=x.device) < steps.unsqueeze(1)).unsqueeze(2)
            seen = seen & valid
            if spans is not None:
                spans = torch.where(valid.squeeze(2), spans, 0)
        output = self._fill(torch.where(seen, x, 0), seen, spans, resets)
        if valid is not None:
            output = torch.where(valid, output, 0)
        if turned:
            output = output.transpose(0, 1)
        return output if batched else output.squeeze(0)

    def _fill(self, x: Tensor, seen: Tensor, spans: Tensor | None, resets: Tensor | None) -> Tensor:
        dtype = x.dtype
        mean = self.mean.to(dtype)
        parts = [torch.where(seen, x, mean)]
        if self.method != "mean" or self.add_elapsed:
            steps = torch.arange(x.shape[1], device=x.device).view(1, -1, 1)
            # The last step with an observation, this one included; -1 before there is one.
            last = torch.where(seen, steps, -1).cummax(1).values
            first = torch.zeros_like(steps)
            if resets is not None:
                first = torch.where(resets.unsqueeze(2), steps, 0).cummax(1).values
        if self.method == "decay" or self.add_elapsed:
            # The one before this step, whose own value is no news of the time since the last.
            before = torch.cat([torch.full_like(last[:, :1], -1), last[:, :-1]], 1)
            elapsed = _since(torch.maximum(before, first), spans, x)
        if self.method != "mean":
            carried = torch.where(last < first, mean, x.gather(1, last.clamp(min=0)))
            if self.method == "decay":
                rate, offset = self.decay_rate.to(dtype), self.decay_offset.to(dtype)
                g = torch.exp(-(rate * elapsed + offset).clamp(min=0))
                carried = torch.where(seen, x, g * carried + (1 - g) * mean)
            parts[0] = carried
        if self.add_mask:
            parts.append(seen.to(dtype))
        if self.add_elapsed:
            parts.append(elapsed)
        return torch.cat(parts, 2)


def _since(step: Tensor, spans: Tensor | None, like: Tensor) -> Tensor:
    """Return the time from steps ``[B, T, I]`` to those where they stand."""
    here = torch.arange(step.shape[1], device=step.device).view(1, -1, 1)
    if spans is None:
        return (here - step).to(like.dtype)
    # Differences of sums: in float64, however long the sequence is.
    times = spans.double().cumsum(1).unsqueeze(2).expand(step.shape)
    return (times - times.gather(1, step)).to(like.dtype)


def _observed(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return ~x.isnan()
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: expected a tensor, got {type(mask).__name__}")
    if mask.shape != x.shape:
        raise ValueError(
            f"mask: expected the shape of the input, {list(x.shape)}, got {list(mask.shape)}"
        )
    if mask.device != x.device:
        raise TypeError(f"mask: expected a tensor on {x.device}, got one on {mask.device}")
    if mask.dtype == torch.bool:
        return mask
    if not torch.compiler.is_compiling() and not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask: expected booleans or numbers of 0 and 1, got others")
    return mask != 0
