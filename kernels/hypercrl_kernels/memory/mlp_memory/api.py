"""A memory that is a two-layer network per head, written by gradient descent: Titans."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hypercrl_kernels.memory.arguments import (
    MAX_KEYS,
    Layout,
    check_ends,
    check_log_gates,
    check_segments,
    check_sequences,
    check_shape,
    once_for_each,
    runs_as_kernel,
)
from hypercrl_kernels.memory.mlp_memory.chunked import mlp_memory_chunks
from hypercrl_kernels.memory.mlp_memory.naive import Activation, MLPState


def chunk_mlp_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    initial_state: MLPState,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    log_momentum: Tensor | None = None,
    activation: Activation = "gelu",
    cu_seqlens: Tensor | None = None,
    chunk: int = 32,
    unit_keys: bool = False,
) -> tuple[Tensor, MLPState]:
    """Learn M(k_t) = v_t by one gradient step per step of the sequence, and read M(q_t).

    With M(x) = σ(x W₁) W₂, ℓ = ½|M(k_t) − v_t|², W both weights and S their momenta (Behrouz et al.
    2025, eqs. 11 to 14):

        S_t = exp(log_momentum_t) S_{t−1} − beta_t ∇ℓ(W at the start of the chunk; k_t, v_t),
        W_t = exp(log_decay_t) W_{t−1} + S_t,   o_t = σ(q_t W₁,t) W₂,t.

    Args:
        q, k: [B, T, H, K]; keys of unit length, unless `unit_keys` brings them to it.
        v: [B, T, H, V].
        initial_state: the memory to start from; `MLPState.fresh` makes it from learned weights.
            One chunk takes less time from momenta that are None than from zeros.
        log_decay: [B, T, H], ≤ 0; log(1 − α) of the paper. None: nothing is forgotten.
        beta: [B, T, H], step size; θ of the paper. None: 1.
        log_momentum: [B, T, H], ≤ 0; log η of the paper. None: no momentum.
        activation: σ.
        cu_seqlens: [N + 1] offsets of N segments that lie one after another in a batch of one.
        chunk: steps whose gradients are taken at the same weights.
        unit_keys: q and k are brought to length 1 first.

    Returns:
        o [B, T, H, V] in the dtype of v, and the final state in the dtype of the initial one.

    Raises:
        ValueError: shapes or options that do not fit together; on a CPU, log gates above zero (on a
            GPU that is not looked for, and what comes out is not defined).

    Example:
        >>> q, k, v = torch.randn(3, 2, 100, 4, 16)
        >>> k = torch.nn.functional.normalize(k, dim=-1)
        >>> start = MLPState.fresh(torch.randn(4, 16, 32), torch.randn(4, 32, 16), count=2)
        >>> o, state = chunk_mlp_memory(q, k, v, initial_state=start, beta=torch.rand(2, 100, 4))
        >>> tuple(o.shape), tuple(state.w1.shape)
        ((2, 100, 4, 16), (2, 4, 16, 32))
    """
    name = "chunk_mlp_memory"
    given = (q, k, v, log_decay, beta, log_momentum, cu_seqlens, *initial_state)
    why_not = _look(given, activation, chunk)
    check_log_gates(name, log_decay=log_decay, log_momentum=log_momentum)
    check_ends(name, cu_seqlens, q.shape[1])
    if runs_as_kernel(name, q, why_not):
        from hypercrl_kernels.memory.mlp_memory.op import mlp_memory_kernels

        gates = (log_decay, beta, log_momentum)
        silu = activation == "silu"
        return mlp_memory_kernels(
            q, k, v, *gates, initial_state, cu_seqlens, silu, chunk, unit_keys
        )
    if unit_keys:
        q, k = normalize(q, dim=-1), normalize(k, dim=-1)
    return mlp_memory_chunks(
        q,
        k,
        v,
        initial_state,
        log_decay=log_decay,
        beta=beta,
        log_momentum=log_momentum,
        activation=activation,
        cu_seqlens=cu_seqlens,
        chunk=chunk,
    )


@once_for_each
def _look(
    q: Layout,
    k: Layout,
    v: Layout,
    log_decay: Layout | None,
    beta: Layout | None,
    log_momentum: Layout | None,
    cu_seqlens: Layout | None,
    w1: Layout,
    w2: Layout,
    s1: Layout | None,
    s2: Layout | None,
    activation: str,
    chunk: int,
) -> str | None:
    """Check the arguments; why the kernels do not take them, None: they do."""
    name, state = "chunk_mlp_memory", {"w1": w1, "w2": w2, "s1": s1, "s2": s2}
    batch, length, heads = check_sequences(name, q, k, v)
    for gate, x in (("log_decay", log_decay), ("beta", beta), ("log_momentum", log_momentum)):
        if x is not None:
            check_shape(name, gate, x, "BTH", B=batch, T=length, H=heads)
    count, hidden = check_segments(name, cu_seqlens, batch), w1.shape[-1]
    keys, values = q.shape[-1], v.shape[-1]
    sizes = {"N": count, "H": heads, "K": keys, "V": values, "F": hidden}
    for part, letters in (("w1", "NHKF"), ("s1", "NHKF"), ("w2", "NHFV"), ("s2", "NHFV")):
        if state[part] is not None:
            check_shape(name, f"initial_state.{part}", state[part], letters, **sizes)
    if activation not in get_args(Activation):
        raise ValueError(f"{name} knows activation 'gelu' and 'silu', not {activation!r}")
    if chunk < 1:
        raise ValueError(f"{name} needs chunks of at least 1 step, not {chunk}")
    if max(keys, values) > MAX_KEYS:
        return f"keys or values are wider than {MAX_KEYS}"
    if chunk not in (16, 32, 64):
        return f"chunks of {chunk}, not 16, 32 or 64"
    if {s.dtype for s in state.values() if s is not None} != {torch.float32}:
        return f"its state is {w1.dtype}, not torch.float32"
    return None
