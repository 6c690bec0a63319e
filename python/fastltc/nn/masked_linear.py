"""A linear layer whose weight is masked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastltc.nn.checks import check_dense
from fastltc.ops.masked_linear import masked_linear
from fastltc.ops.synapses import SynapseCache, mask_entries, mask_ones


class MaskedLinear(nn.Module):
    r"""A linear layer whose weight is masked: :math:`y = x (W \odot M)^T + b`.

    Only the weights under the mask are used, initialised (as those of ``torch.nn.Linear``, by the
    number of inputs of the layer) and trained; the gradient of the others is exactly 0. The
    product goes by the ones of the mask where they are few enough for that to be quicker; see
    :func:`fastltc.ops.masked_linear`.

    The mask is a buffer of the dtype of the weights, saved with them, and what a loaded checkpoint
    has counts. After an
    edit in place through ``mask.data`` call :meth:`refresh_mask`.

    Args:
        in_features: number of inputs, I.
        out_features: number of outputs, O.
        mask: which weights exist, ``[O, I]``, 0 or 1 (or bool).
        bias: whether there is an offset.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: if the shape of the mask is wrong, or an entry is neither 0 nor 1.

    Example:
        >>> import torch
        >>> from fastltc import MaskedLinear
        >>> layer = MaskedLinear(5, 8, torch.rand(8, 5) < 0.2)
        >>> layer(torch.randn(2, 3, 5)).shape
        torch.Size([2, 3, 8])
    """

    mask: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        mask: Tensor,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        mask = torch.as_tensor(mask)
        if tuple(mask.shape) != (out_features, in_features):
            raise ValueError(
                f"mask: expected shape [O, I] = [{out_features}, {in_features}], got "
                f"{list(mask.shape)}"
            )
        self._entries = SynapseCache(mask_entries(mask), "mask", mask_entries)
        linear = nn.Linear(in_features, out_features, bias, device, dtype)
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("mask", mask.to(linear.weight, copy=True))
        self._entries.move(linear.weight.device)

    def refresh_mask(self) -> None:
        """Read the mask again; see the class on when that is needed.

        Raises:
            ValueError: if an entry is neither 0 nor 1.
        """
        self._entries.refresh(self.mask)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply.

        Args:
            input: ``[..., I]``, dtype and device of the parameters (half types are computed in
                float32).

        Returns:
            ``[..., O]``.

        Raises:
            ValueError: if the number of inputs is wrong.
            TypeError: if a dtype or a device is wrong, or the input has a layout that
                ``torch.nn.functional.linear`` does not take.
        """
        if input.layout is torch.sparse_coo or (input.is_nested and input.layout is torch.strided):
            check_dense("input", input)
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            raise ValueError(
                f"input: expected shape [..., I] with I = {self.in_features}, got "
                f"{list(input.shape)}"
            )
        if torch.compiler.is_compiling():
            # Reading the mask would break the graph.
            entries = self._entries.synapses
        else:
            entries = self._entries.current(self.mask, None)
        return masked_linear(input, self.weight, self.mask, self.bias, entries)

    def extra_repr(self) -> str:
        """Return the sizes, for ``print``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.mask.is_meta:
            # The dense product would multiply by what is a one up to rounding.
            exact = mask_ones(self.mask, "mask").to(self.mask)
            if not torch.equal(exact, self.mask):
                self.mask = exact
        self.refresh_mask()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MaskedLinear:
        super()._apply(fn, recurse)
        self._entries.move(self.mask.device)
        return self
