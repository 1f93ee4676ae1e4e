"""A memory of one matrix a head: linear attention, RetNet, the delta rules, linear Titans."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import (
    MAX_KEYS,
    check_log_gates,
    check_offsets,
    check_sequences,
    check_shape,
    runs_as_kernel,
    work_dtype,
)
from hypercrl_kernels.memory.chunk_memory.chunked import memory_chunks
from hypercrl_kernels.memory.chunk_memory.naive import Error, normalised

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
    eq. 10), Titans with a linear memory (error="before_decay" or "chunk_start" and all gates;
    Behrouz et al. 2025, eqs. 11 to 14).

    Args:
        q, k: [B, T, H, K]. For an error they should have unit length: β|k|² < 2 keeps M bounded.
        v: [B, T, H, V].
        log_decay: ≤ 0; [H], or [B, T, H] with one per step. −∞ empties the memory: nothing of
            before is left, in no digit. None: nothing decays.
        beta: [B, T, H]. None: 1.
        log_momentum: [B, T, H], ≤ 0. None: no momentum.
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
    _check(q, k, v, log_decay, beta, log_momentum, error, normalise, initial_state, cu_seqlens)
    if chunk < 1:
        raise ValueError(f"chunk_memory needs chunks of at least 1 step, not {chunk}")
    if log_decay is not None and log_decay.dim() == 1:
        log_decay = log_decay.expand(q.shape[:3])
    if normalise:
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    if initial_state is not None:
        initial_state = initial_state.to(work_dtype(q))
    if runs_as_kernel("chunk_memory", q, _why_not(q, v, log_momentum, error, chunk)):
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
    return o, state


def _why_not(
    q: Tensor, v: Tensor, log_momentum: Tensor | None, error: Error, chunk: int
) -> str | None:
    """The reason why the kernels do not take this, None where they do."""
    if q.shape[-1] > MAX_KEYS:
        return f"keys are wider than {MAX_KEYS}"
    if error == "chunk_start" and chunk not in (16, 32, 64):
        return f"error='chunk_start' with chunks of {chunk}, not 16, 32 or 64"
    widest = 128 if q.dtype == torch.float32 else 256
    if v.shape[-1] > widest:
        return f"values are wider than {widest}"
    wide = max(q.shape[-1], v.shape[-1]) > 64 and q.dtype == torch.float32
    if wide and (log_momentum is not None or (error == "chunk_start" and chunk > 16)):
        return "float32 heads wider than 64 with momentum or long chunks do not fit a program"
    return None


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    error: str,
    normalise: bool,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    name = "chunk_memory"
    batch, length, heads = check_sequences(name, q, k, v)
    if error not in ERRORS:
        raise ValueError(f"{name} knows error {', '.join(ERRORS)}; got {error!r}")
    if normalise and (error != "none" or log_momentum is not None):
        raise ValueError(f"{name} with normalise needs error='none' and no momentum")
    sizes = {"B": batch, "T": length, "H": heads}
    if log_decay is not None:
        letters = "H" if log_decay.dim() == 1 else "BTH"
        check_shape(name, "log_decay", log_decay, letters, **sizes)
    for gate, x in (("beta", beta), ("log_momentum", log_momentum)):
        if x is not None:
            check_shape(name, gate, x, "BTH", **sizes)
    check_log_gates(name, log_decay=log_decay, log_momentum=log_momentum)
    count = check_offsets(name, cu_seqlens, batch, length)
    if initial_state is not None:
        letters = "NHKV" if log_momentum is None else "NH2KV"
        widths = {"K": q.shape[-1], "V": v.shape[-1] + normalise, "2": 2}
        check_shape(name, "initial_state", initial_state, letters, N=count, H=heads, **widths)
