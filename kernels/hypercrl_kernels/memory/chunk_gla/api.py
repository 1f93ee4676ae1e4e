"""Gated linear attention: a matrix memory in which every key forgets at its own rate."""

from __future__ import annotations

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
from hypercrl_kernels.memory.chunk_gla.chunked import gla_chunks


def chunk_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """M_t = diag(exp(log_decay_t)) M_{t−1} + k_t v_tᵀ, o_t = scale · M_tᵀ q_t.

    GLA (Yang et al. 2024, eq. 3), and HGRN2 with k = 1 − exp(log_decay) (Qin et al. 2024).

    Args:
        q, k: [B, T, H, K].
        v: [B, T, H, V].
        log_decay: [B, T, H, K], ≤ 0; −∞ empties the key's row.
        scale: of the reads; K^-½ by default.
        initial_state: [N, H, K, V]. None: zeros.
        cu_seqlens: [N + 1] offsets of N segments that lie one after another in a batch of one.

    Returns:
        o [B, T, H, V] in the dtype of v, and the final state, float32 (float64 for float64).

    Raises:
        ValueError: shapes that do not fit together; on a CPU, log gates above zero (on a GPU that
            is not looked for, and what comes out is not defined).

    Example:
        >>> q, k, v = torch.randn(3, 2, 100, 4, 16)
        >>> o, state = chunk_gla(q, k, v, log_decay=-torch.rand_like(k))
        >>> tuple(o.shape), tuple(state.shape)
        ((2, 100, 4, 16), (2, 4, 16, 16))
    """
    name = "chunk_gla"
    batch, length, heads = check_sequences(name, q, k, v)
    width = q.shape[-1]
    check_shape(name, "log_decay", log_decay, "BTHK", B=batch, T=length, H=heads, K=width)
    check_log_gates(name, log_decay=log_decay)
    count = check_offsets(name, cu_seqlens, batch, length)
    if initial_state is not None:
        sizes = {"N": count, "H": heads, "K": width, "V": v.shape[-1]}
        check_shape(name, "initial_state", initial_state, "NHKV", **sizes)
        initial_state = initial_state.to(work_dtype(q))
    factor = width**-0.5 if scale is None else scale
    wide = f"keys are wider than {MAX_KEYS}" if width > MAX_KEYS else None
    if runs_as_kernel(name, q, wide):
        from hypercrl_kernels.memory.chunk_gla.op import gla_kernels

        return gla_kernels(q, k, v, log_decay, None, initial_state, cu_seqlens, factor)
    return gla_chunks(
        q * factor, k, v, log_decay, initial_state=initial_state, cu_seqlens=cu_seqlens
    )
