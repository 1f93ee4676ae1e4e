"""A memory of one matrix a head: linear attention, RetNet, GLA, the delta rules, linear Titans."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import (
    MAX_KEYS,
    Layout,
    check_ends,
    check_gates,
    check_log_gates,
    check_segments,
    check_sequences,
    check_shape,
    once_for_each,
    runs_as_kernel,
    work_dtype,
)
from hypercrl_kernels.memory.chunk_gla.chunked import gla_chunks
from hypercrl_kernels.memory.chunk_memory.chunked import memory_chunks
from hypercrl_kernels.memory.chunk_memory.naive import Error, normalised
from hypercrl_kernels.memory.chunk_memory.writes import each_head, one_after_another

ERRORS: tuple[str, ...] = get_args(Error)


def chunk_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    log_momentum: Tensor | None = None,
    error: Error = "none",
    normalise: bool = False,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Write every step into a matrix memory M and read from it.

    Triton kernels on CUDA, batched torch operations elsewhere and in float64.

    With decay a_t = exp(log_decay_t), momentum η_t = exp(log_momentum_t) and write strength β_t:

        e_t = v_t − M'ᵀ k_t,   M' = 0, M at the start of the chunk, M_{t−1} or a_t M_{t−1},
        S_t = η_t S_{t−1} + β_t k_t e_tᵀ,   M_t = a_t M_{t−1} + S_t,   o_t = scale · M_tᵀ q_t,

    where without momentum S_t is its last term alone. Known by name: linear attention (nothing set;
    Katharopoulos et al. 2020), RetNet (log_decay [H]; Sun et al. 2023), DeltaNet (error and beta;
    Yang et al. 2024), Gated DeltaNet (error="after_decay", log_decay, beta; Yang et al. 2025,
    eq. 10), Kimi Delta Attention (the same with log_decay [B, T, H, K], where a_t is the matrix
    diag(exp(log_decay_t)); Kimi Team 2025, section 3), Titans with a linear memory
    (error="before_decay" or "chunk_start" and all gates; Behrouz et al. 2025, eqs. 11 to 14).

    With an axis of n writes in k, v and beta, a step decays M, then takes n of them one after
    another, each with its own error, and reads M after the last: DeltaProduct (Siems et al. 2025,
    section 3). They are computed as n T steps of one write.

    Args:
        q: [B, T, G, K]; of fewer heads G than memories H, head h has that of h // (H / G).
        k: [B, T, G, K] or [B, T, n, G, K]. For an error q and k should have unit length:
            β|k|² < 2 keeps M bounded.
        v: [B, T, H, V] or [B, T, n, H, V].
        log_decay: ≤ 0; [H], [B, T, H] with one per step, or [B, T, H, K] with one for every key,
            for error "none" and "after_decay" and no momentum. −∞ empties the memory, or the key's
            row of it: nothing of before is left, in no digit. None: nothing decays.
        beta: [B, T, H] or [B, T, n, H]. None: 1.
        log_momentum: [B, T, H], ≤ 0, with one write a step. None: no momentum.
        error: which prediction is subtracted from v; see the equations.
        normalise: divide o_t by z_tᵀ q_t, where z is a memory of ones: linear attention with
            positive features. Where that is zero, as nothing like q_t has been written, o_t is
            scale · M_tᵀ q_t as it is: zero. Only with error="none" and no momentum.
        scale: of the reads; K^-½ by default.
        initial_state: [N, H, K, V], with momentum [N, H, 2, K, V] (M, then S), with normalise
            [N, H, K, V + 1] (z is the last column). None: zeros.
        cu_seqlens: [N + 1] offsets of N segments that lie one after another in a batch of one.
        chunk: steps a chunk. It matters to error="chunk_start" alone, otherwise only to speed.

    Returns:
        o [B, T, H, V] in the dtype of v, and the final state, float32 (float64 for float64).

    Raises:
        ValueError: shapes or options that do not fit together; on a CPU, log gates above zero (on a
            GPU that is not looked for, and what comes out is not defined).

    Example:
        >>> q, k, v = torch.randn(3, 2, 100, 4, 16)
        >>> k = torch.nn.functional.normalize(k, dim=-1)
        >>> beta, log_decay = torch.rand(2, 100, 4), -torch.rand(2, 100, 4)
        >>> o, state = chunk_memory(q, k, v, log_decay=log_decay, beta=beta, error="after_decay")
        >>> tuple(o.shape), tuple(state.shape)
        ((2, 100, 4, 16), (2, 4, 16, 16))
    """
    given = (q, k, v, log_decay, beta, log_momentum, initial_state, cu_seqlens)
    why_not = _look(given, error, normalise, chunk)
    check_log_gates("chunk_memory", log_decay=log_decay, log_momentum=log_momentum)
    check_ends("chunk_memory", cu_seqlens, q.shape[1])
    q, k, v = each_head(q, k, v)
    kernels = runs_as_kernel("chunk_memory", q, why_not)
    steps = (q.shape[1], k.shape[2]) if k.dim() == 5 else None
    if log_decay is not None and log_decay.dim() == 1:
        by_head = kernels and error == "none" and steps is None  # which the kernels read as it is
        log_decay = log_decay if by_head else log_decay.expand(q.shape[:3])
    if steps is not None:
        q, k, v, log_decay, beta, cu_seqlens = one_after_another(
            q, k, v, log_decay, beta, cu_seqlens
        )
    if normalise:
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    if initial_state is not None:
        initial_state = initial_state.to(work_dtype(q))
    by_key = log_decay if log_decay is not None and log_decay.dim() == 4 else None
    if by_key is not None:
        start = (initial_state, cu_seqlens)
        o, state = _decay_of_every_key(q, k, v, by_key, beta, error, *start, factor, kernels)
    elif kernels:
        from hypercrl_kernels.memory.chunk_memory.op import memory_kernels

        place = ERRORS.index(error)
        gates = (log_decay, beta, log_momentum)
        o, state = memory_kernels(q, k, v, *gates, initial_state, cu_seqlens, place, factor, chunk)
    else:
        o, state = memory_chunks(
            q * factor,
            k,
            v,
            log_decay=log_decay,
            beta=beta,
            log_momentum=log_momentum,
            error=error,
            initial_state=initial_state,
            cu_seqlens=cu_seqlens,
            chunk=chunk,
        )
    if normalise:
        o = normalised(o)
    return o if steps is None else o.unflatten(1, steps)[:, :, -1], state


