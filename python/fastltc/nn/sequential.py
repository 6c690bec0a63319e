"""Layers on top of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastltc.nn.bidirectional import Bidirectional
from fastltc.nn.impute import Impute
from fastltc.nn.sequence_layer import SequenceLayer


class Sequential(nn.Sequential):
    r"""Layers on top of each other: liquid ones, and any modules between them.

    Like ``torch.nn.Sequential``, but states, time steps, lengths and resets reach every liquid
    layer (:class:`LTC`, :class:`CfC`, :class:`Bidirectional` or another :class:`Sequential`), and
    time steps, lengths and resets every :class:`Impute`. The other modules (``nn.Linear``,
    ``nn.Dropout``, ``nn.LayerNorm``, activations) see one tensor, all steps at once; for a
    ``PackedSequence`` its data. Without ``return_sequences`` a liquid layer gives its last output
    only, so it has to be the last liquid one.

    Args:
        args: the modules in order, or one ordered dictionary of them, as for
            ``torch.nn.Sequential``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from fastltc import CfC, LTC, Sequential
        >>> from fastltc.wirings import AutoNCP
        >>> model = Sequential(
        ...     nn.Linear(16, 8), nn.ReLU(), CfC(8, 24), nn.Dropout(0.1), LTC(24, AutoNCP(19, 2)))
        >>> output, states = model(torch.randn(4, 32, 16), timespans=torch.rand(4, 32))
        >>> output.shape, [tuple(state.shape) for state in states]
        (torch.Size([4, 32, 2]), [(4, 24), (4, 19)])
    """

    @overload
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Sequence[Any] | None = None,
        timespans: Tensor | PackedSequence | float | None = None,
        lengths: Tensor | list[int] | int | None = None,
        resets: Tensor | PackedSequence | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: Literal[False] = False,
    ) -> tuple[Any, list[Any]]: ...

    @overload
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Sequence[Any] | None = None,
        timespans: Tensor | PackedSequence | float | None = None,
        lengths: Tensor | list[int] | int | None = None,
        resets: Tensor | PackedSequence | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: bool,
    ) -> tuple[Any, ...]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Sequence[Any] | None = None,
        timespans: Tensor | PackedSequence | float | None = None,
        lengths: Tensor | list[int] | int | None = None,
        resets: Tensor | PackedSequence | None = None,
        *,
        reset_to_zero: bool = False,
        return_states: bool = False,
    ) -> tuple[Any, ...]:
        """Run the modules in order.

        Args:
            input: as for the first module.
            hx: an initial state for each liquid layer, in order, each as for that layer or None;
                none by default.
            timespans: for every liquid layer, see :meth:`LTC.forward`.
            lengths: the same.
            resets: the same.
            reset_to_zero: the same.
            return_states: the same.

        Returns:
            ``(output, states)``: the output of the last module, and the last state of each liquid
            layer, in order. With ``return_states`` there is, third, a list of the states of all
            neurons of each liquid layer, see :meth:`LTC.forward`.

        Raises:
            ValueError: if there are more or fewer states than liquid layers, if a liquid layer
                follows one without ``return_sequences``, if they differ in ``batch_first``, or as
                the modules do.
            TypeError: if another module does not return a tensor, or as the modules do.
        """
        liquid = [module for module in self if isinstance(module, _LIQUID)]
        if hx is not None and len(hx) != len(liquid):
            raise ValueError(
                f"hx: expected {len(liquid)} states, one for each liquid layer, got {len(hx)}"
            )
        for layer in liquid[:-1]:
            if not returns_sequences(layer):
                raise ValueError(
                    f"{type(layer).__name__}: expected return_sequences=True, because a liquid "
                    "layer follows, got False"
                )
        for layer in liquid[1:]:
            if layer.batch_first != liquid[0].batch_first:
                raise ValueError(
                    f"{type(layer).__name__}: expected batch_first={liquid[0].batch_first}, as "
                    f"the first liquid layer has, got {layer.batch_first}"
                )
        options: dict[str, Any] = {"return_states": True} if return_states else {}
        if reset_to_zero:
            options["reset_to_zero"] = True
        given = iter([None] * len(liquid) if hx is None else hx)
        output: Any = input
        states: list[Any] = []
        seen: list[Any] = []
        for module in self:
            if isinstance(module, _LIQUID):
                output, state, *all_states = module(
                    output, next(given), timespans, lengths, resets, **options
                )
                states.append(state)
                seen += all_states
            elif isinstance(module, Impute):
                output = module(output, None, timespans, lengths, resets)
            elif isinstance(output, PackedSequence):
                output = output._replace(data=module(output.data))
            else:
                output = module(output)
                if not isinstance(output, Tensor):
                    raise TypeError(
                        f"{type(module).__name__}: expected a module that returns one tensor (or "
                        f"an LTC or CfC layer), got {type(output).__name__}"
                    )
        return (output, states, seen) if return_states else (output, states)

    @property
    def batch_first(self) -> bool:
        """The order of the axes, that of the first liquid layer."""
        return next((m.batch_first for m in self if isinstance(m, _LIQUID)), True)


_LIQUID = (SequenceLayer, Bidirectional, Sequential)


def returns_sequences(module: nn.Module) -> bool:
    """Whether a liquid layer gives the outputs of all steps."""
    if isinstance(module, Sequential):
        return all(returns_sequences(inner) for inner in module if isinstance(inner, _LIQUID))
    return bool(module.return_sequences)
