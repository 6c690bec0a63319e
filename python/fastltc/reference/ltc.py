"""A liquid time-constant layer over a sequence, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus as torch_softplus

from fastltc.reference.sequence import run_sequence


def ltc(
    x: Tensor,
    h0: Tensor | None = None,
    timespans: Tensor | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    *,
    reset_to_zero: bool = False,
    gleak: Tensor,
    vleak: Tensor,
    cm: Tensor,
    sigma: Tensor,
    mu: Tensor,
    w: Tensor,
    erev: Tensor,
    sensory_sigma: Tensor,
    sensory_mu: Tensor,
    sensory_w: Tensor,
    sensory_erev: Tensor,
    mask: Tensor,
    sensory_mask: Tensor,
    input_w: Tensor | None = None,
    input_b: Tensor | None = None,
    output_w: Tensor | None = None,
    output_b: Tensor | None = None,
    memory: Sequence[Tensor] | None = None,
    output_size: int | None = None,
    ode_unfolds: int = 6,
    epsilon: float = 1e-8,
    softplus: bool = True,
    return_sequences: bool = True,
) -> tuple[Tensor, Tensor]:
    r"""Run a liquid time-constant (LTC) layer over a batch of sequences.

    Each time step does ``ode_unfolds`` semi-implicit Euler steps of the membrane equation. With
    ``pos`` the softplus (or the identity) and ``s(v) = sigmoid(sigma (v - mu))`` per synapse::

        u  = x input_w + input_b
        D_j  = cm_j U + dt (gleak_j + sum_i w_ij s_ij(v_i) + sum_k ws_kj s_kj(u_k) + epsilon)
        v'_j = (cm_j U v_j + dt (gleak_j vleak_j + sum_i w_ij erev_ij s_ij(v_i)
                                 + sum_k ws_kj erevs_kj s_kj(u_k))) / D_j
        y  = v[:M] output_w + output_b

    where ``cm``, ``gleak``, ``w`` and ``ws = sensory_w`` stand for ``pos`` of the parameter. The
    time step is multiplied through, so ``dt = 0`` is well defined: it holds the state, as it does
    where ``cm`` is 0, too, and then has a gradient of 0. Time steps above the root of the largest
    number count as that root, which is the limit to rounding.

    Args:
        x: inputs, ``[B, T, I]``, floating point.
        h0: initial state, ``[B, N]``; zeros by default.
        timespans: time since the last step, ``[B, T]`` or, one per neuron, ``[B, T, N]``, in
            seconds, not negative; 1 by default.
        lengths: valid steps of each sample, ``[B]``, integer, 0 to T; T by default. From
            ``t = lengths[b]`` on the state is held and the output is 0; what stands there in
            ``x`` and ``timespans`` does not matter.
        resets: steps before which a sample's state is set to ``h0``, ``[B, T]``, bool; none by
            default. What comes before such a step has no part in what follows.
        reset_to_zero: set it to zeros instead.
        gleak: leak conductance, ``[N]``.
        vleak: leak potential, ``[N]``.
        cm: membrane capacitance, ``[N]``.
        sigma: slopes of the synapses, ``[N, N]``, presynaptic neuron first.
        mu: midpoints of the synapses, ``[N, N]``.
        w: conductances of the synapses, ``[N, N]``.
        erev: reversal potentials of the synapses, ``[N, N]``.
        sensory_sigma: slopes of the sensory synapses, ``[I, N]``.
        sensory_mu: midpoints of the sensory synapses, ``[I, N]``.
        sensory_w: conductances of the sensory synapses, ``[I, N]``.
        sensory_erev: reversal potentials of the sensory synapses, ``[I, N]``.
        mask: which synapses exist, ``[N, N]``, 0 or 1. Parameters of the others are not used and
            their gradient is exactly 0.
        sensory_mask: which sensory synapses exist, ``[I, N]``, 0 or 1.
        input_w: factor of the input map, ``[I]``; none by default.
        input_b: offset of the input map, ``[I]``; none by default.
        output_w: factor of the output map, ``[M]``; none by default.
        output_b: offset of the output map, ``[M]``; none by default.
        memory: weight, bias and recurrent weight of the memory cell of mixed memory, see
            :func:`fastltc.reference.memory_cell`; none by default. The state is then ``[B, 2 N]``:
            that of the liquid cell and behind it the memory. The same holds for ``hn``.
        output_size: M, the number of motor neurons, which come first; N by default.
        ode_unfolds: U, solver steps per time step.
        epsilon: added to the denominator.
        softplus: whether ``pos`` is the softplus; else it is the identity.
        return_sequences: return the output of every step, or only that of the last valid one.

    Returns:
        ``(output, hn)``: ``[B, T, M]`` (or ``[B, M]``) and the state after the last valid step,
        ``[B, N]``. Both are differentiable any number of times.

    Example:
        >>> import torch
        >>> from fastltc.reference import ltc
        >>> n, i = 3, 2
        >>> square, tall = torch.full((n, n), 0.5), torch.full((i, n), 0.5)
        >>> output, hn = ltc(
        ...     torch.randn(4, 5, i), gleak=torch.ones(n), vleak=torch.zeros(n), cm=torch.ones(n),
        ...     sigma=square, mu=square, w=square, erev=square, sensory_sigma=tall,
        ...     sensory_mu=tall, sensory_w=tall, sensory_erev=tall, mask=torch.ones(n, n),
        ...     sensory_mask=torch.ones(i, n), output_size=1)
        >>> output.shape, hn.shape
        (torch.Size([4, 5, 1]), torch.Size([4, 3]))

    Source: Hasani et al., Liquid Time-constant Networks, AAAI 2021, algorithm 1; Lechner et al.,
    Neural circuit policies, Nature Machine Intelligence 2020.
    """
    neurons = cm.shape[0]
    motors = neurons if output_size is None else output_size

    def positive(parameter: Tensor) -> Tensor:
        return torch_softplus(parameter) if softplus else parameter

    # Selecting before use, not multiplying after it, keeps whatever stands in the parameters of
    # missing synapses out of the results and out of the gradients.
    def on_synapses(parameter: Tensor, exists: Tensor) -> Tensor:
        return parameter.masked_fill(exists == 0, 0)

    sigma, mu, erev = (on_synapses(p, mask) for p in (sigma, mu, erev))
    sensory_sigma, sensory_mu, sensory_erev = (
        on_synapses(p, sensory_mask) for p in (sensory_sigma, sensory_mu, sensory_erev)
    )
    w = on_synapses(positive(on_synapses(w, mask)), mask)
    sensory_w = on_synapses(positive(on_synapses(sensory_w, sensory_mask)), sensory_mask)
    leak, capacitance = positive(gleak), positive(cm) * ode_unfolds
    # Sigmoids are at their ends long before; infinity times a slope of 0 would be NaN.
    largest_input = torch.finfo(x.dtype).max ** 0.75

    def read_out(v: Tensor) -> Tensor:
        y = v[:, :motors]
        y = y if output_w is None else y * output_w
        return y if output_b is None else y + output_b

    def step(t: int, u: Tensor, v: Tensor, dt: Tensor) -> Tensor:
        u = u if input_w is None else u * input_w
        u = u if input_b is None else u + input_b
        u = u.clamp(-largest_input, largest_input)
        s = torch.sigmoid(sensory_sigma * (u.unsqueeze(-1) - sensory_mu))
        sensory_current = (sensory_w * sensory_erev * s).sum(1)
        sensory_conductance = (sensory_w * s).sum(1)
        for _ in range(ode_unfolds):
            s = torch.sigmoid(sigma * (v.unsqueeze(-1) - mu))
            current = leak * vleak + (w * erev * s).sum(1) + sensory_current
            conductance = leak + (w * s).sum(1) + sensory_conductance + epsilon
            total = capacitance + dt * conductance
            held = total.abs() < torch.finfo(total.dtype).tiny
            ends = (capacitance * v + dt * current) / torch.where(held, 1, total)
            v = torch.where(held, v, ends)
        return v

    return run_sequence(
        *(step, read_out, x, h0, timespans, lengths, resets, reset_to_zero, memory),
        *(return_sequences, neurons),
    )