def _decay_of_every_key(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor | None,
    error: Error,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    factor: float,
    kernels: bool,
) -> tuple[Tensor, Tensor]:
    """What `chunk_gla` has: without strengths gated linear attention, with them the delta rule."""
    if error == "none" and beta is not None:
        v, beta = (beta[..., None] * v).to(v.dtype), None
    elif error != "none" and beta is None:
        beta = torch.ones_like(v[..., 0])
    if kernels:
        from hypercrl_kernels.memory.chunk_gla.op import gla_kernels

        return gla_kernels(q, k, v, log_decay, beta, initial_state, cu_seqlens, factor)
    return gla_chunks(
        q * factor,
        k,
        v,
        log_decay,
        beta=beta,
        initial_state=initial_state,
        cu_seqlens=cu_seqlens,
    )


@once_for_each
def _look(
    q: Layout,
    k: Layout,
    v: Layout,
    log_decay: Layout | None,
    beta: Layout | None,
    log_momentum: Layout | None,
    initial_state: Layout | None,
    cu_seqlens: Layout | None,
    error: str,
    normalise: bool,
    chunk: int,
) -> str | None:
    """Check the arguments of `chunk_memory`; why the kernels do not take them, None: they do."""
    name = "chunk_memory"
    several, first = len(k.shape) == 5, (k, v)
    if several:
        if len(v.shape) != 5 or k.shape[:3] != v.shape[:3] or k.shape[2] == 0:
            raise ValueError(
                f"{name} needs k [B, T, n, H, K] and v [B, T, n, H, V] with one B, T and n ≥ 1; "
                f"got {tuple(k.shape)} and {tuple(v.shape)}"
            )
        first = [Layout(x.shape[:2] + x.shape[3:], x.dtype) for x in first]
    batch, length, heads = check_sequences(name, q, *first, grouped=True)
    if error not in ERRORS:
        raise ValueError(f"{name} knows error {', '.join(ERRORS)}; got {error!r}")
    if normalise and (error != "none" or log_momentum is not None):
        raise ValueError(f"{name} with normalise needs error='none' and no momentum")
    keys, values = q.shape[-1], v.shape[-1] + normalise
    sizes = {"B": batch, "T": length, "H": heads, "K": keys}
    check_gates(
        name,
        "BT",
        log_decay=log_decay,
        beta=beta,
        log_momentum=log_momentum,
        error=error,
        writes=k.shape[2] if several else None,
        **sizes,
    )
    count = check_segments(name, cu_seqlens, batch)
    if initial_state is not None:
        letters = "NHKV" if log_momentum is None else "NH2KV"
        sizes |= {"N": count, "V": values, "2": 2}
        check_shape(name, "initial_state", initial_state, letters, **sizes)
    if chunk < 1:
        raise ValueError(f"{name} needs chunks of at least 1 step, not {chunk}")
    by_key = log_decay is not None and len(log_decay.shape) == 4
    single = q.dtype == torch.float32
    return _why_not(keys, values, single, log_momentum is not None, error, by_key, chunk)


def _why_not(
    keys: int, values: int, single: bool, momentum: bool, error: str, by_key: bool, chunk: int
) -> str | None:
    """The reason why the kernels do not take such sizes, `single` in float32; None: they do."""
    if keys > MAX_KEYS:
        return f"keys are wider than {MAX_KEYS}"
    if error == "chunk_start" and chunk not in (16, 32, 64):
        return f"error='chunk_start' with chunks of {chunk}, not 16, 32 or 64"
    widest = 128 if single else 256
    if values > widest:
        return f"values are wider than {widest}"
    if by_key and error != "none" and max(keys, values) > widest // 2:
        return f"heads with a decay of every key and an error are wider than {widest // 2}"
    wide = max(keys, values) > 64 and single
    if wide and (momentum or (error == "chunk_start" and chunk > 16)):
        return "float32 heads wider than 64 with momentum or long chunks do not fit a program"
    return None
