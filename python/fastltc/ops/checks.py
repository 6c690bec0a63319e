"""Why an operator refused its arguments, said in the words of the function that was called.

The operators check everything themselves, before they touch memory, and raise ``RuntimeError``.
The functions here run only after that, so that a call that succeeds pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastltc._extension import load_cuda_operators
from fastltc.ops.synapses import mask_ones

__all__ = [
    "check_cfc_arguments",
    "check_has_kernels",
    "check_lengths_and_timespans",
    "check_ltc_arguments",
    "check_timespan_values",
]

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _expect_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")


def _expect_shape(name: str, tensor: Tensor, letters: str, shape: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{name}: expected shape {letters} = {list(shape)}, got {list(tensor.shape)}"
        )


def _expect_same_kind(name: str, tensor: Tensor, like: Tensor) -> None:
    if tensor.device != like.device:
        raise TypeError(
            f"{name}: expected a tensor on {like.device}, where the first argument is, got one on "
            f"{tensor.device}"
        )
    if tensor.dtype != like.dtype:
        raise TypeError(
            f"{name}: expected {like.dtype}, the dtype of the first argument, got {tensor.dtype}"
        )


def check_same_device(op: str, x: Tensor, *others: Tensor | None) -> None:
    """Raise RuntimeError if a tensor is on another device than ``x``.

    For fake kernels: they also answer when only some tensors are on the meta device, and would
    return real tensors that nobody has written.

    Args:
        op: name of the operator.
        x: the tensor that the results are made like.
        others: the other tensors.
    """
    for tensor in others:
        if tensor is not None and tensor.device != x.device:
            raise RuntimeError(
                f"{op}: expected all tensors on {x.device}, where x is, got one on {tensor.device}"
            )


def check_has_kernels(function: str, x: Tensor) -> None:
    """Raise RuntimeError if ``x`` is on a CUDA device and the CUDA kernels are not there.

    Args:
        function: name of the operator without a prefix.
        x: the first argument.
    """
    if x.device.type != "cuda":
        return
    path, reason = load_cuda_operators()
    if path is None:
        raise RuntimeError(
            f"{function}: x is on {x.device}, but the CUDA kernels are not loaded: {reason}. "
            "Install fastltc where there is a CUDA toolkit (`fastltc info` says whether it found "
            'one), or move the module and its inputs to the CPU with .to("cpu")'
        )


def check_timespan_values(name: str, timespans: Tensor) -> None:
    """Raise ValueError if a time step is negative, infinite or NaN.

    Args:
        name: what the caller calls the argument.
        timespans: any shape, any real dtype.
    """
    bad = torch.logical_not((timespans >= 0) & torch.isfinite(timespans))
    if bad.any():
        where = [int(i) for i in bad.nonzero()[0]]
        value = timespans[tuple(where)].item()
        raise ValueError(
            f"{name}: expected finite time steps of 0 or more, got {value} at {where} "
            f"({int(bad.sum())} of {bad.numel()} are not)"
        )


def check_lengths_and_timespans(
    lengths: Tensor | None, timespans: Tensor | None, time: int
) -> None:
    """Raise ValueError if a length or a time step is out of its range.

    Args:
        lengths: ``[B]``, integer; None if all samples are ``time`` steps long.
        timespans: ``[B, T]`` or ``[B, T, N]``; what stands behind the lengths does not count.
        time: T.
    """
    if lengths is not None and lengths.numel():
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0 or high > time:
            raise ValueError(f"lengths: expected values of 0 to T = {time}, got {low} to {high}")
    if timespans is None:
        return
    if lengths is not None:
        valid = torch.arange(time, device=timespans.device) < lengths.unsqueeze(-1)
        valid = valid if timespans.dim() == 2 else valid.unsqueeze(-1)
        timespans = torch.where(valid, timespans, 0)
    check_timespan_values("timespans", timespans)


def _check_input(x: Tensor) -> None:
    _expect_tensor("x", x)
    if x.dim() != 3:
        raise ValueError(f"x: expected shape [B, T, I], got {list(x.shape)}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x: expected a floating point dtype of at most 64 bits, got {x.dtype}")


def _check_data(
    h0: Tensor | None,
    timespans: Tensor | None,
    lengths: Tensor | None,
    x: Tensor,
    neurons: int,
    memory: Sequence[Tensor] | None,
) -> None:
    batch, time, inputs = x.shape
    if h0 is not None:
        _expect_tensor("h0", h0)
        _expect_same_kind("h0", h0, x)
        if memory is None:
            _expect_shape("h0", h0, "[B, N]", [batch, neurons])
        else:
            _expect_shape("h0", h0, "[B, 2 N]", [batch, 2 * neurons])
    if memory is not None:
        if len(memory) != 3:
            raise ValueError(f"memory: expected three tensors, got {len(memory)}")
        letters = "[4 N, I]", "[4 N]", "[4 N, N]"
        columns: tuple[list[int], ...] = [inputs], [], [neurons]
        for i, tensor in enumerate(memory):
            _expect_tensor(f"memory[{i}]", tensor)
            _expect_same_kind(f"memory[{i}]", tensor, x)
            _expect_shape(f"memory[{i}]", tensor, letters[i], [4 * neurons, *columns[i]])
    if timespans is not None:
        _expect_tensor("timespans", timespans)
        _expect_same_kind("timespans", timespans, x)
        if timespans.dim() == 3:
            _expect_shape("timespans", timespans, "[B, T, N]", [batch, time, neurons])
        else:
            _expect_shape("timespans", timespans, "[B, T]", [batch, time])
    if lengths is not None:
        _expect_tensor("lengths", lengths)
        if lengths.dtype not in _INTEGERS:
            raise TypeError(f"lengths: expected int64, got {lengths.dtype}")
        _expect_shape("lengths", lengths, "[B]", [batch])


def _check_device(x: Tensor) -> None:
    if x.device.type != "cpu":
        raise NotImplementedError(
            f"fastltc: no {x.device.type} kernels for tensors on {x.device}; move the module and "
            "its input to the CPU, or install a fastltc built with FASTLTC_CUDA=ON (`fastltc "
            "info` says what this one has)"
        )


def check_ltc_arguments(
    x: Tensor,
    h0: Tensor | None,
    timespans: Tensor | None,
    lengths: Tensor | None,
    parameters: Sequence[Tensor | None],
    synapses: Tensor,
    sensory_synapses: Tensor,
    output_size: int,
    ode_unfolds: int,
    memory: Sequence[Tensor] | None = None,
) -> None:
    """Raise ValueError or TypeError if ``fastltc.ops.ltc`` cannot take these arguments.

    Args:
        x: see :func:`fastltc.ops.ltc`.
        h0: the same.
        timespans: the same.
        lengths: the same.
        parameters: the same.
        synapses: the same.
        sensory_synapses: the same.
        output_size: the same.
        ode_unfolds: the same.
        memory: the same.

    Raises:
        ValueError: names the argument whose shape or value is wrong, what was expected, what came.
        TypeError: the same for a dtype or device.
    """
    from fastltc.ops.ltc import LTC_PARAMETERS

    _check_input(x)
    inputs = x.shape[2]
    named = dict(zip(LTC_PARAMETERS, parameters, strict=True))
    for name, parameter in named.items():
        if parameter is None and name[-2:] in ("_w", "_b") and not name.startswith("sensory"):
            continue
        _expect_tensor(name, parameter)
        assert parameter is not None
        _expect_same_kind(name, parameter, x)
    cm = named["cm"]
    assert cm is not None
    stacked = cm.dim() == 2
    count = cm.shape[0] if stacked else 1
    neurons = cm.shape[-1] if cm.dim() else 0
    if inputs % max(count, 1):
        raise ValueError(
            f"x: expected a multiple of {count} features, as many as there are layers, got {inputs}"
        )
    inputs //= max(count, 1)
    if not 0 < output_size <= neurons:
        raise ValueError(
            f"output_size: expected 1 to the number of neurons, {neurons}, got {output_size}"
        )
    if ode_unfolds < 1:
        raise ValueError(f"ode_unfolds: expected 1 or more, got {ode_unfolds}")
    shapes: dict[str, tuple[str, list[int]]] = {
        **dict.fromkeys(LTC_PARAMETERS[:3], ("[N]", [neurons])),
        **dict.fromkeys(LTC_PARAMETERS[3:7], ("[N, N]", [neurons, neurons])),
        **dict.fromkeys(LTC_PARAMETERS[7:11], ("[I, N]", [inputs, neurons])),
        **dict.fromkeys(LTC_PARAMETERS[11:13], ("[I]", [inputs])),
        **dict.fromkeys(LTC_PARAMETERS[13:], ("[M]", [output_size])),
    }
    for name, parameter in named.items():
        if parameter is not None:
            letters, shape = shapes[name]
            if stacked:
                letters, shape = f"[K, {letters[1:]}", [count, *shape]
            _expect_shape(name, parameter, letters, shape)
    if stacked and memory is not None:
        raise ValueError("memory: expected None for several layers, got tensors")
    neurons *= count
    _check_data(h0, timespans, lengths, x, neurons, memory)
    for name, synapse_list in (("synapses", synapses), ("sensory_synapses", sensory_synapses)):
        _expect_tensor(name, synapse_list)
        if synapse_list.dtype != torch.int32 or synapse_list.dim() != 1:
            raise TypeError(
                f"{name}: expected the int32 list that fastltc.nn.synapse_list makes, got "
                f"{synapse_list.dtype} of shape {list(synapse_list.shape)}"
            )
        if synapse_list.device != x.device:
            raise TypeError(
                f"{name}: expected a tensor on {x.device}, got one on {synapse_list.device}"
            )
    check_lengths_and_timespans(lengths, timespans, x.shape[1])
    _check_device(x)


def check_cfc_arguments(
    x: Tensor,
    h0: Tensor | None,
    timespans: Tensor | None,
    lengths: Tensor | None,
    parameters: Sequence[Tensor],
    masks: Sequence[Tensor],
    layer_sizes: Sequence[int],
    backbone_layers: int,
    mode: str,
    activation: str,
    dropout: Tensor | None,
    memory: Sequence[Tensor] | None = None,
) -> None:
    """Raise ValueError or TypeError if ``fastltc.ops.cfc`` cannot take these arguments.

    Args:
        x: see :func:`fastltc.ops.cfc`.
        h0: the same.
        timespans: the same.
        lengths: the same.
        parameters: the same.
        masks: the same.
        layer_sizes: the same.
        backbone_layers: the same.
        mode: the same.
        activation: the same.
        dropout: the same.
        memory: the same.

    Raises:
        ValueError: names the argument whose shape or value is wrong, what was expected, what came.
        TypeError: the same for a dtype or device.
    """
    from fastltc.ops.cfc import CFC_ACTIVATIONS, CFC_MODES

    for name, value, known in (
        ("mode", mode, CFC_MODES),
        ("activation", activation, CFC_ACTIVATIONS),
    ):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    _check_input(x)
    if not layer_sizes or min(layer_sizes) < 1:
        raise ValueError(f"layer_sizes: expected sizes of 1 or more, got {list(layer_sizes)}")
    if backbone_layers < 0 or (backbone_layers and (len(layer_sizes) > 1 or masks)):
        raise ValueError(
            "backbone_layers: expected 0, or more with one cell and no masks, got "
            f"{backbone_layers} with {len(layer_sizes)} cells and {len(masks)} masks"
        )
    if len(masks) not in (0, len(layer_sizes)):
        raise ValueError(
            f"masks: expected none or one for each of {len(layer_sizes)} cells, got {len(masks)}"
        )
    per_cell = 4 if mode == "pure" else 8
    count = 2 * backbone_layers + per_cell * len(layer_sizes)
    if len(parameters) != count:
        raise ValueError(
            f"parameters: expected {count} tensors with {len(layer_sizes)} cells, "
            f"{backbone_layers} backbone layers and mode {mode!r}, got {len(parameters)}"
        )
    batch, time, fan_in = x.shape
    neurons, units = sum(layer_sizes), 0
    shapes: list[tuple[str, tuple[int, ...]]] = []
    if backbone_layers:
        fan_in, units = fan_in + neurons, parameters[0].shape[0]
    for layer in range(backbone_layers):
        shapes += [
            (f"backbone {layer} weight", (units, fan_in)),
            (f"backbone {layer} bias", (units,)),
        ]
        fan_in = units
    for cell, size in enumerate(layer_sizes):
        own = fan_in if backbone_layers else fan_in + size
        for linear in ("ff1",) if mode == "pure" else ("ff1", "ff2", "time_a", "time_b"):
            shapes += [(f"{linear}.weight", (size, own)), (f"{linear}.bias", (size,))]
        if mode == "pure":
            shapes += [("w_tau", (1, size)), ("A", (1, size))]
        if masks:
            mask = masks[cell]
            _expect_tensor(f"masks[{cell}]", mask)
            _expect_shape(f"masks[{cell}]", mask, "[n, K]", (size, own))
            if mask.device != x.device:
                raise TypeError(
                    f"masks[{cell}]: expected a tensor on {x.device}, got one on {mask.device}"
                )
            mask_ones(mask, f"masks[{cell}]")
        fan_in = size
    for i, (parameter, (name, shape)) in enumerate(zip(parameters, shapes, strict=True)):
        what = f"parameters[{i}] ({name})"
        _expect_tensor(what, parameter)
        _expect_same_kind(what, parameter, x)
        if tuple(parameter.shape) != shape:
            raise ValueError(f"{what}: expected shape {list(shape)}, got {list(parameter.shape)}")
    if dropout is not None:
        _expect_tensor("dropout", dropout)
        _expect_same_kind("dropout", dropout, x)
        _expect_shape(
            "dropout",
            dropout,
            "[backbone_layers - 1, B, T, units]",
            (backbone_layers - 1, batch, time, units),
        )
    _check_data(h0, timespans, lengths, x, neurons, memory)
    check_lengths_and_timespans(lengths, timespans, time)
    _check_device(x)
